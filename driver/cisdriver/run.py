"""The verb ``run``: bake, deploy and verify in one run, which is continued where it stopped.

A stage counts as done by nothing but its own JSON: ``bake.json`` that names an image, ``deploy.json`` and
``workloads-result.json`` that says done. When all are done, so is the run.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from cisdriver import account, bake, deploy, nodes, processes, rundir, runner, workloads
from cisdriver.account import Account
from cisdriver.errors import BakeError, FindingsError, UsageError
from cisdriver.rundir import RunDir
from cisdriver.session import Session, given, session
from cisdriver.settings import Settings

STAGES = ("bake", "deploy", "verify")
_ENDED_WELL = ("done", "findings")


def run(settings: Settings, as_json: bool, fresh: bool) -> Session:
    """Bake, deploy and verify; or what of it the newest unfinished run of the same settings has left to do.

    Raises UsageError before anything starts, and while another process is at that run; then what a stage ends with.
    """
    region, totals = bake.prepare(settings)
    if settings.image:
        raise UsageError("run deploys the image that it bakes, and --image names another", "Leave it out, or deploy.")
    deploy.check(settings)
    found, note = unfinished(settings, region)
    if found and fresh:
        note = f"Start anew; run {found.id} is given up."
    continued = None if fresh else found
    facts = {"region": region, "sandbox": (continued.read("run") or {}).get("sandbox", "") if continued else ""}
    with session("run", settings, totals, as_json, facts, continued) as now:
        if note:
            now.note(note)
        if found and fresh:
            with rundir.held(found):
                _work(now, region, found)
        else:
            _work(now, region, found)
    return now


def unfinished(settings: Settings, region: str) -> tuple[RunDir | None, str]:
    """The newest run of these settings and region, unless it has ended well; or a line why there is none to continue.

    One whose cluster was destroyed since, or whose sandbox has ended, has nothing left that could be continued.
    """
    note, newest = "", True
    for run, about in rundir.newest_first(settings.run_dir):
        if about.get("verb") == "destroy" and _destroyed(run, about, settings, region):
            break
        if about.get("verb") != "run":
            continue
        if about.get("settings") != given(settings) or about.get("region") != region:
            if newest and about.get("status") not in _ENDED_WELL:
                note = f"Run {run.id} of other settings is unfinished; the same settings would continue it."
            newest = False
            continue
        if about.get("status") in _ENDED_WELL:
            break
        url = about.get("sandbox")
        if url and url != account.kept_url(settings):
            return None, f"Run {run.id} cannot be continued: its sandbox has ended, and its image with it."
        return run, ""
    return None, note


def _destroyed(run: RunDir, about: dict[str, Any], settings: Settings, region: str) -> bool:
    """Whether a run of destroy took away the cluster of these settings."""
    set_then = about.get("settings") or {}
    same = set_then.get("cluster", "cisdriver") == settings.cluster and about.get("region") == region
    same = same and bool(set_then.get("sandbox")) == settings.sandbox
    return same and (run.read("destroy") or {}).get("status") == "done"


def _work(now: Session, region: str, before: RunDir | None) -> None:
    """``before``: the run that was left unfinished, be it this one or one that is given up."""
    from cisdriver import report

    if before:
        _stop(now, before)
    with account.opened(now, region, kept=True, failure=BakeError) as where:
        now.facts["sandbox"] = where.url
        now.save()
        if before:
            _clear(now, where, before)
        done = finished(now.run)
        now.facts |= {stage: now.run.read(stage) for stage in done if stage != "verify"}
        left = [stage for stage in STAGES if stage not in done]
        if before == now.run:
            now.note(_continues(now, done, left))
        for stage in left:
            now.stop_if_interrupted()
            now.save()
            _STAGES[stage](now, where)
        if not left:
            now.facts["reports"] = report.write(now.run, now.about())
    nodes.refuse_findings(now.run.documents(), "The image is registered, deployed and verified nevertheless.")


def finished(run: RunDir) -> list[str]:
    """The stages that are done, up to the first that is not."""
    marks = {
        "bake": bake.finished(_read(run, "bake")),
        "deploy": (_read(run, "deploy") or {}).get("status") == "done",
        "verify": (_read(run, workloads.RESULT) or {}).get("status") == "done",
    }
    return list(itertools.takewhile(marks.__getitem__, STAGES))


def _read(run: RunDir, stage: str) -> Any:
    """A stage's JSON; one that a power cut tore tells as little as none."""
    try:
        return run.read(stage)
    except UsageError:
        return None


def _continues(now: Session, done: list[str], left: list[str]) -> str:
    image = ((now.facts.get("bake") or {}).get("image") or {}).get("id")
    names = {
        "bake": f"the bake of {image}",
        "deploy": f"the deployment of {now.settings.cluster}",
        "verify": "its verification",
    }
    so_far = f" {' and '.join(names[stage] for stage in done)} stand{'s' if len(done) == 1 else ''};" if done else ""
    go_on = f"next is {left[0]}" if left else "nothing is left to do"
    return f"Continue run {now.run.id} of these settings:{so_far} {go_on}.\n--fresh would start anew."


def _stop(now: Session, before: RunDir) -> None:
    """End what outlived a driver that was killed: two at the same work would undo each other's."""
    alive = runner.outliving(before.events)
    if alive:
        with now.stage("stop"):
            processes.stop(alive, runner.TIDY_SECONDS, lambda: now.interrupt.count > 0, time.sleep)
            now.skip()  # what the dying say is no step of this run


def _clear(now: Session, where: Account, before: RunDir) -> None:
    """Delete what a half-done bake has left in the account, and keep its files from being read as the next one's."""
    result = _read(before, "bake")
    if bake.finished(result) or not (before.path / "ansible" / "bake").exists():
        return
    if result is None or result.get("left"):
        bake.sweep(now, where, before)
    if before == now.run:
        before.set_aside()


def _bake(now: Session, where: Account) -> None:
    try:
        bake.work(now, where)
    except FindingsError:
        if not bake.finished(now.facts["bake"]):
            raise  # else the run goes on with the image, and ends with this


def _deploy(now: Session, where: Account) -> None:
    deploy.work(now, where, [deploy.image_of(now.run, now.facts["bake"])])


_STAGES = {"bake": _bake, "deploy": _deploy, "verify": workloads.work}
