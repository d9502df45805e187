"""Unconfined services: states that pass, and more of them that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import unconfined_service as probe
from machines import machine

KERNEL: dict[str, str | None] = {"/run/systemd/system": None, "/sys/fs/selinux/enforce": "0"}
NODE = {"below": ["/kubepods.slice", "/runtime.slice", "/system.slice/amazon-ssm-agent.service"]}


def process(pid: int, group: str, type_: str = "unconfined_service_t", name: str = "my (odd) name") -> dict[str, str]:
    return {
        f"/proc/{pid}/attr/current": f"system_u:system_r:{type_}:s0\0",
        f"/proc/{pid}/stat": f"{pid} ({name}) S 1 " + " ".join(str(number) for number in range(5, 53)) + "\n",
        f"/proc/{pid}/cgroup": f"12:cpu:/\n0::{group}\n",
    }


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("none_pass", process(7, "/system.slice/sshd.service", "sshd_t"), {}, "pass"),
        ("user_session_pass", process(7, "/user.slice", "unconfined_t"), {}, "pass"),
        ("pod_pass", process(7, "/kubepods.slice/kubepods-burstable.slice/a"), NODE, "pass"),
        ("kubelet_pass", process(7, "/runtime.slice/kubelet.service"), NODE, "pass"),
        ("agent_pass", process(7, "/system.slice/amazon-ssm-agent.service"), NODE, "pass"),
        ("kernel_thread_without_a_context_pass", {"/proc/2/attr/current": "kernel\0"}, {}, "pass"),
        ("any_fail", process(7, "/system.slice/my.service"), {}, "fail"),
        ("pod_on_a_server_fail", process(7, "/kubepods.slice/a"), {}, "fail"),
        ("unknown_agent_fail", process(7, "/system.slice/my.service"), NODE, "fail"),
        ("name_that_only_begins_so_fail", process(7, "/runtime.slice2/a"), NODE, "fail"),
        ("one_of_two_fail", {**process(7, "/runtime.slice/a"), **process(8, "/system.slice/b.service")}, NODE, "fail"),
        ("hierarchy_of_systemd_fail", {**process(7, ""), "/proc/7/cgroup": "1:name=systemd:/system.slice/b\n"}, NODE,
         "fail"),
        ("no_group_known_fail", {**process(7, ""), "/proc/7/cgroup": ""}, NODE, "fail"),
    ],
)  # fmt: skip
def test_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, Any], spec: Any, status: str
) -> None:
    monkeypatch.setattr(probe, "SECOND_LOOK", 0)
    assert probe.check(machine(tmp_path, {**KERNEL, **files}), spec)["status"] == status, name


@pytest.mark.parametrize("kernel", [{"/run/systemd/system": None}, {**KERNEL, "/run/systemd/container": "podman"}, {}])
def test_without_labels_it_does_not_apply(tmp_path: Path, kernel: dict[str, Any]) -> None:
    finding = probe.check(machine(tmp_path, {**kernel, **process(7, "/system.slice/a")}), {})
    assert finding["status"] == "not_applicable" and "no process" in finding["reason"]


def test_evidence_names_process_and_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SECOND_LOOK", 0)
    finding = probe.check(machine(tmp_path, {**KERNEL, **process(7, "/system.slice/my.service")}), NODE)
    assert finding["reason"].startswith("process 7 (my (odd) name): expected not unconfined_service_t, unless it runs")
    assert finding["reason"].endswith("found unconfined_service_t in control group /system.slice/my.service")


def test_what_ends_at_once_is_no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = machine(tmp_path, {**KERNEL, **process(7, "/system.slice/a")})
    monkeypatch.setattr(probe.time, "sleep", lambda _seconds: (tmp_path / "proc/7/attr/current").unlink())
    assert probe.check(node, {})["status"] == "pass"
