"""Runs a playbook of the collection through ansible-runner, and ends it well when it is interrupted."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from cisdriver import collection, processes
from cisdriver.events import Event

#: How long Packer may take to terminate its instance and delete what it made.
TIDY_SECONDS = 300.0
_LOOK_SECONDS = 0.1
#: What ansible-runner sets for its own display: a play inside Packer would inherit it.
_RUNNERS_OWN = {"ANSIBLE_CALLBACK_PLUGINS", "AWX_ISOLATED_DATA_DIR", "ANSIBLE_HOST_KEY_CHECKING"} - set(os.environ)


@dataclass(frozen=True)
class Play:
    """One playbook run. ``playbook`` is an FQCN or an absolute path, ``inventory`` a path or a host list."""

    playbook: str
    ident: str
    extra_vars: Mapping[str, Any] = field(default_factory=dict)
    inventory: str = "localhost,"
    arguments: tuple[str, ...] = ()
    #: Added to our environment, and taken out of it.
    env: Mapping[str, str] = field(default_factory=dict)
    drop_env: frozenset[str] = frozenset()
    verbose: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a play ended. ``log`` is Ansible's own output, ``failures`` are the events of the tasks that failed."""

    rc: int
    interrupted: bool
    log: Path
    failures: tuple[Event, ...] = ()


class Interrupt:
    """SIGINT and SIGTERM, counted instead of obeyed, so that what runs can be ended in order."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Ctrl-C as Python has it, while somebody is asked."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def environment(events: Path, play: Play) -> dict[str, str]:
    """What Ansible needs around it: our collection, our callback, this installation's programs."""
    paths = [str(collection.COLLECTIONS), *os.environ.get("ANSIBLE_COLLECTIONS_PATH", "").split(":")]
    paths += ["~/.ansible/collections", "/usr/share/ansible/collections"]
    return {
        "ANSIBLE_COLLECTIONS_PATH": ":".join(dict.fromkeys(path for path in paths if path)),
        "ANSIBLE_CALLBACKS_ENABLED": f"{collection.NAME}.events",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_NOCOLOR": "1",
        "CISDRIVER_EVENTS": str(events),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        **play.env,
    }


def run(play: Play, run_dir: Path, interrupt: Interrupt, tick: Callable[[], None]) -> Outcome:
    """Run a play to its end. ``tick`` is called about ten times a second and must not raise.

    The first signal lets programs tidy up, the second cuts that short.
    """
    ours = _configured(play, run_dir)
    log = Path(ours.config.artifact_dir) / "stdout"
    others = {process.pid for process in processes.children(os.getpid())}
    thread = threading.Thread(target=ours.run, daemon=True)
    before = interrupt.count
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
        tick()
        if interrupt.count > before:
            _stop(interrupt, others, tick, run_dir / "events.jsonl")
            thread.join(10)
            break
    tick()
    interrupted = interrupt.count > before
    return Outcome(rc=130 if interrupted else int(ours.rc), interrupted=interrupted, log=log)


def _configured(play: Play, run_dir: Path) -> Any:
    """An ansible-runner Runner for one play; its files are below ``ansible/<ident>`` of the run directory, or below
    ``ansible/<ident>-2`` when the run is continued and plays it again."""
    from ansible_runner import Runner, RunnerConfig

    private = _fresh(run_dir / "ansible", play.ident)
    (private / "env").mkdir(parents=True)
    (private / "env" / "extravars").write_text(json.dumps(dict(play.extra_vars)), encoding="utf-8")
    config = RunnerConfig(
        private_data_dir=str(private),
        playbook=play.playbook,
        ident="run",
        inventory=play.inventory,
        cmdline=shlex.join(play.arguments) or None,
        quiet=True,
        verbosity=play.verbose or None,
        settings={"pexpect_timeout": 1},
    )
    config.prepare()
    # As `ansible-playbook` would: the user's directory with its ansible.cfg, and host keys checked.
    config.cwd = str(Path.cwd())
    config.env = {name: value for name, value in config.env.items() if name not in _RUNNERS_OWN | play.drop_env}
    config.env.update(environment(run_dir / "events.jsonl", play))
    return Runner(
        config,
        cancel_callback=lambda: False,
        status_handler=_forget_environment,
        event_handler=lambda _event: False,  # no file per event: ours are in events.jsonl
    )


def _fresh(directory: Path, name: str) -> Path:
    numbered = (f"{name}-{number}" if number > 1 else name for number in itertools.count(1))
    return next(path for one in numbered if not (path := directory / one).exists())


def _forget_environment(status: dict[str, Any], runner_config: Any) -> None:
    """ansible-runner writes the environment, credentials and all, to a file that nobody needs."""
    if status["status"] != "starting":
        (Path(runner_config.artifact_dir) / "command").unlink(missing_ok=True)


def outliving(*events: Path) -> list[processes.Process]:
    """Processes of the plays of runs, which ``events`` name, that are no children of ours (any more): Ansible's
    asynchronous tasks leave their parent, and all of them outlive a driver that is killed."""
    ours = {process.pid for process in processes.descendants(os.getpid())} | {os.getpid()}
    return [one for one in processes.with_variable("CISDRIVER_EVENTS", *map(str, events)) if one.pid not in ours]


def _stop(interrupt: Interrupt, others: set[int], tick: Callable[[], None], events: Path) -> None:
    """End what this play started and nothing else: the sandbox's AWS is a child of ours too."""
    asked = interrupt.count

    def wait(seconds: float) -> None:
        time.sleep(seconds)
        tick()

    roots = [process for process in processes.children(os.getpid()) if process.pid not in others]
    processes.stop(roots, TIDY_SECONDS, lambda: interrupt.count > asked, wait)
    # Last, since what leaves its parent meanwhile is among them only then.
    processes.stop(outliving(events), TIDY_SECONDS, lambda: interrupt.count > asked, wait)
