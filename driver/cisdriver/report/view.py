"""What a report shows, worked out once for every format.

A result has a *state*, which is its status with acceptance taken into account: ``finding`` (a fail that nothing
accepts), ``error``, ``accepted``, ``pass``, ``manual``, ``not_applicable``, ``no_rule_yet``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cisdriver import collection
from cisdriver.progress import seconds

#: States in the order in which a reader wants them, with the words for them.
STATES = {
    "finding": "Finding",
    "error": "Could not look",
    "accepted": "Accepted exception",
    "manual": "Manual review",
    "pass": "Pass",
    "not_applicable": "Not applicable",
    "no_rule_yet": "No rule yet",
}


def state(result: Mapping[str, Any]) -> str:
    if result["status"] == "fail":
        return "accepted" if collection.results.is_accepted(result) else "finding"
    return str(result["status"])


def view(document: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a template needs. ``about`` is run.json, or what of it is known."""
    results = [_result(result) for result in document["results"]]
    summary = document["summary"]
    bake = about.get("bake") or {}
    return {
        "title": (bake.get("image") or {}).get("name") or document["node"]["name"],
        "image": bake.get("image"),
        "base": bake.get("base"),
        "document": document,
        "summary": summary,
        "compliant": not summary["unaccepted"],
        "audited": _moment(document["node"]["started"]),
        "run": about.get("id"),
        "facts": _facts(document, bake, about),
        "states": STATES,
        "counts": Counter(result["state"] for result in results),
        "sections": _sections(results),
        "results": results,
        "by_state": {name: [result for result in results if result["state"] == name] for name in STATES},
        "stages": _stages(about),
    }


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    shown = {**result, "state": state(result)}
    accepted = result["accepted"]
    # An exception whose condition does not hold any more: the reader has to know both halves.
    shown["lapsed"] = accepted if accepted and not accepted["holds"] else None
    rule = collection.load().rules.get(result["rule"] or "")
    shown["verdict"] = rule.verdict("eks") if rule else None
    shown["why"] = str(rule.eks.get("why", "")) if rule else ""
    shown["text"] = " ".join([result["id"], result["title"], result["rule"] or "", result["reason"]]).lower()
    return shown


def _facts(document: Mapping[str, Any], bake: Mapping[str, Any], about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and value pairs of the head."""
    image, base, node = bake.get("image") or {}, bake.get("base") or {}, document["node"]
    source = document["source"]
    pairs = [
        ("Image", image.get("id")),
        ("Region", bake.get("region")),
        ("Base", " · ".join(filter(None, (base.get("id"), base.get("name"))))),
        ("Node", node["name"]),
        ("System", node["os"]),
        ("Kernel", node["kernel"]),
        ("Benchmark", document["benchmark"]),
        ("Level", str(document["level"])),
        ("Profile", document["profile"]),
        ("Audited", _moment(node["started"])),
        ("By", f"{source['name']} {source['version']}"),
        ("Run", about.get("id")),
    ]
    return [(name, str(value)) for name, value in pairs if value]


def _sections(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name and count per state of each section. The name is that of the role that has most of its rules."""
    rules = collection.load().rules
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        found.setdefault(result["id"].split(".")[0], []).append(result)
    sections = []
    for number, members in found.items():
        roles = Counter(rules[result["rule"]].role for result in members if result["rule"] in rules)
        name = roles.most_common(1)[0][0].replace("_", " ").capitalize() if roles else ""
        counts = Counter(result["state"] for result in members)
        sections.append({"number": number, "name": name, "counts": counts, "total": len(members), "results": members})
    return sections


def _stages(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    from cisdriver.screens import merged

    stages = merged(list(about.get("stages") or []))
    return [(stage["label"], seconds(stage["seconds"])) for stage in stages]


def _moment(text: str) -> str:
    """``2026-01-02 03:04 UTC``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".strip()
