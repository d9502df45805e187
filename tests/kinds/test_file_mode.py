"""Owner, group and mode: states that pass, and more of them that fail; tightening that never widens."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import file_mode as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import file_mode
from machines import Refused, applied, machine, rule, tree

ME, MINE = os.getuid(), os.getgid()
ACCOUNTS = {
    "/etc/passwd": f"root:x:{ME}:{MINE}::/root:/bin/bash\nchrony:x:{ME + 997}:{MINE + 997}::/:/sbin/nologin\n",
    "/etc/group": f"root:x:{MINE}:\nadm:x:{MINE + 4}:\nssh_keys:x:{MINE + 101}:\nchrony:x:{MINE + 997}:\n",
}
SHADOW = [{"path": "/etc/shadow", "owner": "root", "group": "root", "max_mode": "0000"}]
PASSWD = [{"path": "/etc/thing", "owner": "root", "group": "root", "max_mode": "0644", "absent": "not_applicable"}]
KEYS = [
    {
        "path": "/etc/ssh/ssh_host_*_key",
        "owner": "root",
        "any_of": [{"group": "root", "max_mode": "0600"}, {"group": "ssh_keys", "max_mode": "0640"}],
        "absent": "pass",
    }
]
LOGS = [
    {
        "find": "/var/log",
        "prune": ["/var/log/pods"],
        "classes": [
            {"names": ["wtmp*"], "max_mode": "0664", "owner": "root", "group": ["root", "utmp"]},
            {"max_mode": "0640", "owner": ["root", "@service"], "group": ["root", "adm", "@service"]},
        ],
    }
]


def look(
    root: Path, spec: list[dict[str, Any]], modes: Mapping[str, int], files: Mapping[str, str] | None = None
) -> Any:
    tree(root, {**ACCOUNTS, **(files or {}), **dict.fromkeys(modes, "x")})
    for path, mode in modes.items():
        (root / path[1:]).chmod(mode)
    return probe.check(machine(root), spec)


@pytest.mark.parametrize(
    ("name", "spec", "modes", "status"),
    [
        ("exact_pass", PASSWD, {"/etc/thing": 0o644}, "pass"),
        ("stricter_pass", PASSWD, {"/etc/thing": 0o400}, "pass"),
        ("shadow_closed_pass", SHADOW, {"/etc/shadow": 0o000}, "pass"),
        ("host_key_of_root_pass", KEYS, {"/etc/ssh/ssh_host_ed25519_key": 0o600}, "pass"),
        ("no_host_keys_yet_pass", KEYS, {}, "pass"),
        ("public_key_is_no_private_key_pass", KEYS, {"/etc/ssh/ssh_host_ed25519_key.pub": 0o644}, "pass"),
        ("pod_logs_are_left_out_pass", LOGS, {"/var/log/pods/a/0.log": 0o666, "/var/log/x": 0o640}, "pass"),
        ("wtmp_has_a_class_of_its_own_pass", LOGS, {"/var/log/wtmp": 0o664}, "pass"),
        ("absent_not_applicable", PASSWD, {}, "not_applicable"),
        ("absent_fail", SHADOW, {}, "fail"),
        ("one_bit_too_many_fail", PASSWD, {"/etc/thing": 0o664}, "fail"),
        ("executable_fail", PASSWD, {"/etc/thing": 0o744}, "fail"),
        ("setuid_fail", PASSWD, {"/etc/thing": 0o4644}, "fail"),
        ("shadow_for_root_alone_fail", SHADOW, {"/etc/shadow": 0o400}, "fail"),
        ("second_host_key_fail", KEYS, {"/etc/ssh/ssh_host_a_key": 0o600, "/etc/ssh/ssh_host_b_key": 0o640}, "fail"),
        ("log_in_a_directory_fail", LOGS, {"/var/log/amazon/ssm/agent.log": 0o644}, "fail"),
        ("writable_wtmp_fail", LOGS, {"/var/log/wtmp": 0o666}, "fail"),
        ("name_beside_the_pruned_fail", LOGS, {"/var/log/pods.log": 0o644}, "fail"),
    ],
)
def test_scenario(tmp_path: Path, name: str, spec: list[dict[str, Any]], modes: dict[str, int], status: str) -> None:
    assert look(tmp_path, spec, modes)["status"] == status, name


def test_another_owner_fail(tmp_path: Path) -> None:
    files = {"/etc/passwd": f"root:x:{ME + 1}:{MINE}::/root:/bin/sh\nme:x:{ME}:{MINE}::/:/bin/sh\n"}
    finding = look(tmp_path, PASSWD, {"/etc/thing": 0o644}, files)
    assert finding["status"] == "fail"
    assert "found 0644 me:root" in finding["reason"]


@pytest.mark.parametrize(("shell", "status"), [("/sbin/nologin", "pass"), ("/bin/bash", "fail")])
def test_a_log_belongs_to_a_service_and_to_no_person(tmp_path: Path, shell: str, status: str) -> None:
    passwd = f"root:x:{ME + 1}:{MINE + 1}::/root:/bin/sh\nother:x:{ME}:{MINE}::/:{shell}\n"
    group = f"root:x:{MINE + 1}:\n"
    finding = look(tmp_path, LOGS, {"/var/log/a.log": 0o640}, {"/etc/passwd": passwd, "/etc/group": group})
    assert finding["status"] == status


def test_a_link_at_a_path_counts_as_what_it_points_to(tmp_path: Path) -> None:
    files = {"/etc/thing": "-> ../var/lib/real"}
    assert look(tmp_path, PASSWD, {"/var/lib/real": 0o666}, files)["status"] == "fail"


def test_a_dangling_link_counts_as_nothing(tmp_path: Path) -> None:
    assert look(tmp_path, PASSWD, {}, {"/etc/thing": "-> nowhere"})["status"] == "not_applicable"


def test_a_walk_leaves_links_alone(tmp_path: Path) -> None:
    files = {"/var/log/link": "-> /etc/passwd"}
    assert look(tmp_path, LOGS, {"/var/log/x": 0o640}, files)["status"] == "pass"


def test_a_directory_in_the_place_of_a_file_fail(tmp_path: Path) -> None:
    tree(tmp_path, {**ACCOUNTS, "/etc/thing": None})
    assert probe.check(machine(tmp_path), PASSWD)["status"] == "fail"


def test_what_must_not_be_there_fail(tmp_path: Path) -> None:
    spec = [{"path": "/etc/cron.deny", "state": "absent"}]
    assert look(tmp_path, spec, {})["status"] == "pass"
    assert look(tmp_path, spec, {"/etc/cron.deny": 0o600})["status"] == "fail"


def test_the_audit_log_is_where_auditd_conf_says(tmp_path: Path) -> None:
    where = {"file": "/etc/audit/auditd.conf", "key": "log_file"}
    spec = [{"find": "/var/log/audit", "directory_of": where, "max_mode": "0640"}]
    files = {"/etc/audit/auditd.conf": "log_group = root\nlog_file = /data/audit/audit.log\n"}
    assert (
        look(tmp_path, spec, {"/data/audit/audit.log": 0o644, "/var/log/audit/old": 0o600}, files)["status"] == "fail"
    )


def test_a_walk_shows_offenders_and_counts_the_rest(tmp_path: Path) -> None:
    finding = look(tmp_path, LOGS, {"/var/log/a": 0o640, "/var/log/b": 0o640, "/var/log/c": 0o644})
    assert [item["found"] for item in finding["evidence"]] == ["2 of 3 as required", "0644 root:root"]


# The module


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def want(path: Path, max_mode: str = "0640", **more: Any) -> list[dict[str, Any]]:
    return [rule("r", "1.1", [{"path": str(path), "max_mode": max_mode, **more}])]


def file(path: Path, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o640), (0o600, 0o600), (0o4777, 0o640), (0o004, 0o000)])
def test_it_tightens_and_never_widens(tmp_path: Path, before: int, after: int) -> None:
    path = file(tmp_path / "a", before)
    predicted = applied(file_mode.apply, want(path), check=True)
    assert mode_of(path) == before
    done = applied(file_mode.apply, want(path))
    assert mode_of(path) == after
    assert predicted["diff"] == done["diff"] and predicted["rules"] == done["rules"]
    assert done["changed"] == (before != after)
    assert not applied(file_mode.apply, want(path))["changed"]


def test_two_rules_on_one_file_agree_in_check_mode(tmp_path: Path) -> None:
    path = file(tmp_path / "a", 0o666)
    rules = [
        rule(name, "1.1", [{"path": str(path), "max_mode": mode}]) for name, mode in (("a", "0644"), ("b", "0640"))
    ]
    predicted, done = applied(file_mode.apply, rules, check=True), applied(file_mode.apply, rules)
    assert predicted["diff"] == done["diff"]
    assert mode_of(path) == 0o640


def test_links_below_a_walk_are_not_followed(tmp_path: Path) -> None:
    outside = file(tmp_path / "outside", 0o666)
    (tmp_path / "log").mkdir()
    (tmp_path / "log/link").symlink_to(outside)
    applied(file_mode.apply, [rule("r", "1.1", [{"find": str(tmp_path / "log"), "max_mode": "0640"}])])
    assert mode_of(outside) == 0o666


def test_pruned_trees_are_left_alone(tmp_path: Path) -> None:
    pod, log = file(tmp_path / "log/pods/x", 0o666), file(tmp_path / "log/y", 0o666)
    item = {"find": str(tmp_path / "log"), "prune": [str(tmp_path / "log/pods")], "max_mode": "0640"}
    applied(file_mode.apply, [rule("r", "1.1", [item])])
    assert (mode_of(pod), mode_of(log)) == (0o666, 0o640)


def test_what_vanishes_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path / "a", 0o666)
    real = file_mode.os.open

    def gone(name: str, *more: object, **named: object) -> int:
        if name == str(path):
            raise FileNotFoundError(2, "gone")
        return real(name, *more, **named)

    monkeypatch.setattr(file_mode.os, "open", gone)
    assert not applied(file_mode.apply, want(path))["changed"]


def test_an_immutable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path / "a", 0o666)

    def refuse(*_args: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(file_mode.os, "fchmod", refuse)
    with pytest.raises(Refused, match=rf"rule r \(1.1\): cannot make {path} 0640 .*is it immutable"):
        applied(file_mode.apply, want(path))


@pytest.mark.parametrize("installed", [True, False])
def test_a_file_is_made_only_for_a_package_that_is_there(tmp_path: Path, installed: bool) -> None:
    path = tmp_path / "cron.allow"
    rules = want(path, "0600", create_if_package="cronie")

    def rpm(_argv: list[str]) -> tuple[int, str, str]:
        return (0 if installed else 1, "", "")

    predicted = applied(file_mode.apply, rules, check=True, program=rpm)
    assert not path.exists()
    done = applied(file_mode.apply, rules, program=rpm)
    assert path.exists() == done["changed"] == predicted["changed"] == installed
    assert not applied(file_mode.apply, rules, program=rpm)["changed"]


def test_what_must_not_be_there_is_removed(tmp_path: Path) -> None:
    path = file(tmp_path / "cron.deny", 0o600)
    applied(file_mode.apply, [rule("r", "1.1", [{"path": str(path), "state": "absent"}])])
    assert not path.exists()


KEPT = [{"find": "/var/log", "max_mode": "0640", "owner": ["root", "@unknown"], "group": ["root", "@unknown"]}]


@pytest.mark.parametrize(("known", "status"), [(False, "pass"), (True, "fail")])
def test_an_owner_without_an_account_may_be_accepted(tmp_path: Path, known: bool, status: str) -> None:
    """As the user of an agent's image has none; a person of that id would be something else."""
    passwd = f"root:x:{ME + 1}:{MINE + 1}::/root:/bin/sh\n" + f"joe:x:{ME}:{MINE}::/:/bin/sh\n" * known
    group = f"root:x:{MINE + 1}:\n" + f"joe:x:{MINE}:\n" * known
    files = {"/etc/passwd": passwd, "/etc/group": group}
    assert look(tmp_path, KEPT, {"/var/log/agent/a.log": 0o640}, files)["status"] == status


@pytest.mark.skipif(ME != 0, reason="only root gives files away")
def test_an_agents_log_loses_modes_and_keeps_its_owner(tmp_path: Path) -> None:
    log = file(tmp_path / "log/agent/a.log", 0o666)
    os.chown(log, 65432, 65432)
    settled = [rule("r", "5.1.3", [{**KEPT[0], "find": str(tmp_path / "log")}])]
    applied(file_mode.apply, settled)
    about = log.stat()
    assert (about.st_uid, about.st_gid, mode_of(log)) == (65432, 65432, 0o640)
    assert not applied(file_mode.apply, settled)["changed"]
    applied(file_mode.apply, [rule("r", "5.1.3", [{**settled[0]["want"][0], "owner": "root", "group": "root"}])])
    assert (log.stat().st_uid, log.stat().st_gid) == (0, 0)
