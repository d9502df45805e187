"""Paths that are mounts of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core as probe_core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import mount_point as probe
from machines import Output, machine

ROOT = "23 1 259:1 / / rw,noatime shared:1 - xfs /dev/nvme0n1p1 rw\n"
TMP = "40 23 0:35 / /tmp rw,nosuid,nodev shared:2 - tmpfs tmpfs rw,size=50%\n"
SHM = "41 23 0:24 / /dev/shm rw,nosuid,nodev shared:3 - tmpfs tmpfs rw\n"
LINE = "tmpfs /dev/shm tmpfs defaults 0 0\n"


def look(root: Path, spec: dict[str, Any], table: str, fstab: str = "", state: str = "static") -> dict[str, Any]:
    answers = {"systemctl is-enabled tmp.mount": Output(0, state + "\n", "")}
    return probe.check(machine(root, {"/proc/self/mountinfo": table, "/etc/fstab": fstab}, answers), spec)


@pytest.mark.parametrize("state", ["static", "enabled", "generated"])
def test_mounted_by_unit_pass(tmp_path: Path, state: str) -> None:
    assert look(tmp_path, {"/tmp": {}}, ROOT + TMP, state=state)["status"] == "pass"


def test_mounted_by_fstab_before_the_generator_saw_it_pass(tmp_path: Path) -> None:
    assert look(tmp_path, {"/tmp": {}}, ROOT + TMP, "tmpfs /tmp/ tmpfs defaults\n", "disabled")["status"] == "pass"


@pytest.mark.parametrize(
    ("name", "table", "fstab", "state"),
    [
        ("part_of_root_fail", ROOT, "", "static"),
        ("only_a_mount_below_it_fail", ROOT + TMP.replace("/tmp", "/tmp/x"), "", "static"),
        ("only_a_longer_path_fail", ROOT + TMP.replace("/tmp", "/tmp2"), "", "static"),
        ("unit_masked_fail", ROOT + TMP, "", "masked"),
        ("unit_masked_beats_fstab_fail", ROOT + TMP, "tmpfs /tmp tmpfs defaults 0 0\n", "masked"),
        ("unit_masked_until_the_boot_fail", ROOT + TMP, "", "masked-runtime"),
        ("mounted_by_hand_fail", ROOT + TMP, "", "disabled"),
        ("fstab_line_not_for_the_boot_fail", ROOT + TMP, "tmpfs /tmp tmpfs noauto 0 0\n", "disabled"),
        ("commented_fstab_line_fail", ROOT + TMP, "#tmpfs /tmp tmpfs defaults 0 0\n", "disabled"),
    ],
)
def test_fails(tmp_path: Path, name: str, table: str, fstab: str, state: str) -> None:
    assert look(tmp_path, {"/tmp": {}}, table, fstab, state)["status"] == "fail", name


def test_dev_shm_is_systemds_and_its_line_is_asked_for(tmp_path: Path) -> None:
    spec = {"/dev/shm": {"fstab": True}}
    assert look(tmp_path, {"/dev/shm": {}}, ROOT + SHM)["status"] == "pass"
    assert look(tmp_path, spec, ROOT + SHM, LINE)["status"] == "pass"
    finding = look(tmp_path, spec, ROOT + SHM)
    assert finding["reason"] == "/dev/shm (/etc/fstab): expected line, found no line in /etc/fstab"


def test_hidden_by_a_later_mount_of_its_parent_fail(tmp_path: Path) -> None:
    over = "50 23 259:2 / /dev rw - devtmpfs devtmpfs rw\n"
    assert look(tmp_path, {"/dev/shm": {}}, ROOT + SHM + over)["status"] == "fail"


def test_without_proc_nothing_passes(tmp_path: Path) -> None:
    with pytest.raises(probe_core.ProbeError, match="/proc is not mounted"):
        probe.check(machine(tmp_path), {"/tmp": {}})
