# Copyright the cisdriver authors. Apache-2.0.
"""Settings for new accounts: ``/etc/login.defs``, and INACTIVE of ``/etc/default/useradd``.

shadow-utils keeps the last of several lines of a key. A useradd without INACTIVE uses -1, which is never.
"""

from __future__ import annotations

from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

LOGIN_DEFS = "/etc/login.defs"
USERADD = "/etc/default/useradd"


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` maps a key to a predicate; INACTIVE is useradd's."""
    items: List[core.Evidence] = []
    for key, predicate in spec.items():
        path, value, source = (USERADD, "-1", "useradd") if key == "INACTIVE" else (LOGIN_DEFS, None, None)
        for number, line in node.lines(path):
            # useradd takes INACTIVE= as it stands, without a blank before the sign
            words = line.split("=", 1) if path == USERADD else line.split()
            if len(words) > 1 and words[0] == key:
                value = words[1].strip() if path == USERADD else words[1].strip('"')
                source = f"{path}:{number}"
        items.append(core.evidence(key, predicate, value, core.holds(predicate, value), source or path))
    return core.verdict(items)
