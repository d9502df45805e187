"""sudo: states that pass, and more of them that fail; Defaults that are read last, checked whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import sudo as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import sudo
from machines import Refused, applied, machine, rule, tree

STOCK = "Defaults secure_path = /sbin:/bin\nroot ALL=(ALL) ALL\n#includedir /etc/sudoers.d\n"
CLOUD = {"/etc/sudoers.d/90-cloud-init-users": "ec2-user ALL=(ALL) NOPASSWD:ALL\n"}
VERSION = {"sudo -V": "Sudo version 1.9.15\nAuthentication timestamp timeout: 5.0 minutes\n"}
PTY = {"use_pty": True}
LOG = {"logfile": {"matches": "/.+"}}
AUTH = {"authenticate": True}
TIME = {"timestamp_timeout": {"min": 0, "max": 15}}
OURS = "/etc/sudoers.d/zz-cis"


def look(root: Path, files: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    return probe.check(machine(root, {"/etc/sudoers": STOCK, **CLOUD, **files}, VERSION), spec)


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("main_file_pass", {"/etc/sudoers": "Defaults use_pty\n"}, PTY, "pass"),
        ("drop_in_pass", {OURS: "Defaults use_pty\n"}, PTY, "pass"),
        (
            "at_sign_includedir_pass",
            {"/etc/sudoers": "@includedir /etc/sudoers.d\n", OURS: "Defaults use_pty\n"},
            PTY,
            "pass",
        ),
        (
            "one_of_several_on_a_line_pass",
            {OURS: 'Defaults env_reset, use_pty, logfile="/var/log/sudo.log"\n'},
            {**PTY, **LOG},
            "pass",
        ),
        (
            "taken_back_before_pass",
            {"/etc/sudoers.d/10": "Defaults !use_pty\n", OURS: "Defaults use_pty\n"},
            PTY,
            "pass",
        ),
        ("continued_line_pass", {OURS: "Defaults env_reset, \\\n  use_pty\n"}, PTY, "pass"),
        ("logfile_without_quotes_pass", {OURS: "Defaults logfile=/var/log/sudo.log\n"}, LOG, "pass"),
        ("compiled_in_timeout_pass", {}, TIME, "pass"),
        ("fraction_of_a_minute_pass", {OURS: "Defaults timestamp_timeout=0.5\n"}, TIME, "pass"),
        ("nopasswd_is_no_authenticate_pass", {}, AUTH, "pass"),
        ("commented_authenticate_pass", {OURS: "# Defaults !authenticate\n"}, AUTH, "pass"),
        ("not_set_fail", {}, PTY, "fail"),
        (
            "later_file_takes_back_fail",
            {OURS: "Defaults use_pty\n", "/etc/sudoers.d/zzz": "Defaults !use_pty\n"},
            PTY,
            "fail",
        ),
        (
            "main_after_includedir_takes_back_fail",
            {"/etc/sudoers": f"{STOCK}Defaults !use_pty\n", OURS: "Defaults use_pty\n"},
            PTY,
            "fail",
        ),
        ("name_with_a_dot_fail", {"/etc/sudoers.d/60-cis.conf": "Defaults use_pty\n"}, PTY, "fail"),
        ("backup_name_fail", {"/etc/sudoers.d/60-cis~": "Defaults use_pty\n"}, PTY, "fail"),
        ("no_includedir_fail", {"/etc/sudoers": "root ALL=(ALL) ALL\n", OURS: "Defaults use_pty\n"}, PTY, "fail"),
        ("only_for_a_user_fail", {OURS: "Defaults:ec2-user use_pty\n"}, PTY, "fail"),
        ("commented_fail", {OURS: "# Defaults use_pty\n"}, PTY, "fail"),
        ("syslog_is_no_logfile_fail", {OURS: "Defaults syslog=authpriv\n"}, LOG, "fail"),
        ("logfile_taken_back_fail", {OURS: "Defaults logfile=/var/log/sudo.log\nDefaults !logfile\n"}, LOG, "fail"),
        ("authenticate_taken_for_one_user_fail", {"/etc/sudoers.d/ci": "Defaults:ci !authenticate\n"}, AUTH, "fail"),
        ("timeout_never_fail", {OURS: "Defaults timestamp_timeout=-1\n"}, TIME, "fail"),
        ("timeout_too_long_fail", {OURS: "Defaults timestamp_timeout=16\n"}, TIME, "fail"),
        (
            "one_of_two_timeouts_fail",
            {"/etc/sudoers.d/10": "Defaults env_reset,timestamp_timeout=60\n", OURS: "Defaults timestamp_timeout=15\n"},
            TIME,
            "fail",
        ),
        ("timeout_of_one_user_fail", {"/etc/sudoers.d/ci": "Defaults:ci timestamp_timeout=-1\n"}, TIME, "fail"),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], spec: dict[str, Any], status: str) -> None:
    assert look(tmp_path, files, spec)["status"] == status, name


def test_evidence_names_file_and_line(tmp_path: Path) -> None:
    finding = look(tmp_path, {OURS: "Defaults use_pty\n", "/etc/sudoers.d/zzz": "\nDefaults !use_pty\n"}, PTY)
    assert finding["reason"] == "Defaults use_pty: expected yes, found !use_pty in /etc/sudoers.d/zzz:2"


# The module


class Place:
    """A tree and a visudo that refuses the word nonsense in sudoers or any file it includes."""

    def __init__(self, root: Path, files: dict[str, str] | None = None) -> None:
        self.root = root
        whole = {"/etc/sudoers": STOCK, **CLOUD, **(files or {})}
        tree(root, {path: text.replace("/etc/sudoers.d", f"{root}/etc/sudoers.d") for path, text in whole.items()})
        (root / "etc/logrotate.d").mkdir()

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    may = "(ALL) ALL"  # what `sudo -l -U` says of the user

    def visudo(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "sudo":
            return 0, self.may, ""
        main = Path(argv[-1]).read_text()
        directory = re.search(r"(?m)^[#@]includedir (\S+)", main)
        texts = [main, *(path.read_text() for path in Path(directory[1]).iterdir())] if directory else [main]
        return (1, "", "syntax error") if any("nonsense" in text for text in texts) else (0, "", "")

    def run(self, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
        def apply(batch: Any) -> None:
            batch.module.params.update(
                path=str(self.path(OURS)),
                main=str(self.path("/etc/sudoers")),
                rotation=str(self.path("/etc/logrotate.d/cis-sudo")),
            )
            sudo.apply(batch)

        return applied(apply, list(rules), check=check, program=self.visudo)

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        predicted, done, again = self.run(*rules, check=True), self.run(*rules), self.run(*rules)
        assert predicted["diff"] == done["diff"] and predicted["rules"] == done["rules"]
        assert not again["changed"] and not again["diff"]
        return done


USE_PTY = rule("sudo_uses_pty", "4.3.2", PTY)
LOGFILE = rule("sudo_log_file_configured", "4.3.3", {"logfile": "/var/log/sudo.log"})
ASKS = rule("sudo_reauthentication_required", "4.3.4", AUTH)
TIMEOUT = rule("sudo_timeout_limited", "4.3.5", {"timestamp_timeout": 15})


def test_it_writes_a_drop_in_and_leaves_who_may_do_what(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.settles(USE_PTY, LOGFILE, ASKS, TIMEOUT)
    text = place.path(OURS).read_text()
    assert "Defaults use_pty\n" in text and 'Defaults logfile="/var/log/sudo.log"\n' in text
    assert place.path(OURS).stat().st_mode & 0o777 == 0o440
    assert "NOPASSWD" in place.path("/etc/sudoers.d/90-cloud-init-users").read_text()
    assert "/var/log/sudo.log {" in place.path("/etc/logrotate.d/cis-sudo").read_text()


def test_nothing_is_left_when_no_rule_is_selected(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(USE_PTY, LOGFILE)
    place.run()
    assert not place.path(OURS).exists() and not place.path("/etc/logrotate.d/cis-sudo").exists()


def test_an_includedir_is_added_where_none_reads_the_drop_in(tmp_path: Path) -> None:
    place = Place(tmp_path, {"/etc/sudoers": "root ALL=(ALL) ALL\n"})
    place.settles(USE_PTY)
    assert place.path("/etc/sudoers").read_text().endswith(f"#includedir {place.path(OURS).parent}\n")


def test_a_directory_beside_the_drop_in_is_passed_over(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.path("/etc/sudoers.d/old").mkdir()
    place.settles(USE_PTY, TIMEOUT)
    node = machine(tmp_path, {"/etc/sudoers": f"#includedir {place.path(OURS).parent}\n"}, VERSION)
    assert probe.check(node, TIME)["status"] == "pass"


def test_authenticate_comes_back_wherever_it_was_taken(tmp_path: Path) -> None:
    place = Place(tmp_path, {"/etc/sudoers.d/ci": "# !authenticate\nDefaults:ci env_reset, !authenticate\n"})
    place.settles(ASKS)
    assert place.path("/etc/sudoers.d/ci").read_text() == "# !authenticate\nDefaults:ci env_reset, authenticate\n"


@pytest.mark.parametrize(("user", "may", "refused"), [
    ("ci", "(ALL) ALL", True),
    ("ci", "(ALL) NOPASSWD: ALL", False),
    ("other", "(ALL) ALL", False),
    ("root", "(ALL) ALL", False),
])  # fmt: skip
def test_the_user_this_runs_as_keeps_its_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, may: str, refused: bool
) -> None:
    place = Place(tmp_path, {"/etc/sudoers.d/ci": "Defaults:ci !authenticate\n"})
    place.may = may
    monkeypatch.setenv("SUDO_USER", user)
    if not refused:
        place.settles(ASKS)
        return
    for check in (True, False):
        with pytest.raises(Refused, match=r"all that lets ci, the user this runs as"):
            place.run(ASKS, check=check)
    assert "!authenticate" in place.path("/etc/sudoers.d/ci").read_text()


@pytest.mark.parametrize(
    ("line", "left", "ours"),
    [
        ("Defaults timestamp_timeout=-1\n", "Defaults timestamp_timeout=15\n", "15"),
        ("Defaults env_reset, timestamp_timeout = 60\n", "Defaults env_reset, timestamp_timeout=15\n", "15"),
        ("Defaults timestamp_timeout=2\n", "Defaults timestamp_timeout=2\n", "2"),
        ("Defaults:ci timestamp_timeout=2\n", "Defaults:ci timestamp_timeout=2\n", "15"),
    ],
)
def test_a_timeout_is_shortened_and_never_made_longer(tmp_path: Path, line: str, left: str, ours: str) -> None:
    place = Place(tmp_path, {"/etc/sudoers.d/10": line})
    place.settles(TIMEOUT)
    assert place.path("/etc/sudoers.d/10").read_text() == left
    assert f"Defaults timestamp_timeout={ours}\n" in place.path(OURS).read_text()


@pytest.mark.parametrize("check", [True, False])
def test_what_visudo_refuses_is_not_put_in_place(tmp_path: Path, check: bool) -> None:
    place = Place(tmp_path, {"/etc/sudoers.d/ci": "Defaults !authenticate, nonsense\n"})
    with pytest.raises(Refused, match="visudo refuses it: syntax error"):
        place.run(USE_PTY, ASKS, check=check)
    assert not place.path(OURS).exists()
    assert "!authenticate" in place.path("/etc/sudoers.d/ci").read_text()


@pytest.mark.parametrize(
    "files", [{"/etc/sudoers.d/zzz": "Defaults !use_pty\n"}, {"/etc/sudoers": f"{STOCK}Defaults !use_pty\n"}]
)
def test_a_line_that_is_read_later_is_named(tmp_path: Path, files: dict[str, str]) -> None:
    place = Place(tmp_path, files)
    with pytest.raises(Refused, match=r"'Defaults !use_pty' is read after .*zz-cis and wins"):
        place.run(USE_PTY)
    assert not place.path(OURS).exists()


def test_a_line_that_is_read_later_and_agrees_is_no_matter(tmp_path: Path) -> None:
    Place(tmp_path, {"/etc/sudoers": f"{STOCK}Defaults use_pty, logfile=/var/log/sudo.log\n"}).settles(USE_PTY, LOGFILE)
