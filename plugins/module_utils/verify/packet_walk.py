# Copyright the cisdriver authors. Apache-2.0.
"""What the packet filter does to one packet: a walk through the base chains of its hooks.

A packet passes every base chain of a hook, whatever table it is in and whoever wrote it, and any one that drops it
decides; so chains are judged one by one, and their priorities give no more than the order. The first packet of a
connection stands for it, and the first answer for the way back. It carries no mark and stays below every rate: rules on
marks and rates mean other packets. A rule that matches by what cannot be known here (an owner, a time, a set of
``ipset``) may or may not apply. Where that would decide, the walk says so.

Chains of kube-proxy, of network plugins and of NetworkPolicy are their owners', who see to it that pods are reached:
a jump into one is stepped over.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Set, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.packet_values import (
    in_network,
    same,
    within,
)

#: Chains and tables whose rules are not the host's: of kube-proxy and kubelet, VPC CNI, Calico, Cilium, and others.
OF_CLUSTER = re.compile(r"KUBE-|AWS-|CNI-|cali-|CILIUM_|WEAVE|FLANNEL-|ANTREA-")
TABLES_OF_CLUSTER = re.compile(r"kube-proxy$|calico$|cali-|cilium|antrea|aws[-_]|kube-network-policies$|firewalld$")
#: Which packets a table of a family sees.
SEES = {"inet": ("ip", "ip6"), "ip": ("ip",), "ip6": ("ip6",), "netdev": ("ip", "ip6")}
_MAX_DEPTH = 16


class Packet(NamedTuple):
    """``family`` is ip or ip6. ``facts`` are l4proto, saddr, daddr, iif, oif, state, daddrtype, and what l4proto has
    of sport, dport, flags and type; an interface that it has not is None."""

    family: str
    facts: Mapping[str, Any]

    def answer(self) -> Packet:
        """The first packet of the way back."""
        there = self.facts
        back = {**there, "state": "established", "direction": "reply", "daddrtype": "unicast"}
        for one, other in (("saddr", "daddr"), ("sport", "dport"), ("iif", "oif")):
            back[one], back[other] = there.get(other), there.get(one)
        if there["l4proto"] == "tcp":
            back["flags"] = frozenset(["syn", "ack"])
        return Packet(self.family, back)


class Step(NamedTuple):
    """What one rule does with a packet. ``applies`` is None where that cannot be known."""

    applies: Optional[bool]
    verdict: str = ""
    target: str = ""


class Rule(NamedTuple):
    """``where`` says table, chain and rule in words."""

    where: str
    decide: Callable[[Packet], Step]


class Chain(NamedTuple):
    """A base chain, or with an empty ``hook`` one that others jump to."""

    family: str
    table: str
    name: str
    hook: str
    policy: str
    rules: List[Rule]
    devices: Tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class Outcome(NamedTuple):
    """``dropped`` says which rule or policy drops the packet; ``untold`` which might."""

    dropped: str = ""
    untold: str = ""


class Ruleset:
    """Chains of one or more sources. ``numbers`` are those its rules name, for there a verdict may change."""

    def __init__(self, chains: List[Chain], numbers: Set[int]) -> None:
        self.chains = chains
        self.numbers = numbers
        self._by_name = {(chain.family, chain.table, chain.name): chain for chain in chains}

    def __add__(self, other: Ruleset) -> Ruleset:
        return Ruleset(self.chains + other.chains, self.numbers | other.numbers)

    def walk(self, hooks: Tuple[str, ...], packet: Packet) -> Outcome:
        """What becomes of a packet on its way through hooks."""
        untold = ""
        for hook in hooks:
            for chain in self.chains:
                if chain.hook != hook or packet.family not in SEES.get(chain.family, ()):
                    continue
                if chain.devices and packet.facts.get("iif") not in chain.devices:
                    continue
                outcome = self._base(chain, packet)
                if outcome.dropped:
                    return outcome
                untold = untold or outcome.untold
        return Outcome(untold=untold)

    def _base(self, chain: Chain, packet: Packet) -> Outcome:
        maybe: List[Tuple[str, str]] = []
        verdict, where = self._chain(chain, packet, maybe, 0)
        if not verdict:
            verdict, where = chain.policy, f"policy {chain.policy} of chain {chain}"
        other = next((place for word, place in maybe if word != verdict), "")
        if other:
            return Outcome(untold=other)
        return Outcome(dropped=where if verdict == "drop" else "")

    def _chain(self, chain: Chain, packet: Packet, maybe: List[Tuple[str, str]], depth: int) -> Tuple[str, str]:
        """``(accept or drop, rule)``, or two empty texts where the packet runs off the end. What only might end its
        way is added to ``maybe``."""
        if depth > _MAX_DEPTH:
            raise core.ProbeError(f"chain {chain}: jumps more than {_MAX_DEPTH} chains deep")
        for rule in chain.rules:
            step = rule.decide(packet)
            if step.applies is False or not step.verdict:
                continue
            if step.verdict == "return":
                if step.applies:
                    return "", ""
                continue
            if step.verdict in ("jump", "goto"):
                ended = self._jump(chain, step, packet, maybe, depth)
                leaves = step.verdict == "goto" and bool(step.applies)
            else:
                ended, leaves = (step.verdict, rule.where), False
            if ended[0] and step.applies is None:
                maybe.append(ended)
            elif ended[0] or leaves:
                return ended
        return "", ""

    def _jump(
        self, chain: Chain, step: Step, packet: Packet, maybe: List[Tuple[str, str]], depth: int
    ) -> Tuple[str, str]:
        target = self._by_name.get((chain.family, chain.table, step.target))
        if target is None or OF_CLUSTER.match(step.target):
            return "", ""
        return self._chain(target, packet, maybe, depth + 1)


# The ruleset of nftables, man 5 libnftables-json

_UNKNOWN, _ABSENT = object(), object()
_VERDICTS = ("accept", "drop", "reject", "jump", "goto", "return", "queue")

Sets = Mapping[Tuple[str, str, str], Any]


def from_nft(listing: List[Mapping[str, Any]], file: str, skipped: FrozenSet[Tuple[str, str]]) -> Ruleset:
    """The items of ``nft -j list ruleset``, but for tables (family, name) of ``skipped``, the cluster's, and that of
    firewalld, which a node must not have at all. ``file`` is where they stand, empty for those that filter now."""
    chains: Dict[Tuple[str, str, str], Chain] = {}
    sets: Dict[Tuple[str, str, str], Any] = {}
    numbers: Set[int] = set()
    for item in listing:
        kind, said = next(iter(item.items()))
        place = (said.get("family", ""), said.get("table", ""))
        if kind not in ("chain", "set", "map", "rule") or place in skipped or TABLES_OF_CLUSTER.match(place[1]):
            continue
        if kind == "chain" and said.get("type", "filter") != "nat" and said["family"] in SEES:
            policy = said.get("policy", "accept")
            devices = said.get("dev", ())
            devices = (devices,) if isinstance(devices, str) else tuple(devices)
            table = f"{place[1]} ({file})" if file else place[1]
            chains[(*place, said["name"])] = Chain(
                place[0], table, said["name"], said.get("hook", ""), policy, [], devices
            )
        elif kind in ("set", "map"):
            sets[(*place, said["name"])] = said.get("elem", [])
        elif kind == "rule" and (*place, said["chain"]) in chains:
            chain = chains[(*place, said["chain"])]
            where = f"rule handle {said.get('handle', '?')} of chain {chain}"
            expressions = said.get("expr", [])
            chain.rules.append(Rule(where, _decider(expressions, place, sets)))
            numbers |= {int(number) for number in re.findall(r"\b\d{1,5}\b", repr(expressions))}
    return Ruleset(list(chains.values()), numbers)


def _decider(expressions: List[Mapping[str, Any]], place: Tuple[str, str], sets: Sets) -> Callable[[Packet], Step]:
    return lambda packet: _step(expressions, packet, lambda name: sets.get((*place, name), []))


def _step(expressions: List[Mapping[str, Any]], packet: Packet, elements: Callable[[str], Any]) -> Step:
    applies: Optional[bool] = True
    verdict, target = "", ""
    for each in expressions:
        if not isinstance(each, Mapping):  # a statement that nft has no JSON for: it neither matches nor decides
            continue
        name, said = next(iter(each.items()))
        if name in _VERDICTS:
            verdict, target = name, said["target"] if name in ("jump", "goto") else ""
            continue
        met, word, more = _met(name, said, packet, elements)
        if met is False:
            return Step(False)
        applies = None if met is None else applies
        verdict, target = (word, more) if word else (verdict, target)
    if verdict == "queue":  # another program decides
        return Step(None, "drop")
    return Step(applies, "drop" if verdict == "reject" else verdict, target)


def _met(name: str, said: Any, packet: Packet, elements: Callable[[str], Any]) -> Tuple[Optional[bool], str, str]:
    """Whether a packet gets past one expression of a rule, and the verdict and target it finds in it."""
    if name == "match":
        return _match(said, packet, elements), "", ""
    if name == "vmap":
        return _mapped(said, packet, elements)
    if name == "xt":
        met, verdict = _extension(said)
        return met, verdict, ""
    if name in ("limit", "quota", "ct count", "set", "meter"):
        return "'inv': True" not in repr(said), "", ""  # an ordinary packet is below the limit
    return True, "", ""  # counts, logs or marks


def _extension(said: Optional[Mapping[str, Any]]) -> Tuple[Optional[bool], str]:
    """A match or target of iptables, of which nft shows no more than the name."""
    if said and said.get("type") == "target":
        return True, "drop" if said.get("name") in ("REJECT", "DROP") else ""
    return (True if said and said.get("name") == "comment" else None), ""


def _mapped(said: Mapping[str, Any], packet: Packet, elements: Callable[[str], Any]) -> Tuple[Optional[bool], str, str]:
    value = _value(said["key"], packet)
    data = said["data"]
    pairs = elements(data[1:]) if isinstance(data, str) else data.get("set", [])
    if value is _ABSENT:
        return False, "", ""
    for key, result in pairs:
        among = None if value is _UNKNOWN else _among(value, key, elements)
        if among is not False:
            word, more = next(iter(result.items()))
            return among, word, (more or {}).get("target", "")
    return False, "", ""


def _match(said: Mapping[str, Any], packet: Packet, elements: Callable[[str], Any]) -> Optional[bool]:
    value = _value(said["left"], packet)
    if value is _ABSENT:  # the protocol it asks about is another: no operator holds
        return False
    if value is _UNKNOWN:
        return None
    operator, right = said.get("op", "=="), said["right"]
    if operator in ("<", ">", "<=", ">="):
        if not isinstance(value, int) or not isinstance(right, int):
            return None
        return {"<": value < right, ">": value > right, "<=": value <= right, ">=": value >= right}[operator]
    if isinstance(value, frozenset):
        wanted = frozenset(_flags(right))
        found: Optional[bool] = bool(value & wanted) if operator == "in" else value == wanted
    else:
        found = _among(value, right, elements)
    return found if found is None or operator != "!=" else not found


def _value(left: Any, packet: Packet) -> Any:
    """What a packet has on the left side of a match."""
    if not isinstance(left, Mapping):
        return _UNKNOWN
    kind, said = next(iter(left.items()))
    if kind == "payload":
        return _payload(str(said.get("protocol", "")), str(said.get("field", "")), packet)
    if kind in ("meta", "ct"):
        return _meta(f"{kind} {said.get('key')}", packet)
    if kind == "fib":
        if said.get("result") == "type":
            return packet.facts.get("daddrtype") if "daddr" in said.get("flags", []) else "unicast"
        return True  # there is a way back to whoever sent it
    if kind == "concat":
        parts = tuple(_value(each, packet) for each in said)
        return next((part for part in parts if part is _ABSENT or part is _UNKNOWN), parts)
    if kind == "&":
        value = _value(said[0], packet)
        if value is _ABSENT:
            return _ABSENT
        if isinstance(value, frozenset):
            return value & frozenset(_flags(said[1]))
        return value & said[1] if isinstance(value, int) and isinstance(said[1], int) else _UNKNOWN
    return _UNKNOWN


def _payload(protocol: str, field: str, packet: Packet) -> Any:
    facts, l4proto = packet.facts, packet.facts["l4proto"]
    if protocol in ("ip", "ip6"):
        if packet.family != protocol:
            return _ABSENT
        name = {"protocol": "l4proto", "nexthdr": "l4proto"}.get(field, field)
        return facts.get(name, _UNKNOWN) if name in ("l4proto", "saddr", "daddr") else _UNKNOWN
    if protocol == "th" or protocol == l4proto or (protocol == "icmpv6" and l4proto == "ipv6-icmp"):
        return facts.get(field, _ABSENT if protocol == "th" else _UNKNOWN)
    known = ("tcp", "udp", "icmp", "icmpv6", "sctp", "dccp", "udplite", "igmp", "esp", "ah", "arp")
    return _ABSENT if protocol in known else _UNKNOWN


def _meta(key: str, packet: Packet) -> Any:
    facts = packet.facts
    families = {"ip": ("ipv4", "ip"), "ip6": ("ipv6", "ip6")}[packet.family]
    values = {
        "meta l4proto": facts["l4proto"], "meta nfproto": families[0], "meta protocol": families[1],
        "meta mark": 0, "meta pkttype": "host", "meta iif": facts.get("iif"), "meta iifname": facts.get("iif"),
        "meta oif": facts.get("oif"), "meta oifname": facts.get("oif"), "ct state": facts["state"], "ct mark": 0,
        "ct direction": facts.get("direction", "original"), "ct l3proto": families[0], "ct protocol": facts["l4proto"],
    }  # fmt: skip
    value = values.get(key, _UNKNOWN)
    return _ABSENT if value is None else value


def _flags(right: Any) -> List[str]:
    if isinstance(right, Mapping):
        return [flag for part in right.get("|", right.get("set", [])) for flag in _flags(part)]
    return [flag for part in right for flag in _flags(part)] if isinstance(right, list) else [str(right)]


def _among(value: Any, right: Any, elements: Callable[[str], Any]) -> Optional[bool]:
    """Whether a value is one of those on the right side of a match, or the one."""
    if isinstance(right, str) and right.startswith("@"):
        return _any(value, elements(right[1:]), elements)
    if isinstance(right, list):
        return _any(value, right, elements)
    if isinstance(right, Mapping):
        kind, said = next(iter(right.items()))
        if kind == "set":
            return _any(value, said, elements)
        if kind == "elem":
            return _among(value, said["val"], elements)
        if kind == "prefix":
            return in_network(value, f"{said['addr']}/{said['len']}")
        if kind == "range":
            return within(value, said[0], said[1])
        if kind == "concat" and isinstance(value, tuple) and len(value) == len(said):
            parts = [_among(one, other, elements) for one, other in zip(value, said)]  # noqa: B905 - Python 3.8 has no strict
            return False if False in parts else None if None in parts else True
        return None
    return same(value, right)


def _any(value: Any, rights: List[Any], elements: Callable[[str], Any]) -> Optional[bool]:
    found = [_among(value, right, elements) for right in rights]
    return True if True in found else None if None in found else False
