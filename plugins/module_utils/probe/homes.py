# Copyright the cisdriver authors. Apache-2.0.
"""Home directories of users that can log in, and the dot files in them: one level deep, regular files, no links."""

from __future__ import annotations

import os
import stat
from typing import Any, Iterator, List, Mapping, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import accounts, core


def directories(node: core.Node, want: Mapping[str, Any]) -> Iterator[core.Evidence]:
    allowed = int(want["max_mode"], 8)
    people = accounts.interactive(node)
    for user in people:
        about = _directory(node, user)
        what = f"home {user.home} of {user.name}"
        if about is None:
            yield core.evidence(what, "a directory", "none", False, user.source)
            continue
        mode = stat.S_IMODE(about.st_mode)
        yield core.evidence(what, f"mode {want['max_mode']} or less", f"{mode:04o}", not mode & ~allowed)
        owner = f"uid {about.st_uid}"
        yield core.evidence(what, f"owner uid {user.uid}", owner, about.st_uid == user.uid)
    if not people:
        yield core.evidence("users that can log in", "with a home", "none", True, accounts.PASSWD)


def dot_files(node: core.Node, want: Mapping[str, Any]) -> Iterator[core.Evidence]:
    """``forbidden`` names; with ``max_mode`` and ``private`` (name to its mode) also modes and owners."""
    looked_at = 0
    for user in accounts.interactive(node):
        for name in _dot_names(node, user):
            path = os.path.join(user.home, name)
            about = node.lstat(path)
            if about is None or not stat.S_ISREG(about.st_mode):
                continue
            looked_at += 1
            yield from _dot_file(user, path, about, want)
    yield core.evidence("dot files of users that can log in", "restricted", f"{looked_at} looked at", True)


def _dot_file(
    user: accounts.User, path: str, about: os.stat_result, want: Mapping[str, Any]
) -> Iterator[core.Evidence]:
    name = os.path.basename(path)
    if name in want["forbidden"]:
        yield core.evidence(path, "no such file", "present", False)
        return
    if "max_mode" not in want:
        return
    most = want["private"].get(name, want["max_mode"])
    mode = stat.S_IMODE(about.st_mode)
    if mode & ~int(most, 8):
        yield core.evidence(path, f"mode {most} or less", f"{mode:04o}", False)
    if (about.st_uid, about.st_gid) != (user.uid, user.gid):
        found = f"{about.st_uid}:{about.st_gid}"
        yield core.evidence(path, f"owner {user.uid}:{user.gid} ({user.name})", found, False)


def _directory(node: core.Node, user: accounts.User) -> Optional[os.stat_result]:
    """The home itself, or what a link in its place points at."""
    try:
        about = os.stat(node.real(user.home)) if user.home.startswith("/") else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise core.ProbeError(f"cannot look at {user.home}, home of {user.name}: {error.strerror}") from error
    return about if about is not None and stat.S_ISDIR(about.st_mode) else None


def _dot_names(node: core.Node, user: accounts.User) -> List[str]:
    if _directory(node, user) is None:
        return []
    try:
        names = os.listdir(node.real(user.home))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise core.ProbeError(f"cannot list {user.home}, home of {user.name}: {error.strerror}") from error
    return sorted(name for name in names if name.startswith("."))
