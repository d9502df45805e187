"""Hardening stopped at chosen events: where to stop, how, and what of a node has to hold afterwards.

A machine is anything with the methods of ``Machine``: a stand-in, or a virtual machine whose power can be cut.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PLACE = "/run/interruption"
#: Where hardening writes, and no program writes in passing.
WATCHED = "/etc /boot /usr/lib/systemd /usr/local /var/lib/cisdriver /var/spool /root /home"
MODES = ("process", "connection", "power", "controller")
#: Programs that change nothing, or nothing that is kept.
ASKS = re.compile(
    r"^(uname|lsb_release|rpm|rpmkeys|visudo|su|setsid|ausyscall|nice .* find|bash -n|chronyd -p|/\S+/containerd) "
    r"|^(authselect (check|version)|auditctl -[ls]|grubby --info|systemctl (is-|show)|augenrules --check)"
    r"|sshd -[tT]|--config-check"
)
SECONDS = 300  # a run takes 20 on a quiet machine; it is a bound, nothing depends on it


class Machine(Protocol):
    """What cisdriver.sandbox.vm.Machine offers; a stand-in lacks the cut of the power."""

    def exec(self, command: str) -> subprocess.CompletedProcess[str]: ...
    def put(self, path: str, text: str, mode: int = 0o644) -> None: ...
    def inventory(self) -> str: ...
    def reboot(self) -> None: ...
    def wait_ssh(self) -> None: ...
    def wait_running(self) -> str: ...
    def power_cut(self) -> None:
        """Nothing on the machine gets to do anything any more."""
        ...

    def start_again(self) -> None: ...


class Event(NamedTuple):
    """One side of one step of a run, as hook.py numbers them."""

    task: int
    number: int
    who: str
    operation: str
    subject: str

    def __str__(self) -> str:
        return f"task {self.task}, event {self.number}: {self.operation} {self.subject} (by the {self.who})"

    @property
    def stop(self) -> str:
        """How hook.py is told to stop here."""
        return f"{self.task} {self.number}\n"


class Step(NamedTuple):
    """The first event of an operation on what an expression matches, where nobody counted the events."""

    operation: str
    subject: str

    @property
    def stop(self) -> str:
        return f"{self.operation}\t{self.subject}\n"


class Point(NamedTuple):
    """An event at which a run is stopped, and how. ``reboot``: before anybody looks; no power cut needs it."""

    event: Event | Step
    mode: str
    reboot: bool = False

    def __str__(self) -> str:
        return f"{self.event}; {self.mode}{', reboot' if self.reboot else ''}"


#: What an event is about, as far as an interruption is concerned. Each gets the same share of the points.
KINDS = {
    "inside a program": r".*",  # of which each step counts
    "new file, empty": r"after open",
    "new file, not yet on disk": r"before fsync",
    "new file, complete": r"(after fsync|before rename|before replace)",
    "in its place": r"after (rename|replace)",
    "mode or owner": r"(before|after) f?ch(mod|own)",
    "program about to run": r"before run",
    "program runs": r"during run",
    "program has run": r"after run",
    "directory, link, removal": r"(before|after) (symlink|mkdir|rmdir|unlink|remove)",
    "answer not given": r"after task",
}


def _is_left_out(event: Event) -> bool:
    if event.operation.endswith("run"):
        return bool(ASKS.search(event.subject))
    # authselect takes a stack away before it makes its link (authselect_symlinks_write): for these microseconds nobody
    # gets in, whoever selects a profile
    return event.who == "program" and "/etc/pam.d/" in event.subject


def points(seed: int, events: Iterable[Event], chains: int, each: int) -> list[list[Point]]:
    """``chains`` chains of ``each`` points, tasks ascending within a chain; the same for the same seed and events."""
    chance = random.Random(seed)
    by_kind: dict[str, dict[int, list[Event]]] = {kind: defaultdict(list) for kind in KINDS}
    for event in events:
        for kind, pattern in KINDS.items():
            inside = kind == "inside a program" and event.who == "module"
            if re.fullmatch(pattern, event.operation) and not inside and not _is_left_out(event):
                by_kind[kind][event.task].append(event)
    chosen: dict[Event, Point] = {}
    kinds = list(KINDS)
    while len(chosen) < chains * each:
        of_task = by_kind[kinds[len(chosen) % len(kinds)]]
        tasks = [task for task in sorted(of_task) if sum(event.task == task for event in chosen) < chains]
        event = chance.choice(of_task[chance.choice(tasks)])
        mode = MODES[(len(chosen) // len(kinds) + len(chosen)) % len(MODES)]
        chosen.setdefault(event, Point(event, mode, mode != "power" and chance.random() < 0.4))
    drawn = [chosen[event] for event in sorted(chosen)]
    return [drawn[first::chains] for first in range(chains)]


def arm(machine: Machine, point: Point | None = None, watch: bool = False) -> None:
    """Put the hook on the machine, set to stop at a point; with ``watch`` it notes what the files hold meanwhile."""
    machine.exec(f"rm -rf {PLACE}; mkdir -p {PLACE}; mkfifo {PLACE}/reached {PLACE}/go; touch {PLACE}/armed")
    machine.put(f"{PLACE}/sitecustomize.py", (HERE / "hook.py").read_text())
    machine.put(f"{PLACE}/manifest.py", (HERE / "manifest.py").read_text())
    machine.put(f"{PLACE}/python", (HERE / "python.sh").read_text(), 0o755)
    if point:
        machine.put(f"{PLACE}/stop", point.event.stop)
    if watch:
        machine.put(f"{PLACE}/watch", WATCHED.replace(" ", "\n") + "\n")


class Run:
    """Hardening of one machine, by the playbook of the collection."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self.inventory = directory / "inventory.yml"
        self.inventory.write_text(machine.inventory().replace('"/usr/bin/python3"', f'"{PLACE}/python"'))
        self.log = directory / "run.log"

    def _start(self, *extra: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        program = str(Path(sys.executable).parent / "ansible-playbook")
        argv = [program, "-i", str(self.inventory), "cisdriver.amazon_linux.harden"]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [*argv, "-e", "cis_level=2", *extra],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def to_the_end(self, *extra: str) -> None:
        """Undisturbed. Raises AssertionError where it fails."""
        play = self._start(*extra)
        try:
            code = play.wait(SECONDS)
        finally:
            _kill(play)
        assert code == 0, self.log.read_text()[-4000:]

    def up_to(self, point: Point, *extra: str) -> None:
        """Stop it at a point, and bring the machine back to where somebody can log in.

        Raises AssertionError where the point is not reached, or the machine does not come back.
        """
        machine = self.machine
        arm(machine, point)
        play = self._start(*extra)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            reached = pool.submit(machine.exec, f"timeout {SECONDS} cat {PLACE}/reached")
            try:
                while not reached.done() and play.poll() is None:
                    time.sleep(0.05)
                if not reached.done():
                    machine.exec(f"echo > {PLACE}/reached")
                module = reached.result().stdout.strip()
                assert module, f"this event did not come; the run said: {self.log.read_text()[-3000:]}"
                self._strike(point.mode, play, module)
            finally:
                _kill(play)
        if point.mode != "power":
            if point.reboot:
                machine.reboot()
            machine.wait_ssh()
        assert machine.wait_running() == "running", machine.exec("systemctl --failed").stdout

    def _strike(self, mode: str, play: subprocess.Popen[bytes], module: str) -> None:
        """``module`` is the id of its process."""
        machine = self.machine
        if mode == "power":
            machine.power_cut()
            machine.start_again()
            return
        if mode == "controller":
            _kill(play)
        elif mode == "connection":
            machine.exec("pkill -9 -f '^sshd(-session)?: ec2-user'")
            play.wait(SECONDS)
        else:
            machine.exec(
                f"kill -9 {module} $(grep -lsz '^INTERRUPTION_MODULE={module}$' /proc/[0-9]*/environ | cut -d/ -f3)"
            )
            play.wait(SECONDS)
            return
        # what nobody listens to any more goes on to its end all the same
        machine.exec(f"echo > {PLACE}/go; while kill -0 {module}; do sleep 0.1; done")


def _kill(play: subprocess.Popen[bytes]) -> None:
    """The controller's processes, at once; its connection, which has a session of its own, is left open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(play.pid, signal.SIGKILL)
    play.wait()


def trace(machine: Machine) -> list[Event]:
    """Events of the runs since arm()."""
    lines = machine.exec(f"cat {PLACE}/trace").stdout.splitlines()
    rows = [line.split("\t", 4) for line in lines]
    return [Event(int(row[0]), int(row[1]), *row[2:]) for row in rows]


#: What answers for the whole node, whatever else is written: each must succeed at any time.
SOUND = {
    "sshd -t": "sshd accepts its configuration",
    "visudo -cq": "so does sudo",
    "su -s /bin/sh -c 'sudo -n true' ec2-user": "the login user becomes root",
    "findmnt --verify 2>&1 | grep -wE '0 parse errors|no errors'": "fstab can be read",  # a container lacks its devices
    "systemd-analyze verify --man=no default.target": "units can be loaded",
    "for f in /var/lib/cisdriver/*.json; do [ ! -e $f ] || python3 -m json.tool $f; done": "the memory can be read",
}


def unsound(machine: Machine, commands: Mapping[str, str]) -> list[str]:
    """What does not hold, with what the command said."""
    lines = [
        f"said=$({{ {command}; }} 2>&1) || echo {shlex.quote(f'not so: {meaning}')}: $(echo $said | tail -c 400)"
        for command, meaning in commands.items()
    ]
    return list(machine.exec("\n".join(lines)).stdout.splitlines())


Manifest = Mapping[str, list[str]]


def manifest(machine: Machine) -> Manifest:
    """Path to ``[mode, owner, what it holds]`` of all objects but kernel's and scratch file systems'."""
    if machine.exec(f"test -e {PLACE}/manifest.py").returncode:
        arm(machine)
    found: Manifest = json.loads(machine.exec(f"python3 -I {PLACE}/manifest.py").stdout)
    return found


class States:
    """What each watched file ever held in an undisturbed run: digests as hook.py writes them."""

    def __init__(self, machine: Machine) -> None:
        self.of: dict[str, set[str]] = defaultdict(set)
        for line in machine.exec(f"cat {PLACE}/states").stdout.splitlines():
            path, _tab, digest = line.rpartition("\t")
            self.of[path].add(digest)

    def torn(self, stock: Manifest, now: Manifest) -> list[str]:
        """Watched files that hold what they never held in the undisturbed run nor, on this machine, before."""
        found = []
        tops = tuple(top + "/" for top in WATCHED.split())
        for path in sorted(set(stock) | set(now)):
            if not path.startswith(tops) or re.match("|".join(HOLDS), path):
                continue
            held = now[path][2] if path in now else "-"
            if not held:  # a directory
                continue
            was = stock[path][2] if path in stock else "-"
            if held not in (was, *self.of.get(path, ())) and not LEFTOVER.search(path):
                found.append(f"{path}: {held}")
        return found


LEFTOVER = re.compile(r"cisdriver-(new$|[a-z0-9_]{8}(/|$))|/\.ansible_tmp")


def leftovers(now: Manifest) -> list[str]:
    """What only a run that is under way may have lying about."""
    return [path for path in now if LEFTOVER.search(path)]


#: What may hold something else on two machines that were hardened alike, and why. Mode and owner may not.
HOLDS = {
    r"/var/log/": "what happened, and when",
    r"/(var/)?tmp/": "scratch",
    r"/var/lib/(rpm|dnf)/": "dates of installation",
    r"/var/lib/aide/": "the time of every file",
    r"/var/lib/cisdriver/aide_database.json": "the time of that database",
    r"/var/lib/(systemd|chrony|private|cloud|dbus|logrotate)\b": "times, seeds and clocks of services",
}
#: What need not be on both.
COMES_AND_GOES = r"/(var/)?tmp/|/var/log/journal/|/var/lib/systemd/"


def differences(own: tuple[Manifest, Manifest], other: tuple[Manifest, Manifest]) -> list[str]:
    """Objects that differ between two machines, each given as ``(stock, now)``.

    What is as it was on both, such as a host key, may differ: it is the machine's own.
    """
    found = []
    for path in sorted(set(own[1]) | set(other[1])):
        states = own[1].get(path), other[1].get(path)
        kept = states == (own[0].get(path), other[0].get(path))
        if states[0] == states[1] or kept:
            continue
        if re.match(COMES_AND_GOES, path) and None in states:
            continue
        if re.match("|".join(HOLDS), path) and states[0] and states[1] and states[0][:2] == states[1][:2]:
            continue
        found.append(f"{path}: {states[0]}, undisturbed {states[1]}")
    return found
