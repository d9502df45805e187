"""The host firewall: rulesets and units that pass, and more of them that fail; a table that is never a lock-out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import nftables as text
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import firewall as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import firewall
from machines import Output, Refused, applied, machine, rule, settles, tree

UNITS = ("firewalld.service", "nftables.service", "iptables.service", "ip6tables.service")
LIST = "nft -j list ruleset"
BOOT = f"unshare --net sh -c {probe._LOAD} sh {probe.RULES_FILE}"
ACCEPT, DROP = {"accept": None}, {"drop": None}
IPV6 = {"/proc/sys/net/ipv6": None, "/run/systemd/system": None}


def chain(
    hook: str, policy: str = "drop", family: str = "inet", name: str = "", kind: str = "filter"
) -> dict[str, Any]:
    base = {"type": kind, "hook": hook, "prio": 0, "policy": policy} if hook else {}
    return {"chain": {"family": family, "table": "t", "name": name or hook, **base}}


def said(*expressions: Any, within: str = "input", family: str = "inet") -> dict[str, Any]:
    return {"rule": {"family": family, "table": "t", "chain": within, "expr": list(expressions)}}


def meta(key: str, value: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": value}}


def saddr(family: str, value: Any) -> dict[str, Any]:
    left = {"payload": {"protocol": family, "field": "saddr"}}
    return {"match": {"op": "==", "left": left, "right": value}}


def ct(*states: str) -> dict[str, Any]:
    right = states[0] if len(states) == 1 else list(states)
    return {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": right}}


LO, NOT_LO = meta("iif", "lo"), meta("iifname", "lo", "!=")
NET4, NET6 = saddr("ip", {"prefix": {"addr": "127.0.0.0", "len": 8}}), saddr("ip6", "::1")
TCP = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "protocol"}}, "right": "tcp"}}
L4 = meta("l4proto", {"set": ["icmp", "tcp", "udp"]})
COUNTER = {"counter": {"packets": 3, "bytes": 200}}
EST, LOOP = {"established": "accepted"}, {"loopback": "configured"}
IN, FORWARD, OUT = chain("input"), chain("forward"), chain("output", "accept")
SPOOFED = [said(LO, ACCEPT), said(NET4, COUNTER, DROP), said(NET6, DROP)]
IN4 = chain("input", "drop", "ip")
IPTABLES = chain("forward", "accept", "ip", "FORWARD")


def ruleset(*items: dict[str, Any]) -> str:
    tables = {item["chain"]["family"] for item in items if "chain" in item}
    named = [{"table": {"family": family, "name": "t"}} for family in sorted(tables)]
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.4"}}, *named, *items]})


def units(**states: str) -> dict[str, str | Output]:
    """Answers of systemctl: ``enabled+`` is enabled and active; what is not named is not there."""
    answers: dict[str, str | Output] = {}
    for unit in UNITS:
        state = states.get(unit.partition(".")[0], "")
        word = state.rstrip("+")
        missing = Output(1, "", f"Failed to get unit file state for {unit}: No such file or directory")
        answers[f"systemctl is-enabled {unit}"] = Output(0, word + "\n", "") if word else missing
        answers[f"systemctl is-active {unit}"] = "active\n" if state.endswith("+") else Output(3, "inactive\n", "")
    return answers


def look(root: Path, spec: dict[str, Any], running: str = "", boot: str | None = None, **states: str) -> dict[str, Any]:
    rules = {LIST: running or ruleset(), BOOT: (running or ruleset()) if boot is None else boot}
    answers = {**units(**(states or {"nftables": "enabled+"})), **rules}
    return probe.check(machine(root, {**IPV6, probe.RULES_FILE: "# rules\n"}, answers), spec)


@pytest.mark.parametrize(
    ("name", "wanted", "states", "status"),
    [
        ("nftables_alone_pass", "single", {"nftables": "enabled+"}, "pass"),
        ("nftables_and_masked_firewalld_pass", "single", {"nftables": "enabled+", "firewalld": "masked"}, "pass"),
        ("firewalld_and_masked_nftables_pass", "single", {"firewalld": "enabled+", "nftables": "masked"}, "pass"),
        ("firewalld_alone_pass", "single", {"firewalld": "enabled+"}, "pass"),
        ("neither_fail", "single", {"nftables": "disabled"}, "fail"),
        ("both_fail", "single", {"nftables": "enabled+", "firewalld": "enabled+"}, "fail"),
        ("firewalld_only_disabled_fail", "single", {"nftables": "enabled+", "firewalld": "disabled"}, "fail"),
        ("firewalld_runs_though_masked_fail", "single", {"nftables": "enabled+", "firewalld": "masked+"}, "fail"),
        ("nftables_enabled_but_not_loaded_fail", "single", {"nftables": "enabled"}, "fail"),
        ("nftables_loaded_but_not_enabled_fail", "single", {"nftables": "disabled+"}, "fail"),
        ("firewalld_runs_until_the_boot_fail", "single", {"firewalld": "disabled+", "nftables": "masked"}, "fail"),
        ("iptables_beside_fail", "single", {"nftables": "enabled+", "iptables": "enabled+"}, "fail"),
        ("ip6tables_beside_fail", "single", {"nftables": "enabled+", "ip6tables": "enabled"}, "fail"),
        ("node_pass", "none", {"nftables": "disabled"}, "pass"),
        ("node_with_masked_firewalld_pass", "none", {"firewalld": "masked"}, "pass"),
        ("node_with_firewalld_fail", "none", {"firewalld": "enabled+"}, "fail"),
        ("node_with_startable_firewalld_fail", "none", {"firewalld": "disabled"}, "fail"),
        ("node_with_nftables_service_fail", "none", {"nftables": "enabled"}, "fail"),
        ("node_with_iptables_service_fail", "none", {"iptables": "enabled"}, "fail"),
    ],
)
def test_tool(tmp_path: Path, name: str, wanted: str, states: dict[str, str], status: str) -> None:
    assert look(tmp_path, {"tool": wanted}, **states)["status"] == status, name


@pytest.mark.parametrize(
    ("name", "spec", "rules", "status"),
    [
        ("pods_pass", {"forward": "accept"}, [IPTABLES], "pass"),
        ("no_chain_pass", {"forward": "accept"}, [], "pass"),
        ("input_may_be_closed_pass", {"forward": "accept"}, [IN, IPTABLES], "pass"),
        ("chain_beside_iptables_fail", {"forward": "accept"}, [IPTABLES, FORWARD], "fail"),
        ("iptables_forward_drop_fail", {"forward": "accept"}, [chain("forward", "drop", "ip", "FORWARD")], "fail"),
        ("table_pass", {"table": "inet"}, [IN], "pass"),
        ("table_of_iptables_alone_fail", {"table": "inet"}, [IPTABLES], "fail"),
        ("no_table_fail", {"table": "inet"}, [], "fail"),
        ("chains_pass", {"base_chains": ["input", "forward", "output"]}, [IN, FORWARD, OUT], "pass"),
        ("both_families_pass", {"base_chains": ["input"]}, [IN4, chain("input", "drop", "ip6")], "pass"),
        ("no_output_fail", {"base_chains": ["input", "forward", "output"]}, [IN, FORWARD], "fail"),
        ("ipv4_alone_fail", {"base_chains": ["input"]}, [IN4], "fail"),
        ("nat_is_no_filter_fail", {"base_chains": ["output"]}, [chain("output", "accept", kind="nat")], "fail"),
        ("deny_pass", {"default_deny": ["input", "forward"]}, [IN, FORWARD, IPTABLES], "pass"),
        ("deny_with_rules_pass", {"default_deny": ["input"]}, [IN, said(LO, ACCEPT), said(ct("new"), ACCEPT)], "pass"),
        ("policy_accept_fail", {"default_deny": ["input"]}, [chain("input", "accept")], "fail"),
        ("forward_open_fail", {"default_deny": ["input", "forward"]}, [IN, chain("forward", "accept")], "fail"),
        ("ipv6_open_fail", {"default_deny": ["input"]}, [IN4, chain("input", "accept", "ip6")], "fail"),
        ("accepts_all_before_fail", {"default_deny": ["input"]}, [IN, said(COUNTER, ACCEPT)], "fail"),
        ("accepts_all_in_a_jump_fail", {"default_deny": ["input"]}, [
            IN, chain("", name="a"), said({"jump": {"target": "a"}}), said(ACCEPT, within="a")], "fail"),
        ("loopback_pass", LOOP, [IN, *SPOOFED], "pass"),
        ("loopback_by_name_pass", LOOP, [
            IN, said(meta("iifname", "lo"), COUNTER, ACCEPT), *SPOOFED[1:]], "pass"),
        ("loopback_in_a_chain_of_its_own_pass", LOOP, [
            IN, chain("", name="a"), said({"jump": {"target": "a"}}), *(
                {"rule": {**each["rule"], "chain": "a"}} for each in SPOOFED)], "pass"),
        ("drops_that_spare_lo_pass", LOOP, [
            IN, said(NOT_LO, NET4, DROP), said(NOT_LO, NET6, DROP), said(LO, ACCEPT)], "pass"),
        ("rejects_pass", LOOP, [
            IN, SPOOFED[0], said(NET4, {"reject": None}), said(NET6, {"reject": {"type": "icmpv6"}})], "pass"),
        ("drops_before_lo_fail", LOOP, [IN, *SPOOFED[1:], SPOOFED[0]], "fail"),
        ("no_drop_of_ipv6_fail", LOOP, [IN, *SPOOFED[:2]], "fail"),
        ("lo_not_accepted_fail", LOOP, [IN, *SPOOFED[1:]], "fail"),
        ("lo_of_one_port_fail", LOOP, [IN, said(LO, TCP, ACCEPT), *SPOOFED[1:]], "fail"),
        ("drops_of_one_protocol_fail", LOOP, [
            IN, SPOOFED[0], said(TCP, NET4, DROP), SPOOFED[2]], "fail"),
        ("other_interface_fail", LOOP, [IN, said(meta("iif", "eth0"), ACCEPT), *SPOOFED[1:]], "fail"),
        ("loopback_at_output_fail", LOOP, [
            OUT, *({"rule": {**each["rule"], "chain": "output"}} for each in SPOOFED)], "fail"),
        ("established_pass", EST, [IN, OUT, said(ct("established", "related"), ACCEPT)], "pass"),
        ("established_by_protocols_pass", EST, [IN, said(L4, ct("established"), ACCEPT)], "pass"),
        ("established_by_map_pass", EST, [IN, said({"vmap": {
            "key": {"ct": {"key": "state"}}, "data": {"set": [["established", ACCEPT], ["invalid", DROP]]}}})], "pass"),
        ("established_of_tcp_alone_fail", EST, [IN, said(TCP, ct("established"), ACCEPT)], "fail"),
        ("established_dropped_fail", EST, [IN, said(ct("established"), DROP)], "fail"),
        ("new_alone_fail", EST, [IN, said(ct("new"), ACCEPT)], "fail"),
        ("output_closed_fail", {"established": "accepted"}, [
            IN, said(ct("established"), ACCEPT), chain("output", "drop")], "fail"),
        ("no_input_chain_fail", EST, [OUT], "fail"),
    ],
)  # fmt: skip
def test_ruleset(tmp_path: Path, name: str, spec: dict[str, Any], rules: list[Any], status: str) -> None:
    assert look(tmp_path, spec, ruleset(*rules))["status"] == status, name


DENY = {"default_deny": ["input"]}


@pytest.mark.parametrize(
    ("name", "running", "boot"), [("gone_at_boot", ruleset(IN), ruleset()), ("gone_now", ruleset(), ruleset(IN))]
)
def test_what_runs_and_what_the_boot_brings_are_both_judged(tmp_path: Path, name: str, running: str, boot: str) -> None:
    finding = look(tmp_path, DENY, running, boot)
    assert finding["status"] == "fail", name
    assert ("at boot, by /etc/sysconfig/nftables.conf" if boot == ruleset() else "running") in finding["reason"]


def test_a_file_that_does_not_load_is_an_error(tmp_path: Path) -> None:
    answers = {**units(nftables="enabled+"), LIST: ruleset(IN), BOOT: Output(1, "", "Interface does not exist")}
    with pytest.raises(core.ProbeError, match="at boot cannot be told"):
        probe.check(machine(tmp_path, {probe.RULES_FILE: ""}, answers), DENY)


def test_no_right_to_look_is_an_error(tmp_path: Path) -> None:
    answers = {**units(), LIST: Output(1, "", "Operation not permitted")}
    with pytest.raises(core.ProbeError, match="Operation not permitted"):
        probe.check(machine(tmp_path, {}, answers), {"forward": "accept"})


@pytest.mark.parametrize("spec", [
    {"table": "inet"}, DENY, {"loopback": "configured"}, {"established": "accepted"},
    {"default_zone": "known"}, {"zone_services": ["ssh"]},
])  # fmt: skip
def test_rules_of_a_tool_that_is_not_in_use_do_not_apply(tmp_path: Path, spec: dict[str, Any]) -> None:
    finding = look(tmp_path, spec, nftables="disabled")
    assert finding["status"] == "not_applicable"
    assert "is not the firewall in use" in finding["reason"]


def test_without_ipv6_the_older_family_is_enough(tmp_path: Path) -> None:
    rules = ruleset(chain("input", "drop", "ip"))
    answers = {**units(nftables="enabled+"), LIST: rules, BOOT: rules}
    assert probe.check(machine(tmp_path, {probe.RULES_FILE: ""}, answers), DENY)["status"] == "pass"


@pytest.mark.parametrize(
    ("policy", "status"), [("-P FORWARD ACCEPT\n", "pass"), ("-P FORWARD DROP\n-A FORWARD -j ACCEPT\n", "fail")]
)
def test_without_nft_iptables_is_asked(tmp_path: Path, policy: str, status: str) -> None:
    node = machine(tmp_path, {}, {**units(), "iptables -S FORWARD": policy})
    assert probe.check(node, {"forward": "accept"})["status"] == status


def test_the_older_iptables_beside_nftables_is_asked(tmp_path: Path) -> None:
    answers = {**units(), LIST: ruleset(), "iptables-legacy -S FORWARD": "-P FORWARD DROP\n"}
    node = machine(tmp_path, {"/proc/1/net/ip_tables_names": "nat\nfilter\n"}, answers)
    assert probe.check(node, {"forward": "accept"})["status"] == "fail"


RICH = """rule family="ipv4" source address="127.0.0.1" destination not address="127.0.0.1" drop
rule family="ipv6" source address="::1" destination not address="::1" drop
"""
FIREWALLD: dict[str, Any] = {
    "firewall-cmd --get-default-zone": "public\n",
    "firewall-cmd --get-zones": "drop public trusted\n",
    "firewall-cmd --get-active-zones": "public\n  interfaces: ens5\n",
    **{
        f"firewall-cmd {when}--zone={zone} --list-{what}": answer
        for when in ("", "--permanent ")
        for zone, what, answer in (
            *(("public", "services", "ssh dhcpv6-client\n"), ("public", "ports", "\n")),
            *(("trusted", "interfaces", "lo\n"), ("trusted", "rich-rules", RICH)),
        )
    },
}


@pytest.mark.parametrize(
    ("name", "spec", "changed", "status"),
    [
        ("zone_pass", {"default_zone": "known"}, {}, "pass"),
        ("zone_that_is_not_there_fail", {"default_zone": "known"}, {"--get-default-zone": "publicweb\n"}, "fail"),
        ("services_pass", {"zone_services": ["ssh", "dhcpv6-client"]}, {}, "pass"),
        ("port_of_the_site_pass", {"zone_services": ["ssh", "dhcpv6-client", "8443/tcp"]}, {
            "--zone=public --list-ports": "8443/tcp\n"}, "pass"),
        ("another_service_fail", {"zone_services": ["ssh"]}, {}, "fail"),
        ("port_until_the_reload_fail", {"zone_services": ["ssh", "dhcpv6-client"]}, {
            "--zone=public --list-ports": "8443/tcp\n"}, "fail"),
        ("service_after_the_reload_fail", {"zone_services": ["ssh", "dhcpv6-client"]}, {
            "--permanent --zone=public --list-services": "ssh cockpit\n"}, "fail"),
        ("loopback_pass", {"loopback": "configured"}, {}, "pass"),
        ("lo_in_no_zone_fail", {"loopback": "configured"}, {"--zone=trusted --list-interfaces": "\n"}, "fail"),
        ("rich_rules_not_permanent_fail", {"loopback": "configured"}, {
            "--permanent --zone=trusted --list-rich-rules": "\n"}, "fail"),
    ],
)  # fmt: skip
def test_firewalld(tmp_path: Path, name: str, spec: dict[str, Any], changed: dict[str, str], status: str) -> None:
    answers = {**units(firewalld="enabled+"), **FIREWALLD}
    answers.update({f"firewall-cmd {words}": answer for words, answer in changed.items()})
    assert probe.check(machine(tmp_path, {}, answers), spec)["status"] == status, name


# The module

TOOL = rule("single_firewall_utility_in_use", "3.4.1.2", {"tool": "nftables"})
TABLE = rule("nftables_table_exists", "3.4.2.2", {"table": "inet"})
CHAINS = rule("nftables_base_chains_exist", "3.4.2.3", {"base_chains": ["input", "forward", "output"]})
LOOPBACK = rule("firewall_loopback_configured", "3.4.2.4", {"loopback": "configured"})
CLOSED = rule("nftables_default_deny", "3.4.2.7", {"default_deny": None})
ALL = [TOOL, TABLE, CHAINS, LOOPBACK, CLOSED]


class Host:
    """A machine with systemd and nft: units change as systemctl is told, the table is the text of the file loaded."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, main: str = "# stock\n", **states: str) -> None:
        tree(root, {"nftables.conf": main, "nftables": None, "proc": None, "memory": None})
        self.path, self.main, self.memory = root / "nftables/cisdriver.nft", root / "nftables.conf", root / "memory"
        self.states = {"nftables": "disabled", **states}
        self.table = ""
        self.done: list[str] = []
        self.sshd = Output(0, "port 22\nlistenaddress [::]:22\nlistenaddress 0.0.0.0:22\n", "")
        self.refuses = ""
        monkeypatch.setattr(firewall.runtime, "manager_runs", lambda: True)
        monkeypatch.setattr(firewall.shutil, "which", lambda _name: "/usr/sbin/sshd")
        monkeypatch.setattr(firewall, "connection_port", lambda: self.connection)
        self.connection = 22

    def program(self, argv: list[str]) -> tuple[int, str, str]:
        words = " ".join(argv)
        if argv[:2] in (["systemctl", "is-enabled"], ["systemctl", "is-active"]):
            answer = units(**self.states)[words]
            return Output(0, answer, "") if isinstance(answer, str) else answer
        if argv[0] == "systemctl":
            return self._systemctl(argv[1], argv[2].partition(".")[0])
        if argv[0] == "unshare":
            return Output(1, "", self.refuses) if self.refuses else Output(0, Path(argv[-1]).read_text(), "")
        if argv[:2] == ["nft", "-f"]:
            self.done.append("load")
            self.table = Path(argv[2]).read_text()
        if argv[:2] == ["nft", "delete"]:
            self.done.append("delete")
            self.table = ""
        if argv[:2] == ["nft", "-s"]:
            return Output(0, self.table, "") if self.table else Output(1, "", "No such file or directory")
        return self.sshd if argv[0].endswith("sshd") else Output(0, "", "")

    def _systemctl(self, verb: str, unit: str) -> tuple[int, str, str]:
        self.done.append(f"{verb} {unit}")
        word, active = self.states.get(unit, "").rstrip("+"), self.states.get(unit, "").endswith("+")
        word = {"enable": "enabled", "disable": "disabled", "mask": "masked", "unmask": "disabled"}.get(verb, word)
        self.states[unit] = word + ("+" if verb == "start" or (active and verb != "stop") else "")
        return Output(0, "", "")

    def apply(self, batch: Any) -> None:
        batch.module.params.update(path=str(self.path), main=str(self.main))
        firewall.apply(batch)

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        return settles(self.apply, list(rules), program=self.program, memory=self.memory)

    def refused(self, *rules: dict[str, Any], match: str) -> None:
        for check in (True, False):
            with pytest.raises(Refused, match=match):
                applied(self.apply, list(rules), program=self.program, memory=self.memory, check=check)
        assert not self.path.exists() and not self.done


