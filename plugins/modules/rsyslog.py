#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module rsyslog: modes of its files, a remote host, and no input from the network, for a list of rules."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rsyslog
author: The cisdriver authors
short_description: Configures rsyslog for a batch of rules
description:
  - Sets C($FileCreateMode) before the first rule of rsyslog.conf, tightens each mode that another line sets, and gives
    one to actions that write files and name none.
  - Writes one drop-in that it owns, which sends everything to the host it is given, through a queue, so that logging
    goes on while that host is away. Without a host it writes none.
  - Turns lines that take in messages from the network into comments.
  - Lets C(rsyslogd -N1) check the whole before anything is put in place, and restarts rsyslog where it runs.
  - A rule that is no longer selected gets the lines back that stood there, unless somebody has changed them since.
options:
  main:
    description: The file rsyslog starts from. Where there is none, as on a machine without rsyslog, nothing is done.
    type: path
    default: /etc/rsyslog.conf
  path:
    description: The drop-in.
    type: path
    default: /etc/rsyslog.d/60-cis-remote.conf
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want holds C(file_mode), C(remote) with
      C(host), C(port) and C(protocol), or C(remote_input) false.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.rsyslog:
    rules:
      - {rule: rsyslog_file_permissions, id: 5.1.1.4, want: {file_mode: "0640"}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a file to its lines on the matter.
  type: dict
  returned: always
"""

import fnmatch
import glob
import os
import re
import shutil
import tempfile
from typing import Any, Dict, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, edits, runtime

UNIT = "rsyslog.service"
STARTED = f"/run/systemd/units/invocation:{UNIT}"
INCLUDE = re.compile(r"(?im)^\s*(?:\$IncludeConfig\s+(\S+)|include\s*\([^)]*\bfile\s*=\s*\"([^\"]+)\")")
MODE = re.compile(r"(?i)^(\s*\$FileCreateMode\s+|(?!\s*#|.*imjournal).*\bfileCreateMode\s*=\s*\")([0-7]+)")
ACTION = re.compile(r"(?is)\baction\s*\((?:[^\"()]|\"(?:\\.|[^\"\\])*\")*\)")
#: What a rule may come after: blank, comment, directive, and objects, over several lines, that write nothing.
BEFORE_RULES = re.compile(
    r"(?is)(?:\s+|#[^\n]*|\$(?!IncludeConfig)[^\n]*|(?:module|global|main_queue|template)\s*\([^)]*\))*"
)
NETWORK = r"(?:imtcp|imptcp|imudp|imrelp|imgssapi|imdtls|im3195)"
LEGACY_INPUT = re.compile(
    rf"(?im)^\s*\$(?:ModLoad\s+\S*?{NETWORK}(?:\.so)?\s*$|InputTCP|InputPTCP|UDPServer|InputRELP|InputGSS|Input3195).*$"
)
INPUT = re.compile(
    rf"(?ims)^[^#\n]*?\b(?:module|input)\s*\(\s*[^)]*?\b(?:load|type)\s*=\s*\"[^\"]*?{NETWORK}(?:\.so)?\"[^)]*\)"
)
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")


def others(main: str, path: str) -> List[str]:
    """rsyslog.conf and the files it includes, less ours."""
    found = [main]
    for pattern in patterns(core.read(main)):
        found += [name for name in sorted(glob.glob(pattern)) if os.path.isfile(name)]
    return [name for name in dict.fromkeys(found) if name != path]


def patterns(text: str) -> List[str]:
    named = [legacy or script for legacy, script in INCLUDE.findall(text)]
    return [name + "*" if name.endswith("/") else name for name in named]


def with_modes(text: str, most: int) -> str:
    """The text with no mode beyond ``most``, and none left to rsyslog's default in an action that writes a file."""
    lines = [MODE.sub(lambda found: _tightened(found, most), line) for line in text.splitlines(keepends=True)]
    return ACTION.sub(lambda found: _with_own_mode(found[0], most), "".join(lines))


def _tightened(found: "re.Match[str]", most: int) -> str:
    bits = int(found[2], 8)
    return found[0] if not bits & ~most else f"{found[1]}{bits & most:04o}"


def _with_own_mode(action: str, most: int) -> str:
    if re.search(r"(?i)filecreatemode\s*=", action):
        return action
    return re.sub(r"(?i)(\btype\s*=\s*\"(?:builtin:)?omfile\")", rf'\1 fileCreateMode="{most:04o}"', action)


def with_default_mode(text: str, most: int) -> str:
    """rsyslog.conf with the directive before all rules: it holds for those after it."""
    head = BEFORE_RULES.match(text)
    if head and re.search(r"(?im)^\s*\$FileCreateMode\s", head[0]):
        return text
    return f"$FileCreateMode {most:04o}\n{text}"


def without_input(text: str, id_: str) -> str:
    """The text with each line of a statement that listens as a comment."""
    for pattern in (INPUT, LEGACY_INPUT):
        for found in reversed(list(pattern.finditer(text))):
            start = text.rfind("\n", 0, max(found.start(), found.end() - len(found[0].lstrip()))) + 1
            end = text.find("\n", found.end())
            end = len(text) if end < 0 else end
            commented = [f"# {id_} cisdriver: {line}" for line in text[start:end].split("\n")]
            text = text[:start] + "\n".join(commented) + text[end:]
    return text


def remote_lines(batch: core.Batch, rule: Mapping[str, Any]) -> List[str]:
    """The drop-in's lines for a rule: a queue of its own, and no end of trying."""
    remote = rule["want"].get("remote") or {}
    if not remote.get("host"):
        return []
    host, port = str(remote["host"]), remote["port"]
    if not HOST.fullmatch(host) or not isinstance(port, int) or not 0 < port < 65536:
        batch.fail(
            f"rule {rule['rule']} ({rule['id']}): expected a host name or address and a port of 1 to 65535,"
            f" found {host!r} and {port!r}; nothing is changed"
        )
    return [
        f'*.* action(type="omfwd" target="{host}" port="{port}" protocol="{remote["protocol"]}"',
        '           action.resumeRetryCount="100" queue.type="LinkedList" queue.size="1000")',
    ]


def desired(batch: core.Batch) -> Dict[str, str]:
    """Path to text of every file that may change; ours may be empty, which removes it."""
    main, path = batch.module.params["main"], batch.module.params["path"]
    texts = {name: core.read(name) for name in others(main, path)}
    for slug in reversed(batch.absent):
        texts = {name: edits.give_back(batch, slug, name, text) for name, text in texts.items()}
    owned = core.dropin(core.read(path), batch.present, batch.keep, lambda rule: remote_lines(batch, rule))
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
        for name, before in texts.items():
            after = changed(rule, name == main, before)
            if name == main and core.block_lines(owned, rule["rule"]) and not included(after, path):
                after = after.rstrip("\n") + f"\n$IncludeConfig {path}\n"
            edits.remember(batch, rule["rule"], name, before, after)
            batch.record(rule["rule"], {name: mentions(rule, before)}, {name: mentions(rule, after)})
            texts[name] = after
        if "remote" in rule["want"]:
            lines = [core.block_lines(text, rule["rule"]) for text in (core.read(path), owned)]
            batch.record(rule["rule"], {path: lines[0]}, {path: lines[1]})
    return {**texts, path: owned}


def changed(rule: Mapping[str, Any], is_main: bool, text: str) -> str:
    want = rule["want"]
    if "file_mode" in want:
        most = int(want["file_mode"], 8)
        text = with_modes(text, most)
        text = with_default_mode(text, most) if is_main else text
    if want.get("remote_input") is False:
        text = without_input(text, rule["id"])
    return text


def included(text: str, path: str) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns(text))


