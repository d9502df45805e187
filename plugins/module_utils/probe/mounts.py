# Copyright the cisdriver authors. Apache-2.0.
"""What is mounted now and what mounts it at boot, for the kinds mount_point and mount_option.

The kernel's table is read by exact path: whoever asks for the file system that holds a path is
answered by its parent. Of mounts stacked on a path the last counts. At boot a unit file in /etc or
/run beats the unit generated from fstab, which beats a vendor's; a drop-in's Options= replaces
whichever it is. /dev/shm is mounted by systemd itself, and fstab's options are put on it later.
"""

from __future__ import annotations

import os
import re
from typing import List, NamedTuple, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

_ADMIN_UNITS = ("/etc/systemd/system", "/run/systemd/system")
_VENDOR_UNITS = ("/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
#: Options with which systemd mounts what it needs before it reads any unit (src/shared/mount-setup.c).
API_MOUNTS = {"/dev/shm": ["nosuid", "nodev", "strictatime", "mode=1777"]}


class Options(NamedTuple):
    """Mount options and the file and line they come from."""

    words: List[str]
    source: str


def live(node: core.Node, path: str) -> Optional[Options]:
    """Options of the mount that is visible at ``path``; None where it is no mount of its own."""
    found = None
    table = node.read("/proc/self/mountinfo")
    if table is None:
        raise core.ProbeError("/proc/self/mountinfo does not exist: /proc is not mounted")
    for number, line in enumerate(table.splitlines(), 1):
        fields = line.split()
        if len(fields) < 6:
            continue
        point = _unescaped(fields[4])
        if point == path:
            found = Options(fields[5].split(","), f"/proc/self/mountinfo:{number}")
        elif point != "/" and path.startswith(point + "/"):
            found = None  # mounted over the parent later: what was below is hidden
    return found


def fstab(node: core.Node, path: str) -> List[Options]:
    """Every line of fstab for ``path``."""
    found = []
    for number, line in node.lines("/etc/fstab"):
        fields = line.split()
        if len(fields) >= 3 and os.path.normpath(_unescaped(fields[1])) == path:
            words = fields[3].split(",") if len(fields) > 3 else ["defaults"]
            found.append(Options(words, f"/etc/fstab:{number}"))
    return found


def unit_name(path: str) -> str:
    """As ``systemd-escape --path --suffix=mount``, for the plain paths that rules name."""
    return path.strip("/").replace("-", "\\x2d").replace("/", "-") + ".mount"


def unit(node: core.Node, path: str) -> Optional[Options]:
    """The Options= that a unit or its drop-ins decide at boot; None where fstab or nothing does."""
    name = unit_name(path)
    fragments = [f"{directory}/{name}" for directory in _ADMIN_UNITS if node.exists(f"{directory}/{name}")]
    if not fragments and not fstab(node, path):
        fragments = [f"{directory}/{name}" for directory in _VENDOR_UNITS if node.exists(f"{directory}/{name}")]
    directories = [f"{directory}/{name}.d" for directory in (*_ADMIN_UNITS, *_VENDOR_UNITS)]
    found = None
    for file in [*fragments[:1], *node.merged(directories, ".conf")]:
        found = _options_in(node, file) or found
    if found is None and fragments:
        return Options([], fragments[0])
    return found


def carries(words: List[str], option: str) -> bool:
    """Whether ``option`` (``nodev``) stands in a list and no later word (``dev``) takes it back."""
    state = False
    for word in words:
        if word in (option, option[2:]):
            state = word == option
    return state


def _options_in(node: core.Node, path: str) -> Optional[Options]:
    section, found = "", None
    for number, line in node.lines(path):
        if line.startswith("["):
            section = line
        match = re.match(r"Options\s*=\s*(.*)", line)
        if match and section == "[Mount]":
            found = Options(match.group(1).split(","), f"{path}:{number}")
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)