def absent(*rules: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule(each["rule"], each["id"], state="absent") for each in rules]


def test_a_node_of_a_cluster_gets_no_host_firewall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    monkeypatch.setattr(firewall.runtime, "NODE_MARKS", (str(tmp_path),))
    host.refused(*ALL, match="would cut the pods of this Kubernetes node")


def test_a_table_of_our_own_is_loaded_before_anything_is_enabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, monkeypatch, firewalld="disabled")
    host.settles(*ALL)
    assert host.done == ["load", "enable nftables", "start nftables", "mask firewalld"]
    assert host.main.read_text() == f'# stock\ninclude "{host.path}"\n'
    assert "tcp dport { 22 } accept" in host.table and "flush" not in host.table
    assert host.path.stat().st_mode & 0o777 == 0o600


def test_everything_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch, firewalld="disabled", iptables="enabled+")
    host.settles(*ALL)
    assert host.states["iptables"] == "masked"
    host.settles(*absent(*ALL))
    assert host.main.read_text() == "# stock\n" and not host.path.exists() and not host.table
    assert {unit: state.rstrip("+") for unit, state in host.states.items()} == {
        "nftables": "disabled", "firewalld": "disabled", "iptables": "enabled",
    }  # fmt: skip
    assert "stop nftables" not in host.done, "that would flush everybody's rules"


