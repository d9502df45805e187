# Copyright the cisdriver authors. Apache-2.0.
"""The catalogue: what each benchmark asks, and the rules that answer it.

Runs on the controller, needs PyYAML alone and imports nothing of Ansible, so that
the lookup, the filter, the driver, the docs and the tests share one loader.

``benchmarks/<benchmark>.yml`` lists recommendations; ``roles/<role>/rules/<topic>.yml``
maps a slug to a rule. ``schemas/rule.json`` guards the shape of a rule.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

SECTION_ROLES = ("initial_setup", "services", "network", "access", "logging", "maintenance")
PROFILES = ("eks", "server")
LEVELS = (1, 2)
#: Benchmark by (distribution, major version) as Ansible's facts name them.
DEFAULT_BENCHMARKS = {("Amazon", "2023"): "al2023-1.0.0", ("Amazon", "2"): "al2-3.0.0"}
ROOT = Path(__file__).resolve().parents[2]


class CatalogueError(Exception):
    """Bad data or a bad choice. The message names the object and the way out."""


@dataclass(frozen=True)
class Recommendation:
    """One line of a benchmark: what CIS asks, by number and title."""

    benchmark: str
    id: str
    title: str
    level: int
    assessment: str  # automated | manual


@dataclass(frozen=True)
class Rule:
    """Our answer to one or more recommendations; see CONTRIBUTING.md for the keys."""

    slug: str
    role: str
    topic: str
    source: str
    ids: Mapping[str, tuple[str, ...]]
    require: Mapping[str, Any] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    value: Mapping[str, Any] | None = None
    applies_if: Mapping[str, Any] = field(default_factory=dict)
    eks: Mapping[str, Any] = field(default_factory=dict)
    manual: str | None = None
    collect: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """``role/topic``, the name by which tasks ask for their rules."""
        return f"{self.role}/{self.topic}"

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.require)

    def verdict(self, profile: str) -> str:
        """``apply``, ``adapt``, ``except`` or ``manual`` for a profile."""
        if self.manual is not None:
            return "manual"
        if profile == "eks":
            return str(self.eks.get("verdict", "apply"))
        return "apply"

    def writes(self, profile: str) -> dict[str, Any]:
        """What hardening sets, per kind: ``set`` where given, else the predicate itself.

        A rule that is excepted writes only what ``eks.set`` names: its predicate must not
        be met. One that is adapted writes ``eks.set`` when it has one.
        """
        verdict = self.verdict(profile)
        if verdict in ("except", "adapt") and "set" in self.eks:
            return dict(self.eks["set"])
        if verdict in ("except", "manual"):
            return {}
        return {**self.require, **self.set}


@dataclass(frozen=True)
class Selection:
    """What a run is about. ``only`` and ``skip`` hold ids, slugs, topics or roles, ``strict`` ids or slugs."""

    benchmark: str
    level: int = 1
    profile: str = "eks"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    strict: tuple[str, ...] = ()

    def profile_of(self, rule: Rule) -> str:
        """The profile by which a rule is treated: ``server`` where its EKS verdict is not wanted."""
        names = {rule.slug, *rule.ids.get(self.benchmark, ())}
        return "server" if names & set(self.strict) else self.profile

    def conditions(self, rule: Rule) -> dict[str, Any]:
        """``applies_if`` as the node takes it: whether ``values`` holds what a rule waits for is known here."""
        conditions = dict(rule.applies_if)
        awaited = conditions.pop("value", None)
        return conditions if awaited is None or awaited in self.values else {"value_missing": awaited, **conditions}


@dataclass(frozen=True)
class Entry:
    """A recommendation and the rule that claims it, if one is written yet."""

    recommendation: Recommendation
    rule: Rule | None

    @property
    def tags(self) -> frozenset[str]:
        return frozenset(self.names | {f"level{self.recommendation.level}"})

    @property
    def names(self) -> set[str]:
        """Everything this entry answers to in ``only``, ``skip`` and tags."""
        section = self.recommendation.id.split(".")[0]
        names = {self.recommendation.id, f"section{section}"}
        if self.rule:
            names |= {self.rule.slug, self.rule.topic, self.rule.role}
        return names


class Catalogue:
    """All benchmarks and rules of one tree. Use :func:`load`."""

    def __init__(self, benchmarks: Mapping[str, Mapping[str, Recommendation]], rules: Mapping[str, Rule]) -> None:
        self.benchmarks = benchmarks
        self.rules = rules
        self._by_id: dict[str, dict[str, Rule]] = {name: {} for name in benchmarks}
        for rule in rules.values():
            for benchmark, ids in rule.ids.items():
                for id_ in ids:
                    self._claim(benchmark, id_, rule)

    def _claim(self, benchmark: str, id_: str, rule: Rule) -> None:
        if benchmark not in self.benchmarks:
            raise CatalogueError(
                f"{rule.source}: rule {rule.slug}: unknown benchmark {benchmark!r}; known: {_listing(self.benchmarks)}"
            )
        if id_ not in self.benchmarks[benchmark]:
            raise CatalogueError(f"{rule.source}: rule {rule.slug}: {benchmark} has no recommendation {id_!r}")
        other = self._by_id[benchmark].setdefault(id_, rule)
        if other is not rule:
            raise CatalogueError(
                f"{rule.source}: rule {rule.slug}: {benchmark} {id_} is already claimed by"
                f" {other.slug} in {other.source}"
            )

    def benchmark(self, name: str) -> Mapping[str, Recommendation]:
        """Recommendations by id. Raises CatalogueError for an unknown name."""
        if name not in self.benchmarks:
            raise CatalogueError(f"unknown benchmark {name!r}; known: {_listing(self.benchmarks)}")
        return self.benchmarks[name]

    def entries(self, benchmark: str) -> list[Entry]:
        """Every recommendation of a benchmark in its order, with or without a rule."""
        return [Entry(r, self._by_id[benchmark].get(r.id)) for r in self.benchmark(benchmark).values()]

    def topic(self, path: str) -> list[Rule]:
        """Rules of ``role/topic``. Raises CatalogueError when no rule has that path."""
        rules = [rule for rule in self.rules.values() if rule.path == path]
        if not rules:
            raise CatalogueError(f"no rules at {path!r}; topics: {_listing({r.path for r in self.rules.values()})}")
        return rules

    def known_names(self, benchmark: str) -> set[str]:
        """Everything that ``only`` and ``skip`` may hold."""
        return set().union(*(entry.names for entry in self.entries(benchmark)))

    def with_eks_verdict(self) -> set[str]:
        """Everything that ``strict`` may hold: slugs and ids of rules that EKS excepts or adapts."""
        rules = [rule for rule in self.rules.values() if rule.eks]
        return {name for rule in rules for name in (rule.slug, *(id_ for ids in rule.ids.values() for id_ in ids))}

    def select(self, selection: Selection) -> list[Entry]:
        """Entries a selection asks for. Raises CatalogueError naming what is unknown."""
        self._check(selection)
        only, skip = set(selection.only), set(selection.skip)
        return [
            entry
            for entry in self.entries(selection.benchmark)
            if entry.recommendation.level <= selection.level
            and (not only or entry.names & only)
            and not entry.names & skip
        ]

    def _check(self, selection: Selection) -> None:
        self.benchmark(selection.benchmark)
        if selection.level not in LEVELS:
            raise CatalogueError(f"unknown level {selection.level!r}; expected 1 or 2")
        if selection.profile not in PROFILES:
            raise CatalogueError(f"unknown profile {selection.profile!r}; expected {_listing(PROFILES)}")
        known = self.known_names(selection.benchmark)
        for name in (*selection.only, *selection.skip):
            if name not in known:
                raise CatalogueError(
                    f"{selection.benchmark} has no rule, id, topic or section {name!r};"
                    " `cisdriver rules list` shows them"
                )
        for name in selection.strict:
            if name not in self.with_eks_verdict():
                raise CatalogueError(
                    f"cis_strict: expected the id or slug of a rule with an EKS verdict, found {name!r};"
                    " `cisdriver rules list` shows them"
                )
        for slug, value in selection.values.items():
            if slug not in self.rules:
                raise CatalogueError(f"cis_values: unknown rule {slug!r}; `cisdriver rules list` shows them")
            check_value(self.rules[slug], value)


def check_value(rule: Rule, value: Any) -> None:
    """Raise CatalogueError unless ``value`` lies in the bounds the rule allows."""
    if rule.value is None:
        raise CatalogueError(f"cis_values: rule {rule.slug} takes no value; remove it")
    bounds = rule.value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if ("min" in bounds or "max" in bounds) and not number:
        raise CatalogueError(f"cis_values: {rule.slug}: expected a number, found {value!r}")
    if ("min" in bounds and value < bounds["min"]) or ("max" in bounds and value > bounds["max"]):
        limits = f"{bounds.get('min', '')}..{bounds.get('max', '')}"
        raise CatalogueError(f"cis_values: {rule.slug}: expected {limits}, found {value!r}")
    if "in" in bounds and value not in bounds["in"]:
        raise CatalogueError(f"cis_values: {rule.slug}: expected one of {_listing(bounds['in'])}, found {value!r}")
    if "keys" in bounds and not (isinstance(value, Mapping) and value and set(value) <= set(bounds["keys"])):
        raise CatalogueError(
            f"cis_values: {rule.slug}: expected a mapping of {_listing(bounds['keys'])}, found {value!r}"
        )
    if "extends" in bounds and not (isinstance(value, list) and value):
        raise CatalogueError(f"cis_values: {rule.slug}: expected a list to add to {bounds['extends']}, found {value!r}")
    if "matches" in bounds and not re.fullmatch(bounds["matches"], str(value)):
        raise CatalogueError(f"cis_values: {rule.slug}: expected {bounds['matches']}, found {value!r}")


def required(rule: Rule, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit asks of a rule, with the user's list added to ours where the rule can be extended."""
    key = (rule.value or {}).get("extends")
    if key is None or rule.slug not in values:
        return dict(rule.require)
    check_value(rule, values[rule.slug])
    return {
        kind: {**spec, key: [*spec[key], *values[rule.slug]]} if key in spec else spec
        for kind, spec in rule.require.items()
    }


