# Copyright the cisdriver authors. Apache-2.0.
"""Kernel parameters: the running value, and the one that wins at the next boot.

systemd-sysctl (``man 5 sysctl.d``) merges ``*.conf`` by base name, a later name wins a key;
a key may be written with dots or slashes, may hold a glob, and a leading ``-`` forgives errors.
A key that only a glob reaches is set by the glob unless an explicit line names it anywhere.
"""

from __future__ import annotations

import fnmatch
from typing import Any, Dict, List, Mapping, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

DIRECTORIES = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` maps a key such as ``net.ipv4.ip_forward`` to a predicate."""
    settings = _settings(node)
    items: List[core.Evidence] = []
    for key, predicate in spec.items():
        path = "/proc/sys/" + _slashed(key)
        running = node.read(path)
        if running is None:
            if key.startswith("net.ipv6.") and not node.exists("/proc/sys/net/ipv6"):
                continue
            raise core.ProbeError(f"the kernel has no {key}: {path} does not exist")
        value = " ".join(running.split())
        items.append(core.evidence(f"{key} (running)", predicate, value, core.holds(predicate, value), path))
        configured, source = _winner(settings, key)
        ok = core.holds(predicate, configured)
        items.append(core.evidence(f"{key} (at boot)", predicate, configured, ok, source))
    if not items:
        return core.not_applicable("IPv6 is off in this kernel: /proc/sys/net/ipv6 does not exist")
    return core.verdict(items)


def _slashed(key: str) -> str:
    """``net.ipv4.ip_forward`` or ``net/ipv4/ip_forward`` as a path below /proc/sys."""
    first = min((key.find(mark) for mark in "./" if mark in key), default=-1)
    if first >= 0 and key[first] == ".":
        return key.translate(str.maketrans("./", "/."))
    return key


def _settings(node: core.Node) -> List[Tuple[str, str, str]]:
    """``(slashed key, value, file:line)`` of every line, in the order in which they apply."""
    found = []
    for path in node.merged(DIRECTORIES, ".conf"):
        for number, line in node.lines(path):
            if line.startswith(";"):
                continue
            key, equals, value = line.partition("=")
            key = key.strip()
            source = f"{path}:{number}"
            if key.startswith("-") and not equals:
                found.append((_slashed(key[1:]), "", source))  # "-key" alone: excluded from globs
            elif equals:
                found.append((_slashed(key.lstrip("-").strip()), " ".join(value.split()), source))
    return found


def _winner(settings: List[Tuple[str, str, str]], key: str) -> Tuple[Any, Any]:
    explicit: Dict[str, Tuple[str, str]] = {}
    globbed: Dict[str, Tuple[str, str]] = {}
    wanted = _slashed(key)
    for pattern, value, source in settings:
        if pattern == wanted:
            explicit[wanted] = (value, source)
        elif any(mark in pattern for mark in "*?[") and fnmatch.fnmatchcase(wanted, pattern):
            globbed[wanted] = (value, source)
    value, source = explicit.get(wanted) or globbed.get(wanted) or (None, None)
    return (value or None, source)
