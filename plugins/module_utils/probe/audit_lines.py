# Copyright the cisdriver authors. Apache-2.0.
"""Audit rules by what they say: lines of files as augenrules merges and auditctl loads them, and the kernel's list.

``man 7 audit.rules`` and kernel/auditfilter.c: of the rules of the exit list the first that matches decides; a load
stops at the first line the kernel refuses, unless ``-c`` or ``-i`` stands above it; a rule that is there already is
refused. ``auditctl -l`` writes watches, fields and system calls in ways of its own, which parse() undoes.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from typing import FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

RULES = "/etc/audit/rules.d"
MERGED = "/etc/audit/audit.rules"
#: Directories that are links on Amazon Linux; the kernel follows them when it takes a rule.
_LINKS = (("/var/run", "/run"), ("/bin", "/usr/bin"), ("/sbin", "/usr/sbin"), ("/lib", "/usr/lib"))
_USERS = ("auid", "uid", "euid", "suid", "fsuid", "obj_uid")
_ARCHES = {"x86_64": "b64", "aarch64": "b64", "i386": "b32", "arm": "b32"}
_NO_USER = ("unset", "-1", "4294967295")

Line = Tuple[str, str]


class Field(NamedTuple):
    name: str
    operator: str
    value: str


class Rule(NamedTuple):
    """``calls`` None stands for all system calls, ``arch`` empty for any."""

    action: str
    filter: str
    arch: str
    calls: Optional[FrozenSet[str]]
    fields: Tuple[Field, ...]
    key: str
    text: str
    source: str

    @property
    def identity(self) -> Tuple[object, ...]:
        """Equal for rules that are one to whoever compares what they say."""
        return (self.action, self.filter, self.arch, self.calls, frozenset(self.fields), self.key)


class State(NamedTuple):
    """Rules in force, in the order in which the kernel tries them. ``stopped`` tells why a load would end early."""

    rules: List[Rule]
    enabled: str
    enabled_source: str
    stopped: str


def merged(node: core.Node) -> List[Line]:
    """``(text, file:line)`` of every line, in augenrules' order; the merged file itself where there is no rules.d."""
    files = [path for path in node.glob(f"{RULES}/*.rules") if not posixpath.basename(path).startswith(".")]
    if not node.exists(RULES):
        files = [MERGED]
    files.sort(key=lambda path: _version_key(posixpath.basename(path)))
    return [(line, f"{path}:{number}") for path in files for number, line in node.lines(path)]


def _version_key(name: str) -> List[Tuple[int, int, str]]:
    """Order of ``ls -v``: numbers by value, letters before other characters, the suffix not counted."""
    stem = re.sub(r"(\.[A-Za-z~][A-Za-z0-9~]*)*$", "", name)
    parts = re.findall(r"\d+|\D", stem)
    return [(1, int(part), "") if part.isdigit() else (2 if part.isalpha() else 3, 0, part) for part in parts]


def load(node: core.Node, lines: Iterable[Line]) -> State:
    """What auditctl would leave in the kernel, starting from none: augenrules puts ``-D`` first and ``-e`` last."""
    rules: List[Rule] = []
    enabled, enabled_source, stopped, going_on = "", "", "", False
    for text, source in lines:
        words = text.split()
        if words[0] == "-e":
            enabled, enabled_source = "".join(words[1:2]), source
            continue
        going_on = going_on or words[0] in ("-c", "-i", "--continue", "--ignore")
        refused = "" if stopped else _one(node, rules, text, source)
        if refused and not going_on:
            stopped = f"{refused} at {source}"
    return State(rules, enabled, enabled_source, stopped)


def _one(node: core.Node, rules: List[Rule], text: str, source: str) -> str:
    """Put one line into effect; why the kernel refuses it, or nothing."""
    words = text.split()
    if words[0] == "-D" and len(words) > 2:
        rules[:] = [rule for rule in rules if rule.key != words[2]]
    rule = parse(node, text, source)
    if rule is None:
        return ""
    if words[0] in ("-d", "-W"):
        rules[:] = [other for other in rules if other.identity != rule.identity]
    elif any(other._replace(text="", source="") == rule._replace(text="", source="") for other in rules):
        return "Rule exists"
    elif any(
        field.name in ("path", "dir") and not node.exists(posixpath.dirname(field.value)) for field in rule.fields
    ):
        return "No such file or directory"
    else:
        rules.insert(0 if words[0] == "-A" else len(rules), rule)
    return ""


