"""journald: states that pass, and more that fail; drop-ins that beat the main file, a journald that is too old."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import conditions
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import journald as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import journald
from machines import Refused, applied, machine, rule, tree

MAIN = "/etc/systemd/journald.conf"
ETC = "/etc/systemd/journald.conf.d"
USR = "/usr/lib/systemd/journald.conf.d"
STOCK = "# comment\n\n[Journal]\n#Storage=auto\n#Compress=yes\n"
GOOD = "[Journal]\nStorage=persistent\n"
BAD = "[Journal]\nStorage=volatile\n"
STORAGE = {"Journal": {"Storage": "persistent"}}
OFF = {"Journal": {"ForwardToSyslog": {"unset_or": {"in": ["no", "false"], "ignore_case": True}}}}
SIZE = {"Journal": {"SystemMaxUse": {"matches": "[0-9]+[KMGT]?"}}}
UPLOAD = {"Upload": {"URL": {"matches": "https?://.+"}, "ServerKeyFile": {"matches": "/.+"}}}
UPLOADS = "[Upload]\nURL=https://c:19532\nServerKeyFile=/etc/key.pem\n"


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("main_file_pass", {MAIN: GOOD}, STORAGE, "pass"),
        ("drop_in_alone_pass", {MAIN: STOCK, f"{ETC}/60-cis.conf": GOOD}, STORAGE, "pass"),
        ("etc_replaces_one_of_a_package_pass", {f"{USR}/a.conf": BAD, f"{ETC}/a.conf": GOOD}, STORAGE, "pass"),
        ("masked_pass", {MAIN: GOOD, f"{USR}/a.conf": BAD, f"{ETC}/a.conf": "-> /dev/null"}, STORAGE, "pass"),
        ("dangling_drop_in_pass", {MAIN: GOOD, f"{ETC}/a.conf": "-> /nowhere"}, STORAGE, "pass"),
        ("blanks_around_pass", {MAIN: "[Journal]\n  Storage = persistent \n"}, STORAGE, "pass"),
        ("forwarding_not_set_pass", {MAIN: STOCK}, OFF, "pass"),
        ("forwarding_off_in_other_words_pass", {MAIN: "[Journal]\nForwardToSyslog=False\n"}, OFF, "pass"),
        ("size_of_the_site_pass", {MAIN: "[Journal]\nSystemMaxUse=500M\n"}, SIZE, "pass"),
        ("upload_pass", {"/etc/systemd/journal-upload.conf": UPLOADS, "/etc/key.pem": ""}, UPLOAD, "pass"),
        ("commented_default_fail", {MAIN: STOCK}, STORAGE, "fail"),
        ("auto_fail", {MAIN: "[Journal]\nStorage=auto\n"}, STORAGE, "fail"),
        ("other_case_of_the_key_fail", {MAIN: "[Journal]\nstorage=persistent\n"}, STORAGE, "fail"),
        ("other_section_fail", {MAIN: "[Upload]\nStorage=persistent\n"}, STORAGE, "fail"),
        ("before_the_section_fail", {MAIN: "Storage=persistent\n[Journal]\n"}, STORAGE, "fail"),
        ("later_line_fail", {MAIN: f"{GOOD}Storage=none\n"}, STORAGE, "fail"),
        ("drop_in_of_etc_wins_fail", {MAIN: GOOD, f"{ETC}/10.conf": BAD}, STORAGE, "fail"),
        ("drop_in_of_a_package_wins_fail", {MAIN: GOOD, f"{USR}/10.conf": BAD}, STORAGE, "fail"),
        ("drop_in_of_run_wins_fail", {MAIN: GOOD, "/run/systemd/journald.conf.d/10.conf": BAD}, STORAGE, "fail"),
        ("of_two_drop_ins_the_later_fail", {f"{ETC}/60-cis.conf": GOOD, f"{USR}/70.conf": BAD}, STORAGE, "fail"),
        ("no_file_fail", {}, STORAGE, "fail"),
        ("forwarding_fail", {MAIN: "[Journal]\nForwardToSyslog=yes\n"}, OFF, "fail"),
        ("no_limit_fail", {MAIN: "[Journal]\nSystemMaxUse=\n"}, SIZE, "fail"),
        ("upload_without_its_key_fail", {"/etc/systemd/journal-upload.conf": UPLOADS}, UPLOAD, "fail"),
        ("upload_not_configured_fail", {"/etc/systemd/journal-upload.conf": "[Upload]\n# URL=\n"}, UPLOAD, "fail"),
        ("journal_on_disk_pass", {MAIN: GOOD, "/run/systemd/system": None, "/var/log/journal": None}, STORAGE, "pass"),
        ("no_directory_for_the_journal_fail", {MAIN: GOOD, "/run/systemd/system": None}, STORAGE, "fail"),
    ],
)  # fmt: skip
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], spec: dict[str, Any], status: str) -> None:
    assert probe.check(machine(tmp_path, files), spec)["status"] == status, name


def started(root: Path, unit: str, before: float) -> None:
    """A unit that has been running for ``before`` seconds."""
    link = root / f"run/systemd/units/invocation:{unit}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to("0123")
    now = (root / MAIN.lstrip("/")).stat().st_mtime
    os.utime(link, (now - before, now - before), follow_symlinks=False)


def test_right_on_disk_is_not_enough_for_a_journald_that_has_not_read_it(tmp_path: Path) -> None:
    node = machine(tmp_path, {MAIN: GOOD})
    started(tmp_path, "systemd-journald.service", -1)
    assert probe.check(node, STORAGE)["status"] == "pass"
    started(tmp_path, "systemd-journald.service", 60)
    finding = probe.check(node, STORAGE)
    assert finding["status"] == "fail"
    assert f"systemd-journald.service (running): expected started after the last change of {MAIN}" in finding["reason"]


def test_a_drop_in_taken_away_under_a_running_journald_counts_too(tmp_path: Path) -> None:
    node = machine(tmp_path, {MAIN: GOOD, f"{ETC}/10.conf": BAD})
    started(tmp_path, "systemd-journald.service", 60)
    past = (tmp_path / MAIN.lstrip("/")).stat().st_mtime - 100
    os.utime(tmp_path / MAIN.lstrip("/"), (past, past))
    (tmp_path / ETC.lstrip("/") / "10.conf").unlink()
    assert ETC in probe.check(node, STORAGE)["reason"]


def test_evidence_names_file_and_line(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {MAIN: GOOD, f"{USR}/10.conf": f"# x\n{BAD}"}), STORAGE)
    assert finding["reason"] == f"Storage: expected persistent, found volatile in {USR}/10.conf:3"


RPM = "rpm -qa --queryformat %{NAME} %{VERSION}-%{RELEASE}\\n"


@pytest.mark.parametrize(
    ("packages", "text", "reason"),
    [
        ("bash 5-1\n", GOOD, f"package rsyslog is not installed; journald keeps the logs, as {MAIN}:2 says"),
        ("bash 5-1\n", STOCK, ""),
        ("rsyslog 8-1\n", GOOD, ""),
    ],
)
def test_rsyslog_s_rules_apply_unless_journald_keeps_the_logs(
    tmp_path: Path, packages: str, text: str, reason: str
) -> None:
    assert conditions.unmet(machine(tmp_path, {MAIN: text}, {RPM: packages}), {"logger": "rsyslog"}) == reason


# The module


class Place:
    """A tree whose systemd runs, or not; ``said`` are the commands that change something."""

    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], running: bool = True
    ) -> None:
        self.root = tree(root, {MAIN: STOCK, "/var/log/journal": None, **files})
        self.said: list[str] = []
        self.packages: set[str] = set()
        monkeypatch.setattr(
            journald,
            "DIRECTORIES",
            tuple(f"{root}/{name}/systemd" for name in ("etc", "run", "usr/local/lib", "usr/lib")),
        )
        monkeypatch.setattr(journald, "JOURNAL", f"{root}/var/log/journal")
        monkeypatch.setattr(journald, "STARTED", f"{root}/run/systemd/units/invocation:")
        monkeypatch.setattr(runtime, "manager_runs", lambda: running)

    def text(self, path: str = MAIN) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def program(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "rpm":
            return (0, "", "") if argv[-1] in self.packages else (1, "", "")
        self.said.append(" ".join(argv))
        if argv[:2] == ["systemctl", "restart"]:
            started(self.root, argv[2], -1)
        return 0, "", ""

    def run(self, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
        self.said = []
        return applied(journald.apply, list(rules), check=check, program=self.program, memory=self.root / "memory")

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        predicted = self.run(*rules, check=True)
        assert self.said == []
        done = self.run(*rules)
        said = self.said
        again = self.run(*rules)
        assert predicted["diff"] == done["diff"] and predicted["rules"] == done["rules"]
        assert not again["changed"] and not again["diff"] and self.said == []
        self.said = said
        return done


PERSISTENT = rule("journald_storage_persistent", "5.1.2.4", STORAGE)
COMPRESS = rule("journald_compresses", "5.1.2.3", {"Journal": {"Compress": "yes"}})
FORWARD = rule("forwards", "5.1.1.3", {"Journal": {"ForwardToSyslog": "yes"}, "if_package": "rsyslog"})
FORWARD_OFF = rule("forward_off", "5.1.2.5", {"Journal": {"ForwardToSyslog": "no"}, "if_package_absent": "rsyslog"})


def absent(one: dict[str, Any]) -> dict[str, Any]:
    return rule(one["rule"], one["id"], state="absent")


def test_it_writes_the_main_file_and_restarts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {})
    place.settles(PERSISTENT, COMPRESS)
    assert place.text() == STOCK.replace("[Journal]\n", "[Journal]\nStorage=persistent\nCompress=yes\n")
    assert place.said == [
        "systemctl restart systemd-journald.service",
        "journalctl --flush",
        f"systemd-tmpfiles --create --prefix {tmp_path}/var/log/journal",
    ]


def test_a_wrong_line_in_tmpfiles_of_others_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {})

    def program(argv: list[str]) -> tuple[int, str, str]:
        return (65, "", "Unknown user") if argv[0] == "systemd-tmpfiles" else place.program(argv)

    assert applied(journald.apply, [PERSISTENT], program=program)["changed"]


def test_without_a_service_manager_only_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {}, running=False)
    place.settles(PERSISTENT)
    assert "Storage=persistent\n" in place.text() and place.said == []


def test_lines_of_etc_that_say_otherwise_are_changed_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        MAIN: "[Journal]\nStorage =  volatile\n",
        f"{ETC}/10 site.conf": "; mine\n[Journal]\nStorage=none\nSeal=no\n",
    }
    place = Place(tmp_path, monkeypatch, files)
    place.settles(PERSISTENT)
    assert place.text() == "[Journal]\nStorage =  persistent\n"
    assert place.text(f"{ETC}/10 site.conf") == "; mine\n[Journal]\nStorage=persistent\nSeal=no\n"
    assert not (tmp_path / ETC.lstrip("/") / "zz-cis.conf").exists()
    place.settles(absent(PERSISTENT))
    assert {path: place.text(path) for path in files} == files


def test_a_drop_in_of_a_package_is_beaten_by_one_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {f"{USR}/20-vendor.conf": BAD})
    place.settles(PERSISTENT, COMPRESS)
    assert place.text(f"{USR}/20-vendor.conf") == BAD
    assert place.text(f"{ETC}/zz-cis.conf").splitlines()[1:] == [
        *("[Journal]", "# 5.1.2.4 journald_storage_persistent", "Storage=persistent")
    ]
    assert probe.check(machine(tmp_path), STORAGE)["status"] == "pass"
    place.settles(absent(PERSISTENT), COMPRESS)
    assert not (tmp_path / ETC.lstrip("/") / "zz-cis.conf").exists()


def test_a_drop_in_that_is_read_after_ours_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {f"{USR}/zzz.conf": BAD})
    for check in (True, False):
        with pytest.raises(Refused, match=r"zzz.conf sets Storage and is read after .*zz-cis.conf"):
            place.run(PERSISTENT, check=check)
    assert place.text() == STOCK


def test_a_journald_older_than_its_files_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {MAIN: GOOD})
    started(tmp_path, "systemd-journald.service", 60)
    place.settles(PERSISTENT)
    assert place.said[0] == "systemctl restart systemd-journald.service"


def test_one_of_two_contrary_rules_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {})
    place.settles(FORWARD, FORWARD_OFF)
    assert "ForwardToSyslog=no\n" in place.text()
    place.packages = {"rsyslog"}
    place.settles(FORWARD, FORWARD_OFF)
    assert place.text() == STOCK.replace("[Journal]\n", "[Journal]\nForwardToSyslog=yes\n")
    place.settles(absent(FORWARD), absent(FORWARD_OFF))
    assert place.text() == STOCK


def test_deselected_rules_take_their_lines_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {})
    place.settles(PERSISTENT, COMPRESS)
    path = tmp_path / MAIN.lstrip("/")
    path.write_text(path.read_text() + "MaxLevelStore=info\n")
    place.run(absent(PERSISTENT), rule(COMPRESS["rule"], "5.1.2.3", state="keep"))
    assert place.text() == STOCK.replace("[Journal]\n", "[Journal]\nCompress=yes\n") + "MaxLevelStore=info\n"


def test_an_administrator_s_later_value_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {})
    place.settles(PERSISTENT)
    path = tmp_path / MAIN.lstrip("/")
    path.write_text(path.read_text().replace("=persistent", "=none"))
    place.settles(absent(PERSISTENT))
    assert "Storage=none\n" in place.text()


def test_the_upload_is_configured_with_the_values_of_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = {"Upload": {"URL": "https://c:19532", "ServerKeyFile": None}}
    place = Place(tmp_path, monkeypatch, {"/etc/systemd/journal-upload.conf": "[Upload]\n# URL=\n"})
    place.settles(rule("journal_upload_configured", "5.1.2.1.2", want))
    assert place.text("/etc/systemd/journal-upload.conf") == "[Upload]\nURL=https://c:19532\n# URL=\n"
    assert place.said == []  # it does not run
    assert place.text() == STOCK


def test_check_mode_counts_packages_of_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {})

    def apply(batch: Any) -> None:
        batch.module.params["installs"] = [rule("rsyslog_installed", "5.1.1.1", {"present": ["rsyslog"]})]
        journald.apply(batch)

    foretold = applied(apply, [FORWARD, FORWARD_OFF], check=True, program=place.program)
    assert "ForwardToSyslog=yes" in foretold["diff"][0]["after"]
