# Copyright the cisdriver authors. Apache-2.0.
"""Lines of audit rules: written from data, and recognised among what files hold and what the kernel has loaded."""

from __future__ import annotations

import errno
import grp
import pwd
import re
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence

_UNSET = ("unset", "-1", "4294967295")
_USERS = ("auid", "loginuid", "uid", "euid", "suid", "fsuid", "obj_uid")
_GROUPS = ("gid", "egid", "sgid", "fsgid", "obj_gid")
_FIELD = re.compile(r"([a-z0-9_]+)(!=|>=|<=|&=|=|>|<|&)(.*)")

#: A rule without its spelling: the same for a line of a file and for what ``auditctl -l`` prints of it.
Canonical = FrozenSet[str]


def lines_of(item: Mapping[str, Any], known: Callable[[str, Sequence[str]], List[str]]) -> List[str]:
    """Lines of one item of a rule. ``known(arch, names)`` leaves out system calls that this machine lacks.

    The order of the options and the words are those that scanners which compare text look for.
    """
    key = f"-k {item['key']}"
    if "watch" in item:
        return [f"-w {item['watch']} -p {item['perm']} {key}"]
    fields = "".join(f" -F {field}" for field in item.get("fields", ()))
    if "path" in item:
        return [f"-a always,exit -F path={item['path']}{fields} {key}"]
    compare = f" -C {item['compare']}" if "compare" in item else ""
    calls = {arch: ",".join(known(arch, item["syscalls"])) for arch in item["arch"]}
    return [
        f"-a always,exit -F arch={arch} -S {names}{compare}{fields} {key}" for arch, names in calls.items() if names
    ]


def is_rule(line: str) -> bool:
    return line.startswith(("-a ", "-A ", "-w "))


def suppresses_all(line: str) -> bool:
    """Whether a line switches all system call auditing off: ``-a never,task`` in either order."""
    words = line.split()
    return len(words) == 2 and words[0] in ("-a", "-A") and set(words[1].split(",")) == {"never", "task"}


def control(line: str) -> Optional[str]:
    """The value of an ``-e`` line."""
    words = line.split()
    return words[1] if len(words) == 2 and words[0] == "-e" else None


def canonical(line: str) -> Canonical:
    """What a rule says, without its spelling; empty for a comment and for a line that is no rule."""
    words = line.split()
    if not words or words[0] not in ("-a", "-A", "-d", "-w", "-W"):
        return frozenset()
    said = {"always", "exit"} if words[0] in ("-w", "-W") else set()
    for place in range(0, len(words) - 1, 2):
        said.update(_word(words[place], words[place + 1]))
    return frozenset(said)


def _word(flag: str, value: str) -> Iterable[str]:
    if flag in ("-a", "-A", "-d"):
        return value.split(",")
    if flag == "-S":
        return [f"-S {name}" for name in value.split(",") if name != "all"]
    if flag in ("-w", "-W"):
        return [f"path={value.rstrip('/')}"]
    if flag == "-p":
        return [f"perm={''.join(sorted(value))}"]
    if flag == "-k":
        return [f"key={value}"]
    return [_comparison(value)] if flag == "-C" else [_field(value)] if flag == "-F" else [f"{flag} {value}"]


def _comparison(text: str) -> str:
    """auditctl turns ``euid!=uid`` round."""
    left, operator, right = (*re.split(r"(!?=)", text, maxsplit=1), "", "")[:3]  # an administrator's may lack them
    return f"-C {operator.join(sorted((left, right)))}"


def _field(text: str) -> str:
    match = _FIELD.fullmatch(text)
    if not match:
        return text
    name, operator, value = match.groups()
    if name in ("path", "dir"):
        return f"path={value.rstrip('/')}"
    if name == "perm":
        return f"perm={''.join(sorted(value))}"
    return f"{name}{operator}{_value(name, value)}"


def _value(name: str, value: str) -> str:
    """A value as auditctl gives it back."""
    if name in (*_USERS, *_GROUPS, "sessionid") and value in _UNSET:
        return "-1"
    try:
        if name in _USERS and not value.isdigit():
            return str(pwd.getpwnam(value).pw_uid)
        if name in _GROUPS and not value.isdigit():
            return str(grp.getgrnam(value).gr_gid)
        if name == "exit" and value.lstrip("-").startswith("E"):
            return str(getattr(errno, value.lstrip("-")) * (-1 if value.startswith("-") else 1))
        return str(int(value, 0))
    except (KeyError, AttributeError, ValueError):  # auditctl takes no such name either, or it is text
        return value


def loaded_of(texts: Mapping[str, str]) -> Dict[Canonical, str]:
    """What a load of these files leaves in the kernel: each rule, and the line it comes from."""
    rules: Dict[Canonical, str] = {}
    for path, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            rule = canonical(line)
            if rule and line.split()[0] in ("-d", "-W"):
                rules.pop(rule, None)
            elif rule:
                rules.setdefault(rule, f"{path}:{number}: {line.strip()}")
    return rules
