"""cisdriver run."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("run")
@options.account
@click.option("--fresh", is_flag=True, help="Start anew, though a run of these settings is unfinished.")
@options.selection
@options.baking
@options.deploying
@options.workloads
@options.tagging
@options.running
def command(as_json: bool, fresh: bool, **flags: Any) -> None:
    """Bake, deploy and verify in a row; go on where it stopped.

    A run that was stopped, killed or failed is continued by the same command with the same settings: stages that are
    done are not done again, and what a half-done bake has left is deleted first.

    The last stage has to reach the cluster's API server, which by default answers inside its VPC alone: add
    --public-access-cidr, or --vpc-id of a VPC that this machine reaches.

    With --sandbox the account is kept beside the runs, so that other commands find the cluster; it ends by `cisdriver
    destroy --sandbox`, or an hour after it was last asked.

    \b
    Example:
      cisdriver run --level 1 --sandbox
      cisdriver run --level 2 --region eu-central-1 --cluster prod --public-access-cidr 203.0.113.7
    """
    settings = options.settings(flags)
    from cisdriver import run, screens

    with screens.ended(as_json, settings.run_dir):
        run.run(settings, as_json, fresh)
