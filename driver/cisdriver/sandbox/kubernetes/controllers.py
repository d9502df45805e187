"""All controllers, run until nothing changes any more: what a cluster comes to in seconds is there at once."""

from __future__ import annotations

from . import kubelet, nodes, policies, scheduler, storage, workloads
from .cluster import Cluster

#: Rounds after which something does not come to rest, which is a defect here: a Job takes one for each of its tries.
_ROUNDS = 500


def settle(cluster: Cluster) -> None:
    """Raises RuntimeError if the controllers go on contradicting each other."""
    for _ in range(_ROUNDS):
        before = cluster.store.version
        for controller in (nodes, workloads, storage):
            controller.reconcile(cluster)
        scheduler.schedule(cluster)
        storage.reconcile(cluster)
        kubelet.reconcile(cluster)
        policies.reconcile(cluster)
        if cluster.store.version == before:
            return
    last = [f"{one.type} {one.kind} {one.object['metadata']['name']}" for one in cluster.store.changes[-4:]]
    raise RuntimeError(f"the sandbox's controllers do not settle; the last changes: {', '.join(last)}")
