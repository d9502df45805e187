# Copyright the cisdriver authors. Apache-2.0.
"""Rules as ``iptables-save`` prints them and ``iptables-restore`` reads them (``man 8 iptables-extensions``).

nft shows no more than the names of iptables' extensions, so these are read in iptables' own words.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import packet_values as values
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.packet_walk import (
    Chain,
    Packet,
    Rule,
    Ruleset,
    Step,
)

TABLES = ("raw", "mangle", "filter", "security")
_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_TERMINAL = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return", "TPROXY": "accept"}
#: Targets that let a packet go on; what is neither here nor above is a chain.
_GOES_ON = {
    "LOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TCPMSS", "NFLOG", "TRACE", "CHECKSUM", "CLASSIFY", "DSCP", "TOS",
    "TTL", "HL", "SET", "TEE", "AUDIT", "CONNSECMARK", "SECMARK", "TCPOPTSTRIP", "ECN", "HMARK", "RATEEST", "IDLETIMER",
}  # fmt: skip
_ICMP = {"8": "echo-request", "0": "echo-reply", "3": "destination-unreachable", "11": "time-exceeded"}
_ICMPV6 = {
    "1": "destination-unreachable", "2": "packet-too-big", "3": "time-exceeded", "128": "echo-request",
    "129": "echo-reply", "134": "nd-router-advert", "135": "nd-neighbor-solicit", "136": "nd-neighbor-advert",
    "router-advertisement": "nd-router-advert", "neighbour-solicitation": "nd-neighbor-solicit",
    "neighbor-solicitation": "nd-neighbor-solicit", "neighbour-advertisement": "nd-neighbor-advert",
    "neighbor-advertisement": "nd-neighbor-advert",
}  # fmt: skip

Test = Tuple[str, List[str], bool]


def parse(text: str, family: str, table_of: Callable[[str], str], place: Callable[[int], str]) -> Ruleset:
    """The chains of filtering tables. ``table_of`` says in words which table of which program it is, ``place`` what
    follows a rule's own words to say where it stands, by the number of its line."""
    chains: Dict[Tuple[str, str], Chain] = {}
    numbers: Set[int] = set()
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("*"):
            table = line[1:].strip()
        elif table not in TABLES or not line or line.startswith("#"):
            continue
        elif line.startswith(":"):
            name, policy = [*line[1:].split(), "-"][:2]
            hook = name.lower() if name in _HOOKS else ""
            chains[(table, name)] = Chain(family, table_of(table), name, hook, policy.lower(), [])
        else:
            rule = _rule(line, place(number))
            if rule and (table, rule[0]) in chains:
                chains[(table, rule[0])].rules.append(rule[1])
                numbers |= {int(each) for each in re.findall(r"(?<![\w./])\d{1,5}(?![\w./])", line)}
    return Ruleset(list(chains.values()), numbers)


def tables(text: str) -> Set[str]:
    """Tables that ``iptables-save`` shows whole; what nft wrote in nft's own way it calls incompatible."""
    shown = {line[1:].strip() for line in text.splitlines() if line.startswith("*")}
    return shown - set(re.findall(r"(?m)^# Table `(\w+)' is incompatible", text))


