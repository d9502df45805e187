"""One hardened node for all rules, and a quick way to audit it again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.cisdriver.amazon_linux.plugins.lookup import rules as lookup
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

SELECTION = catalogue.Selection("al2023-1.0.0", level=2)


class Hardened:
    """A stand-in node at level 2. ``audit()`` gives the finding per slug, ``status`` is of the last one."""

    def __init__(self, node: Any, inventory: Path) -> None:
        self.node = node
        self.inventory = inventory
        self.stock = self.audit()
        self.played = self.harden()
        self.hardened = self.last = self.audit()

    def audit(self) -> dict[str, Any]:
        plan = lookup.audit_plan(SELECTION, catalogue.load().select(SELECTION))
        argv = ["podman", "exec", "-i", self.node.name, "python3", "/run/rules/inside.py", "/run/rules"]
        done = subprocess.run(argv, input=json.dumps(plan), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        self.last = json.loads(done.stdout)
        return self.last

    def harden(self, *extra: str) -> str:
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        argv = [Path(sys.executable).parent / "ansible-playbook", "-i", self.inventory, "cisdriver.amazon_linux.harden"]
        argv += ["-e", "cis_level=2", *extra]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardened]:
    from cisdriver.sandbox import node as standin

    with standin.start(f"cisdriver-rules-{os.getpid()}") as node:
        tree = "/run/rules/ansible_collections/cisdriver/amazon_linux"
        subprocess.run(["podman", "exec", node.name, "mkdir", "-p", tree], check=True)
        subprocess.run(["podman", "cp", ROOT / "plugins", f"{node.name}:{tree}/plugins"], check=True)
        for name in ("inside.py", "stub-rpm"):
            subprocess.run(["podman", "cp", Path(__file__).with_name(name), f"{node.name}:/run/rules/"], check=True)
        inventory = tmp_path_factory.mktemp("rules") / "inventory.yml"
        inventory.write_text(node.inventory())
        yield Hardened(node, inventory)
