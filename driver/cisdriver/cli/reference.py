"""docs/cli.md, made of the commands themselves: ``python -m cisdriver.cli.reference > docs/cli.md``."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cisdriver.cli import cli
from cisdriver.errors import EXIT_CODES

_WIDTH = 100

_HEAD = """# The command line

Made of `--help` by `python -m cisdriver.cli.reference > docs/cli.md`; a test holds it to the code.

## Settings

Each option is also a variable and a key of `cisdriver.yml`: `--kubernetes-version 1.33`,
`CISDRIVER_KUBERNETES_VERSION=1.33`, `kubernetes_version: 1.33`. Flags win over variables, variables over the file.
Lists are repeated as flags, separated by commas in variables, and lists in the file; `--value rule=value` and
`--tag key=value` are mappings there (`values:`, `tag:`). All of it is checked before anything starts.

## Shell completion

`eval "$(cisdriver completion bash)"` in `~/.bashrc`, the same with `zsh` in `~/.zshrc`, or
`cisdriver completion fish > ~/.config/fish/completions/cisdriver.fish`. Verbs, options, rule ids, slugs, topics and
levels complete.

## Exit codes

| code | meaning |
| ---: | --- |
"""


def commands(command: click.Command, path: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """``(path, help text)`` of a command and of everything below it."""
    context = click.Context(command, info_name=path.split()[-1], parent=parent, terminal_width=_WIDTH)
    context.help_option_names = ["-h", "--help"]
    yield path, context.get_help()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from commands(below, f"{path} {name}", context)


def reference() -> str:
    codes = "".join(f"| {code} | {text} |\n" for code, text in EXIT_CODES.items())
    parts = [_HEAD + codes]
    for path, text in commands(cli, "cisdriver"):
        parts.append(f"## {path}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
