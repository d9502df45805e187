"""The checks, for those who have nox: `nox -s lint`, `nox -s unit`. The Makefile needs no nox."""

import nox

nox.options.sessions = ["lint", "unit"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint and types."""
    session.install("-c", "constraints.txt", "-e", ".[sandbox,dev]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("ansible-lint", "--offline")


@nox.session(python=["3.11", "3.12", "3.13"])
def unit(session: nox.Session) -> None:
    """Tests that need no machine."""
    session.install("-c", "constraints.txt", "-e", ".[sandbox,dev]")
    session.run("pytest", "-q", "tests/unit", "tests/kinds", "-m", "not node")
