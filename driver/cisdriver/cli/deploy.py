"""cisdriver deploy."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("deploy")
@options.account
@click.option("--dry-run", is_flag=True, help="Change nothing; print the change set and what it costs per hour.")
@click.option(
    "--image",
    multiple=True,
    metavar="[GROUP=]AMI",
    help="Image, and the name of its node group; by default that of the newest bake. Repeatable.",
)
@options.deploying
@click.option("--kubernetes-version", metavar="VERSION", help="Version of the cluster, by default that of the images.")
@options.tagging
@options.running
def command(as_json: bool, dry_run: bool, **flags: Any) -> None:
    """Deploy a cluster with a managed node group per hardened image.

    Network, cluster, add-ons and each node group are CloudFormation stacks. A cluster that is there already is
    brought up to date: a new image replaces the nodes of its group one after the other, and the old one comes back
    should they not join. Deploying the same again changes nothing.

    \b
    Example:
      cisdriver deploy --dry-run
      cisdriver deploy --cluster prod --image ami-0123456789abcdef0 --nat three
    """
    settings = options.settings(flags)
    from cisdriver import deploy, screens

    with screens.ended(as_json, settings.run_dir):
        deploy.deploy(settings, as_json, dry_run)
