"""Accounts, root's PATH and homes: states that pass, and more of them that fail."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import account as probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, shells
from ansible_collections.cisdriver.amazon_linux.plugins.modules import account
from machines import Module, Refused, applied, machine, rule, tree

PASSWD = (
    "root:x:0:0:root:/root:/bin/bash\n"
    "bin:x:1:1:bin:/bin:/usr/sbin/nologin\n"
    "sync:x:5:0:sync:/sbin:/bin/sync\n"
    "nobody:x:65534:65534:Kernel Overflow User:/:/usr/sbin/nologin\n"
    "ec2-user:x:1000:1000:EC2 Default User:/home/ec2-user:/bin/bash\n"
)
SHADOW = (
    "root:*LOCK*:14600::::::\nbin:*:1:0:99999:7:::\nsync:*:1::::::\nnobody:!!:1::::::\nec2-user:!!:1:0:99999:7:::\n"
)
GROUP = "root:x:0:\nbin:x:1:\nnobody:x:65534:\nec2-user:x:1000:\n"
ETC = {"/etc/passwd": PASSWD, "/etc/shadow": SHADOW, "/etc/group": GROUP, "/etc/shells": "/bin/sh\n/bin/bash\n"}
SYSTEM = {"system_accounts": {"shells": ["/usr/sbin/nologin", "/bin/false"], "except": ["sync"]}}
TOMORROW = int(time.time() // 86400) + 1


def changed(file: str, old: str, new: str) -> dict[str, str]:
    assert old in ETC[file]
    return {file: ETC[file].replace(old, new)}


def added(file: str, line: str) -> dict[str, str]:
    return {file: ETC[file] + line}


BIN = "bin:x:1:1:bin:/bin:/usr/sbin/nologin"
EC2 = "ec2-user:x:1000:1000:EC2 Default User:/home/ec2-user:/bin/bash"


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("stock_pass", {}, {"change_dates": "past"}, "pass"),
        (
            "locked_date_to_come_pass",
            changed("/etc/shadow", "bin:*:1", f"bin:*:{TOMORROW}"),
            {"change_dates": "past"},
            "pass",
        ),
        ("must_change_pass", changed("/etc/shadow", "bin:*:1:", "bin:$6$x:0:"), {"change_dates": "past"}, "pass"),
        (
            "today_pass",
            changed("/etc/shadow", "bin:*:1:", f"bin:$6$x:{TOMORROW - 1}:"),
            {"change_dates": "past"},
            "pass",
        ),
        (
            "tomorrow_fail",
            changed("/etc/shadow", "bin:*:1:", f"bin:$6$x:{TOMORROW}:"),
            {"change_dates": "past"},
            "fail",
        ),
        ("system_pass", {}, SYSTEM, "pass"),
        ("bin_false_pass", changed("/etc/passwd", BIN, BIN.replace("/usr/sbin/nologin", "/bin/false")), SYSTEM, "pass"),
        (
            "uid_min_lower_pass",
            {**added("/etc/passwd", "a:x:600:0::/:/bin/sh\n"), "/etc/login.defs": "UID_MIN 500\n"},
            SYSTEM,
            "pass",
        ),
        ("other_path_of_nologin_fail", changed("/etc/passwd", BIN, BIN.replace("/usr", "")), SYSTEM, "fail"),
        ("shell_fail", changed("/etc/passwd", BIN, BIN.replace("/usr/sbin/nologin", "/bin/bash")), SYSTEM, "fail"),
        ("no_shell_is_sh_fail", changed("/etc/passwd", BIN, BIN.replace("/usr/sbin/nologin", "")), SYSTEM, "fail"),
        ("nobody_fail", changed("/etc/passwd", ":/:/usr/sbin/nologin", ":/:/bin/bash"), SYSTEM, "fail"),
        ("password_fail", changed("/etc/shadow", "bin:*:", "bin:$6$x:"), SYSTEM, "fail"),
        ("special_shell_and_password_fail", changed("/etc/shadow", "sync:*:", "sync:$6$x:"), SYSTEM, "fail"),
        ("hash_in_passwd_fail", changed("/etc/passwd", "bin:x:", "bin:$6$x:"), SYSTEM, "fail"),
        ("second_root_fail", added("/etc/passwd", "toor:x:0:0::/root:/bin/bash\n"), SYSTEM, "fail"),
        ("carriage_return_fail", changed("/etc/passwd", BIN, BIN + "\r"), SYSTEM, "fail"),
        ("root_gid_pass", {}, {"root_gid": 0}, "pass"),
        ("root_gid_fail", changed("/etc/passwd", "root:x:0:0:", "root:x:0:1:"), {"root_gid": 0}, "fail"),
        ("no_root_fail", {"/etc/passwd": BIN + "\n"}, {"root_gid": 0}, "fail"),
        ("root_locked_pass", {}, {"root_password": "locked"}, "pass"),
        ("root_locked_fail", {}, {"root_password": "set"}, "fail"),
        ("root_set_pass", changed("/etc/shadow", "*LOCK*", "$y$x"), {"root_password": "set"}, "pass"),
        ("root_empty_is_not_locked_fail", changed("/etc/shadow", "*LOCK*", ""), {"root_password": "locked"}, "fail"),
        ("shadowed_pass", {}, {"shadowed": True}, "pass"),
        ("comment_and_no_line_end_pass", {"/etc/passwd": f"# people\n{PASSWD.rstrip()}"}, {"shadowed": True}, "pass"),
        ("star_fail", changed("/etc/passwd", "bin:x:", "bin:*:"), {"shadowed": True}, "fail"),
        ("empty_field_fail", changed("/etc/passwd", "bin:x:", "bin::"), {"shadowed": True}, "fail"),
        ("blank_line_fail", added("/etc/passwd", "\n"), {"shadowed": True}, "fail"),
        ("nis_entry_fail", added("/etc/passwd", "+::::::\n"), {"shadowed": True}, "fail"),
        ("few_fields_fail", added("/etc/passwd", "toor:x:0:0\n"), {"shadowed": True}, "fail"),
        ("no_number_fail", added("/etc/passwd", "a:x:b:0::/:/bin/sh\n"), {"shadowed": True}, "fail"),
        ("not_empty_pass", {}, {"password_not_empty": True}, "pass"),
        ("empty_fail", changed("/etc/shadow", "bin:*:", "bin::"), {"password_not_empty": True}, "fail"),
        ("shadow_blank_line_fail", added("/etc/shadow", "\n"), {"password_not_empty": True}, "fail"),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], spec: dict[str, Any], status: str) -> None:
    finding = probe.check(machine(tmp_path, {**ETC, **files}), spec)
    assert finding["status"] == status, (name, finding)
    assert status == "pass" or finding["reason"]


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("groups_pass", {}, {"groups_exist": True}, "pass"),
        ("no_group_fail", changed("/etc/passwd", ":1000:1000:", ":1000:1001:"), {"groups_exist": True}, "fail"),
        ("group_without_members_field_pass", added("/etc/group", "a:x:7\n"), {"groups_exist": True}, "pass"),
        ("uid_pass", {}, {"unique": "uid"}, "pass"),
        ("uid_fail", added("/etc/passwd", "a:x:1:0::/:/bin/sh\n"), {"unique": "uid"}, "fail"),
        ("uid_with_zeros_fail", added("/etc/passwd", "a:x:0001:0::/:/bin/sh\n"), {"unique": "uid"}, "fail"),
        ("short_line_has_a_uid_fail", added("/etc/passwd", "toor:x:0:0\n"), {"unique": "uid"}, "fail"),
        ("blanks_before_a_name_fail", added("/etc/passwd", "  bin:x:7:0::/:/bin/sh\n"), {"unique": "user"}, "fail"),
        ("user_pass", {}, {"unique": "user"}, "pass"),
        ("user_fail", added("/etc/passwd", "bin:x:7:0::/:/bin/sh\n"), {"unique": "user"}, "fail"),
        ("gid_pass", {}, {"unique": "gid"}, "pass"),
        ("gid_fail", added("/etc/group", "a:x:1:\n"), {"unique": "gid"}, "fail"),
        ("gid_no_number_fail", added("/etc/group", "a:x::\n"), {"unique": "gid"}, "fail"),
        ("group_pass", {}, {"unique": "group"}, "pass"),
        ("group_fail", added("/etc/group", "bin:x:7:\n"), {"unique": "group"}, "fail"),
        ("group_with_three_fields_fail", added("/etc/group", "a:x:7\n"), {"unique": "group"}, "fail"),
        ("group_crlf_fail", {"/etc/group": GROUP.replace("\n", "\r\n")}, {"unique": "group"}, "fail"),
        ("uid_zero_pass", {}, {"uid_zero": ["root"]}, "pass"),
        ("uid_zero_fail", added("/etc/passwd", "toor:x:0:0::/:/sbin/nologin\n"), {"uid_zero": ["root"]}, "fail"),
        ("uid_00_fail", added("/etc/passwd", "toor:x:00:0::/:/sbin/nologin\n"), {"uid_zero": ["root"]}, "fail"),
    ],
)
def test_scenario_of_groups_and_numbers(
    tmp_path: Path, name: str, files: dict[str, str], spec: dict[str, Any], status: str
) -> None:
    group = ETC["/etc/group"] + "sync:x:7777:\n"
    assert probe.check(machine(tmp_path, {**ETC, "/etc/group": group, **files}), spec)["status"] == status, name


def test_evidence_names_the_line(tmp_path: Path) -> None:
    node = machine(tmp_path, {**ETC, **added("/etc/passwd", "bin:x:7:0::/:/bin/sh\n")})
    assert "/etc/passwd:6" in probe.check(node, {"unique": "user"})["reason"]


def test_a_file_that_is_not_there_is_an_error_and_no_pass(tmp_path: Path) -> None:
    with pytest.raises(core.ProbeError, match="/etc/shadow"):
        probe.check(machine(tmp_path, {"/etc/passwd": PASSWD}), {"password_not_empty": True})


def path_node(root: Path, path: str, login_defs: str = "") -> core.Node:
    initial = "/sbin:/bin:/usr/sbin:/usr/bin"
    asked = shells.argv("root", "login shell", 'printf "%s" "$PATH"', path=initial)
    files = {**ETC, "/etc/login.defs": login_defs, "/usr/bin/bash": "", "/root/.x": "", "/opt/a b/tool": ""}
    return machine(root, files, {" ".join(asked): f"a banner\n\ncisdriver-answer:{path}"})


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        ("there_pass", "/usr/bin", "pass"),
        ("blank_in_its_name_pass", "/usr/bin:/opt/a b", "pass"),
        ("only_root_could_make_it_pass", "/root/bin:/usr/bin", "pass"),
        ("empty_element_fail", "/usr/bin::/opt", "fail"),
        ("ends_with_a_colon_fail", "/usr/bin:", "fail"),
        ("dot_fail", "/usr/bin:.", "fail"),
        ("relative_fail", "bin:/usr/bin", "fail"),
        ("file_fail", "/usr/bin/bash", "fail"),
        ("others_write_fail", "/usr/bin:/opt/open", "fail"),
        ("others_could_make_it_fail", "/usr/bin:/opt/open/x/y", "fail"),
        ("of_somebody_else_fail", "/usr/bin:/opt/theirs", "fail"),
    ],
)
def test_path_of_root(tmp_path: Path, name: str, path: str, status: str) -> None:
    node = path_node(tmp_path, path)
    (tmp_path / "opt/open").mkdir()
    (tmp_path / "opt/open").chmod(0o777)
    (tmp_path / "opt/theirs").mkdir()
    os.chown(tmp_path / "opt/theirs", 1000, 1000)
    for top in ("opt", "root", "usr", "usr/bin"):
        (tmp_path / top).chmod(0o755)
    assert probe.check(node, {"root_path": "safe"})["status"] == status, name


def test_a_profile_that_hangs_is_an_error(tmp_path: Path) -> None:
    asked = shells.argv("root", "login shell", 'printf "%s" "$PATH"', path="/sbin:/bin:/usr/sbin:/usr/bin")
    for code in (124, -9):
        node = machine(tmp_path, ETC, {" ".join(asked): core.Output(code, "", "")})
        with pytest.raises(core.ProbeError, match="10 seconds"):
            probe.check(node, {"root_path": "safe"})


def test_what_a_hanging_profile_started_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would keep the pipes open, and the audit waiting."""
    monkeypatch.setattr(shells, "SECONDS", 1)
    monkeypatch.setitem(shells.SHELLS, "login shell", ("/bin/bash", "-c", "sleep 30; true"))
    begun = time.monotonic()
    with pytest.raises(core.ProbeError, match="gives no answer"):
        shells.ask(core.Node(), "root", "login shell", "umask")
    assert time.monotonic() - begun < 10


