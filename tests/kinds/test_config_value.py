"""Single values of configuration files: states that pass, and more of them that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import config_value as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import config_value
from machines import machine, rule, settles, tree

MAIN = "/etc/systemd/coredump.conf"
DROPINS = [f"{place}/systemd/coredump.conf.d" for place in ("/etc", "/run", "/usr/lib")]
CORE = [{"path": MAIN, "section": "Coredump", "dropins": DROPINS, "values": {"Storage": "none"}}]
REPOS = [{"path": "/etc/yum.repos.d/*.repo", "every": {"gpgcheck": {"in": ["1", "true"], "ignore_case": True}}}]
GROUP = [{"path": "/etc/audit/auditd.conf", "values": {"log_group": {"in": ["root", "adm"]}}}]
GOOD = "[Coredump]\nStorage=none\n"


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("main_file_pass", {MAIN: GOOD}, CORE, "pass"),
        ("drop_in_alone_pass", {"/etc/systemd/coredump.conf.d/60-cis.conf": GOOD}, CORE, "pass"),
        ("blanks_and_no_section_pass", {"/etc/audit/auditd.conf": "log_group = adm\n"}, GROUP, "pass"),
        ("repositories_inherit_pass", {"/etc/yum.repos.d/a.repo": "[a]\nenabled=1\n"}, REPOS, "pass"),
        ("word_in_any_case_pass", {"/etc/yum.repos.d/a.repo": "[a]\ngpgcheck=True\n"}, REPOS, "pass"),
        ("commented_default_fail", {MAIN: "[Coredump]\n#Storage=none\n"}, CORE, "fail"),
        ("other_section_fail", {MAIN: "[Journal]\nStorage=none\n"}, CORE, "fail"),
        ("outside_of_the_section_fail", {MAIN: "Storage=none\n[Coredump]\n"}, CORE, "fail"),
        ("later_line_wins_fail", {MAIN: f"{GOOD}Storage=external\n"}, CORE, "fail"),
        ("drop_in_wins_fail", {MAIN: GOOD, f"{DROPINS[2]}/10.conf": "[Coredump]\nStorage=external\n"}, CORE, "fail"),
        ("no_file_fail", {}, CORE, "fail"),
        ("semicolon_is_a_comment_fail", {"/etc/audit/auditd.conf": ";log_group = root\n"}, GROUP, "fail"),
        ("repository_that_is_off_fail", {"/etc/yum.repos.d/a.repo": "[a]\nenabled=0\ngpgcheck=0\n"}, REPOS, "fail"),
        ("second_repository_fail", {"/etc/yum.repos.d/a.repo": "[a]\ngpgcheck=1\n[b]\ngpgcheck=0\n"}, REPOS, "fail"),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], spec: list[Any], status: str) -> None:
    assert probe.check(machine(tmp_path, files), spec)["status"] == status, name


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[Coredump]\n#Storage=external\n", "[Coredump]\nStorage=none\n#Storage=external\n"),
        ("[Coredump]\nStorage = external\n", "[Coredump]\nStorage = none\n"),
        ("[Other]\nStorage=x\n", "[Other]\nStorage=x\n[Coredump]\nStorage=none\n"),
        ("[Coredump]\nA=1\n\n[Other]\nB=2\n", "[Coredump]\nA=1\nStorage=none\n\n[Other]\nB=2\n"),
        ("", "[Coredump]\nStorage=none\n"),
        (GOOD, GOOD),
    ],
)
def test_only_the_line_of_the_key_changes(tmp_path: Path, before: str, after: str) -> None:
    path = tree(tmp_path, {"a.conf": before}) / "a.conf"
    item = {"path": str(path), "section": "Coredump", "values": {"Storage": "none"}}
    settles(config_value.apply, [rule("r", "1.5.3", [item])])
    assert path.read_text() == after


def test_every_line_of_every_file_is_corrected_and_none_is_added(tmp_path: Path) -> None:
    tree(tmp_path, {"a.repo": "[a]\ngpgcheck=0\n[b]\ngpgcheck = False\n", "b.repo": "[c]\nenabled=1\n"})
    item = {"path": f"{tmp_path}/*.repo", "every": {"gpgcheck": 1}}
    settles(config_value.apply, [rule("r", "1.2.2", [item])])
    assert (tmp_path / "a.repo").read_text() == "[a]\ngpgcheck=1\n[b]\ngpgcheck = 1\n"
    assert (tmp_path / "b.repo").read_text() == "[c]\nenabled=1\n"


def test_nothing_is_made_for_a_program_that_is_not_there(tmp_path: Path) -> None:
    item = {"path": f"{tmp_path}/audit/auditd.conf", "values": {"log_group": "root"}}
    assert not settles(config_value.apply, [rule("r", "5.2.4.3", [item])])["changed"]
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(
    "before",
    [
        "[Coredump]\n#Storage=external\n",
        "[Coredump]\nStorage = external\n# a comment\nOther=1\n",
        "[Other]\nStorage=x\n",
        None,
    ],
)
def test_a_rule_that_is_no_longer_selected_leaves_the_file_as_it_was(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "a.conf"
    if before is not None:
        path.write_text(before)
    item = {"path": str(path), "section": "Coredump", "values": {"Storage": "none"}}
    memory = tmp_path / "memory"
    settles(config_value.apply, [rule("r", "1.5.3", [item])], memory=memory)
    assert "Storage=none" in path.read_text().replace(" ", "")
    settles(config_value.apply, [rule("r", "1.5.3", state="absent")], memory=memory)
    assert (path.read_text() if path.exists() else None) == before
    assert list(memory.iterdir()) == []


def test_what_an_administrator_changed_since_is_not_given_back(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("[Coredump]\nStorage=external\n")
    item = {"path": str(path), "section": "Coredump", "values": {"Storage": "none"}}
    memory = tmp_path / "memory"
    settles(config_value.apply, [rule("r", "1.5.3", [item])], memory=memory)
    path.write_text("[Coredump]\nStorage=journal\n")
    assert not settles(config_value.apply, [rule("r", "1.5.3", state="absent")], memory=memory)["changed"]


def test_lines_an_administrator_added_between_two_runs_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.repo"
    path.write_text("[a]\ngpgcheck=0\n")
    want = [rule("r", "1.2.2", [{"path": str(path), "every": {"gpgcheck": 1}}])]
    memory = tmp_path / "memory"
    settles(config_value.apply, want, memory=memory)
    path.write_text("[first]\ngpgcheck=0\n" + path.read_text())
    settles(config_value.apply, want, memory=memory)
    assert not settles(config_value.apply, [rule("r", "1.2.2", state="absent")], memory=memory)["changed"]


def test_a_rule_outside_of_the_tags_keeps_its_value_and_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("[Coredump]\nStorage=external\n")
    item = {"path": str(path), "section": "Coredump", "values": {"Storage": "none"}}
    memory = tmp_path / "memory"
    settles(config_value.apply, [rule("r", "1.5.3", [item])], memory=memory)
    settles(config_value.apply, [rule("r", "1.5.3", state="keep")], memory=memory)
    assert "Storage=none" in path.read_text()
    assert len(list(memory.iterdir())) == 1


@pytest.mark.parametrize(("running", "told"), [(0, ["service auditd reload"]), (3, [])])
def test_the_service_that_reads_the_file_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: int, told: list[str]
) -> None:
    calls: list[str] = []

    def program(argv: list[str]) -> tuple[int, str, str]:
        calls.append(" ".join(argv))
        return (running if argv[0] == "systemctl" else 0), "", ""

    monkeypatch.setattr(runtime, "MANAGER", str(tmp_path))
    path = tree(tmp_path, {"auditd.conf": "max_log_file = 8\n"}) / "auditd.conf"
    item = {"path": str(path), "values": {"max_log_file": 20}}
    settles(config_value.apply, [rule("r", "5.2.2.1", [item])], "auditd.service", program=program)
    assert [call for call in calls if call.startswith("service")] == told
    assert path.read_text() == "max_log_file = 20\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [("a = 50\n", "a = 50\n"), ("a = 3\n", "a = 8\n"), ("a = 500\n", "a = 8\n"), ("a = x\n", "a = 8\n"), ("", "a=8\n")],
)
def test_a_value_of_the_administrator_that_lies_within_stays(tmp_path: Path, before: str, after: str) -> None:
    path = tree(tmp_path, {"a.conf": before}) / "a.conf"
    settles(config_value.apply, [rule("r", "5.2.2.1", [{"path": str(path), "values": {"a": {"min": 8, "max": 99}}}])])
    assert path.read_text() == after
