# Copyright the cisdriver authors. Apache-2.0.
"""The text of our table: ``inet cisdriver`` in one file, which ``nft -f`` puts in place of itself in one step.

Above the table stands a line per rule, ``# <id> <slug> <settings as JSON>``: what rules outside of a run had asked for.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core

TABLE = "cisdriver"
#: Settings that make up the table.
PARTS = ("table", "base_chains", "loopback", "established", "default_deny")
OPEN_PORTS = ("tcp", "udp", "output_tcp", "output_udp")

_ASKED = re.compile(r"^# ([\d.]+) ([a-z0-9_]+) (\{.*\})$")
_LOOPBACK = ["iif lo accept"]
_SPOOFED = ["ip saddr 127.0.0.0/8 drop", "ip6 saddr ::1 drop"]
_ESTABLISHED = ["ct state established,related accept"]
# RFC 4890: without these IPv6 has no neighbours and no path MTU; a v4 host needs the errors, and answers a ping.
_ERRORS = "destination-unreachable, time-exceeded, parameter-problem"
_ICMP = [
    f"icmp type {{ echo-request, {_ERRORS} }} accept",
    f"icmpv6 type {{ echo-request, packet-too-big, {_ERRORS} }} accept",
    "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query } accept",
]
_ICMP_OUT = [
    f"icmp type {{ echo-request, {_ERRORS} }} accept",
    f"icmpv6 type {{ echo-request, packet-too-big, {_ERRORS} }} accept",
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept",
]
# a lease is renewed by broadcast, to which connection tracking finds no connection
_DHCP = ["udp sport 67 udp dport 68 accept", "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept"]
_DHCP_OUT = ["udp sport 68 udp dport 67 accept", "udp sport 546 udp dport 547 accept"]


class Asked(NamedTuple):
    """What one rule wants of the table."""

    id: str
    settings: Dict[str, Any]


def asked(text: str) -> Dict[str, Asked]:
    """What the rules had wanted for whose sake a file was written."""
    found = (_ASKED.match(line) for line in text.splitlines())
    return {each.group(2): Asked(each.group(1), json.loads(each.group(3))) for each in found if each}


def problem(settings: Mapping[str, Any]) -> str:
    """What is wrong with the ports of a rule, or nothing."""
    for name, ports in (settings.get("default_deny") or {}).items():
        if name not in OPEN_PORTS:
            return f"expected {', '.join(OPEN_PORTS)}, found {name!r}"
        for port in ports if isinstance(ports, list) else [ports]:
            ends = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(port))
            first, last = (int(ends.group(1)), int(ends.group(2) or ends.group(1))) if ends else (0, 0)
            if not 1 <= first <= last <= 65535:
                return f"{name}: expected a port or a range such as 8000-8010, found {port!r}"
    return ""


def ports(settings: Mapping[str, Any], name: str) -> List[str]:
    listed = (settings.get("default_deny") or {}).get(name, [])
    return [str(port) for port in (listed if isinstance(listed, list) else [listed])]


def contains(listed: Iterable[str], port: int) -> bool:
    """Whether a list of ports and ranges has a port."""
    ends = [each.partition("-") for each in listed]
    return any(int(first) <= port <= int(last or first) for first, _dash, last in ends)


def text(rules: Mapping[str, Asked], ssh: Iterable[int]) -> str:
    """The file for these rules; empty for none. ``ssh`` are the ports by which the machine is administered."""
    if not rules:
        return ""
    wanted: Dict[str, Any] = {}
    for rule in rules.values():
        wanted.update(rule.settings)
    notes = [
        f"# {rule.id} {slug} {json.dumps(rule.settings, sort_keys=True)}"
        for slug, rule in sorted(rules.items(), key=lambda item: (item[1].id, item[0]))
    ]
    # made if it is not there, so that it can be deleted: one transaction puts the new one in place of any old one
    replace = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    return "\n".join([core.HEADER, *notes, *replace, *_chains(wanted, ssh), "}"]) + "\n"


def _chains(wanted: Mapping[str, Any], ssh: Iterable[int]) -> List[str]:
    deny, loopback = "default_deny" in wanted, "loopback" in wanted
    established = _ESTABLISHED if deny or "established" in wanted else []
    hooks = set(wanted.get("base_chains", ()))
    incoming = (_LOOPBACK if deny or loopback else []) + (_SPOOFED if loopback else []) + established
    outgoing: List[str] = []
    output = [name for name in ("output_tcp", "output_udp") if ports(wanted, name)]
    administered = [str(port) for port in ssh]
    if deny:
        hooks |= {"input", "forward"}
        incoming = [*incoming, *_ICMP, *_DHCP, *_open("tcp", [*administered, *ports(wanted, "tcp")])]
        incoming += _open("udp", ports(wanted, "udp"))
    if output:
        hooks.add("output")
        # the connection this runs over may be older than all tracking: then what is sent first counts as new
        answers = _open("tcp", [*administered, *ports(wanted, "tcp")], "sport")
        outgoing = ["oif lo accept", *_ESTABLISHED, *_ICMP_OUT, *_DHCP_OUT, *answers]
        outgoing += [line for name in output for line in _open(name[len("output_") :], ports(wanted, name))]
    if incoming:
        hooks.add("input")
    lines: List[str] = []
    for hook, rules, closed in (
        ("input", incoming, deny),
        ("forward", established, deny),
        ("output", outgoing, output),
    ):
        if hook in hooks:
            head = f"type filter hook {hook} priority 0; policy {'drop' if closed else 'accept'};"
            lines += [f"\tchain {hook} {{", *(f"\t\t{line}" for line in [head, *rules]), "\t}"]
    return lines


def _open(protocol: str, listed: List[str], side: str = "dport") -> List[str]:
    """One line for all; what an earlier range covers is left out, for a set takes no overlaps."""
    merged: List[List[int]] = []
    for each in sorted(listed, key=lambda port: int(port.partition("-")[0])):
        first, _dash, last = each.partition("-")
        if merged and int(first) <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], int(last or first))
        else:
            merged.append([int(first), int(last or first)])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in merged]
    return [f"{protocol} {side} {{ {', '.join(shown)} }} accept"] if shown else []
