# Copyright the cisdriver authors. Apache-2.0.
"""The host's firewall: which tool keeps it, and what its rules do now and after the next boot.

The tool in use is firewalld or nftables.service, whichever is enabled or runs. What asks for rules of a tool that is
not in use does not apply, and says so. What nftables sets up at boot is learnt by loading its file into an empty
network namespace, which nothing else sees and which is gone with the question.

Two kinds share it: ``firewall``, and ``firewalld`` (``default_zone``, ``zone_services``), which no module sets.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, nftables

FIREWALLD = "firewalld.service"
NFTABLES = "nftables.service"
IPTABLES = ("iptables.service", "ip6tables.service")
RULES_FILE = "/etc/sysconfig/nftables.conf"
#: Loads a file where it can touch nothing, and shows what came of it.
_LOAD = 'nft -f "$1" && nft -j list ruleset'
_GONE = ("not-found", "masked", "masked-runtime")

Items = Iterator[core.Evidence]


class Unit(NamedTuple):
    """``state`` is the word of ``systemctl is-enabled``; ``active`` is false, too, where no service manager runs."""

    name: str
    state: str
    active: bool

    @property
    def used(self) -> bool:
        """firewalld stays and can be seen running; the others load rules at boot and are gone."""
        return self.state.startswith("enabled") or (self.name == FIREWALLD and self.active)

    def __str__(self) -> str:
        return f"{self.name} {self.state}, {'running' if self.active else 'not running'}"


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """Every key of ``spec`` has a check of its own; of several, all that apply have to hold."""
    return core.combine([_CHECKS[key](node, value) for key, value in spec.items()])


def unit_of(node: core.Node, name: str) -> Unit:
    """What systemd says of a unit; ``not-found`` where it has none. Raises ProbeError."""
    done = node.run("systemctl", "is-enabled", name)
    state = done.out.strip() or "not-found"
    if not done.out.strip() and "No such file" not in done.err and "not-found" not in done.err:
        raise core.ProbeError(f"systemctl is-enabled {name}: exit {done.rc}: {done.err.strip()}")
    return Unit(name, state, node.run("systemctl", "is-active", name).out.strip() == "active")


def _single(node: core.Node) -> Items:
    """Exactly one of the two, enabled and running, and nothing that could take its place."""
    firewalld, nft = unit_of(node, FIREWALLD), unit_of(node, NFTABLES)
    used = [unit for unit in (firewalld, nft) if unit.used]
    found = "; ".join(map(str, (firewalld, nft)))
    yield core.evidence("firewall", "one of firewalld and nftables, enabled and running", found, len(used) == 1)
    for unit in used:
        whole = unit.active and unit.state.startswith("enabled")
        runs = whole or not node.exists("/run/systemd/system")
        yield core.evidence(unit.name, "enabled and running", str(unit), runs)
    if len(used) == 1:
        other = nft if used[0] is firewalld else firewalld
        yield core.evidence(other.name, "masked, or not installed", str(other), other.state in _GONE)


def _none(node: core.Node) -> Items:
    """No tool of the host stands beside what keeps a node's packet filter."""
    firewalld, nft = unit_of(node, FIREWALLD), unit_of(node, NFTABLES)
    gone = firewalld.state in _GONE and not firewalld.active
    yield core.evidence(FIREWALLD, "masked, or not installed", str(firewalld), gone)
    yield core.evidence(NFTABLES, "not enabled, for it flushes what kube-proxy wrote", str(nft), not nft.used)


def _check_tool(node: core.Node, wanted: str) -> core.Finding:
    items = list(_single(node) if wanted == "single" else _none(node))
    for name in IPTABLES:
        unit = unit_of(node, name)
        items.append(core.evidence(name, "not in use", str(unit), not unit.used))
    return core.verdict(items)


def _check_forward(node: core.Node, _wanted: str) -> core.Finding:
    """Packets of pods are forwarded: no base chain drops them by its policy, iptables' own included."""
    expected = "no chain at hook forward with policy drop"
    shown = node.run("nft", "-j", "list", "ruleset")
    if shown.rc == 127:
        return core.verdict([_iptables_forward(node, "iptables")])
    chains = _running(node).base_chains("forward")
    items = [
        core.evidence(f"chain {nftables.name(chain)}", expected, chain.get("policy"), chain.get("policy") != "drop")
        for chain in chains
    ]
    if "filter" in (node.read("/proc/1/net/ip_tables_names") or "").split():  # the older iptables beside nftables
        found = node.run("iptables-legacy", "-S", "FORWARD")
        items.append(_iptables_forward(node, "iptables" if found.rc == 127 else "iptables-legacy"))
    return core.verdict(items or [core.evidence("hook forward", expected, "no chain", True)])


