# Copyright the cisdriver authors. Apache-2.0.
"""Whether IPv6 is on, and whether the next boot leaves it so: the running state and everything that decides it.

Off is ``ipv6.disable=1`` on the kernel's command line, or ``disable_ipv6`` of both ``all`` and ``default``. The one
spec is ``{status: identified}``: either state is right, one that is half, or that will be another after a boot, is not.
"""

from __future__ import annotations

import re
from typing import Any, List, Mapping, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, sysctl

SCOPES = ("all", "default")
ENTRIES = "/boot/loader/entries/*.conf"
_ARGUMENT = re.compile(r"(?:^|\s)ipv6\.disable=(\d)")


def check(node: core.Node, _spec: Mapping[str, Any]) -> core.Finding:
    off_now = _argument(node.read("/proc/cmdline") or "")
    items = [core.evidence("IPv6", "a known state", _state(node, off_now), True)]
    items += _arguments(node, off_now)
    if not off_now:
        items += _parameters(node)
    return core.verdict(items)


def _state(node: core.Node, off_now: bool) -> str:
    if off_now:
        return "disabled by the kernel argument ipv6.disable=1"
    values = {scope: _running(node, scope) for scope in SCOPES}
    if set(values.values()) == {"1"}:
        return "disabled by net.ipv6.conf.all.disable_ipv6 and net.ipv6.conf.default.disable_ipv6"
    return "enabled" if set(values.values()) == {"0"} else "partly disabled"


def _argument(text: str) -> bool:
    """The kernel takes the last one."""
    found = _ARGUMENT.findall(text)
    return bool(found) and found[-1] == "1"


def _arguments(node: core.Node, off_now: bool) -> List[core.Evidence]:
    """Every boot entry has to say what the running kernel was told."""
    expected = "ipv6.disable=1, as the running kernel" if off_now else "no ipv6.disable=1, as the running kernel"
    items = []
    for path in node.glob(ENTRIES):
        for number, line in node.lines(path):
            if line.startswith("options"):
                off = _argument(line)
                found = "ipv6.disable=1" if off else "no ipv6.disable=1"
                items.append(core.evidence("kernel arguments", expected, found, off == off_now, f"{path}:{number}"))
    return items


def _running(node: core.Node, scope: str) -> Optional[str]:
    text = node.read(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
    return None if text is None else text.strip()


def _parameters(node: core.Node) -> List[core.Evidence]:
    """Both scopes alike, and what is written down alike too; a key that nobody writes is the kernel's own 0."""
    running = {scope: _running(node, scope) for scope in SCOPES}
    if running["all"] is None:
        return [core.evidence("/proc/sys/net/ipv6", "there, or ipv6.disable=1", "missing", False, "/proc/cmdline")]
    items = []
    for scope in SCOPES:
        key = f"net.ipv6.conf.{scope}.disable_ipv6"
        items.append(
            core.evidence(f"{key} (running)", running["all"], running[scope], running[scope] == running["all"])
        )
        value, source = sysctl.configured(node, key)
        value = "0" if value is None else value  # which is the kernel's own
        items.append(core.evidence(f"{key} (at boot)", running[scope], value, value == running[scope], source))
    return items
