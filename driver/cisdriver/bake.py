"""The verb ``bake``: an image, from a base to a registered AMI with its report."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cisdriver import checks, choice, collection, credentials, nodes
from cisdriver.errors import BakeError, InterruptedRunError, UsageError, VerificationError
from cisdriver.runner import Outcome, Play
from cisdriver.session import Session, session
from cisdriver.settings import Settings, suggest

#: What could lead a tool to another account than the one meant, when the sandbox's is meant.
_ACCOUNT = frozenset(
    {"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CA_BUNDLE"}
    | {name for name in os.environ if name.startswith(("AWS_ENDPOINT_URL", "AWS_CONTAINER_CREDENTIALS"))}
)
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


@dataclass(frozen=True)
class Account:
    """Where to bake: environment and role variables that lead there."""

    region: str
    env: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    drop_env: frozenset[str] = frozenset()


def bake(settings: Settings, as_json: bool) -> Session:
    """Bake an image. Raises UsageError before anything starts, then any CisdriverError but ScanError."""
    from cisdriver import report

    chosen = choice.selections(settings, [choice.BAKE_BENCHMARK])[0]
    base(settings)
    _volumes(settings)
    region = _ready(settings)
    totals = {**choice.count(settings, chosen.benchmark), "verify": checks.count()}
    with session("bake", settings, totals, as_json) as now:
        with _account(now, region) as account:
            outcome = now.play(_play(now, account))
            result = now.run.read("bake") or {}
            if outcome.interrupted or not result:
                _sweep(now, account)
        now.facts["bake"] = result
        if now.run.documents() or now.run.results("verify"):
            now.facts["reports"] = report.write(now.run, now.about())
        _judge(now, outcome, result)
    return now


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


def _ready(settings: Settings) -> str:
    """The region; raises UsageError for whatever is missing on this machine."""
    if settings.sandbox:
        _sandbox_class()
        region = settings.region or "eu-central-1"
    else:
        region = credentials.require(settings.region)
    if shutil.which("packer") is None:
        raise UsageError(
            "packer is not installed",
            "Debian: apt-get install packer. Else: https://developer.hashicorp.com/packer/install."
            " `cisdriver doctor` shows what else is missing.",
        )
    return region


def _sandbox_class() -> Any:
    try:
        import moto  # noqa: F401 - only to see whether it is there: the sandbox runs in a process of its own
        import werkzeug  # noqa: F401 - the same
    except ImportError as error:
        raise UsageError(f"the sandbox needs {error.name}", "pip install 'cisdriver[sandbox]'") from error
    from cisdriver.sandbox.aws import Sandbox

    return Sandbox


@contextmanager
def _account(now: Session, region: str) -> Iterator[Account]:
    """The real account, or the embedded one for as long as the bake lasts."""
    if not now.settings.sandbox:
        yield Account(region, {"AWS_REGION": region, "AWS_DEFAULT_REGION": region})
        return
    from cisdriver.sandbox.aws import SandboxError

    sandbox = _sandbox_class()(region=region)
    try:
        with now.stage("sandbox"):
            try:
                endpoint = sandbox.start()
            except SandboxError as error:
                raise BakeError(str(error), "`cisdriver doctor --sandbox` shows what is missing.") from error
            now.stop_if_interrupted()
        empty = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        variables = {"image_ssh_host": endpoint.ssh_host, "image_ssh_port": endpoint.ssh_port}
        yield Account(region, {**empty, **endpoint.env}, variables, _ACCOUNT)
    finally:
        sandbox.close()


def _play(now: Session, account: Account) -> Play:
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
            **_identity(now, account),
            "image_base": base(settings),
            "image_session_manager": settings.session_manager,
            "image_keep_failed": settings.keep_failed,
            "image_tags": settings.tag,
            **account.variables,
        },
        env=account.env,
        drop_env=account.drop_env,
        verbose=settings.verbose,
    )


def _identity(now: Session, account: Account) -> dict[str, Any]:
    return {"image_run_id": now.run.id, "image_run_dir": str(now.run.path), "image_region": account.region}


def _sweep(now: Session, account: Account) -> None:
    """Delete what a bake that could not end by itself has left: by tag, so it needs to know nothing else."""
    play = Play(
        playbook=f"{collection.NAME}.sweep",
        ident="sweep",
        extra_vars=_identity(now, account),
        env=account.env,
        drop_env=account.drop_env,
    )
    with now.stage("sweep"):
        outcome = now.play(play)
    now.facts["swept"] = outcome.rc == 0
    if outcome.rc:
        raise BakeError(
            f"not everything could be deleted: {nodes.last_words(outcome)}",
            f"In {account.region}, delete what carries the tag cisdriver:run-id={now.run.id}.",
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
        failures = now.tally.failures
        reason = result.get("reason") or (nodes.explain(failures[0]) if failures else nodes.last_words(outcome))
        raise BakeError(f"the bake failed: {in_flags(reason)}", log)


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
    flags = {variable: "--" + name.replace("_", "-") for variable, name in names.items()}
    return re.sub(r"\bimage_\w+", lambda match: flags.get(match[0], match[0]), text)
