"""verify_node's checks of packet filters and of pods: rulesets that let a node work, and more that do not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import firewall
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import core as verify
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import network, pod_wires, registry
from machines import Output, machine

LIST = "nft -j list ruleset"
BOOT = f"unshare --net sh -c {firewall._LOAD} sh {firewall.RULES_FILE}"
UNITS = ("firewalld.service", "nftables.service", "iptables.service", "ip6tables.service")
NODE_ADDRESSES = "ip -o addr show dev ens5 scope global"
ABSENT = Output(1, "", "Failed to get unit file state: No such file or directory")
NODE: dict[str, Any] = {
    "/proc/net/route": "Iface Destination Gateway Flags RefCnt Use Metric Mask\nens5 00000000 0101000A 3 0 0 512 0\n",
    NODE_ADDRESSES: "2: ens5    inet 10.0.1.23/24 brd 10.0.1.255 scope global ens5\n",
    "iptables -V": "iptables v1.8.8 (nf_tables)\n",
    "iptables-save": "",
    "ip6tables-save": "",
    LIST: '{"nftables": []}',
    **{f"systemctl is-enabled {unit}": ABSENT for unit in UNITS},
    **{f"systemctl is-active {unit}": Output(3, "inactive\n", "") for unit in UNITS},
}
SIX = {NODE_ADDRESSES: "2: ens5    inet 10.0.1.23/24 scope global\n2: ens5    inet6 2600::7/128 scope global\n"}
ACCEPT, DROP, JUMP = {"accept": None}, {"drop": None}, {"jump": {"target": "sub"}}
LO = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}
EST = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}
ICMP = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": {"set": ["icmp", "ipv6-icmp"]}}}
RATE, OVER = {"limit": {"rate": 3, "per": "second"}}, {"limit": {"rate": 3, "per": "second", "inv": True}}
VPC = {"prefix": {"addr": "10.0.0.0", "len": 16}}
OWNER = {"match": {"op": "==", "left": {"meta": {"key": "skuid"}}, "right": 0}}
SYN = {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["fin", "syn", "rst", "ack"]]}
NEW_IS_SYN = {"match": {"op": "!=", "left": SYN, "right": "syn"}}
STATES = {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["new", DROP], ["established", ACCEPT]]}}}
NAMED = {"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": "@ports"}}
QUEUE = {"queue": {"num": 0}}


def payload(protocol: str, field: str, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


def dport(*ports: Any, protocol: str = "tcp") -> dict[str, Any]:
    return payload(protocol, "dport", {"set": [{"range": port} if isinstance(port, list) else port for port in ports]})


SADDR_VPC, SADDR_SET = payload("ip", "saddr", VPC), payload("ip", "saddr", "@vpc")
SADDR, DPORT = ({"payload": {"protocol": name, "field": field}} for name, field in (("ip", "saddr"), ("tcp", "dport")))
PAIR = {"match": {"op": "==", "left": {"concat": [SADDR, DPORT]}, "right": {"set": [{"concat": [VPC, 10250]}]}}}
OPEN = [dport(53, 9100, 10250, 10256, 61678, [30000, 32767]), dport(53, [30000, 32767], protocol="udp")]
BASE: list[tuple[Any, ...]] = [(EST, ACCEPT), (LO, ACCEPT), (ICMP, ACCEPT)]
LET_IN = [*BASE, *((each, ACCEPT) for each in OPEN)]
LET_IN_VPC = [*BASE, *((SADDR_VPC, each, ACCEPT) for each in OPEN)]


def chain(
    hook: str, policy: str, rules: list[tuple[Any, ...]], table: str = "t", family: str = "inet", **more: Any
) -> list[dict[str, Any]]:
    base = {"type": "filter", "hook": hook, "prio": 0, "policy": policy} if hook else {}
    place = {"family": family, "table": table}
    made: list[dict[str, Any]] = [{"chain": {**place, "name": hook or "sub", **base, **more}}]
    return made + [
        {"rule": {**place, "chain": hook or "sub", "handle": number, "expr": list(rule)}}
        for number, rule in enumerate(rules, 7)
    ]


def nft(*items: list[dict[str, Any]]) -> str:
    return json.dumps({"nftables": [{"metainfo": {}}, *(item for each in items for item in each)]})


def ruleset(*items: list[dict[str, Any]]) -> dict[str, Any]:
    return {LIST: nft(*items)}


def saved(*lines: str, **policies: str) -> str:
    """A table filter as ``iptables-save`` prints it."""
    heads = [f":{name} {policies.get(name, 'ACCEPT')} [0:0]" for name in ("INPUT", "FORWARD", "OUTPUT")]
    own = sorted({line.split()[1] for line in lines} - {"INPUT", "FORWARD", "OUTPUT"})
    return "\n".join(["*filter", *heads, *(f":{name} - [0:0]" for name in own), *lines, "COMMIT", ""])


def iptables(*lines: str, **policies: str) -> dict[str, Any]:
    return {"iptables-save": saved(*lines, **policies)}


def enabled(unit: str, state: str = "enabled") -> dict[str, Any]:
    return {f"systemctl is-enabled {unit}": f"{state}\n", f"systemctl is-active {unit}": Output(3, "inactive\n", "")}


def at_boot(*items: list[dict[str, Any]]) -> dict[str, Any]:
    return {**enabled("nftables.service"), firewall.RULES_FILE: "# rules\n", BOOT: nft(*items)}


def look(root: Path, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Keys of ``given`` that are a path are files, the others commands."""
    known = {**NODE, **given}
    files = {path: text for path, text in known.items() if path.startswith("/") and " " not in path}
    answers = {command: answer for command, answer in known.items() if command not in files}
    return verify.run(machine(root, files, answers), registry.CHECKS[name])


