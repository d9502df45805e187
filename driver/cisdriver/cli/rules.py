"""cisdriver rules."""

from __future__ import annotations

from typing import Any

import click

from cisdriver.cli import options

_VERDICTS = ("apply", "adapt", "except", "manual", "no rule yet")


@click.group("rules")
def command() -> None:
    """Show what each benchmark asks, and what is done about it.

    \b
    Example:
      cisdriver rules list --verdict except
      cisdriver rules show 3.2.1
    """


@command.command("list")
@click.option("--benchmark", type=options.Name("benchmarks"), help="Benchmark.  [default: al2023-1.0.0]")
@click.option("--level", type=click.Choice(["1", "2"]), help="Rules of this level alone.")
@click.option("--profile", type=click.Choice(["eks", "server"]), help="Verdicts for this profile.  [default: eks]")
@click.option("--section", help="Section by number: 3, or 3.2.")
@click.option("--verdict", type=click.Choice(_VERDICTS), help="Only this verdict.")
@click.option("--kind", type=options.Name("kinds"), help="Only rules of this kind of setting.")
@click.option("--search", metavar="TEXT", help="Only where id, title, rule or reason holds this text.")
@options.as_json
def list_command(as_json: bool, benchmark: str | None, profile: str | None, **filters: Any) -> None:
    """List recommendations with their rules.

    \b
    Example:
      cisdriver rules list --section 3 --level 1
      cisdriver rules list --benchmark al2-3.0.0 --json
    """
    import json

    from cisdriver import names

    rows = names.rows(benchmark or names.DEFAULT_BENCHMARK, profile or "eks", filters)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(names.table(rows))


@command.command("show")
@click.argument("name", type=options.Name("ids", "rules"))
@click.option("--benchmark", type=options.Name("benchmarks"), help="Benchmark an id is of.  [default: al2023-1.0.0]")
@options.as_json
def show_command(name: str, benchmark: str | None, as_json: bool) -> None:
    """Show one rule: what is required, what is written where, and what EKS does to it.

    \b
    Example:
      cisdriver rules show 3.2.1
      cisdriver rules show ip_forwarding_disabled
    """
    import json

    from cisdriver import names

    shown = names.show(name, benchmark or names.DEFAULT_BENCHMARK)
    click.echo(json.dumps(shown, indent=2) if as_json else names.page(shown))
