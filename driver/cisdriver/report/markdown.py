"""The report as Markdown, for pull requests and tickets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~!])")


def text(value: Any) -> str:
    """Any text as one line that Markdown and the HTML within it take literally."""
    line = " ".join(str(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def render(view: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Not HTML: every value of unknown origin goes through the filter `text`, which escapes for Markdown.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "" if value is None else value,
    )
    environment.filters["text"] = text
    return environment.get_template("report.md.j2").render(view)
