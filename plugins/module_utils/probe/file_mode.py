# Copyright the cisdriver authors. Apache-2.0.
"""Owner, group and permissions of files and directories.

A spec is a list of items. An item names objects by ``path`` (a glob is allowed) or by ``find``, a directory looked at
with everything below it on its file system, by the walk of :mod:`scan`; ``directory_of: {file, key}`` puts the
directory of a path configured elsewhere in its place. Then:

``type``       file (default) or directory
``names``      globs of the base names that count, for ``find``
``prune``      directories ``find`` leaves out
``max_mode``   octal text; no permission bit outside it
``owner``, ``group``   accepted names, one or a list; ``@service`` accepts any account that
               cannot log in, ``@unknown`` an id that no account has
``any_of``     alternatives, each with its own ``max_mode``, ``owner``, ``group``
``classes``    alternatives by file name, each with ``names``; the first that fits a file judges it
``absent``     verdict where nothing is there: fail (default), pass, not_applicable
``state``      absent: nothing may be there
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import stat
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, scan

_TYPES = {"file": stat.S_ISREG, "directory": stat.S_ISDIR}
_GLOB = "*?["
About = Union[os.stat_result, scan.Entry]
_WORDS = {"@service": "one of a service", "@unknown": "one without an account"}
#: A chain of symbolic links longer than the kernel would follow.
_MAX_LINKS = 40


def check(node: core.Node, spec: Sequence[Mapping[str, Any]]) -> core.Finding:
    """``spec`` is a list of items, see above."""
    items: List[core.Evidence] = []
    missing: List[str] = []
    for want in spec:
        where = location(node, want)
        if want.get("state") == "absent":
            present = node.lstat(where) is not None
            items.append(core.evidence(where, "absent", "present" if present else "absent", not present))
            continue
        found = _judge(node, want, where)
        if found:
            items += found
        elif want.get("absent", "fail") == "not_applicable":
            missing.append(f"{where} does not exist")
        else:
            items.append(core.evidence(where, "present", "absent", want.get("absent") == "pass"))
    if not items:
        return core.not_applicable("; ".join(missing))
    return core.verdict(items)


def location(node: core.Node, want: Mapping[str, Any]) -> str:
    """The item's path, in the directory that ``directory_of`` names if it names one."""
    path = str(want.get("find") or want["path"])
    elsewhere = want.get("directory_of")
    for _number, line in node.lines(elsewhere["file"]) if elsewhere else ():
        key, _equals, value = line.partition("=")
        if key.strip() == elsewhere["key"]:
            path = posixpath.dirname(value.strip())
    return path


def _judge(node: core.Node, want: Mapping[str, Any], where: str) -> List[core.Evidence]:
    """Evidence of every object of an item; a walk lists offenders and counts the rest."""
    if "find" not in want:
        return [item for path, about in _named(node, where) for item in _one(node, want, path, about)]
    items = [
        item
        for entry in scan.below(node, where)
        if _TYPES[want.get("type", "file")](entry.st_mode)
        and _named_so(entry.path, want.get("names"))
        and not any(entry.path.startswith(tree + "/") for tree in want.get("prune", ()))
        for item in _one(node, want, entry.path, entry)
    ]
    good = sum(1 for item in items if item["ok"])
    summary = [core.evidence(where, "as required", f"{good} of {len(items)} as required", True)] if good else []
    return summary + [item for item in items if not item["ok"]]


def _named(node: core.Node, path: str) -> Iterator[Tuple[str, os.stat_result]]:
    """Objects of a path. A link at a plain path counts as what it points to, as for whoever reads it."""
    if any(mark in path for mark in _GLOB):
        for match in node.glob(path):
            about = node.lstat(match)
            if about is not None and not stat.S_ISLNK(about.st_mode):
                yield match, about
        return
    for _step in range(_MAX_LINKS):
        about = node.lstat(path)
        if about is None:
            return
        if not stat.S_ISLNK(about.st_mode):
            yield path, about
            return
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), os.readlink(node.real(path))))


def _named_so(path: str, names: Optional[Sequence[str]]) -> bool:
    base = posixpath.basename(path)
    return names is None or any(fnmatch.fnmatchcase(base, name) for name in names)


def _one(node: core.Node, want: Mapping[str, Any], path: str, about: About) -> List[core.Evidence]:
    kind = want.get("type", "file")
    if not _TYPES[kind](about.st_mode):
        if any(mark in want.get("path", "") for mark in _GLOB):
            return []
        return [core.evidence(path, kind, "something else", False)]
    for rule in want.get("classes", (want,)):
        if "classes" not in want or _named_so(path, rule.get("names")):
            choices = [{**rule, **choice} for choice in rule.get("any_of", ({},))]
            ok = any(_fits(node, choice, about) for choice in choices)
            expected = " or ".join(_words(choice) for choice in choices)
            return [core.evidence(path, expected, _shown(node, about), ok)]
    return []


def _fits(node: core.Node, choice: Mapping[str, Any], about: About) -> bool:
    if "max_mode" in choice and stat.S_IMODE(about.st_mode) & ~int(choice["max_mode"], 8):
        return False
    users, groups = _accounts(node)
    service = {account for account, (_id, _gid, shell) in users.items() if shell.endswith(("nologin", "false"))}
    ids = {name: entry[0] for name, entry in users.items()}
    gids = {users[account][1] for account in service}
    return _accepted(choice.get("owner"), about.st_uid, ids, {ids[name] for name in service}) and _accepted(
        choice.get("group"), about.st_gid, groups, gids
    )


def _accepted(names: Any, number: int, ids: Mapping[str, int], service: Any) -> bool:
    if names is None:
        return True
    accepted = [names] if isinstance(names, str) else names
    if "@unknown" in accepted and number not in ids.values():
        return True
    return any(number in service if name == "@service" else ids.get(name) == number for name in accepted)


def _accounts(node: core.Node) -> Tuple[Dict[str, Tuple[int, int, str]], Dict[str, int]]:
    """Users as name: (uid, gid, shell), and groups as name: gid, of the node's own files."""
    users = {"root": (0, 0, "/bin/sh")}
    groups = {"root": 0}
    for _number, line in node.lines("/etc/passwd"):
        fields = line.split(":")
        if len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
            users[fields[0]] = (int(fields[2]), int(fields[3]), fields[6])
    for _number, line in node.lines("/etc/group"):
        fields = line.split(":")
        if len(fields) == 4 and fields[2].isdigit():
            groups[fields[0]] = int(fields[2])
    return users, groups


def _words(choice: Mapping[str, Any]) -> str:
    parts = [f"at most {choice['max_mode']}"] if "max_mode" in choice else []
    for key in ("owner", "group"):
        if key in choice:
            names = [choice[key]] if isinstance(choice[key], str) else choice[key]
            parts.append(f"{key} " + " or ".join(_WORDS.get(name, name) for name in names))
    return ", ".join(parts)


def _shown(node: core.Node, about: About) -> str:
    users, groups = _accounts(node)
    owner = next((name for name, entry in users.items() if entry[0] == about.st_uid), str(about.st_uid))
    group = next((name for name, gid in groups.items() if gid == about.st_gid), str(about.st_gid))
    return f"{stat.S_IMODE(about.st_mode):04o} {owner}:{group}"
