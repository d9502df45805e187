"""IPv6: a state that is known passes, whichever it is; one that is half or will change does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import ipv6 as probe
from machines import machine

SPEC = {"status": "identified"}
ENTRY = "/boot/loader/entries/a.conf"
OFF = "net.ipv6.conf.all.disable_ipv6 = 1\nnet.ipv6.conf.default.disable_ipv6 = 1\n"
FILE = "/etc/sysctl.d/60-site.conf"


def state(every: str = "0", default: str = "0", options: str = "options root=UUID=x ro\n") -> dict[str, Any]:
    place = "/proc/sys/net/ipv6/conf"
    return {
        "/proc/cmdline": "root=UUID=x ro",
        ENTRY: options,
        f"{place}/all/disable_ipv6": f"{every}\n",
        f"{place}/default/disable_ipv6": f"{default}\n",
    }


KERNEL_OFF = {"/proc/cmdline": "ro ipv6.disable=1", ENTRY: "options ro ipv6.disable=1 quiet\n"}


@pytest.mark.parametrize(
    ("name", "files", "status"),
    [
        ("stock_pass", state(), "pass"),
        ("written_down_as_on_pass", {**state(), FILE: OFF.replace("1", "0")}, "pass"),
        ("off_by_parameters_pass", {**state("1", "1"), FILE: OFF}, "pass"),
        ("off_by_slashes_and_glob_pass", {**state("1", "1"), FILE: "net/ipv6/conf/*/disable_ipv6=1\n"}, "pass"),
        ("off_by_the_kernel_pass", KERNEL_OFF, "pass"),
        ("interface_alone_is_no_matter_pass", {**state(), FILE: "net.ipv6.conf.ens5.disable_ipv6 = 1\n"}, "pass"),
        ("half_off_fail", {**state("0", "1"), FILE: "net.ipv6.conf.default.disable_ipv6=1\n"}, "fail"),
        ("off_until_the_boot_fail", state("1", "1"), "fail"),
        ("on_until_the_boot_fail", {**state(), FILE: OFF}, "fail"),
        (
            "later_file_wins_fail",
            {**state("1", "1"), FILE: OFF, "/etc/sysctl.d/99-z.conf": OFF.replace("1", "0")},
            "fail",
        ),
        ("kernel_off_at_the_boot_fail", state(options="options ro ipv6.disable=1\n"), "fail"),
        ("kernel_on_at_the_boot_fail", {**KERNEL_OFF, ENTRY: "options ro ipv6.disable=1 ipv6.disable=0\n"}, "fail"),
        ("second_entry_differs_fail", {**KERNEL_OFF, "/boot/loader/entries/b.conf": "options ro\n"}, "fail"),
        ("no_tree_and_no_argument_fail", {"/proc/cmdline": "ro"}, "fail"),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, Any], status: str) -> None:
    assert probe.check(machine(tmp_path, files), SPEC)["status"] == status, name


def test_evidence_names_state_and_file(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {**state(), FILE: OFF}), SPEC)
    assert finding["evidence"][0]["found"] == "enabled"
    assert f"{FILE}:1" in finding["reason"]