def _iptables_forward(node: core.Node, program: str) -> core.Evidence:
    done = node.run(program, "-S", "FORWARD")
    if done.rc == 127:
        return core.evidence("packet filter", "nothing that drops what is forwarded", "no program to filter with", True)
    if done.rc:
        raise core.ProbeError(f"{program} -S FORWARD: exit {done.rc}: {done.err.strip()}")
    policy = done.out.split("\n")[0]
    return core.evidence(f"{program} -S FORWARD", "-P FORWARD ACCEPT", policy, policy == "-P FORWARD ACCEPT")


# firewalld


def _firewalld(node: core.Node) -> str:
    """Why firewalld's rules do not apply; empty when it is in use."""
    unit = unit_of(node, FIREWALLD)
    return "" if unit.used else f"firewalld is not the firewall in use: {unit}"


def _ask(node: core.Node, *words: str) -> str:
    return node.must("firewall-cmd", *words).strip()


def _check_default_zone(node: core.Node, _wanted: str) -> core.Finding:
    unmet = _firewalld(node)
    if unmet:
        return core.not_applicable(unmet)
    zone, known = _ask(node, "--get-default-zone"), _ask(node, "--get-zones").split()
    return core.verdict([core.evidence("default zone", "one of firewalld's zones", zone or None, zone in known)])


def _check_zone_services(node: core.Node, wanted: List[Any]) -> core.Finding:
    unmet = _firewalld(node)
    if unmet:
        return core.not_applicable(unmet)
    expected = "among " + ", ".join(map(str, wanted))
    active = [
        line.split()[0] for line in _ask(node, "--get-active-zones").splitlines() if line and not line[0].isspace()
    ]
    zones = sorted({*active, _ask(node, "--get-default-zone")})
    items = []
    for zone in zones:
        for when in ((), ("--permanent",)):
            for what in ("services", "ports"):
                for name in _ask(node, *when, f"--zone={zone}", f"--list-{what}").split():
                    where = f"zone {zone} ({'permanent' if when else 'running'})"
                    items.append(core.evidence(where, expected, name, name in map(str, wanted)))
    return core.verdict(items or [core.evidence("zones", expected, "no services, no ports", True)])


def _firewalld_loopback(node: core.Node) -> Items:
    for when in ((), ("--permanent",)):
        label = "permanent" if when else "running"
        interfaces = _ask(node, *when, "--zone=trusted", "--list-interfaces")
        yield core.evidence(f"zone trusted ({label})", "interface lo", interfaces or None, "lo" in interfaces.split())
        rich = _ask(node, *when, "--zone=trusted", "--list-rich-rules")
        for address in ("127.0.0.1", "::1"):
            pattern = rf'source address="{address}" destination not address="{address}".* drop$'
            ok = re.search(f"(?mi){pattern}", rich) is not None
            expected = f"a rich rule that drops {address} bound for elsewhere"
            yield core.evidence(f"zone trusted ({label})", expected, rich or None, ok)


# nftables


def _unused(node: core.Node) -> str:
    """Why rules of nftables do not apply; empty when nftables.service is in use."""
    unit = unit_of(node, NFTABLES)
    return "" if unit.used else f"nftables is not the firewall in use: {unit}"


def _running(node: core.Node) -> nftables.Ruleset:
    return nftables.Ruleset(node.must("nft", "-j", "list", "ruleset"))


def at_boot(node: core.Node) -> Tuple[str, str]:
    """The file nftables.service loads at the next boot, and what comes of it as JSON; two empty texts where it loads
    none. Raises ProbeError where that cannot be told."""
    shown = node.run("systemctl", "show", NFTABLES, "--property=ExecStart", "--value").out
    named = re.search(r"argv\[\]=\S+ -f (\S+) ;", shown)
    path = named.group(1) if named else RULES_FILE
    if not unit_of(node, NFTABLES).state.startswith("enabled") or not node.exists(path):
        return "", ""
    done = node.run("unshare", "--net", "sh", "-c", _LOAD, "sh", path)
    if done.rc:
        raise core.ProbeError(
            f"{path}: what it does at boot cannot be told, for it does not load into an empty namespace:"
            f" {done.err.strip()}"
        )
    return path, done.out


def _rulesets(node: core.Node) -> Dict[str, nftables.Ruleset]:
    """What filters now, and what the next boot brings. Raises ProbeError where that cannot be told."""
    path, listing = at_boot(node)
    when = f"at boot, by {path}" if path else "at boot"
    return {"running": _running(node), when: nftables.Ruleset(listing or '{"nftables": []}')}


def _families(node: core.Node) -> List[str]:
    return ["ip", "ip6"] if node.exists("/proc/sys/net/ipv6") else ["ip"]