def test_units_that_refuse_are_given_back_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch, firewalld="disabled")
    host.settles(*ALL)

    def refuses(argv: list[str]) -> tuple[int, str, str]:
        return Output(1, "", "Refusing") if argv[:2] == ["systemctl", "unmask"] else host.program(argv)

    with pytest.raises(Refused, match=r"systemctl unmask firewalld\.service: exit 1: Refusing"):
        applied(host.apply, absent(*ALL), program=refuses, memory=host.memory)
    host.settles(*absent(*ALL))
    assert host.states["firewalld"] == "disabled"


def test_a_foreign_file_without_our_line_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch, "# stock, without an end of line")
    assert not host.settles(TABLE)["changed"]
    assert host.main.read_text() == "# stock, without an end of line"


def test_one_rule_less_is_its_part_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    host.settles(*ALL)
    host.settles(TOOL, TABLE, CHAINS, LOOPBACK, *absent(CLOSED))
    assert "policy drop" not in host.table and "ip saddr 127.0.0.0/8 drop" in host.table
    host.settles(TOOL, TABLE, CHAINS, CLOSED, *absent(LOOPBACK))
    assert "127.0.0.0" not in host.table and "iif lo accept" in host.table, "the deny needs lo all the same"


def test_rules_outside_of_the_run_keep_their_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    host.settles(*ALL)
    before = host.path.read_text()
    kept = [rule(each["rule"], each["id"], state="keep") for each in ALL if each is not CLOSED]
    host.settles(CLOSED, *kept)
    assert host.path.read_text() == before


