"""The second login: what ssh is asked, and what its answers mean."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.action import verify_node
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import second_login

#: As ssh does: runs the last argument, where the node lets it.
RUNS = 'for command; do :; done; PATH="$(dirname "$0"):$PATH" exec sh -c "$command"'


@pytest.fixture
def ssh(tmp_path: Path) -> Any:
    """A program in ssh's place, and sudo on the node it reaches: ``ssh(script, sudo_script)`` gives a Login."""

    def make(script: str = RUNS, sudo: str = "exit 0", **more: Any) -> second_login.Login:
        for name, text in (("ssh", f'printf "%s\\n" "$@" > "{tmp_path}/asked"\n{script}'), ("sudo", sudo)):
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        return second_login.Login("10.0.0.5", "ec2-user", 2222, executable=str(tmp_path / "ssh"), **more)

    return make


def test_a_login_with_sudo_passes(ssh: Any) -> None:
    found = second_login.check(ssh())
    assert (found["name"], found["status"], found["reason"]) == ("second_login", "pass", "")
    assert [item["found"] for item in found["evidence"]] == ["let in", "works"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo 'Permission denied (publickey).' >&2; exit 255",
            "expected let in, found Permission denied (publickey).",
        ),
        ("echo 'This account is currently not available.'; exit 1", "expected let in, found exit code 1"),
        ("sleep 5", "expected let in, found no answer within 1 s"),
    ],
)
def test_a_node_that_lets_nobody_in_fails_with_what_ssh_says(ssh: Any, script: str, words: str) -> None:
    found = second_login.check(ssh(script), timeout=1)
    assert found["status"] == "fail"
    assert found["reason"] == f"login ec2-user@10.0.0.5:2222: {words}"
    assert not found["evidence"][0]["ok"]


def test_a_login_without_sudo_fails(ssh: Any) -> None:
    found = second_login.check(ssh(sudo="echo 'sudo: a password is required' >&2; exit 1"))
    assert found["status"] == "fail"
    assert found["reason"] == "sudo in that login: expected works, found sudo: a password is required"
    assert [item["ok"] for item in found["evidence"]] == [True, False]


def test_a_password_for_sudo_goes_by_standard_input(ssh: Any, tmp_path: Path) -> None:
    login = ssh(sudo='read -r word; [ "$word" = s3cret ]', sudo_password="s3cret")
    assert second_login.check(login)["status"] == "pass"
    assert "s3cret" not in (tmp_path / "asked").read_text()
    assert second_login.check(login._replace(sudo_password="wrong"))["status"] == "fail"


def test_without_ssh_nobody_could_look() -> None:
    found = second_login.check(second_login.Login("a", executable="/nonesuch/ssh"))
    assert (found["status"], found["reason"]) == ("error", "cannot run /nonesuch/ssh: No such file or directory")


def test_the_first_connection_is_never_used_again() -> None:
    shared = ("-oControlMaster=auto", "-oControlPersist=60s", "-oControlPath=/tmp/%h")
    argv = second_login.command(second_login.Login("a", key="/k y", arguments=shared))
    for option in ("-oControlMaster=no", "-oControlPath=none", "-oBatchMode=yes", '-oIdentityFile="/k y"'):
        assert argv.index(option) < argv.index(shared[0])
    assert argv[-2:-1] == ["a"]
    assert not any(part.startswith(("-oUser=", "-oPort=")) for part in argv)


class Connection:
    """As much of an Ansible connection as the action looks at."""

    def __init__(self, transport: str, **options: Any) -> None:
        self.transport, self._options, self.become = transport, options, None

    def get_option(self, name: str) -> Any:
        return self._options.get(name)


def action(connection: Connection) -> Any:
    made = verify_node.ActionModule.__new__(verify_node.ActionModule)
    made._connection, made._play_context = connection, SimpleNamespace(password=None)
    return made


def test_the_options_that_let_the_first_login_in_are_used(ssh: Any, tmp_path: Path) -> None:
    login = ssh()
    options = {
        "host": "10.0.0.5",
        "remote_user": "me",
        "port": 2222,
        "private_key_file": "/key",
        "ssh_args": "-o ControlPersist=60s",
        "ssh_common_args": '-o ProxyCommand="aws ssm start-session --target %h"',
        "ssh_executable": login.executable,
        "host_key_checking": False,
    }
    assert action(Connection("ssh", **options))._second_login()["status"] == "pass"
    asked = (tmp_path / "asked").read_text().splitlines()
    for part in ("-oUser=me", "-oPort=2222", '-oIdentityFile="/key"', "-oStrictHostKeyChecking=no", "10.0.0.5"):
        assert part in asked
    assert "ProxyCommand=aws ssm start-session --target %h" in asked


@pytest.mark.parametrize(
    ("connection", "fact"),
    [
        (Connection("local"), "Ansible reaches the node by local, not by ssh"),
        (Connection("ssh", password="x"), "Ansible logs in with a password"),
    ],
)
def test_where_there_is_no_ssh_to_try_again_the_fact_is_told(connection: Connection, fact: str) -> None:
    found = action(connection)._second_login()
    assert found["status"] == "not_applicable"
    assert fact in found["reason"]
