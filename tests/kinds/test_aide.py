"""AIDE: lines that decide what is watched, timers and crontabs that run it, a database built last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import aide as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import aide, aide_database
from machines import Output, Refused, applied, machine, rule, settles, tree

ALL = "p+i+n+u+g+s+b+acl+xattrs+sha512"
STOCK = """\
@@define DBDIR /var/lib/aide
database_in=file:@@{DBDIR}/aide.db.gz
database_out=file:@@{DBDIR}/aide.db.new.gz
FIPSR = p+i+n+u+g+s+m+c+acl+selinux+xattrs+sha256
STRONG = FIPSR+b+sha512
/etc/passwd$ FIPSR
"""
TOOL = "/usr/sbin/auditctl"
SELECT = {"select": {"paths": [TOOL], "attributes": ALL.split("+")}}
SCHEDULED = {"scheduled": True}


def judged(root: Path, lines: str, files: dict[str, str | None] | None = None) -> Any:
    return probe.check(machine(root, {"/etc/aide.conf": STOCK + lines, **(files or {})}), SELECT)


@pytest.mark.parametrize(
    ("name", "lines", "status"),
    [
        ("line_pass", f"{TOOL} {ALL}\n", "pass"),
        ("anchored_pass", f"{TOOL}$ {ALL}\n", "pass"),
        ("more_pass", f"{TOOL}\t{ALL}+selinux\n", "pass"),
        ("by_a_group_pass", f"{TOOL} STRONG\n", "pass"),
        ("first_line_counts_pass", f"{TOOL} {ALL}\n{TOOL} FIPSR\n", "pass"),
        ("no_line_fail", "", "fail"),
        ("comment_fail", f"# {TOOL} {ALL}\n", "fail"),
        ("lacks_a_digest_fail", f"{TOOL} FIPSR\n", "fail"),
        ("taken_away_fail", f"{TOOL} {ALL}-sha512\n", "fail"),
        ("earlier_line_wins_fail", f"{TOOL} FIPSR\n{TOOL} {ALL}\n", "fail"),
        ("left_out_fail", f"{TOOL} {ALL}\n!/usr/sbin\n", "fail"),
        ("by_the_link_sbin_fail", f"/sbin/auditctl {ALL}\n", "fail"),
        ("directory_alone_fail", f"/usr/sbin {ALL}\n", "fail"),
    ],
)
def test_what_is_watched(tmp_path: Path, name: str, lines: str, status: str) -> None:
    finding = judged(tmp_path, lines)
    assert finding["status"] == status, name
    assert TOOL in finding["evidence"][0]["object"]


def test_a_file_that_is_included_counts_where_it_stands(tmp_path: Path) -> None:
    files: dict[str, str | None] = {"/etc/aide.d/a.conf": f"{TOOL} FIPSR\n"}
    finding = judged(tmp_path, f"@@include /etc/aide.d .*\\.conf$\n{TOOL} {ALL}\n", files)
    assert finding["status"] == "fail"
    assert "/etc/aide.d/a.conf:1" in finding["reason"]


def test_without_a_configuration_nothing_is_watched(tmp_path: Path) -> None:
    assert probe.check(machine(tmp_path), SELECT)["status"] == "fail"


TIMER = "[Timer]\nOnCalendar={}\n[Install]\nWantedBy=timers.target\n"
SERVICE = "[Service]\nExecStart=/usr/sbin/aide {}\n"
UP = {
    "systemctl is-enabled aidecheck.timer": "enabled\n",
    "systemctl is-active aidecheck.timer": "active\n",
    "systemctl is-enabled aidecheck.service": "enabled\n",
}


def units(when: str = "daily", command: str = "--check", where: str = "/etc/systemd/system") -> dict[str, str | None]:
    return {
        f"{where}/aidecheck.timer": TIMER.format(when),
        f"{where}/aidecheck.service": SERVICE.format(command),
        "/run/systemd/system": None,
    }


def cron(path: str = "/etc/crontab") -> dict[str, str | None]:
    return {path: "0 5 * * * root /usr/sbin/aide --check\n"}


CROND = {"systemctl is-enabled crond.service": "enabled\n"}
STOPPED, NO_UNIT = Output(3, "inactive\n", ""), Output(1, "", "No such file or directory")
DROPIN = {"/etc/systemd/system/aidecheck.service.d/x.conf": "[Service]\nExecStart=\nExecStart=/bin/true\n"}


@pytest.mark.parametrize(
    ("name", "files", "answers", "status"),
    [
        ("timer_pass", units(), UP, "pass"),
        ("short_option_pass", units(command="-c /etc/aide.conf -C"), UP, "pass"),
        ("vendors_timer_pass", units(where="/usr/lib/systemd/system"), UP, "pass"),
        ("crontab_pass", cron(), CROND, "pass"),
        ("roots_crontab_pass", cron("/var/spool/cron/root"), CROND, "pass"),
        ("cron_beside_a_timer_that_is_off_pass", {**units(), **cron()},
         {**UP, **CROND, "systemctl is-enabled aidecheck.timer": "disabled\n"}, "pass"),
        ("nothing_fail", {}, {}, "fail"),
        ("timer_disabled_fail", units(), {**UP, "systemctl is-enabled aidecheck.timer": "disabled\n"}, "fail"),
        ("timer_stopped_fail", units(), {**UP, "systemctl is-active aidecheck.timer": STOPPED}, "fail"),
        ("service_masked_fail", units(), {**UP, "systemctl is-enabled aidecheck.service": "masked\n"}, "fail"),
        ("yearly_fail", units("yearly"), UP, "fail"),
        ("no_time_fail", units(""), UP, "fail"),
        ("it_only_updates_fail", units(command="--update"), UP, "fail"),
        ("dropin_puts_another_command_fail", {**units(), **DROPIN}, UP, "fail"),
        ("crontab_without_a_daemon_fail", cron(), {"systemctl is-enabled crond.service": NO_UNIT}, "fail"),
        ("commented_fail", {"/etc/crontab": "# 0 5 * * * root aide --check\n"}, CROND, "fail"),
    ],
)  # fmt: skip
def test_whether_it_looks_regularly(
    tmp_path: Path, name: str, files: dict[str, str | None], answers: dict[str, Any], status: str
) -> None:
    assert probe.check(machine(tmp_path, files, answers), SCHEDULED)["status"] == status, name


@pytest.mark.parametrize(
    ("name", "conf", "database", "status"),
    [
        ("there_pass", STOCK, "/var/lib/aide/aide.db.gz", "pass"),
        ("older_key_pass", "database=file:/var/lib/aide/old.db\n", "/var/lib/aide/old.db", "pass"),
        ("not_built_fail", STOCK, None, "fail"),
        ("built_but_not_put_in_place_fail", STOCK, "/var/lib/aide/aide.db.new.gz", "fail"),
        ("no_configuration_fail", None, None, "fail"),
        ("no_line_fail", "FIPSR = p\n", None, "fail"),
    ],
)
def test_what_it_compares_with(tmp_path: Path, name: str, conf: str | None, database: str | None, status: str) -> None:
    files: dict[str, str | None] = {"/etc/aide.conf": conf} if conf else {}
    if database:
        files[database] = "x"
    assert probe.check_database(machine(tmp_path, files), {"exists": True})["status"] == status, name


def test_an_empty_database_is_none(tmp_path: Path) -> None:
    files: dict[str, str | None] = {"/etc/aide.conf": STOCK, "/var/lib/aide/aide.db.gz": ""}
    assert probe.check_database(machine(tmp_path, files), {"exists": True})["status"] == "fail"


# The module of the configuration and the timer


class Systemd:
    """systemctl as far as the module uses it, and aide's own check of a configuration."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.enabled: set[str] = set()
        self.active: set[str] = set()
        self.calls: list[str] = []
        self.objects = False

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "aide":
            return (17, "", "ERROR: unknown group") if self.objects else (0, "", "")
        verb, *names = argv[1:]
        self.calls.append(verb)
        if verb == "is-enabled":
            there = (self.directory / names[0]).exists()
            state = "enabled" if names[0] in self.enabled else "disabled"
            return (0, state + "\n", "") if there else (1, "", "No such file or directory")
        if verb == "is-active":
            return (0, "active\n", "") if names[0] in self.active else (3, "inactive\n", "")
        change = {
            "enable": self.enabled.update,
            "disable": self.enabled.difference_update,
            "start": self.active.update,
            "stop": self.active.difference_update,
        }
        change.get(verb, lambda _names: None)(names)
        return 0, "", ""


