"""One run of a command: its directory, its events, its screen, and how it ended."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cisdriver import collection, events, progress, rundir, runner
from cisdriver.errors import CisdriverError, InterruptedRunError
from cisdriver.runner import Interrupt, Outcome, Play
from cisdriver.settings import Settings
from cisdriver.stages import Stage, Tally, Tracker

VERSION = "1"
_STATUS = {None: "running", 0: "done", 1: "findings", 130: "interrupted"}


@dataclass
class Session:
    """What a command works with while it runs. ``facts`` go into run.json."""

    verb: str
    settings: Settings
    run: rundir.RunDir
    screen: progress.Screen
    interrupt: Interrupt
    tally: Tally
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tail = events.Tail(self.run.events)
        self.tracker = Tracker(self.announce, time.monotonic)
        # Of a run that is continued, what happened before is told already; the times of its stages still count.
        self.tracker.stages = [_stage(event) for event in self._tail.read() if event["event"] == "stage_end"]
        # A killed attempt wrote no end: what is known of its time are its finished stages.
        self._began = time.monotonic() - sum(stage.seconds or 0 for stage in self.tracker.stages)
        before = self.run.read("run") or {}
        self._started = before.get("started") or datetime.now(UTC).isoformat(timespec="seconds")

    def announce(self, event: str, **fields: Any) -> None:
        events.append(self.run.events, event, **fields)

    def note(self, text: str) -> None:
        """Say something that is no step."""
        self.announce("note", text=text)
        self.tick()

    def tick(self) -> None:
        """Show what has happened since the last look."""
        for event in self._tail.read():
            self.tally.feed(event)
            self.screen.event(event, self.tally)
            self.tracker.feed(event)
        self.screen.tick(self.tracker.current, self.tally)

    def skip(self) -> None:
        """Leave out what others have appended since the last look."""
        self._tail.read()

    def play(self, play: Play, whole: str = "") -> Outcome:
        """Run a playbook to its end. Raises nothing for a play that fails: the caller knows what it means.

        ``whole``: the one stage that the play is to be shown as, instead of its own.
        """
        before = len(self.tally.failures)
        self.tracker.play(whole)
        outcome = runner.run(play, self.run.path, self.interrupt, self.tick)
        known = any(not stage.ok for stage in self.tracker.stages)
        self.tracker.leave(ok=outcome.rc == 0 or known)
        self.tick()
        return dataclasses.replace(outcome, failures=tuple(self.tally.failures[before:]))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A step the driver does itself."""
        self.tracker.enter(name)
        self.tick()
        try:
            yield
        except BaseException:
            self.tracker.leave(ok=False)
            raise
        self.tracker.leave()
        self.tick()

    def ask(self, question: str) -> bool:
        """A question on the terminal, answered no by default. Raises InterruptedRunError for Ctrl-C."""
        import click

        self.screen.pause()
        try:
            with self.interrupt.off():
                return click.confirm(question)
        except click.Abort as error:
            raise InterruptedRunError("interrupted at the question", "Nothing was changed.") from error
        finally:
            self.screen.resume()

    def about(self) -> dict[str, Any]:
        """Facts and stages so far, as run.json and the reports have them."""
        stages = [
            {"stage": stage.name, "label": stage.label, "seconds": stage.seconds, "ok": stage.ok}
            for stage in self.tracker.stages
        ]
        return {"stages": stages, **self.facts}

    def save(self, code: int | None = None, error: CisdriverError | None = None) -> None:
        """Write run.json, the run in short. ``code`` is None while it lasts; paths are relative to the directory."""
        self.run.write(
            "run",
            {
                "version": VERSION,
                "id": self.run.id,
                "verb": self.verb,
                "cisdriver": collection.version(),
                "pid": os.getpid(),
                "started": self._started,
                "seconds": round(time.monotonic() - self._began, 1),
                "status": _STATUS.get(code, "failed"),
                "exit_code": code,
                "error": str(error) if error else None,
                "settings": given(self.settings),
                # While it lasts, what stands there may be of an attempt that was killed.
                **(_results(self.run) if code is not None else {}),
                **self.about(),
            },
        )

    def stop_if_interrupted(self) -> None:
        """Raise InterruptedRunError when a signal came while the driver itself was at work."""
        if self.interrupt.count:
            raise InterruptedRunError("interrupted", f"What happened so far is in {self.run.path}.")


def _stage(event: events.Event) -> Stage:
    return Stage(event["stage"], event["label"], started=0, seconds=event["seconds"], ok=event["ok"])


@contextmanager
def session(
    verb: str,
    settings: Settings,
    totals: dict[str, int],
    as_json: bool,
    facts: dict[str, Any] | None = None,
    continued: rundir.RunDir | None = None,
) -> Iterator[Session]:
    """A run from run_start to run_end; run.json is written at its start, and again however it ends.

    ``continued``: the run to go on with, instead of a new one. Raises UsageError while another process is at it.
    """
    run = continued or rundir.create(settings.run_dir)
    with rundir.held(run), Interrupt() as interrupt:
        now = Session(
            verb, settings, run, progress.screen(as_json, settings.verbose), interrupt, Tally(totals), facts or {}
        )
        if continued:
            rundir.link(run)
        now.save()
        now.announce("run_start", run=run.id, verb=verb, totals=totals, directory=str(run.path))
        now.tick()
        error: CisdriverError | None = None
        try:
            yield now
        except CisdriverError as raised:
            error = raised
            raise
        except BaseException as raised:
            error = CisdriverError(f"{type(raised).__name__}: {raised}")
            raise
        finally:
            code = error.exit_code if error else 0
            now.tracker.leave(ok=code in (0, 1))
            now.save(code, error)
            now.announce("run_end", run=run.id, exit_code=code, message=error.message if error else "")
            now.tick()
            now.screen.close()


def _results(run: rundir.RunDir) -> dict[str, Any]:
    """Summaries of what was audited and verified."""
    return {
        "results": [
            {"node": found["node"]["name"], "benchmark": found["benchmark"], **found["summary"]}
            for found in run.documents()
        ],
        "verifications": [
            {"node": found["node"]["name"], **found["summary"]} for found in run.results("verify").values()
        ],
        "workloads": [{"group": group, **found["summary"]} for group, found in run.results("workloads").items()],
    }


def given(settings: Settings) -> dict[str, Any]:
    """What was set, as run.json has it; where and how much is shown is no part of what was asked for."""
    return settings.model_dump(mode="json", exclude_defaults=True, exclude={"run_dir", "verbose"})
