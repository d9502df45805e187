"""Runs: events, stages, the run directory, the runner, and how an interrupted one ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cisdriver import collection, events, hosts, nodes, processes, progress, rundir, runner, screens, stages
from cisdriver.errors import UsageError
from driver_support import accepted, check, document, environment, fail, verification

PLAY = """
- name: Tiny
  hosts: all
  gather_facts: false
  tasks:
    - name: Rules
      cisdriver.amazon_linux.sysctl:
        path: "{{ directory }}/drop-in.conf"
        rules: [{rule: one, id: 3.2.2, want: {net.ipv4.conf.all.send_redirects: 0}}]
      check_mode: true
    - name: Program
      ansible.builtin.command: "{{ program }}"
"""
#: As Packer does: takes its time to clean up, and writes to a pipe meanwhile.
PACKER = f"""#!{sys.executable}
import signal, sys, time
from pathlib import Path
Path("/proc/self/comm").write_text("packer")
here = Path(__file__).parent
def tidy(*_):
    for _ in range(10):
        print("terminating", flush=True)
        time.sleep(0.1)
    (here / "tidied").touch()
    sys.exit(1)
signal.signal(signal.SIGINT, tidy)
(here / "started").touch()
time.sleep(600)
"""


def play(tmp_path: Path, program: str) -> runner.Play:
    (tmp_path / "play.yml").write_text(PLAY)
    variables = {"program": program, "directory": str(tmp_path), "ansible_connection": "local"}
    variables["ansible_python_interpreter"] = sys.executable
    return runner.Play(str(tmp_path / "play.yml"), "tiny", variables)


def test_a_play_is_run_and_told_rule_by_rule(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    run = rundir.create(tmp_path / "runs")
    with runner.Interrupt() as interrupt:
        outcome = runner.run(play(tmp_path, "true"), run.path, interrupt, lambda: None)
    assert (outcome.rc, outcome.interrupted) == (0, False)
    assert "PLAY RECAP" in outcome.log.read_text()
    found = events.read(run.events)
    for event in found:
        jsonschema.validate(event, collection.schema("event"))
    kinds = [event["event"] for event in found]
    assert kinds == ["play_start", "task_start", "rule", "task_start", "stats"]
    assert (found[2]["rule"], found[2]["id"]) == ("one", "3.2.2")
    assert not list(run.path.rglob("command"))


def test_a_task_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    run = rundir.create(tmp_path / "runs")
    with runner.Interrupt() as interrupt:
        outcome = runner.run(play(tmp_path, "ls /nonesuch"), run.path, interrupt, lambda: None)
    assert outcome.rc == 2
    failed = [event for event in events.read(run.events) if event["event"] == "task_failed"]
    assert failed[0]["task"] == "Program"
    assert "No such file or directory" in failed[0]["msg"]


def test_when_interrupted_packer_may_tidy_up_before_ansible_goes(tmp_path: Path) -> None:
    packer = tmp_path / "packer"
    packer.write_text(PACKER)
    packer.chmod(0o755)
    run = rundir.create(tmp_path / "runs")

    def interrupt_when_started() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    bystander = subprocess.Popen(["sleep", "60"])
    try:
        with runner.Interrupt() as interrupt:
            threading.Thread(target=interrupt_when_started, daemon=True).start()
            outcome = runner.run(play(tmp_path, str(packer)), run.path, interrupt, lambda: None)
        assert (outcome.rc, outcome.interrupted) == (130, True)
        assert (tmp_path / "tidied").exists()
        assert bystander.poll() is None  # such as the sandbox's AWS
    finally:
        bystander.kill()
        bystander.wait()


def test_what_has_left_its_parent_is_stopped_with_the_play(tmp_path: Path) -> None:
    """As Ansible's asynchronous tasks do."""
    program, started = tmp_path / "program", tmp_path / "started"
    program.write_text(f"#!/bin/sh\n(setsid sleep 60 >/dev/null 2>&1 & echo $! > {started})\nexec sleep 60\n")
    program.chmod(0o755)
    run = rundir.create(tmp_path / "runs")

    def interrupt_when_started() -> None:
        while not started.exists() or not started.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    with runner.Interrupt() as interrupt:
        threading.Thread(target=interrupt_when_started, daemon=True).start()
        outcome = runner.run(play(tmp_path, str(program)), run.path, interrupt, lambda: None)
    assert outcome.interrupted
    assert int(started.read_text()) not in processes.running()


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    stubborn = tmp_path / "packer"
    stubborn.write_text(PACKER.replace("signal.signal(signal.SIGINT, tidy)", "signal.signal(signal.SIGINT, print)"))
    stubborn.chmod(0o755)
    run = rundir.create(tmp_path / "runs")

    def twice() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)

    with runner.Interrupt(), runner.Interrupt() as interrupt:
        thread = threading.Thread(target=twice, daemon=True)
        thread.start()
        began = time.monotonic()
        outcome = runner.run(play(tmp_path, str(stubborn)), run.path, interrupt, lambda: None)
        thread.join()
    assert outcome.interrupted
    assert time.monotonic() - began < 30
    assert not [process for process in processes.running().values() if process.name == "packer" and _ours(process)]


