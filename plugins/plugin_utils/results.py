# Copyright the cisdriver authors. Apache-2.0.
"""The one results shape: what an audit, a verification, and later any scanner, says about a node.

``schemas/results.json`` is its JSON schema, VERSION its version. Runs on the controller,
imports nothing of Ansible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

VERSION = "1"
#: ``no_rule_yet`` is no verdict of an audit: the id stands in the benchmark, we have no rule for it.
STATUSES = ("pass", "fail", "not_applicable", "manual", "error", "no_rule_yet")
_COUNTED = ("pass", "fail", "error", "no_rule_yet")


def document(
    selection: catalogue.Selection,
    findings: Mapping[str, Mapping[str, Any]],
    node: Mapping[str, Any],
    source: Mapping[str, str],
) -> dict[str, Any]:
    """Results of one node, one per id of the selection, with scores.

    ``findings`` maps a slug to ``{status, reason, evidence, instead}``, ``node`` is
    ``{name, os, kernel, started, seconds}``, ``source`` is ``{name, version}``. Raises
    CatalogueError when a rule of the selection has no finding.
    """
    results = [_result(entry, selection, findings) for entry in catalogue.load().select(selection)]
    return {
        "version": VERSION,
        "source": dict(source),
        "benchmark": selection.benchmark,
        "level": selection.level,
        "profile": selection.profile,
        "node": dict(node),
        "summary": summary(results),
        "results": results,
    }


def verification(
    checks: Iterable[Mapping[str, Any]], node: Mapping[str, Any], source: Mapping[str, str]
) -> dict[str, Any]:
    """Results of one node's checks, ``{name, title, why, status, reason, evidence}`` each, in their order.

    No benchmark asks for them: ``benchmark``, ``level``, ``profile``, and of a result ``level``, ``assessment``,
    ``rule`` and ``accepted`` are None. ``node`` and ``source`` are as for ``document``.
    """
    results = [_checked(check) for check in checks]
    return {
        "version": VERSION,
        "source": dict(source),
        "benchmark": None,
        "level": None,
        "profile": None,
        "node": dict(node),
        "summary": summary(results),
        "results": results,
    }


def _checked(check: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: check[key] for key in ("title", "why", "status", "reason", "evidence")}
    return {"id": check["name"], **found, "level": None, "assessment": None, "rule": None, "accepted": None}


def _result(
    entry: catalogue.Entry, selection: catalogue.Selection, findings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    asked = entry.recommendation
    result: dict[str, Any] = {
        "id": asked.id,
        "title": asked.title,
        "level": asked.level,
        "assessment": asked.assessment,
        "rule": entry.rule.slug if entry.rule else None,
        "accepted": None,
    }
    if entry.rule is None:
        return {**result, "status": "no_rule_yet", "reason": "no rule is written for this id yet", "evidence": []}
    finding = findings.get(entry.rule.slug)
    if finding is None:
        raise catalogue.CatalogueError(f"rule {entry.rule.slug} ({asked.id}): the audit has no finding for it")
    result.update({key: finding[key] for key in ("status", "reason", "evidence")})
    if result["status"] == "fail":
        result["accepted"] = _accepted(entry.rule, selection.profile_of(entry.rule), finding.get("instead"))
    return result


def _accepted(rule: catalogue.Rule, profile: str, instead: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Why a fail is accepted. An exception counts only while what must hold instead does hold."""
    if rule.verdict(profile) != "except" and instead is None:
        return None
    holds = instead is None or instead["status"] in ("pass", "not_applicable")
    return {
        "by": "eks",
        "why": rule.eks["why"],
        "holds": holds,
        "instead": "" if holds else (instead or {}).get("reason", ""),
        "evidence": list(instead["evidence"]) if instead else [],
    }


def is_accepted(result: Mapping[str, Any]) -> bool:
    return bool(result["accepted"] and result["accepted"]["holds"])


def summary(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts per status, both scores, exceptions, and what is left to answer for.

    A score is a share of 100 with one decimal, or None when nothing counts. The denominator holds
    passed, failed, errors and ids without a rule; not applicable and manual ids stand outside, as CIS counts.
    ``unaccepted`` counts fails that nothing accepts, and errors; it decides registration and exit code.
    """
    results = list(results)
    counts = Counter(result["status"] for result in results)
    accepted = [result for result in results if result["status"] == "fail" and is_accepted(result)]
    total = sum(counts[status] for status in _COUNTED)
    return {
        "total": len(results),
        "counts": {status: counts[status] for status in STATUSES},
        "counted": total,
        "score": _share(counts["pass"], total),
        "score_accepted": _share(counts["pass"] + len(accepted), total),
        "exceptions": [result["id"] for result in accepted],
        "unaccepted": counts["fail"] - len(accepted) + counts["error"],
    }


def _share(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None
