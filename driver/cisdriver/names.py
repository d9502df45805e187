"""What ``cisdriver rules`` shows: the catalogue as rows, and one rule as a page."""

from __future__ import annotations

import functools
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from cisdriver import choice, collection
from cisdriver.errors import UsageError
from cisdriver.settings import suggest

NO_RULE = "no rule yet"
#: The benchmark that is meant when none is named: that of the image a bake starts from.
DEFAULT_BENCHMARK = choice.BAKE_BENCHMARK
_REMEDY = "`cisdriver rules list` shows them all."


def rows(benchmark: str, profile: str, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per recommendation of ``benchmark`` that passes all filters.

    ``{benchmark, id, title, level, assessment, rule, role, topic, kinds, verdict, why}``. Filters are ``level``,
    ``section``, ``verdict``, ``kind`` and ``search``; one that is None filters nothing. Raises UsageError.
    """
    names = collection.load()
    if benchmark not in names.benchmarks:
        guess = suggest(benchmark, names.benchmarks)
        raise UsageError(f"unknown benchmark {benchmark!r}{guess}", f"Known: {', '.join(sorted(names.benchmarks))}.")
    found = [_row(entry, profile) for entry in names.entries(benchmark)]
    return [row for row in found if _passes(row, filters)]


def _row(entry: collection.catalogue.Entry, profile: str) -> dict[str, Any]:
    asked, rule = entry.recommendation, entry.rule
    row: dict[str, Any] = {
        "benchmark": asked.benchmark,
        "id": asked.id,
        "title": asked.title,
        "level": asked.level,
        "assessment": asked.assessment,
    }
    if rule is None:
        return {**row, "rule": None, "role": None, "topic": None, "kinds": [], "verdict": NO_RULE, "why": ""}
    verdict = rule.verdict(profile)
    why = {"manual": rule.manual, "adapt": rule.eks.get("why"), "except": rule.eks.get("why")}.get(verdict) or ""
    place = {"rule": rule.slug, "role": rule.role, "topic": rule.topic, "kinds": list(rule.kinds)}
    return {**row, **place, "verdict": verdict, "why": why}


def _passes(row: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    level, section, verdict = filters.get("level"), filters.get("section"), filters.get("verdict")
    if level and row["level"] != int(level):
        return False
    if section and not f"{row['id']}.".startswith(f"{section}."):
        return False
    if verdict and row["verdict"] != verdict:
        return False
    if filters.get("kind") and filters["kind"] not in row["kinds"]:
        return False
    text = " ".join(str(row[key] or "") for key in ("id", "title", "rule", "topic", "why")).lower()
    return str(filters.get("search") or "").lower() in text


def table(found: list[dict[str, Any]]) -> str:
    """Rows for people, as wide as the terminal."""
    if not found:
        return "No recommendation passes these filters."
    width = max(100, shutil.get_terminal_size((120, 24)).columns)
    ids = max(len(row["id"]) for row in found)
    slugs = max(len(row["rule"] or "") for row in found)
    titles = max(30, width - ids - slugs - 24)
    lines = [f"{'ID':<{ids}}  L  {'TITLE':<{titles}}  {'VERDICT':<11}  RULE"]
    for row in found:
        title = textwrap.shorten(row["title"].removeprefix("Ensure "), titles, placeholder="…")
        line = f"{row['id']:<{ids}}  {row['level']}  {title:<{titles}}  {row['verdict']:<11}  {row['rule'] or ''}"
        lines.append(line.rstrip())
    written = sum(row["rule"] is not None for row in found)
    return "\n".join([*lines, "", f"{len(found)} recommendations, {written} with a rule."])


def show(name: str, benchmark: str) -> dict[str, Any]:
    """Everything about one rule, by slug or by an id of ``benchmark``. Raises UsageError for an unknown name."""
    names = collection.load()
    rule = names.rules.get(name)
    if rule is None:
        found = [row for row in rows(benchmark, "eks", {}) if row["id"] == name]
        if not found:
            known = {*names.rules, *names.benchmarks[benchmark]}
            raise UsageError(f"{benchmark} has no rule or id {name!r}{suggest(name, known)}", _REMEDY)
        if found[0]["rule"] is None:
            return found[0]
        rule = names.rules[found[0]["rule"]]
    return {
        "rule": rule.slug,
        "role": rule.role,
        "topic": rule.topic,
        "source": rule.source,
        "ids": {name: [_asked(names.benchmarks[name][id_]) for id_ in ids] for name, ids in rule.ids.items()},
        "applies_if": dict(rule.applies_if),
        "require": dict(rule.require),
        "manual": rule.manual,
        "collect": dict(rule.collect),
        "value": dict(rule.value) if rule.value else None,
        "writes": {profile: _written(rule, profile) for profile in collection.catalogue.PROFILES},
        "files": {
            kind: path for kind, path in files(rule).items() if kind in rule.writes("eks") | rule.writes("server")
        },
        "eks": {"verdict": rule.verdict("eks"), **{key: rule.eks[key] for key in rule.eks if key != "verdict"}},
    }


def _written(rule: collection.catalogue.Rule, profile: str) -> dict[str, Any]:
    """What hardening sets; kinds without a module are looked at and no more."""
    kinds = collection.kinds_with_module()
    return {kind: want for kind, want in rule.writes(profile).items() if kind in kinds}


def _asked(asked: collection.catalogue.Recommendation) -> dict[str, Any]:
    return {"id": asked.id, "title": asked.title, "level": asked.level, "assessment": asked.assessment}


_PLACES = ("path", "dropin", "dest", "file", "login_defs")


def files(rule: collection.catalogue.Rule) -> dict[str, str]:
    """``{"sysctl": "/etc/sysctl.d/..."}``: the file each kind of a topic writes, from the topic's tasks.

    Where a task names none, it is the module's own default.
    """
    path = collection.ROOT / "roles" / rule.role / "tasks" / f"{rule.topic}.yml"
    found: dict[str, str] = {}
    if not path.exists():
        return found
    for task in _tasks(yaml.safe_load(path.read_text(encoding="utf-8"))):
        for module, arguments in task.items():
            if not str(module).startswith(f"{collection.NAME}.") or not isinstance(arguments, dict):
                continue
            kind = module.rpartition(".")[2]
            options = {**_defaults(kind), **arguments}
            targets = [str(options[key]) for key in _PLACES if key in options]
            if targets and "{{" not in targets[0]:
                found[kind] = targets[0]
    return found


@functools.cache
def _defaults(kind: str) -> dict[str, Any]:
    """Options of a module that have a default, from its documentation."""
    path = collection.ROOT / "plugins" / "modules" / f"{kind}.py"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(r'^DOCUMENTATION = r"""\n(.*?)^"""', text, re.M | re.S)
    options = yaml.safe_load(found[1])["options"] if found else {}
    return {name: option["default"] for name, option in options.items() if "default" in option}


def _tasks(tasks: Any) -> Iterable[dict[str, Any]]:
    for task in tasks or []:
        yield task
        for key in ("block", "rescue", "always"):
            yield from _tasks(task.get(key))


def page(shown: Mapping[str, Any]) -> str:
    """A rule for people."""
    if shown["rule"] is None:
        return f"{shown['benchmark']} {shown['id']}  {shown['title']}\n\nNo rule is written for this id yet."
    parts = [shown["rule"], ""]
    for benchmark, asked in shown["ids"].items():
        parts += [f"  {benchmark:<13} {item['id']:<10} L{item['level']}  {item['title']}" for item in asked]
    if shown["manual"]:
        parts += _paragraph("Decided by a person", shown["manual"])
    parts += _data("Applies if", shown["applies_if"]) + _data("Required", shown["require"])
    parts += _data("Shown to the person", shown["collect"]) + _writes(shown)
    if shown["value"]:
        bounds = yaml.safe_dump(shown["value"], default_flow_style=True, width=1000).strip()
        parts += ["", "Yours to choose", f"  --value {shown['rule']}=VALUE, within {bounds}"]
    eks = shown["eks"]
    if eks["verdict"] in ("adapt", "except"):
        word = {"adapt": "Adapted on an EKS node", "except": "Excepted on an EKS node"}[eks["verdict"]]
        parts += _paragraph(word, eks["why"]) + _data("What must hold instead", eks.get("require") or {})
    return "\n".join([*parts, "", f"Stands in {shown['source']}."])


def _writes(shown: Mapping[str, Any]) -> list[str]:
    """What is written where; both profiles where they differ."""
    per_profile, paths = shown["writes"], shown["files"]
    same = per_profile["eks"] == per_profile["server"]
    lines: list[str] = []
    for profile, writes in {"eks": per_profile["eks"], "server": per_profile["server"]}.items():
        if same and profile == "server":
            break
        heading = "Written" if same else f"Written with --profile {profile}"
        if not writes:
            lines += ["", heading, "  nothing"]
        for kind, want in writes.items():
            place = f" to {paths[kind]}" if kind in paths else ""
            lines += _data(f"{heading}{place} ({kind})", want)
    return lines


def _data(heading: str, value: Any) -> list[str]:
    if not value:
        return []
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=False, width=100).rstrip()
    return ["", heading, textwrap.indent(text, "  ")]


def _paragraph(heading: str, text: str) -> list[str]:
    return ["", heading, textwrap.fill(text.strip(), 98, initial_indent="  ", subsequent_indent="  ")]


def known(kinds: Iterable[str], benchmark: str | None) -> dict[str, str]:
    """Names for the shell to complete, with a hint each: of ``benchmark``, or of every benchmark a node may have."""
    names = collection.load()
    chosen = [benchmark] if benchmark in names.benchmarks else [DEFAULT_BENCHMARK]
    entries = [entry for name in chosen if name for entry in names.entries(name)]
    lists: dict[str, dict[str, str]] = {
        "benchmarks": dict.fromkeys(names.benchmarks, ""),
        "ids": {entry.recommendation.id: entry.recommendation.title for entry in entries},
        "rules": {entry.rule.slug: entry.recommendation.title for entry in entries if entry.rule},
        "topics": {entry.rule.topic: "topic" for entry in entries if entry.rule},
        "sections": {f"section{number}": "section" for number in range(1, 7)},
        "levels": {f"level{level}": "level" for level in collection.catalogue.LEVELS},
        "kinds": {kind: "" for entry in entries if entry.rule for kind in entry.rule.kinds},
    }
    return {name: text for kind in kinds for name, text in lists[kind].items()}