def _of_nftables(items: Callable[[core.Node, nftables.Ruleset, Any], Items]) -> Callable[..., core.Finding]:
    """A check of both rulesets that does not apply while nftables is not in use."""

    def look(node: core.Node, wanted: Any) -> core.Finding:
        unmet = _unused(node)
        if unmet:
            return core.not_applicable(unmet)
        found = []
        for when, ruleset in _rulesets(node).items():
            found += [{**item, "object": f"{item['object']} ({when})"} for item in items(node, ruleset, wanted)]
        return core.verdict(found)

    return look


def _table(_node: core.Node, ruleset: nftables.Ruleset, wanted: str) -> Items:
    names = " ".join(sorted(f"{family} {name}" for family, name in ruleset.tables))
    ok = any(family == wanted for family, _name in ruleset.tables)
    yield core.evidence("tables", f"one of family {wanted}", names or None, ok)


def _hooks(node: core.Node, ruleset: nftables.Ruleset, hooks: List[str], deny: bool) -> Items:
    for hook in hooks:
        chains = ruleset.base_chains(hook)
        fitting = [chain for chain in chains if not deny or ruleset.default_deny(chain)]
        missing = [family for family in _families(node) if family not in nftables.covered(fitting)]
        expected = f"a filter chain{' with policy drop' if deny else ''} for ip and ip6"
        found = "; ".join(map(nftables.name, chains)) or "no chain"
        open_ = [
            nftables.name(chain) for chain in chains if deny and chain.get("policy") == "drop" and chain not in fitting
        ]
        found += f"; {' and '.join(open_)} accepts everything" if open_ else ""
        yield core.evidence(f"hook {hook}", expected, found, not missing)


def _base_chains(node: core.Node, ruleset: nftables.Ruleset, wanted: List[str]) -> Items:
    return _hooks(node, ruleset, wanted, deny=False)


def _default_deny(node: core.Node, ruleset: nftables.Ruleset, wanted: List[str]) -> Items:
    return _hooks(node, ruleset, wanted, deny=True)


def _loopback(node: core.Node, ruleset: nftables.Ruleset, _wanted: str) -> Items:
    """lo is let in, and what claims to be from lo and is not is dropped, in one chain and in that order."""
    chains = [list(ruleset.rules(chain)) for chain in ruleset.base_chains("input")]
    accepted = any(nftables.accepts_loopback(rule) for rules in chains for rule in rules)
    yield core.evidence("lo", "a rule of hook input that accepts it", "there" if accepted else "none", accepted)
    for family, source in (("ip", "127.0.0.0/8"), ("ip6", "::1")):
        if family in _families(node):
            ok = any(_drops_spoofed(rules, family) for rules in chains)
            yield core.evidence(
                f"source {source}", "dropped unless it comes by lo", "so it is" if ok else "it is not", ok
            )


def _drops_spoofed(rules: List[nftables.Expressions], family: str) -> bool:
    lo_accepted = False
    for rule in rules:
        lo_accepted = lo_accepted or nftables.accepts_loopback(rule)
        drops, spares = nftables.drops_loopback_source(rule, family)
        if drops:
            return spares or lo_accepted
        if nftables.verdict(rule) == "accept" and not nftables.matches(rule):
            return False
    return False


def _established(_node: core.Node, ruleset: nftables.Ruleset, _wanted: str) -> Items:
    for hook in ("input", "output"):
        chains = ruleset.base_chains(hook)
        closed = [chain for chain in chains if chain.get("policy") == "drop"]
        # where nothing is dropped by default established connections pass; input has to say so all the same
        for chain in closed or (chains[:1] if hook == "input" else []):
            protocols = {name for rule in ruleset.rules(chain) for name in nftables.established_protocols(rule)}
            ok = "*" in protocols or {"tcp", "udp", "icmp"} <= protocols
            found = "all" if "*" in protocols else " ".join(sorted(protocols)) or None
            yield core.evidence(
                f"chain {nftables.name(chain)}", "accepts established connections of all protocols", found, ok
            )
        if hook == "input" and not chains:
            yield core.evidence("hook input", "a chain that accepts established connections", "no chain", False)


def _check_loopback(node: core.Node, wanted: str) -> core.Finding:
    if not _firewalld(node):
        return core.verdict(list(_firewalld_loopback(node)))
    found: core.Finding = _of_nftables(_loopback)(node, wanted)
    return found


_CHECKS: Dict[str, Callable[..., core.Finding]] = {
    "tool": _check_tool,
    "forward": _check_forward,
    "default_zone": _check_default_zone,
    "zone_services": _check_zone_services,
    "loopback": _check_loopback,
    "table": _of_nftables(_table),
    "base_chains": _of_nftables(_base_chains),
    "established": _of_nftables(_established),
    "default_deny": _of_nftables(_default_deny),
}
