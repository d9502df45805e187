"""cisdriver destroy."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("destroy")
@options.account
@options.cluster
@click.option("--images", is_flag=True, help="Delete the images of its node groups that cisdriver baked, too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.running
def command(as_json: bool, yes: bool, images: bool, **flags: Any) -> None:
    """Delete a cluster and all that was deployed with it.

    Prints what there is, and asks. What cisdriver did not make is refused. With --sandbox, the sandbox that deploy,
    verify and run keep is ended afterwards.

    \b
    Example:
      cisdriver destroy --cluster prod
      cisdriver destroy --sandbox --yes
    """
    settings = options.settings(flags)
    from cisdriver import destroy, screens

    with screens.ended(as_json, settings.run_dir):
        destroy.destroy(settings, as_json, yes, images)
