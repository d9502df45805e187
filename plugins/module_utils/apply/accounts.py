# Copyright the cisdriver authors. Apache-2.0.
"""Lines of /etc/passwd and their like: read as glibc reads them, one field changed, the rest as it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from typing import Dict, Iterator, List, NamedTuple, Sequence

#: Field of /etc/passwd by name.
FIELDS = {"gid": 3, "shell": 6}
LOCK_SECONDS = 15


class User(NamedTuple):
    name: str
    password: str
    uid: int
    gid: int
    home: str
    shell: str


def raw(path: str) -> str:
    """The text with its carriage returns; empty when there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def rows(text: str, width: int) -> List[List[str]]:
    """Fields of each line that names somebody, filled up to ``width``."""
    found = []
    for line in text.split("\n"):
        fields = line.lstrip().split(":")
        if fields[0] and fields[0][0] not in "#+-" and len(fields) > 1:
            found.append(fields + [""] * (width - len(fields)))
    return found


def users(text: str) -> List[User]:
    return [
        User(row[0], row[1], int(row[2]), int(row[3]), row[5], row[6] or "/bin/sh")
        for row in rows(text, 7)
        if re.fullmatch(r"\d+", row[2]) and re.fullmatch(r"\d+", row[3])
    ]


def passwords(text: str) -> Dict[str, str]:
    """Password field per name of /etc/shadow; of several lines of a name the first holds."""
    return {row[0]: row[1] for row in reversed(rows(text, 9))}


def is_locked(password: str) -> bool:
    return password[:1] in ("!", "*")


def with_field(text: str, name: str, field: int, value: str) -> str:
    """The text of /etc/passwd with one field of one account at a value: the first line of a name holds."""
    lines = text.split("\n")
    for index, line in enumerate(lines):
        fields = line.lstrip().split(":")
        if fields[0] == name and len(fields) > 1:
            fields += [""] * (7 - len(fields))
            fields[field] = value
            lines[index] = ":".join(fields)
            break
    return "\n".join(lines)


def without_passwords(text: str) -> str:
    """The text of /etc/passwd as it may be shown: a password may still stand in it."""
    return re.sub(r"(?m)^([^:\n]*):(?!x:)[^:\n]+:", r"\1:(not shown):", text)


def uid_min(login_defs: str) -> int:
    """The first uid of people, as /etc/login.defs says."""
    found = re.findall(r"(?m)^[ \t]*UID_MIN[ \t]+(\d+)", login_defs)
    return int(found[-1]) if found else 1000


def can_log_in(user: User, shells: Sequence[str]) -> bool:
    return user.shell in shells and not user.shell.endswith(("/nologin", "/false"))


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """The lock that shadow-utils takes as well (``man 3 lckpwdf``). Raises TimeoutError when somebody keeps it."""
    handle = os.open(os.path.join(directory, ".pwd.lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise TimeoutError(f"{directory}/.pwd.lock is held by another program") from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)
