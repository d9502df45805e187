"""The verb ``bake``: an image, from a base to a registered AMI with its report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from cisdriver import account, aws_errors, checks, choice, collection, nodes
from cisdriver.account import Account
from cisdriver.errors import BakeError, InterruptedRunError, UsageError, VerificationError
from cisdriver.rundir import RunDir
from cisdriver.runner import Outcome, Play
from cisdriver.session import Session, session
from cisdriver.settings import Settings, suggest

_VARIABLES = {
    "image_kubernetes_version": "kubernetes_version",
    "image_architecture": "architecture",
    "image_name": "name",
    "image_instance_type": "instance_type",
    "image_subnet_id": "subnet_id",
    "image_encrypt": "encrypt",
    "image_kms_key_id": "kms_key_id",
    "image_publish_ssm_parameter": "publish_parameter",
    "image_partitions": "partitions",
    "image_partitions_size": "partitions_size",
    "image_ssh_source_cidrs": "ssh_source_cidr",
}


def bake(settings: Settings, as_json: bool) -> Session:
    """Bake an image. Raises UsageError before anything starts, then any CisdriverError but ScanError."""
    region, totals = prepare(settings)
    with (
        session("bake", settings, totals, as_json) as now,
        account.opened(now, region, kept=False, failure=BakeError) as where,
    ):
        work(now, where)
    return now


def prepare(settings: Settings) -> tuple[str, dict[str, int]]:
    """The region, and how many rules and checks there are to go through. Raises UsageError for whatever is wrong with
    the settings, or missing on this machine."""
    chosen = choice.selections(settings, [choice.BAKE_BENCHMARK])[0]
    base(settings)
    _volumes(settings)
    region = account.region(settings)
    if shutil.which("packer") is None:
        raise UsageError(
            "packer is not installed",
            "Debian: apt-get install packer. Else: https://developer.hashicorp.com/packer/install."
            " `cisdriver doctor` shows what else is missing.",
        )
    return region, {**choice.count(settings, chosen.benchmark), "verify": checks.count()}


def work(now: Session, where: Account) -> None:
    """Bake within a session. Raises what the bake ended with."""
    from cisdriver import report

    outcome = now.play(_play(now, where))
    result = now.run.read("bake") or {}
    if outcome.interrupted or not result:
        sweep(now, where)
    now.facts["bake"] = result
    if now.run.documents() or now.run.results("verify"):
        now.facts["reports"] = report.write(now.run, now.about())
    _judge(now, outcome, result)


def finished(result: Mapping[str, Any] | None) -> bool:
    """Whether a bake.json tells of an image; one with findings is registered with ``--keep-failed``."""
    return result is not None and result.get("status") in ("done", "findings") and bool(result.get("image"))


def base(settings: Settings) -> Any:
    """``--base`` as role image takes it. Raises UsageError for a name without an owner."""
    wanted = settings.base or "ssm"
    if wanted == "ssm" or wanted.startswith("ami-"):
        if settings.base_owner:
            raise UsageError(f"--base-owner goes with a name, not with --base {wanted}", "Leave it out.")
        return wanted
    if not settings.base_owner:
        raise UsageError(
            f"--base: {wanted!r} is neither an AMI id nor ssm{suggest(wanted, ['ssm'])}, so it is a name: whose?",
            "Name the owner with --base-owner (amazon, self, or an account id).",
        )
    return {"owner": settings.base_owner, "name": wanted}


def _volumes(settings: Settings) -> None:
    """Raise UsageError for a size of a volume that there will not be."""
    wanted = settings.level == 2 if settings.partitions is None else settings.partitions
    if settings.partitions_size and not wanted:
        raise UsageError("--partitions-size: no second volume is laid out", "Add --partitions, or leave it out.")


def _play(now: Session, where: Account) -> Play:
    settings = now.settings
    variables = {name: getattr(settings, key) for name, key in _VARIABLES.items()}
    variables["image_ssh_source_cidrs"] = list(settings.ssh_source_cidr)
    if (settings.benchmark or "").startswith("al2-"):
        variables["image_os"] = "al2"
    given = {name: value for name, value in variables.items() if value is not None and value != []}
    return Play(
        playbook=f"{collection.NAME}.bake",
        ident="bake",
        extra_vars={
            **choice.extra_vars(settings),
            **given,
            **_identity(now.run, where),
            "image_base": base(settings),
            "image_session_manager": settings.session_manager,
            "image_keep_failed": settings.keep_failed,
            "image_tags": settings.tag,
            **where.variables,
        },
        env=where.env,
        drop_env=where.drop_env,
        verbose=settings.verbose,
    )


def _identity(run: RunDir, where: Account) -> dict[str, Any]:
    return {"image_run_id": run.id, "image_run_dir": str(run.path), "image_region": where.region}


def sweep(now: Session, where: Account, lost: RunDir | None = None) -> None:
    """Delete what a bake that could not end by itself has left: by tag, so it needs to know nothing else.

    ``lost``: the run of a bake that was killed; an image that it made and could not record goes as well. Raises
    BakeError naming the tag.
    """
    swept = lost or now.run
    play = Play(
        playbook=f"{collection.NAME}.sweep",
        ident="sweep",
        extra_vars={**_identity(swept, where), "image_sweep_finished": lost is not None},
        env=where.env,
        drop_env=where.drop_env,
    )
    with now.stage("sweep"):
        outcome = now.play(play)
    now.facts["swept"] = outcome.rc == 0
    if outcome.rc:
        raise BakeError(
            f"not everything could be deleted: {nodes.last_words(outcome)}",
            f"In {where.region}, delete what carries the tag cisdriver:run-id={swept.id}.",
        )


def _judge(now: Session, outcome: Outcome, result: dict[str, Any]) -> None:
    """Raise what the bake ended with."""
    if outcome.interrupted:
        image = (result.get("image") or {}).get("id")
        told = f"the image {image} was registered already, all else" if image else "everything that was started"
        raise InterruptedRunError(f"interrupted; {told} is terminated and deleted", f"The record is in {now.run.path}.")
    log = f"Ansible's own output is in {outcome.log}, Packer's in {now.run.path / 'packer.log'}."
    status = result.get("status")
    if status == "verification_failed":
        raise _unfit(now, result)
    if status == "findings":
        image = result.get("image")
        kept = f"The image {image['id']} is registered nevertheless." if image else "No image is registered."
        nodes.refuse_findings(now.run.documents(), f"{kept} Mend them, or register with --keep-failed.")
    if status != "done" or outcome.rc:
        reason = result.get("reason") or nodes.reason(outcome)
        message, remedy = aws_errors.explain(in_flags(reason), f"`cisdriver {now.verb}`")
        raise BakeError(f"the bake failed: {message}", "\n".join(filter(None, (remedy, log))))


def _unfit(now: Session, result: dict[str, Any]) -> VerificationError:
    """What a bake ends with whose node would not serve: the checks, or why they could not even be run."""
    stage = (now.run.read("provision") or {}).get("stage", "verify")
    said = [lines for document in now.run.results("verify").values() if (lines := nodes.broken_checks(document))]
    told = f"{stage}: {said[0]}" if said else str(result.get("reason"))
    return VerificationError(
        f"the bake failed: {told}",
        "No image is registered, --keep-failed or not. Leave out by --skip what did it, or mend the base image.",
    )


def in_flags(text: str) -> str:
    """The role's words with its variables named as our flags."""
    names = {**_VARIABLES, "image_base": "base", "image_region": "region", "image_session_manager": "session_manager"}
    return nodes.in_flags(text, names)
