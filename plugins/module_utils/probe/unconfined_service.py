# Copyright the cisdriver authors. Apache-2.0.
"""Processes that run as unconfined services, for want of a policy or a label of their own.

A spec may name control groups, ``below``, whose processes may. Labels are read from /proc, as ``ps -eZ`` does.
"""

from __future__ import annotations

import re
import time
from typing import Any, Dict, List, Mapping, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, selinux

UNCONFINED = "unconfined_service_t"
#: Seconds until a process is looked at again: one that starts and ends at once is no service.
SECOND_LOOK = 0.5


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    below: List[str] = spec.get("below", [])
    mode = selinux.live(node)
    if mode is None:
        return core.not_applicable("a container or chroot has no SELinux of its own: no process here has a label")
    if mode == "disabled":
        return core.not_applicable("the kernel runs without SELinux: no process has a label")
    found = _processes(node)
    if any(not _under(group, below) for _name, group in found.values()):
        time.sleep(SECOND_LOOK)
        found = {process: seen for process, seen in _processes(node).items() if process in found}
    items = []
    for (pid, _started), (name, group) in sorted(found.items()):
        expected = f"not {UNCONFINED}" + (", unless it runs below " + " or ".join(below) if below else "")
        ok = _under(group, below)
        items.append(core.evidence(f"process {pid} ({name})", expected, UNCONFINED, ok, f"control group {group}"))
    nothing = core.evidence("processes", f"none of {UNCONFINED}", "none", True)
    return core.verdict(items or [nothing])


def _under(group: str, below: List[str]) -> bool:
    return any(group == parent or group.startswith(parent + "/") for parent in below)


def _processes(node: core.Node) -> Dict[Tuple[int, str], Tuple[str, str]]:
    """Unconfined services, ``(pid, start time)`` to ``(name, control group)``. Read past the node's memory of texts."""
    found = {}
    for path in node.glob("/proc/[0-9]*/attr/current"):
        place = path[: -len("/attr/current")]
        label = _now(node, path).strip("\0\n").split(":")
        if len(label) < 3 or label[2] != UNCONFINED:
            continue
        before, _bracket, after = _now(node, f"{place}/stat").rpartition(")")
        fields = after.split()
        if len(fields) > 19:  # field 22 of all, man 5 proc
            name = before.partition("(")[2]
            found[int(place.rpartition("/")[2]), fields[19]] = (name, _control_group(_now(node, f"{place}/cgroup")))
    return found


def _control_group(text: str) -> str:
    """The path in the unified hierarchy, or, on Amazon Linux 2, in systemd's own."""
    group = re.search(r"(?m)^(?:0:|\d+:name=systemd):(.*)$", text)
    return group[1] if group else "unknown"


def _now(node: core.Node, path: str) -> str:
    """The text of a file of a process; empty when the process has gone."""
    try:
        with open(node.real(path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError as error:
        raise core.ProbeError(f"cannot read {path}: {error.strerror}") from error
