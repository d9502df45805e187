"""One run of a command: its directory, its events, its screen, and how it ended."""

from __future__ import annotations

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
from cisdriver.stages import Tally, Tracker

VERSION = "1"
_STATUS = {0: "done", 1: "findings", 130: "interrupted"}


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

    def announce(self, event: str, **fields: Any) -> None:
        events.append(self.run.events, event, **fields)

    def tick(self) -> None:
        """Show what has happened since the last look."""
        for event in self._tail.read():
            self.tally.feed(event)
            self.screen.event(event, self.tally)
            self.tracker.feed(event)
        self.screen.tick(self.tracker.current, self.tally)

    def play(self, play: Play) -> Outcome:
        """Run a playbook to its end. Raises nothing for a play that fails: the caller knows what it means."""
        outcome = runner.run(play, self.run.path, self.interrupt, self.tick)
        known = any(not stage.ok for stage in self.tracker.stages)
        self.tracker.leave(ok=outcome.rc == 0 or known)
        self.tick()
        return outcome

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

    def about(self) -> dict[str, Any]:
        """Facts and stages so far, as run.json and the reports have them."""
        stages = [
            {"stage": stage.name, "label": stage.label, "seconds": stage.seconds, "ok": stage.ok}
            for stage in self.tracker.stages
        ]
        return {"stages": stages, **self.facts}

    def stop_if_interrupted(self) -> None:
        """Raise InterruptedRunError when a signal came while the driver itself was at work."""
        if self.interrupt.count:
            raise InterruptedRunError("interrupted", f"What happened so far is in {self.run.path}.")


@contextmanager
def session(verb: str, settings: Settings, totals: dict[str, int], as_json: bool) -> Iterator[Session]:
    """A run from run_start to run_end; run.json is written however it ends."""
    started, began = datetime.now(UTC), time.monotonic()
    run = rundir.create(settings.run_dir)
    with Interrupt() as interrupt:
        now = Session(verb, settings, run, progress.screen(as_json, settings.verbose), interrupt, Tally(totals))
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
            _sum_up(now, started, time.monotonic() - began, error)
            now.announce("run_end", run=run.id, exit_code=code, message=error.message if error else "")
            now.tick()
            now.screen.close()


def _sum_up(now: Session, started: datetime, duration: float, error: CisdriverError | None) -> None:
    """run.json: the run in short. Paths in it are relative to the run directory."""
    code = error.exit_code if error else 0
    given = now.settings.model_dump(mode="json", exclude_defaults=True, exclude={"run_dir", "verbose"})
    now.run.write(
        "run",
        {
            "version": VERSION,
            "id": now.run.id,
            "verb": now.verb,
            "cisdriver": collection.version(),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(duration, 1),
            "status": _STATUS.get(code, "failed"),
            "exit_code": code,
            "error": str(error) if error else None,
            "settings": given,
            "results": [
                {"node": document["node"]["name"], "benchmark": document["benchmark"], **document["summary"]}
                for document in now.run.documents()
            ],
            "verifications": [
                {"node": document["node"]["name"], **document["summary"]}
                for document in now.run.results("verify").values()
            ],
            **now.about(),
        },
    )
