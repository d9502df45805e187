# Copyright the cisdriver authors. Apache-2.0.
"""Whether packets reach a node and its pods, and leave them: by the rules that filter now and those of the next boot.

What comes in is what AWS, Kubernetes and the VPC CNI need to come in (amazon-eks-ami, 67-eks-reserved-ports.conf; the
user guide's security group requirements). A path is there and back: the answer has to get through, too.
"""

from __future__ import annotations

import ipaddress
import json
import pkgutil
import re
import sys
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, firewall
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import (
    facts,
    iptables_rules,
    packet_walk,
    pod_wires,
)
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.core import check
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.packet_walk import Packet, Ruleset

IN, OUT = ("ingress", "prerouting", "input"), ("output", "postrouting")
THROUGH = ("ingress", "prerouting", "forward", "postrouting")
NODE_PORTS = (30000, 32767)
RULES_FILES = {"iptables.service": "/etc/sysconfig/iptables", "ip6tables.service": "/etc/sysconfig/ip6tables"}
_KUBELET = "/etc/systemd/system/kubelet.service"
_POD, _OTHER_POD = "eni0c15d21e", "eni0c15d22e"
_NOTHING: Ruleset = Ruleset([], set())


class Path(NamedTuple):
    """``there`` and ``back`` are the hooks that a packet and its answer pass; any packet that is dropped breaks it."""

    label: str
    there: Tuple[str, ...]
    back: Tuple[str, ...]
    packets: List[Packet]


@check(
    "Nothing keeps out what has to reach the node", "kubelet, node ports, health checks or the resolver go unanswered"
)
def inbound_paths(node: core.Node) -> core.Finding:
    return _judge(node, _inbound, firewalld_filters=True)


@check("Nothing drops what is forwarded from and to pods", "Pods reach nothing and are reached by nothing")
def forwarded_paths(node: core.Node) -> core.Finding:
    return _judge(node, _forwarded, firewalld_filters=True)


@check("Nothing keeps in what the node has to send", "The node reaches no API server, registry, AWS service or pod")
def outbound_paths(node: core.Node) -> core.Finding:
    return _judge(node, _outbound, firewalld_filters=False)


def _judge(node: core.Node, paths: Any, firewalld_filters: bool) -> core.Finding:
    items = _firewalld(node) if firewalld_filters else []
    untold: List[str] = []
    where = _where(node)
    for when, ruleset in rulesets(node, untold).items():
        for path in paths(where, ruleset):
            item = _evidence(path, when, ruleset, untold)
            items += [item] if item else []
    finding = core.verdict(items)
    if untold and finding["status"] == "pass":
        raise core.ProbeError("; ".join(dict.fromkeys(untold)))
    return finding


def _evidence(path: Path, when: str, ruleset: Ruleset, untold: List[str]) -> Any:
    """What becomes of a path; None, and a line more of ``untold``, where that hangs on a rule nobody can judge here."""
    unknown = ""
    for packet in path.packets:
        for hooks, one, way in ((path.there, packet, ""), (path.back, packet.answer(), "the answer ")):
            outcome = ruleset.walk(hooks, one)
            if outcome.dropped:
                port = one.facts.get("sport" if way else "dport")
                found = f"{way}dropped{f' at port {port}' if port else ''} by {outcome.dropped}"
                return core.evidence(f"{path.label} ({when})", "let through", found, False)
            unknown = unknown or outcome.untold
    if unknown:
        untold.append(f"{path.label} ({when}): whether it gets through cannot be told: {unknown}")
        return None
    return core.evidence(f"{path.label} ({when})", "let through", "let through", True)


# What filters


def rulesets(node: core.Node, untold: List[str]) -> Dict[str, Ruleset]:
    """What filters now, and what the next boot loads. A part that cannot be read adds a line to ``untold``."""
    known = node.memo.get("verify network rulesets")
    if known is None:
        problems: List[str] = []
        known = {"now": _running(node, problems), "at boot": _at_boot(node, problems)}, problems
        node.memo["verify network rulesets"] = known
    untold += known[1]
    return dict(known[0])


