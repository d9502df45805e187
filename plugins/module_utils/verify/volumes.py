# Copyright the cisdriver authors. Apache-2.0.
"""Which mount holds a path, now and at the next boot."""

from __future__ import annotations

import posixpath
import re
from typing import Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, mounts

TABLE = "/proc/self/mountinfo"
_NODEV, _NOSUID, _NOEXEC = "nodev", "nosuid", "noexec"
#: Options of fstab that bring others (``man 8 mount``).
_BRING = {
    "user": [_NOEXEC, _NOSUID, _NODEV],
    "users": [_NOEXEC, _NOSUID, _NODEV],
    "owner": [_NOSUID, _NODEV],
    "group": [_NOSUID, _NODEV],
}


class Mount(NamedTuple):
    point: str
    device: str
    options: List[str]
    source: str


def holding(node: core.Node, path: str) -> Optional[Mount]:
    """The mount that is seen at a path: of those at or above it the last. Raises ProbeError."""
    table = node.read(TABLE)
    if table is None:
        raise core.ProbeError(f"{TABLE} does not exist: /proc is not mounted")
    found = None
    for number, line in enumerate(table.splitlines(), 1):
        fields = line.split()
        if len(fields) < 6:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
        if _covers(point, path):
            found = Mount(point, fields[2], fields[5].split(","), f"{TABLE}:{number}")
    return found


def _covers(point: str, path: str) -> bool:
    return point in ("/", path) or path.startswith(point + "/")


def at_boot(node: core.Node, path: str, followed: Tuple[str, ...] = ()) -> List[Tuple[str, mounts.Options]]:
    """``(mount point, options)`` of all that speaks for the mount that will hold a path.

    A bind mount without flags has those of what it shows.
    """
    for point in _upwards(path):
        spoken = mounts.fstab(node, point)
        unit = mounts.unit(node, point) if point != "/" else None
        spoken += [unit] if unit else []
        if not spoken:
            continue
        found: List[Tuple[str, mounts.Options]] = []
        for options in spoken:
            shown = _shown(node, options) if point not in followed else None
            flagged = any(word in (_NODEV, _NOSUID, _NOEXEC) for word in options.words)
            if shown and not flagged:
                found += at_boot(node, shown, (*followed, point))
            else:
                found.append((point, options._replace(words=_expanded(options.words))))
        return found
    return []


def _upwards(path: str) -> Iterator[str]:
    while path != "/":
        yield path
        path = posixpath.dirname(path)
    yield "/"


def _expanded(words: List[str]) -> List[str]:
    return [each for word in words for each in (*_BRING.get(word, ()), word)]


def _shown(node: core.Node, options: mounts.Options) -> Optional[str]:
    """What a bind mount shows; None for any other."""
    if not {"bind", "rbind"} & set(options.words):
        return None
    path, _colon, number = options.source.rpartition(":")
    if path == "/etc/fstab":
        lines = dict(node.lines(path))
        return lines[int(number)].split()[0]
    for unit in (path, path.rpartition(".d/")[0]):  # of a drop-in the unit says it
        what = [re.match(r"What\s*=\s*(/\S*)", line) for _number, line in node.lines(unit)] if unit else []
        for match in filter(None, what):
            return match.group(1)
    return None
