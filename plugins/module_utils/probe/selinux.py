# Copyright the cisdriver authors. Apache-2.0.
"""SELinux: what the next boot will make of it, and how the kernel treats it now.

A spec is ``mode`` and ``policy``, lists of what is accepted. A container's and a chroot's kernel is another machine's:
there the configuration alone is judged, and the evidence says so.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

CONFIG = "/etc/selinux/config"
ENFORCE = "/sys/fs/selinux/enforce"
MANAGER = "/run/systemd/system"


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    items: List[core.Evidence] = []
    if "policy" in spec:
        items += _policy(node, spec["policy"])
    if "mode" in spec:
        items += _mode(node, spec["mode"])
    finding = core.verdict(items)
    disk = [item["ok"] for item in items if item.get("source", "").startswith(CONFIG)]
    if finding["status"] == "fail" and all(disk):
        finding["reason"] += "; it is right on disk: reboot, or replace the node by one of a new image"
    return finding


def _configured(node: core.Node, key: str) -> List[Tuple[str, str]]:
    """``(value, file:line)`` of each line libselinux takes: ``KEY=`` at its start, no blank before the sign."""
    lines = (node.read(CONFIG) or "").splitlines()
    return [
        (line[len(key) + 1 :].strip(), f"{CONFIG}:{number}")
        for number, line in enumerate(lines, 1)
        if line.startswith(key + "=")
    ]


def _policy(node: core.Node, accepted: List[str]) -> Iterator[core.Evidence]:
    """Of two lines one is a trap: which counts differs between programs, so each has to fit."""
    lines: List[Tuple[Optional[str], str]] = list(_configured(node, "SELINUXTYPE")) or [(None, CONFIG)]
    for value, source in lines:
        yield core.evidence("SELINUXTYPE", {"in": accepted}, value, value in accepted, source)


def _mode(node: core.Node, accepted: List[str]) -> Iterator[core.Evidence]:
    """The first line decides at boot (libselinux, selinux_getenforcemode), and the kernel for now."""
    value, source = next(iter(_configured(node, "SELINUX")), (None, CONFIG))
    value = value.split()[0].lower() if value else None  # a comment after it does not matter
    yield core.evidence("SELINUX", {"in": accepted}, value, value in accepted, source)
    mode = live(node)
    if mode is None:
        why = "not looked at: in a container or chroot the kernel is another machine's"
        yield core.evidence("mode of the running kernel", {"in": accepted}, why, True)
    else:
        yield core.evidence("mode of the running kernel", {"in": accepted}, mode, mode in accepted, ENFORCE)


def live(node: core.Node) -> Optional[str]:
    """How the kernel treats SELinux now; None where it is not this machine's own."""
    if not node.exists(MANAGER) or node.in_container():
        return None
    text = node.read(ENFORCE)
    if text is None:
        return "disabled"
    return "enforcing" if text.strip() == "1" else "permissive"
