"""Reports: the one results shape in, Markdown and HTML out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cisdriver.report import html, markdown, view, workloads
from cisdriver.rundir import RunDir


def write(run: RunDir, about: Mapping[str, Any]) -> list[str]:
    """Write the reports of a run: one Markdown and one HTML file per node, of its audit, its verification, or both.

    The workloads of a cluster, if there were any, are part of each, or make one of their own.

    ``about`` is run.json, or as much of it as is known while the run lasts. Returns the files' names.
    """
    audits, verifications = run.results("audit"), run.results("verify")
    cluster = workloads.section(run.results("workloads"), run.results("kube-bench"), run.read("workloads-result") or {})
    nodes = sorted({*audits, *verifications}) or ([""] if cluster else [])
    names: list[str] = []
    for node in nodes:
        stem = "report" if len(nodes) == 1 else f"report-{node}"
        shown = view.view(audits.get(node), {"id": run.id, **about}, verifications.get(node), cluster)
        for suffix, text in (("md", markdown.render(shown)), ("html", html.render(shown))):
            Path(run.path / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
            names.append(f"{stem}.{suffix}")
    return names
