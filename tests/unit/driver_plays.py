"""Plays that are faked: a session's play writes what the playbook would, and ends as it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cisdriver import events, runner
from cisdriver.settings import Settings
from driver_support import verification

REGION = "eu-central-1"
IMAGE = {"id": "ami-0123456789abcdef0", "name": "mine"}
CLUSTER = {"name": "cisdriver", "arn": "arn", "version": "1.33", "endpoint": "https://k", "existing": False}
COST = {
    "currency": "USD",
    "per_hour": 0.3,
    "lines": [{"what": "m6i.large", "count": 2, "per_hour": 0.2}],
    "note": "on demand",
}


def bake_json(status: str = "done", **more: Any) -> dict[str, Any]:
    return {"stage": "bake", "status": status, "reason": "", "region": REGION, "image": IMAGE, "left": {}, **more}


def deploy_json(status: str = "done", **more: Any) -> dict[str, Any]:
    stacks = [{"name": f"cisdriver-{name}", "status": "CREATE_COMPLETE", "changed": True} for name in ("network", "x")]
    group = {"name": "al2023-level-1", "image": IMAGE, "baseline": False, "desired": 2}
    about = {"cluster": CLUSTER, "stacks": stacks, "node_groups": [group], "changes": [], "cost": COST}
    return {"stage": "deploy", "status": status, "reason": "", "region": REGION, **about, **more}


def destroy_json(status: str, **more: Any) -> dict[str, Any]:
    about = {"stacks": [{"name": "cisdriver-network", "status": "CREATE_COMPLETE"}], "images": [], "others": []}
    return {
        "stage": "destroy",
        "status": status,
        "reason": "",
        "region": REGION,
        "cluster": "cisdriver",
        **about,
        **more,
    }


def workloads_json(*checks: Mapping[str, Any], group: str = "al2023-level-1", status: str = "") -> dict[str, Any]:
    """What the role writes, by file."""
    found = verification(*checks)
    said = status or ("findings" if found["summary"]["unaccepted"] else "done")
    return {
        "workloads-result": {"stage": "workloads", "status": said, "reason": "", "cluster": "cisdriver"},
        f"workloads/{group}": found,
    }


class Plays:
    """Every play that was asked for. ``answers`` maps an ident to what the play does: writes files, and says how it
    ends (rc, or an exception to raise, as a kill would end the driver)."""

    def __init__(self) -> None:
        self.asked: list[runner.Play] = []
        self.answers: dict[str, Callable[[Path, Mapping[str, Any]], int]] = {}

    def idents(self) -> list[str]:
        return [play.ident for play in self.asked]

    def asked_for(self, ident: str) -> Mapping[str, Any]:
        return next(play.extra_vars for play in reversed(self.asked) if play.ident == ident)

    def writes(self, ident: str, documents: Mapping[str, Any], rc: int = 0) -> None:
        """``documents`` by their name in the run directory, without suffix."""

        def answer(run_dir: Path, _variables: Mapping[str, Any]) -> int:
            for name, document in documents.items():
                path = run_dir / f"{name}.json"
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps(document))
            return rc

        self.answers[ident] = answer

    def fails(self, ident: str, message: str) -> None:
        def answer(run_dir: Path, _variables: Mapping[str, Any]) -> int:
            about = {"pid": 1, "host": "localhost", "task": "Look", "msg": message, "unreachable": False}
            events.append(run_dir / "events.jsonl", "task_failed", **about)
            return 2

        self.answers[ident] = answer

    def is_killed(self, ident: str) -> None:
        def answer(_run_dir: Path, _variables: Mapping[str, Any]) -> int:
            raise Killed

        self.answers[ident] = answer

    def run(self, play: runner.Play, run_dir: Path, interrupt: runner.Interrupt, tick: Callable[[], None]) -> Any:
        self.asked.append(play)
        log = run_dir / "ansible" / play.ident / "stdout"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("PLAY\n[ERROR]: the role is gone\n")
        before = interrupt.count
        rc = self.answers.get(play.ident, lambda *_: 0)(run_dir, play.extra_vars)
        tick()
        stopped = interrupt.count > before
        return runner.Outcome(130 if stopped else rc, stopped, log)


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is written but what the kernel does; see ``forget_the_end``."""


def forget_the_end(run_dir: Path) -> None:
    """Make run.json what it was while the run lasted: a driver that is killed writes no end."""
    path = run_dir / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "running", "exit_code": None, "error": None}))


LAST_WORDS = '{"v": 1, "event": "task_failed", "pid": 1, "host": "a", "task": "x", "msg": "", "unreachable": false}'
#: What outlives its driver, and says something as it ends; by itself within a minute.
_DYING = f"""
import os, pathlib, signal, sys, time
def end(*_):
    with open(os.environ["CISDRIVER_EVENTS"], "a") as file:
        print({LAST_WORDS!r}, file=file)
    sys.exit()
signal.signal(signal.SIGINT, end)
pathlib.Path(os.environ["READY"]).touch()
time.sleep(60)
"""


def orphan(directory: Path, run_dir: Path) -> int:
    """The pid of a process of a run's play whose parent is gone, as is that of all that a killed driver has started."""
    ready = directory / f"ready-{run_dir.name}"
    env = {**os.environ, "CISDRIVER_EVENTS": str(run_dir / "events.jsonl"), "READY": str(ready)}
    start = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {_DYING!r}], stdout=2).pid)"
    started = subprocess.run([sys.executable, "-c", start], env=env, stdout=subprocess.PIPE, text=True, check=True)
    end = time.monotonic() + 30
    while not ready.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    return int(started.stdout)


def settings(tmp_path: Path, **given: Any) -> Settings:
    return Settings(run_dir=tmp_path / ".cisdriver", **given)


def latest(tmp_path: Path) -> Path:
    return (tmp_path / ".cisdriver" / "latest").resolve()


def sandbox(url: str) -> Any:
    """As much of the class Sandbox as tells whether one is kept."""
    found = SimpleNamespace(url=url) if url else None
    return SimpleNamespace(kept=lambda _path: found, end=lambda _path: True)
