#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module time_sync: one time source in chrony.conf and the user chronyd runs as."""

from __future__ import annotations

DOCUMENTATION = r"""
module: time_sync
author: The cisdriver authors
short_description: Configures chrony for a batch of rules
description:
  - Adds one line with a time source to chrony.conf where that file names none; with C(beside_others) also where it
    names none but others. Every line that stands there stays.
  - Brings C(-u) into the value of OPTIONS that is in force, and leaves its other options.
  - Lets chronyd read the new file before it is put in place, and restarts a running chronyd when something changed.
  - A rule that is no longer selected gets back what stood there, unless somebody has changed it since.
options:
  main:
    description: The file chronyd starts from.
    type: path
    default: /etc/chrony.conf
  environment:
    description: The file with the options of chronyd.service.
    type: path
    default: /etc/sysconfig/chronyd
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want holds C(server), an address with
      its options, C(beside_others) and C(user).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.time_sync:
    rules:
      - rule: chrony_configured
        id: 2.1.2
        want: {server: 169.254.169.123 prefer iburst minpoll 4 maxpoll 4, user: chrony}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping C(main) and C(OPTIONS) to their lines.
  type: dict
  returned: always
"""

import os
import re
from typing import Any, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

UNIT = "chronyd.service"

SOURCE = re.compile(r"(?i)^\s*(server|pool)\s+(\S+)")
OPTIONS = re.compile(r"^\s*OPTIONS\s*=\s*(.*?)\s*$")
#: ``-u`` with its user, of which there may be none.
USER = re.compile(r"(?:(?<=\s)|^)-u\s*(?:[A-Za-z_][\w-]*)?")


def source_lines(text: str) -> List[str]:
    return [line for line in text.splitlines() if SOURCE.match(line)]


def hosts(text: str) -> List[str]:
    return [line.split()[1].lower() for line in source_lines(text)]


def managed(want: Mapping[str, Any], text: str) -> Optional[str]:
    """The line to add to chrony.conf, None where what it names is enough."""
    server = want.get("server")
    named = hosts(text)
    if not server or server.split()[0].lower() in named or (named and not want.get("beside_others")):
        return None
    return f"server {server}"


def with_line(text: str, line: str) -> str:
    return text + ("" if text.endswith("\n") or not text else "\n") + line + "\n"


def without_line(text: str, line: str) -> str:
    """The text without the last line that is this one."""
    lines = text.splitlines(keepends=True)
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].rstrip("\n") == line:
            del lines[index]
            break
    return "".join(lines)


def options(text: str) -> Tuple[int, Optional[str]]:
    """Number and text of the line that sets OPTIONS: of several, systemd takes the last."""
    for index, line in reversed(list(enumerate(text.splitlines()))):
        if OPTIONS.match(line):
            return index, line
    return len(text.splitlines()), None


def with_user(line: Optional[str], user: str) -> str:
    """The line of OPTIONS with ``-u user`` in place of any other, its quotes kept."""
    found = OPTIONS.match(line or "")
    value = found.group(1) if found else ""
    quote = value[0] if value[:1] in ("'", '"') and value.endswith(value[0]) and len(value) > 1 else ""
    inner = value[1:-1] if quote else value
    if re.search(rf"(?:^|\s)-u\s*{re.escape(user)}(?:\s|$)", inner):
        return line or ""
    others = USER.sub(" ", inner).split() if USER.search(inner) else [inner] if inner else []
    inner = " ".join([*others, "-u", user])
    return f"OPTIONS={quote or chr(34)}{inner}{quote or chr(34)}"


def with_options(text: str, line: Optional[str]) -> str:
    """The text with this line in place of the one in force; None takes it away."""
    lines = text.splitlines()
    index, _old = options(text)
    lines[index : index + 1] = [] if line is None else [line]
    return "\n".join(lines) + "\n" if lines else ""


def give_back(batch: core.Batch, slug: str, main: str, environment: str) -> Tuple[str, str]:
    """Both texts as they were before a rule that is no longer selected, where nobody changed them since."""
    for name, (before, after) in batch.given_back(slug).items():
        if name == batch.module.params["main"] and after in main.splitlines():
            main = without_line(main, after)
            batch.record(slug, {name: after}, {name: before})
        if name == batch.module.params["environment"] and options(environment)[1] == after:
            environment = with_options(environment, before)
            batch.record(slug, {name: after}, {name: before})
    return main, environment


def settle(batch: core.Batch, rule: Mapping[str, Any], main: str, environment: str) -> Tuple[str, str]:
    """Both texts as a rule wants them."""
    paths = batch.module.params
    line = managed(rule["want"], main)
    named = source_lines(main)
    if line:
        batch.remember(rule["rule"], paths["main"], None, line)
        main = with_line(main, line)
    batch.record(rule["rule"], {paths["main"]: named}, {paths["main"]: source_lines(main)})
    user = rule["want"].get("user")
    before = options(environment)[1]
    after = with_user(before, user) if user else before
    if after != before:
        batch.remember(rule["rule"], paths["environment"], before, after)
        environment = with_options(environment, after)
    batch.record(rule["rule"], {paths["environment"]: before}, {paths["environment"]: after})
    return main, environment


def problem(batch: core.Batch, path: str) -> str:
    """What chronyd has against a file; nothing where it is not installed or too old for ``-p``."""
    rc, _out, err = runtime.run(batch.module, ["chronyd", "-p", "-f", path])
    return "" if rc == 127 or "invalid option" in err else err.strip() if rc else ""


def apply(batch: core.Batch) -> None:
    params = batch.module.params
    if not os.path.exists(params["main"]):
        return  # chrony is not installed, which another rule asks for
    main, environment = core.read(params["main"]), core.read(params["environment"])
    for slug in batch.absent:
        main, environment = give_back(batch, slug, main, environment)
    for rule in batch.present:
        main, environment = settle(batch, rule, main, environment)
    differs = (main, environment) != (core.read(params["main"]), core.read(params["environment"]))
    stale = runtime.must_read(batch, UNIT, differs)
    batch.write(params["main"], main, validate=lambda path: problem(batch, path))
    batch.write(params["environment"], environment)
    if stale and not batch.module.check_mode:
        runtime.try_restart(batch, UNIT)
        runtime.has_read(UNIT)
    for slug in batch.absent:  # not before: a file may refuse to be written
        batch.forget(slug)


def main() -> None:
    batch = core.batch_module(
        "time_sync",
        main={"type": "path", "default": "/etc/chrony.conf"},
        environment={"type": "path", "default": "/etc/sysconfig/chronyd"},
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
