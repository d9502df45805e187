"""cisdriver completion."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    It completes verbs, options, rule ids and levels.

    \b
    Example:
      eval "$(cisdriver completion bash)"
      cisdriver completion fish > ~/.config/fish/completions/cisdriver.fish
    """
    from click.shell_completion import get_completion_class

    from cisdriver.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"Click knows no completion for {shell}.")
    complete = kind(cli, {}, "cisdriver", "_CISDRIVER_COMPLETE")
    # Not source(): for bash it runs bash to learn its version, and this may be another machine's.
    click.echo(complete.source_template % complete.source_vars())
