"""Screens: a live line on a terminal, a line per step elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Protocol

from cisdriver.events import Event
from cisdriver.stages import Stage, Tally

#: Seconds after which a step that is still going says so, where nothing moves on the screen.
_REMINDER_SECONDS = 60


class Screen(Protocol):
    """What shows a run. ``tick`` is called about ten times a second."""

    def event(self, event: Event, tally: Tally) -> None: ...

    def tick(self, stage: Stage | None, tally: Tally) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class _Still:
    """A screen on which nothing moves, so that a question may stand anywhere."""

    def tick(self, stage: Stage | None, tally: Tally) -> None:
        pass

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def close(self) -> None:
        pass


class JsonScreen(_Still):
    """Every event as one line on stdout, and nothing else."""

    def event(self, event: Event, tally: Tally) -> None:  # noqa: ARG002 - the tally is for the other screens
        print(json.dumps(event), flush=True)


class LineScreen(_Still):
    """One line per step, for logs and CI."""

    def __init__(self, verbose: int = 0) -> None:
        self._verbose = verbose
        self._said = time.monotonic()

    def write(self, text: str) -> None:
        print(text, flush=True)
        self._said = time.monotonic()

    def event(self, event: Event, tally: Tally) -> None:
        text = describe(event, tally, self._verbose)
        if text:
            self.write(text)

    def tick(self, stage: Stage | None, tally: Tally) -> None:
        if stage and time.monotonic() - self._said >= _REMINDER_SECONDS:
            self.write(f"… {going(stage, tally)}")


class LiveScreen(LineScreen):
    """Finished steps stand; the current one moves below them."""

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = Console(highlight=False)
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=self._console, refresh_per_second=10, transient=True)
        self._live.start()

    def write(self, text: str) -> None:
        from rich.text import Text

        styles = {"✓": "green", "✗": "red"}
        line = Text(text)
        if text[:1] in styles:
            line.stylize(styles[text[0]], 0, 1)
        self._console.print(line)

    def tick(self, stage: Stage | None, tally: Tally) -> None:
        if stage is None:
            self._live.update("")
            return
        from rich.text import Text

        self._spinner.update(text=Text(going(stage, tally)))
        self._live.update(self._spinner)

    def pause(self) -> None:
        self._live.stop()

    def resume(self) -> None:
        self._live.start()

    def close(self) -> None:
        self._live.stop()


def screen(as_json: bool, verbose: int) -> Screen:
    """The screen that fits where output goes."""
    if as_json:
        return JsonScreen()
    return LiveScreen(verbose) if sys.stdout.isatty() else LineScreen(verbose)


def going(stage: Stage, tally: Tally) -> str:
    """``Harden  57/92 rules, 31 changed  12 s``."""
    return f"{stage.label:<40}{_count(stage.name, tally):<28}{seconds(time.monotonic() - stage.started)}".rstrip()


def _count(stage: str, tally: Tally) -> str:
    done, total = tally.progress(stage)
    if not total or (stage != "harden" and not done):
        return ""
    changed = f", {tally.changed()} changed" if stage == "harden" else ""
    return f"{done}/{total} {_counted(stage)}{changed}"


def _counted(stage: str) -> str:
    return "checks" if stage == "verify" else "rules"


def describe(event: Event, tally: Tally, verbose: int) -> str:
    """A line for an event; empty for the many that need none."""
    kind = event["event"]
    if kind == "stage_end":
        mark = "✓" if event["ok"] else "✗"
        count = _done(event["stage"], tally)
        return f"{mark} {event['label']:<40}{count:<28}{seconds(event['seconds'])}".rstrip()
    if kind in ("diff", "note"):
        return str(event["text"]).rstrip()
    if kind == "task_start" and verbose:
        return f"    {event['task']}"
    if kind == "rule" and verbose and event["status"] != "ok":
        return f"    {event['id'] or '':<10} {event['rule']}: {event['status']} on {event['host']}"
    return ""


def _done(stage: str, tally: Tally) -> str:
    done, _total = tally.progress(stage)
    if not done:
        return ""
    more = {"harden": f", {tally.changed()} changed", "verify": f", {tally.broken()} failed" if tally.broken() else ""}
    return f"{done} {_counted(stage)}{more.get(stage, '')}"


def seconds(value: Any) -> str:
    """``4.2 s``, ``31 s``, ``2 min 05 s``."""
    number = float(value)
    if number < 10:
        return f"{number:.1f} s"
    if number < 60:
        return f"{number:.0f} s"
    whole = round(number)
    return f"{whole // 60} min {whole % 60:02d} s"
