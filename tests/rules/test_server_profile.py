"""Level 2 with profile server on a stand-in: nothing is excepted, and what fails is the site's to decide."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from .conftest import Hardened, catalogue, put_audit

pytestmark = pytest.mark.node

SELECTION = catalogue.Selection("al2023-1.0.0", level=2, profile="server")
#: What makes a stand-in a node of a cluster.
NODE = (
    *("/etc/eks", "/etc/kubernetes", "/etc/containerd", "/etc/sysctl.d/[69]*"),
    *("/usr/bin/kubelet", "/usr/bin/containerd", "/usr/bin/nodeadm*", "/etc/systemd/system/nodeadm*"),
    *("/etc/systemd/system/kubelet.service", "/usr/lib/systemd/system/containerd.service"),
)
#: What no program can decide for a site, or a container cannot have.
OPEN = {
    "4.2.4": "who may log in",
    "4.6.6": "a password for root",
    "5.1.1.6": "the host that takes the logs",
    "1.6.1.5": "enforcing needs a kernel with SELinux, and the next boot",
    **dict.fromkeys(("1.1.3.1", "1.1.4.1", "1.1.5.1", "1.1.6.1", "1.1.7.1"), "a container has no partitions"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardened]:
    from cisdriver.sandbox import node as standin

    with standin.start(f"cisdriver-server2-{os.getpid()}", "ami") as node:
        node.exec(f"systemctl disable -q kubelet containerd; rm -rf {' '.join(NODE)}", check=True)
        put_audit(node)
        inventory = tmp_path_factory.mktemp("server") / "inventory.yml"
        inventory.write_text(node.inventory())
        yield Hardened(node, inventory, SELECTION)


def test_nothing_is_excepted_and_the_rest_is_the_sites(server: Hardened) -> None:
    left = {
        entry.recommendation.id: server.hardened[entry.rule.slug]["reason"]
        for entry in catalogue.load().select(SELECTION)
        if entry.rule and server.hardened[entry.rule.slug]["status"] in ("fail", "error")
    }
    assert set(left) <= set(OPEN), json.dumps({id_: left[id_] for id_ in set(left) - set(OPEN)}, indent=1)
    assert not any("instead" in finding for finding in server.hardened.values())


def test_it_can_still_be_administered(server: Hardened) -> None:
    assert "changed=0 " in server.harden()
    assert server.node.exec("sshd -t && visudo -c").returncode == 0
