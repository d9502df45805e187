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