def names(directory: str | Path) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    tree(tmp_path, {"/etc/aide.conf": STOCK, "/units": None})
    monkeypatch.setattr(runtime, "MANAGER", str(tmp_path))
    return str(tmp_path / "etc/aide.conf"), str(tmp_path / "units")


WANT = [
    rule("checked", "1.3.2", {"scheduled": True, "leave_out": ["/var/lib/containerd", "/etc/cni/net.d"]}),
    rule("tools", "1.3.3", {"select": {"paths": [TOOL], "attributes": ["p", "sha512"]}}),
]
GONE = [rule("checked", "1.3.2", state="absent"), rule("tools", "1.3.3", state="absent")]


def test_the_configuration_gets_a_block_and_the_timer_runs(place: tuple[str, str]) -> None:
    systemd = Systemd(Path(place[1]))
    settles(aide.apply, WANT, *place, program=systemd)
    text = Path(place[0]).read_text()
    assert text.startswith(STOCK)
    assert "!/var/lib/containerd($|/)\n!/etc/cni/net\\.d($|/)\n" in text
    assert f"# 1.3.3 tools\n{TOOL} p+sha512\n" in text
    assert systemd.enabled == {"aidecheck.timer", "aidecheck.service"}
    assert systemd.active == {"aidecheck.timer"}  # a check at this moment would read the whole disk
    timer = Path(place[1], "aidecheck.timer").read_text()
    service = Path(place[1], "aidecheck.service").read_text()
    assert "RandomizedDelaySec" in timer
    for line in ("Nice=19", "IOSchedulingClass=idle", "CPUQuota=", "SuccessExitStatus=1 2 3 4 5 6 7"):
        assert line in service
    assert "WantedBy" not in service


