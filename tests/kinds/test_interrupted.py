"""A module killed at each of its steps: no file is torn, and the next run leaves what an undisturbed one does."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, edits, runtime
from ansible_collections.cisdriver.amazon_linux.plugins.modules import (
    aide_database,
    banner,
    config_value,
    file_mode,
    login_defs,
)
from machines import applied, rule, tree

STEPS = ("open", "fsync", "rename", "replace", "chmod", "chown", "fchmod", "fchown", "mkdir", "symlink", "unlink")
Run = Callable[[Path, str], None]


def _login_defs(root: Path, state: str) -> None:
    def apply(batch: core.Batch) -> None:
        batch.module.params.update(login_defs=str(root / "login.defs"), useradd=str(root / "useradd"))
        login_defs.apply(batch)

    rules = [rule("a", "4.6.1.1", {"PASS_MAX_DAYS": 365}, state), rule("b", "4.6.1.2", {"PASS_MIN_DAYS": 1}, state)]
    applied(apply, rules, memory=root / "memory")


def _banner(root: Path, state: str) -> None:
    want = {str(root / name): "Authorized use only.\n" for name in ("issue", "motd", "new")}
    applied(banner.apply, [rule("r", "1.7.1", want, state)], memory=root / "memory")


def _file_mode(root: Path, state: str) -> None:
    want = [
        {"path": str(root / "issue"), "max_mode": "0600"},
        {"path": str(root / "cron.allow"), "max_mode": "0640", "create_if_package": "cronie"},
        {"path": str(root / "cron.deny"), "state": "absent"},
    ]
    rules = [rule("r", "5.1.8", want, state)]
    applied(file_mode.apply, rules, program=lambda _argv: (0, "", ""), memory=root / "memory")


def _config_value(root: Path, state: str) -> None:
    want = [{"path": str(root / "auditd.conf"), "values": {"max_log_file": 20, "new": "x"}}]
    applied(config_value.apply, [rule("r", "5.2.2.1", want, state)], memory=root / "memory")


def _lines_gone(root: Path, state: str) -> None:
    """Lines taken away, of which two are alike."""

    def apply(batch: core.Batch) -> None:
        path = str(root / "bashrc")
        before = core.read(path)
        after = "".join(line for line in before.splitlines(keepends=True) if not line.startswith("umask"))
        if batch.absent:
            batch.write(path, edits.give_back(batch, "r", path, before))
            batch.forget("r")
        else:
            edits.remember(batch, "r", path, before, after)
            batch.write(path, after)

    applied(apply, [rule("r", "4.6.5", {}, state)], memory=root / "memory")


def _dropin(root: Path, state: str) -> None:
    def apply(batch: core.Batch) -> None:
        path = str(root / "conf.d/60-cis.conf")
        batch.write(path, core.dropin(core.read(path), batch.present, batch.keep, lambda _rule: ["a"]), mode=0o600)

    applied(apply, [rule("r", "4.2.1", {}, state)], memory=root / "memory")


def _aide_database(root: Path, state: str) -> None:
    conf = root / "aide.conf"

    def program(_argv: list[str]) -> tuple[int, str, str]:
        (root / "aide.new").write_text("database")
        return 0, "", ""

    rules = [rule("r", "6.1.14", {}, state)]
    applied(aide_database.apply, rules, False, str(conf), program=program, memory=root / "memory")


def _machine(root: Path) -> Path:
    files = {
        "login.defs": "# ages\nPASS_MAX_DAYS 99999\n",
        "issue": "\\S\n",
        "motd": "->elsewhere",
        "cron.deny": "mallory\n",
        "auditd.conf": "max_log_file = 8\n",
        "bashrc": "umask 002\na\numask 022\nb\numask 022\n",
        "useradd": "INACTIVE=-1\n",
        "aide.conf": f"database_in=file:{root}/aide.db\ndatabase_out=file:{root}/aide.new\n",
    }
    tree(root, files)
    (root / "issue").chmod(0o666)
    return root


def _state(root: Path) -> dict[str, tuple[str, str]]:
    """Path to mode and what it holds, of all but the memory."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        held = path.readlink() if path.is_symlink() else path.read_text() if path.is_file() else ""
        name = str(path.relative_to(root))
        if not name.startswith("memory") and name != "aide.new":
            found[name] = (stat.filemode(about.st_mode), str(held).replace(str(root), ""))
    return found


