# Copyright the cisdriver authors. Apache-2.0.
"""Kernel parameters: the running value, and the one that wins at the next boot.

systemd-sysctl (``man 5 sysctl.d``) merges ``*.conf`` by base name, a later name wins a key;
a key may be written with dots or slashes, may hold a glob, and a leading ``-`` forgives errors.
A key that only a glob reaches is set by the glob unless a line names the key itself anywhere,
``-key`` without a value included. ``/etc/sysctl.conf`` is read where 99-sysctl.conf links to it.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

DIRECTORIES = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")


class _Setting(NamedTuple):
    """A line. ``key`` is written with slashes; ``value`` is None where ``-key`` only shields it from globs."""

    key: str
    value: Optional[str]
    source: str


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` maps a key such as ``net.ipv4.ip_forward`` to a predicate."""
    settings = _settings(node)
    items: List[core.Evidence] = []
    for key, predicate in spec.items():
        if key.startswith("net.ipv6.") and not node.exists("/proc/sys/net/ipv6"):
            continue
        items += _running(node, key, predicate)
        configured, source = _winner(settings, key)
        ok = core.holds(predicate, configured)
        items.append(core.evidence(f"{key} (at boot)", predicate, configured, ok, source))
    if not items:
        return core.not_applicable("IPv6 is off in this kernel: /proc/sys/net/ipv6 does not exist")
    return core.verdict(items)


def configured(node: core.Node, key: str) -> Tuple[Optional[str], Optional[str]]:
    """Value and source that win a key at the next boot; None where no file sets it."""
    return _winner(_settings(node), key)


def _running(node: core.Node, key: str, predicate: Any) -> List[core.Evidence]:
    """The running value; nothing in a container for what is its host's, all but ``net.``."""
    if not key.startswith("net.") and node.in_container():
        return []
    path = "/proc/sys/" + _slashed(key)
    text = node.read(path)
    value = None if text is None else " ".join(text.split())
    return [core.evidence(f"{key} (running)", predicate, value, core.holds(predicate, value), path)]


def _slashed(key: str) -> str:
    """``net.ipv4.ip_forward`` or ``net/ipv4/ip_forward`` as a path below /proc/sys."""
    first = min((key.find(mark) for mark in "./" if mark in key), default=-1)
    if first >= 0 and key[first] == ".":
        return key.translate(str.maketrans("./", "/."))
    return key


def _settings(node: core.Node) -> List[_Setting]:
    """Every line, in the order in which they apply."""
    found = []
    for path in node.merged(DIRECTORIES, ".conf"):
        for number, line in node.lines(path):
            setting = _parsed(line, f"{path}:{number}")
            if setting:
                found.append(setting)
    return found


def _parsed(line: str, source: str) -> Optional[_Setting]:
    key, equals, value = line.partition("=")
    if line.startswith(";") or not (equals or key.startswith("-")):
        return None
    key = key.strip()
    key = key[1:].strip() if key.startswith("-") else key
    return _Setting(_slashed(key), " ".join(value.split()) if equals else None, source)


def _winner(settings: List[_Setting], key: str) -> Tuple[Optional[str], Optional[str]]:
    """Value and source that win a key; None where nothing sets it."""
    wanted = _slashed(key)
    winners: Dict[bool, _Setting] = {}
    for setting in settings:
        if setting.key == wanted:
            winners[True] = setting
        elif _glob_reaches(setting.key, wanted):
            winners[False] = setting
    winner = winners.get(True) or winners.get(False)
    return (winner.value, winner.source) if winner else (None, None)


def _glob_reaches(pattern: str, wanted: str) -> bool:
    """As glob(3) with braces: a ``*`` stays between two slashes."""
    if not any(mark in pattern for mark in "*?[{"):
        return False
    parts = wanted.split("/")
    for one in _braces(pattern):
        globs = one.split("/")
        if len(globs) == len(parts) and all(map(fnmatch.fnmatchcase, parts, globs)):
            return True
    return False


def _braces(pattern: str) -> List[str]:
    """``a{b,c}d`` as ``abd`` and ``acd``."""
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    choices = [piece.split(",") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return ["".join(choice) for choice in itertools.product(*choices)]
