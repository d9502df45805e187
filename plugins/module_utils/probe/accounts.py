# Copyright the cisdriver authors. Apache-2.0.
"""Users, groups and passwords as the files name them, read the way glibc reads them (nss_files).

Blanks before a name are skipped, fields that are missing at the end are empty, a line that starts with ``#`` is none.
What a reader of those files would stumble over is *odd*: evidence that fails, for the rules that judge the files.
"""

from __future__ import annotations

import re
from typing import Dict, List, NamedTuple, Sequence, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

PASSWD = "/etc/passwd"
GROUP = "/etc/group"
SHADOW = "/etc/shadow"
SHELLS = "/etc/shells"
LOGIN_DEFS = "/etc/login.defs"
NOBODY = 65534
#: What getusershell(3) offers where there is no /etc/shells.
_DEFAULT_SHELLS = ("/bin/sh", "/bin/csh")


class User(NamedTuple):
    name: str
    password: str
    uid: int
    gid: int
    home: str
    shell: str
    source: str


class Group(NamedTuple):
    name: str
    gid: int
    source: str


class Secret(NamedTuple):
    """A line of /etc/shadow; ``changed`` in days since 1970, as text."""

    name: str
    password: str
    changed: str
    source: str


Row = Tuple[List[str], str]


def users(node: core.Node) -> List[User]:
    return [
        User(fields[0], fields[1], int(fields[2]), int(fields[3]), fields[5], fields[6] or "/bin/sh", source)
        for fields, source in _rows(node, PASSWD, 7, (2, 3))[0]
    ]


def groups(node: core.Node) -> List[Group]:
    return [Group(fields[0], int(fields[2]), source) for fields, source in _rows(node, GROUP, 4, (2,))[0]]


def secrets(node: core.Node) -> List[Secret]:
    return [Secret(fields[0], fields[1], fields[2], source) for fields, source in _rows(node, SHADOW, 9, ())[0]]


def odd_users(node: core.Node) -> List[core.Evidence]:
    return _rows(node, PASSWD, 7, (2, 3))[1]


def odd_groups(node: core.Node) -> List[core.Evidence]:
    return _rows(node, GROUP, 4, (2,))[1]


def odd_secrets(node: core.Node) -> List[core.Evidence]:
    return _rows(node, SHADOW, 9, ())[1]


def passwords(node: core.Node) -> Dict[str, str]:
    """The password field that counts per user: /etc/shadow's where /etc/passwd says ``x``; no line there is locked."""
    held = {secret.name: secret.password for secret in reversed(secrets(node))}
    return {user.name: held.get(user.name, "!") if user.password == "x" else user.password for user in users(node)}


def is_locked(password: str) -> bool:
    return password[:1] in ("!", "*")


def uid_min(node: core.Node) -> int:
    """The first uid of people; those below are of the system."""
    value = "1000"
    for _number, line in node.lines(LOGIN_DEFS):
        words = line.split()
        if len(words) > 1 and words[0] == "UID_MIN":
            value = words[1]
    return int(value) if value.isdigit() else 1000


def interactive(node: core.Node) -> List[User]:
    """Users whose shell stands in /etc/shells and lets them in."""
    text = node.read(SHELLS)
    shells = _DEFAULT_SHELLS if text is None else [line for _number, line in node.lines(SHELLS)]
    return [user for user in users(node) if user.shell in shells and not re.search(r"/(nologin|false)$", user.shell)]


def _rows(node: core.Node, path: str, width: int, numbers: Sequence[int]) -> Tuple[List[Row], List[core.Evidence]]:
    """Lines that name somebody, their fields filled up to ``width``; and evidence on lines that are odd."""
    rows: List[Row] = []
    odd: List[core.Evidence] = []
    lines = _text(node, path).split("\n")
    if lines[-1] == "":
        lines.pop()
    else:
        odd.append(core.evidence(path, "a line end at the end", "none", True, f"{path}:{len(lines)}"))
    for number, line in enumerate(lines, 1):
        source = f"{path}:{number}"
        fields = line.lstrip().split(":")
        problem = _problem(line, fields, width, numbers)
        if problem:
            odd.append(core.evidence(f"line {number} of {path}", f"{width} fields", problem, False, source))
        fields += [""] * (width - len(fields))
        if fields[0][:1] not in ("", "#", "+", "-") and all(re.fullmatch(r"\d+", fields[at]) for at in numbers):
            rows.append((fields, source))
    return rows, odd


def _problem(line: str, fields: Sequence[str], width: int, numbers: Sequence[int]) -> str:
    if not line.strip():
        return "a blank line"
    if line.lstrip().startswith("#"):
        return ""
    if line[0] in "+-":
        return f"the NIS entry {fields[0]}"
    if line.endswith("\r"):
        return "a carriage return at the end"
    if len(fields) != width:
        return f"{len(fields)} fields"
    if not fields[0].strip():
        return "no name"
    wrong = [fields[at] for at in numbers if not re.fullmatch(r"\d+", fields[at])]
    return f"the id {wrong[0]!r}" if wrong else ""


def _text(node: core.Node, path: str) -> str:
    """The file with its carriage returns, which Node.read() takes away."""
    try:
        with open(node.real(path), encoding="utf-8", errors="replace", newline="") as file:
            return file.read()
    except OSError as error:
        raise core.ProbeError(f"cannot read {path}: {error.strerror}") from error