INBOUND = [
    ({}, "pass", ""),
    (ruleset(chain("input", "accept", [])), "pass", ""),
    (ruleset(chain("input", "drop", LET_IN)), "pass", ""),
    (ruleset(chain("input", "drop", LET_IN_VPC)), "pass", ""),
    (ruleset(chain("input", "drop", [*BASE, (JUMP,)]), chain("", "", [(each, ACCEPT) for each in OPEN])), "pass", ""),
    (ruleset(chain("input", "drop", [*LET_IN, (QUEUE,)])), "pass", ""),
    (ruleset(chain("input", "accept", [(dport(23), DROP)])), "pass", ""),
    (ruleset(chain("input", "accept", [(dport(23), "last used 5s", DROP)])), "pass", ""),  # nft has no JSON for it
    (ruleset(chain("input", "accept", [(dport(10250), "last used 5s", DROP)])), "fail", "10250"),
    (ruleset(chain("input", "accept", [(OVER, DROP)])), "pass", ""),
    (ruleset(chain("input", "accept", [(payload("ip", "saddr", "192.0.2.0"), DROP)])), "pass", ""),
    (ruleset(chain("input", "accept", [(NEW_IS_SYN, EST, DROP)], family="ip6")), "pass", ""),
    (ruleset(chain("input", "drop", [], family="ip6")), "pass", ""),  # the node has no address of IPv6
    (ruleset(chain("input", "drop", [], family="bridge")), "pass", ""),
    (ruleset(chain("prerouting", "drop", [], type="nat")), "pass", ""),
    (ruleset(chain("ingress", "drop", [], family="netdev", dev="ens9")), "pass", ""),
    (ruleset(chain("input", "drop", [], table="cilium")), "pass", ""),
    (ruleset(chain("input", "drop", [])), "fail", "port 10250 by policy drop of chain inet t input"),
    (ruleset(chain("input", "accept", [(dport(10250), DROP)])), "fail", "rule handle 7 of chain inet t input"),
    (ruleset(chain("input", "accept", [(dport(10250), {"reject": {"type": "tcp reset"}})])), "fail", "handle 7"),
    (ruleset(chain("input", "accept", [(dport([10000, 11000]), DROP)])), "fail", "tcp 10250"),
    (ruleset(chain("input", "accept", [(payload("th", "dport", 32000, ">="), DROP)])), "fail", "at port 32000"),
    (ruleset(chain("prerouting", "accept", [(dport(30500), DROP)])), "fail", "at port 30500"),
    (ruleset(chain("ingress", "drop", [], family="netdev", dev="ens5")), "fail", "netdev t ingress"),
    (ruleset(chain("input", "drop", LET_IN[1:])), "pass", ""),  # what comes in is answered; what goes out is not
    (ruleset(chain("input", "drop", [LET_IN[0], *LET_IN[2:]])), "fail", "by lo, programs of the node"),
    (ruleset(chain("input", "drop", [*LET_IN[:2], *LET_IN[3:]])), "pass", ""),  # errors are related
    (ruleset(chain("input", "drop", [(LO, ACCEPT), *LET_IN[3:]])), "fail", "icmp, the size of packets"),
    (ruleset(chain("input", "drop", LET_IN), chain("input", "drop", BASE, table="u")), "fail", "chain inet u input"),
    (ruleset(chain("input", "accept", [(STATES,)])), "fail", "handle 7"),
    (ruleset(chain("input", "accept", [(NEW_IS_SYN, DROP)])), "pass", ""),  # what comes in first is a SYN
    (ruleset(chain("output", "accept", [(EST, DROP)])), "fail", "the answer dropped at port 10250"),
    (ruleset(chain("input", "accept", [(JUMP,)]), chain("", "", [(dport(9100), DROP)])), "fail", "inet t sub"),
    (ruleset(chain("input", "drop", [({"goto": {"target": "sub"}},), (ACCEPT,)]),
             chain("", "", [])), "fail", "policy drop"),
    (ruleset(chain("input", "drop", [*LET_IN[:3], (SADDR_SET, ACCEPT)]),
             [{"set": {"family": "inet", "table": "t", "name": "vpc", "elem": [VPC]}}]), "pass", ""),
    (ruleset(chain("input", "drop", [*LET_IN[:3], (SADDR_SET, ACCEPT)]),
             [{"set": {"family": "inet", "table": "t", "name": "vpc", "elem": ["192.0.2.1"]}}]), "fail", "10250"),
    (ruleset(chain("input", "accept", [(NAMED,)]),
             [{"map": {"family": "inet", "table": "t", "name": "ports", "elem": [[10250, DROP]]}}]), "fail", "10250"),
    (ruleset(chain("input", "accept", [(PAIR, DROP)])), "fail", "10250"),
    ({**SIX, **ruleset(chain("input", "drop", LET_IN))}, "pass", ""),
    ({**SIX, **ruleset(chain("input", "drop", [], family="ip6"))}, "fail", "ip6 t input"),
    ({**SIX, **ruleset(chain("input", "drop", [*LET_IN[:2], *LET_IN[3:]]))}, "fail", "icmp, the size of packets"),
    (ruleset(chain("input", "accept", [(OWNER, DROP)])), "error", "cannot be told: rule handle 7"),
    (ruleset(chain("input", "accept", [(QUEUE,)])), "error", "cannot be told"),
    (ruleset(chain("input", "accept", [(OWNER, ACCEPT)])), "pass", ""),  # it would not decide
    (ruleset(chain("input", "accept", [(OWNER, JUMP)]), chain("", "", [(DROP,)])), "error", "inet t sub"),
    (ruleset(chain("input", "accept", [(OWNER, DROP), (dport(10256), DROP)])), "fail", "10256"),
    (ruleset(chain("input", "accept", [(JUMP,)]), chain("", "", [(JUMP,)])), "error", "16 chains deep"),
    ({LIST: "no JSON"}, "error", "expected JSON"),
    ({LIST: Output(1, "", "Operation not permitted")}, "error", "Operation not permitted"),
    ({LIST: Output(127, "", "")}, "pass", ""),
    ({"iptables-save": Output(1, "", "Could not fetch rule set generation id")}, "error", "generation id"),
    (iptables("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"), "pass", ""),
    (iptables("-A INPUT -p tcp -m tcp --dport 10250 -m comment --comment 'a b' -j DROP"), "fail", "--comment a b"),
    (iptables("-A INPUT -p tcp -m multiport --dports 22,30000:32767 -j REJECT"), "fail", "port 30000"),
    (iptables("-A INPUT ! -i lo -j DROP"), "fail", "10250"),
    (iptables("-A INPUT ! -s 10.0.0.0/8 -i ens5 -j DROP"), "pass", ""),
    (iptables("-A INPUT ! -s 10.0.0.0/8 -j DROP"), "fail", "by lo, programs of the node"),
    (iptables("-A INPUT -m limit --limit 3/min -j DROP"), "fail", "10250"),
    (iptables("-A INPUT -m connlimit --connlimit-above 20 -j REJECT"), "pass", ""),
    (iptables("-A INPUT -m mark --mark 0x8000/0x8000 -j DROP"), "pass", ""),
    (iptables("-A INPUT -m set --match-set evil src -j DROP"), "error", "--match-set evil"),
    (iptables("-A INPUT -p tcp ! --syn -m state --state NEW -j DROP"), "pass", ""),
    (iptables("-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m state --state NEW -j DROP"), "pass", ""),
    (iptables("-A INPUT -m addrtype ! --dst-type LOCAL -j DROP"), "pass", ""),
    (iptables("-A INPUT -m rpfilter --invert -j DROP"), "pass", ""),
    (iptables("-A INPUT -j KUBE-FIREWALL", "-A KUBE-FIREWALL -j DROP"), "pass", ""),
    (iptables("-A INPUT -j mine", "-A mine -p tcp -j DROP"), "fail", "-A mine -p tcp -j DROP"),
    (iptables("-A INPUT -g mine", "-A INPUT -j DROP", "-A mine -j LOG"), "pass", ""),
    (iptables("-A INPUT -j LOG --log-prefix x", INPUT="DROP"), "fail", "policy drop of chain ip filter (iptables)"),
    (iptables(
        "-A INPUT -i lo -j ACCEPT", "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -s 10.0.0.0/16 -p tcp -m multiport --dports 53,9100,10250,10256,61678,30000:32767 -j ACCEPT",
        "-A INPUT -s 10.0.0.0/16 -p udp -m multiport --dports 53,30000:32767 -j ACCEPT",
        "-A INPUT -p icmp -m icmp --icmp-type 3/4 -j ACCEPT", INPUT="DROP",
    ), "pass", ""),
    # what iptables shows is not asked of nft again, which knows no more than its name
    ({**iptables(), **ruleset(chain("input", "accept", [({"xt": None}, DROP)], "filter", "ip"))}, "pass", ""),
    ({"iptables-save": Output(127, "", ""),
      **ruleset(chain("input", "accept", [({"xt": None}, DROP)], "filter", "ip"))}, "error", "cannot be told"),
    ({"iptables-save": "# Table `filter' is incompatible, use 'nft' tool.\n",
      **ruleset(chain("input", "drop", [], table="filter", family="ip"))}, "fail", "ip filter input"),
    ({"/proc/1/net/ip_tables_names": "filter\n", "iptables-legacy-save": saved(INPUT="DROP")}, "fail",
     "filter (iptables-legacy) INPUT"),
    ({"iptables-legacy-save": saved(INPUT="DROP")}, "pass", ""),  # no such table in the kernel: it is not asked
    ({"iptables -V": "iptables v1.8.4 (legacy)", "/proc/1/net/ip_tables_names": "filter\n", **iptables(INPUT="DROP"),
      LIST: Output(127, "", "")}, "fail", "filter (iptables) INPUT"),
    ({"iptables -V": Output(127, "", ""), "iptables-save": Output(127, "", ""), LIST: Output(127, "", ""),
      "/proc/1/net/ip_tables_names": "filter\n"}, "error", "neither nft nor iptables-save"),
    (at_boot(chain("input", "drop", LET_IN)), "pass", ""),
    (at_boot(chain("input", "drop", [])), "fail", "inet t (/etc/sysconfig/nftables.conf) input"),
    ({**at_boot(chain("input", "drop", [])), **enabled("nftables.service", "disabled")}, "pass", ""),
    ({**at_boot(), BOOT: Output(1, "", "syntax error")}, "error", "syntax error"),
    ({**at_boot(), BOOT: Output(1, "", "syntax error"), **ruleset(chain("input", "drop", []))}, "fail", "10250"),
    ({**enabled("iptables.service"), "/etc/sysconfig/iptables": saved("-A INPUT -j REJECT")}, "fail",
     "/etc/sysconfig/iptables:5"),
    ({**enabled("iptables.service"), "/etc/sysconfig/iptables": saved()}, "pass", ""),
    ({"/etc/sysconfig/iptables": saved("-A INPUT -j REJECT")}, "pass", ""),
    ({**enabled("ip6tables.service"), "/etc/sysconfig/ip6tables": saved("-A INPUT -j REJECT")}, "pass", ""),
    ({**SIX, **enabled("ip6tables.service"), "/etc/sysconfig/ip6tables": saved("-A INPUT -j REJECT")}, "fail",
     "/etc/sysconfig/ip6tables:5"),
    ({**enabled("firewalld.service"), "/etc/firewalld/firewalld.conf": "DefaultZone=drop\n"}, "fail", "zone drop"),
    ({"systemctl is-active firewalld.service": "active\n", "firewall-cmd --get-default-zone": "public\n"}, "fail",
     "zone public"),
    (enabled("firewalld.service", "masked"), "pass", ""),
    ({"systemctl is-enabled firewalld.service": Output(1, "", "Failed to connect to bus")}, "error", "bus"),
]  # fmt: skip

