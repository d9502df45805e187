"""Level 2 with profile server on a stand-in: nothing is excepted, and what fails is the site's to decide."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from . import breaking
from .conftest import Hardened, breaks_alone, catalogue, make_server, not_met, put_audit

pytestmark = pytest.mark.node

SELECTION = catalogue.Selection(
    "al2023-1.0.0",
    level=2,
    profile="server",
    values={
        "rsyslog_sends_to_remote_host": {"host": "logs.example.com"},
        "journal_upload_configured": {
            "URL": "https://logs.example.com:19532",
            "ServerKeyFile": "/etc/pki/upload-key.pem",
            "ServerCertificateFile": "/etc/pki/upload.pem",
            "TrustedCertificateFile": "/etc/pki/ca.pem",
        },
    },
)
#: What no program can decide for a site, or a container cannot have.
OPEN = {
    "4.2.4": "who may log in",
    "1.6.1.5": "enforcing needs a kernel with SELinux, and the next boot",
    **dict.fromkeys(("1.1.3.1", "1.1.4.1", "1.1.5.1", "1.1.6.1", "1.1.7.1"), "a container has no partitions"),
}

RULES = {entry.recommendation.id: entry.rule for entry in catalogue.load().select(SELECTION) if entry.rule}
#: What is broken here because a node of EKS has no cron, no rsyslog and no collector, or is excepted. The firewall has
#: a module of its own.
ON_A_SERVER = sorted(
    [
        *(slug for slug, why in breaking.ELSEWHERE.items() if "test_server_profile.py" in why),
        *(
            rule.slug
            for id_, rule in RULES.items()
            if rule.verdict("eks") == "except" and id_ not in {"3.4.1.2", *OPEN}
        ),
    ],
    key=lambda slug: breaking.takes_a_package_away(catalogue.load().rules[slug].require),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardened]:
    from cisdriver.sandbox import node as standin

    with standin.start(f"cisdriver-server2-{os.getpid()}", "ami") as node:
        files = SELECTION.values["journal_upload_configured"].values()
        node.exec("dnf -q -y install cronie at; usermod -p '$6$salt$x' root", check=True)
        for path in [value for value in files if value.startswith("/")]:
            node.put(path, "")
        make_server(node)
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


@pytest.mark.parametrize("slug", ON_A_SERVER)
def test_broken_alone_it_fails_alone(server: Hardened, slug: str) -> None:
    breaks_alone(server, slug, breaking.how(slug, catalogue.load().rules[slug].require))


def test_it_is_mended_and_can_still_be_administered(server: Hardened) -> None:
    server.harden()
    assert not_met(server.audit()) == not_met(server.hardened)
    assert "changed=0 " in server.harden()
    assert server.node.exec("sshd -t && visudo -c").returncode == 0
