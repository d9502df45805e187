"""Pending updates: what a person is shown, from dnf's cache alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import pending_update as probe
from machines import Output, machine

FILES = {"/etc/system-release": "Amazon Linux release 2023.12.20260724 (Amazon Linux)\n"}
CHECK = "dnf -q -C check-update"
RESTART = "dnf -q -C needs-restarting -r"
UPDATES = "\nbash.x86_64   5.2.15-2.amzn2023   amazonlinux\nObsoleting Packages\nold.noarch  1  amazonlinux\n"


def shown(root: Path, files: dict[str, str], answers: dict[str, Any]) -> dict[str, str]:
    finding = probe.check(machine(root, {**FILES, **files}, {"dnf --version": "4.14", **answers}), {})
    assert finding["status"] == "pass"
    return {item["object"]: item["found"] for item in finding["evidence"]}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("", "none, of release 2023.12.20260724"),
        (Output(100, UPDATES, ""), "bash.x86_64 5.2.15-2.amzn2023, of release 2023.12.20260724"),
        (Output(1, "", "x\nError: no cache for 'a'\n"), "unknown without network: Error: no cache for 'a'"),
    ],
)
def test_updates(tmp_path: Path, answer: Any, found: str) -> None:
    assert shown(tmp_path, {}, {CHECK: answer})["pending updates"] == found


def test_many_updates_are_counted(tmp_path: Path) -> None:
    answer = Output(100, "".join(f"p{number}.noarch 1 a\n" for number in range(23)), "")
    assert "p19.noarch 1 and 3 more" in shown(tmp_path, {}, {CHECK: answer})["pending updates"]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Reboot should not be necessary.\n", "not needed"),
        (Output(1, "Core libraries:\n  * glibc\n  * systemd\n", ""), "needed: glibc, systemd"),
        (Output(127, "", "dnf: not found"), "unknown: needs-restarting cannot tell"),
    ],
)
def test_reboot(tmp_path: Path, answer: Any, found: str) -> None:
    assert shown(tmp_path, {}, {CHECK: "", RESTART: answer})["reboot"] == found


def test_locks_and_a_newer_release(tmp_path: Path) -> None:
    files = {
        "/etc/dnf/plugins/versionlock.list": "# held\nkernel*\ncontainerd-*\n",
        "/etc/motd": "A newer release is available.\n  Version 2023.9.20260101:\n  Version 2023.12.20260801:\n",
    }
    seen = shown(tmp_path, files, {CHECK: ""})
    assert seen["packages held back"] == "kernel*, containerd-*"
    assert seen["newer release"] == "2023.12.20260801"
