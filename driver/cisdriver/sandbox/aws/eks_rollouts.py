"""What EKS goes on doing for a node group after its reply: nodes come, go, are replaced, each time in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from . import eks_nodes
from .eks_nodes import Launch, NodesError
from .eks_state import Cluster, NodeGroup, Record, now
from .world import World


def in_background(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def create(world: World, region: str, cluster: Cluster, group: NodeGroup, launch: Launch) -> None:
    try:
        eks_nodes.make_profile(world, region, group)
        eks_nodes.start(world, region, cluster, group, launch, group.facts["scalingConfig"]["desiredSize"])
    except Exception as error:  # it has to end in a status somebody can see
        settle(world, group, "CREATE_FAILED", _failure(error).issue())
    else:
        settle(world, group, "ACTIVE")


def _failure(error: Exception) -> NodesError:
    if isinstance(error, NodesError):
        return error
    return NodesError("InternalFailure", f"{type(error).__name__}: {error}", [])


def settle(world: World, group: NodeGroup, status: str, *issues: Record) -> None:
    with world.lock:
        group.facts.update(status=status, modifiedAt=now(), health={"issues": list(issues)})


def delete(world: World, region: str, cluster: Cluster, group: NodeGroup) -> None:
    try:
        eks_nodes.stop(world, region, cluster, group, list(group.nodes))
        eks_nodes.remove_profile(world, region, group)
    except Exception as error:  # it has to end in a status somebody can see
        settle(world, group, "DELETE_FAILED", _failure(error).issue())
        return
    with world.lock:
        cluster.groups.pop(group.name, None)


def replace(
    world: World, region: str, cluster: Cluster, group: NodeGroup, launch: Launch, changes: Record, update: Record
) -> None:
    """New nodes first. If they come, the old ones go and ``changes`` become the group's facts; if not, they go."""

    def work() -> None:
        old = list(group.nodes)
        try:
            eks_nodes.start(world, region, cluster, group, launch, group.facts["scalingConfig"]["desiredSize"])
        except NodesError as error:
            eks_nodes.stop(world, region, cluster, group, [one for one in group.nodes if one not in old])
            text = f"Couldn't proceed with upgrade process as new nodes are not joining node group {group.name}"
            raise NodesError(error.code, f"{text} ({error.message})", error.instances) from error
        eks_nodes.stop(world, region, cluster, group, old)
        with world.lock:
            group.facts.update(changes)

    _carry_out(world, group, update, work)


def scale(
    world: World, region: str, cluster: Cluster, group: NodeGroup, launch: Launch, count: int, update: Record
) -> None:
    """``count`` more nodes, or fewer: the oldest go first."""

    def work() -> None:
        if count > 0:
            eks_nodes.start(world, region, cluster, group, launch, count)
        else:
            eks_nodes.stop(world, region, cluster, group, list(group.nodes)[:-count])

    _carry_out(world, group, update, work)


def _carry_out(world: World, group: NodeGroup, update: Record, work: Callable[[], None]) -> None:
    """The group is ACTIVE again afterwards; how it went stands in the update."""
    try:
        work()
    except Exception as error:  # it has to end in a status somebody can see
        failure = _failure(error)
        # An update has fewer codes than the issues of a node group.
        code = "NodeCreationFailure" if isinstance(error, NodesError) else "Unknown"
        errors = [{"errorCode": code, "errorMessage": failure.message, "resourceIds": failure.instances}]
        outcome: Record = {"status": "Failed", "errors": errors}
    else:
        outcome = {"status": "Successful"}
    with world.lock:
        update.update(outcome)
        settle(world, group, "ACTIVE")
