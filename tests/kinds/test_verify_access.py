"""Checks of who gets in: sshd, sudo, the SSM agent, accounts that expire."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core as probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import access
from machines import Output, machine

Files = dict[str, str | None]
Answers = dict[str, str | Output]
PASSWD = "root:x:0:0:root:/root:/bin/bash\nec2-user:x:1000:1000::/home/ec2-user:/bin/bash\n"
SHADOW = "root:!!:20000::::::\nec2-user:!!:20000:0:99999:7:::\n"
KEYS = "/home/ec2-user/.ssh/authorized_keys"
SSHD_T = "pubkeyauthentication yes\nauthorizedkeysfile .ssh/authorized_keys\nstrictmodes yes\n"
BASE: Files = {
    "/etc/passwd": PASSWD,
    "/etc/shadow": SHADOW,
    "/etc/ssh/sshd_config": "UsePAM yes\n",
    "/usr/sbin/sshd": "",
    "/usr/bin/sudo": "",
    "/bin/bash": "",
    KEYS: "ssh-ed25519 AAAA me\n",
}


@pytest.fixture(autouse=True)
def nobody_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)


def failing(finding: probe.Finding) -> list[str]:
    return [item["object"] for item in finding["evidence"] if not item["ok"]]


def sshd_answers(
    text: str = "", user: str = "ec2-user", rc: int = 0, err: str = "", groups: str = "ec2-user wheel"
) -> Answers:
    return {
        f"sshd -T -C user={user},host=localhost,addr=127.0.0.1": Output(rc, text + SSHD_T, err),
        f"id -Gn {user}": groups + "\n",
    }


def people(root: Path, files: Files | None = None, answers: Answers | None = None) -> probe.Node:
    """A node that belongs to ec2-user as far as his home goes: to whom these tests run as."""
    whole = {**BASE, **(files or {})}
    uid = os.getuid()
    whole["/etc/passwd"] = (whole["/etc/passwd"] or "").replace(":1000:1000:", f":{uid}:{os.getgid()}:")
    node = machine(root, whole, {**sshd_answers(), **(answers or {})})
    for path in ("/home", "/home/ec2-user", "/home/ec2-user/.ssh"):
        Path(node.real(path)).chmod(0o755)
    if KEYS in whole:
        Path(node.real(KEYS)).chmod(0o600)
    return node


@pytest.mark.parametrize(
    ("name", "files", "text"),
    [
        ("stock", {}, ""),
        ("on_the_list", {}, "allowusers root\nallowusers ec2-user\n"),
        ("by_pattern", {}, "allowusers ec2-*\n"),
        ("by_group", {}, "allowgroups wheel admins\n"),
        ("from_anywhere_known", {}, "allowusers ec2-user@10.*\n"),
        ("others_denied", {}, "denyusers root\ndenygroups nobody\n"),
        ("before_the_first_boot", {"/etc/passwd": "root:x:0:0::/root:/bin/bash\n"}, ""),
        ("keys_of_the_command_alone", {}, "authorizedkeysfile none\nauthorizedkeyscommand /opt/aws/bin/eic\n"),
    ],
)
def test_sshd_passes(tmp_path: Path, name: str, files: Files, text: str) -> None:
    finding = access.sshd(people(tmp_path, files, sshd_answers(text)))
    assert finding["status"] == "pass", (name, finding["reason"])


@pytest.mark.parametrize(
    ("text", "object_"),
    [
        ("allowusers somebody\n", "AllowUsers"),
        ("allowusers ec2-* !ec2-user\n", "AllowUsers"),
        ("denyusers ec2-user\n", "DenyUsers"),
        ("denygroups wheel\n", "DenyGroups"),
        ("allowgroups admins\n", "AllowGroups"),
    ],
)
def test_a_list_that_shuts_the_login_user_out_fails(tmp_path: Path, text: str, object_: str) -> None:
    finding = access.sshd(people(tmp_path, {}, sshd_answers(text)))
    assert failing(finding) == [object_]


@pytest.mark.parametrize(
    ("pattern", "status"),
    [("10.0.0.0/8", "pass"), ("10.1.*", "pass"), ("192.168.0.0/16", "fail"), ("172.*", "fail")],
)
def test_a_list_may_name_the_network_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, status: str
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.1.2.3 50000 10.1.2.4 22")
    finding = access.sshd(people(tmp_path, {}, sshd_answers(f"allowusers ec2-user@{pattern}\n")))
    assert finding["status"] == status


def test_the_caller_of_sudo_is_the_login_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "packer")
    files: Files = {"/etc/passwd": PASSWD.replace("ec2-user", "packer")}
    answers = sshd_answers("allowusers ec2-user\n", "packer", groups="packer")
    assert failing(access.sshd(people(tmp_path, files, answers))) == ["AllowUsers"]


def test_cloud_init_names_the_login_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "root")
    cloud = (
        "users:\n - default\nsystem_info:\n  distro: amzn\n  default_user:\n    lock_passwd: true\n    name: admin\n"
    )
    assert access.login_user(machine(tmp_path / "a", {"/etc/cloud/cloud.cfg": cloud})) == "admin"
    files: Files = {"/etc/cloud/cloud.cfg": cloud, "/etc/cloud/cloud.cfg.d/10.cfg": cloud.replace("admin", "ops")}
    assert access.login_user(machine(tmp_path / "b", files)) == "ops"
    assert access.login_user(machine(tmp_path / "c")) == "ec2-user"
    nameless = cloud.replace("    name: admin\n", "    gecos: nobody in particular\n" * 100)  # ends in no time
    assert access.login_user(machine(tmp_path / "d", {"/etc/cloud/cloud.cfg": nameless})) == "ec2-user"


@pytest.mark.parametrize(
    ("files", "answers", "words"),
    [
        ({}, sshd_answers(rc=255, err="00-aa.conf line 1: Bad configuration option"), "00-aa.conf line 1"),
        ({}, {**sshd_answers(), "sshd -T -C user=ec2-user,host=localhost,addr=127.0.0.1": "pubkeyauthentication no\n"},
         "PubkeyAuthentication for ec2-user: expected yes, found no"),
        ({"/etc/nologin": ""}, {}, "it refuses all but root in /etc/nologin"),
        ({"/etc/passwd": PASSWD.replace("ec2-user:/bin/bash", "ec2-user:/sbin/nologin"), "/sbin/nologin": ""}, {},
         "shell of ec2-user"),
        ({"/etc/passwd": PASSWD.replace("ec2-user:/bin/bash", "ec2-user:/bin/zsh")}, {}, "which does not exist"),
    ],
)  # fmt: skip
def test_sshd_fails(tmp_path: Path, files: Files, answers: Answers, words: str) -> None:
    finding = access.sshd(people(tmp_path, files, answers))
    assert finding["status"] == "fail"
    assert words in finding["reason"]


@pytest.mark.parametrize(
    ("path", "mode", "words"),
    [
        (KEYS, 0o620, "sshd refuses it"),
        ("/home/ec2-user/.ssh", 0o775, "/home/ec2-user/.ssh has mode 0775"),
        ("/home/ec2-user", 0o777, "/home/ec2-user has mode 0777"),
        (KEYS, 0o200, "has mode 0200"),
        ("/home/ec2-user/.ssh", 0o644, "has mode 0644"),
    ],
)
def test_keys_that_sshd_does_not_take_fail(tmp_path: Path, path: str, mode: int, words: str) -> None:
    node = people(tmp_path)
    Path(node.real(path)).chmod(mode)
    try:
        if os.getuid() != 0 and mode == 0o644:
            pytest.skip("who is not root cannot look into a directory without x")
        finding = access.sshd(node)
    finally:
        Path(node.real(path)).chmod(0o755)
    assert failing(finding) == [KEYS]
    assert words in finding["reason"]


def test_without_strict_modes_others_may_write(tmp_path: Path) -> None:
    answer = SSHD_T.replace("strictmodes yes", "strictmodes no")
    node = people(tmp_path, {}, {"sshd -T -C user=ec2-user,host=localhost,addr=127.0.0.1": answer})
    Path(node.real("/home/ec2-user/.ssh")).chmod(0o777)
    assert access.sshd(node)["status"] == "pass"


def test_sshd_that_is_not_there(tmp_path: Path) -> None:
    assert access.sshd(machine(tmp_path))["status"] == "not_applicable"


def test_groups_that_nobody_tells_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(probe.ProbeError, match="id -Gn ec2-user"):
        access.sshd(people(tmp_path, {}, {"id -Gn ec2-user": Output(1, "", "no such user")}))


TRIED = "runuser -u ec2-user -- sudo -n true"
VALID: Answers = {"visudo -c": "/etc/sudoers: parsed OK\n", TRIED: ""}


@pytest.mark.parametrize(
    ("files", "answers", "status", "words"),
    [
        ({}, VALID, "pass", ""),
        ({"/etc/passwd": "root:x:0:0::/root:/bin/bash\n"}, VALID, "pass", ""),
        ({"/etc/shadow": SHADOW.replace("ec2-user:!!", "ec2-user:$6$a")}, {"visudo -c": ""}, "pass", ""),
        ({}, {**VALID, "visudo -c": Output(1, "", ">>> /etc/sudoers.d/zz: syntax error near line 1 <<<")}, "fail",
         "/etc/sudoers.d/zz"),
        ({}, {**VALID, "visudo -c": Output(1, "/etc/sudoers: parsed OK\n",
         "/etc/sudoers.d/site: bad permissions, should be mode 0440\n")}, "pass", ""),
        ({}, {**VALID, "visudo -c": Output(1, "", "/etc/sudoers.d/site: bad permissions, should be mode 0440\n"
         "/etc/sudoers.d/site: wrong owner (uid, gid) should be (0, 0)\n")}, "fail", "wrong owner"),
        ({}, {**VALID, TRIED: Output(1, "", "sudo: a password is required\n")}, "fail", "a password is required"),
        ({}, {**VALID, TRIED: Output(1, "", "")}, "fail", "exit 1"),
    ],
)  # fmt: skip
def test_sudo(tmp_path: Path, files: Files, answers: Answers, status: str, words: str) -> None:
    finding = access.sudo(people(tmp_path, files, answers))
    assert finding["status"] == status
    assert words in finding["reason"]


def test_sudo_that_is_not_there_or_cannot_be_asked(tmp_path: Path) -> None:
    assert access.sudo(machine(tmp_path / "none"))["status"] == "not_applicable"
    with pytest.raises(probe.ProbeError, match="visudo"):
        access.sudo(people(tmp_path / "half"))


AGENT = f"systemctl is-enabled {access.SSM_UNIT}"
SSM_LINE = "ssm-user:x:1001:1001::/home/ssm-user:{shell}\n"
SSM_TRIED = "runuser -u ssm-user -- sudo -n true"


@pytest.mark.parametrize(
    ("files", "answers", "status", "words"),
    [
        ({}, {AGENT: "enabled\n"}, "pass", ""),
        ({}, {AGENT: Output(1, "masked\n", "")}, "fail", "expected enabled, found masked"),
        ({}, {AGENT: Output(1, "disabled\n", "")}, "fail", "expected enabled, found disabled"),
        ({}, {AGENT: Output(1, "", "Failed to get unit file state: No such file or directory")}, "not_applicable", ""),
        ({"/etc/passwd": PASSWD + SSM_LINE.format(shell="/bin/bash"), access.SSM_SUDOERS: "x"},
         {AGENT: "enabled\n", SSM_TRIED: ""}, "pass", ""),
        ({"/etc/passwd": PASSWD + SSM_LINE.format(shell="/sbin/nologin")}, {AGENT: "enabled\n"}, "fail",
         "shell of ssm-user"),
        ({"/etc/passwd": PASSWD + SSM_LINE.format(shell="/bin/bash"), access.SSM_SUDOERS: "x"},
         {AGENT: "enabled\n", SSM_TRIED: Output(1, "", "sudo: a password is required")}, "fail", "as ssm-user"),
        ({access.SSM_SUDOERS: "x"}, {AGENT: "enabled\n", f"visudo -c -f {access.SSM_SUDOERS}": "OK\n"}, "pass", ""),
        ({access.SSM_SUDOERS: "x"},
         {AGENT: "enabled\n", f"visudo -c -f {access.SSM_SUDOERS}": Output(1, "", "syntax error")}, "fail",
         access.SSM_SUDOERS),
    ],
)  # fmt: skip
def test_ssm_agent(tmp_path: Path, files: Files, answers: Answers, status: str, words: str) -> None:
    finding = access.ssm_agent(people(tmp_path, files, answers))
    assert finding["status"] == status, finding["reason"]
    assert words in finding["reason"]


TOMORROW = int(time.time() // 86400) + 1


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("ec2-user:!!:20000:0:99999:7:::", "pass", ""),
        ("ec2-user:!!:20000::::::", "pass", ""),
        ("ec2-user:$6$a:20000:1:365:7:30::", "pass", ""),
        ("nobody:!:20000::::::", "pass", ""),
        ("ec2-user:!!:20000:0:99999:7::18262:", "fail", "expiry of account ec2-user: expected never, found 2020-01-01"),
        (f"ec2-user:!!:20000:0:99999:7::{TOMORROW}:", "fail", "expiry of account ec2-user"),
        ("ec2-user:!!:20000:0:365:7:::", "fail", "ages after 365 days in /etc/shadow:2"),
        ("ec2-user:!!:0:0:99999:7:::", "fail", "must be changed at the next login"),
    ],
)
def test_password_aging(tmp_path: Path, line: str, status: str, words: str) -> None:
    finding = access.password_aging(people(tmp_path, {"/etc/shadow": f"root:!!:20000::::::\n{line}\n"}))
    assert finding["status"] == status, finding["reason"]
    assert words in finding["reason"]


def test_whoever_has_a_key_and_a_shell_is_looked_at(tmp_path: Path) -> None:
    files: Files = {
        "/etc/passwd": PASSWD + "ci:x:1001:1001::/home/ci:/bin/bash\nold:x:1002:1002::/home/old:/sbin/nologin\n",
        "/etc/shells": "/bin/bash\n",
        "/etc/shadow": SHADOW + "ci:!!:20000:0:30:7:::\nold:!!:20000:0:30:7:::\n",
        "/home/ci/.ssh/authorized_keys": "ssh-ed25519 AAAA ci\n",
        "/home/old/.ssh/authorized_keys": "ssh-ed25519 AAAA old\n",
    }
    assert failing(access.password_aging(people(tmp_path, files))) == ["password of ci"]


def test_nobody_with_a_key_and_nothing_to_look_at(tmp_path: Path) -> None:
    alone: Files = {"/etc/passwd": "root:x:0:0::/root:/bin/bash\n", "/etc/shadow": SHADOW}
    assert access.password_aging(machine(tmp_path / "root", alone))["status"] == "pass"
    with pytest.raises(probe.ProbeError, match="/etc/shadow does not exist"):
        access.password_aging(machine(tmp_path / "none", {"/etc/passwd": PASSWD}))
