# Copyright the cisdriver authors. Apache-2.0.
"""sudo: the Defaults that hold for everyone, and what any line of sudoers takes back.

Of several Defaults the last one wins (``man 5 sudoers``). ``@includedir`` and ``#includedir`` read a directory in
lexical order, without names that hold a ``.`` or end in ``~``. Defaults for some users, hosts or commands do not
count as set, but a time-out or a ``!authenticate`` there is looked at.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

SUDOERS = "/etc/sudoers"
_MAX_DEPTH = 16
#: An item of a Defaults list: up to the next comma outside of quotes.
_ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')


class Default(NamedTuple):
    """One item of a Defaults line; value None for a flag. ``scope`` is what follows ``Defaults``, or nothing."""

    name: str
    value: Optional[str]
    negated: bool
    scope: str
    source: str


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` maps an option to ``true`` (a flag that is set) or to a predicate on its value.

    ``authenticate: true`` asks that nothing takes it away; ``timestamp_timeout`` that every value fits.
    """
    if node.read(SUDOERS) is None:
        raise core.ProbeError(f"{SUDOERS} does not exist")
    defaults = list(every_default(node))
    items: List[core.Evidence] = []
    for name, predicate in spec.items():
        if name == "authenticate":
            items += _authenticate(node)
        elif name == "timestamp_timeout":
            items += _timeout(node, predicate, defaults)
        else:
            items.append(_option(name, predicate, defaults))
    return core.verdict(items)


def _option(name: str, predicate: Any, defaults: List[Default]) -> core.Evidence:
    """The last Defaults line for everyone decides."""
    last = next((item for item in reversed(defaults) if item.name == name and not item.scope), None)
    if last is None:
        return core.evidence(f"Defaults {name}", predicate, None, False)
    value = f"!{name}" if last.negated else last.value
    ok = not last.negated and (predicate is True if last.value is None else core.holds(predicate, last.value))
    return core.evidence(f"Defaults {name}", predicate, name if value is None else value, ok, last.source)


def _authenticate(node: core.Node) -> Iterator[core.Evidence]:
    found = False
    for source, line in _lines(node, SUDOERS):
        if re.search(r"!\s*authenticate\b", line):
            found = True
            yield core.evidence("authenticate", "not taken away", "!authenticate", False, source)
    if not found:
        yield core.evidence("authenticate", "not taken away", "no !authenticate", True)


def _timeout(node: core.Node, predicate: Mapping[str, Any], defaults: List[Default]) -> Iterator[core.Evidence]:
    set_here = [item for item in defaults if item.name == "timestamp_timeout"]
    for item in set_here:
        value = "0" if item.negated else item.value or ""
        yield core.evidence("timestamp_timeout", predicate, value, _within(predicate, value), item.source)
    if not any(not item.scope for item in set_here):
        compiled = re.search(r"(?i)timestamp timeout: ([-\d.]+)", node.must("sudo", "-V"))
        value = compiled.group(1) if compiled else ""
        yield core.evidence("timestamp_timeout (compiled in)", predicate, value, _within(predicate, value), "sudo -V")


def _within(predicate: Mapping[str, Any], value: str) -> bool:
    """sudo takes minutes with a fraction."""
    try:
        return bool(predicate["min"] <= float(value) <= predicate["max"])
    except ValueError:
        return False


def every_default(node: core.Node) -> Iterator[Default]:
    for source, line in _lines(node, SUDOERS):
        found = re.match(r"Defaults([@:!>][^\s]*(?:\s*,\s*[^\s]+)*)?\s+(.*)", line)
        if not found:
            continue
        for item in _ITEM.findall(found.group(2)):
            match = re.match(r"\s*(!*)\s*(\w+)\s*(?:[+-]?=\s*(.*?))?\s*$", item, re.DOTALL)
            if match:
                value = match.group(3)
                negated = len(match.group(1)) % 2 == 1
                yield Default(match.group(2), value and value.strip('"'), negated, found.group(1) or "", source)


def _lines(node: core.Node, path: str, depth: int = 0) -> Iterator[Tuple[str, str]]:
    """``(file:line, text)`` in the order in which sudo reads, continued lines joined, comments left out."""
    if depth > _MAX_DEPTH:
        raise core.ProbeError(f"{path}: included more than {_MAX_DEPTH} files deep")
    text, started = "", 0
    for number, raw in enumerate((node.read(path) or "").splitlines(), 1):
        started = started if text else number
        if raw.endswith("\\") and not raw.endswith("\\\\"):
            text += raw[:-1] + " "
            continue
        line, text = (text + raw).strip(), ""
        include = re.match(r"[@#](include|includedir)\s+(\S.*)$", line)
        if include:
            for included in _included(node, include.group(1), include.group(2).strip('" '), path):
                yield from _lines(node, included, depth + 1)
            continue
        line = _uncommented(line)
        if line:
            yield f"{path}:{started}", line


def _included(node: core.Node, how: str, what: str, by: str) -> List[str]:
    what = posixpath.join(posixpath.dirname(by), what)
    if how == "include":
        return [what]
    names = [path for path in node.glob(f"{what}/*") if "." not in posixpath.basename(path) and path[-1] != "~"]
    files = [path for path in names if os.path.isfile(node.real(path))]  # sudo passes over directories
    return sorted(files, key=lambda path: posixpath.basename(path).encode())


def _uncommented(line: str) -> str:
    """The line without a comment; ``#`` before a number is a user id."""
    found = re.search(r"(^|\s)#(?![-0-9])", re.sub(r'"[^"]*"', lambda quoted: "x" * len(quoted.group()), line))
    return line[: found.start()].strip() if found else line