HOMES = {"homes": {"max_mode": "0750"}}
DOTS = {"dot_files": {"max_mode": "0755", "private": {".netrc": "0600"}, "forbidden": [".rhosts"]}}


def home_node(root: Path, passwd: str = f"{EC2}\n") -> tuple[core.Node, Path]:
    node = machine(root, {**ETC, "/etc/passwd": passwd, "/home/ec2-user/.bashrc": ""})
    home = root / "home/ec2-user"
    for path, mode in ((home, 0o700), (home / ".bashrc", 0o644)):
        os.chown(path, 1000, 1000)
        path.chmod(mode)
    return node, home


def test_a_home_as_it_is_on_a_node_passes(tmp_path: Path) -> None:
    node, _home = home_node(tmp_path)
    assert probe.check(node, {**HOMES, **DOTS})["status"] == "pass"


@pytest.mark.parametrize(
    ("name", "spec", "spoil"),
    [
        ("open_to_others", HOMES, lambda home: home.chmod(0o751)),
        ("group_writes", HOMES, lambda home: home.chmod(0o770)),
        ("of_another", HOMES, lambda home: os.chown(home, 1001, 1000)),
        ("gone", HOMES, lambda home: home.rename(home.with_name("x"))),
        ("a_file", HOMES, lambda home: (home.rename(home.with_name("x")), home.write_text(""))),
        ("dangling_link", HOMES, lambda home: (home.rename(home.with_name("x")), home.symlink_to("nowhere"))),
        ("dot_file_group_writes", DOTS, lambda home: (home / ".bashrc").chmod(0o664)),
        ("dot_file_of_root", DOTS, lambda home: os.chown(home / ".bashrc", 0, 1000)),
        ("dot_file_of_another_group", DOTS, lambda home: os.chown(home / ".bashrc", 1000, 0)),
        ("netrc", DOTS, lambda home: (home / ".netrc").write_text("")),
        ("rhosts", DOTS, lambda home: (home / ".rhosts").write_text("")),
        ("name_with_a_blank", DOTS, lambda home: (home / ".a b").write_text("")),
    ],
)
def test_a_home_that_fails(tmp_path: Path, name: str, spec: dict[str, Any], spoil: Any) -> None:
    node, home = home_node(tmp_path)
    spoil(home)
    assert probe.check(node, spec)["status"] == "fail", name


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("directory", lambda home: (home / ".ssh").mkdir(0o777)),
        ("link", lambda home: (home / ".x").symlink_to("/etc/passwd")),
        ("no_dot", lambda home: (home / "open").touch(0o666)),
    ],
)
def test_what_is_no_dot_file_passes(tmp_path: Path, name: str, spoil: Any) -> None:
    node, home = home_node(tmp_path)
    spoil(home)
    assert probe.check(node, DOTS)["status"] == "pass", name


