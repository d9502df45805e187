# Copyright the cisdriver authors. Apache-2.0.
"""Options of mounts: of the mount itself, and of whatever mounts it at the next boot."""

from __future__ import annotations

from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, mounts


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` maps a path to the options its mount must carry."""
    items: List[core.Evidence] = []
    missing = []
    for path, options in spec.items():
        now = mounts.live(node, path)
        if now is None:
            missing.append(path)
            continue
        for option in options:
            items.append(_item(f"{path} (now)", option, now))
            items += [_item(f"{path} (at boot)", option, later) for later in _at_boot(node, path)]
    if not items:
        rules = ", ".join(f"{path.strip('/').replace('/', '_')}_separate_mount" for path in missing)
        return core.not_applicable(f"{', '.join(missing)}: no separate mount, see rule {rules}")
    return core.verdict(items)


def _at_boot(node: core.Node, path: str) -> List[mounts.Options]:
    """All that speaks for the next boot; empty for a mount that nothing makes then."""
    found = list(mounts.fstab(node, path))
    unit = mounts.unit(node, path)
    if unit:
        found.append(unit)
    if not found and path in mounts.API_MOUNTS:
        found.append(mounts.Options(mounts.API_MOUNTS[path], "systemd"))
    return found


def _item(object_: str, option: str, options: mounts.Options) -> core.Evidence:
    ok = mounts.carries(options.words, option)
    return core.evidence(object_, f"with {option}", ",".join(options.words), ok, options.source)
