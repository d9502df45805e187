#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module journald: keys of journald.conf and journal-upload.conf for a list of rules, read by what runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: journald
author: The cisdriver authors
short_description: Sets keys of journald.conf and journal-upload.conf for a batch of rules
description:
  - Writes the main file, which is all that many scanners read, and brings the lines of drop-ins below /etc that say
    otherwise to the same value. Where a drop-in of a package or below /run says otherwise, a drop-in of its own wins.
  - Restarts a unit whose configuration it changed, or that has been running since before it was changed. journald
    keeps the output streams of all services over a restart; what it held in memory goes to disk.
  - A rule that is no longer selected gets the lines back that stood there, unless somebody has changed them since.
options:
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  installs:
    description: >-
      Rules of the kind C(package), as the same lookup gives them. Check mode counts what they install as installed;
      a run has installed it by now.
    type: list
    elements: dict
    default: []
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps C(Journal) or C(Upload) to keys
      and values, null for none, and may hold C(if_package) or C(if_package_absent), the name of a package.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.journald:
    rules:
      - {rule: journald_storage_persistent, id: 5.1.2.4, want: {Journal: {Storage: persistent}}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping C(file key) to its values.
  type: dict
  returned: always
"""

import glob
import os
import re
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, edits, runtime

#: Section to its file and the unit that reads it when it starts, and never again.
FILES = {
    "Journal": ("journald.conf", "systemd-journald.service"),
    "Upload": ("journal-upload.conf", "systemd-journal-upload.service"),
}
DIRECTORIES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
#: Sorts after what packages and administrators use.
OWNED = "zz-cis.conf"
JOURNAL = "/var/log/journal"
#: Exits of systemd-tmpfiles: with 65 and 73 a line of any file is wrong, which its own units take for success, too.
OTHERS_LINES = (0, 65, 73)
#: A link that systemd makes anew at each start of a unit.
STARTED = "/run/systemd/units/invocation:"


def settings(text: str, section: str) -> Iterator[Tuple[int, str, str]]:
    """``(index, key, value)`` of each line in a section; its header has the key ``[``."""
    current = ""
    for index, line in enumerate(text.splitlines()):
        stripped = line.strip()
        if stripped.startswith("["):
            current = stripped.strip("[]")
            if current == section:
                yield index, "[", ""
        elif "=" in stripped and stripped[0] not in "#;" and current == section:
            key, _equals, value = stripped.partition("=")
            yield index, key.strip(), value.strip()


def values(text: str, section: str, key: str) -> List[str]:
    return [value for _index, name, value in settings(text, section) if name == key]


def with_value(text: str, section: str, key: str, value: str) -> str:
    """The text with every line of a key at the value, as the line is written."""
    lines = text.splitlines(keepends=True)
    for index, name, found in settings(text, section):
        if name == key and found != value:
            lines[index] = re.sub(r"(=[ \t]*).*", lambda equals: equals[1] + value, lines[index].rstrip("\n")) + "\n"
    return "".join(lines)


def with_line(text: str, section: str, key: str, value: str) -> str:
    """The text with one more line, after the last of the section that says anything."""
    lines = text.splitlines()
    inside = [index for index, _key, _value in settings(text, section)]
    if inside:
        lines.insert(inside[-1] + 1, f"{key}={value}")
    else:
        lines += [f"[{section}]", f"{key}={value}"]
    return "\n".join(lines) + "\n"


def installed(batch: core.Batch, package: str) -> bool:
    if batch.module.check_mode:
        for rule in batch.module.params.get("installs") or ():
            if rule.get("state") == "present" and package in (rule.get("want") or {}).get("present", []):
                return True
    return runtime.run(batch.module, ["rpm", "-q", package])[0] == 0


def wanted(batch: core.Batch, rule: Mapping[str, Any]) -> Iterator[Tuple[str, str, str]]:
    """``(section, key, value)`` that a rule sets on this machine."""
    want = rule["want"]
    if "if_package" in want and not installed(batch, want["if_package"]):
        return
    if "if_package_absent" in want and installed(batch, want["if_package_absent"]):
        return
    for section in FILES:
        for key, value in want.get(section, {}).items():
            if value is not None:
                yield section, key, str(value)


def dropins(name: str) -> List[str]:
    """Drop-ins of a file in the order in which systemd reads them: by name, of one name the strongest directory."""
    found: Dict[str, str] = {}
    for directory in DIRECTORIES:
        for path in glob.glob(os.path.join(directory, f"{name}.d", "*.conf")):
            found.setdefault(os.path.basename(path), path)
    return [found[base] for base in sorted(found)]


class Files:
    """The files of one section: their texts as they are to be, every change noted for its rule."""

    def __init__(self, batch: core.Batch, section: str) -> None:
        self.batch = batch
        self.section = section
        name, self.unit = FILES[section]
        self.main = os.path.join(DIRECTORIES[0], name)
        self.owned = os.path.join(DIRECTORIES[0], f"{name}.d", OWNED)
        self.others = [path for path in dropins(name) if path != self.owned]
        self.texts = {path: core.read(path) for path in [self.main, *self.others]}
        self.forced: Dict[str, List[str]] = {}

    def editable(self) -> List[str]:
        return [self.main, *(path for path in self.others if path.startswith(DIRECTORIES[0] + os.sep))]

    def give_back(self, rule: str) -> None:
        for path in self.editable():
            self.texts[path] = edits.give_back(self.batch, rule, path, self.texts[path])

    def set(self, rule: str, key: str, value: str) -> None:
        """Bring one key to its value, for good against every file of a package."""
        for path in self.editable():
            text = self.texts[path]
            after = with_value(text, self.section, key, value)
            # a file is made where there is none, but not the directory of a program that is not installed
            if path == self.main and os.path.isdir(DIRECTORIES[0]) and not values(after, self.section, key):
                after = with_line(after, self.section, key, value)
            edits.remember(self.batch, rule, path, text, after)
            self.texts[path] = after
            name = f"{path} {key}"
            self.batch.record(rule, {name: values(text, self.section, key)}, {name: values(after, self.section, key)})
        agree: Tuple[List[str], ...] = ([], [value])
        contrary = [path for path in self.others if values(self.texts[path], self.section, key)[-1:] not in agree]
        if contrary:
            self._force(rule, key, value, contrary[-1])

    def _force(self, rule: str, key: str, value: str, path: str) -> None:
        if os.path.basename(path) > OWNED:
            self.batch.fail(
                f"rule {rule}: {path} sets {key} and is read after {self.owned}; expected {key}={value}."
                f" Nothing is changed; take the line out, or put a file of that name in {os.path.dirname(self.owned)}"
            )
        self.forced.setdefault(rule, []).append(f"{key}={value}")

    def write(self) -> bool:
        """Put all in place; whether anything changed."""
        rules = [rule for rule in self.batch.present if rule["rule"] in self.forced]
        own = core.dropin(
            core.read(self.owned), rules, self.batch.keep, lambda rule: self.forced[rule["rule"]], f"[{self.section}]"
        )
        changed = [self.batch.write(path, self.texts[path]) for path in self.editable()]
        return self.batch.write(self.owned, own) or any(changed)

    def unread(self) -> bool:
        """Whether the unit has been running since before one of its files was changed."""
        try:
            started = os.lstat(STARTED + self.unit).st_mtime
        except OSError:
            return False  # it does not run, or systemd is older than 236
        directories = [os.path.join(directory, os.path.basename(self.main) + ".d") for directory in DIRECTORIES]
        paths = [path for path in [self.main, self.owned, *self.others, *directories] if os.path.exists(path)]
        return any(os.lstat(path).st_mtime > started for path in paths)


def restart(batch: core.Batch, files: Files) -> None:
    """journald anew, with its journal on disk; journal-upload only where it runs."""
    batch.changed_file(f"{files.unit} (running)", "with its old configuration\n", "with its new configuration\n")
    if batch.module.check_mode:
        return
    if files.section == "Upload":
        must(batch, ["systemctl", "try-restart", files.unit])
        return
    must(batch, ["systemctl", "restart", files.unit])
    if "persistent" in values(files.texts[files.main], "Journal", "Storage"):
        must(batch, ["journalctl", "--flush"])
        # owner, mode and access list of the directory, which journald makes as plain root's
        must(batch, ["systemd-tmpfiles", "--create", "--prefix", JOURNAL], OTHERS_LINES)


def must(batch: core.Batch, argv: List[str], fine: Tuple[int, ...] = (0,)) -> None:
    rc, _out, err = runtime.run(batch.module, argv)
    if rc not in fine:
        batch.fail(f"{' '.join(argv)}: exit {rc}: {err.strip()}; the files are written, what runs may not agree")


def needs_directory(batch: core.Batch, files: Files) -> bool:
    """Storage is persistent and what it needs is gone: journald makes it when it starts."""
    asked = any(rule["want"].get("Journal", {}).get("Storage") == "persistent" for rule in batch.present)
    return asked and files.section == "Journal" and not os.path.isdir(JOURNAL)


def apply(batch: core.Batch) -> None:
    sections = {section: Files(batch, section) for section in FILES}
    asked = [(rule, list(wanted(batch, rule))) for rule in batch.present]
    given_up = [*batch.absent, *(rule["rule"] for rule, keys in asked if not keys)]
    for slug in given_up:
        for files in sections.values():
            files.give_back(slug)
    for rule, keys in asked:
        batch.record(rule["rule"], {}, {})
        for section, key, value in keys:
            sections[section].set(rule["rule"], key, value)
    for files in sections.values():
        changed = files.write()
        about = any(section == files.section for _rule, keys in asked for section, _key, _value in keys)
        stale = about and (files.unread() or needs_directory(batch, files))
        runs = files.section == "Journal" or os.path.lexists(STARTED + files.unit)
        if runtime.manager_runs() and runs and (changed or stale):
            restart(batch, files)
    for slug in given_up:
        batch.forget(slug)


def main() -> None:
    batch = core.batch_module("journald", installs={"type": "list", "elements": "dict", "default": []})
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