def test_homes_of_accounts_without_a_listed_shell_are_not_looked_at(tmp_path: Path) -> None:
    node, home = home_node(tmp_path, f"{EC2.replace('/bin/bash', '/usr/sbin/nologin')}\n")
    home.chmod(0o777)
    assert probe.check(node, {**HOMES, **DOTS})["status"] == "pass"


# ---- the module


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with /etc, of which a module thinks that it is the machine's."""
    tree(tmp_path, ETC)
    monkeypatch.setattr(account, "ETC", str(tmp_path / "etc"))
    monkeypatch.delenv("SUDO_USER", raising=False)
    return tmp_path / "etc"


class Usermod:
    """shadow-utils on a tree: --lock, --unlock, --password, and pwconv."""

    def __init__(self, etc: Path) -> None:
        self.etc = etc
        self.calls: list[list[str]] = []

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        self.calls.append(argv)
        if argv[0] == "usermod":
            self._usermod(argv[1], argv[-1], argv[2:-1])
            return 0, "", ""
        if argv[0] == "pwconv":
            for line in (self.etc / "passwd").read_text().splitlines():
                fields = line.split(":")
                if fields[1] != "x":
                    self._password(fields[0], lambda _old, new=fields[1]: new)
            text = (self.etc / "passwd").read_text().splitlines()
            (self.etc / "passwd").write_text(
                "".join(":".join([f[0], "x", *f[2:]]) + "\n" for f in (x.split(":") for x in text))
            )
            return 0, "", ""
        raise FileNotFoundError(2, "No such file or directory")

    def _usermod(self, how: str, name: str, rest: list[str]) -> None:
        change = {"--lock": lambda old: f"!{old}", "--unlock": lambda old: old[1:], "--password": lambda _old: rest[0]}[
            how
        ]
        self._password(name, change)

    def _password(self, name: str, change: Any) -> None:
        lines = [line.split(":") for line in (self.etc / "shadow").read_text().splitlines()]
        for fields in lines:
            if fields[0] == name:
                fields[1] = change(fields[1])
        (self.etc / "shadow").write_text("".join(":".join(fields) + "\n" for fields in lines))


