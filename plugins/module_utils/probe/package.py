# Copyright the cisdriver authors. Apache-2.0.
"""Installed packages, by their exact names in the RPM database."""

from __future__ import annotations

from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` is ``{absent: [...], present: [...], any_of: [...]}``, each left out where nothing is asked."""
    installed = node.packages()
    if not installed:
        raise core.ProbeError("rpm lists no package at all: its database is empty or elsewhere")
    items: List[core.Evidence] = []
    for name in spec.get("absent", []):
        items.append(core.evidence(name, "absent", installed.get(name, "absent"), name not in installed))
    for name in spec.get("present", []):
        items.append(core.evidence(name, "installed", installed.get(name, "absent"), name in installed))
    if spec.get("any_of"):
        found = [f"{name} {installed[name]}" for name in spec["any_of"] if name in installed]
        items.append(core.evidence(" or ".join(spec["any_of"]), "installed", ", ".join(found) or "absent", bool(found)))
    return core.verdict(items)
