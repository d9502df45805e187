"""What a run is doing: events in, the current stage and the count of rules out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cisdriver import collection, events

#: Stages that have no file of their own in a role of ``_STAGED``.
_LABELS = {
    "harden": "Harden",
    "verify": "Verify",
    "audit": "Audit",
    "sandbox": "Start the sandbox",
    "sandbox_end": "End the sandbox",
    "register": "Register the image",
    "stop": "Stop what the killed run left",
    "look": "Look what there is",
}
#: Roles whose stages are the files that these files of tasks import, under the names they are imported by.
_STAGED = {"image": ("main", "provision"), "cluster": ("main", "destroy"), "workloads": ("main",)}
#: Stages that fail when another has, which is named by then.
_RESULTS = {"result", "cluster.result", "cluster.destroyed", "workloads.result"}
_HARDENING = {"harden", *collection.catalogue.SECTION_ROLES}


@dataclass
class Stage:
    """One step of a run. ``started`` is of the monotonic clock, ``seconds`` is None while it lasts."""

    name: str
    label: str
    started: float
    seconds: float | None = None
    ok: bool = True


@dataclass
class Tally:
    """Counts of a run. A rule counts once per host, however many kinds it has, and so does a check."""

    totals: dict[str, int]
    hosts: set[str] = field(default_factory=set)
    #: Hosts any play has had, whether or not it got anywhere with them.
    played: set[str] = field(default_factory=set)
    rules: dict[tuple[str, str], str] = field(default_factory=dict)
    findings: dict[tuple[str, str], str] = field(default_factory=dict)
    checks: dict[tuple[str, str], str] = field(default_factory=dict)
    stage: str = ""
    failures: list[events.Event] = field(default_factory=list)

    def feed(self, event: events.Event) -> None:
        if event["event"] == "rule":
            key = (event["host"], event["rule"])
            ranks = ("ok", "changed", "failed")
            self.rules[key] = max(self.rules.get(key, "ok"), event["status"], key=ranks.index)
            self.hosts.add(event["host"])
        elif event["event"] == "finding":
            self.findings[event["host"], event["rule"]] = event["status"]
            self.hosts.add(event["host"])
        elif event["event"] == "check":
            self.checks[event["host"], event["check"]] = event["status"]
            self.hosts.add(event["host"])
        elif event["event"] == "task_start" and (name := stage_of(event)):
            if name == "verify" != self.stage:  # a bake verifies twice
                self.checks.clear()
            self.stage = name
        elif event["event"] == "task_failed":
            self.failures.append(event)
        elif event["event"] == "stats":
            self.played |= set(event["hosts"])

    def progress(self, stage: str) -> tuple[int, int]:
        """Rules or checks done and in all, for the stages that count them; ``(0, 0)`` for others."""
        done = {"harden": len(self.rules), "audit": len(self.findings), "verify": len(self.checks)}.get(stage, 0)
        total = self.totals.get(stage, 0) * max(1, len(self.hosts))
        return done, max(done, total)

    def changed(self) -> int:
        return sum(status == "changed" for status in self.rules.values())

    def broken(self) -> int:
        return sum(status in ("fail", "error") for status in self.checks.values())


class Tracker:
    """Follows the stages of a run through the tasks of its plays, and announces each start and end.

    ``announce(event, **fields)`` appends to the run's events.
    """

    def __init__(self, announce: Callable[..., None], clock: Callable[[], float]) -> None:
        self.stages: list[Stage] = []
        self._announce = announce
        self._clock = clock
        self._outer: int | None = None
        self._whole = False

    @property
    def current(self) -> Stage | None:
        last = self.stages[-1] if self.stages else None
        return last if last and last.seconds is None else None

    def play(self, whole: str = "") -> None:
        """A play begins; the one before may have been stopped before it could say that it ended.

        ``whole``: the stage that all of the play is, whatever it consists of.
        """
        self._outer, self._whole = None, bool(whole)
        if whole:
            self.enter(whole)

    def feed(self, event: events.Event) -> None:
        """Take an event of a play. The play inside Packer has a process of its own; when it ends, Packer goes on."""
        if event["event"] == "play_start" and self._outer is None:
            self._outer = event["pid"]
        elif event["event"] == "task_start" and (name := stage_of(event)):
            self.enter(self.current.name if self._whole and self.current else name)
        elif event["event"] == "stats" and event["pid"] != self._outer and not _failed(event):
            self.enter("register")
        elif event["event"] == "stats" and event["pid"] == self._outer:
            self._outer = None
        elif event["event"] == "task_failed" and self.current and self.current.name not in _RESULTS:
            self.current.ok = False

    def enter(self, name: str) -> None:
        if self.current and self.current.name == name:
            return
        self.leave()
        stage = Stage(name, label(name), self._clock())
        self.stages.append(stage)
        self._announce("stage_start", stage=name, label=stage.label)

    def leave(self, ok: bool = True) -> None:
        """End the current stage, if there is one."""
        stage = self.current
        if stage is None:
            return
        stage.seconds, stage.ok = round(self._clock() - stage.started, 1), ok and stage.ok
        self._announce("stage_end", stage=stage.name, label=stage.label, seconds=stage.seconds, ok=stage.ok)


def _failed(event: events.Event) -> bool:
    return any(host["failures"] or host["unreachable"] for host in event["hosts"].values())


def stage_of(event: events.Event) -> str:
    """The stage a task belongs to; empty for a task that belongs to whatever is going on."""
    role = str(event.get("role") or "").rpartition(".")[2]
    if role in _HARDENING:
        return "harden"
    if role == "audit":
        return "audit"
    if role == "verify_node":
        return "verify"
    name = _name(role, str(event.get("file")))
    return name if name in _role_labels() else ""


def label(name: str) -> str:
    return _LABELS.get(name) or _role_labels().get(name) or name.rpartition(".")[2].replace("_", " ").capitalize()


def _name(role: str, file: str) -> str:
    """Name of a stage; those of role image are the oldest, and bare."""
    return file if role == "image" else f"{role}.{file}"


@functools.cache
def _role_labels() -> dict[str, str]:
    """Names by which the roles import their files: ``{"base": "Find the base image", "cluster.network": ...}``."""
    import yaml

    found: dict[str, str] = {}
    for role, files in _STAGED.items():
        imported: dict[str, str] = {}
        for file in files:
            path = collection.ROOT / "roles" / role / "tasks" / f"{file}.yml"
            if path.exists():
                _collect(yaml.safe_load(path.read_text(encoding="utf-8")), imported)
        found |= {_name(role, file): name for file, name in imported.items()}
    return found


def _collect(tasks: Any, found: dict[str, str]) -> None:
    for task in tasks or []:
        for key, value in task.items():
            if key in ("block", "rescue", "always"):
                _collect(value, found)
            elif key.endswith(("import_tasks", "include_tasks")) and isinstance(value, str):
                found.setdefault(Path(value).stem, task.get("name", ""))