FORWARD_DROP = chain("forward", "drop", [])
KUBELET = {"/etc/systemd/system/kubelet.service": "[Service]\nExecStartPre=/sbin/iptables -P FORWARD ACCEPT -w 5\n"}
FORWARDED = [
    ({}, "pass", ""),
    (iptables("-A FORWARD -j KUBE-FORWARD", "-A KUBE-FORWARD -j DROP"), "pass", ""),
    (ruleset(chain("forward", "drop", [(EST, ACCEPT), (payload("ip", "saddr", VPC), ACCEPT)])), "pass", ""),
    (ruleset(chain("input", "drop", [])), "pass", ""),
    (ruleset(FORWARD_DROP), "fail", "from pod to pod on the node (now)"),
    (ruleset(chain("forward", "drop", [(EST, ACCEPT)])), "fail", "inet t forward"),
    (ruleset(chain("forward", "drop", [(payload("ip", "saddr", VPC), {"match": {"op": "==", "left": {"ct": {"key":
        "state"}}, "right": "new"}}, ACCEPT)])), "fail", "the answer"),
    ({**iptables(), **ruleset(FORWARD_DROP)}, "fail", "inet t forward"),  # iptables' ACCEPT does not help
    (iptables(FORWARD="DROP"), "fail", "filter (iptables) FORWARD"),
    (iptables("-A FORWARD -i eni+ -o ens5 -j DROP"), "fail", "from a pod to the network"),
    (iptables("-A FORWARD -i docker0 -j DROP"), "pass", ""),
    (at_boot(FORWARD_DROP), "fail", "(at boot)"),
    ({**enabled("iptables.service"), "/etc/sysconfig/iptables": saved(FORWARD="DROP")}, "fail", "(at boot)"),
    ({**KUBELET, **enabled("iptables.service"), "/etc/sysconfig/iptables": saved(FORWARD="DROP")}, "pass", ""),
    ({**KUBELET, **enabled("iptables.service"), "/etc/sysconfig/iptables": saved("-A FORWARD -j REJECT")}, "fail",
     "/etc/sysconfig/iptables:5"),
    (enabled("firewalld.service"), "fail", "firewalld.service"),
    (iptables("-A FORWARD -m set --match-set pods dst -j DROP"), "error", "cannot be told"),
]  # fmt: skip

