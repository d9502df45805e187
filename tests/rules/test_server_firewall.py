"""The host firewall of a server: it denies, lets in who administers it, before and after a boot, and goes again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, audited, catalogue, make_server, put_audit

pytestmark = pytest.mark.node

#: Rule, what breaks it and no other on the running machine, what its finding says.
BREAKS = [
    (
        "single_firewall_utility_in_use",
        "/run/rules/stub-rpm firewalld; {unit}; systemctl enable -q firewalld",
        "firewalld",
    ),
    ("nftables_table_exists", "nft delete table inet cisdriver", "tables (running)"),
    ("nftables_base_chains_exist", "nft delete chain inet cisdriver output", "hook output (running)"),
    ("firewall_loopback_configured", "nft flush chain inet cisdriver input; {ssh}", "127.0.0.0/8"),
    ("nftables_established_connections_allowed", "sed -i '/established/d' {file}", "(at boot"),
    ("nftables_default_deny", "sed -i '/cisdriver/d' {main}", "(at boot"),
]
WORDS = {
    "file": "/etc/nftables/cisdriver.nft",
    "main": "/etc/sysconfig/nftables.conf",
    "ssh": (  # lo, too: without its resolver sudo is too slow for Ansible
        "nft add rule inet cisdriver input iif lo accept; nft add rule inet cisdriver input tcp dport 22 accept;"
        " nft add rule inet cisdriver input ct state established accept"
    ),
    "unit": (
        r"printf '[Service]\nExecStart=/bin/sleep 9\n[Install]\nWantedBy=multi-user.target\n'"
        " > /usr/lib/systemd/system/firewalld.service; systemctl unmask -q firewalld; systemctl daemon-reload"
    ),
}
SELECTION = catalogue.Selection("al2023-1.0.0", level=2, profile="server", only=("firewall",))


class Server:
    """A stand-in hardened as a server, the topic firewall alone."""

    def __init__(self, node: Any, inventory: Path) -> None:
        self.node, self.inventory = node, inventory

    def harden(self, *extra: str) -> str:
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        argv = [Path(sys.executable).parent / "ansible-playbook", "-i", self.inventory, "cisdriver.amazon_linux.harden"]
        argv += ["--tags", "firewall", "--diff", "-e", "cis_level=2", "-e", "cis_profile=server", *extra]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout

    def audit(self) -> dict[str, Any]:
        return audited(self.node, SELECTION)

    def failing(self) -> set[str]:
        return {slug for slug, finding in self.audit().items() if finding["status"] not in ("pass", "not_applicable")}

    def lets_in(self) -> bool:
        return subprocess.run(self.node.ssh_command("true"), capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from cisdriver.sandbox import node as standin

    with standin.start(f"cisdriver-server-{os.getpid()}") as node:
        node.wait_ssh()
        make_server(node)
        inventory = tmp_path_factory.mktemp("server") / "inventory.yml"
        inventory.write_text(node.inventory())
        server = Server(node, inventory)
        put_audit(server.node)
        yield server


def test_it_closes_and_lets_in_who_administers_it_after_a_boot_too(server: Server) -> None:
    assert "single_firewall_utility_in_use" in server.failing()
    foretold = server.harden("--check")
    assert server.harden() == foretold
    assert "changed=0 " in server.harden()
    assert server.failing() == set() and server.lets_in()
    server.node.reboot()
    put_audit(server.node)
    assert server.lets_in()
    assert {finding["status"] for finding in server.audit().values()} == {"pass", "not_applicable"}
    closed = server.node.exec("nft -s list chain inet cisdriver input").stdout
    assert "policy drop" in closed and "tcp dport 22 accept" in closed and "10250" not in closed


@pytest.mark.parametrize(("slug", "command", "words"), BREAKS)
def test_broken_it_fails(server: Server, slug: str, command: str, words: str) -> None:
    server.node.exec("mkdir -p /run/kept; cp -p {file} {main} /run/kept/".format(**WORDS), check=True)
    server.node.exec(command.format(**WORDS), check=True)
    try:
        found = server.audit()[slug]
        assert found["status"] == "fail" and words in json.dumps(found), found
        assert server.lets_in()
    finally:
        back = "cp -p /run/kept/cisdriver.nft {file}; cp -p /run/kept/nftables.conf {main}; nft -f {file};"
        server.node.exec(f"{back} systemctl mask -q firewalld 2>/dev/null".format(**WORDS))
    assert server.failing() == set()


def test_hardening_mends_what_was_broken(server: Server) -> None:
    for slug in ("single_firewall_utility_in_use", "firewall_loopback_configured", "nftables_default_deny"):
        command = next(each[1] for each in BREAKS if each[0] == slug)
        server.node.exec(command.format(**WORDS), check=True)
    server.harden()
    assert server.failing() == set()
    assert "changed=0 " in server.harden()


def test_deselected_nothing_of_ours_is_left_and_nothing_of_others_is_gone(server: Server) -> None:
    server.node.exec("nft add table inet site; nft add chain inet site c", check=True)
    server.harden("-e", '{"cis_skip": ["firewall"]}')
    seen = server.node.exec(
        "nft list tables; systemctl is-enabled nftables; ls /etc/nftables; grep -v ^# /etc/sysconfig/nftables.conf"
    )
    assert seen.stdout.splitlines() == ["table inet site", "disabled"]
    assert server.lets_in()


#: Answers as firewall-cmd does, of a state that is files: the stand-in's firewalld is a unit that sleeps.
FIREWALL_CMD = r"""#!/bin/sh
case "$*" in
  --get-default-zone) cat /run/fw/zone ;;
  --get-zones) echo block dmz drop external home internal public trusted work ;;
  --get-active-zones) printf 'public\n  interfaces: eth0\n' ;;
  *--list-services) cat /run/fw/services ;;
  *--list-ports) : ;;
  *trusted*--list-interfaces) echo lo ;;
  *trusted*--list-rich-rules)
    echo 'rule family="ipv4" source address="127.0.0.1" destination not address="127.0.0.1" drop'
    echo 'rule family="ipv6" source address="::1" destination not address="::1" drop' ;;
  *) exit 2 ;;
esac
"""


def test_where_a_site_chose_firewalld_its_zones_are_judged(server: Server) -> None:
    """No module sets them: zones are the site's."""
    put = "/run/rules/stub-rpm firewalld; mkdir -p /run/fw; echo public > /run/fw/zone; echo ssh > /run/fw/services"
    server.node.put("/usr/bin/firewall-cmd", FIREWALL_CMD, 0o755)
    unit = WORDS["unit"].replace("sleep 9", "sleep infinity")
    server.node.exec(f"{put}; {unit}; systemctl disable -q nftables; systemctl enable -q --now firewalld", check=True)
    server.harden()
    assert server.failing() == set()
    for slug, command, words in (
        ("firewalld_default_zone_set", "echo trustd > /run/fw/zone", "trustd"),
        ("firewalld_unneeded_services_dropped", "echo ssh cockpit > /run/fw/services", "cockpit"),
    ):
        server.node.exec(command, check=True)
        found = server.audit()
        assert server.failing() == {slug} and words in json.dumps(found[slug]), found[slug]
        server.node.exec("echo public > /run/fw/zone; echo ssh > /run/fw/services", check=True)
        assert server.failing() == set()
