# Copyright the cisdriver authors. Apache-2.0.
"""What a ruleset of nftables does, from ``nft -j list ruleset`` (``man 5 libnftables-json``).

A packet passes every base chain of its hook, and any one that drops it decides. So a hook denies by default when some
filter chain with policy drop sees each packet: one of family inet, or one of ip and one of ip6. Text is never compared:
``nft`` prints names, priorities and counters in its own way.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Set, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

#: Which packets a table of a family sees.
FAMILIES = {"inet": ("ip", "ip6"), "ip": ("ip",), "ip6": ("ip6",)}
_MAX_DEPTH = 16

Expressions = List[Mapping[str, Any]]


class Ruleset:
    """``tables`` are ``(family, name)``; ``chains`` are as nft prints them."""

    def __init__(self, text: str) -> None:
        """Raises ProbeError for what is not a ruleset."""
        self.tables: Set[Tuple[str, str]] = set()
        self.chains: List[Dict[str, Any]] = []
        self._rules: Dict[Tuple[str, str, str], List[Expressions]] = {}
        try:
            for item in json.loads(text)["nftables"]:
                self._add(item)
        except (ValueError, KeyError, TypeError) as error:
            raise core.ProbeError(
                f"nft -j list ruleset: expected JSON of nftables, found other text: {error}"
            ) from error

    def _add(self, item: Mapping[str, Any]) -> None:
        if "table" in item:
            self.tables.add((item["table"]["family"], item["table"]["name"]))
        elif "chain" in item:
            self.chains.append(item["chain"])
        elif "rule" in item:
            rule = item["rule"]
            place = (rule["family"], rule["table"], rule["chain"])
            self._rules.setdefault(place, []).append(rule["expr"])

    def base_chains(self, hook: str) -> List[Dict[str, Any]]:
        """Filter chains of a hook that IP packets pass."""
        return [
            chain
            for chain in self.chains
            if chain.get("hook") == hook and chain.get("type") == "filter" and chain["family"] in FAMILIES
        ]

    def rules(self, chain: Mapping[str, Any], name: str = "", depth: int = 0) -> Iterator[Expressions]:
        """Expressions of a chain's rules in their order, those of chains it always jumps to among them."""
        if depth > _MAX_DEPTH:
            return
        place = (chain["family"], chain["table"], name or chain["name"])
        for expressions in self._rules.get(place, []):
            said = [each for each in expressions if not set(each) & {"counter", "log"}]
            target = next((each[verb]["target"] for each in said for verb in ("jump", "goto") if verb in each), None)
            if target and len(said) == 1:
                yield from self.rules(chain, target, depth + 1)
            else:
                yield expressions

    def default_deny(self, chain: Mapping[str, Any]) -> bool:
        """Policy drop, and no rule that lets everything in before it."""
        return chain.get("policy") == "drop" and not any(
            verdict(expressions) == "accept" and not matches(expressions) for expressions in self.rules(chain)
        )


def covered(chains: Iterable[Mapping[str, Any]]) -> Set[str]:
    """The families, of ip and ip6, whose packets pass one of the chains."""
    return {family for chain in chains for family in FAMILIES[chain["family"]]}


def name(chain: Mapping[str, Any]) -> str:
    policy = f" policy {chain['policy']}" if "policy" in chain else ""
    return f"{chain['family']} {chain['table']} {chain['name']}{policy}"


def verdict(expressions: Expressions) -> str:
    """``accept``, ``drop`` (which reject is, too), or another's name; empty where a rule has none."""
    for each in expressions:
        for word in ("accept", "drop", "reject", "jump", "goto", "return", "continue", "queue"):
            if word in each:
                return "drop" if word == "reject" else word
    return ""


def matches(expressions: Expressions) -> Expressions:
    """What narrows a rule: everything that is neither verdict nor bookkeeping."""
    return [
        each
        for each in expressions
        if not set(each) & {"accept", "drop", "reject", "jump", "goto", "return", "continue", "counter", "log"}
    ]


def _left(match: Mapping[str, Any]) -> str:
    """The left side of a match in words: ``iif``, ``ip saddr``, ``ct state``, ``l4proto``."""
    left = match.get("match", {}).get("left", {})
    if not isinstance(left, Mapping):
        return ""
    if "payload" in left:
        return f"{left['payload'].get('protocol')} {left['payload'].get('field')}"
    if "ct" in left:
        return f"ct {left['ct'].get('key')}"
    return str(left.get("meta", {}).get("key", ""))


def _right(match: Mapping[str, Any]) -> List[Any]:
    """The values of a match that it accepts, sets opened."""
    right = match["match"].get("right")
    if isinstance(right, Mapping) and "set" in right:
        right = right["set"]
    return right if isinstance(right, list) else [right]


def _is(match: Mapping[str, Any], left: Iterable[str], op: Iterable[str] = ("==", "in")) -> bool:
    return "match" in match and match["match"].get("op") in op and _left(match) in left


_INTERFACE = ("iif", "iifname")
_LOOPBACK_SOURCES = {"ip": {"prefix": {"addr": "127.0.0.0", "len": 8}}, "ip6": "::1"}


def accepts_loopback(expressions: Expressions) -> bool:
    """A rule that lets in all that comes by lo."""
    narrowing = matches(expressions)
    return (
        verdict(expressions) == "accept"
        and len(narrowing) == 1
        and _is(narrowing[0], _INTERFACE)
        and _right(narrowing[0]) == ["lo"]
    )


def drops_loopback_source(expressions: Expressions, family: str) -> Tuple[bool, bool]:
    """Whether a rule drops packets with an address of lo as their source, and whether it spares lo itself."""
    spares = [each for each in matches(expressions) if _is(each, _INTERFACE, ["!="]) and _right(each) == ["lo"]]
    others = [each for each in matches(expressions) if each not in spares]
    drops = (
        verdict(expressions) == "drop"
        and len(others) == 1
        and _is(others[0], [f"{family} saddr"])
        and _LOOPBACK_SOURCES[family] in _right(others[0])
    )
    return drops, bool(spares)


def established_protocols(expressions: Expressions) -> Set[str]:
    """Protocols of whose established connections a rule accepts all packets; ``*`` stands for every one."""
    narrowing = matches(expressions)
    state = [each for each in narrowing if _established(each)]
    others = [each for each in narrowing if each not in state]
    if not state or (verdict(expressions) != "accept" and "vmap" not in state[0]):
        return set()
    if not others:
        return {"*"}
    if len(others) == 1 and _is(others[0], ("ip protocol", "ip6 nexthdr", "l4proto")):
        return {str(value) for value in _right(others[0])}
    return set()


def _established(match: Mapping[str, Any]) -> bool:
    if "vmap" in match:
        key, data = match["vmap"].get("key", {}), match["vmap"].get("data", {})
        pairs = data.get("set", []) if isinstance(data, Mapping) else []
        return _left({"match": {"left": key}}) == "ct state" and ["established", {"accept": None}] in pairs
    return _is(match, ["ct state"]) and "established" in _right(match)
