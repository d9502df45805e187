#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module tmpfiles: modes that tmpfiles.d gives to files below directories, taken back where a list of rules forbids."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tmpfiles
author: The cisdriver authors
short_description: Tightens modes in tmpfiles.d for a batch of rules
description:
  - Takes permission bits away from lines that give files below a directory more than a rule allows, and gives none.
  - A file of a package is never edited. Where one is too open, a corrected copy of the whole goes to /etc/tmpfiles.d,
    which replaces it.
  - A rule that is no longer selected gets back what stood there, unless somebody has changed it since.
options:
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps a directory to the most
      permission bits of files below it, octal.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.tmpfiles:
    rules:
      - {rule: journald_file_permissions, id: 5.1.2.7, want: {/var/log/journal: "0640"}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a file to its lines on the matter.
  type: dict
  returned: always
"""

import glob
import os
import re
from typing import Dict, Iterable, List, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, edits

DIRECTORIES = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")
#: Type, path and mode of a line.
LINE = re.compile(r"^(\s*)([fFwzCZ])(\S*)(\s+)(\S+)(\s+)([~:]*)([0-7]+)(?=\s|$)(.*)$")


def effective() -> List[str]:
    """Files that count: of one name the one in the strongest directory."""
    found: Dict[str, str] = {}
    for directory in DIRECTORIES:
        for path in glob.glob(os.path.join(directory, "*.conf")):
            found.setdefault(os.path.basename(path), path)
    return [found[name] for name in sorted(found)]


def concerned(line: str, directory: str) -> Optional["re.Match[str]"]:
    """The parts of a line that gives files below a directory a mode."""
    found = LINE.match(line.rstrip("\n"))
    if not found:
        return None
    kind, path = found[2], found[5]
    below = path.startswith(directory + "/")
    # what has a dot or a wildcard is a file, everything else there a directory of a machine's id
    is_file = below and re.search(r"[.*]", path.rsplit("/", 1)[1])
    return found if (below or path == directory if kind == "Z" else is_file) else None


def corrected(text: str, directory: str, most: int) -> str:
    return "".join(_line(line, directory, most) for line in text.splitlines(keepends=True))


def _line(line: str, directory: str, most: int) -> str:
    found = concerned(line, directory)
    if not found:
        return line
    mask, bits = found[7], int(found[8], 8)
    # with ~ directories keep the x of who may read, and a file that is not executable does not become so
    most |= 0o7000 | most >> 2 & 0o111 if found[2] == "Z" and "~" in mask else 0
    if not bits & ~most:
        return line
    return f"{line[: found.start(8)]}{bits & most:04o}{line[found.end(8) :]}"


def apply(batch: core.Batch) -> None:
    etc = DIRECTORIES[0]
    for slug in batch.absent:
        give_back(batch, slug)
    for path in effective():
        target = os.path.join(etc, os.path.basename(path))
        text = before = core.read(path)
        for rule in batch.present:
            after = text
            for directory, mode in rule["want"].items():
                after = corrected(after, directory, int(mode, 8))
            remember(batch, rule["rule"], path, target, text, after)
            named = path if text == after else target
            batch.record(rule["rule"], about(named, text, rule["want"]), about(named, after, rule["want"]))
            text = after
        if text != before:
            batch.write(target, text)


def remember(batch: core.Batch, rule: str, path: str, target: str, before: str, after: str) -> None:
    """Lines of a file of /etc; of a copy that was not there, the whole."""
    if path == target:
        edits.remember(batch, rule, path, before, after)
    elif before != after:
        batch.remember(rule, target, None, after)


def give_back(batch: core.Batch, slug: str) -> None:
    for name, (was, now) in batch.given_back(slug).items():
        if was is None and core.read(name) == now:
            batch.write(name, "")
    for path in sorted(glob.glob(os.path.join(DIRECTORIES[0], "*.conf"))):
        batch.write(path, edits.give_back(batch, slug, path, core.read(path)))
    batch.forget(slug)


def about(path: str, text: str, directories: Iterable[str]) -> Dict[str, List[str]]:
    """The lines of a file that a rule is about, if any."""
    lines = [line for line in text.splitlines() if any(concerned(line, directory) for directory in directories)]
    return {path: lines} if lines else {}


def main() -> None:
    batch = core.batch_module("tmpfiles")
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
