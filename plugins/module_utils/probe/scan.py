# Copyright the cisdriver authors. Apache-2.0.
"""The one walk of the node's local file systems, which serves every probe that needs to know what lies where.

Walked are / whatever it is, disks (xfs, ext2 to ext4), and the tmpfs of /tmp, /var/tmp and /dev/shm; a file system that
is mounted twice once. Not entered are CONTAINER_TREES: what lies there belongs to images and pods, and the benchmark's
own script leaves containerd's and the kubelet's out. What vanishes meanwhile is passed over.

``find`` walks, for a fifth of what Python's own walk takes; of 500,000 files only the few that could interest anybody
are printed. Directories that file_mode wants to see whole are ``tops``: they are announced before, listed whole, and
left out of the rest, so nothing is looked at twice.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import subprocess
from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Set, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

#: Trees of container runtimes, the kubelet and CNI: https://github.com/awslabs/amazon-eks-ami (setup-local-disks binds
#: some of them from /mnt/k8s-disks). plugins/modules/file_scan.py has a list of its own, a test holds them equal.
CONTAINER_TREES = (
    "/mnt/k8s-disks",
    "/run/containerd",
    "/run/docker",
    "/run/netns",
    "/run/soci-snapshotter-grpc",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/nerdctl",
    "/var/lib/soci-snapshotter-grpc",
    "/var/log/containers",
    "/var/log/pods",
)
_DISKS = ("ext2", "ext3", "ext4", "xfs")
_TMPFS = ("/dev/shm", "/tmp", "/var/tmp")
#: Seconds; millions of files on a cold disk take minutes.
_TIMEOUT = 1800
_TYPES = {"f": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK, "s": stat.S_IFSOCK, "p": stat.S_IFIFO}
_RECORD = "%y %m %U %G %H\\0%p\\0"


class Entry(NamedTuple):
    """One object. Mode, uid and gid are named as in ``os.stat_result``; a device has no type here."""

    path: str
    start: str
    st_mode: int
    st_uid: int
    st_gid: int


class Mount(NamedTuple):
    point: str
    device: str
    root: str
    options: List[str]
    type: str


def announce(node: core.Node, tops: Iterable[str]) -> None:
    """Say which directories :func:`below` will be asked for, so that one walk can serve them too."""
    node.memo["scan announced"] = sorted(set(tops))


def whole(node: core.Node) -> List[Entry]:
    """Objects of all local file systems that are set-id, writable by all, or of an owner or group without account.

    Objects below announced tops are all there, whatever they are. Raises ProbeError.
    """
    if "scan" not in node.memo:
        starts = [mount.point for mount in local(node)]
        rest = _find(node, starts, [*_left_out(node), *_tops(node)], _interesting(node))
        node.memo["scan"] = sorted({entry.path: entry for entry in (*rest, *_listed(node))}.values())
    found: List[Entry] = node.memo["scan"]
    return found


def below(node: core.Node, top: str) -> List[Entry]:
    """Everything below a directory on its file system, by path; nothing where it is none."""
    tops = _tops(node)
    if top in tops:
        start, entries = tops[top], _listed(node)
    else:
        start = top
        entries = _kept(node, ("scan", top), [top]) if _is_directory(node, top) else []
    return sorted(entry for entry in entries if entry.start == start and entry.path.startswith(top.rstrip("/") + "/"))


def privileged(node: core.Node) -> List[str]:
    """Paths of all set-uid and set-gid programs that can act as such: not those on a nosuid or noexec mount."""
    return [entry.path for entry in set_id(node)]


def set_id(node: core.Node, bits: int = stat.S_ISUID | stat.S_ISGID) -> List[Entry]:
    """Regular files with any of these bits, on mounts that let them act."""
    inert = {mount.point for mount in local(node) if {"nosuid", "noexec"} & set(mount.options)}
    return [
        entry
        for entry in whole(node)
        if stat.S_ISREG(entry.st_mode) and entry.st_mode & bits and _holder(node, entry.path) not in inert
    ]


def left_out(node: core.Node) -> List[str]:
    """Container trees that this node has, and that no rule looked into."""
    return [tree for tree in CONTAINER_TREES if node.exists(tree)]


def local(node: core.Node) -> List[Mount]:
    """The mounts to walk: visible, local, outside of container trees, each file system once."""
    trees = _left_out(node)
    chosen: List[Mount] = []
    for mount in sorted(_mounts(node), key=lambda mount: (len(mount.root), mount.point)):
        wanted = mount.point == "/" or mount.type in _DISKS or (mount.type == "tmpfs" and mount.point in _TMPFS)
        if not wanted or any(_within(mount.point, tree) for tree in trees) or not _is_directory(node, mount.point):
            continue
        # a bind mount of what another mount shows already
        if not any(other.device == mount.device and _within(mount.root, other.root) for other in chosen):
            chosen.append(mount)
    return sorted(chosen)


def _mounts(node: core.Node) -> List[Mount]:
    """What is mounted and visible: of mounts stacked on a path the last, and none that a later one hides."""
    if "mounts" in node.memo:
        return list(node.memo["mounts"])
    table = node.read("/proc/self/mountinfo")
    if table is None:
        raise core.ProbeError("/proc/self/mountinfo does not exist: /proc is not mounted")
    found: List[Mount] = []
    for line in table.splitlines():
        fields = line.split()
        if "-" not in fields[6:]:
            continue
        kind = fields[fields.index("-", 6) + 1]
        point = _unescaped(fields[4])
        mount = Mount(point, fields[2], _unescaped(fields[3]), fields[5].split(","), kind)
        found = [other for other in found if not _within(other.point, point)] + [mount]
    node.memo["mounts"] = found
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), text)


def _holder(node: core.Node, path: str) -> str:
    """The mount point that a path lies on."""
    points = [mount.point for mount in _mounts(node) if _within(path, mount.point)]
    return max(points, key=len, default="/")


def _within(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def _is_directory(node: core.Node, path: str) -> bool:
    about = node.lstat(path)
    return about is not None and stat.S_ISDIR(about.st_mode)


def _left_out(node: core.Node) -> List[str]:
    """Container trees, and where they are links what they point to."""
    trees = list(CONTAINER_TREES)
    for tree in CONTAINER_TREES:
        if os.path.islink(node.real(tree)):
            target = os.readlink(node.real(tree))
            trees.append(posixpath.normpath(posixpath.join(posixpath.dirname(tree), target)))
    return trees


def _tops(node: core.Node) -> Dict[str, str]:
    """Each announced top, and the top whose listing holds it: itself, or one above it on the same file system."""
    if "scan tops" not in node.memo:
        found: Dict[str, str] = {}
        for top in node.memo.get("scan announced", ()):
            above = [start for start in found.values() if _within(top, start) and _same(node, top, start)]
            if _is_directory(node, top):
                found[top] = above[0] if above else top
        node.memo["scan tops"] = found
    tops: Dict[str, str] = node.memo["scan tops"]
    return tops


def _same(node: core.Node, path: str, other: str) -> bool:
    return _holder(node, path) == _holder(node, other)


def _listed(node: core.Node) -> List[Entry]:
    return _kept(node, "scan listed", sorted(set(_tops(node).values())))


def _kept(node: core.Node, name: Any, starts: Sequence[str]) -> List[Entry]:
    if name not in node.memo:
        node.memo[name] = _find(node, starts, _left_out(node), []) if starts else []
    entries: List[Entry] = node.memo[name]
    return entries


def _interesting(node: core.Node) -> List[str]:
    """The test of find for what :func:`whole` is about: first what tells most files off, then exactly."""
    owners = [word for uid in _ids(node, "/etc/passwd", 2) for word in ("!", "-uid", uid)]
    groups = [word for gid in _ids(node, "/etc/group", 2) for word in ("!", "-gid", gid)]
    coarse = ["(", "-perm", "/6002", "-o", "!", "(", "-uid", "0", "-gid", "0", ")", ")"]
    exact = ["(", "!", "-type", "l", "-perm", "/6002", "-o", *owners, "-o", *groups, ")"]
    return [*coarse, *exact]


def _ids(node: core.Node, path: str, field: int) -> List[str]:
    """Ids that have an account, root's first."""
    found = {"0"}
    for _number, line in node.lines(path):
        fields = line.split(":")
        if len(fields) > field and fields[field].isdigit():
            found.add(str(int(fields[field])))
    return sorted(found, key=int)


