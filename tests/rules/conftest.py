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
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import registry
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

from . import breaking

SELECTION = catalogue.Selection("al2023-1.0.0", level=2)


class Hardened:
    """A stand-in node at level 2, booted again. ``audit()`` gives the finding per slug."""

    def __init__(self, node: Any, inventory: Path, selection: catalogue.Selection = SELECTION) -> None:
        self.node = node
        self.inventory = inventory
        self.selection = selection
        self.stock = self.audit(manual=True)
        self.packages = self.installed()
        self.played = self.harden()
        self.node.reboot()  # what is right on disk alone, such as a kernel argument, has to be in force
        put_audit(self.node)
        self.hardened = self.audit(manual=True)
        self.last = self.audit()

    def audit(self, manual: bool = False) -> dict[str, Any]:
        """The finding per slug. Evidence for a person, which costs as much again, is gathered with ``manual``."""
        entries = catalogue.load().select(self.selection)
        chosen = [entry for entry in entries if manual or not (entry.rule and entry.rule.manual)]
        self.last = audited(self.node, self.selection, chosen)
        return self.last

    def installed(self) -> set[str]:
        """Names with versions, of the RPM database."""
        return set(self.node.exec("rpm -qa", check=True).stdout.split())

    def harden(self, *extra: str) -> str:
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        argv = [Path(sys.executable).parent / "ansible-playbook", "-i", self.inventory, "cisdriver.amazon_linux.harden"]
        chosen = {"cis_profile": self.selection.profile, "cis_values": dict(self.selection.values)}
        argv += ["-e", "cis_level=2", "-e", json.dumps(chosen), *extra]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout


def audited(node: Any, selection: catalogue.Selection, entries: list[catalogue.Entry] | None = None) -> dict[str, Any]:
    """The finding per slug of a node that put_audit() has equipped; of some entries, or all of the selection."""
    found: dict[str, Any] = _inside(node, lookup.audit_plan(selection, entries or catalogue.load().select(selection)))
    return found


def verified(node: Any, *leave_out: str) -> dict[str, Any]:
    """What each check of verify_node found but some, by name, on a node that put_audit() has equipped."""
    plan = {"checks": [name for name in registry.CHECKS if name not in leave_out]}
    return {one["name"]: one for one in _inside(node, plan)}


def _inside(node: Any, plan: Any) -> Any:
    argv = ["podman", "exec", "-i", node.name, "python3", "/run/rules/inside.py", "/run/rules"]
    done = subprocess.run(argv, input=json.dumps(plan), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def not_met(findings: dict[str, Any]) -> set[str]:
    """Rules that fail and whose fail nothing accepts, and those the audit could not look at."""
    return {
        slug
        for slug, finding in findings.items()
        if finding["status"] == "error"
        or (finding["status"] == "fail" and finding.get("instead", finding)["status"] not in ("pass", "not_applicable"))
    }


def breaks_alone(hardened: Hardened, slug: str, how: breaking.Break) -> None:
    """Break one rule: the audit sees that one and no unrelated other, and its evidence names the offender."""
    before = not_met(hardened.last)
    done = hardened.node.exec(how.command)
    assert done.returncode == 0, done.stderr
    try:
        after = hardened.audit()
        new = not_met(after) - before
        assert slug in new, after[slug]
        assert new <= {slug, *how.also}, {name: after[name]["reason"] for name in new}
        assert how.words in json.dumps(after[slug]), after[slug]["reason"]
    finally:
        if how.undo:
            hardened.node.exec(how.undo)
            hardened.audit()


#: What makes a stand-in a node of a cluster.
NODE = (
    *("/etc/eks", "/etc/kubernetes", "/etc/containerd", "/etc/sysctl.d/[69]*"),
    *("/usr/bin/kubelet", "/usr/bin/containerd", "/usr/bin/nodeadm*", "/etc/systemd/system/nodeadm*"),
    *("/etc/systemd/system/kubelet.service", "/usr/lib/systemd/system/containerd.service"),
)


def make_server(node: Any) -> None:
    """A stand-in that is no node of a cluster any more."""
    node.exec(f"systemctl disable -q --now kubelet containerd; rm -rf {' '.join(NODE)}", check=True)


def put_audit(node: Any) -> None:
    """The collection and the tools of these tests, in /run: no rule scans it, and a reboot empties it."""
    tree = "/run/rules/ansible_collections/cisdriver/amazon_linux"
    subprocess.run(["podman", "exec", node.name, "mkdir", "-p", tree], check=True)
    subprocess.run(["podman", "cp", ROOT / "plugins", f"{node.name}:{tree}/plugins"], check=True)
    for name in ("inside.py", "stub-rpm"):
        subprocess.run(["podman", "cp", Path(__file__).with_name(name), f"{node.name}:/run/rules/"], check=True)


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardened]:
    from cisdriver.sandbox import node as standin

    with standin.start(f"cisdriver-rules-{os.getpid()}") as node:
        put_audit(node)
        inventory = tmp_path_factory.mktemp("rules") / "inventory.yml"
        inventory.write_text(node.inventory())
        yield Hardened(node, inventory)
