# Copyright the cisdriver authors. Apache-2.0.
"""Modes and owners of single files and directories: changed, remembered, given back.

``Objects`` is for modules that know themselves what they may touch; ``file_mode`` has rules of its own for that.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Union

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core


class State(NamedTuple):
    """Permission bits and ids of an object."""

    mode: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.mode:04o} {user_name(self.uid)}:{group_name(self.gid)}"


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


class Objects:
    """The objects of one batch. What one rule changed the next one sees, in check mode too."""

    def __init__(self, batch: core.Batch) -> None:
        self.batch = batch
        self._seen: Dict[Any, State] = {}

    def now(self, path: str) -> Optional[State]:
        """None where there is nothing, or a link."""
        try:
            about = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return self._seen.get(path)
        if stat.S_ISLNK(about.st_mode):
            return None
        known = self._seen.get((about.st_dev, about.st_ino))
        return known or State(stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid)

    def settle(self, rule: Mapping[str, Any], path: str, wanted: Callable[[State], State]) -> None:
        """Bring one object to what ``wanted`` makes of its state."""
        before = self.now(path)
        if before is None:  # nothing there, or a link
            return
        after = wanted(before)
        if after == before:
            return
        if after[1:] != before[1:] and has_other_names(path):
            who = f"rule {rule['rule']} ({rule['id']})"
            self.batch.module.warn(f"{who}: {path} has other names (hard links): it gets no other owner; remove them")
            after = before._replace(mode=after.mode)
            if after == before:
                return
        for attribute in State._fields:
            was, will = getattr(before, attribute), getattr(after, attribute)
            self.batch.remember(rule["rule"], f"{path}\t{attribute}", was, will)
        self._change(rule, path, before, after)

    def make_directory(self, rule: Mapping[str, Any], path: str, state: State) -> None:
        self.batch.remember(rule["rule"], f"{path}\tdirectory", None, "made")
        self._note(rule, path, "absent", str(state))
        self._seen[path] = state
        if self.batch.module.check_mode:
            return
        self.batch.store()
        try:
            os.mkdir(path, 0o700)
            # whoever owns the directory above may have put a link in its place
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchown(handle, state.uid, state.gid)
                os.fchmod(handle, state.mode)
            finally:
                os.close(handle)
        except OSError as error:
            self.batch.fail(f"rule {rule['rule']} ({rule['id']}): cannot make {path}: {error.strerror}")

    def give_back(self, rule: Mapping[str, Any], object_: str, was: Any, now: Any) -> bool:
        """Put back what settle() and make_directory() remember. Whether ``object_`` was one of theirs."""
        path, _tab, attribute = object_.rpartition("\t")
        if attribute == "directory":
            self._take_directory_away(rule, path)
        elif path.startswith("/") and attribute in State._fields:
            before = self.now(path)
            if before is not None and getattr(before, attribute) == now:
                self._change(rule, path, before, before._replace(**{attribute: was}))
        else:
            return False
        return True

    def _take_directory_away(self, rule: Mapping[str, Any], path: str) -> None:
        """As long as nobody has put anything there."""
        if not os.path.isdir(path) or os.listdir(path):
            return
        self._note(rule, path, str(self.now(path)), "absent")
        if not self.batch.module.check_mode:
            os.rmdir(path)

    def _change(self, rule: Mapping[str, Any], path: str, before: State, after: State) -> None:
        if not self.batch.module.check_mode:
            self.batch.store()
            if not put(self.batch, rule, path, before, after, foreign=True):
                return
        self._seen[_key(path)] = after
        self._note(rule, path, str(before), str(after))

    def _note(self, rule: Mapping[str, Any], path: str, before: str, after: str) -> None:
        self.batch.record(rule["rule"], {path: before}, {path: after})
        self.batch.changed_file(path, before + "\n", after + "\n")


def has_other_names(place: Union[str, int]) -> bool:
    """Of a path or a descriptor. Another name may be a file that the owner of the directory must not get."""
    try:
        about = os.stat(place, follow_symlinks=False) if isinstance(place, str) else os.fstat(place)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(about.st_mode) and about.st_nlink > 1


def _key(path: str) -> Any:
    """The object itself, whatever its name; its name where it has vanished."""
    try:
        about = os.lstat(path)
    except FileNotFoundError:
        return path
    return about.st_dev, about.st_ino


def put(
    batch: core.Batch, rule: Mapping[str, Any], path: str, before: State, after: State, foreign: bool = False
) -> bool:
    """Change the object itself, through a descriptor that follows no link. False when it has vanished.

    ``foreign``: it lies where its owner may swap it for another name of a file that is not theirs.
    """
    who = f"rule {rule['rule']} ({rule['id']})"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        batch.fail(f"{who}: cannot open {path}: {error.strerror}")
    try:
        if foreign and after[1:] != before[1:] and has_other_names(handle):
            return False
        # bits go first and owners after, or it would for a moment be open to its new group
        os.fchmod(handle, after.mode)
        if after[1:] != before[1:]:
            os.fchown(handle, after.uid, after.gid)
            os.fchmod(handle, after.mode)
    except OSError as error:
        hint = "; is it immutable, or do its mount's options set the modes?" if error.errno == errno.EPERM else ""
        batch.fail(f"{who}: cannot make {path} {after}: {error.strerror}{hint}")
    finally:
        os.close(handle)
    return True