@pytest.fixture(autouse=True)
def exempt(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    before = Module.__init__

    def with_exempt(self: Module, params: dict[str, Any], *more: Any) -> None:
        before(self, {**params, "exempt": names}, *more)

    monkeypatch.setattr(Module, "__init__", with_exempt)
    return names


def ran(etc: Path, want: dict[str, Any] | None, memory: Path, program: Any = None) -> dict[str, Any]:
    """Check mode, the run it predicted, and one that changes nothing. The module tells only what it changed."""
    rules = [rule("r", "4.6.2", want) if want else rule("r", "4.6.2", state="absent")]
    more = {"memory": memory, "program": program or Usermod(etc)}
    predicted = applied(account.apply, rules, check=True, **more)
    done, again = (applied(account.apply, rules, **more) for _time in range(2))
    assert predicted == done
    assert not again["changed"], again["diff"]
    return done


def test_system_accounts_are_shut_and_given_back(etc: Path, tmp_path: Path) -> None:
    spoiled = PASSWD.replace(BIN, BIN.replace("/usr", "")) + "agent:x:990:990::/:/bin/bash\nshort:x:991:1\n"
    (etc / "passwd").write_text(spoiled)
    (etc / "shadow").write_text(SHADOW + "agent:$6$x:1::::::\n")
    ran(etc, SYSTEM, tmp_path / "memory")
    assert f"{BIN}\n" in (etc / "passwd").read_text()
    assert "agent:x:990:990::/:/usr/sbin/nologin\nshort:x:991:1:::/usr/sbin/nologin\n" in (etc / "passwd").read_text()
    assert "agent:!$6$x:" in (etc / "shadow").read_text()
    assert "$6$x" not in (tmp_path / "memory/kind.json").read_text()
    ran(etc, None, tmp_path / "memory")
    assert (etc / "passwd").read_text() == spoiled.replace("short:x:991:1\n", "short:x:991:1:::/bin/sh\n")
    assert (etc / "shadow").read_text() == SHADOW + "agent:$6$x:1::::::\n"
    assert list((tmp_path / "memory").iterdir()) == []


def test_no_password_shows_in_the_answer(etc: Path, tmp_path: Path) -> None:
    (etc / "passwd").write_text(PASSWD + "agent:$6$secret:990:990::/:/bin/bash\n")
    (etc / "shadow").write_text(SHADOW.replace("bin:*", "bin:$6$secret"))
    rules, more = [rule("r", "4.6.2", SYSTEM)], {"memory": tmp_path / "memory", "program": Usermod(etc)}
    assert "agent:(not shown):990" in str(applied(account.apply, rules, check=True, **more)["diff"])
    assert "secret" not in str(applied(account.apply, rules, **more))
    (etc / "passwd").write_text(PASSWD)
    assert "secret" not in str(ran(etc, SYSTEM, tmp_path / "memory"))


def test_an_exempt_account_stays(etc: Path, tmp_path: Path, exempt: list[str]) -> None:
    exempt.append("agent")
    (etc / "passwd").write_text(PASSWD + "agent:x:990:990::/:/bin/bash\n")
    assert not ran(etc, SYSTEM, tmp_path / "memory")["changed"]


def test_whoever_runs_it_is_not_shut_out(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "build")
    (etc / "passwd").write_text(PASSWD + "build:x:500:500::/:/bin/bash\n")
    with pytest.raises(Refused, match="cis_account_exempt"):
        applied(account.apply, [rule("r", "4.6.2", SYSTEM)], program=Usermod(etc))


def test_what_an_administrator_changed_since_is_not_given_back(etc: Path, tmp_path: Path) -> None:
    (etc / "passwd").write_text(PASSWD + "agent:x:990:990::/:/bin/bash\n")
    ran(etc, SYSTEM, tmp_path / "memory")
    now = PASSWD + "agent:x:990:990::/:/bin/false\n"
    (etc / "passwd").write_text(now)
    assert not ran(etc, None, tmp_path / "memory")["changed"]
    assert (etc / "passwd").read_text() == now


def test_of_two_lines_of_a_name_the_first_holds(etc: Path, tmp_path: Path) -> None:
    spoiled = PASSWD + "agent:x:990:990::/:/sbin/nologin\nagent:x:990:990::/:/bin/bash\n"
    (etc / "passwd").write_text(spoiled)
    ran(etc, SYSTEM, tmp_path / "memory")
    assert "agent:x:990:990::/:/bin/bash\n" in (etc / "passwd").read_text()


def test_a_password_outside_of_shadow_is_locked_too(etc: Path, tmp_path: Path) -> None:
    (etc / "passwd").write_text(PASSWD.replace("bin:x:", "bin:$6$x:"))
    answer = applied(account.apply, [rule("r", "4.6.2", SYSTEM)], memory=tmp_path / "memory", program=Usermod(etc))
    assert answer["rules"]["r"]["after"]["password of bin"] == "locked"


def test_what_fails_to_be_given_back_is_not_forgotten(etc: Path, tmp_path: Path) -> None:
    (etc / "shadow").write_text(SHADOW.replace("bin:*", "bin:$6$x"))
    ran(etc, SYSTEM, tmp_path / "memory")
    absent = [rule("r", "4.6.2", state="absent")]
    with pytest.raises(Refused, match="cannot lock"):
        applied(account.apply, absent, memory=tmp_path / "memory", program=lambda _argv: (1, "", "cannot lock"))
    ran(etc, None, tmp_path / "memory")
    assert "bin:$6$x:" in (etc / "shadow").read_text()


def test_group_of_root(etc: Path, tmp_path: Path) -> None:
    (etc / "passwd").write_text(PASSWD.replace("root:x:0:0", "root:x:0:1"))
    ran(etc, {"root_gid": 0}, tmp_path / "memory")
    assert (etc / "passwd").read_text() == PASSWD
    ran(etc, None, tmp_path / "memory")
    assert "root:x:0:1:" in (etc / "passwd").read_text()


def test_hashes_are_moved_and_empty_ones_locked(etc: Path, tmp_path: Path) -> None:
    (etc / "passwd").write_text(PASSWD.replace("bin:x:", "bin:$6$x:").replace("sync:x:", "sync::"))
    ran(etc, {"shadowed": True, "password_not_empty": True}, tmp_path / "memory")
    assert (etc / "passwd").read_text() == PASSWD
    assert "bin:$6$x:" in (etc / "shadow").read_text()
    assert "sync:!:" in (etc / "shadow").read_text()
    ran(etc, None, tmp_path / "memory")
    assert "sync::" in (etc / "shadow").read_text()


def test_what_is_only_judged_is_passed_over(etc: Path, tmp_path: Path) -> None:
    answer = ran(etc, {"unique": "uid", "uid_zero": ["root"], "change_dates": "past"}, tmp_path / "memory")
    assert answer["rules"] == {"r": {"changed": False, "before": {}, "after": {}}}


def with_homes(etc: Path, *names: str) -> list[Path]:
    """Users from 1000 on; homes that are missing are to be made."""
    homes = [etc.parent / "homes" / name for name in names]
    (etc.parent / "homes").mkdir()
    lines = [f"{home.name}:x:{1000 + n}:{1000 + n}::{home}:/bin/bash\n" for n, home in enumerate(homes)]
    (etc / "passwd").write_text("".join(lines))
    return homes


def test_homes_are_made_shut_and_given_back(etc: Path, tmp_path: Path) -> None:
    alice, bob, carol = with_homes(etc, "alice", "bob", "carol")
    bob.mkdir()
    bob.chmod(0o777)  # of root
    carol.mkdir()
    carol.chmod(0o755)
    os.chown(carol, 1001, 1001)  # of bob: it stays his
    ran(etc, HOMES, tmp_path / "memory")
    about = [(path.stat().st_mode & 0o7777, path.stat().st_uid) for path in (alice, bob, carol)]
    assert about == [(0o700, 1000), (0o750, 1001), (0o750, 1001)]
    ran(etc, None, tmp_path / "memory")
    assert not alice.exists()
    assert [(path.stat().st_mode & 0o7777, path.stat().st_uid) for path in (bob, carol)] == [(0o777, 0), (0o755, 1001)]


def test_a_home_that_is_no_home_stays(etc: Path, tmp_path: Path) -> None:
    (etc / "passwd").write_text(
        "a:x:1000:1000::/:/bin/bash\nb:x:1001:1001::/var/lib/nowhere:/bin/bash\nc:x:1:1::/x/y:/bin/sh\n"
    )
    assert not ran(etc, {**HOMES, **DOTS}, tmp_path / "memory")["changed"]


def test_dot_files(etc: Path, tmp_path: Path) -> None:
    (alice,) = with_homes(etc, "alice")
    alice.mkdir()
    other = tmp_path / "other"
    other.write_text("")
    for name in (".bashrc", ".netrc", ".rhosts", ".a b"):
        (alice / name).write_text("")
        (alice / name).chmod(0o666)
    (alice / ".link").symlink_to(other)
    os.link(other, alice / ".hard")
    (alice / ".ssh").mkdir(0o777)
    answer = ran(etc, DOTS, tmp_path / "memory")
    state = {path.name: (path.lstat().st_mode & 0o777, path.lstat().st_uid) for path in alice.iterdir()}
    assert state[".bashrc"] == (0o644, 1000) == state[".a b"]
    assert state[".netrc"] == (0o600, 1000)
    assert state[".rhosts"] == (0o666, 0)
    assert other.stat().st_uid == 0
    assert "hard links" in answer["warnings"][0]
    ran(etc, None, tmp_path / "memory")
    assert (alice / ".bashrc").stat().st_mode & 0o777 == 0o666
    assert (alice / ".bashrc").stat().st_uid == 0


def test_directories_of_roots_path(etc: Path, tmp_path: Path) -> None:
    (alice,) = with_homes(etc, "alice")
    places = [tmp_path / name for name in ("open", "theirs", "sticky")]
    for place, mode in (*zip(places, (0o777, 0o755, 0o1777), strict=True), (alice, 0o777)):
        place.mkdir()
        place.chmod(mode)
    os.chown(places[1], 1000, 1000)
    told = ":".join(map(str, [*places, alice, "relative", "", tmp_path / "absent"]))

    def program(argv: list[str]) -> tuple[int, str, str]:
        return (0, f"\ncisdriver-path:\n{told}\n", "") if argv[0] == "setsid" else (127, "", "")

    ran(etc, {"root_path": "safe"}, tmp_path / "memory", program)
    modes = [(place.stat().st_mode & 0o7777, place.stat().st_uid) for place in (*places, alice)]
    assert modes == [(0o755, 0), (0o755, 0), (0o1777, 0), (0o777, 0)]
    ran(etc, None, tmp_path / "memory", program)
    assert places[0].stat().st_mode & 0o7777 == 0o777
    assert places[1].stat().st_uid == 1000
