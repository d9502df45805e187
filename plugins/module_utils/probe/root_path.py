# Copyright the cisdriver authors. Apache-2.0.
"""The PATH of root's login shell, and who could put a program there.

It is asked of a login shell that starts with what login(1) and su(1) set (ENV_SUPATH of login.defs), for
``/etc/profile``, ``/etc/profile.d`` and root's own files may all add to it.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import Iterator, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import accounts, core, shells

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def check(node: core.Node, _want: str) -> Iterator[core.Evidence]:
    path = shells.ask(node, "root", "login shell", 'printf "%s" "$PATH"', path=_initial(node))
    for element in path.split(":"):
        if not element.startswith("/"):
            found = element or "an empty element, the working directory"
            yield core.evidence("PATH of root", "absolute directories", found, False, path)
            continue
        yield _element(node, element)


def _initial(node: core.Node) -> str:
    value = "/sbin:/bin:/usr/sbin:/usr/bin"
    for _number, line in node.lines(accounts.LOGIN_DEFS):
        words = line.split()
        if len(words) > 1 and words[0] == "ENV_SUPATH":
            value = words[1].replace("PATH=", "", 1)
    return value


def _element(node: core.Node, element: str) -> core.Evidence:
    """A directory of root's that nobody else writes to; where there is none yet, nobody else may make it."""
    what = f"{element} in root's PATH"
    about = _stat(node, element)
    if about is not None:
        if not stat.S_ISDIR(about.st_mode):
            return core.evidence(what, "a directory", "no directory", False)
        return core.evidence(what, "root's, written by nobody else", _owner(about), _is_roots(about))
    above = element
    while about is None and above != "/":
        above = posixpath.dirname(above)
        about = _stat(node, above)
    ok = about is not None and _is_roots(about)
    found = f"absent; {above} is {_owner(about) if about else 'absent'}"
    return core.evidence(what, "absent, or root's", found, ok)


def _is_roots(about: os.stat_result) -> bool:
    return about.st_uid == 0 and not about.st_mode & _WRITABLE


def _owner(about: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(about.st_mode):04o}, owner uid {about.st_uid}"


def _stat(node: core.Node, path: str) -> Optional[os.stat_result]:
    """What is there, through links: they are root's to make, their targets count."""
    try:
        return os.stat(node.real(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise core.ProbeError(f"cannot stat {path}: {error.strerror}") from error