def _running(node: core.Node, problems: List[str]) -> Ruleset:
    ruleset, shown = _NOTHING, set()
    legacy = "nf_tables" not in node.run("iptables", "-V").out
    for family, program in (("ip", "iptables"), ("ip6", "ip6tables")):
        saved = node.run(f"{program}-save")
        if saved.rc == 127 or (legacy and not _legacy_tables(node, family)):
            continue  # asking it in vain would load modules
        if saved.rc:
            problems.append(f"{program}-save: exit {saved.rc}: {saved.err.strip()}")
        ruleset += _saved(saved.out, family, program)
        if not legacy:
            shown |= {(family, table) for table in iptables_rules.tables(saved.out)}
        beside = f"{program}-legacy-save"
        if not legacy and _legacy_tables(node, family) and node.run(beside).rc == 0:
            ruleset += _saved(node.run(beside).out, family, f"{program}-legacy")
    listed = node.run("nft", "-j", "list", "ruleset")
    if listed.rc == 127 and legacy and node.run("iptables-save").rc == 127 and _legacy_tables(node, "ip"):
        problems.append("the kernel filters by iptables, and neither nft nor iptables-save is there to say how")
    elif listed.rc not in (0, 127):
        problems.append(f"nft -j list ruleset: exit {listed.rc}: {listed.err.strip()}")
    return ruleset + _listed(listed.out if listed.rc == 0 else "", "", frozenset(shown))


def _legacy_tables(node: core.Node, family: str) -> List[str]:
    return (node.read(f"/proc/1/net/{family}_tables_names") or "").split()


def _saved(text: str, family: str, program: str) -> Ruleset:
    return iptables_rules.parse(text, family, lambda table: f"{table} ({program})", lambda _number: f" of {program}")


def _listed(text: str, file: str, skipped: Any) -> Ruleset:
    if not text.strip():
        return _NOTHING
    try:
        items = json.loads(text)["nftables"]
    except (ValueError, KeyError, TypeError) as error:
        raise core.ProbeError(f"nft -j list ruleset: expected JSON of nftables, found other text: {error}") from error
    return packet_walk.from_nft(items, file, skipped)


def _at_boot(node: core.Node, problems: List[str]) -> Ruleset:
    ruleset = _NOTHING
    try:
        path, listing = firewall.at_boot(node)
        ruleset += _listed(listing, path, frozenset())
    except core.ProbeError as error:
        problems.append(str(error))
    for unit, path in RULES_FILES.items():
        if firewall.unit_of(node, unit).used:
            ruleset += _from_file(node, path, "ip6" if unit.startswith("ip6") else "ip")
    return ruleset


def _from_file(node: core.Node, path: str, family: str) -> Ruleset:
    """A file for ``iptables-restore``. Its policy of FORWARD lasts until kubelet's unit makes it ACCEPT, if it does."""
    text = node.read(path) or ""
    if family == "ip" and re.search(r"(?m)^ExecStartPre=.*iptables -P FORWARD ACCEPT", node.read(_KUBELET) or ""):
        text = re.sub(r"(?m)^:FORWARD DROP", ":FORWARD ACCEPT", text)
    return iptables_rules.parse(text, family, lambda table: f"{table} ({path})", lambda number: f" of {path}:{number}")


def _firewalld(node: core.Node) -> List[core.Evidence]:
    """Its zones know no pod, and a reload flushes what kube-proxy wrote: what else it lets in does not matter."""
    unit = firewall.unit_of(node, firewall.FIREWALLD)
    found = str(unit)
    if unit.used:
        asked = node.run("firewall-cmd", "--get-default-zone")
        named = re.search(r"(?m)^DefaultZone=(\S+)", node.read("/etc/firewalld/firewalld.conf") or "")
        zone = asked.out.strip() if asked.rc == 0 else named.group(1) if named else "public"
        found += f"; zone {zone} rejects what no service of it names, and what is forwarded to pods"
    return [core.evidence(firewall.FIREWALLD, "neither enabled nor running", found, not unit.used)]