OUTBOUND = [
    ({}, "pass", ""),
    (ruleset(chain("input", "accept", [(NEW_IS_SYN, DROP)])), "fail", "the answer"),
    (ruleset(chain("output", "accept", [(dport(25), DROP)])), "pass", ""),
    (ruleset(chain("output", "drop", [])), "fail", "tcp 443, API server and AWS (now)"),
    (ruleset(chain("output", "drop", [(EST, ACCEPT), (dport(443, 80, 8080, 53), ACCEPT)])), "fail", "udp 53"),
    (ruleset(chain("output", "drop", [(EST, ACCEPT), (dport(443, 80, 8080, 53), ACCEPT),
                                      (dport(53, 67, 123, protocol="udp"), ACCEPT)])), "pass", ""),
    (ruleset(chain("input", "drop", LET_IN)), "pass", ""),
    (ruleset(chain("input", "drop", LET_IN[1:])), "fail", "the answer"),
    (iptables("-A OUTPUT -d 169.254.169.254/32 -m owner ! --uid-owner 0 -j DROP"), "error", "--uid-owner"),
    (iptables("-A OUTPUT -d 169.254.169.254/32 -j DROP"), "fail", "instance metadata"),
    (iptables("-A OUTPUT -p udp -m udp --dport 123 -j DROP"), "fail", "Amazon Time Sync"),
    (iptables("-A OUTPUT -o eni+ -j DROP"), "fail", "probes of kubelet"),
    (at_boot(chain("output", "drop", [])), "fail", "(at boot)"),
    (enabled("firewalld.service"), "pass", ""),  # it lets out; what it keeps out is told elsewhere
]  # fmt: skip
BY_CHECK = {"inbound_paths": INBOUND, "forwarded_paths": FORWARDED, "outbound_paths": OUTBOUND}
CASES = [(name, *case) for name, cases in BY_CHECK.items() for case in cases]