def _ours(process: processes.Process) -> bool:
    try:
        return "test_a_second_signal" in Path(f"/proc/{process.pid}/cmdline").read_text()
    except OSError:
        return False


def test_an_interrupted_command_exits_130_and_says_so(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    # An address that is for documentation: nobody answers, so the play hangs in connecting.
    inventory.write_text("all: {hosts: {far: {ansible_host: 192.0.2.1, ansible_ssh_timeout: 60}}}\n")
    slow = tmp_path / "ssh"
    slow.write_text("#!/bin/sh\ntouch started\nexec sleep 60\n")
    slow.chmod(0o755)
    env = environment(tmp_path, ANSIBLE_SSH_EXECUTABLE=str(slow))
    command = [sys.executable, "-m", "cisdriver", "audit", "-i", str(inventory), "--json"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(200):
        if (tmp_path / "started").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 130


def test_a_line_still_being_written_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = events.Tail(path)
    assert tail.read() == []
    events.append(path, "play_start", play="a")
    with path.open("a") as file:
        file.write('not json\n{"v": 1, "event": "stats"')
    assert [event["event"] for event in tail.read()] == ["play_start"]
    with path.open("a") as file:
        file.write(', "hosts": {}}\n')
    assert [event["event"] for event in tail.read()] == ["stats"]


def rule(name: str, status: str = "ok", host: str = "a") -> dict[str, Any]:
    return {"event": "rule", "host": host, "rule": name, "id": "1.1", "status": status}


def test_a_rule_of_two_kinds_counts_once_and_as_changed_when_either_did() -> None:
    tally = stages.Tally({"harden": 3, "audit": 5})
    for event in (rule("one", "changed"), rule("one"), rule("two")):
        tally.feed(event)
    assert tally.progress("harden") == (2, 3)
    assert tally.changed() == 1
    tally.feed(rule("one", host="b"))
    assert tally.progress("harden") == (3, 6)


def test_a_bake_counts_the_checks_of_each_of_its_verifications() -> None:
    tally = stages.Tally({"verify": 2})
    first = [{"event": "check", "host": "a", "check": name, "status": "fail"} for name in ("one", "two")]
    for event in (task("image", "verify", 2), task("verify_node", "main", 2), *first):
        tally.feed(event)
    assert (tally.progress("verify"), tally.broken()) == ((2, 2), 2)
    again = {**first[0], "status": "not_applicable"}
    for event in (task("image", "reboot", 2), task("image", "verify", 2), task("verify_node", "main", 2), again):
        tally.feed(event)
    assert (tally.progress("verify"), tally.broken()) == ((1, 2), 0)


def task(role: str | None, file: str, pid: int = 1) -> dict[str, Any]:
    name = f"cisdriver.amazon_linux.{role}" if role else None
    return {"event": "task_start", "pid": pid, "task": "x", "role": name, "file": file}


def test_stages_follow_the_tasks_into_packer_and_out_again() -> None:
    announced: list[tuple[str, str]] = []
    clock = iter(range(100))
    tracker = stages.Tracker(lambda event, **fields: announced.append((event, fields["stage"])), lambda: next(clock))
    good = {"h": {"failures": 0, "unreachable": 0}}
    feed = [
        {"event": "play_start", "pid": 1, "hosts": []},
        task("image", "preflight"),
        task("image", "base"),
        task("image", "build"),
        {"event": "play_start", "pid": 2, "hosts": []},
        task("image", "harden", 2),
        task("network", "main", 2),
        task("image", "verify", 2),
        task("verify_node", "main", 2),
        task("audit", "main", 2),
        {"event": "stats", "pid": 2, "hosts": good},
        task("image", "publish"),
        {"event": "stats", "pid": 1, "hosts": good},
    ]
    for event in feed:
        tracker.feed(event)
    tracker.leave()
    names = [stage.name for stage in tracker.stages]
    assert names == ["preflight", "base", "build", "harden", "verify", "audit", "register", "publish"]
    assert announced == [(kind, name) for name in names for kind in ("stage_start", "stage_end")]
    assert all(stage.label and stage.seconds and stage.ok for stage in tracker.stages)


def test_the_stage_in_which_a_task_failed_is_the_one_that_failed() -> None:
    tracker = stages.Tracker(lambda *_, **__: None, time.monotonic)
    failed = {"event": "task_failed", "pid": 2, "host": "a", "task": "x", "msg": "no", "unreachable": False}
    for event in (task("image", "build"), task("image", "harden", 2), failed, task("image", "result"), failed):
        tracker.feed(event)
    tracker.leave()
    assert [(stage.name, stage.ok) for stage in tracker.stages] == [
        ("build", True),
        ("harden", False),
        ("result", True),
    ]


def test_a_play_may_be_one_stage_as_a_whole() -> None:
    tracker = stages.Tracker(lambda *_, **__: None, time.monotonic)
    tracker.play("look")
    for event in (task("image", "build"), task("image", "harden")):
        tracker.feed(event)
    tracker.leave()
    tracker.play()
    tracker.feed(task("image", "build"))
    assert [stage.label for stage in tracker.stages] == ["Look what there is", "Build"]


def test_a_step_is_one_line_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    screen, tally = progress.LineScreen(), stages.Tally({"harden": 2})
    end = {"event": "stage_end", "stage": "harden", "label": "Harden", "seconds": 12.3, "ok": True}
    for event in (rule("one", "changed"), rule("two"), end):
        tally.feed(event)
        screen.event(event, tally)
    assert " ".join(capsys.readouterr().out.split()) == "✓ Harden 2 rules, 1 changed 12 s"


def test_a_verification_is_told_in_checks(capsys: pytest.CaptureFixture[str]) -> None:
    screen, tally = progress.LineScreen(), stages.Tally({"verify": 3})
    for name, status in (("one", "pass"), ("two", "error")):
        tally.feed({"event": "check", "host": "a", "check": name, "status": status})
    assert "2/3 checks" in progress.going(stages.Stage("verify", stages.label("verify"), time.monotonic()), tally)
    screen.event({"event": "stage_end", "stage": "verify", "label": "Verify", "seconds": 3, "ok": False}, tally)
    assert " ".join(capsys.readouterr().out.split()) == "✗ Verify 2 checks, 1 failed 3.0 s"


def test_a_going_step_shows_rules_and_time() -> None:
    tally = stages.Tally({"harden": 92})
    tally.feed(rule("one", "changed"))
    line = progress.going(stages.Stage("harden", "Harden", time.monotonic() - 125), tally)
    assert " ".join(line.split()) == "Harden 1/92 rules, 1 changed 2 min 05 s"


def test_the_live_screen_draws_without_a_terminal_too(capsys: pytest.CaptureFixture[str]) -> None:
    screen = progress.LiveScreen()
    tally = stages.Tally({"audit": 1})
    screen.tick(stages.Stage("audit", "Audit [bold]", time.monotonic()), tally)
    screen.event({"event": "stage_end", "stage": "audit", "label": "Audit", "seconds": 1, "ok": False}, tally)
    screen.close()
    assert "✗ Audit" in capsys.readouterr().out


def test_runs_sort_by_time_and_latest_is_the_newest(tmp_path: Path) -> None:
    first = rundir.create(tmp_path)
    time.sleep(1.1)
    second = rundir.create(tmp_path)
    assert first.id < second.id
    assert len({rundir.new_id() for _ in range(50)}) == 50
    assert all(len(id_) <= 40 and id_.replace("-", "").isalnum() for id_ in (first.id, second.id))
    assert (tmp_path / "latest").resolve() == second.path
    events.append(first.events, "run_start")
    assert rundir.find(tmp_path, first.id).path == first.path
    with pytest.raises(UsageError, match=f"no run nonesuch.*\n.*{second.id}"):
        rundir.find(tmp_path, "nonesuch")


@pytest.mark.parametrize(
    ("target", "name", "variables"),
    [
        ("node", "node", {"ansible_host": "node"}),
        ("me@10.0.0.5:2222", "10.0.0.5-2222", {"ansible_host": "10.0.0.5", "ansible_user": "me", "ansible_port": 2222}),
        (
            "me@[2001:db8::1]:22",
            "2001:db8::1-22",
            {"ansible_host": "2001:db8::1", "ansible_user": "me"} | {"ansible_port": 22},
        ),
    ],
)
def test_a_host_becomes_an_inventory_line(target: str, name: str, variables: dict[str, Any]) -> None:
    assert hosts.parse(target) == (name, variables)


@pytest.mark.parametrize("target", ["", "a b", "a:b", "a:99999", "@a", "a@b@c", "-oProxyCommand=x y"])
def test_what_is_no_host_is_refused(target: str) -> None:
    with pytest.raises(UsageError, match="--host"):
        hosts.parse(target)


def test_the_way_ansible_got_to_our_message_is_left_out() -> None:
    msg = "Task failed: Finalization of x failed: The lookup plugin 'cisdriver.amazon_linux.rules' failed: no benchmark"
    event = {"host": "a", "task": "Audit", "msg": msg, "unreachable": False}
    assert nodes.explain(event) == "a: Audit: no benchmark"


def test_the_last_screen_names_scores_exceptions_times_and_reports(tmp_path: Path) -> None:
    run = rundir.create(tmp_path)
    run.write("audit", document(fail("3.2.1", accepted=accepted()), fail("3.2.2")))
    timed = [{"stage": name, "label": name.capitalize(), "seconds": 70, "ok": True} for name in ("harden", "audit")]
    image = {"id": "ami-0123", "name": "mine"}
    about = {"verb": "bake", "seconds": 140, "stages": timed, "reports": ["report.html"], "bake": {"image": image}}
    run.write("run", about)
    text = screens.summary(run)
    for part in ("ami-0123", "as CIS counts", "with accepted exceptions", "3.2.1", "cannot carry pods"):
        assert part in text
    for part in ("Harden", "1 min 10 s", "2 min 20 s", "report.html"):
        assert part in text


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            verification(check("a"), check("b", "not_applicable")),
            ["still a node", "1 pass, 0 fail, 0 could not look, 1"],
        ),
        (verification(check("a", "fail")), ["not a node of Kubernetes any more", "0 pass, 1 fail"]),
    ],
)
def test_the_last_screen_of_a_verification_says_what_the_node_is(tmp_path: Path, made: Any, words: list[str]) -> None:
    run = rundir.create(tmp_path)
    (run.path / "verify").mkdir()
    run.write("verify/worker", made)
    run.write("run", {"verb": "verify", "seconds": 3})
    for part in ["worker: ", *words]:
        assert part in screens.summary(run)


def test_a_failed_check_is_a_line_however_much_it_says() -> None:
    text = nodes.broken_checks(verification(check("units_valid", "fail", reason="bad line\n" * 500), check("fstab")))
    assert len(text.splitlines()) == 2
    assert text.startswith("1 of 2 checks fails; the node would not serve\n  units_valid: bad line bad line")
    assert len(text) < 500
    assert nodes.broken_checks(verification(check("fstab"), check("ipv6", "not_applicable"))) == ""
