"""cisdriver bake."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options


@click.command("bake")
@click.option("--sandbox", is_flag=True, default=None, help="Bake against an embedded AWS on this machine.")
@options.selection
@click.option("--region", help="AWS region, by default that of your AWS configuration.")
@click.option(
    "--base",
    metavar="BASE",
    help="Start from ssm (what EKS recommends), an AMI id, or a name with * and --base-owner.  [default: ssm]",
)
@click.option("--base-owner", metavar="OWNER", help="Owner of a base given by name: amazon, self, or an account id.")
@click.option("--kubernetes-version", metavar="VERSION", help="Kubernetes version of the base that ssm names.")
@click.option("--architecture", type=click.Choice(["x86_64", "arm64"]), help="Architecture of the base.")
@click.option("--name", help="Name of the new AMI.")
@click.option("--instance-type", metavar="TYPE", help="Instance to build on.")
@click.option("--subnet-id", metavar="ID", help="Where to build, by default in the default VPC.")
@click.option("--session-manager", is_flag=True, default=None, help="SSH through Session Manager, no open port.")
@click.option(
    "--ssh-source-cidr",
    multiple=True,
    metavar="CIDR",
    help="Network from which port 22 is reached, by default the address AWS sees this machine under. Repeatable.",
)
@click.option(
    "--partitions/--no-partitions",
    default=None,
    help="Give /var, /var/log, /var/log/audit, /var/tmp, /home a second volume.  [default: at level 2]",
)
@click.option("--partitions-size", type=int, metavar="GIB", help="Size of the second volume.  [default: 50]")
@click.option("--encrypt/--no-encrypt", default=None, help="Encrypt the volumes.  [default: encrypt]")
@click.option("--kms-key-id", metavar="KEY", help="Key to encrypt with, by default the account's.")
@click.option("--publish-parameter", metavar="NAME", help="SSM parameter that is to hold the new AMI's id.")
@click.option("--keep-failed", is_flag=True, default=None, help="Register the image though its audit has findings.")
@click.option("--tag", multiple=True, metavar="KEY=VALUE", help="Tag for all that is made. Repeatable.")
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
