"""Hardening interrupted at forty points: the node comes back each time, no file is torn, and the next run settles it.

A chain is one node on which runs are stopped at ascending points; its last run goes to the end. All is drawn from a
seed: ``pytest -k chain3`` repeats a chain, CISDRIVER_SEED tries other points, CISDRIVER_CHAINS more of them.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.rules import conftest as rules

from . import interrupt

pytestmark = pytest.mark.vm

SEED = int(os.environ.get("CISDRIVER_SEED", "4"))
CHAINS = int(os.environ.get("CISDRIVER_CHAINS", "4"))
EACH = 10
#: Of these chains' nodes everything is deselected in the end: what stood there before must not be lost.
GIVEN_BACK = (0, 1)
SECTIONS = ", ".join(f"section{number}" for number in range(1, 7))
NOTHING = ("-e", f"{{cis_skip: [{SECTIONS}]}}")

#: What answers for the node once a run has come to its end, beside interrupt.SOUND.
SETTLED = {
    "authselect check": "the PAM stacks are those of the profile",
    "gzip -t /var/lib/aide/aide.db.gz": "AIDE's database is whole",
    "! augenrules --check | grep 'should be updated'": "the audit rules are merged",
    "[ $(systemctl show -P NeedDaemonReload '*' | grep -c yes) = 0 ]": "the service manager has read its files",
    '[ -z "$(ls -A /run/cisdriver)" ]': "every daemon has read its files",
    "rpm -qa": "the database of packages can be read",
}


class StandIn:
    """A container as a machine whose power can be cut: all its processes are killed at once."""

    def __init__(self, node: Any) -> None:
        self.node = node

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)

    def power_cut(self) -> None:
        from cisdriver.sandbox.standin import podman

        podman("kill", "-s", "KILL", self.node.name)
        podman("wait", self.node.name)


@dataclass
class Outcome:
    """What became of a node: in the end, and after everything was given back."""

    stock: interrupt.Manifest
    hardened: interrupt.Manifest
    audit: dict[str, str]
    back: interrupt.Manifest | None = None
    problems: list[str] = field(default_factory=list)


def audit(machine: Any) -> dict[str, str]:
    """Status per rule."""
    machine.exec("mkdir -p /run/rules")
    rules.put_audit(machine)
    return {slug: finding["status"] for slug, finding in rules.audited(machine, rules.SELECTION).items()}


def finish(machine: Any, run: interrupt.Run, stock: interrupt.Manifest, give_back: bool) -> Outcome:
    """The node is hardened; it boots once more, is looked at, and gives back what it has been given."""
    problems = interrupt.unsound(machine, SETTLED)  # now: a boot would settle some of it
    machine.reboot()
    machine.wait_running()
    outcome = Outcome(stock, interrupt.manifest(machine), audit(machine), problems=problems)
    outcome.problems += interrupt.unsound(machine, interrupt.SOUND)
    outcome.problems += [f"left behind: {path}" for path in interrupt.leftovers(outcome.hardened)]
    if give_back:
        interrupt.arm(machine)
        run.to_the_end(*NOTHING)
        outcome.back = interrupt.manifest(machine)
    return outcome


Start = Callable[[], StandIn]


@pytest.fixture(scope="module")
def start(node_run_id: str) -> Iterator[Start]:
    from tests import conftest

    started = []

    def one() -> StandIn:
        started.append(conftest._start(node_run_id))
        return StandIn(started[-1])

    yield one
    for node in started:
        node.remove()


@dataclass
class Undisturbed:
    outcome: Outcome
    events: list[interrupt.Event]
    states: interrupt.States


@pytest.fixture(scope="module")
def undisturbed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    machine = start()
    run = interrupt.Run(machine, tmp_path_factory.mktemp("undisturbed"))
    stock = interrupt.manifest(machine)
    interrupt.arm(machine, watch=True)
    run.to_the_end()
    events, states = interrupt.trace(machine), interrupt.States(machine)
    outcome = finish(machine, run, stock, give_back=True)
    machine.remove()
    assert outcome.problems == []
    return Undisturbed(outcome, events, states)


def follow(start: Start, chain: list[interrupt.Point], normal: Undisturbed, directory: Path, back: bool) -> Outcome:
    """Interrupt runs on a fresh node at each point of a chain, look at it each time, and let a last run settle it."""
    machine = start()
    try:
        run = interrupt.Run(machine, directory)
        stock = interrupt.manifest(machine)
        problems = []
        for point in chain:
            try:
                run.up_to(point)
                found = interrupt.unsound(machine, interrupt.SOUND)
                found += normal.states.torn(stock, interrupt.manifest(machine))
            except Exception as error:  # whatever it is, it belongs to this point, and the chain is over
                raise AssertionError(f"seed {SEED}, {point}: {error}") from error
            problems += [f"seed {SEED}, {point}: {problem}" for problem in found]
        interrupt.arm(machine)
        run.to_the_end()
        outcome = finish(machine, run, stock, back)
        outcome.problems = problems + outcome.problems
        return outcome
    finally:
        machine.remove()


@pytest.fixture(scope="module")
def chains(
    request: pytest.FixtureRequest, start: Start, undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[list[list[interrupt.Point]], dict[int, concurrent.futures.Future[Outcome]]]]:
    """The chains that were asked for, two at a time: a controller and its node keep a core busy."""
    drawn = interrupt.points(SEED, undisturbed.events, CHAINS, EACH)
    asked = {
        item.callspec.params["chain"] for item in request.session.items if "chains" in getattr(item, "fixturenames", ())
    }
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = {
            index: pool.submit(
                follow, start, drawn[index], undisturbed, tmp_path_factory.mktemp("chain"), index in GIVEN_BACK
            )
            for index in sorted(asked)
        }
        yield drawn, futures
        for future in futures.values():
            future.cancel()


@pytest.mark.parametrize("chain", range(CHAINS), ids="chain{}".format)
def test_an_interrupted_node_settles(chain: int, chains: Any, undisturbed: Undisturbed) -> None:
    drawn, futures = chains
    print(*drawn[chain], sep="\n")  # shown where the test fails
    outcome, normal = futures[chain].result(), undisturbed.outcome
    assert outcome.problems == []
    assert interrupt.differences((outcome.stock, outcome.hardened), (normal.stock, normal.hardened)) == []
    assert outcome.audit == normal.audit
    if outcome.back is not None and normal.back is not None:
        assert interrupt.differences((outcome.stock, outcome.back), (normal.stock, normal.back)) == []


def test_every_file_is_on_disk_before_it_takes_its_place(undisturbed: Undisturbed) -> None:
    """Without that a power cut leaves an empty file on a file system that writes names before texts."""
    synced: set[str] = set()
    bare = []
    for event in undisturbed.events:
        if event.who != "module":
            continue
        if event.operation == "after open":
            synced.discard(event.subject)
        elif event.operation == "after fsync":
            synced.add(event.subject)
        elif event.operation in ("before rename", "before replace"):
            source, _, target = event.subject.partition(" -> ")
            if source not in synced and not target.startswith("/run/"):
                bare.append(event.subject)
    assert bare == []


def test_what_stood_there_is_on_disk_before_it_is_changed(undisturbed: Undisturbed) -> None:
    """The directory of the memory is synced after each new text of it: /var may be another volume than /etc."""
    events = [event for event in undisturbed.events if event.who == "module"]
    names = [event.operation + " " + event.subject for event in events]
    for at, event in enumerate(events):
        if event.operation == "after rename" and event.subject.endswith(".json"):
            directory = event.subject.rpartition(" -> ")[2].rpartition("/")[0]
            following = next((name for name in names[at + 1 :] if not re.match(r"after|\S+ f?ch", name)), "")
            assert following in (f"before fsync {directory}",), (event, following)
