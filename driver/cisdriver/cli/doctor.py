"""cisdriver doctor."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("doctor")
@click.option("--sandbox", is_flag=True, default=None, help="What --sandbox needs, instead of an AWS account.")
@click.option("--region", help="AWS region, by default that of your AWS configuration.")
@options.where
@options.as_json
def command(as_json: bool, **flags: Any) -> None:
    """Check for what is missing, and say how to get it.

    \b
    Example:
      cisdriver doctor
      cisdriver doctor --sandbox
    """
    settings = options.settings(flags)
    import json

    from cisdriver import doctor
    from cisdriver.errors import UsageError

    checks = doctor.checks(settings)
    if as_json:
        click.echo(json.dumps([check.as_dict() for check in checks], indent=2))
    else:
        doctor.show(checks)
    missing = [check.name for check in checks if check.status == "missing" and check.needed]
    if missing:
        raise UsageError(f"missing: {', '.join(missing)}", "The table tells how to get each.")