def _killed_at(number: int, act: Callable[[], None]) -> bool:
    """Do it in a process that is killed before its step of that number. Whether it got that far."""
    child = os.fork()
    if child:
        _pid, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, -9), "the module failed"
        return os.WIFSIGNALED(status)
    try:
        steps = itertools.count(1)

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **named: Any) -> Any:
                if next(steps) == number:
                    os.kill(os.getpid(), 9)
                return function(*args, **named)

            return step

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        act()
        os._exit(0)
    finally:
        os._exit(1)


RUNS = [_login_defs, _banner, _file_mode, _config_value, _lines_gone, _dropin, _aide_database]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__.strip("_"))
def test_the_next_run_settles_what_a_killed_one_left(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    undisturbed = _machine(tmp_path / "undisturbed")
    stock = _state(undisturbed)
    run(undisturbed, "present")
    hardened = _state(undisturbed)
    run(undisturbed, "absent")
    back = _state(undisturbed)
    for number in itertools.count(1):
        root = _machine(tmp_path / str(number))
        if not _killed_at(number, lambda root=root: run(root, "present")):  # type: ignore[misc] # bound in this round
            break
        torn = {
            name: (state, stock.get(name), hardened.get(name))
            for name, state in _state(root).items()
            if state[1] not in {other.get(name, state)[1] for other in (stock, hardened)} and "cisdriver-" not in name
        }
        assert torn == {}, f"killed before step {number}"
        run(root, "present")
        assert _state(root) == hardened, f"killed before step {number}"
        run(root, "absent")
        assert _state(root) == back, f"killed before step {number}"
    assert number > 3


def test_a_daemon_reads_what_an_interrupted_run_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "manager_runs", lambda: True)
    path = tree(tmp_path, {"auditd.conf": "max_log_file = 8\n"}) / "auditd.conf"
    rules = [rule("r", "5.2.2.1", [{"path": str(path), "values": {"max_log_file": 20}}])]
    told: list[str] = []

    def killed(argv: list[str]) -> tuple[int, str, str]:
        raise KeyboardInterrupt(argv)

    def answers(argv: list[str]) -> tuple[int, str, str]:
        told.append(" ".join(argv))
        return 0, "", ""

    def run(program: Callable[[list[str]], tuple[int, str, str]], **more: Any) -> dict[str, Any]:
        return applied(config_value.apply, rules, "auditd.service", program=program, memory=tmp_path / "memory", **more)

    with pytest.raises(KeyboardInterrupt):
        run(killed)
    assert path.read_text() == "max_log_file = 20\n"
    assert run(answers, check=True)["changed"] and told == []
    assert run(answers)["changed"] and "service auditd reload" in told
    assert not run(answers)["changed"]


LOCKED = """
import sys, time
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core
class Module:
    def fail_json(self, msg): sys.exit(msg)
core.LOCK, core._LOCK_SECONDS = sys.argv[1], float(sys.argv[2])
core._be_alone(Module())
print("alone", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def _run_under_way(lock: Path, patience: float) -> Iterator[subprocess.Popen[str]]:
    root = Path(core.__file__).parents[6]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path]), "TMPDIR": str(lock.parent)}
    argv = [sys.executable, "-c", LOCKED, str(lock), str(patience)]
    with subprocess.Popen(argv, env=env, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        yield process
        process.kill()


def test_a_run_waits_for_the_module_of_another(tmp_path: Path) -> None:
    """A connection that is cut does not end the module; with both at work each would undo the other's memory."""
    lock = tmp_path / "lock"
    with _run_under_way(lock, 60) as first:
        assert first.stdout and first.stdout.readline() == "alone\n"
        with _run_under_way(lock, 0) as hasty:
            assert "another run has been changing this machine" in hasty.communicate()[1]
        with _run_under_way(lock, 60) as second:
            first.kill()
            assert second.stdout and second.stdout.readline() == "alone\n"


def test_what_a_killed_run_left_lying_about_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / ".cisdriver-a1b2c3d4").write_text("half")
    (tmp_path / ".cisdriver-copies").mkdir()
    (tmp_path / ".cisdriver-copies/sshd_config").write_text("")
    (tmp_path / "cisdriver-node-x").mkdir()
    core.remove_temporary(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["cisdriver-node-x"]
