# Copyright the cisdriver authors. Apache-2.0.
"""What journald and journal-upload go by: their files as systemd merges them, and whether they have read them.

A spec maps a section, ``Journal`` of journald.conf or ``Upload`` of journal-upload.conf, to ``{key: predicate}``.
A predicate ``{unset_or: predicate}`` is met as well where no file sets the key.
"""

from __future__ import annotations

import posixpath
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, reread

#: Section to its file and the unit that reads it, once, when it starts.
FILES = {
    "Journal": ("journald.conf", "systemd-journald.service"),
    "Upload": ("journal-upload.conf", "systemd-journal-upload.service"),
}
DIRECTORIES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
JOURNAL = "/var/log/journal"


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    items: List[core.Evidence] = []
    for section, (name, unit) in FILES.items():
        if section not in spec:
            continue
        found = effective(node, section)
        for key, predicate in spec[section].items():
            items += _judged(node, key, predicate, *found.get(key, (None, f"{DIRECTORIES[0]}/{name}")))
        directories = [f"{directory}/{name}.d" for directory in DIRECTORIES]
        items += reread.since_change(node, unit, [*_files(node, name), *directories])
    return core.verdict(items)


def effective(node: core.Node, section: str) -> Dict[str, Tuple[str, str]]:
    """Key to ``(value, file:line)`` of the line that wins: the last of the main file, then of drop-ins by name."""
    values: Dict[str, Tuple[str, str]] = {}
    for path in _files(node, FILES[section][0]):
        current = ""
        for number, line in node.lines(path):
            if line.startswith("["):
                current = line.strip("[]")
            elif "=" in line and not line.startswith(";") and current == section:
                key, _equals, value = line.partition("=")
                values[key.strip()] = (value.strip(), f"{path}:{number}")
    return values


def _files(node: core.Node, name: str) -> List[str]:
    """The first main file there is, and the drop-ins that no file of the same name in a stronger directory replaces."""
    main = next((path for path in (f"{directory}/{name}" for directory in DIRECTORIES) if node.exists(path)), None)
    return ([main] if main else []) + node.merged([f"{directory}/{name}.d" for directory in DIRECTORIES], ".conf")


def _judged(node: core.Node, key: str, predicate: Any, value: Optional[str], source: str) -> List[core.Evidence]:
    """What a line says, and what has to be there for it to come true."""
    if isinstance(predicate, Mapping) and "unset_or" in predicate:
        if not value:  # an empty assignment resets to the default
            return [core.evidence(key, predicate["unset_or"], "not set", True, source)]
        predicate = predicate["unset_or"]
    items = [core.evidence(key, predicate, value, core.holds(predicate, value), source)]
    if value and key.endswith("File") and posixpath.isabs(value):
        there = node.exists(value)
        items.append(core.evidence(f"{key} {value}", "a file", "a file" if there else "no such file", there, source))
    if key == "Storage" and value == "persistent" and node.exists("/run/systemd/system"):
        there = node.exists(JOURNAL)
        items.append(core.evidence(JOURNAL, "a directory", "a directory" if there else "no such directory", there))
    return items


def kept_by_journald(node: core.Node) -> str:
    """Where journald is told to keep logs on disk; empty where it is not."""
    value, source = effective(node, "Journal").get("Storage", ("", ""))
    return source if value == "persistent" else ""