# Paths


class Where(NamedTuple):
    """A node in its network. ``families`` are those the node and its pods speak, each with four addresses of their
    subnet: the node's own, another node's, and those of two pods."""

    primary: str
    families: Mapping[str, Tuple[str, str, str, str]]


def _where(node: core.Node) -> Where:
    """Others are given addresses of the node's own subnet: a rule that lets in the VPC lets them in."""
    interface = facts.primary_interface(node)
    families = {"ip": _neighbours(interface.address or "10.0.1.23", interface.prefix or 24)}
    if interface.address6:
        families["ip6"] = _neighbours(interface.address6, 64)
    return Where(interface.name, families)


def _neighbours(address: str, prefix: int) -> Tuple[str, str, str, str]:
    network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    first = int(network.network_address) + 4  # the first four of a subnet are the VPC's own
    others = [str(ipaddress.ip_address(first + number)) for number in range(4)]
    own = str(ipaddress.ip_address(address))
    one, two, three = [other for other in others if other != own][:3]
    return own, one, two, three


def _packets(
    families: Mapping[str, Tuple[str, ...]],
    protocols: Iterable[str],
    ports: Iterable[int],
    ends: Tuple[int, int],
    interfaces: Tuple[Any, Any],
) -> List[Packet]:
    """One packet per family, protocol and port. ``ends`` are the places of sender and receiver in the addresses."""
    found = []
    for family, addresses in families.items():
        for protocol in protocols:
            for port in ports:
                more = {"flags": frozenset(["syn"])} if protocol == "tcp" else {}
                ports_ = {"sport": 68 if port == 67 else 40000, "dport": port}
                found.append(
                    _packet(family, protocol, addresses[ends[0]], addresses[ends[1]], interfaces, {**more, **ports_})
                )
    return found


def _packet(
    family: str, protocol: str, saddr: str, daddr: str, interfaces: Tuple[Any, Any], more: Mapping[str, Any]
) -> Packet:
    base = {"l4proto": protocol, "saddr": saddr, "daddr": daddr, "iif": interfaces[0], "oif": interfaces[1]}
    local = {"daddrtype": "local" if interfaces[1] is None else "unicast", "state": "new"}
    return Packet(family, {**base, **local, **more})


_TCP, _BOTH = ("tcp",), ("tcp", "udp")
_SELF, _NEIGHBOUR, _A_POD, _B_POD = range(4)


def _inbound(where: Where, ruleset: Ruleset) -> List[Path]:
    came = (where.primary, None)

    def from_vpc(label: str, protocols: Tuple[str, ...], *ports: int) -> Path:
        return Path(label, IN, OUT, _packets(where.families, protocols, ports, (_NEIGHBOUR, _SELF), came))

    ports = sorted({*NODE_PORTS, *(near for number in ruleset.numbers for near in (number - 1, number, number + 1))})
    node_ports = [port for port in ports if NODE_PORTS[0] <= port <= NODE_PORTS[1]]
    pods = _packets(where.families, _BOTH, [53], (_A_POD, _SELF), (_POD, None))
    here = {"ip": ("127.0.0.1",), **({"ip6": ("::1",)} if "ip6" in where.families else {})}
    return [
        from_vpc("tcp 10250, kubelet", _TCP, 10250),
        from_vpc("tcp 10256, health of kube-proxy", _TCP, 10256),
        from_vpc(f"tcp and udp {NODE_PORTS[0]}-{NODE_PORTS[1]}, node ports", _BOTH, *node_ports),
        from_vpc("tcp 61678, metrics of the VPC CNI", _TCP, 61678),
        from_vpc("tcp 9100, node exporter", _TCP, 9100),
        Path("tcp and udp 53 of pods, a resolver on the node", IN, OUT, pods),
        Path(
            "tcp 10248, 50051 and 61679 and udp 53 by lo, programs of the node", IN, OUT,
            _packets(here, _TCP, [10248, 50051, 61679], (0, 0), ("lo", None))
            + _packets(here, ("udp",), [53], (0, 0), ("lo", None)),
        ),
        Path("icmp, the size of packets and neighbours", IN, (), _messages(where)),
    ]  # fmt: skip