def test_nothing_is_written_while_nobody_chose_nftables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    assert not host.settles(TABLE, CHAINS, LOOPBACK, CLOSED)["changed"]
    host.states["nftables"] = "enabled+"  # an administrator did
    assert host.settles(TABLE, CHAINS, LOOPBACK, CLOSED)["changed"]


def test_a_firewalld_in_use_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch, firewalld="enabled+")
    host.settles(*ALL)
    assert host.states == {"nftables": "masked", "firewalld": "enabled+"} and not host.path.exists()


def test_two_tools_in_use_are_the_sites_to_sort_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch, firewalld="enabled+", nftables="enabled+")
    host.refused(*ALL, match="both in use")


def test_a_firewalld_that_came_later_yields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    host.settles(*ALL)
    host.states["firewalld"], host.done = "enabled+", []
    host.settles(*ALL)
    assert host.done == ["mask firewalld", "stop firewalld"] and "nft" not in " ".join(host.done)


def test_a_table_changed_by_hand_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    host.settles(*ALL)
    wanted, host.table, host.done = host.table, "other", []
    assert host.settles(*ALL)["changed"]
    assert host.done == ["load"] and host.table == wanted


@pytest.mark.parametrize("main", ["", "flush ruleset\n", "# x\n", 'include "/etc/nftables/site.nft"'])
def test_the_table_is_loaded_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: str) -> None:
    host = Host(tmp_path, monkeypatch, main)
    host.settles(*ALL)
    host.main.write_text(host.main.read_text() + "flush ruleset\n")
    host.settles(*ALL)
    lines = host.main.read_text().splitlines()
    assert lines[-1] == f'include "{host.path}"' and lines.count(lines[-1]) == 1
    assert lines[-2] == "flush ruleset"


