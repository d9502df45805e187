"""Ending a tree of processes so that each can tidy up.

Ansible puts every worker in a session of its own, and a worker that dies takes the pipe that Packer writes to with it:
Packer would die of that before it has terminated its instance. So Packer is asked first, and Ansible when it is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

#: Programs that clean up after themselves on SIGINT, and must be let to.
TIDY = frozenset({"packer"})
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process; ``started`` tells it from a later one with the same number."""

    pid: int
    parent: int
    name: str
    started: str


def running() -> dict[int, Process]:
    """Every process of this machine, from /proc, or from ps where there is none."""
    found = _from_proc() if (_PROC / "self" / "stat").exists() else _from_ps()
    return {process.pid: process for process in found}


def _from_proc() -> Iterable[Process]:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # gone meanwhile
        name, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        if fields[0] != "Z":
            yield Process(int(entry.name), int(fields[1]), name, fields[19])


def _from_ps() -> Iterable[Process]:
    listing = subprocess.run(["ps", "-Ao", "pid=,ppid=,lstart=,comm="], capture_output=True, text=True, check=True)
    for line in listing.stdout.splitlines():
        words = line.split(None, 7)
        yield Process(int(words[0]), int(words[1]), Path(words[7]).name, " ".join(words[2:7]))


def descendants(pid: int) -> list[Process]:
    """Processes below ``pid``, parents before children."""
    everything = running()
    found: list[Process] = []
    parents = {pid}
    while parents:
        level = [process for process in everything.values() if process.parent in parents]
        found += level
        parents = {process.pid for process in level}
    return found


def with_variable(name: str, *values: str) -> list[Process]:
    """Processes that were started with this variable, of one of these values; none where there is no /proc."""
    wanted = {f"{name}={value}".encode() for value in values}
    found = []
    for process in running().values():
        try:
            environment = (_PROC / str(process.pid) / "environ").read_bytes()
        except OSError:
            continue  # gone meanwhile, somebody else's, or no /proc
        if not wanted.isdisjoint(environment.split(b"\0")):
            found.append(process)
    return found


def children(pid: int) -> list[Process]:
    return [process for process in running().values() if process.parent == pid]


def alive(processes: Iterable[Process]) -> list[Process]:
    now = running()
    return [process for process in processes if now.get(process.pid) and now[process.pid].started == process.started]


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process.pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def stop(roots: list[Process], tidy_seconds: float, hurry: Callable[[], bool], wait: Callable[[float], None]) -> None:
    """End ``roots`` and everything below them, gently first.

    SIGINT to the tidy programs and up to ``tidy_seconds`` for them; then SIGINT to the roots and 10 s; then SIGKILL to
    whatever is left. ``hurry`` cuts the waiting short; ``wait`` is called with the seconds to sleep between looks.
    """
    tree = _trees(roots)
    tidy = [process for process in tree if process.name in TIDY]
    # All of them at once, as Ctrl-C on a terminal does: Packer's outer process ignores it, its plugins too.
    send(tidy, signal.SIGINT)
    _wait_for(tidy, tidy_seconds, hurry, wait)
    if tidy:
        _wait_for(roots, 30, hurry, wait)  # the play sees Packer fail, and deletes what it made itself
    tree |= _trees(alive(roots))
    send(alive(roots), signal.SIGINT)
    _wait_for(tree, 10, hurry, wait)
    killed = alive(tree | _trees(alive(roots)))
    send(killed, signal.SIGKILL)
    _wait_for(killed, 5, lambda: False, wait)  # it takes a moment, and what follows counts on their end


def _trees(roots: Iterable[Process]) -> set[Process]:
    return {process for root in roots for process in (root, *descendants(root.pid))}


def _wait_for(
    processes: Collection[Process], seconds: float, hurry: Callable[[], bool], wait: Callable[[float], None]
) -> None:
    end = time.monotonic() + seconds
    while alive(processes) and time.monotonic() < end and not hurry():
        wait(0.1)