def _rule(line: str, place: str) -> Optional[Tuple[str, Rule]]:
    """The chain of an ``-A`` line and its rule."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    while words and words[0].startswith("["):  # counters
        words.pop(0)
    if len(words) < 2 or words[0] not in ("-A", "--append"):
        return None
    tests, verdict, target = _tests(words[2:])
    text = " ".join(words)
    return words[1], Rule(f"rule {text!r}{place}", lambda packet: _step(tests, verdict, target, packet))


def _tests(words: List[str]) -> Tuple[List[Test], str, str]:
    """Options with their arguments up to the target, and the target."""
    tests: List[Test] = []
    negated = False
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g", "--jump", "--goto"):
            more, verdict, target = _verdict(words[index], word)
            return tests + more, verdict, target
        arguments = []
        while index < len(words) and words[index] != "!" and not words[index].startswith("-"):
            arguments.append(words[index])
            index += 1
        tests.append((word, arguments, negated))
        negated = False
    return tests, "", ""


def _verdict(name: str, how: str) -> Tuple[List[Test], str, str]:
    if name in _TERMINAL:
        return [], _TERMINAL[name], ""
    if name in ("QUEUE", "NFQUEUE"):  # another program decides
        return [("--queue", [], False)], "drop", ""
    if name in _GOES_ON:
        return [], "", ""
    return [], "goto" if how in ("-g", "--goto") else "jump", name


def _step(tests: List[Test], verdict: str, target: str, packet: Packet) -> Step:
    applies: Optional[bool] = True
    for option, arguments, negated in tests:
        met = _met(option, arguments, packet)
        if met is not None and negated and option not in ("--comment", "-m", "--match"):
            met = not met
        if met is False:
            return Step(False)
        applies = None if met is None else applies
    return Step(applies, verdict, target)


def _met(option: str, arguments: List[str], packet: Packet) -> Optional[bool]:
    """Whether a packet meets one option; None where that cannot be known."""
    first = arguments[0] if arguments else ""
    if option in _ORDINARY:
        return _ORDINARY[option]
    if option == "--tcp-flags" and len(arguments) == 2:
        return _flags(arguments[0], arguments[1], packet.facts)
    test = _TESTS.get(option)
    return test(first, packet.facts) if test else None


def _network(name: str) -> Callable[[str, Mapping[str, Any]], Optional[bool]]:
    return lambda written, facts: any(values.same(facts[name], each) for each in written.split(","))


def _interface(name: str) -> Callable[[str, Mapping[str, Any]], Optional[bool]]:
    return lambda written, facts: facts.get(name) is not None and values.same(facts[name], written)


def _ports(*names: str) -> Callable[[str, Mapping[str, Any]], Optional[bool]]:
    def test(written: str, facts: Mapping[str, Any]) -> Optional[bool]:
        found = [facts[name] for name in names if name in facts]
        for each in written.split(","):
            low, colon, high = each.partition(":")
            if any(values.within(one, low or 0, (high or 65535) if colon else low) for one in found):
                return True
        return False

    return test


def _icmp(names: Mapping[str, str]) -> Callable[[str, Mapping[str, Any]], Optional[bool]]:
    def test(written: str, facts: Mapping[str, Any]) -> Optional[bool]:
        name, _slash, code = written.partition("/")
        if written == "any":
            return True
        if written == "fragmentation-needed":
            name, code = "destination-unreachable", "4"
        return facts.get("type") == names.get(name, name) and code in ("", "4")

    return test


def _flags(mask: str, wanted: str, facts: Mapping[str, Any]) -> Optional[bool]:
    every = {"fin", "syn", "rst", "ack", "psh", "urg"}
    among = every if mask.upper() == "ALL" else set(mask.lower().split(","))
    return set(facts.get("flags", ())) & among == (set(wanted.lower().split(",")) - {"none"})


def _marked(written: str, _facts: Mapping[str, Any]) -> Optional[bool]:
    return int(written.partition("/")[0], 0) == 0


def _range(name: str) -> Callable[[str, Mapping[str, Any]], Optional[bool]]:
    def test(written: str, facts: Mapping[str, Any]) -> Optional[bool]:
        low, _dash, high = written.partition("-")
        return values.within(facts[name], low, high or low)

    return test


def _protocol(written: str, facts: Mapping[str, Any]) -> Optional[bool]:
    return written in ("all", "0") or values.same(facts["l4proto"], written)


def _state(written: str, facts: Mapping[str, Any]) -> Optional[bool]:
    return str(facts["state"]).upper() in written.upper().split(",")


def _type(name: str) -> Callable[[str, Mapping[str, Any]], Optional[bool]]:
    return lambda written, facts: written.lower() == facts.get(name, "unicast")


_TESTS: Dict[str, Callable[[str, Mapping[str, Any]], Optional[bool]]] = {
    **dict.fromkeys(("-s", "--source"), _network("saddr")),
    **dict.fromkeys(("-d", "--destination"), _network("daddr")),
    **dict.fromkeys(("-i", "--in-interface"), _interface("iif")),
    **dict.fromkeys(("-o", "--out-interface"), _interface("oif")),
    **dict.fromkeys(("-p", "--protocol"), _protocol),
    **dict.fromkeys(("--dport", "--dports", "--destination-port"), _ports("dport")),
    **dict.fromkeys(("--sport", "--sports", "--source-port"), _ports("sport")),
    "--ports": _ports("sport", "dport"),
    "--icmp-type": _icmp(_ICMP),
    "--icmpv6-type": _icmp(_ICMPV6),
    **dict.fromkeys(("--ctstate", "--state"), _state),
    "--ctdir": lambda written, facts: written.lower() == facts.get("direction", "original"),
    "--syn": lambda _written, facts: facts.get("flags") == frozenset(["syn"]),
    "--src-range": _range("saddr"),
    "--dst-range": _range("daddr"),
    "--dst-type": _type("daddrtype"),
    "--src-type": _type("saddrtype"),
    "--mark": _marked,
    "--pkt-type": lambda written, _facts: written.lower() == "unicast",
}
#: What an ordinary packet meets whatever the argument: below a rate, not seen before, come as the route back goes.
_ORDINARY: Dict[str, Optional[bool]] = {
    **dict.fromkeys(("-m", "--match", "--comment", "--limit", "--limit-burst"), True),
    **dict.fromkeys(("--hashlimit", "--hashlimit-upto", "--connlimit-upto", "--loose", "--validmark"), True),
    **dict.fromkeys((f"--hashlimit-{each}" for each in ("burst", "mode", "name", "srcmask", "dstmask")), True),
    **dict.fromkeys(("--hashlimit-htable-expire", "--hashlimit-htable-size", "--hashlimit-htable-max"), True),
    **dict.fromkeys(("--connlimit-mask", "--connlimit-saddr", "--connlimit-daddr"), True),
    **dict.fromkeys(("--set", "--name", "--rsource", "--rdest", "--seconds", "--hitcount", "--mask"), True),
    **dict.fromkeys(("--hashlimit-above", "--connlimit-above", "--update", "--rcheck", "--invert"), False),
}
