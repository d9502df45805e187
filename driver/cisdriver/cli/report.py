"""cisdriver report."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("report")
@click.argument("run", required=False)
@options.where
@options.as_json
def command(run: str | None, as_json: bool, **flags: Any) -> None:
    """Write the reports of a run again; by default the newest.

    \b
    Example:
      cisdriver report
      cisdriver report 20260102T030405Z-a1b2c3
    """
    settings = options.settings(flags)
    import json

    from cisdriver import report, rundir
    from cisdriver.errors import UsageError

    found = rundir.find(settings.run_dir, run)
    if not any(found.results(stage) for stage in ("audit", "verify", "workloads")):
        raise UsageError(
            f"run {found.id} has no audit and no verification, so there is nothing to report",
            "`cisdriver audit` and `cisdriver verify` make them.",
        )
    paths = [str(found.path / path) for path in report.write(found, found.read("run") or {})]
    click.echo(json.dumps({"run": found.id, "reports": paths}) if as_json else "\n".join(paths))
