"""cisdriver audit."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("audit")
@options.nodes
@options.selection
@click.option("--verify-packages", is_flag=True, default=None, help="Compare packaged files, too: a minute or more.")
@options.running
def command(as_json: bool, **flags: Any) -> None:
    """Audit machines against a benchmark, and change nothing.

    Every rule is judged by what the machine really does, and each verdict carries its evidence. The report is written
    as Markdown and as one HTML file.

    \b
    Example:
      cisdriver audit --host ec2-user@10.0.0.5 --level 2
    """
    settings = options.settings(flags)
    from cisdriver import nodes, screens

    with screens.ended(as_json, settings.run_dir):
        nodes.audit(settings, as_json)