def tailored(rule: Rule, profile: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What hardening writes for a rule, with the user's value in place of ours."""
    writes = rule.writes(profile)
    if rule.slug not in values:
        return writes
    value = values[rule.slug]
    check_value(rule, value)
    return {kind: _replaced(writes[kind], value) if kind in rule.set else writes[kind] for kind in writes}


def _replaced(spec: Any, value: Any) -> Any:
    """``spec`` with its scalar leaves replaced by ``value``: a tailorable rule has one value.

    A value that is a mapping replaces the keys it names, where ``spec`` has them all. In a list of items, values stand
    below ``values`` and ``every``, and the rest says where they belong.
    """
    if isinstance(spec, list):
        return [
            {key: _replaced(part, value) if key in ("values", "every") else part for key, part in item.items()}
            for item in spec
        ]
    if isinstance(spec, Mapping) and isinstance(value, Mapping) and set(value) <= set(spec):
        return {**spec, **value}
    if isinstance(spec, Mapping):
        return {key: _replaced(item, value) for key, item in spec.items()}
    return value


def runs(entry: Entry, run_tags: Iterable[str], skip_tags: Iterable[str]) -> bool:
    """Whether ``--tags`` and ``--skip-tags`` let an entry run, as Ansible would decide for a task of its own."""
    wanted, skipped = set(run_tags), set(skip_tags)
    everything = not wanted or bool(wanted & {"all", "tagged"})
    return (everything or bool(entry.tags & wanted)) and not entry.tags & skipped


@functools.lru_cache(maxsize=4)
def load(root: Path = ROOT) -> Catalogue:
    """Read the tree at ``root`` (holding ``benchmarks/`` and ``roles/``). Raises CatalogueError."""
    benchmarks = {path.stem: _read_benchmark(path) for path in sorted((root / "benchmarks").glob("*.yml"))}
    rules: dict[str, Rule] = {}
    for role in SECTION_ROLES:
        for path in sorted((root / "roles" / role / "rules").glob("*.yml")):
            for rule in _read_rules(path, root):
                if rule.slug in rules:
                    raise CatalogueError(f"{rule.source}: rule {rule.slug} is already in {rules[rule.slug].source}")
                rules[rule.slug] = rule
    return Catalogue(benchmarks, rules)


@functools.lru_cache(maxsize=4)
def version(root: Path = ROOT) -> str:
    """The collection's version: from galaxy.yml in a checkout, from MANIFEST.json where it is installed."""
    manifest = root / "MANIFEST.json"
    if manifest.exists():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    return str(_read_yaml(root / "galaxy.yml")["version"])


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, yaml.YAMLError) as error:
        raise CatalogueError(f"cannot read {path}: {error}") from error


def _read_benchmark(path: Path) -> dict[str, Recommendation]:
    return {
        item["id"]: Recommendation(path.stem, item["id"], item["title"], item["level"], item["assessment"])
        for item in _read_yaml(path)
    }


def _read_rules(path: Path, root: Path) -> list[Rule]:
    role, topic = path.parts[-3], path.stem
    source = str(path.relative_to(root))
    known = set(Rule.__dataclass_fields__) - {"slug", "role", "topic", "source"}
    rules = []
    for slug, body in (_read_yaml(path) or {}).items():
        for key in body:
            if key not in known:
                raise CatalogueError(f"{source}: rule {slug}: unknown key {key!r}; expected {_listing(known)}")
        if "ids" not in body or not ({"require", "manual"} & set(body)):
            raise CatalogueError(f"{source}: rule {slug}: needs ids, and require or manual")
        ids = {name: (value,) if isinstance(value, str) else tuple(value) for name, value in body["ids"].items()}
        rules.append(Rule(slug, role, topic, source, **{**body, "ids": ids}))
    return rules


def _listing(names: Iterable[Any]) -> str:
    return ", ".join(sorted(str(name) for name in names))
