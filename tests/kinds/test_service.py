"""Units: masked, disabled, enabled, static, active."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core as probe_core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import service as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import service
from machines import Output, Refused, applied, machine, rule, settles

RPM = "rpm -qa --queryformat %{NAME} %{VERSION}-%{RELEASE}\\n"
UNIT = "nfs-server.service"
NO_UNIT = Output(1, "", f"Failed to get unit file state for {UNIT}: No such file or directory\n")


def look(
    root: Path, state: str | Output, spec: dict[str, Any], active: str = "inactive", packages: str = "nfs-utils 2-1\n"
) -> dict[str, Any]:
    answer = state if isinstance(state, Output) else Output(1, state + "\n", "")
    answers = {
        f"systemctl is-enabled {UNIT}": answer,
        f"systemctl is-active {UNIT}": Output(3, active + "\n", ""),
        RPM: packages,
    }
    return probe.check(machine(root, {"/run/systemd/system": None}, answers), spec)


MASKED = {"masked": [UNIT], "or_package_absent": "nfs-utils"}


@pytest.mark.parametrize(
    ("name", "state", "spec"),
    [
        ("masked_pass", "masked", MASKED),
        ("disabled_pass", "disabled", {"disabled": [UNIT]}),
        ("masked_is_disabled_too_pass", "masked", {"disabled": [UNIT]}),
        ("no_unit_is_disabled_too_pass", NO_UNIT, {"disabled": [UNIT]}),
        ("no_unit_as_newer_systemd_says_it_pass", Output(4, "not-found\n", ""), {"disabled": [UNIT]}),
        ("enabled_pass", "enabled", {"enabled": [UNIT]}),
        ("static_pass", "static", {"static": [UNIT]}),
    ],
)
def test_passes(tmp_path: Path, name: str, state: str | Output, spec: dict[str, Any]) -> None:
    assert look(tmp_path, state, spec)["status"] == "pass", name


def test_package_absent_pass(tmp_path: Path) -> None:
    assert look(tmp_path, "enabled", MASKED, packages="bash 5-1\n")["status"] == "pass"


@pytest.mark.parametrize(
    ("name", "state", "spec", "active"),
    [
        ("disabled_is_not_masked_fail", "disabled", MASKED, "inactive"),
        ("masked_runtime_does_not_last_fail", "masked-runtime", MASKED, "inactive"),
        ("masked_but_still_running_fail", "masked", MASKED, "active"),
        ("masked_but_starting_fail", "masked", MASKED, "activating"),
        ("no_unit_is_not_masked_fail", NO_UNIT, MASKED, "inactive"),
        ("enabled_is_not_disabled_fail", "enabled", {"disabled": [UNIT]}, "inactive"),
        ("static_is_not_disabled_fail", "static", {"disabled": [UNIT]}, "inactive"),
        ("disabled_but_started_by_hand_fail", "disabled", {"disabled": [UNIT]}, "active"),
        ("enabled_runtime_does_not_last_fail", "enabled-runtime", {"enabled": [UNIT]}, "active"),
        ("disabled_but_running_is_not_enabled_fail", "disabled", {"enabled": [UNIT]}, "active"),
        ("masked_is_not_static_fail", "masked", {"static": [UNIT]}, "active"),
        ("no_unit_is_not_enabled_fail", NO_UNIT, {"enabled": [UNIT]}, "inactive"),
    ],
)
def test_fails(tmp_path: Path, name: str, state: str | Output, spec: dict[str, Any], active: str) -> None:
    assert look(tmp_path, state, spec, active)["status"] == "fail", name


@pytest.mark.parametrize(
    ("active", "status"), [("active", "pass"), ("activating", "pass"), ("inactive", "fail"), ("failed", "fail")]
)
def test_what_must_run(tmp_path: Path, active: str, status: str) -> None:
    assert look(tmp_path, "enabled", {"enabled": [UNIT], "active": [UNIT]}, active)["status"] == status


def test_without_systemctl_nothing_passes(tmp_path: Path) -> None:
    with pytest.raises(probe_core.ProbeError, match="systemctl is-enabled"):
        look(tmp_path, Output(127, "", "systemctl: not found"), {"disabled": [UNIT]})


def test_where_no_manager_runs_only_the_boot_is_judged(tmp_path: Path) -> None:
    node = machine(tmp_path, {}, {f"systemctl is-enabled {UNIT}": Output(1, "masked\n", "")})
    assert probe.check(node, {"masked": [UNIT]})["status"] == "pass"


# the module ------------------------------------------------------------------------------------


class Systemd:
    """Units with their state at boot and now, and the systemctl over them."""

    def __init__(self, states: dict[str, str], active: tuple[str, ...] = (), packages: tuple[str, ...] = ()) -> None:
        self.states, self.active, self.packages = dict(states), set(active), packages
        self.stubborn: set[str] = set()
        self.goes_with = {"rpcbind.socket": ("rpcbind.service",)}
        self.verbs: list[str] = []

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "rpm":
            return (0 if argv[2] in self.packages else 1), "", ""
        _systemctl, verb, unit = argv
        if verb == "is-enabled":
            missing = f"Failed to get unit file state for {unit}: No such file or directory"
            return (0, self.states[unit] + "\n", "") if unit in self.states else (1, "", missing)
        if verb == "is-active":
            return 0, "active\n" if unit in self.active else "inactive\n", ""
        self.verbs.append(f"{verb} {unit}")
        if unit in self.stubborn:
            return 1, "", f"Failed to {verb} {unit}"
        if verb in ("start", "stop"):
            (self.active.add if verb == "start" else self.active.discard)(unit)
            self.active -= set(self.goes_with.get(unit, ())) if verb == "stop" else set()
        else:
            self.states[unit] = {"mask": "masked", "disable": "disabled", "enable": "enabled", "unmask": "static"}[verb]
        return 0, "", ""


@pytest.fixture(autouse=True)
def booted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "booted").mkdir()
    monkeypatch.setattr(runtime, "MANAGER", f"{tmp_path}/booted")
    return tmp_path / "booted"


def test_sockets_are_masked_and_stopped_before_what_they_start() -> None:
    units = {"rpcbind.service": "disabled", "rpcbind.socket": "enabled"}
    systemd = Systemd(units, active=tuple(units), packages=("rpcbind",))
    want = {"masked": ["rpcbind.service", "rpcbind.socket"], "or_package_absent": "rpcbind"}
    done = settles(service.apply, [rule("rpcbind_masked", "2.2.17", want)], program=systemd)
    assert systemd.verbs == [
        "mask rpcbind.socket",
        "stop rpcbind.socket",
        "mask rpcbind.service",
        "stop rpcbind.service",
    ]
    assert done["rules"]["rpcbind_masked"]["before"]["rpcbind.socket"] == "enabled, running"
    assert done["rules"]["rpcbind_masked"]["after"]["rpcbind.socket"] == "masked, stopped"


def test_without_the_package_nothing_is_done() -> None:
    systemd = Systemd({UNIT: "enabled"})
    done = settles(service.apply, [rule("nfs_server_masked", "2.2.16", MASKED)], program=systemd)
    assert not done["changed"] and not systemd.verbs


def test_a_mask_that_does_not_last_is_made_to() -> None:
    systemd = Systemd({UNIT: "masked-runtime"})
    settles(service.apply, [rule("a", "1.1", {"masked": [UNIT]})], program=systemd)
    assert systemd.verbs == [f"mask {UNIT}"]


def test_a_unit_is_enabled_and_started_and_a_start_that_fails_is_a_warning() -> None:
    systemd = Systemd({"auditd.service": "disabled"})
    settles(service.apply, [rule("auditd_enabled", "5.2.1.4", {"enabled": ["auditd.service"]})], program=systemd)
    assert systemd.verbs == ["enable auditd.service", "start auditd.service"]

    def refuses(argv: list[str]) -> tuple[int, str, str]:
        return (1, "", "no kernel support") if argv[1] == "start" else systemd(argv)

    systemd.states["auditd.service"] = "disabled"
    done = applied(service.apply, [rule("a", "1.1", {"enabled": ["auditd.service"]})], program=refuses)
    assert "auditd.service is enabled but does not start: no kernel support" in done["warnings"][0]


@pytest.mark.parametrize(("state", "verbs"), [("enabled", ["start"]), ("disabled", ["enable", "start", "start"])])
def test_a_unit_that_must_run_is_started(state: str, verbs: list[str]) -> None:
    systemd = Systemd({"logrotate.timer": state})
    want = {"enabled": ["logrotate.timer"], "active": ["logrotate.timer"]}
    done = settles(service.apply, [rule("a", "5.3", want)], program=systemd)
    assert systemd.verbs == [f"{verb} logrotate.timer" for verb in verbs]
    assert done["rules"]["a"]["after"]["logrotate.timer (running)"] == "running"


def test_a_masked_unit_is_unmasked_first() -> None:
    systemd = Systemd({"crond.service": "masked"})
    settles(service.apply, [rule("cron", "4.1.1", {"enabled": ["crond.service"]})], program=systemd)
    assert systemd.verbs[:2] == ["unmask crond.service", "enable crond.service"]


def test_in_a_chroot_nothing_is_started_or_stopped(booted: Path) -> None:
    booted.rmdir()
    systemd = Systemd({UNIT: "enabled", "auditd.service": "disabled"})
    rules = [rule("a", "1.1", {"masked": [UNIT]}), rule("b", "1.2", {"enabled": ["auditd.service"]})]
    settles(service.apply, rules, program=systemd)
    assert systemd.verbs == [f"mask {UNIT}", "enable auditd.service"]


def test_a_unit_that_does_not_start_is_not_told_of_files_and_has_its_last_words() -> None:
    systemd = Systemd({"logrotate.timer": "enabled"})

    def refuses(argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "journalctl":
            return (0, "Starting...\nno room\n", "") if argv[-1] == "logrotate.timer" else (1, "", "")
        return (1, "", "Job failed") if argv[1] == "start" else systemd(argv)

    said = (
        r"start logrotate\.timer: exit 1: Job failed; see systemctl status logrotate.* words: Starting\.\.\. \| no room"
    )
    with pytest.raises(Refused, match=said):
        applied(service.apply, [rule("a", "5.3", {"active": ["logrotate.timer"]})], program=refuses)


def test_a_refusal_names_rule_and_unit() -> None:
    systemd = Systemd({UNIT: "enabled"})
    systemd.stubborn = {UNIT}
    with pytest.raises(Refused, match=rf"rule a \(1.1\): systemctl mask {UNIT}: exit 1: Failed to mask"):
        applied(service.apply, [rule("a", "1.1", {"masked": [UNIT]})], program=systemd)
