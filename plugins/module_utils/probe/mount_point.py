# Copyright the cisdriver authors. Apache-2.0.
"""Paths that are mounts of their own, now and at the next boot."""

from __future__ import annotations

from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, mounts, service

#: Answers of ``systemctl is-enabled`` for a mount unit that the boot mounts.
_MOUNTS = ("enabled", "static", "generated")


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` maps a path to ``{}``, or to ``{fstab: true}`` where a line in /etc/fstab is asked for, too."""
    items: List[core.Evidence] = []
    for path, more in spec.items():
        now = mounts.live(node, path)
        found = "own mount" if now else "part of its parent's file system"
        items.append(core.evidence(f"{path} (now)", "own mount", found, now is not None, now.source if now else None))
        lines = [line for line in mounts.fstab(node, path) if "noauto" not in line.words]
        items.append(_at_boot(node, path, lines))
        if more.get("fstab"):
            source = lines[0].source if lines else "/etc/fstab"
            found = "line" if lines else "no line"
            items.append(core.evidence(f"{path} (/etc/fstab)", "line", found, bool(lines), source))
    return core.verdict(items)


def _at_boot(node: core.Node, path: str, lines: List[mounts.Options]) -> core.Evidence:
    name = f"{path} (at boot)"
    if path in mounts.API_MOUNTS:
        return core.evidence(name, "mounted", "mounted", True, "systemd")
    state = service.enabled_state(node, mounts.unit_name(path))
    if state in ("masked", "masked-runtime"):
        return core.evidence(name, "mounted", state, False, mounts.unit_name(path))
    if lines:
        return core.evidence(name, "mounted", "mounted", True, lines[0].source)
    return core.evidence(name, {"in": list(_MOUNTS)}, state, state in _MOUNTS, mounts.unit_name(path))
