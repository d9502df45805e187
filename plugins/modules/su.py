#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module su: su asks for an empty group, by one line in the file of su, which no tool generates."""

from __future__ import annotations

DOCUMENTATION = r"""
module: su
author: The cisdriver authors
short_description: Restricts su to the members of an empty group
description:
  - Puts one line of C(pam_wheel) into the file of su, directly after the one that lets root by, and sets aside lines
    that would let others by before it. They come back when the rule is no longer selected.
  - Makes the group where it is missing and takes away only a group that it made. It never empties one.
options:
  path:
    description: The PAM file of su.
    type: path
    default: /etc/pam.d/su
  group:
    description: The file of the groups.
    type: path
    default: /etc/group
  memory:
    description: The directory where the module remembers what it changed.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps C(group) to a name.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.su:
    rules:
      - {rule: su_access_restricted, id: 4.3.6, want: {group: sugroup}}
"""

RETURN = r"""
rules:
  description: >-
    Per rule C({changed, before, after}), before and after holding the file's lines on who may use su, and the group.
  type: dict
  returned: always
"""

import re
from typing import List, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, overrides, runtime

LINE = "auth\t\trequired\tpam_wheel.so use_uid group={0}\n"
OURS = re.compile(r"auth\t\trequired\tpam_wheel\.so use_uid group=(\S+)\n")
ROOT = re.compile(r"\s*auth\s+sufficient\s+(\S*/)?pam_rootok\.so\b")
#: Lines that decide who may use su: any of pam_wheel, and what lets a caller by.
WHEEL = re.compile(r"\s*-?auth\s+(\[[^\]]*\]|\S+)\s+(\S*/)?pam_wheel\.so\b")
LETS_BY = re.compile(r"\s*-?auth\s+(sufficient|\[[^\]]*success=done[^\]]*\])\s")


def edited(text: str, group: Optional[str]) -> str:
    """The file with our line, or without it; raises ValueError where no line lets root by."""
    lines = [line for line in text.splitlines(keepends=True) if not OURS.fullmatch(line)]
    plain = overrides.set_aside("".join(lines), "su", lambda _line: False, lambda _line: True)
    if group is None:
        return plain
    lines = plain.splitlines(keepends=True)
    root = next((index for index, line in enumerate(lines) if ROOT.match(line)), None)
    if root is None:
        raise ValueError("no line 'auth sufficient pam_rootok.so'")
    for index, line in enumerate(lines):
        early = index < root and LETS_BY.match(line)
        if early or WHEEL.match(line):
            lines[index] = overrides.set_aside(line, "su", lambda _line: True, lambda _line: False)
    lines[root] = lines[root].rstrip("\n") + "\n"
    lines.insert(root + 1, LINE.format(group))
    return "".join(lines)


def decisive(text: str) -> List[str]:
    """The lines of a file that the rule is about, blanks evened out."""
    return [" ".join(line.split()) for line in text.splitlines() if WHEEL.match(line) or LETS_BY.match(line)]


def members(batch: core.Batch, group: str) -> Optional[List[str]]:
    """Of a group; None where there is none of that name."""
    for line in core.read(batch.module.params["group"]).splitlines():
        fields = line.split(":")
        if fields[0] == group and len(fields) > 3:
            return [name for name in fields[3].split(",") if name]
    return None


def make_group(batch: core.Batch, slug: str, id_: str, group: str) -> None:
    present = members(batch, group)
    if present:
        batch.fail(
            f"rule {slug} ({id_}): group {group} is to be empty, but has the members {', '.join(present)}; no member is"
            " taken out. Name another group by cis_values, or empty it. Nothing is changed"
        )
    if present is None:
        batch.remember(slug, f"group {group}", None, "empty")
        batch.changed_file(batch.module.params["group"], "", f"{group}\n")
        program(batch, ["groupadd", "--system", group])


def give_group_back(batch: core.Batch, slug: str, kept: Optional[str]) -> None:
    """Take away the groups that were made for the rule, but for ``kept``, unless somebody has come in since."""
    for name in batch.given_back(slug):
        group = name.split(" ", 1)[1]
        if group != kept:
            if members(batch, group) == []:
                batch.changed_file(batch.module.params["group"], f"{group}\n", "")
                program(batch, ["groupdel", group])
            batch.forget(slug, name)


def program(batch: core.Batch, argv: List[str]) -> None:
    if batch.module.check_mode:
        return
    batch.store()
    rc, out, err = runtime.run(batch.module, argv)
    if rc:
        batch.fail(f"{' '.join(argv)}: exit {rc}: {err.strip() or out.strip()}")


def apply(batch: core.Batch) -> None:
    path = batch.module.params["path"]
    before = core.read(path)
    group = next((str(rule["want"]["group"]) for rule in batch.present), None)
    if not before or (group is None and batch.keep):
        return batch_done(batch, before)
    try:
        after = edited(before, group)
    except ValueError as error:
        batch.fail(f"{path}: {error}: with pam_wheel alone root could not use su either. Nothing is changed")
        return None
    for rule in batch.present:
        make_group(batch, rule["rule"], rule["id"], str(rule["want"]["group"]))
        batch.record(rule["rule"], {path: decisive(before)}, {path: decisive(after)})
    batch.write(path, after)
    for slug in [*(rule["rule"] for rule in batch.present), *batch.absent]:
        give_group_back(batch, slug, group)
    return None


def batch_done(batch: core.Batch, text: str) -> None:
    """Answer for every rule where nothing is to be done."""
    for rule in batch.present:
        lines = {batch.module.params["path"]: decisive(text)}
        batch.record(rule["rule"], lines, lines)


def main() -> None:
    batch = core.batch_module(
        memory="su",
        path={"type": "path", "default": "/etc/pam.d/su"},
        group={"type": "path", "default": "/etc/group"},
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
