"""tmpfiles: modes of journal files that pass, and more of them that fail; a file in /etc replaces a package's whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import tmpfiles as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import tmpfiles
from machines import applied, machine, rule, settles, tree

USR = "/usr/lib/tmpfiles.d/systemd.conf"
ETC = "/etc/tmpfiles.d/systemd.conf"
STOCK = """z /run/log/journal 2755 root systemd-journal - -
Z /run/log/journal/%m ~2750 root systemd-journal - -
z /var/log/journal/%m 2755 root systemd-journal - -
z /var/log/journal/%m/system.journal 0640 root systemd-journal - -
a+ /var/log/journal/%m/system.journal - - - - group:adm:r--
d /var/lib/systemd 0755 root root -
"""
OPEN = STOCK.replace("system.journal 0640", "system.journal 0644")
SPEC = {"/run/log/journal": "0640", "/var/log/journal": "0640"}


@pytest.mark.parametrize(
    ("name", "files", "status"),
    [
        ("stock_pass", {USR: STOCK}, "pass"),
        ("stricter_pass", {USR: STOCK.replace("0640", "0600")}, "pass"),
        ("open_file_of_the_package_replaced_pass", {USR: OPEN, ETC: STOCK}, "pass"),
        ("commented_pass", {USR: STOCK + "# z /var/log/journal/%m/a.journal 0666\n"}, "pass"),
        ("another_directory_pass", {USR: STOCK + "z /var/log/journals/a.log 0666 - - -\n"}, "pass"),
        ("no_mode_pass", {USR: "z /var/log/journal/%m/*.journal - root root - -\n"}, "pass"),
        ("nothing_said_pass", {}, "pass"),
        ("open_file_fail", {USR: OPEN}, "fail"),
        ("override_fail", {USR: STOCK, ETC: OPEN}, "fail"),
        ("override_in_run_fail", {USR: STOCK, "/run/tmpfiles.d/systemd.conf": OPEN}, "fail"),
        ("another_file_fail", {USR: STOCK, "/etc/tmpfiles.d/a.conf": "z /var/log/journal/%m/*.journal 0660\n"}, "fail"),
        ("masked_open_below_fail", {USR: STOCK.replace("~2750", "~2755")}, "fail"),
        ("open_below_fail", {USR: STOCK.replace("~2750", "2750")}, "fail"),
        ("made_open_at_boot_fail", {USR: "f! /var/log/journal/%m/a.journal 0644 root root - -\n"}, "fail"),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], status: str) -> None:
    assert probe.check(machine(tmp_path, files), SPEC)["status"] == status, name


def test_evidence_names_file_and_line(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {USR: STOCK, ETC: OPEN}), SPEC)
    assert finding["reason"] == (
        f"z /var/log/journal/%m/system.journal: expected 0640 or stricter, found 0644 in {ETC}:4"
    )


# The module


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directories = tuple(f"{tmp_path}/{name}/tmpfiles.d" for name in ("etc", "run", "usr/local/lib", "usr/lib"))
    monkeypatch.setattr(tmpfiles, "DIRECTORIES", directories)
    return tmp_path


RULE = rule("journald_file_permissions", "5.1.2.7", SPEC)


def test_what_is_right_is_left_alone(place: Path) -> None:
    tree(place, {USR: STOCK})
    assert not settles(tmpfiles.apply, [RULE])["changed"]
    assert not (place / "etc").exists()


def test_an_override_loses_the_bits_and_gets_them_back(place: Path) -> None:
    override = OPEN.replace("z /var/log/journal/%m/system", "z  /var/log/journal/%m/system") + "# mine\n"
    tree(place, {USR: STOCK, ETC: override})
    settles(tmpfiles.apply, [RULE], memory=place / "memory")
    assert (place / ETC.lstrip("/")).read_text() == override.replace("0644", "0640")
    settles(tmpfiles.apply, [rule("journald_file_permissions", "5.1.2.7", state="absent")], memory=place / "memory")
    assert (place / ETC.lstrip("/")).read_text() == override


def test_a_package_s_file_is_replaced_by_a_corrected_copy_that_goes_again(place: Path) -> None:
    text = STOCK.replace("~2750", "~2777")
    tree(place, {USR: text})
    settles(tmpfiles.apply, [RULE], memory=place / "memory")
    assert (place / USR.lstrip("/")).read_text() == text
    assert (place / ETC.lstrip("/")).read_text() == STOCK
    assert probe.check(machine(place), SPEC)["status"] == "pass"
    settles(tmpfiles.apply, [rule("journald_file_permissions", "5.1.2.7", state="absent")], memory=place / "memory")
    assert not (place / ETC.lstrip("/")).exists()


def test_a_copy_changed_since_stays(place: Path) -> None:
    tree(place, {USR: OPEN})
    gone: list[dict[str, Any]] = [rule("journald_file_permissions", "5.1.2.7", state="absent")]
    applied(tmpfiles.apply, [RULE], memory=place / "memory")
    (place / ETC.lstrip("/")).write_text("# mine\n")
    applied(tmpfiles.apply, gone, memory=place / "memory")
    assert (place / ETC.lstrip("/")).read_text() == "# mine\n"
