"""The rules of mounts on a node whose image has the second volume: the layout passes, each broken alone fails alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

from .conftest import ROOT, audited, put_audit

pytestmark = [pytest.mark.node, pytest.mark.slow]
SELECTION = catalogue.Selection("al2023-1.0.0", level=2, only=("mounts",))
#: Paths of the layout, and the options that CIS asks for.
OPTIONS = {
    "/var": ("nodev", "nosuid"),
    "/var/tmp": ("nodev", "nosuid", "noexec"),
    "/var/log": ("nodev", "nosuid", "noexec"),
    "/var/log/audit": ("nodev", "nosuid", "noexec"),
    "/home": ("nodev", "nosuid"),
}


class Partitioned:
    """A stock node before it joins, laid out by role partitions, and an audit of the rules of mounts."""

    def __init__(self, node: Any, directory: Path) -> None:
        self.node, self._directory = node, directory
        (directory / "inventory.yml").write_text(node.inventory())
        self.play({"ansible.builtin.include_role": {"name": "cisdriver.amazon_linux.partitions"}})

    def play(self, task: dict[str, Any]) -> str:
        variables = {"cis_benchmark": SELECTION.benchmark, "cis_level": 2}
        play = {"hosts": "all", "become": True, "gather_facts": False, "vars": variables, "tasks": [task]}
        (self._directory / "play.yml").write_text(json.dumps([play]))
        return self._run()

    def harden(self) -> str:
        """The topic alone, as role harden runs it last."""
        role = {"name": "cisdriver.amazon_linux.initial_setup", "tasks_from": "mounts"}
        return self.play({"ansible.builtin.include_role": role})

    def _run(self) -> str:
        argv = [Path(sys.executable).parent / "ansible-playbook", "-i", "inventory.yml", "play.yml"]
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        env["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / "collections")
        done = subprocess.run(argv, cwd=self._directory, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        return done.stdout

    def audit(self) -> dict[str, Any]:
        return audited(self.node, SELECTION)

    def failing(self) -> set[str]:
        return {slug for slug, finding in self.audit().items() if finding["status"] not in ("pass", "not_applicable")}


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partitioned]:
    from cisdriver.sandbox import node as standin

    with standin.start(f"cisdriver-partitioned-{os.getpid()}", "ami", volumes={"/dev/xvdb": 20}) as node:
        node.wait_ssh()
        machine = Partitioned(node, tmp_path_factory.mktemp("partitioned"))
        put_audit(node)
        yield machine


def slug(path: str) -> str:
    return path.strip("/").replace("/", "_")


def test_the_layout_meets_every_rule_and_hardening_has_nothing_to_add(partitioned: Partitioned) -> None:
    partitioned.harden()  # /tmp and /dev/shm, which the layout leaves alone
    assert re.search(r"changed=0\s", partitioned.harden())
    findings = partitioned.audit()
    assert {name: one["reason"] for name, one in findings.items() if one["status"] != "pass"} == {}
    assert {f"{slug(path)}_separate_mount" for path in OPTIONS} <= set(findings)


@pytest.mark.parametrize("path", OPTIONS)
def test_a_mount_that_the_next_boot_would_miss_fails_alone(partitioned: Partitioned, path: str) -> None:
    partitioned.node.exec(f"cp -p /etc/fstab /run/fstab; sed -i '\\% {path} %d' /etc/fstab; systemctl daemon-reload")
    try:
        assert partitioned.failing() == {f"{slug(path)}_separate_mount"}
    finally:
        partitioned.node.exec("cp -p /run/fstab /etc/fstab; systemctl daemon-reload", check=True)
    assert partitioned.failing() == set()


@pytest.mark.parametrize(
    ("path", "option"), [(path, option) for path, options in OPTIONS.items() for option in options]
)
def test_an_option_taken_away_fails_alone(partitioned: Partitioned, path: str, option: str) -> None:
    rule, node = f"{slug(path)}_{option}", partitioned.node
    node.exec(f"mount -o remount,bind,{option[2:]} {path}", check=True)
    assert partitioned.failing() == {rule}
    node.exec(f"mount -o remount,bind,{option} {path}; cp -p /etc/fstab /run/fstab", check=True)
    node.exec(f"sed -i -E '\\% {path} %s/,{option}//' /etc/fstab", check=True)
    finding = partitioned.audit()[rule]
    assert finding["status"] == "fail"
    assert path in finding["reason"]
    assert "/etc/fstab:" in finding["reason"]
    node.exec("cp -p /run/fstab /etc/fstab", check=True)


def test_hardening_puts_all_options_back(partitioned: Partitioned) -> None:
    away = "s/,(nodev|nosuid|noexec)//g"
    partitioned.node.exec(f"sed -i -E '/^LABEL=cis-(var|var-log|audit|var-tmp|home) /{away}' /etc/fstab", check=True)
    assert partitioned.failing() == {
        f"{slug(path)}_{option}" for path, options in OPTIONS.items() for option in options
    }
    partitioned.harden()
    assert partitioned.failing() == set()


def test_binds_wait_for_the_file_system_they_are_bound_from(partitioned: Partitioned) -> None:
    """Without the volume containers must not fill the root file system instead."""
    said = partitioned.node.exec("systemctl show -p Requires -p RequiresMountsFor var-lib-containerd.mount", check=True)
    assert "/mnt/k8s-disks/cis/containerd" in said.stdout
