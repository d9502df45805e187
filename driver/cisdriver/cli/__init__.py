"""The command line. Verbs are imported when they are asked for: help must come at once."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from cisdriver.errors import CisdriverError

#: The verbs, in the order of a first day; each is the command ``command`` of the module of its name.
VERBS = (
    "run",
    "bake",
    "deploy",
    "verify",
    "destroy",
    "harden",
    "audit",
    "rules",
    "report",
    "doctor",
    "completion",
)


class Verbs(click.Group):
    """Finds a verb's module by its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as Click calls it
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as Click calls it
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"cisdriver.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{guess}")
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked:
        from cisdriver import collection

        click.echo(f"cisdriver {collection.version()}")
        ctx.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def cli() -> None:
    """Harden Amazon EKS nodes to the CIS Benchmarks, and prove it.

    \b
    Example:
      cisdriver bake --level 1 --sandbox
      cisdriver run --level 1 --sandbox

    Settings come from flags, then from CISDRIVER_* variables, then from cisdriver.yml; all three use the
    same names (--kubernetes-version, CISDRIVER_KUBERNETES_VERSION, kubernetes_version).

    \b
    Exit codes:
      0 done and compliant           4 cluster not deployed, or not destroyed
      1 findings beyond accepted     5 an audit could not look
      2 usage, settings, missing     6 node or workload failed
      3 bake or hardening failed     130 interrupted
    """


def main() -> None:
    """Run a command and exit with its code. Bad input never ends in a traceback."""
    try:
        cli.main(prog_name="cisdriver", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except CisdriverError as error:
        fail(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def fail(error: CisdriverError) -> None:
    """Print what went wrong and what to do, and exit."""
    click.echo(f"{click.style('Error:', fg='red')} {error.message}", err=True)
    if error.remedy:
        click.echo(error.remedy, err=True)
    sys.exit(error.exit_code)
