# Copyright the cisdriver authors. Apache-2.0.
"""Ageing of the passwords that exist: ``/etc/shadow``, accounts with a usable hash (``man 5 shadow``).

An account whose second field is empty or starts with ``!`` or ``*`` has no password that could age.
"""

from __future__ import annotations

from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

SHADOW = "/etc/shadow"
#: Name of a setting to its field, counted from 0.
_FIELDS = {"min_days": 3, "max_days": 4, "warn_days": 5, "inactive_days": 6}


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` maps min_days, max_days, warn_days, inactive_days to a predicate; an empty field meets none."""
    if node.read(SHADOW) is None:
        raise core.ProbeError(f"{SHADOW} does not exist")
    items: List[core.Evidence] = []
    aged = [(number, fields) for number, fields in _accounts(node) if fields[1] and fields[1][0] not in "!*"]
    for number, fields in aged:
        for name, predicate in spec.items():
            value = fields[_FIELDS[name]] or None
            ok = core.holds(predicate, value)
            items.append(core.evidence(f"{name} of {fields[0]}", predicate, value, ok, f"{SHADOW}:{number}"))
    if not aged:
        items.append(core.evidence("accounts with a password", "aged", "none", True, SHADOW))
    return core.verdict(items)


def _accounts(node: core.Node) -> List[Any]:
    split = [(number, line.split(":")) for number, line in node.lines(SHADOW)]
    return [(number, fields) for number, fields in split if len(fields) == 9]
