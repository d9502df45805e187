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

#: The same for a check of a verification.
CHECK_STATES = {"finding": "Fails", "error": "Could not look", "pass": "Holds", "not_applicable": "Not applicable"}


def state(result: Mapping[str, Any]) -> str:
    if result["status"] == "fail":
        return "accepted" if collection.results.is_accepted(result) else "finding"
    return str(result["status"])


def view(
    document: Mapping[str, Any] | None,
    about: Mapping[str, Any],
    verification: Mapping[str, Any] | None = None,
    workloads: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything a template needs, of a node's audit, of its verification, and of the workloads of a cluster.

    ``about`` is run.json, or what of it is known; ``workloads`` is what ``report.workloads`` makes. Raises ValueError
    for none of the three.
    """
    main = document or verification or (workloads or {}).get("main")
    if main is None:
        raise ValueError("a report of nothing")
    bake = about.get("bake") or {}
    return {
        "title": (bake.get("image") or {}).get("name")
        or _cluster(document or verification, workloads)
        or main["node"]["name"],
        "image": bake.get("image"),
        "base": bake.get("base"),
        "source": main["source"],
        "looked": _moment(main["node"]["started"]),
        "run": about.get("id"),
        "facts": _facts(document, verification, about, workloads or {}),
        "stages": _stages(about),
        "audit": document is not None,
        **(_audit(document) if document else {}),
        "verification": _verification(verification) if verification else None,
        "workloads": workloads,
    }


def _audit(document: Mapping[str, Any]) -> dict[str, Any]:
    results = [_result(result) for result in document["results"]]
    return {
        "document": document,
        "summary": document["summary"],
        "compliant": not document["summary"]["unaccepted"],
        "states": STATES,
        "counts": Counter(result["state"] for result in results),
        "sections": _sections(results),
        "results": results,
        "by_state": {name: [result for result in results if result["state"] == name] for name in STATES},
    }


def _verification(document: Mapping[str, Any]) -> dict[str, Any]:
    """The checks, those that fail first."""
    checks = [{**result, "state": state(result)} for result in document["results"]]
    broken = [check for check in checks if check["state"] in ("finding", "error")]
    rest = sum(check["state"] == "not_applicable" for check in checks)
    if broken:
        says = f"{len(broken)} of {len(checks)} checks fail{'s' if len(broken) == 1 else ''}."
    else:
        does = "does" if rest == 1 else "do"
        says = f"{len(checks) - rest} checks hold{f', {rest} {does} not apply' if rest else ''}."
    return {
        "states": CHECK_STATES,
        "says": says,
        "broken": broken,
        "checks": broken + [check for check in checks if check not in broken],
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


def _facts(
    document: Mapping[str, Any] | None,
    verification: Mapping[str, Any] | None,
    about: Mapping[str, Any],
    workloads: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """Label and value pairs of the head."""
    main: Mapping[str, Any] = document or verification or {}
    bake = about.get("bake") or {}
    image, base, node = bake.get("image") or {}, bake.get("base") or {}, main.get("node") or {}
    source = (main or workloads["main"])["source"]
    pairs = [
        ("Image", image.get("id")),
        ("Region", bake.get("region")),
        ("Base", " · ".join(filter(None, (base.get("id"), base.get("name"))))),
        ("Node", node.get("name")),
        ("System", node.get("os")),
        ("Kernel", node.get("kernel")),
        ("Benchmark", main.get("benchmark")),
        ("Level", main.get("level")),
        ("Profile", main.get("profile")),
        ("Audited", _moment(document["node"]["started"]) if document else None),
        ("Verified", _moment(verification["node"]["started"]) if verification else None),
        ("Cluster", workloads.get("cluster")),
        ("Kubernetes", workloads.get("kubernetes")),
        ("By", f"{source['name']} {source['version']}"),
        ("Run", about.get("id")),
    ]
    return [(name, str(value)) for name, value in pairs if value]


def _cluster(node: Mapping[str, Any] | None, workloads: Mapping[str, Any] | None) -> str:
    """The cluster's name, where a report is of nothing else."""
    return "" if node else str((workloads or {}).get("cluster") or "")


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
