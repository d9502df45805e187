# Copyright the cisdriver authors. Apache-2.0.
"""Trees of files: measured, compared entry by entry, and emptied. Never across a mount."""

from __future__ import annotations

import os
import shutil
import stat
from typing import Dict, Iterator, List, Sequence, Tuple


def entries(top: str) -> Iterator[Tuple[str, os.stat_result]]:
    """``(path, lstat)`` of the top and everything below it on its file system; what vanishes meanwhile is left out."""
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not os.path.ismount(os.path.join(folder, name))]
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            try:
                yield path, os.lstat(path)
            except FileNotFoundError:
                continue
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                yield path, os.lstat(path)


def used(tops: Sequence[str], targets: Sequence[str]) -> Dict[str, int]:
    """Bytes in use per target, each file counted for the deepest target above it."""
    found = dict.fromkeys(targets, 0)
    deepest = sorted(targets, key=len, reverse=True)
    for top in tops:
        for path, status in entries(top):
            owner = next((target for target in deepest if path == target or path.startswith(target + "/")), "")
            if owner:
                found[owner] += status.st_blocks * 512
    return found


def differences(old: str, new: str, started: float) -> List[str]:
    """What a copy lacks or has otherwise: type, mode, owner, group, device, link, xattrs; of files size and time.

    Entries that were made or written after ``started`` (seconds) belong to services that run on.
    """
    found = []
    for path, status in entries(old):
        copy = new + path[len(old) :]
        try:
            other = os.lstat(copy)
        except FileNotFoundError:
            if os.path.lexists(path) and status.st_ctime < started:
                found.append(f"{path}: not copied")
            continue
        if status.st_ctime < started:
            wanted, there = _facts(path, status), _facts(copy, other)
            wrong = [key for key in wanted if wanted[key] != there.get(key)]
            found += [f"{path}: {key}: expected {wanted[key]}, found {there.get(key)}" for key in wrong[:1]]
    return found


def _facts(path: str, status: os.stat_result) -> Dict[str, object]:
    facts: Dict[str, object] = {
        "mode": oct(status.st_mode),
        "owner": f"{status.st_uid}:{status.st_gid}",
        "device": status.st_rdev,
        "xattrs": _xattrs(path),
    }
    if stat.S_ISLNK(status.st_mode):
        facts["link"] = os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        facts["size"], facts["time"] = status.st_size, int(status.st_mtime)
    return facts


def _xattrs(path: str) -> Dict[str, bytes]:
    """ACLs, capabilities, SELinux labels and users' own; none where the file system has none."""
    try:  # XFS shows an ACL a second time, under a name of its own
        names = [one for one in os.listxattr(path, follow_symlinks=False) if not one.startswith("trusted.SGI_ACL_")]
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    except OSError:
        return {}


def empty(top: str) -> bool:
    """Delete everything below a directory, which stays. Returns whether there was something."""
    names = os.listdir(top)
    for name in names:
        path = os.path.join(top, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return bool(names)
