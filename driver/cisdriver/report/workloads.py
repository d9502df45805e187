"""What a report shows of the workloads of a cluster: a row per workload, a column per node group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cisdriver.report import view


def section(
    documents: Mapping[str, Mapping[str, Any]], benches: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Everything the templates need; None where no workload ran.

    ``documents`` and ``benches`` are the results documents of the workloads and of kube-bench by node group,
    ``about`` is workloads-result.json. The baseline stands first, so that the hardened groups are read against it.
    """
    if not documents:
        return None
    baseline = about.get("baseline")
    groups = [_group(name, documents[name], name == baseline) for name in _order(documents, baseline)]
    hardened = [group for group in groups if not group["baseline"]]
    broken = sum(group["broken"] for group in hardened)
    proven = sum(group["proven"] for group in hardened)
    return {
        "states": view.CHECK_STATES,
        "cluster": about.get("cluster"),
        "kubernetes": about.get("kubernetes"),
        "baseline": baseline,
        "main": documents[groups[0]["name"]],
        "groups": groups,
        "rows": _rows(documents, groups),
        "broken": broken,
        "proven": proven,
        "says": _says(broken, proven, hardened),
        "bench": _bench(benches, groups),
    }


def _order(documents: Mapping[str, Any], baseline: str | None) -> list[str]:
    return sorted(documents, key=lambda name: (name != baseline, name))


def _group(name: str, document: Mapping[str, Any], baseline: bool) -> dict[str, Any]:
    counts = document["summary"]["counts"]
    return {
        "name": name,
        "baseline": baseline,
        "os": document["node"]["os"],
        "kernel": document["node"]["kernel"],
        "broken": counts["fail"] + counts["error"],
        "proven": counts["pass"],
    }


def _rows(documents: Mapping[str, Mapping[str, Any]], groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of the documents; a cell is a result with its state, None where a group lacks it."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group, document in documents.items():
        for result in document["results"]:
            cell = {**result, "state": view.state(result), "group": group}
            found.setdefault(result["id"], {})[group] = cell
    return [_row(cells, groups) for cells in found.values()]


def _row(cells: Mapping[str, dict[str, Any]], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """It is ``only_hardened`` when the baseline passes what a hardened group fails: then hardening did it."""
    shown = [cells.get(group["name"]) for group in groups]
    hardened = {cells[group["name"]]["state"] for group in groups if not group["baseline"] and group["name"] in cells}
    plain = {cells[group["name"]]["state"] for group in groups if group["baseline"] and group["name"] in cells}
    one = next(iter(cells.values()))
    return {
        "id": one["id"],
        "title": one["title"],
        "why": one.get("why"),
        "cells": shown,
        "told": [cell for cell in shown if cell and cell["reason"]],
        "broken": bool(hardened & {"finding", "error"}),
        "only_hardened": "finding" in hardened and plain == {"pass"},
    }


def _says(broken: int, proven: int, hardened: list[dict[str, Any]]) -> str:
    where = f"{len(hardened)} hardened node group{'' if len(hardened) == 1 else 's'}"
    if broken:
        return f"{broken} workload{' fails' if broken == 1 else 's fail'} on {where}."
    if not proven:
        return f"No workload has proven anything on {where}."
    return f"Every workload that could be tried runs on {where}."


def _bench(benches: Mapping[str, Mapping[str, Any]], groups: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The same table of kube-bench's findings."""
    shown = [group for group in groups if group["name"] in benches]
    if not shown:
        return None
    first = benches[shown[0]["name"]]
    return {
        "states": view.STATES,
        "benchmark": first["benchmark"],
        "version": first["source"]["version"],
        "groups": shown,
        "rows": _rows({group["name"]: benches[group["name"]] for group in shown}, shown),
        "findings": sum(benches[group["name"]]["summary"]["unaccepted"] for group in shown),
    }
