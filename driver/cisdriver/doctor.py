"""``cisdriver doctor``: what this machine and this account need, one check each."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cisdriver.settings import Settings

#: EC2 calls a bake makes; each is asked with DryRun, which tells what is allowed and does nothing.
_DRY_RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("run_instances", {"ImageId": "ami-00000000000000000", "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}),
    ("create_key_pair", {"KeyName": "cisdriver-doctor"}),
    ("create_security_group", {"GroupName": "cisdriver-doctor", "Description": "cisdriver doctor"}),
    ("create_image", {"InstanceId": "i-00000000000000000", "Name": "cisdriver-doctor"}),
    ("describe_images", {"Owners": ["self"]}),
)
#: Service Quotas' code of "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", in vCPU.
_VCPU_QUOTA = "L-1216C47A"
#: vCPU of the instance a bake starts by default.
_VCPU_NEEDED = 2
_PLUGIN_PAGE = (
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
)


@dataclass(frozen=True)
class Check:
    """One line of the table. ``status`` is ``ok``, ``missing`` or ``not checked``; ``remedy`` says how to get it."""

    name: str
    status: str
    found: str = ""
    remedy: str = ""
    needed: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def checks(settings: Settings) -> list[Check]:
    """Every check that the way asked for needs."""
    found = [_python(), _module("ansible-core", "ansible", "pip install cisdriver"), _packer()]
    found.append(_program("ssh", "ssh", "-V", "apt-get install openssh-client", needed=True))
    found.append(_module("kubernetes", "kubernetes", "pip install cisdriver"))
    if settings.sandbox:
        return found + _sandbox()
    plugin = "session-manager-plugin"
    found.append(_program(plugin, plugin, "--version", f"Only for --session-manager: {_PLUGIN_PAGE}", needed=False))
    return found + _account(settings)


def _python() -> Check:
    version = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return Check("python", "ok" if ok else "missing", version, "" if ok else "Install Python 3.11 or newer")


def _module(name: str, module: str, remedy: str) -> Check:
    from importlib import metadata
    from importlib.util import find_spec

    if find_spec(module) is None:
        return Check(name, "missing", remedy=remedy)
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = ""
    return Check(name, "ok", version)


def _program(name: str, program: str, flag: str, remedy: str, needed: bool) -> Check:
    """A program, with the first version number it prints."""
    path = shutil.which(program)
    if path is None:
        return Check(name, "missing", remedy=remedy, needed=needed)
    return Check(name, "ok", f"{_version(path, flag)} {path}".strip(), needed=needed)


def _version(path: str, flag: str) -> str:
    try:
        done = subprocess.run(
            [path, flag], capture_output=True, text=True, timeout=10, env={**os.environ, "CHECKPOINT_DISABLE": "1"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return match[0] if match else ""


def _packer() -> Check:
    remedy = "apt-get install packer, or https://developer.hashicorp.com/packer/install"
    return _program("packer", "packer", "--version", remedy, needed=True)


def _sandbox() -> list[Check]:
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [
        _module("moto", "moto", "pip install 'cisdriver[sandbox]'"),
        _program("podman", "podman", "--version", "apt-get install podman", needed=True),
        _program("runc", "runc", "--version", "apt-get install runc", needed=True),
        _program("debootstrap", "debootstrap", "--version", "apt-get install debootstrap", needed=True),
        Check("root", "ok") if root else Check("root", "missing", remedy="Run as root: stand-in nodes run systemd"),
    ]


def _account(settings: Settings) -> list[Check]:
    """Credentials and what they may do. Without credentials the rest is said to be unchecked."""
    from cisdriver import credentials
    from cisdriver.errors import UsageError

    rest = ("identity", "permissions", "vCPU quota")
    try:
        region = credentials.require(settings.region)
    except UsageError as error:
        unchecked = [Check(name, "not checked", "needs credentials", needed=False) for name in rest]
        return [Check("credentials", "missing", error.message, error.remedy), *unchecked]
    import boto3
    from botocore.config import Config

    config = Config(region_name=region, connect_timeout=3, read_timeout=5, retries={"max_attempts": 1})
    session = boto3.Session()
    return [
        Check("credentials", "ok", region),
        _asked("identity", lambda: _identity(session.client("sts", config=config))),
        _asked("permissions", lambda: _permissions(session.client("ec2", config=config))),
        _asked("vCPU quota", lambda: _quota(session.client("service-quotas", config=config))),
    ]


def _asked(name: str, ask: Callable[[], Check]) -> Check:
    """A check that asks AWS. No answer is no verdict, except about who we are."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except (BotoCoreError, ClientError) as error:
        if name == "identity":
            return Check(name, "missing", str(error), "Sign in again: aws sso login, or new access keys")
        return Check(name, "not checked", str(error), needed=False)


def _identity(sts: Any) -> Check:
    return Check("identity", "ok", sts.get_caller_identity()["Arn"])


def _permissions(ec2: Any) -> Check:
    from botocore.exceptions import ClientError

    denied = []
    for operation, parameters in _DRY_RUNS:
        try:
            getattr(ec2, operation)(DryRun=True, **parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("UnauthorizedOperation", "AccessDenied"):
                denied.append("".join(word.capitalize() for word in operation.split("_")))
    if denied:
        return Check(
            "permissions", "missing", f"denied: {', '.join(denied)}", "Allow these EC2 actions to this identity"
        )
    return Check("permissions", "ok", f"{len(_DRY_RUNS)} EC2 calls tried with DryRun")


def _quota(quotas: Any) -> Check:
    value = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=_VCPU_QUOTA)["Quota"]["Value"]
    if value < _VCPU_NEEDED:
        remedy = f"Ask for more in Service Quotas: service ec2, quota {_VCPU_QUOTA}"
        return Check("vCPU quota", "missing", f"{value:.0f} vCPU", remedy)
    return Check("vCPU quota", "ok", f"{value:.0f} vCPU on demand")


def show(found: list[Check]) -> None:
    """The table for people."""
    import click

    width = max(len(check.name) for check in found)
    for check in found:
        mark, colour = {"ok": ("✓", "green"), "missing": ("✗", "red")}.get(check.status, ("-", "yellow"))
        if not check.needed and check.status == "missing":
            mark, colour = "-", "yellow"
        detail = check.found if check.status == "ok" else f"{check.status}{': ' if check.found else ''}{check.found}"
        click.echo(f"{click.style(mark, fg=colour)} {check.name:<{width}}  {detail}")
        for line in check.remedy.splitlines() if check.status == "missing" else ():
            click.echo(f"  {'':<{width}}  {line}")
