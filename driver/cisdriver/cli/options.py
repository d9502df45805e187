"""Options that several verbs share, as decorators, and the settings made of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from cisdriver.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])


class Name(click.ParamType):  # type: ignore[type-arg] # generic in newer Clicks alone
    """A name of the catalogue, which the shell can complete."""

    name = "name"

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - as Click calls it
        incomplete: str,
    ) -> list[CompletionItem]:
        from cisdriver import names

        found = names.known(self._kinds, ctx.params.get("benchmark"))
        return [CompletionItem(name, help=text) for name, text in found.items() if name.startswith(incomplete)]


def group(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator, shown in the order given."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_ids = Name("ids", "rules", "topics", "sections")
_own = Name("ids", "rules")
_tags = Name("ids", "rules", "topics", "sections", "levels")

selection: Callable[[Any], Any] = group(
    click.option("--level", type=click.Choice(["1", "2"]), help="CIS level; 2 contains 1.  [default: 1]"),
    click.option("--profile", type=click.Choice(["eks", "server"]), help="What the machine is for.  [default: eks]"),
    click.option("--benchmark", type=Name("benchmarks"), help="Benchmark, by default the one for the node's system."),
    click.option("--only", multiple=True, type=_ids, help="Nothing but this id, rule, topic or section. Repeatable."),
    click.option("--skip", multiple=True, type=_ids, help="All but this id, rule, topic or section. Repeatable."),
    click.option("--strict", multiple=True, type=_own, help="This id or rule as on a server, without EKS's exception."),
    click.option("--value", "values", multiple=True, metavar="RULE=VALUE", help="Your value for a rule. Repeatable."),
)

tags: Callable[[Any], Any] = group(
    click.option("--tags", multiple=True, type=_tags, help="Run these alone; leave the rest as it is. Repeatable."),
    click.option("--skip-tags", multiple=True, type=_tags, help="Leave these as they are. Repeatable."),
)

nodes: Callable[[Any], Any] = group(
    click.option("--host", multiple=True, metavar="[USER@]HOST[:PORT]", help="A node to reach over SSH. Repeatable."),
    click.option("-i", "--inventory", type=click.Path(path_type=Path), help="Ansible inventory, instead of --host."),
    click.option("--limit", metavar="PATTERN", help="Only these hosts of the inventory."),
    click.option("--private-key", type=click.Path(path_type=Path), help="SSH key."),
)

where: Callable[[Any], Any] = group(
    click.option("--run-dir", type=click.Path(path_type=Path), help="Where runs are kept.  [default: .cisdriver]"),
    click.option(
        "--config", type=click.Path(path_type=Path), help="Settings file.  [default: cisdriver.yml, if there]"
    ),
)

as_json: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")

account: Callable[[Any], Any] = group(
    click.option("--sandbox", is_flag=True, default=None, help="Work in an embedded AWS on this machine."),
    click.option("--region", help="AWS region, by default that of your AWS configuration."),
)

baking: Callable[[Any], Any] = group(
    click.option(
        "--base",
        metavar="BASE",
        help="Start from ssm (what EKS recommends), an AMI id, or a name with * and --base-owner.  [default: ssm]",
    ),
    click.option(
        "--base-owner", metavar="OWNER", help="Owner of a base given by name: amazon, self, or an account id."
    ),
    click.option("--kubernetes-version", metavar="VERSION", help="Kubernetes version of the base that ssm names."),
    click.option("--architecture", type=click.Choice(["x86_64", "arm64"]), help="Architecture of the base."),
    click.option("--name", help="Name of the new AMI."),
    click.option("--instance-type", metavar="TYPE", help="Instance to build on."),
    click.option("--subnet-id", metavar="ID", help="Where to build, by default in the default VPC."),
    click.option("--session-manager", is_flag=True, default=None, help="SSH through Session Manager, no open port."),
    click.option(
        "--ssh-source-cidr",
        multiple=True,
        metavar="CIDR",
        help="Network from which port 22 is reached, by default the address AWS sees this machine under. Repeatable.",
    ),
    click.option(
        "--partitions/--no-partitions",
        default=None,
        help="Give /var, /var/log, /var/log/audit, /var/tmp, /home a second volume.  [default: at level 2]",
    ),
    click.option("--partitions-size", type=int, metavar="GIB", help="Size of the second volume.  [default: 50]"),
    click.option("--encrypt/--no-encrypt", default=None, help="Encrypt the volumes.  [default: encrypt]"),
    click.option("--kms-key-id", metavar="KEY", help="Key to encrypt with, by default the account's."),
    click.option("--publish-parameter", metavar="NAME", help="SSM parameter that is to hold the new AMI's id."),
    click.option("--keep-failed", is_flag=True, default=None, help="Register the image though its audit has findings."),
)

tagging: Callable[[Any], Any] = click.option(
    "--tag", multiple=True, metavar="KEY=VALUE", help="Tag for all that is made. Repeatable."
)

cluster: Callable[[Any], Any] = click.option("--cluster", metavar="NAME", help="The cluster.  [default: cisdriver]")

baseline: Callable[[Any], Any] = click.option(
    "--baseline", is_flag=True, default=None, help="Compare with an unhardened node group of EKS's recommended image."
)

workloads: Callable[[Any], Any] = group(
    click.option(
        "--workload-image", metavar="IMAGE", help="busybox, from a registry that nodes of a closed VPC reach."
    ),
    click.option("--kube-bench-image", metavar="IMAGE", help="kube-bench, likewise."),
)

deploying: Callable[[Any], Any] = group(
    cluster,
    baseline,
    click.option("--existing", is_flag=True, default=None, help="The cluster exists; add node groups to it alone."),
    click.option("--vpc-id", metavar="ID", help="A network that exists, instead of one of its own."),
    click.option("--subnet-ids", multiple=True, metavar="ID", help="Private subnets of that VPC. Repeatable."),
    click.option(
        "--nat",
        type=click.Choice(["one", "three", "none"]),
        help="NAT gateways of the cluster's own network; none closes it: interface endpoints, no Internet.",
    ),
    click.option(
        "--public-access-cidr",
        multiple=True,
        metavar="CIDR",
        help="Network that reaches the API server from outside the VPC, by default none. Repeatable.",
    ),
    click.option("--admin", multiple=True, metavar="ARN", help="Role or user to administer the cluster. Repeatable."),
    click.option("--node-type", multiple=True, metavar="TYPE", help="Instance type for the nodes. Repeatable."),
    click.option("--node-count", type=int, metavar="COUNT", help="Nodes of each group."),
)

running: Callable[[Any], Any] = group(
    where,
    as_json,
    click.option(
        "-v", "--verbose", count=True, default=None, help="Show tasks and changed rules; more of it for Ansible's log."
    ),
)


def settings(flags: dict[str, Any]) -> Settings:
    """Settings of flags, environment and file. Raises UsageError."""
    from cisdriver.settings import load

    config = flags.pop("config", None)
    return load(flags, os.environ, config)
