# Copyright the cisdriver authors. Apache-2.0.
"""What must not lie on the node's file systems: a spec names classes of objects under ``absent``.

``world_writable_file``        regular files everybody may write
``world_writable_directory``   directories everybody may write, without the sticky bit
``unowned``, ``ungrouped``     objects whose owner or group no account has
``unknown_setuid``, ``unknown_setgid``   programs with that bit which no package brings so, and ``known`` does not name

One walk serves all, see :mod:`scan`; the container trees it leaves out are named in the evidence.
"""

from __future__ import annotations

import stat
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, scan

#: Offenders that evidence names; of more it gives the number.
_SHOWN = 50
#: Files per question to rpm, far below what a command line may hold.
_AT_ONCE = 200
#: Ids and places of systemd's dynamic users (its UIDS-GIDS document; systemd.exec(5)).
DYNAMIC_IDS = range(61184, 65520)
PRIVATE = ("/var/lib/private/", "/var/cache/private/", "/var/log/private/")
Offence = Tuple[str, str]


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    entries = scan.whole(node)
    items: List[core.Evidence] = []
    for name in spec["absent"]:
        if name in _SET_ID:
            items += _set_id(node, name, spec.get("known", ()))
            continue
        expected, found = _CLASSES[name]
        items += _evidence(expected, [offence for entry in entries for offence in found(node, entry)])
    walked = ", ".join(mount.point for mount in scan.local(node))
    items.append(core.evidence("file systems", "local ones looked at", walked, True))
    return core.verdict(items + [_left_out(tree) for tree in scan.left_out(node)])


def _left_out(tree: str) -> core.Evidence:
    return core.evidence(tree, "left out, it belongs to containers", "not looked into", True)


def _evidence(expected: str, offences: Sequence[Offence]) -> List[core.Evidence]:
    items = [core.evidence(path, expected, found, False) for path, found in offences[:_SHOWN]]
    if len(offences) > _SHOWN:
        more = len(offences) - _SHOWN
        items.append(core.evidence(f"{more} more objects", expected, offences[_SHOWN][1] + " and others", False))
    return items or [core.evidence("every object", expected, "none that differs", True)]


def _writable_file(_node: core.Node, entry: scan.Entry) -> List[Offence]:
    return [(entry.path, _mode(entry))] if stat.S_ISREG(entry.st_mode) and entry.st_mode & stat.S_IWOTH else []


def _writable_directory(_node: core.Node, entry: scan.Entry) -> List[Offence]:
    free = stat.S_ISDIR(entry.st_mode) and entry.st_mode & stat.S_IWOTH and not entry.st_mode & stat.S_ISVTX
    return [(entry.path, _mode(entry))] if free else []


def _dynamic(entry: scan.Entry, number: int) -> bool:
    """State of a service with DynamicUser=: its id lives while it runs, nobody else gets in, and it is handed on."""
    return number in DYNAMIC_IDS and entry.path.startswith(PRIVATE)


def _unowned(node: core.Node, entry: scan.Entry) -> List[Offence]:
    known = _dynamic(entry, entry.st_uid) or _known(node, "passwd", entry.st_uid)
    return [] if known else [(entry.path, f"uid {entry.st_uid}")]


def _ungrouped(node: core.Node, entry: scan.Entry) -> List[Offence]:
    known = _dynamic(entry, entry.st_gid) or _known(node, "group", entry.st_gid)
    return [] if known else [(entry.path, f"gid {entry.st_gid}")]


_CLASSES: Dict[str, Tuple[str, Callable[[core.Node, scan.Entry], List[Offence]]]] = {
    "world_writable_file": ("not writable by everybody", _writable_file),
    "world_writable_directory": ("the sticky bit, or not writable by everybody", _writable_directory),
    "unowned": ("an owner who has an account", _unowned),
    "ungrouped": ("a group that exists", _ungrouped),
}
_SET_ID = {"unknown_setuid": stat.S_ISUID, "unknown_setgid": stat.S_ISGID}


def _mode(entry: scan.Entry) -> str:
    return f"mode {stat.S_IMODE(entry.st_mode):04o}"


def _known(node: core.Node, database: str, number: int) -> bool:
    """Whether an id has an account: in the node's own files, or in what else it asks (a directory, systemd)."""
    name = ("ids", database)
    if name not in node.memo:
        fields = [line.split(":") for _number, line in node.lines(f"/etc/{database}")]
        node.memo[name] = {
            0: True,
            **{int(field[2]): True for field in fields if len(field) > 2 and field[2].isdigit()},
        }
    known: Dict[int, bool] = node.memo[name]
    if number not in known:
        known[number] = node.run("getent", database, str(number)).rc == 0
    return known[number]


def _set_id(node: core.Node, name: str, known: Sequence[str]) -> List[core.Evidence]:
    """Every program with the bit: who brings it so."""
    bit, items = _SET_ID[name], []
    entries = [entry for entry in scan.set_id(node, bit) if node.lstat(entry.path) is not None]
    packaged = _packaged(node, [entry.path for entry in entries])
    for entry in entries:
        package, mode = packaged.get(entry.path, ("", 0))
        ok = bool(mode & bit) or entry.path in known
        whose = f"of package {package}" if package else "of no package"
        if package and not mode & bit:
            whose += f", which has it {mode & 0o7777:04o}"
        expected = f"{name[8:]} known: so brought by a package, or listed in cis_values"
        items.append(core.evidence(entry.path, expected, f"{_mode(entry)}, {whose}", ok))
    return items or [core.evidence(f"{name[8:]} programs", "known ones alone", "none", True)]


def _packaged(node: core.Node, paths: Sequence[str]) -> Dict[str, Tuple[str, int]]:
    """Package and recorded mode of those files that a package owns."""
    found: Dict[str, Tuple[str, int]] = {}
    for start in range(0, len(paths), _AT_ONCE):
        query = "[%{FILENAMES}\\t%{FILEMODES:octal}\\t%{=NAME}\\n]"
        answer = node.run("rpm", "-qf", "--queryformat", query, *paths[start : start + _AT_ONCE])
        if answer.rc == 127:
            raise core.ProbeError("rpm is not there: whose the setuid and setgid programs are cannot be told")
        for line in answer.out.splitlines():
            fields = line.split("\t")
            if len(fields) == 3:
                found[_merged(fields[0])] = (fields[2], int(fields[1], 8))
    return found


def _merged(path: str) -> str:
    """/bin and /sbin are links to what is below /usr; older packages record their files by the link."""
    return "/usr" + path if path.startswith(("/bin/", "/sbin/", "/lib/", "/lib64/")) else path