def test_what_is_written_passes(tmp_path: Path, place: tuple[str, str]) -> None:
    applied(aide.apply, [rule("tools", "1.3.3", SELECT)], *place, program=Systemd(Path(place[1])))
    assert probe.check(machine(tmp_path), SELECT)["status"] == "pass"


def test_an_administrators_line_before_ours_is_set_aside_and_given_back(place: tuple[str, str]) -> None:
    conf = Path(place[0])
    conf.write_text(STOCK + f"{TOOL}$   FIPSR\n/usr/sbin/auditd FIPSR")
    before = conf.read_text() + "\n"
    systemd = Systemd(Path(place[1]))
    settles(aide.apply, WANT, *place, program=systemd)
    assert f"# cisdriver below: {TOOL}$   FIPSR\n/usr/sbin/auditd FIPSR\n" in conf.read_text()
    settles(aide.apply, GONE, *place, program=systemd)
    assert conf.read_text() == before


def test_a_rule_that_goes_takes_what_it_wrote_and_nothing_else(place: tuple[str, str]) -> None:
    systemd = Systemd(Path(place[1]))
    applied(aide.apply, WANT, *place, program=systemd)
    with Path(place[0]).open("a") as file:
        file.write("/srv FIPSR\n")
    settles(aide.apply, GONE, *place, program=systemd)
    assert Path(place[0]).read_text() == STOCK + "/srv FIPSR\n"
    assert names(place[1]) == []
    assert systemd.enabled == systemd.active == set()


def test_a_rule_outside_of_the_tags_keeps_its_lines_and_timer(place: tuple[str, str]) -> None:
    systemd = Systemd(Path(place[1]))
    applied(aide.apply, WANT, *place, program=systemd)
    before = Path(place[0]).read_text()
    keep = [rule("checked", "1.3.2", state="keep"), rule("tools", "1.3.3", state="keep")]
    assert not applied(aide.apply, keep, *place, program=systemd)["changed"]
    assert Path(place[0]).read_text() == before
    assert len(names(place[1])) == 2


def test_a_timer_of_the_administrators_own_stays(place: tuple[str, str]) -> None:
    Path(place[1], "aidecheck.timer").write_text("[Timer]\nOnCalendar=daily\n")
    assert not applied(aide.apply, GONE, *place, program=Systemd(Path(place[1])))["changed"]


def test_an_administrators_units_of_these_names_come_back(place: tuple[str, str], tmp_path: Path) -> None:
    mine = {"aidecheck.service": "[Service]\nExecStart=/opt/aide --check\n", "aidecheck.timer": "[Timer]\n# mine\n"}
    tree(Path(place[1]), dict(mine))
    systemd, memory = Systemd(Path(place[1])), tmp_path / "memory"
    systemd.enabled = {"aidecheck.timer"}
    systemd.active = {"aidecheck.timer"}
    settles(aide.apply, WANT, *place, program=systemd, memory=memory)
    settles(aide.apply, GONE, *place, program=systemd, memory=memory)
    assert {name: Path(place[1], name).read_text() for name in names(place[1])} == mine
    assert systemd.enabled == systemd.active == {"aidecheck.timer"}


def test_a_unit_an_administrator_put_in_place_of_ours_stays(place: tuple[str, str]) -> None:
    systemd = Systemd(Path(place[1]))
    applied(aide.apply, WANT, *place, program=systemd)
    Path(place[1], "aidecheck.service").write_text("[Service]\n# mine\n")
    settles(aide.apply, GONE, *place, program=systemd)
    assert names(place[1]) == ["aidecheck.service"]


def test_a_timer_that_was_switched_off_is_switched_on(place: tuple[str, str]) -> None:
    systemd = Systemd(Path(place[1]))
    applied(aide.apply, WANT, *place, program=systemd)
    systemd.active.clear()
    assert applied(aide.apply, WANT, *place, check=True, program=systemd)["changed"]
    settles(aide.apply, WANT, *place, program=systemd)
    assert systemd.active == {"aidecheck.timer"}


