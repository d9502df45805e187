# Copyright the cisdriver authors. Apache-2.0.
"""su: pam_wheel asks the caller for a group that nobody is in, before anything else lets a caller but root by."""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, pam_stack

SERVICES = ("su", "su-l")
#: Modules that let only root by; a line of theirs may end the stack before pam_wheel.
_ONLY_ROOT = ("pam_rootok",)
#: Arguments by which pam_wheel asks for something else (``man 8 pam_wheel``).
_CONTRARY = ("deny", "trust", "root_only")


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` is ``{"group": "empty"}``, or ``any`` where the benchmark leaves the members to the site."""
    if not node.exists("/etc/pam.d/su"):
        return core.not_applicable("/etc/pam.d/su does not exist: there is no su")
    items: List[core.Evidence] = []
    groups = []
    for service in SERVICES:
        if service == "su" or node.exists(f"/etc/pam.d/{service}"):
            lines = pam_stack.stack(node, service, "auth")
            line = next((line for line in lines if line.module == "pam_wheel" and not _objection(lines, line)), None)
            items.append(_restricted(service, lines, line))
            groups += [line.option("group") or ""] if line else []
    for group in sorted(set(groups)) if spec["group"] == "empty" else ():
        items += _empty(node, group)
    return core.verdict(items)


def _restricted(service: str, lines: List[pam_stack.Line], line: Optional[pam_stack.Line]) -> core.Evidence:
    object_, expected = f"{service}: auth pam_wheel", "required, use_uid, group="
    if line:
        return core.evidence(object_, expected, " ".join([line.control, *line.args]), True, line.source)
    wheels = [line for line in lines if line.module == "pam_wheel"]
    if wheels:
        return core.evidence(object_, expected, _objection(lines, wheels[0]), False, wheels[0].source)
    return core.evidence(object_, expected, "not there", False, f"/etc/pam.d/{service}")


def _objection(lines: List[pam_stack.Line], wheel: pam_stack.Line) -> str:
    """Why this line does not restrict su; empty when it does."""
    if not wheel.installed:
        return "pam_wheel.so is not installed"
    if not wheel.refuses():
        return f"{wheel.control}: its refusal does not count"
    contrary = [arg for arg in wheel.args if arg in _CONTRARY]
    if contrary:
        return contrary[0]
    if "use_uid" not in wheel.args:
        return "no use_uid"
    if not wheel.option("group"):
        return "no group="
    for line in lines[: lines.index(wheel)]:
        if line.ends_on_success() and line.module not in _ONLY_ROOT:
            return f"after {line.module}, which lets callers by ({line.source})"
    return ""


def _empty(node: core.Node, group: str) -> Iterator[core.Evidence]:
    entry = next((line.split(":") for _, line in node.lines("/etc/group") if line.startswith(group + ":")), None)
    if entry is None or len(entry) < 4:
        yield core.evidence(f"group {group}", "there, without members", "not there", False, "/etc/group")
        return
    members = [name for name in entry[3].split(",") if name]
    accounts = [line.split(":") for _, line in node.lines("/etc/passwd")]
    members += [fields[0] for fields in accounts if len(fields) > 3 and fields[3] == entry[2]]
    found = f"members {', '.join(members)}" if members else "there, without members"
    yield core.evidence(f"group {group}", "there, without members", found, not members, "/etc/group")
