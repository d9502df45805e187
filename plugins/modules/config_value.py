#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module config_value: single values of configuration files that belong to others."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_value
author: The cisdriver authors
short_description: Sets single values of configuration files for a batch of rules
description:
  - Changes the lines of a key and no other. A key that is missing comes at the end of its section, a section that is
    missing at the end of the file.
  - Drop-ins below /etc that say otherwise are brought to the value, too.
  - A rule that is no longer selected gets the values back that stood there, unless somebody has changed them since.
options:
  reload:
    description: The unit that reads its configuration anew when a file has changed, where a service manager runs.
    type: str
    default: ""
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want is a list of items with C(path),
        C(section), C(dropins) and C(values), or C(path) with a glob and C(every), as C(schemas/rule.json) has it.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.config_value:
    rules:
      - rule: coredump_storage_disabled
        id: 1.5.3
        want: [{path: /etc/systemd/coredump.conf, section: Coredump, values: {Storage: none}}]
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
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

#: Stands for any section where a rule asks for every line of a key.
ANY = "*"
#: Stands for the key of a section's header.
HEADER = "["


def settings(text: str) -> Iterator[Tuple[int, str, str, str]]:
    """``(index, section, key, value)`` of each line that sets something; a section's header has the key ``[``."""
    section = ""
    for index, line in enumerate(text.splitlines()):
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped.strip("[]")
            yield index, section, HEADER, ""
        elif "=" in stripped and stripped[0] not in "#;":
            key, _equals, value = stripped.partition("=")
            yield index, section, key.strip(), value.strip()


def changed_lines(text: str, section: Optional[str], key: str, value: Any) -> str:
    """The text with the key's lines at the value; section None means any."""
    lines = text.splitlines(keepends=True)
    for index, in_section, name, found in settings(text):
        if name == key and section in (None, in_section) and found != settled(value, found):
            lines[index] = assigned(lines[index], settled(value, found))
    return "".join(lines)


def settled(value: Any, found: str) -> str:
    """The value to write: of ``{min: 8, max: 99}`` the one that is there if it lies between, else the least."""
    if not isinstance(value, dict):
        return str(value)
    least = int(value["min"])
    fits = found.isdigit() and least <= int(found) <= int(value.get("max", found))
    return found if fits else str(least)


def assigned(line: str, value: str) -> str:
    return re.sub(r"(=\s*).*", lambda equals: equals[1] + value, line.rstrip("\n")) + "\n"


def with_line(text: str, section: str, key: str, value: str) -> str:
    """The text with one more line, after the last of the section that says anything."""
    lines = text.splitlines()
    inside = [index for index, in_section, _key, _value in settings(text) if in_section == section]
    if inside:
        lines.insert(inside[-1] + 1, f"{key}={value}")
    else:
        lines += ([f"[{section}]"] if section else []) + [f"{key}={value}"]
    return "\n".join(lines) + "\n"


def without(text: str, section: str, key: str) -> str:
    """The text without the lines of a key; a header stays where anything is set below it."""
    lines = text.splitlines(keepends=True)
    if key == HEADER and any(where == section and name != HEADER for _index, where, name, _value in settings(text)):
        return text
    dropped = {index for index, where, name, _value in settings(text) if (where, name) == (section, key)}
    return "".join(line for index, line in enumerate(lines) if index not in dropped)


def with_values(text: str, section: Optional[str], key: str, values: List[str]) -> str:
    """The text with the lines of a key at ``values``, one each."""
    lines = text.splitlines(keepends=True)
    of_key = [index for index, where, name, _value in settings(text) if name == key and section in (None, where)]
    for place, index in enumerate(of_key):
        lines[index] = assigned(lines[index], values[place])
    return "".join(lines)


def give_back(batch: core.Batch, texts: Dict[str, str]) -> None:
    """What rules that are no longer selected changed, where it still stands as they left it."""
    for slug in batch.absent:
        for name, (before, after) in sorted(batch.given_back(slug).items(), key=lambda item: item[0].endswith(HEADER)):
            path, place, key = name.split("\t")
            section = None if place == ANY else place
            text = texts.setdefault(path, core.read(path))
            # a rule that ran again after an administrator added lines remembers more lines than there once were
            if found(text, section, key) == after and len(before) in (0, len(after)):
                texts[path] = without(text, place, key) if not before else with_values(text, section, key, before)
                batch.record(slug, {f"{path} {key}": after}, {f"{path} {key}": before})
        batch.forget(slug)


def apply(batch: core.Batch, unit: str = "") -> None:
    texts: Dict[str, str] = {}
    give_back(batch, texts)
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
        for item in rule["want"]:
            for path, section, wanted, needed in places(item):
                text = texts.setdefault(path, core.read(path))
                for key, value in wanted.items():
                    if needed and section and not found(text, section, HEADER):
                        batch.remember(rule["rule"], "\t".join((path, section, HEADER)), [], [""])
                    texts[path] = changed_lines(texts[path], section, key, value)
                    if needed and not found(texts[path], section, key):
                        texts[path] = with_line(texts[path], section or "", key, settled(value, ""))
                    before, after = found(text, section, key), found(texts[path], section, key)
                    batch.record(rule["rule"], {f"{path} {key}": before}, {f"{path} {key}": after})
                    place = ANY if section is None else section
                    batch.remember(rule["rule"], "\t".join((path, place, key)), before, after)
    differs = any(text != core.read(path) for path, text in texts.items())
    stale = bool(unit) and runtime.must_read(batch, unit, differs)
    for path, text in texts.items():
        batch.write(path, text)
    if stale and not batch.module.check_mode:
        reload(batch, unit)
        runtime.has_read(unit)


def reload(batch: core.Batch, unit: str) -> None:
    """Let a service read its configuration; one that does not run will at its start."""
    if runtime.run(batch.module, ["systemctl", "is-active", "-q", unit])[0]:
        return
    # by service, which knows the legacy action that auditd has instead of a reload of its unit
    rc, _out, err = runtime.run(batch.module, ["service", unit.rpartition(".")[0], "reload"])
    if rc:
        batch.module.warn(f"{unit} does not take its new settings before it starts again: {err.strip() or rc}")


def places(item: Mapping[str, Any]) -> Iterator[Tuple[str, Optional[str], Mapping[str, Any], bool]]:
    """``(file, section, values, whether a missing line is added)`` of every file of an item."""
    if "every" in item:
        for path in sorted(glob.glob(item["path"])):
            yield path, None, item["every"], False
        return
    section = item.get("section", "")
    # a file is made where there is none, but not the directory of a program that is not installed
    if os.path.isdir(os.path.dirname(item["path"])):
        yield item["path"], section, item["values"], True
    for directory in item.get("dropins", ()):
        if directory.startswith("/etc/"):
            for path in sorted(glob.glob(os.path.join(directory, "*.conf"))):
                yield path, section, item["values"], False


def found(text: str, section: Optional[str], key: str) -> List[str]:
    return [value for _index, where, name, value in settings(text) if name == key and section in (None, where)]


def main() -> None:
    batch = core.batch_module("config_value", reload={"type": "str", "default": ""})
    apply(batch, batch.module.params["reload"])
    batch.exit()


if __name__ == "__main__":
    main()
