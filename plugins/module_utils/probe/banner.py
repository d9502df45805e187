# Copyright the cisdriver authors. Apache-2.0.
"""Texts shown at login: they must not tell what system this is.

agetty replaces ``\\m``, ``\\r``, ``\\s`` and ``\\v`` by machine, release and system, and prints issue.d after
``/etc/issue`` (``man 8 agetty``).
"""

from __future__ import annotations

import re
from typing import Iterator, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

ISSUE = "/etc/issue"
ISSUE_DIRECTORIES = ("/etc/issue.d", "/run/issue.d", "/usr/lib/issue.d")


def check(node: core.Node, spec: Mapping[str, str]) -> core.Finding:
    """``spec`` maps a path to ``required`` (it must show a text) or ``optional`` (it may be missing or empty)."""
    items: List[core.Evidence] = []
    for path, needed in spec.items():
        text = node.read(path)
        if not (text or "").strip():
            items.append(core.evidence(path, "a text", "absent" if text is None else "empty", needed == "optional"))
            continue
        shown = [path] + (node.merged(ISSUE_DIRECTORIES, ".issue") if path == ISSUE else [])
        items += [item for file in shown for item in _revealing(node, file)]
    return core.verdict(items)


def _revealing(node: core.Node, path: str) -> Iterator[core.Evidence]:
    pattern = re.compile("|".join([r"\\[mrsv]", *(re.escape(name) for name in _names(node))]), re.IGNORECASE)
    clean = True
    for number, line in enumerate((node.read(path) or "").splitlines(), 1):
        found = pattern.search(line)
        if found:
            clean = False
            yield core.evidence(path, "no word on the system", found.group(), False, f"{path}:{number}")
    if clean:
        yield core.evidence(path, "no word on the system", "none", True)


def _names(node: core.Node) -> List[str]:
    """Id and name of the system, by os-release."""
    release = dict(line.split("=", 1) for _number, line in node.lines("/etc/os-release") if "=" in line)
    return [release[key].strip("\"'") for key in ("ID", "NAME") if release.get(key)]
