"""The account a verb works in: yours in AWS, or the embedded one of ``--sandbox``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cisdriver import credentials
from cisdriver.errors import CisdriverError, UsageError
from cisdriver.session import Session
from cisdriver.settings import Settings

#: What could lead a tool to another account than the one meant, when the sandbox's is meant.
_ELSEWHERE = frozenset(
    {"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CA_BUNDLE"}
    | {name for name in os.environ if name.startswith(("AWS_ENDPOINT_URL", "AWS_CONTAINER_CREDENTIALS"))}
)
_SANDBOX_REGION = "eu-central-1"


@dataclass(frozen=True)
class Account:
    """Where to work: environment that leads there, and what role image must know of it.

    ``url`` is where the sandbox answers; empty for AWS.
    """

    region: str
    env: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    drop_env: frozenset[str] = frozenset()
    url: str = ""


def region(settings: Settings) -> str:
    """The region to work in. Raises UsageError for whatever is missing on this machine to reach the account."""
    if settings.sandbox:
        sandbox_class()
        return settings.region or _SANDBOX_REGION
    return credentials.require(settings.region)


def sandbox_class() -> Any:
    try:
        import moto  # noqa: F401 - only to see whether it is there: the sandbox runs in a process of its own
        import werkzeug  # noqa: F401 - the same
    except ImportError as error:
        raise UsageError(f"the sandbox needs {error.name}", "pip install 'cisdriver[sandbox]'") from error
    from cisdriver.sandbox.aws import Sandbox

    return Sandbox


def keep(settings: Settings) -> Path:
    """Where the sandbox is kept that outlives a command, so that the next finds the cluster."""
    return settings.run_dir.absolute() / "sandbox"


def kept_url(settings: Settings) -> str:
    """Where the kept sandbox answers; empty when none does. Two that differ in it are two accounts."""
    found = sandbox_class().kept(keep(settings))
    return str(found.url) if found else ""


@contextmanager
def opened(now: Session, where: str, kept: bool, failure: type[CisdriverError]) -> Iterator[Account]:
    """The account in region ``where``. A sandbox lasts as long as the body, or, ``kept``, until it is ended.

    Raises ``failure`` for a sandbox that does not start.
    """
    if not now.settings.sandbox:
        yield Account(where, {"AWS_REGION": where, "AWS_DEFAULT_REGION": where})
        return
    from cisdriver.sandbox.aws import SandboxError

    sandbox = sandbox_class()(region=where, keep=keep(now.settings) if kept else None)
    try:
        with now.stage("sandbox"):
            try:
                endpoint = sandbox.start()
            except SandboxError as error:
                raise failure(str(error), "`cisdriver doctor --sandbox` shows what is missing.") from error
            now.stop_if_interrupted()
        empty = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        variables = {"image_ssh_host": endpoint.ssh_host, "image_ssh_port": endpoint.ssh_port}
        yield Account(where, {**empty, **endpoint.env}, variables, _ELSEWHERE, endpoint.url)
    finally:
        sandbox.close()