def _find(node: core.Node, starts: Sequence[str], prune: Sequence[str], test: Sequence[str]) -> List[Entry]:
    """Objects below ``starts``, each on its file system, without what lies in ``prune``."""
    root = node.real("")
    paths = [word for tree in prune for word in ("-o", "-path", _literal(root + tree))][1:]
    # -printf '' keeps find from comparing every name with every tree before it asks for the type: half of its time
    argv = ["find", *(root + start for start in starts), "-xdev", "-ignore_readdir_race"]
    argv += ["-type", "d", "-printf", "", "(", *paths, ")", "-prune", "-o", *test, "-printf", _RECORD]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
            env={**os.environ, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise core.ProbeError(f"cannot walk {', '.join(starts)}: {error}") from error
    _complain(node, done.stderr.decode("utf-8", "replace"))
    fields = done.stdout.decode("utf-8", "surrogateescape").split("\0")
    pairs = zip(fields[::2], fields[1::2])  # noqa: B905  the last field is empty; Python 3.8 has no strict=
    return [_entry(about, path, len(root)) for about, path in pairs]


def _entry(about: str, path: str, skip: int) -> Entry:
    kind, mode, uid, gid, start = about.split(" ", 4)
    return Entry(path[skip:], start[skip:], _TYPES.get(kind, 0) | int(mode, 8), int(uid), int(gid))


def _literal(path: str) -> str:
    """A path as a pattern that matches it alone."""
    return re.sub(r"([][*?\\])", r"\\\1", path)


def _complain(node: core.Node, errors: str) -> None:
    """Raise ProbeError for what find could not look at, but for what vanished and for dead mounts of others."""
    points: Set[str] = {node.real(mount.point) for mount in _mounts(node)} if errors.strip() else set()
    for line in errors.splitlines():
        path, reason = _told(line)
        if reason != "No such file or directory" and path not in points:
            raise core.ProbeError(f"cannot look at everything: {line}")


def _told(line: str) -> Tuple[str, str]:
    """Path and reason of ``find: 'path': reason``."""
    match = re.fullmatch(r"find: '(.*)': (.*)", line)
    return (match.group(1), match.group(2)) if match else ("", line)
