"""chrony: states that pass, and more of them that fail; a line added, an option added, both given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import time_sync as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import time_sync
from machines import Output, Refused, applied, machine, rule, settles, tree

MAIN, OPTIONS = "/etc/chrony.conf", "/etc/sysconfig/chronyd"
STOCK = "sourcedir /run/chrony.d\nsourcedir /etc/chrony.d\ndriftfile /var/lib/chrony/drift\n"
AMAZON = {"/run/chrony.d/link-local.sources": "server 169.254.169.123 prefer iburst\n"}
GOOD = {OPTIONS: 'OPTIONS="-F 2 -u chrony"\n'}
NODE: dict[str, Any] = {"/etc/eks": None}
SPEC = {
    "sources": 1,
    "user": "chrony",
    "where": [{"path": "/etc/eks", "any_of": ["169.254.169.123", "fd00:ec2::123", "time.aws.com"]}],
}
SHOW = "systemctl show chronyd.service --property=MainPID,ExecStart,EnvironmentFiles"
UNIT = (
    "MainPID=249\nExecStart={ path=/usr/sbin/chronyd ; argv[]=/usr/sbin/chronyd $OPTIONS ; ignore_errors=no ; }\n"
    f"EnvironmentFiles={OPTIONS} (ignore_errors=yes)\n"
)
PROCESS = {"/proc/249/status": "Name:\tchronyd\nUid:\t997\t997\t997\t997\n", "/etc/passwd": "chrony:x:997:997::/:/no\n"}


def look(root: Path, files: dict[str, Any], unit: str = UNIT) -> dict[str, Any]:
    whole = {MAIN: STOCK, **PROCESS, **GOOD, **files}
    return probe.check(machine(root, whole, {SHOW: unit}), SPEC)


@pytest.mark.parametrize(
    ("name", "files", "status"),
    [
        ("sources_made_at_boot_pass", {**NODE, **AMAZON}, "pass"),
        ("line_of_the_main_file_pass", {MAIN: "server 169.254.169.123\n"}, "pass"),
        ("pool_in_capitals_and_blanks_pass", {**NODE, MAIN: "  POOL   time.aws.com iburst\n"}, "pass"),
        ("ipv6_address_pass", {**NODE, MAIN: "server FD00:EC2::123 iburst\n"}, "pass"),
        ("confdir_pass", {MAIN: "confdir /etc/chrony.d\n", "/etc/chrony.d/a.conf": "pool a.example\n"}, "pass"),
        ("include_glob_pass", {MAIN: "include /etc/c*.inc\n", "/etc/c.inc": "server a.example\n"}, "pass"),
        ("public_pool_beside_amazon_pass", {**NODE, **AMAZON, MAIN: f"{STOCK}pool pool.ntp.org\n"}, "pass"),
        ("site_server_where_no_node_is_pass", {MAIN: "server ntp.corp.example iburst\n"}, "pass"),
        ("other_file_by_option_pass", {OPTIONS: 'OPTIONS="-f /etc/c2 -u chrony"\n', "/etc/c2": "pool a.b\n"}, "pass"),
        ("option_and_user_in_one_word_pass", {**AMAZON, OPTIONS: "OPTIONS=-uchrony -F 2\n"}, "pass"),
        ("no_source_fail", {}, "fail"),
        ("public_pool_in_place_of_amazon_fail", {**NODE, MAIN: "pool pool.ntp.org iburst\n"}, "fail"),
        ("commented_source_fail", {MAIN: "#server 169.254.169.123\n! server a\n; server b\n% pool c\n"}, "fail"),
        ("sourcedir_takes_sources_only_fail", {"/etc/chrony.d/chrony.conf": "pool pool.ntp.org\n"}, "fail"),
        ("hidden_by_the_same_name_fail", {
            MAIN: "sourcedir /run/chrony.d /etc/chrony.d\n", "/run/chrony.d/a.sources": "",
            "/etc/chrony.d/a.sources": "server 169.254.169.123\n",
        }, "fail"),
        ("peer_is_no_source_fail", {MAIN: "peer a.example\n"}, "fail"),
        ("no_user_fail", {**AMAZON, OPTIONS: 'OPTIONS="-F 2"\n'}, "fail"),
        ("other_user_fail", {**AMAZON, OPTIONS: 'OPTIONS="-F 2 -u root"\n'}, "fail"),
        ("later_line_wins_fail", {**AMAZON, OPTIONS: 'OPTIONS="-u chrony"\nOPTIONS="-F 2"\n'}, "fail"),
        ("commented_options_fail", {**AMAZON, OPTIONS: '#OPTIONS="-u chrony"\n'}, "fail"),
        ("no_options_file_fail", {**AMAZON, OPTIONS: ""}, "fail"),
        ("runs_as_another_user_fail", {**AMAZON, "/proc/249/status": "Uid:\t0\t0\t0\t0\n"}, "fail"),
    ],
)  # fmt: skip
def test_scenario(tmp_path: Path, name: str, files: dict[str, Any], status: str) -> None:
    assert look(tmp_path, files)["status"] == status, name


@pytest.mark.parametrize(
    ("name", "unit", "status"),
    [
        ("command_names_the_user_pass", UNIT.replace("$OPTIONS", "-u chrony"), "pass"),
        ("drop_in_drops_the_options_fail", UNIT.replace("$OPTIONS", "-F 1"), "fail"),
        ("other_environment_file_fail", UNIT.replace(OPTIONS, "/etc/default/chrony"), "fail"),
        ("stopped_pass", UNIT.replace("249", "0"), "pass"),
    ],
)
def test_the_unit_has_to_heed_the_options(tmp_path: Path, name: str, unit: str, status: str) -> None:
    assert look(tmp_path, AMAZON, unit)["status"] == status, name


def test_evidence_names_the_line_of_each_source(tmp_path: Path) -> None:
    finding = look(tmp_path, {**NODE, MAIN: "\npool pool.ntp.org iburst\n"})
    assert "pool.ntp.org (/etc/chrony.conf:2)" in finding["reason"]
    assert "time source of a machine with /etc/eks" in finding["reason"]


def test_files_that_include_each_other_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(probe.core.ProbeError, match="included more than"):
        look(tmp_path, {MAIN: "include /etc/chrony.conf\n"})


# The module

SERVER = "169.254.169.123 prefer iburst minpoll 4 maxpoll 4"
LINE = f"server {SERVER}"


class Place:
    def __init__(self, root: Path, main: str, options: str | None, **want: Any) -> None:
        self.main, self.options = root / "chrony.conf", root / "chronyd"
        tree(root, {"chrony.conf": main, **({} if options is None else {"chronyd": options})})
        self.rules = [rule("chrony_configured", "2.1.2", {"server": SERVER, "user": "chrony", **want})]
        self.memory = root / "memory"
        self.refuses = ""

    def apply(self, batch: Any) -> None:
        batch.module.params.update(main=str(self.main), environment=str(self.options))
        time_sync.apply(batch)

    def chronyd(self, argv: list[str]) -> tuple[int, str, str]:
        return (1, "", self.refuses) if argv[0] == "chronyd" and self.refuses else (0, "", "")

    def settles(self) -> dict[str, Any]:
        return settles(self.apply, self.rules, program=self.chronyd, memory=self.memory)

    def undone(self) -> dict[str, Any]:
        gone = [rule("chrony_configured", "2.1.2", state="absent")]
        return settles(self.apply, gone, program=self.chronyd, memory=self.memory)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('# flags\nOPTIONS="-F 2"\n', '# flags\nOPTIONS="-F 2 -u chrony"\n'),
        ("OPTIONS='-F 2'\n", "OPTIONS='-F 2 -u chrony'\n"),
        ("OPTIONS=-F 2\n", 'OPTIONS="-F 2 -u chrony"\n'),
        ('OPTIONS=""\n', 'OPTIONS="-u chrony"\n'),
        ("OPTIONS=\n", 'OPTIONS="-u chrony"\n'),
        ("#OPTIONS=\n", '#OPTIONS=\nOPTIONS="-u chrony"\n'),
        ("", 'OPTIONS="-u chrony"\n'),
        (None, 'OPTIONS="-u chrony"\n'),
        ('OPTIONS="-u root -F 2"\n', 'OPTIONS="-F 2 -u chrony"\n'),
        ('  OPTIONS = "-u  chrony  -F 1"\n', '  OPTIONS = "-u  chrony  -F 1"\n'),
        ('OPTIONS="-F 1"\nOPTIONS="-F 2"\n', 'OPTIONS="-F 1"\nOPTIONS="-F 2 -u chrony"\n'),
        ('OPTIONS="-4 -u"\n', 'OPTIONS="-4 -u chrony"\n'),
    ],
)
def test_the_user_joins_the_options_that_are_there(tmp_path: Path, before: str | None, after: str) -> None:
    place = Place(tmp_path, f"{LINE}\n", before)
    place.settles()
    assert place.options.read_text() == after
    place.undone()
    assert (place.options.read_text() if place.options.exists() else "") == (before or "")


@pytest.mark.parametrize(
    ("main", "beside", "added"),
    [
        (STOCK, False, True),
        (STOCK.rstrip("\n"), False, True),
        (f"{STOCK}pool ntp.corp\n", False, False),
        (f"{STOCK}pool pool.ntp.org\n", True, True),
        (f"{STOCK}# {LINE}\n", True, True),
        (f"{STOCK}  Server 169.254.169.123 iburst\n", True, False),
    ],
)
def test_a_source_is_added_and_nothing_is_taken_away(tmp_path: Path, main: str, beside: bool, added: bool) -> None:
    place = Place(tmp_path, main, 'OPTIONS="-u chrony"\n', **({"beside_others": True} if beside else {}))
    assert place.settles()["changed"] == added
    assert place.main.read_text() == (f"{main.rstrip(chr(10))}\n{LINE}\n" if added else main)
    place.undone()
    assert place.main.read_text().rstrip("\n") == main.rstrip("\n")


def test_what_an_administrator_changed_since_is_left(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK, 'OPTIONS="-F 2"\n')
    place.settles()
    place.options.write_text('OPTIONS="-F 1 -u chrony"\n')
    place.main.write_text(place.main.read_text().replace("minpoll 4", "minpoll 6"))
    mine = place.main.read_text()
    assert not place.undone()["changed"]
    assert place.options.read_text() == 'OPTIONS="-F 1 -u chrony"\n' and place.main.read_text() == mine


def test_what_chronyd_refuses_is_not_put_in_place(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK, 'OPTIONS="-F 2"\n')
    place.refuses = "Fatal error : Invalid directive"
    with pytest.raises(Refused, match="the old one stays: Fatal error"):
        applied(place.apply, place.rules, program=place.chronyd)
    assert place.main.read_text() == STOCK


def test_what_cannot_be_given_back_now_is_given_back_later(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK, 'OPTIONS="-F 2"\n')
    place.settles()
    place.refuses = "Fatal error : Invalid directive"
    gone = [rule("chrony_configured", "2.1.2", state="absent")]
    with pytest.raises(Refused):
        applied(place.apply, gone, program=place.chronyd, memory=place.memory)
    place.refuses = ""
    assert place.undone()["changed"] and place.main.read_text() == STOCK


def test_nothing_is_made_where_chrony_is_not_installed(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK, None)
    place.main.unlink()
    assert not place.settles()["changed"]
    assert not place.options.exists()


def test_a_running_chronyd_restarts_when_something_changed_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_sync.runtime, "manager_runs", lambda: True)
    place, calls = Place(tmp_path, STOCK, None), []

    def program(argv: list[str]) -> tuple[int, str, str]:
        calls.append(" ".join(argv))
        return Output(0, "", "")

    settles(place.apply, place.rules, program=program, memory=place.memory)
    assert calls.count("systemctl try-restart chronyd.service") == 1