def parse(node: core.Node, text: str, source: str) -> Optional[Rule]:
    """A rule; None for a line that is none. Order, grouping and spelling of its parts do not matter."""
    words = text.split()
    if not words or words[0] not in ("-a", "-A", "-d", "-w", "-W"):
        return None
    options = [(words[place], words[place + 1]) for place in range(0, len(words) - 1, 2)]
    action, filter_ = _list([value for flag, value in options if flag in ("-a", "-A", "-d")])
    arch = next((value[5:] for flag, value in options if flag == "-F" and value.startswith("arch=")), "")
    keys = [value for flag, value in options if flag == "-k"]
    keys += [value[4:] for flag, value in options if flag == "-F" and value.startswith("key=")]
    calls = [name for flag, value in options if flag == "-S" for name in value.split(",")]
    fields = tuple(field for field in (_option(node, flag, value) for flag, value in options) if field)
    named = None if not calls or "all" in calls else frozenset(calls)
    return Rule(action, filter_, _ARCHES.get(arch, arch), named, fields, ",".join(keys), text, source)


def _list(values: Sequence[str]) -> Tuple[str, str]:
    """Action and list, which stand in either order; a watch is of the exit list."""
    words = values[0].split(",") if values else ["always", "exit"]
    actions = [word for word in words if word in ("always", "never")]
    lists = [word for word in words if word not in actions]
    return "".join(actions[:1]), "".join(lists[:1])


def _option(node: core.Node, flag: str, value: str) -> Optional[Field]:
    """The field that an option adds; None for those that are none: action, arch, system calls, key."""
    if flag in ("-w", "-W"):
        return _path(node, value, False)
    if flag == "-p":
        return Field("perm", "=", _sorted(value))
    if flag == "-C":
        return _comparison(value)
    if flag == "-F" and not value.startswith(("key=", "arch=")):
        return _field(node, value)
    return None


def _comparison(text: str) -> Field:
    """auditctl turns ``euid!=uid`` round."""
    left, operator, right = re.split(r"(!?=)", text + "=", maxsplit=1)
    return Field("-C", operator, ",".join(sorted((left, right.rstrip("=")))))


def _field(node: core.Node, text: str) -> Field:
    match = re.fullmatch(r"(\w+)(!=|>=|<=|&=|=|>|<|&)(.*)", text)
    if not match:
        return Field(text, "", "")
    name, operator, value = match.groups()
    if name in ("path", "dir"):
        return _path(node, value, name == "dir")
    if name == "perm":
        return Field(name, operator, _sorted(value))
    return Field("auid" if name == "loginuid" else name, operator, _value(node, name, value))


def _value(node: core.Node, name: str, value: str) -> str:
    """Numbers in one spelling; names of users and errors as numbers."""
    if name in (*_USERS, "loginuid", "gid", "egid", "sessionid") and value in _NO_USER:
        return "-1"
    error = re.fullmatch(r"(-?)(E[A-Z0-9]+)", value)
    if name == "exit" and error:
        return error.group(1) + str(getattr(errno, error.group(2), error.group(2)))
    if name in _USERS and not re.fullmatch(r"-?\d+", value):
        for _number, line in node.lines("/etc/passwd"):
            if line.split(":")[0] == value:
                return line.split(":")[2]
    try:
        return str(int(value, 0))
    except ValueError:
        return value


def _path(node: core.Node, value: str, directory: bool) -> Field:
    """``path`` for a file, ``dir`` for a directory and all below it: auditctl looks which it is."""
    plain = canonical(value)
    return Field("dir" if directory or os.path.isdir(node.real(plain)) else "path", "=", plain)


def canonical(path: str) -> str:
    plain = path.rstrip("/") or "/"
    for link, target in _LINKS:
        if plain == link or plain.startswith(link + "/"):
            return target + plain[len(link) :]
    return plain


def _sorted(letters: str) -> str:
    return "".join(sorted(letters))


def covers(rule: Rule, wanted: Rule) -> bool:
    """Whether a rule matches every event that ``wanted``, a rule of at most one system call, asks for."""
    if rule.arch and rule.arch != wanted.arch:
        return False
    if rule.calls is None:
        return implied(rule.fields, wanted.fields)
    if wanted.calls is None or not wanted.calls <= rule.calls:
        return False
    # the numbers of a rule without an arch are those of the machine's own programs
    return (bool(rule.arch) or wanted.arch != "b32") and implied(rule.fields, wanted.fields)


def implied(fields: Sequence[Field], given: Sequence[Field]) -> bool:
    return all(any(_follows(field, known) for known in given) for field in fields)


def _follows(field: Field, known: Field) -> bool:
    """Whether ``field`` holds for every event for which ``known`` does."""
    if field == known:
        return True
    if field.name == "dir" and known.name in ("path", "dir"):
        return known.value == field.value or known.value.startswith(field.value.rstrip("/") + "/")
    if field.name == "path" and known.name == "dir":
        return known.value == field.value  # there is none yet on this machine
    if field.name != known.name:
        return False
    if field.name == "perm":
        return set(known.value) <= set(field.value)
    if field.operator in (">=", ">") and known.operator == ">=" and field.value.isdigit() and known.value.isdigit():
        return int(known.value) >= int(field.value) + (field.operator == ">")
    return False
