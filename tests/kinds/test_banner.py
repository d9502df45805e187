"""Texts shown at login: states that pass, and more of them that fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import banner as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import banner
from machines import applied, machine, rule, settles, tree

RELEASE = {"/etc/os-release": 'NAME="Amazon Linux"\nID="amzn"\n'}
GOOD = "Authorized users only.\n"


@pytest.mark.parametrize(
    ("name", "files", "path", "status"),
    [
        ("plain_text_pass", {"/etc/issue": GOOD}, "/etc/issue", "pass"),
        ("other_escapes_pass", {"/etc/issue": "on \\l at \\t\n"}, "/etc/issue", "pass"),
        ("no_motd_pass", {}, "/etc/motd", "pass"),
        ("motd_is_a_link_pass", {"/etc/motd": "-> ../var/lib/motd", "/var/lib/motd": GOOD}, "/etc/motd", "pass"),
        ("stock_issue_fail", {"/etc/issue": "\\S\nKernel \\r on an \\m (\\l)\n"}, "/etc/issue", "fail"),
        ("lower_case_escape_fail", {"/etc/issue": "\\s\n"}, "/etc/issue", "fail"),
        ("id_of_the_system_fail", {"/etc/issue.net": "Welcome to AMZN\n"}, "/etc/issue.net", "fail"),
        ("name_of_the_system_fail", {"/etc/motd": "an amazon linux box\n"}, "/etc/motd", "fail"),
        (
            "linked_motd_tells_fail",
            {"/etc/motd": "-> ../var/lib/motd", "/var/lib/motd": "Amazon Linux 2023\n"},
            "/etc/motd",
            "fail",
        ),
        ("no_issue_fail", {}, "/etc/issue", "fail"),
        ("empty_issue_fail", {"/etc/issue": "\n"}, "/etc/issue", "fail"),
        ("issue_d_tells_fail", {"/etc/issue": GOOD, "/etc/issue.d/x.issue": "\\v\n"}, "/etc/issue", "fail"),
        (
            "issue_of_the_running_system_tells_fail",
            {"/etc/issue": GOOD, "/run/issue.d/x.issue": "\\v\n"},
            "/etc/issue",
            "fail",
        ),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, str | None], path: str, status: str) -> None:
    needed = "optional" if path == "/etc/motd" else "required"
    assert probe.check(machine(tmp_path, {**RELEASE, **files}), {path: needed})["status"] == status, name


def test_evidence_names_the_line(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {**RELEASE, "/etc/issue": "Hello\n\\S\n"}), {"/etc/issue": "required"})
    assert finding["reason"].endswith("found \\S in /etc/issue:2")


def test_a_text_is_written_and_stays(tmp_path: Path) -> None:
    tree(tmp_path, {"issue": "\\S\n"})
    settles(banner.apply, [rule("r", "1.7.2", {str(tmp_path / "issue"): "Authorized users only."})])
    assert (tmp_path / "issue").read_text() == GOOD
    assert (tmp_path / "issue").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("target", ["\\S\n", GOOD])
def test_a_link_makes_room_and_its_target_stays(tmp_path: Path, target: str) -> None:
    tree(tmp_path, {"usr/issue": target, "issue": "-> usr/issue"})
    rules = [rule("r", "1.7.2", {str(tmp_path / "issue"): "Authorized users only."})]
    predicted, done = applied(banner.apply, rules, check=True), applied(banner.apply, rules)
    assert predicted["diff"] == done["diff"] and done["changed"]
    assert not (tmp_path / "issue").is_symlink() and (tmp_path / "issue").read_text() == GOOD
    assert (tmp_path / "usr/issue").read_text() == target
    assert not applied(banner.apply, rules)["changed"]


@pytest.mark.parametrize(("shown", "stays"), [("Maintenance at noon\n", True), ("Amazon Linux 2023\n", False)])
def test_update_motd_keeps_its_link_while_it_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, stays: bool
) -> None:
    monkeypatch.setattr(banner, "UPDATE_MOTD", f"{tmp_path}/update-motd/")
    tree(tmp_path, {"update-motd/motd": shown, "motd": "-> update-motd/motd"})
    done = applied(banner.apply, [rule("r", "1.7.1", {str(tmp_path / "motd"): "Authorized users only."})])
    assert done["changed"] != stays
    assert (tmp_path / "motd").is_symlink() == stays