@pytest.mark.parametrize(("name", "given", "status", "words"), CASES)
def test_paths(tmp_path: Path, name: str, given: dict[str, Any], status: str, words: str) -> None:
    finding = look(tmp_path, name, given)
    assert finding["status"] == status, finding
    assert words in json.dumps(finding, ensure_ascii=False), finding


def wires(answer: Output | str, *families: str) -> dict[str, Any]:
    program = Path(pod_wires.__file__).read_text()
    return {" ".join([sys.executable, "-I", "-c", program, *(families or ("4",))]): answer}


WAY = {"way": "from pod 198.18.254.1 to pod 198.18.254.2, tcp 8080", "found": "answered", "ok": True}
SILENT = {**WAY, "found": "no answer within 2 s", "ok": False}
FORBIDDEN = json.dumps({"forbidden": "unshare: Operation not permitted"})
CLUSTER6 = {
    "/etc/kubernetes/kubelet/config.json": '{"clusterDNS": ["fd00::a"]}', "/etc/cni/net.d/10-aws.conflist": "{}"
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        (wires(json.dumps({"ways": [WAY]})), "pass", ""),
        ({**CLUSTER6, **wires(json.dumps({"ways": [WAY]}), "4", "6")}, "pass", ""),
        (wires(json.dumps({"ways": [WAY, SILENT]})), "fail", "found no answer within 2 s"),
        ({**wires(FORBIDDEN), "/run/.containerenv": ""}, "not_applicable", "Operation not permitted"),
        (wires(FORBIDDEN), "error", "Operation not permitted"),
        (wires(Output(1, "", "stopped before it had an answer\n")), "error", "stopped"),
    ],
)
def test_pod_network(tmp_path: Path, given: dict[str, Any], status: str, words: str) -> None:
    finding = look(tmp_path, "pod_network", given)
    assert finding["status"] == status, finding
    assert words in finding["reason"]


def test_pod_network_is_real_and_leaves_nothing() -> None:
    """Where namespaces can be made, in one of its own, without a way out: the pods talk, and nothing stays."""
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    program = Path(pod_wires.__file__)
    script = (
        "ip link set lo up && ip addr add 192.0.2.1/32 dev lo && ip route add default dev lo;"
        " echo {one} > /proc/sys/net/ipv4/ip_forward; "
        f"{sys.executable} -I -c \"$(cat '{program}')\" 4 && ip -o link && ip route show table all"
    )
    for one, ok in ((1, True), (0, False)):
        done = network.core._run(["unshare", "--net", "sh", "-c", script.format(one=one)])
        if done.rc and "unshare" in done.err:
            pytest.skip(done.err)
        answer, _newline, left = done.out.partition("\n")
        ways = {way["way"].partition(",")[0]: way["ok"] for way in json.loads(answer)["ways"]}
        assert ways.pop("from pod 198.18.254.1 to pod 198.18.254.2") == ok
        assert len(ways) == 2
        assert all(ways.values()), ways  # the node's own neighbours need no forwarding
        assert "cisdriver" not in left
        assert "198.18" not in left
