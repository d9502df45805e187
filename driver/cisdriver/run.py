"""The verb ``run``: bake, deploy and verify in one run, which is continued where it stopped.

A stage counts as done by nothing but its own JSON: ``bake.json`` that names an image, ``deploy.json`` and
``workloads-result.json`` that says done. When all are done, so is the run.
"""

from __future__ import annotations

import itertools

from cisdriver import account, bake, deploy, earlier, nodes, rundir, workloads
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
    check(settings)
    earlier.refuse_live(settings, region)
    found, note = unfinished(settings, region)
    if found and fresh:
        note = f"Start anew; run {found.id} is given up."
    continued = None if fresh else found
    facts = {"region": region, "sandbox": (continued.read("run") or {}).get("sandbox", "") if continued else ""}
    with session("run", settings, totals, as_json, facts, continued) as now:
        if note:
            now.note(note)
        _work(now, region, found)
    return now


def check(settings: Settings) -> None:
    """Raise UsageError for settings whose cluster the last stage could not verify: an hour would be lost by then."""
    if settings.sandbox:
        return
    if not (settings.vpc_id or settings.existing or settings.public_access_cidr):
        raise UsageError(
            "verify could not reach the cluster: its VPC is made by this run, and its API server answers there alone",
            "Add --public-access-cidr with this machine's address as the Internet sees it; or --vpc-id and --subnet-ids"
            " of a VPC that this machine reaches. Or bake and deploy, make a way into the VPC, and verify --cluster.",
        )
    if settings.nat == "none" and not (settings.workload_image and settings.kube_bench_image):
        raise UsageError(
            "verify could not run its workloads: with --nat none no node reaches the registries of their images",
            "Copy the two to ECR of the account, and name the copies: --workload-image and --kube-bench-image."
            " docs/workloads.md shows how.",
        )


def unfinished(settings: Settings, region: str) -> tuple[RunDir | None, str]:
    """The newest run of these settings and region, unless it has ended well; or a line why there is none to continue.

    One whose cluster was destroyed since, or whose sandbox has ended, has nothing left that could be continued.
    """
    note, newest = "", True
    for run, about in rundir.newest_first(settings.run_dir):
        if earlier.concerns(about, settings, region) and earlier.destroyed(run, about):
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


def _work(now: Session, region: str, before: RunDir | None) -> None:
    """``before``: the run that was left unfinished, be it this one or one that is given up."""
    from cisdriver import report

    earlier.settle(now, region)
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
        "bake": bake.finished(earlier.read(run, "bake")),
        "deploy": (earlier.read(run, "deploy") or {}).get("status") == "done",
        "verify": (earlier.read(run, workloads.RESULT) or {}).get("status") == "done",
    }
    return list(itertools.takewhile(marks.__getitem__, STAGES))


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


def _clear(now: Session, where: Account, before: RunDir) -> None:
    """Delete what a half-done bake has left in the account, and keep its files from being read as the next one's."""
    result = earlier.read(before, "bake")
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