def test_in_a_chroot_the_links_are_made_and_nothing_is_started(
    tmp_path: Path, place: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "MANAGER", str(tmp_path / "none"))
    systemd = Systemd(Path(place[1]))
    settles(aide.apply, WANT, *place, program=systemd)
    assert systemd.enabled == {"aidecheck.timer", "aidecheck.service"}
    assert not {"start", "daemon-reload"} & set(systemd.calls)


def test_a_configuration_that_aide_refuses_is_not_put_in_place(place: tuple[str, str]) -> None:
    systemd = Systemd(Path(place[1]))
    systemd.objects = True
    with pytest.raises(Refused, match="unknown group"):
        applied(aide.apply, WANT, *place, program=systemd)
    assert Path(place[0]).read_text() == STOCK


def test_without_the_package_check_mode_predicts_and_a_run_says_what_is_missing(place: tuple[str, str]) -> None:
    Path(place[0]).unlink()
    systemd = Systemd(Path(place[1]))
    assert applied(aide.apply, WANT, *place, check=True, program=systemd)["rules"]["tools"]["changed"]
    with pytest.raises(Refused, match=r"1\.3\.2.*expected the package aide"):
        applied(aide.apply, WANT, *place, program=systemd)


# The module of the database

EXISTS = [rule("installed", "1.3.1", {"exists": True})]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    tree(tmp_path, {"/aide.conf": STOCK.replace("/var/lib/aide", str(tmp_path / "db")), "/db": None})
    os.utime(tmp_path / "aide.conf", (1, 1))
    return tmp_path / "aide.conf"


def init(argv: list[str]) -> tuple[int, str, str]:
    conf = Path(argv[-2].partition("=")[2])
    (conf.parent / "db/aide.db.new.gz").write_text("built")
    return 0, "", ""


def test_a_database_is_built_where_there_is_none(conf: Path) -> None:
    settles(aide_database.apply, EXISTS, False, str(conf), program=init)
    database = conf.parent / "db/aide.db.gz"
    assert database.read_text() == "built"
    assert database.stat().st_mode & 0o777 == 0o600
    assert names(conf.parent / "db") == ["aide.db.gz"]


def test_a_database_older_than_its_configuration_is_built_anew(conf: Path) -> None:
    database = conf.parent / "db/aide.db.gz"
    database.write_text("old")
    os.utime(database, (0, 0))
    done = settles(aide_database.apply, EXISTS, False, str(conf), program=init)
    assert done["rules"]["installed"]["before"] == {str(database): "older than its configuration"}
    assert database.read_text() == "built"


def test_an_administrators_database_stays(conf: Path) -> None:
    (conf.parent / "db/aide.db.gz").write_text("theirs")
    assert not applied(aide_database.apply, EXISTS, False, str(conf), program=init)["changed"]
    gone = [rule("installed", "1.3.1", state="absent")]
    assert not applied(aide_database.apply, gone, False, str(conf), program=init)["changed"]
    assert (conf.parent / "db/aide.db.gz").read_text() == "theirs"


def test_check_mode_knows_that_the_configuration_would_have_changed(conf: Path) -> None:
    (conf.parent / "db/aide.db.gz").write_text("old")
    assert applied(aide_database.apply, EXISTS, True, str(conf), check=True, program=init)["changed"]


def test_a_rule_that_goes_takes_the_database_it_built(conf: Path, tmp_path: Path) -> None:
    memory, gone = tmp_path / "memory", [rule("installed", "1.3.1", state="absent")]
    applied(aide_database.apply, EXISTS, False, str(conf), program=init, memory=memory)
    assert applied(aide_database.apply, gone, False, str(conf), program=init, memory=memory)["changed"]
    assert names(conf.parent / "db") == []
    assert not applied(aide_database.apply, gone, False, str(conf), program=init, memory=memory)["changed"]


@pytest.mark.parametrize("rc", [0, 14])
def test_a_build_that_fails_leaves_the_old_one(conf: Path, rc: int) -> None:
    database = conf.parent / "db/aide.db.gz"
    database.write_text("old")
    os.utime(database, (0, 0))
    with pytest.raises(Refused, match="the old database, if there was one, stays"):
        applied(aide_database.apply, EXISTS, False, str(conf), program=lambda _argv: (rc, "", ""))
    assert database.read_text() == "old"


def test_a_database_that_is_no_file_is_named(conf: Path) -> None:
    conf.write_text("database_in=https://example.com/db\n")
    with pytest.raises(Refused, match=r"found https://example\.com/db"):
        applied(aide_database.apply, EXISTS, False, str(conf), program=init)
