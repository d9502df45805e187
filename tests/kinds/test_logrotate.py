"""logrotate: what it understands and who runs it, passing and failing."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import logrotate as probe
from machines import Output, machine

DEBUG = "logrotate -d /etc/logrotate.conf"
MAIN = {"/etc/logrotate.conf": "weekly\nrotate 4\ninclude /etc/logrotate.d\n"}
FINE = Output(0, "", "warning: logrotate in debug mode does nothing\nreading config file /etc/logrotate.conf\n")
UNKNOWN = Output(1, "", "error: site:2 unknown option 'rotatee' -- ignoring line\n")
TWICE = Output(1, "", "error: kube-proxy:1 duplicate log entry for /var/log/kube-proxy.log\n")
BROKEN = Output(1, "", "Allocating hash table\nSegmentation fault\n")


@pytest.mark.parametrize(
    ("name", "files", "answer", "status"),
    [
        ("understood_pass", MAIN, FINE, "pass"),
        ("unknown_option_fail", MAIN, UNKNOWN, "fail"),
        ("one_log_in_two_stanzas_fail", MAIN, TWICE, "fail"),
        ("complaint_with_exit_0_fail", MAIN, Output(0, "", UNKNOWN.err), "fail"),
        ("no_configuration_fail", {}, FINE, "fail"),
        ("not_installed_fail", MAIN, Output(127, "", "logrotate: not found"), "fail"),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], answer: Output, status: str) -> None:
    assert probe.check(machine(tmp_path, files, {DEBUG: answer}), {"config": "valid"})["status"] == status, name


def test_evidence_is_what_logrotate_says(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, MAIN, {DEBUG: TWICE}), {"config": "valid"})
    assert "kube-proxy:1 duplicate log entry for /var/log/kube-proxy.log" in finding["reason"]


def test_a_logrotate_that_dies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(core.ProbeError, match="exit 1"):
        probe.check(machine(tmp_path, MAIN, {DEBUG: BROKEN}), {"config": "valid"})


@pytest.mark.parametrize(("mode", "status"), [(0o700, "pass"), (0o644, "fail"), (None, "fail")])
def test_cron_runs_it(tmp_path: Path, mode: int | None, status: str) -> None:
    node = machine(tmp_path, {} if mode is None else {"/etc/cron.daily/logrotate": "#!/bin/sh\n"})
    if mode is not None:
        (tmp_path / "etc/cron.daily/logrotate").chmod(mode)
    assert probe.check(node, {"scheduled": "cron"})["status"] == status
