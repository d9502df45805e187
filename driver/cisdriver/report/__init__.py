"""Reports: the one results shape in, Markdown and HTML out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cisdriver.report import html, markdown, view
from cisdriver.rundir import RunDir


def write(run: RunDir, about: Mapping[str, Any]) -> list[str]:
    """Write the reports of a run's audits: one Markdown and one HTML file per node. Returns their names.

    ``about`` is run.json, or as much of it as is known while the run lasts.
    """
    documents = run.documents()
    names: list[str] = []
    for document in documents:
        stem = "report" if len(documents) == 1 else f"report-{document['node']['name']}"
        shown = view.view(document, {"id": run.id, **about})
        for suffix, text in (("md", markdown.render(shown)), ("html", html.render(shown))):
            Path(run.path / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
            names.append(f"{stem}.{suffix}")
    return names