def mentions(rule: Mapping[str, Any], text: str) -> List[str]:
    """Lines of a text that the rule is about."""
    if "file_mode" in rule["want"]:
        return [line.strip() for line in text.splitlines() if re.search(r"(?i)^[^#]*filecreatemode", line)]
    if rule["want"].get("remote_input") is False:
        return [line.strip() for line in text.splitlines() if re.search(NETWORK, line)]
    return [line.strip() for line in text.splitlines() if INCLUDE.match(line)]


def problem(batch: core.Batch, texts: Mapping[str, str]) -> str:
    """What rsyslogd has against its files as they would be, in a directory of their own."""
    main, path = batch.module.params["main"], batch.module.params["path"]
    beside = os.path.dirname(path)
    directory = tempfile.mkdtemp(prefix=core.TEMPORARY)
    try:
        for name, text in texts.items():
            if name == main or os.path.dirname(name) == beside:
                copy = os.path.join(directory, os.path.basename(name) + (".main" if name == main else ""))
                with open(copy, "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(text.replace(beside + "/", directory + "/") if name == main else text)
        copy = os.path.join(directory, os.path.basename(main) + ".main")
        rc, out, err = runtime.run(batch.module, ["rsyslogd", "-N1", "-f", copy])
        if rc in (0, 127):  # not installed: the files are those of a package that is gone
            return ""
        return (err.strip() or out.strip()).replace(directory, beside)
    finally:
        shutil.rmtree(directory)


def unread(texts: Mapping[str, str]) -> bool:
    """Whether rsyslog has been running since before one of its files was changed: it reads them once."""
    try:
        started = os.lstat(STARTED).st_mtime
    except OSError:
        return False
    return any(os.path.exists(path) and os.stat(path).st_mtime > started for path in texts)


def restart(batch: core.Batch) -> None:
    batch.changed_file(f"{UNIT} (running)", "with its old configuration\n", "with its new configuration\n")
    if not batch.module.check_mode:
        runtime.try_restart(batch, UNIT)


def apply(batch: core.Batch) -> None:
    """Work out every file, let rsyslogd judge the whole, then put in place, restart."""
    if not os.path.exists(batch.module.params["main"]):
        for rule in batch.present:
            batch.record(rule["rule"], {}, {})
        batch.write(batch.module.params["path"], "")
        return
    texts = desired(batch)
    if any(text != core.read(path) for path, text in texts.items()):
        objection = problem(batch, texts)
        if objection:
            batch.fail(f"{batch.module.params['main']}: nothing is changed, rsyslogd -N1 refuses it: {objection}")
    written = [batch.write(path, text) for path, text in texts.items()]
    runs = runtime.manager_runs() and os.path.lexists(STARTED)
    if runs and (any(written) or (batch.present and unread(texts))):
        restart(batch)
    for slug in batch.absent:
        batch.forget(slug)


def main() -> None:
    batch = core.batch_module(
        "rsyslog",
        main={"type": "path", "default": "/etc/rsyslog.conf"},
        path={"type": "path", "default": "/etc/rsyslog.d/60-cis-remote.conf"},
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
