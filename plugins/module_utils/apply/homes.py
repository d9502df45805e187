# Copyright the cisdriver authors. Apache-2.0.
"""Homes of people, the dot files in them, and the directories of root's PATH: which of them a program may change."""

from __future__ import annotations

import os
import re
import stat
from typing import Any, List, Mapping, Sequence

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import accounts, core, owned, runtime

NOBODY = 65534
#: Homes that are none: the system's, whoever names them.
NOT_A_HOME = ("/home", "/media", "/mnt", "/opt", "/srv", "/tmp")
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "usr", "var")
OF_THE_SYSTEM = tuple(f"/{name}" for name in _SYSTEM)
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def people(users: Sequence[accounts.User], shells: str, login_defs: str) -> List[accounts.User]:
    """Users from UID_MIN on that can log in and have a home of their own; and root."""
    listed = [line.strip() for line in shells.splitlines()] or ["/bin/sh", "/bin/csh"]
    least = accounts.uid_min(login_defs)
    return [
        user
        for user in users
        if accounts.can_log_in(user, listed)
        and ((user.uid >= least and user.uid != NOBODY and is_home(user.home)) or (user.uid, user.home) == (0, "/root"))
    ]


def is_home(path: str) -> bool:
    real = os.path.realpath(path)
    inside = tuple(f"{top}/" for top in OF_THE_SYSTEM)
    return path.startswith("/") and real not in ("/", *NOT_A_HOME, *OF_THE_SYSTEM) and not real.startswith(inside)


def directory(
    objects: owned.Objects, rule: Mapping[str, Any], user: accounts.User, users: Sequence[accounts.User], most: int
) -> None:
    """Make it where there is none, and take from it what others may do; a home that is another's stays that one's."""
    if not os.path.lexists(user.home):
        if os.path.isdir(os.path.dirname(user.home)):
            objects.make_directory(rule, user.home, owned.State(0o700 & most, user.uid, user.gid))
        return
    if not os.path.isdir(user.home):
        return
    others = {each.uid for each in users} - {0, user.uid}

    def wanted(now: owned.State) -> owned.State:
        after = now._replace(mode=now.mode & most)
        return after if now.uid == user.uid or now.uid in others else after._replace(uid=user.uid, gid=user.gid)

    objects.settle(rule, os.path.realpath(user.home), wanted)


def dot_files(objects: owned.Objects, rule: Mapping[str, Any], user: accounts.User, want: Mapping[str, Any]) -> None:
    """Regular files, one level deep; what is forbidden is the audit's to show, not ours to delete."""
    try:
        names = sorted(name for name in os.listdir(user.home) if name.startswith("."))
    except OSError:  # no such home, or one on a server that does not answer root: the audit says so
        return
    for name in names:
        path = os.path.join(user.home, name)
        if name in want["forbidden"] or not is_regular(path):
            continue
        most = int(want["private"].get(name, want["max_mode"]), 8)
        objects.settle(rule, path, lambda now, most=most: owned.State(now.mode & most, user.uid, user.gid))


def is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def secure_path(
    batch: core.Batch,
    objects: owned.Objects,
    rule: Mapping[str, Any],
    users: Sequence[accounts.User],
    login_defs: str,
) -> None:
    """Directories of root's PATH become root's, and writable for nobody else; not those that others live in."""
    inhabited = tuple(f"{os.path.realpath(user.home)}/" for user in users if user.uid and is_home(user.home))
    for element in asked_path(batch, login_defs):
        real = os.path.realpath(element)
        if not element.startswith("/") or not os.path.isdir(real) or f"{real}/".startswith(inhabited):
            continue

        def wanted(now: owned.State) -> owned.State:
            if now.mode & stat.S_ISVTX:  # /tmp is not to be closed for everyone, it is to leave the PATH
                return now
            return now._replace(mode=now.mode & ~_WRITABLE, uid=0)

        objects.settle(rule, real, wanted)


def asked_path(batch: core.Batch, login_defs: str) -> List[str]:
    """Elements of the PATH that a login shell of root's has; none where it does not answer in ten seconds.

    It starts with what login(1) and su(1) give root.
    """
    given = re.findall(r"(?m)^[ \t]*ENV_SUPATH[ \t]+(?:PATH=)?(\S+)", login_defs)
    mark = "cisdriver-path:"
    start = ["env", "-i", "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "TERM=dumb"]
    start += [f"PATH={given[-1] if given else '/sbin:/bin:/usr/sbin:/usr/bin'}"]
    # at the head of the session, timeout ends what the shell has started as well, which would keep its pipes open
    limit = ["setsid", "-w", "timeout", "-k", "1", "10"]
    # run_command would put this module's own PATH in place of a $PATH
    rc, out, err = runtime.run(batch.module, [*limit, *start, "/bin/bash", "-lc", f"echo; echo {mark}; printenv PATH"])
    found = out.rpartition(mark)
    if not found[1]:
        batch.module.warn(f"root's login shell does not tell its PATH, whose directories stay as they are: {rc}: {err}")
        return []
    return found[2].strip().split(":")
