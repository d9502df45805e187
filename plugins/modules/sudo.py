#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module sudo: a list of rules' Defaults in one drop-in that sudo reads after the others."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sudo
author: The cisdriver authors
short_description: Sets Defaults of sudo for a batch of rules
description:
  - Writes one drop-in that it owns whole. Of several Defaults the last one wins, so its name sorts last; an
    C(includedir) line is added to sudoers if none reads it.
  - Takes out of other files what a rule forbids anywhere. Who may run what, NOPASSWD included, it never touches.
  - Lets visudo check sudoers and all its files together before anything is put in place.
  - Rotates the log file it sets.
options:
  path:
    description: The drop-in. sudo ignores names with a dot.
    type: path
    default: /etc/sudoers.d/zz-cis
  main:
    description: The file sudo starts from.
    type: path
    default: /etc/sudoers
  rotation:
    description: The configuration for logrotate that goes with C(logfile).
    type: path
    default: /etc/logrotate.d/cis-sudo
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps an option to its value, or to
        true for a flag. C(authenticate) true takes C(!authenticate) out of every file.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.sudo:
    rules:
      - {rule: sudo_uses_pty, id: 4.3.2, want: {use_pty: true}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a file to the rule's lines.
  type: dict
  returned: always
"""

import os
import re
import shutil
import tempfile
from typing import Any, Dict, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, edits

INCLUDEDIR = re.compile(r"(?m)^\s*[@#]includedir\s+(\S+)\s*$")
#: A line that is no comment.
COMMANDS = re.compile(r"(?m)^(?!\s*#).*$")
TIMEOUT = re.compile(r"\btimestamp_timeout\s*=\s*\"?(-?[\d.]+)\"?")


def included(main: str, path: str) -> List[str]:
    """Files beside the drop-in that sudo reads, less ours, in its order."""
    directory = os.path.dirname(path)
    listed = os.listdir(directory) if os.path.isdir(directory) else []
    names = [name for name in listed if "." not in name and not name.endswith("~")]
    beside = [os.path.join(directory, name) for name in sorted(names, key=os.fsencode)]
    return [main] + [name for name in beside if name != path and os.path.isfile(name)]


def lines_of(rule: Mapping[str, Any], others: Mapping[str, str]) -> List[str]:
    lines = []
    for option, value in rule["want"].items():
        if option == "timestamp_timeout":
            lines.append(f"Defaults timestamp_timeout={lowest_timeout(float(value), others)}")
        elif option != "authenticate":
            lines.append(f"Defaults {option}" if value is True else f'Defaults {option}="{value}"')
    return lines


def lowest_timeout(value: float, others: Mapping[str, str]) -> str:
    """The value, or a lower one that another file sets for everyone: ours is read last, and must not loosen."""
    for text in others.values():
        for line in re.findall(r"(?m)^\s*Defaults\s.*$", text):
            value = min([value] + [float(found) for found in TIMEOUT.findall(line) if float(found) >= 0])
    return f"{value:g}"


def corrected(batch: core.Batch, path: str, text: str) -> str:
    """A file of somebody else's without what a rule forbids wherever it stands, and as it was where none does."""
    for slug in reversed(batch.absent):
        text = edits.give_back(batch, slug, path, text)
    for rule in batch.present:
        before = text
        if rule["want"].get("authenticate"):
            text = COMMANDS.sub(lambda line: re.sub(r"!\s*authenticate\b", "authenticate", line[0]), text)
        if "timestamp_timeout" in rule["want"]:
            text = without_long_timeout(text, float(rule["want"]["timestamp_timeout"]))
        edits.remember(batch, rule["rule"], path, before, text)
    return text


def without_long_timeout(text: str, most: float) -> str:
    """Time-outs below 0 (never) or above ``most`` become ``most``, wherever they stand."""
    lines = text.splitlines(keepends=True)
    for index, line in enumerate(lines):
        if line.lstrip().startswith("Defaults"):
            lines[index] = TIMEOUT.sub(
                lambda found: found[0] if 0 <= float(found[1]) <= most else f"timestamp_timeout={most:g}", line
            )
    return "".join(lines)


def desired(batch: core.Batch) -> Dict[str, str]:
    """Path to text of every file that may change; ours may be empty, which removes it."""
    path, main, rotation = (batch.module.params[name] for name in ("path", "main", "rotation"))
    others = {name: core.read(name) for name in included(main, path)}
    owned = core.dropin(core.read(path), batch.present, batch.keep, lambda rule: lines_of(rule, others))
    texts = {name: corrected(batch, name, text) for name, text in others.items()}
    directories = [found.rstrip("/") for found in INCLUDEDIR.findall(texts[main])]
    if owned and os.path.dirname(path) not in directories:
        texts[main] = texts[main].rstrip("\n") + f"\n#includedir {os.path.dirname(path)}\n"
    texts[path] = owned
    log = next((rule["want"]["logfile"] for rule in batch.present if "logfile" in rule["want"]), "")
    if log:
        texts[rotation] = rotated(log)
    elif "logfile" not in owned:
        texts[rotation] = ""
    return texts


def rotated(log: str) -> str:
    return f"{core.HEADER}\n{log} {{\n    monthly\n    rotate 12\n    compress\n    missingok\n    notifempty\n}}\n"


def problem(batch: core.Batch, texts: Mapping[str, str]) -> str:
    """What visudo has against sudoers and its files as they would be, in a directory of their own."""
    path, main = batch.module.params["path"], batch.module.params["main"]
    directory = tempfile.mkdtemp(prefix=core.TEMPORARY)
    try:
        copies = os.path.join(directory, "sudoers.d")
        os.mkdir(copies)
        for name in [*included(main, path), path]:
            text, copy = texts.get(name, ""), os.path.join(copies, os.path.basename(name))
            if name == main:
                copy = os.path.join(directory, "sudoers")
                text = INCLUDEDIR.sub(lambda found: redirected(found, path, copies), text)
            if text:
                put(copy, text)
        code, out, err = batch.module.run_command(["visudo", "-c", "-f", os.path.join(directory, "sudoers")])
        return "" if code == 0 else (err.strip() or out.strip()).replace(directory, os.path.dirname(main))
    finally:
        shutil.rmtree(directory)


def redirected(found: "re.Match[str]", path: str, copies: str) -> str:
    return f"#includedir {copies}" if found[1].rstrip("/") == os.path.dirname(path) else found[0]


def put(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.chmod(path, 0o440)


def check_wins(batch: core.Batch, texts: Mapping[str, str]) -> None:
    """Fail, naming rule, file and line, if what is read after ours says otherwise."""
    path, main = batch.module.params["path"], batch.module.params["main"]
    later = [name for name in included(main, path)[1:] if os.path.basename(name) > os.path.basename(path)]
    read_later = [*((name, texts[name]) for name in later), (main, INCLUDEDIR.split(texts[main])[-1])]
    for rule in batch.present:
        for name, text in read_later:
            line = contrary(rule, text)
            if line:
                batch.fail(
                    f"rule {rule['rule']} ({rule['id']}): {name}: {line!r} is read after {path} and wins;"
                    " take it out. Nothing is changed"
                )


def check_not_shut_out(batch: core.Batch, before: Mapping[str, str], texts: Mapping[str, str]) -> None:
    """Fail where the user this runs as lives by ``!authenticate`` alone: with the next task its sudo would be gone."""
    user = os.environ.get("SUDO_USER", "root")
    if user == "root" or not any(rule["want"].get("authenticate") for rule in batch.present):
        return
    for path in texts:
        for scope, line in re.findall(r"(?m)^(?=\s*Defaults(\S*)\s)(.*!\s*authenticate\b.*)$", before[path]):
            named = scope[1:].split(",") if scope.startswith(":") else [user]
            if not {user, "ALL"} & set(named) and not any(name.startswith(("%", "+", "!")) for name in named):
                continue
            if "NOPASSWD" not in batch.module.run_command(["sudo", "-n", "-l", "-U", user])[1]:
                batch.fail(
                    f"{path}: {line.strip()!r} is all that lets {user}, the user this runs as, use sudo without"
                    " a password: give it NOPASSWD, or skip the rule. Nothing is changed"
                )


def contrary(rule: Mapping[str, Any], text: str) -> str:
    """The first Defaults for everyone by which the rule's flag or log file would not hold."""
    for option in ("use_pty", "logfile"):
        value = rule["want"].get(option)
        for line in re.findall(r"(?m)^\s*Defaults\s.*$", text) if value else ():
            other = re.search(rf"\b{option}\s*=\s*\"?([^\s,\"]+)", line)
            if re.search(rf"!\s*{option}\b", line) or (other and other[1] != value):
                return line.strip()
    return ""


def apply(batch: core.Batch) -> None:
    """Work out every file, let visudo judge the whole, then put in place."""
    params = batch.module.params
    if not os.path.exists(params["main"]):
        batch.exit()  # no sudo here; the rules do not apply
    texts = desired(batch)
    before = {path: core.read(path) for path in texts}
    objection = problem(batch, texts)
    if objection:
        batch.fail(f"{params['path']}: nothing is changed, visudo refuses it: {objection}")
    check_wins(batch, texts)
    check_not_shut_out(batch, before, texts)
    for path, text in texts.items():
        batch.write(path, text, mode=0o644 if path == params["rotation"] else 0o440)
    for slug in batch.absent:
        batch.forget(slug)
    batch.restrict(params["path"], 0o440)
    for rule in batch.present:
        lines = {path: (mentions(rule, before[path]), mentions(rule, texts[path])) for path in texts}
        shown = {path: pair for path, pair in lines.items() if pair[0] != pair[1] or path == params["path"]}
        batch.record(rule["rule"], {p: old for p, (old, _) in shown.items()}, {p: new for p, (_, new) in shown.items()})


def mentions(rule: Mapping[str, Any], text: str) -> List[str]:
    """Lines of a text that the rule is about."""
    options = "|".join(rule["want"])
    return [line.strip() for line in text.splitlines() if re.search(rf"^\s*Defaults.*\b({options})\b", line)]


def main() -> None:
    batch = core.batch_module(
        "sudo",
        path={"type": "path", "default": "/etc/sudoers.d/zz-cis"},
        main={"type": "path", "default": "/etc/sudoers"},
        rotation={"type": "path", "default": "/etc/logrotate.d/cis-sudo"},
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
