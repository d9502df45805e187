"""``--host user@host:port`` as an Ansible inventory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cisdriver.errors import UsageError
from cisdriver.settings import Settings

_TARGET = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:@\[\]/]+)(?::(?P<port>\d{1,5}))?")


def inventory(settings: Settings, run_dir: Path) -> str:
    """Path of the inventory to use: the user's own, or one written for ``--host``. Raises UsageError for neither."""
    if settings.host and settings.inventory:
        raise UsageError("both --host and --inventory are given", "Leave out one of them.")
    if settings.inventory:
        return str(settings.inventory.absolute())
    path = run_dir / "hosts.json"
    hosts = dict(map(parse, settings.host))
    path.write_text(json.dumps({"all": {"hosts": hosts}}, indent=2), encoding="utf-8")
    return str(path)


def check(settings: Settings, otherwise: str = "") -> None:
    """Raise UsageError unless the settings name machines that can be looked for; ``otherwise`` is one more way on."""
    if not settings.host and not settings.inventory:
        raise UsageError(
            "no node is named", f"Name one with --host ec2-user@10.0.0.5, or an inventory with -i{otherwise}."
        )
    if settings.inventory and not settings.inventory.exists():
        raise UsageError(f"no inventory at {settings.inventory}", "Name an existing file with -i.")
    if settings.private_key and not settings.private_key.exists():
        raise UsageError(f"no private key at {settings.private_key}", "Name an existing file with --private-key.")
    for target in settings.host:
        parse(target)


def parse(target: str) -> tuple[str, dict[str, Any]]:
    """Inventory name and variables of ``[user@]host[:port]``; an IPv6 address stands in brackets."""
    match = _TARGET.fullmatch(target)
    if not match or int(match["port"] or 22) > 65535:
        raise UsageError(f"--host: expected [user@]host[:port], found {target!r}", "For IPv6 write [2001:db8::1]:22.")
    variables: dict[str, Any] = {"ansible_host": match["host"].strip("[]")}
    if match["user"]:
        variables["ansible_user"] = match["user"]
    if match["port"]:
        variables["ansible_port"] = int(match["port"])
    name = match["host"].strip("[]") + (f"-{match['port']}" if match["port"] else "")
    return name, variables
