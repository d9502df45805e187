"""cisdriver harden."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("harden")
@options.nodes
@click.option("--check", is_flag=True, help="Change nothing; say what would change.")
@click.option("--diff", is_flag=True, help="Show how files change.")
@options.selection
@options.tags
@options.running
def command(check: bool, diff: bool, as_json: bool, **flags: Any) -> None:
    """Harden machines that run.

    \b
    Example:
      cisdriver harden --host ec2-user@10.0.0.5 --level 1 --check --diff
      cisdriver harden -i inventory.yml --tags 3.2.2
    """
    settings = options.settings(flags)
    from cisdriver import nodes, screens

    with screens.ended(as_json, settings.run_dir):
        nodes.harden(settings, check, diff, as_json)
