# Copyright the cisdriver authors. Apache-2.0.
"""chrony: the time sources its whole configuration names, and the user chronyd runs as.

``man 5 chrony.conf``: directives in any case; a line that starts with ``!``, ``;``, ``#`` or ``%`` is a comment.
``confdir`` and ``sourcedir`` name directories whose ``*.conf`` and ``*.sources`` files are read, of one name the first
directory's; ``include`` names a file or a glob. AL2023's own file names no source: amazon-chrony-config puts them into
``/run/chrony.d`` at boot.

A spec holds ``sources`` (how many at least), ``user`` (the one ``-u`` in OPTIONS has to name) and ``where``: on a
machine with ``path``, one of ``any_of`` has to be among the sources.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

MAIN = "/etc/chrony.conf"
ENVIRONMENT = "/etc/sysconfig/chronyd"
_SOURCES = ("server", "pool")
_MAX_DEPTH = 8


class Source(NamedTuple):
    """``host`` is a name or an address, ``place`` file and line."""

    host: str
    place: str


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    items: List[core.Evidence] = []
    main = main_file(node)
    found = list(sources(node, main))
    if "sources" in spec:
        expected = f"at least {spec['sources']}"
        items.append(core.evidence("time sources", expected, _listed(found), len(found) >= spec["sources"], main))
    for condition in spec.get("where", ()):
        if node.exists(condition["path"]):
            ok = any(source.host in condition["any_of"] for source in found)
            expected = " or ".join(condition["any_of"])
            items.append(
                core.evidence(f"time source of a machine with {condition['path']}", expected, _listed(found), ok, main)
            )
    if "user" in spec:
        items += _user(node, spec["user"])
    return core.verdict(items)


def _listed(found: List[Source]) -> str:
    return "; ".join(f"{source.host} ({source.place})" for source in found) or "none"


def sources(node: core.Node, path: str, depth: int = 0) -> Iterator[Source]:
    """Servers and pools of a file and of all it includes. Raises ProbeError."""
    if depth > _MAX_DEPTH:
        raise core.ProbeError(f"{path}: included more than {_MAX_DEPTH} files deep")
    for number, line in enumerate((node.read(path) or "").splitlines(), 1):
        words = line.split()
        if len(words) < 2 or words[0][0] in "!;#%":
            continue
        directive = words[0].lower()
        if directive in _SOURCES:
            yield Source(words[1].lower(), f"{path}:{number}")
        included: List[str] = []
        if directive == "include":
            included = node.glob(words[1])
        elif directive == "confdir":
            included = node.merged(words[1:], ".conf")
        elif directive == "sourcedir":
            included = node.merged(words[1:], ".sources")
        for name in included:
            yield from sources(node, name, depth + 1)


def main_file(node: core.Node) -> str:
    """The file chronyd starts from: ``-f`` names another."""
    words = _options(node)[0]
    for place, word in enumerate(words):
        if word == "-f" and place + 1 < len(words):
            return words[place + 1]
        if word.startswith("-f") and len(word) > 2:
            return word[2:]
    return MAIN


def _options(node: core.Node) -> Tuple[List[str], str]:
    """Words of OPTIONS as systemd reads the file, the last line winning, and where that line is."""
    value, place = "", ENVIRONMENT
    for number, line in node.lines(ENVIRONMENT):
        key, equals, text = line.partition("=")
        if equals and key.strip() == "OPTIONS":
            value, place = text.strip(), f"{ENVIRONMENT}:{number}"
    try:
        return [word for part in shlex.split(value) for word in part.split()], place
    except ValueError:
        return value.split(), place


def _user(node: core.Node, wanted: str) -> Iterator[core.Evidence]:
    words, place = _options(node)
    named: Optional[str] = None
    for index, word in enumerate(words):
        if word == "-u":
            named = words[index + 1] if index + 1 < len(words) else ""
        elif word.startswith("-u"):
            named = word[2:]
    yield core.evidence("OPTIONS", f"-u {wanted}", " ".join(words) or None, named == wanted, place)
    shown = node.run("systemctl", "show", "chronyd.service", "--property=MainPID,ExecStart,EnvironmentFiles")
    if shown.rc == 0 and "ExecStart=" in shown.out:
        yield from _unit(shown.out, wanted)
        yield from _process(node, shown.out, wanted)


def _unit(shown: str, wanted: str) -> Iterator[core.Evidence]:
    """A drop-in that replaces the command, or no longer reads the file, would make the option idle."""
    command = re.search(r"(?m)^ExecStart=.*argv\[\]=(.*?) ;", shown)
    text = command.group(1) if command else ""
    heeded = "OPTIONS" in text and ENVIRONMENT in shown
    ok = heeded or re.search(rf"\s-u\s*{re.escape(wanted)}(\s|$)", text) is not None
    yield core.evidence("chronyd.service", f"runs with OPTIONS of {ENVIRONMENT}", text or None, ok)


def _process(node: core.Node, shown: str, wanted: str) -> Iterator[core.Evidence]:
    pid = re.search(r"(?m)^MainPID=([1-9]\d*)$", shown)
    status = node.read(f"/proc/{pid.group(1)}/status") if pid else None
    uid = re.search(r"(?m)^Uid:\s+(\d+)", status or "")
    if uid:
        accounts = (line.split(":") for _number, line in node.lines("/etc/passwd"))
        names = {fields[2]: fields[0] for fields in accounts if len(fields) > 2}
        found = names.get(uid.group(1), f"uid {uid.group(1)}")
        yield core.evidence("chronyd (running)", f"user {wanted}", f"user {found}", found == wanted)