def test_the_port_of_the_connection_stays_open_or_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, monkeypatch)
    host.connection = 2222
    host.refused(*ALL, match=r"it would shut port 2222, by which this runs; sshd -T names 22\. .*tcp: \[2222\]")
    opened = rule(CLOSED["rule"], CLOSED["id"], {"default_deny": {"tcp": ["2000-3000"]}})
    host.settles(TOOL, opened)
    assert "tcp dport { 22, 2000-3000 } accept" in host.table


def test_nothing_is_denied_while_sshd_does_not_tell_its_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    host.sshd = Output(255, "", "Bad configuration option")
    host.refused(*ALL, match="nothing is denied before the port of sshd is known")


def test_what_nft_refuses_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    host.refuses = "syntax error"
    host.refused(*ALL, match="nothing is changed, nft refuses it: syntax error")


@pytest.mark.parametrize("ports", [["ssh"], [0], [70000], ["9-8"], "all", ["1-2-3"]])
def test_a_port_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ports: Any) -> None:
    host = Host(tmp_path, monkeypatch)
    host.refused(
        TOOL, rule(CLOSED["rule"], CLOSED["id"], {"default_deny": {"udp": ports}}), match="udp: expected a port"
    )


def test_what_goes_out_is_denied_once_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, monkeypatch)
    host.settles(TOOL, rule(CLOSED["rule"], CLOSED["id"], {"default_deny": {"output_tcp": [443], "udp": [123]}}))
    assert "type filter hook output priority 0; policy drop;" in host.table
    assert "\t\ttcp dport { 443 } accept\n" in host.table and "\t\tudp dport { 123 } accept\n" in host.table
    output = host.table[host.table.index("chain output") :]
    assert "tcp sport { 22 } accept" in output, "or the connection this runs over hangs"


def test_where_no_service_manager_runs_only_files_and_links_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, monkeypatch)
    monkeypatch.setattr(firewall.runtime, "manager_runs", lambda: False)
    host.connection = 0
    host.settles(*ALL)
    assert host.done == ["enable nftables"] and host.path.exists()


def test_the_connection_is_found_above_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    tree(tmp_path, {
        f"{os.getpid()}/environ": "SUDO_USER=ec2-user\0", f"{os.getpid()}/status": "Name:\tpython\nPPid:\t71\n",
        "71/environ": "HOME=/\0SSH_CONNECTION=10.0.0.9 40022 10.0.1.23 2222\0", "71/status": "PPid:\t1\n",
    })  # fmt: skip
    monkeypatch.setattr(firewall, "PROC", str(tmp_path))
    assert firewall.connection_port() == 2222


def test_overlapping_ports_make_one_range() -> None:
    rules = {"r": text.Asked("3.4.2.7", {"default_deny": {"tcp": ["20-30", 31, 443, 22]}})}
    assert "tcp dport { 20-31, 443 } accept" in text.text(rules, [22, 443])
