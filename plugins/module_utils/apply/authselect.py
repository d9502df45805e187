# Copyright the cisdriver authors. Apache-2.0.
"""authselect: a custom profile that this collection owns, made of what the node had and of what the rules ask.

Profiles of the package are not built upon: the node's own PAM files and nsswitch.conf become the profile's, so that
selecting it changes what the rules ask for and nothing else. What the node had is remembered, and comes back.

Paths and file names: ``src/lib/paths.h`` of authselect; a missing template makes an empty file in its place.
"""

from __future__ import annotations

import ctypes
import os
from typing import Dict, List, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

#: Template to the path that authselect makes a link to what it generates from it.
LINKS = {
    "system-auth": "/etc/pam.d/system-auth",
    "password-auth": "/etc/pam.d/password-auth",
    "fingerprint-auth": "/etc/pam.d/fingerprint-auth",
    "smartcard-auth": "/etc/pam.d/smartcard-auth",
    "postlogin": "/etc/pam.d/postlogin",
    "nsswitch.conf": "/etc/nsswitch.conf",
    "dconf-db": "/etc/dconf/db/distro.d/20-authselect",
    "dconf-locks": "/etc/dconf/db/distro.d/locks/20-authselect",
}
CONF = "/etc/authselect/authselect.conf"
BACKUP = "cisdriver"
README = """Hardened local stack
====================

The PAM stacks and the nsswitch.conf this node had, with what the CIS benchmark asks of them. Written by
cisdriver.amazon_linux, which owns this profile: changes made here are lost.
"""
#: What an entry of the file system was: None, ("link", target) or ("file", text, mode).
Entry = Optional[Tuple[str, ...]]


class Authselect:
    """The node's authselect, below ``root``. ``profile`` is the name of our custom profile."""

    def __init__(self, batch: core.Batch, root: str, profile: str) -> None:
        self.batch = batch
        self.root = root.rstrip("/")
        self.id = f"custom/{profile}"
        self.directory = f"{self.root}/etc/authselect/custom/{profile}"

    def path(self, path: str) -> str:
        return self.root + path

    def installed(self) -> bool:
        return self.run("version")[0] != 127

    def run(self, *argv: str) -> Tuple[int, str]:
        """Exit code, and what it said."""
        rc, out, err = runtime.run(self.batch.module, ["authselect", *argv])
        return rc, (err.strip() or out.strip())

    def current(self) -> List[str]:
        """The selected profile and its features; nothing where none is selected."""
        return core.read(self.path(CONF)).split()

    def valid(self) -> bool:
        return self.run("check")[0] == 0

    def write_profile(self, templates: Dict[str, str]) -> bool:
        """Make the profile hold these templates and no others. Returns whether it differed."""
        files = {**dict.fromkeys(LINKS, ""), **templates}
        if templates:
            files.update(README=README, REQUIREMENTS="Nothing beyond the package pam.\n")
        differs = [self.batch.write(f"{self.directory}/{name}", text) for name, text in sorted(files.items())]
        return any(differs)

    def remove_profile(self) -> None:
        for name in (*LINKS, "README", "REQUIREMENTS"):
            self.batch.write(f"{self.directory}/{name}", "")
        if not self.batch.module.check_mode and os.path.isdir(self.directory) and not os.listdir(self.directory):
            os.rmdir(self.directory)

    def select(self, features: List[str], first: bool) -> None:
        """Bring the profile into force. ``first``: what is replaced goes into a backup of authselect's."""
        wanted = [self.id, *features]
        current = self.current()
        if current == wanted:
            if not self.batch.module.check_mode and self.run("apply-changes")[0]:
                self.must("select", *wanted, "--force")  # somebody changed what authselect had made
            return
        self.batch.changed_file(CONF, "".join(f"{word}\n" for word in current), "".join(f"{word}\n" for word in wanted))
        if not self.batch.module.check_mode:
            self.must("select", *wanted, "--force", *([f"--backup={BACKUP}"] if first else []))

    def must(self, *argv: str) -> None:
        rc, said = self.run(*argv)
        if rc:
            raise RuntimeError(f"authselect {' '.join(argv)}: exit {rc}: {said}")


def entry(path: str) -> Entry:
    """What is there now, so that put_back can make it again."""
    if os.path.islink(path):
        return ("link", os.readlink(path))
    if not os.path.exists(path):
        return None
    return ("file", core.read(path), f"{os.stat(path).st_mode & 0o7777:o}")


def put_back(path: str, was: Entry) -> None:
    """Make a path what it was, in one step: while a stack is not there nobody gets in. Raises OSError."""
    if entry(path) == was:
        return
    temporary = f"{path}.cisdriver-new"
    for stale in (temporary,) if was else (path,):
        if os.path.lexists(stale):
            os.unlink(stale)
    if was is None:
        return
    if was[0] == "link":
        os.symlink(was[1], temporary)
    else:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(file.fileno(), int(was[2], 8))
            file.write(was[1])
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


class _Conversation(ctypes.Structure):
    """``struct pam_conv``; this one has no answer to anything."""

    _fields_ = (("conv", ctypes.c_void_p), ("data", ctypes.c_void_p))


def account_result(service: str, user: str) -> Optional[int]:
    """What libpam says of an account through the stack of a service; None where there is no libpam.

    No password is asked for, so no failure is counted; a stack that libpam cannot load shows all the same.
    """
    try:
        pam = ctypes.CDLL("libpam.so.0")
    except OSError:
        return None
    handle = ctypes.c_void_p()
    started: int = pam.pam_start(service.encode(), user.encode(), ctypes.byref(_Conversation()), ctypes.byref(handle))
    if started:
        return started
    result: int = pam.pam_acct_mgmt(handle, 0x8000)  # PAM_SILENT
    pam.pam_end(handle, result)
    return result