def _messages(where: Where) -> List[Packet]:
    """What IP itself needs: without the first no large packet arrives, without the others IPv6 has no neighbours."""
    found = []
    for family, addresses in where.families.items():
        kinds = (("destination-unreachable", "related"),)
        if family == "ip6":
            kinds = (
                ("packet-too-big", "related"),
                ("nd-neighbor-solicit", "untracked"),
                ("nd-router-advert", "untracked"),
            )
        for kind, state in kinds:
            protocol = "icmp" if family == "ip" else "ipv6-icmp"
            more = {"type": kind, "state": state}
            found.append(
                _packet(family, protocol, addresses[_NEIGHBOUR], addresses[_SELF], (where.primary, None), more)
            )
    return found


def _forwarded(where: Where, _ruleset: Ruleset) -> List[Path]:
    def path(label: str, ends: Tuple[int, int], came: str, goes: str) -> Path:
        packets = _packets(where.families, _TCP, [80, 443, 8080], ends, (came, goes))
        packets += _packets(where.families, ("udp",), [53], ends, (came, goes))
        return Path(label, THROUGH, THROUGH, packets)

    return [
        path("from pod to pod on the node", (_A_POD, _B_POD), _POD, _OTHER_POD),
        path("from a pod to the network", (_A_POD, _NEIGHBOUR), _POD, where.primary),
        path("from the network to a pod", (_NEIGHBOUR, _A_POD), where.primary, _POD),
    ]


def _outbound(where: Where, _ruleset: Ruleset) -> List[Path]:
    def path(label: str, protocols: Tuple[str, ...], port: int, to: str = "") -> Path:
        families = {"ip": (where.families["ip"][_SELF], to)} if to else where.families
        return Path(label, OUT, IN, _packets(families, protocols, [port], (0, 1), (None, where.primary)))

    pods = _packets(where.families, _TCP, [8080], (_SELF, _A_POD), (None, _POD))
    return [
        path("tcp 443, API server and AWS", _TCP, 443),
        path("tcp and udp 53, the resolver of the VPC", _BOTH, 53),
        path("tcp 80 to 169.254.169.254, instance metadata", _TCP, 80, "169.254.169.254"),
        path("udp 123 to 169.254.169.123, Amazon Time Sync", ("udp",), 123, "169.254.169.123"),
        path("udp 67, renewal of the lease", ("udp",), 67),
        Path("tcp 8080 to a pod, probes of kubelet", OUT, IN, pods),
    ]


# Pods


@check("Pods reach each other and the node through the node", "Pods start and cannot be reached")
def pod_network(node: core.Node) -> core.Finding:
    """Makes two network namespaces wired as the VPC CNI wires pods, and has them talk; they go with the program."""
    program = pkgutil.get_data(pod_wires.__name__.rpartition(".")[0], "pod_wires.py")
    if program is None:
        raise core.ProbeError("pod_wires.py: its text is not to be had")
    families = ["4", "6"] if facts.ipv6_cluster(node) and node.exists(facts.VPC_CNI) else ["4"]
    try:
        done = node.run(sys.executable or "python3", "-I", "-c", program.decode("utf-8"), *families)
    except core.ProbeError as error:
        raise core.ProbeError(f"two network namespaces: {str(error)[-200:]}") from error
    try:
        told = json.loads(done.out)
    except ValueError as error:
        raise core.ProbeError(f"two network namespaces: exit {done.rc}: {done.err.strip()[-300:]}") from error
    if told.get("forbidden"):
        if node.in_container():
            return core.not_applicable(f"this container may not make network namespaces: {told['forbidden']}")
        raise core.ProbeError(f"network namespaces: {told['forbidden']}")
    return core.verdict([core.evidence(each["way"], "answered", each["found"], each["ok"]) for each in told["ways"]])
