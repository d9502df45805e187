"""Defaults for new accounts, and ageing of passwords that exist: states that pass, and more of them that fail."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import login_defs as probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import shadow as shadow_probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import login_defs, shadow
from machines import Refused, applied, machine, rule, tree

MAX = {"PASS_MAX_DAYS": {"min": 1, "max": 365}}
INACTIVE = {"INACTIVE": {"min": 0, "max": 30}}


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("tab_pass", {"/etc/login.defs": "PASS_MAX_DAYS\t365\n"}, MAX, "pass"),
        ("blanks_before_pass", {"/etc/login.defs": "  PASS_MAX_DAYS   90\n"}, MAX, "pass"),
        ("last_line_right_pass", {"/etc/login.defs": "PASS_MAX_DAYS 99999\nPASS_MAX_DAYS 90\n"}, MAX, "pass"),
        ("inactive_pass", {"/etc/default/useradd": "INACTIVE=30\n"}, INACTIVE, "pass"),
        ("inactive_at_once_pass", {"/etc/default/useradd": "INACTIVE=0\n"}, INACTIVE, "pass"),
        ("stock_fail", {"/etc/login.defs": "PASS_MAX_DAYS\t99999\n"}, MAX, "fail"),
        ("commented_fail", {"/etc/login.defs": "#PASS_MAX_DAYS 90\n"}, MAX, "fail"),
        ("last_line_wrong_fail", {"/etc/login.defs": "PASS_MAX_DAYS 90\nPASS_MAX_DAYS 99999\n"}, MAX, "fail"),
        ("never_fail", {"/etc/login.defs": "PASS_MAX_DAYS -1\n"}, MAX, "fail"),
        ("no_number_fail", {"/etc/login.defs": "PASS_MAX_DAYS soon\n"}, MAX, "fail"),
        ("longer_key_fail", {"/etc/login.defs": "PASS_MAX_DAYS_OLD 90\n"}, MAX, "fail"),
        ("no_file_fail", {}, MAX, "fail"),
        ("inactive_never_fail", {"/etc/default/useradd": "INACTIVE=-1\n"}, INACTIVE, "fail"),
        ("inactive_with_a_blank_fail", {"/etc/default/useradd": "INACTIVE =30\n"}, INACTIVE, "fail"),
        ("inactive_not_set_fail", {"/etc/default/useradd": "SHELL=/bin/bash\n"}, INACTIVE, "fail"),
        ("inactive_in_the_wrong_file_fail", {"/etc/login.defs": "INACTIVE 30\n"}, INACTIVE, "fail"),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], spec: dict[str, Any], status: str) -> None:
    assert probe.check(machine(tmp_path, files), spec)["status"] == status, name


SPEC = {"max_days": {"min": 1, "max": 365}}


@pytest.mark.parametrize(
    ("name", "text", "status"),
    [
        ("aged_pass", "a:$6$x:20000:1:365:7:30::\n", "pass"),
        ("locked_pass", "root:*:20000:0:99999:7:::\nec2-user:!!:20000:0:99999:7:::\nb:!$6$x:1:0:99999:7:::\n", "pass"),
        ("no_password_pass", "a::20000:0:99999:7:::\n", "pass"),
        ("stock_of_useradd_fail", "a:$6$x:20000:0:99999:7:::\n", "fail"),
        ("root_with_a_password_fail", "root:$y$x:20000:0:99999:7:::\n", "fail"),
        ("field_empty_fail", "a:$6$x:20000:::::: \n", "fail"),
        ("second_account_fail", "a:$6$x:20000:1:365:7:30::\nb:$6$x:20000:1:366:7:30::\n", "fail"),
    ],
)
def test_shadow(tmp_path: Path, name: str, text: str, status: str) -> None:
    assert shadow_probe.check(machine(tmp_path, {"/etc/shadow": text}), SPEC)["status"] == status, name


def test_no_shadow_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(shadow_probe.core.ProbeError, match="/etc/shadow does not exist"):
        shadow_probe.check(machine(tmp_path), SPEC)


def test_evidence_shows_no_hash(tmp_path: Path) -> None:
    finding = shadow_probe.check(machine(tmp_path, {"/etc/shadow": "a:$6$secret:1:0:99999:7:::\n"}), SPEC)
    assert "secret" not in str(finding)
    assert finding["reason"] == "max_days of a: expected 1 to 365, found 99999 in /etc/shadow:1"


# The modules


def set_defaults(root: Path, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
    def apply(batch: Any) -> None:
        batch.module.params.update(login_defs=str(root / "login.defs"), useradd=str(root / "useradd"))
        login_defs.apply(batch)

    return applied(apply, list(rules), check=check)


DAYS = rule("password_expiration_limited", "4.6.1.1", {"PASS_MAX_DAYS": 365})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("UMASK\t022 # ours\nPASS_MAX_DAYS\t99999\n", "UMASK\t022 # ours\nPASS_MAX_DAYS\t365\n"),
        ("# PASS_MAX_DAYS is\nPASS_MAX_DAYS   99999\nEND x\n", "# PASS_MAX_DAYS is\nPASS_MAX_DAYS   365\nEND x\n"),
        ("PASS_MAX_DAYS 99999\nPASS_MAX_DAYS 400\n", "PASS_MAX_DAYS 365\nPASS_MAX_DAYS 365\n"),
        ("PASS_MAX_DAYS 90\n", "PASS_MAX_DAYS 90\n"),
        ("PASS_MAX_DAYS 0\n", "PASS_MAX_DAYS 365\n"),
        ("UMASK 022", "UMASK 022\nPASS_MAX_DAYS\t365\n"),
        ("PASS_MAX_DAYS=90\n", "PASS_MAX_DAYS\t90\n"),
    ],
)
def test_only_the_line_of_the_key_changes(tmp_path: Path, before: str, after: str) -> None:
    tree(tmp_path, {"login.defs": before, "useradd": "INACTIVE=-1\n"})
    predicted, done = set_defaults(tmp_path, DAYS, check=True), set_defaults(tmp_path, DAYS)
    assert (tmp_path / "login.defs").read_text() == after
    assert (predicted["diff"], predicted["rules"]) == (done["diff"], done["rules"])
    assert done["changed"] == (before != after)
    assert not set_defaults(tmp_path, DAYS)["changed"]


def test_inactive_is_written_as_useradd_reads_it(tmp_path: Path) -> None:
    tree(tmp_path, {"login.defs": "", "useradd": " INACTIVE = 7\n"})
    set_defaults(tmp_path, rule("inactive", "4.6.1.4", {"INACTIVE": 30}))
    assert (tmp_path / "useradd").read_text() == "INACTIVE=7\n"


@pytest.mark.parametrize(("before", "after"), [("-1", "30"), ("60", "30"), ("7", "7"), ("0", "0"), ("", "30")])
def test_inactive_is_set_for_useradd(tmp_path: Path, before: str, after: str) -> None:
    tree(
        tmp_path,
        {"login.defs": "", "useradd": f"GROUP=100\nINACTIVE={before}\nSHELL=/bin/bash\n" if before else "A=1\n"},
    )
    set_defaults(tmp_path, rule("inactive", "4.6.1.4", {"INACTIVE": 30}))
    assert f"INACTIVE={after}\n" in (tmp_path / "useradd").read_text()
    assert (tmp_path / "login.defs").read_text() == ""


@pytest.fixture
def shadow_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shadow"
    monkeypatch.setattr(shadow, "SHADOW", str(path))
    day = int(time.time() // 86400) - 10  # on which the passwords were set
    accounts = ["root:*:{}:0:99999:7:::", "a:$6$x:{}:0:99999:7:::", "b:$6$x:{}:2:90:7:5::", "glass:$6$x:1:0:99999:7:::"]
    path.write_text("".join(line.format(day) + "\n" for line in accounts))
    return path


AGEING = [
    rule("max", "4.6.1.1", {"max_days": 365}),
    rule("min", "4.6.1.2", {"min_days": 1}),
    rule("inactive", "4.6.1.4", {"inactive_days": 30}),
]


def age(check: bool = False, answer: tuple[int, str, str] = (0, "", "")) -> tuple[dict[str, Any], list[list[str]]]:
    calls: list[list[str]] = []

    def apply(batch: Any) -> None:
        batch.module.params["exempt"] = ["glass"]
        shadow.apply(batch)

    return applied(apply, AGEING, check=check, program=lambda argv: (calls.append(argv), answer)[1]), calls


@pytest.mark.usefixtures("shadow_file")
def test_accounts_with_a_password_that_are_not_exempt_and_not_strict_already() -> None:
    done, calls = age()
    assert calls == [["chage", "--maxdays", "365", "--mindays", "1", "--inactive", "30", "a"]]
    assert done["rules"]["max"] == {"changed": True, "before": {"a": "99999"}, "after": {"a": "365"}}


@pytest.mark.usefixtures("shadow_file")
def test_check_mode_calls_nothing_and_says_the_same() -> None:
    predicted, calls = age(check=True)
    assert not calls
    assert predicted["diff"] == age()[0]["diff"]


@pytest.mark.usefixtures("shadow_file")
def test_chage_that_fails_names_the_account() -> None:
    with pytest.raises(Refused, match="cannot set the ageing of a: cannot lock"):
        age(answer=(1, "", "cannot lock"))


def test_a_password_that_would_expire_at_once_stops_all_of_it(shadow_file: Path) -> None:
    """With UsePAM an expired password ends logins by key, too, perhaps the one this runs through."""
    shadow_file.write_text(shadow_file.read_text() + "old:$6$x:1000:0:99999:7:::\n")
    with pytest.raises(
        Refused, match=r"rule max \(4\.6\.1\.1\): the password of old is \d+ days old .*cis_password_exempt"
    ):
        age()
    with pytest.raises(Refused, match="would expire at once"):
        age(check=True)
