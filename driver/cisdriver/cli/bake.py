"""cisdriver bake."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("bake")
@options.account
@options.selection
@options.baking
@options.tagging
@options.running
def command(as_json: bool, **flags: Any) -> None:
    """Bake a hardened image and register it as an AMI.

    Packer starts an instance of the base image; it is hardened, verified, rebooted, verified again, audited and
    cleaned. An image whose audit has findings beyond the accepted exceptions is not registered, and one whose node
    would not serve never is. Whatever happens, nothing is left running.

    \b
    Example:
      cisdriver bake --level 1 --sandbox
      cisdriver bake --level 2 --region eu-central-1 --kubernetes-version 1.33 --session-manager
    """
    settings = options.settings(flags)
    from cisdriver import bake, screens

    with screens.ended(as_json, settings.run_dir):
        bake.bake(settings, as_json)
