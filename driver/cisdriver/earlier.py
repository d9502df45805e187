"""What earlier runs of the same run directory know of a cluster, and what they have left at work on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from cisdriver import processes, rundir, runner
from cisdriver.account import Account
from cisdriver.errors import UsageError
from cisdriver.rundir import RunDir
from cisdriver.session import Session
from cisdriver.settings import Settings

#: Verbs that work on a cluster; ``verify`` of machines has no region in its record.
_VERBS = frozenset({"deploy", "destroy", "run", "verify"})
_CLUSTER = Settings.model_fields["cluster"].default


def runs(settings: Settings, region: str) -> Iterator[tuple[RunDir, dict[str, Any]]]:
    """The runs that were about the cluster of these settings, with their records, newest first."""
    for run, about in rundir.newest_first(settings.run_dir):
        if concerns(about, settings, region):
            yield run, about


def concerns(about: dict[str, Any], settings: Settings, region: str) -> bool:
    """Whether a run's record is about the cluster of these settings."""
    then = about.get("settings") or {}
    same = (then.get("cluster", _CLUSTER), bool(then.get("sandbox"))) == (settings.cluster, settings.sandbox)
    return same and about.get("verb") in _VERBS and about.get("region") == region


def read(run: RunDir, stage: str) -> Any:
    """A stage's JSON; one that a power cut tore tells as little as none."""
    try:
        return run.read(stage)
    except UsageError:
        return None


def destroyed(run: RunDir, about: dict[str, Any]) -> bool:
    """Whether a run took its cluster away."""
    return about.get("verb") == "destroy" and (read(run, "destroy") or {}).get("status") == "done"


def refuse_live(settings: Settings, region: str, but: RunDir | None = None) -> None:
    """Raise UsageError while another process is at this cluster; ``but`` is the run of our own."""
    for run, _ in runs(settings, region):
        if run != but:
            with rundir.held(run):
                pass


def settle(now: Session, region: str) -> None:
    """End what outlived drivers that were killed: two at the same cluster would undo each other's work.

    Raises UsageError while another driver is at it. Each holds its own run before it looks at the others', so of two
    that begin at once at least one sees the other.
    """
    refuse_live(now.settings, region, now.run)
    alive = runner.outliving(*(run.events for run, _ in runs(now.settings, region)))
    if alive:
        with now.stage("stop"):
            processes.stop(alive, runner.TIDY_SECONDS, lambda: now.interrupt.count > 0, time.sleep)
            now.skip()  # what the dying say is no step of this run
        now.stop_if_interrupted()


def deployment(settings: Settings, where: Account) -> dict[str, Any]:
    """deploy.json of the newest deployment that is done, unless it was destroyed since; empty where there is none."""
    for run, about in runs(settings, where.region):
        if destroyed(run, about):
            break
        result = read(run, "deploy") or {}
        if result.get("status") == "done" and about.get("sandbox", "") == where.url:
            return dict(result)
    return {}


def images(settings: Settings, where: Account) -> list[str]:
    """AMI ids that destroying would have taken with the node groups, were it not for the stacks that named them.

    Those of the newest deployment, and those that a destroy which came to no end had planned to delete.
    """
    deployed = deployment(settings, where).get("node_groups", [])
    found = {group["image"]["id"] for group in deployed if not group["baseline"]}
    for run, about in runs(settings, where.region):
        if destroyed(run, about):
            break
        found |= {image["id"] for image in (about.get("planned") or {}).get("images", [])}
    return sorted(found)
