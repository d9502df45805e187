# Copyright the cisdriver authors. Apache-2.0.
"""Modes that systemd-tmpfiles gives to files below a directory. A spec maps the directory to the bits they may have.

A file of tmpfiles.d replaces the one of the same name in a weaker directory whole (tmpfiles.d(5)).
"""

from __future__ import annotations

import re
from typing import List, Mapping, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

DIRECTORIES = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")
#: Lines that give a mode to files: to the named ones, or (Z) to all below.
NAMED = ("f", "F", "w", "z", "C")
BELOW = ("Z",)


def check(node: core.Node, spec: Mapping[str, str]) -> core.Finding:
    items: List[core.Evidence] = []
    for directory, most in spec.items():
        for path in node.merged(DIRECTORIES, ".conf"):
            for number, line in node.lines(path):
                words = line.split()
                given = _file_mode(words, directory) if len(words) > 2 else None
                if given is not None:
                    name, source = " ".join(words[:2]), f"{path}:{number}"
                    ok = not given & ~int(most, 8)
                    items.append(core.evidence(name, f"{most} or stricter", f"{given:04o}", ok, source))
        if not any(item["object"].split()[1].startswith(directory) for item in items):
            items.append(core.evidence(f"tmpfiles.d on {directory}", f"{most} or stricter", "no mode given", True))
    return core.verdict(items)


def _file_mode(words: List[str], directory: str) -> Optional[int]:
    """Permission bits that a line gives to files below the directory; None where it gives none."""
    kind, path, mode = words[0].rstrip("!-=~^"), words[1], words[2]
    below = path.startswith(directory + "/")
    # the journal's directories end in a machine's id, or its specifier; what has a dot or a wildcard is a file
    is_file = below and any(mark in path.rsplit("/", 1)[1] for mark in (".", "*"))
    if not (kind[:1] in NAMED and is_file) and not (kind[:1] in BELOW and (below or path == directory)):
        return None
    bits = mode.lstrip("~:")
    if not re.fullmatch("[0-7]+", bits):
        return None
    # ~ masks by what the object has: a file that is not executable does not become so
    return int(bits, 8) & (0o666 if "~" in mode else 0o777)
