"""Machines for scenarios: a tree of files with the answers of its programs, and a module run without Ansible."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core as apply_core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime as apply_runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core as probe_core

Output = probe_core.Output


def tree(root: Path, files: Mapping[str, str | None]) -> Path:
    """Files below ``root``; a text that starts with ``->`` makes a link, None a directory."""
    for path, text in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            target.mkdir(exist_ok=True)
        elif text.startswith("->"):
            target.symlink_to(text[2:].strip())
        else:
            target.write_text(text)
    return root


def machine(
    root: Path, files: Mapping[str, str | None] | None = None, answers: Mapping[str, str | Output] | None = None
) -> probe_core.Node:
    """A node under audit. A program that ``answers`` does not know is not installed."""
    tree(root, files or {})

    def run(argv: Sequence[str]) -> Output:
        answer = (answers or {}).get(" ".join(argv), Output(127, "", f"{argv[0]}: not found"))
        return Output(0, answer, "") if isinstance(answer, str) else answer

    return probe_core.Node(str(root), run)


class Refused(Exception):  # noqa: N818
    """The module failed; its message."""


class Done(Exception):  # noqa: N818
    """The module answered."""


class Module:
    """What the batch modules use of AnsibleModule. ``program`` answers commands with ``(rc, out, err)``."""

    def __init__(
        self, params: dict[str, Any], check: bool, program: Callable[[list[str]], tuple[int, str, str]]
    ) -> None:
        self.params = params
        self.check_mode = check
        self.program = program
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def run_command(self, argv: list[str], **_more: Any) -> tuple[int, str, str]:
        return self.program(argv)

    def selinux_enabled(self) -> bool:
        return False

    def fail_json(self, msg: str, **_more: Any) -> None:
        raise Refused(msg)

    def exit_json(self, **answer: Any) -> None:
        raise Done(answer)


def rule(slug: str, id_: str, want: Any = None, state: str = "present") -> dict[str, Any]:
    return {"rule": slug, "id": id_, "state": state, "want": want}


_MEMORIES = tempfile.TemporaryDirectory(prefix="cisdriver-memory-")
_memory_numbers = itertools.count()


def _nothing_remembered() -> Path:
    return Path(_MEMORIES.name) / str(next(_memory_numbers))


def _absent(_argv: list[str]) -> tuple[int, str, str]:
    raise FileNotFoundError(2, "No such file or directory")


def applied(
    apply: Callable[..., None],
    rules: list[dict[str, Any]],
    *arguments: Any,
    check: bool = False,
    program: Callable[[list[str]], tuple[int, str, str]] = _absent,
    memory: Path | None = None,
) -> dict[str, Any]:
    """One run of a module: its answer, and ``warnings``. Raises Refused. ``memory`` is where it remembers."""
    module = Module({"rules": rules, "memory": str(memory or _nothing_remembered())}, check, program)
    return _answer(module, apply, arguments)


def _answer(module: Module, apply: Callable[..., None], arguments: Sequence[Any]) -> dict[str, Any]:
    apply_runtime.OWED = f"{module.params['memory']}.owed"
    batch = apply_core.Batch(module, "kind")  # type: ignore[arg-type] # stands for Ansible\'s
    apply(batch, *arguments)
    try:
        batch.exit()
    except Done as done:
        answer: dict[str, Any] = done.args[0]
        return {**answer, "warnings": module.warnings}
    raise AssertionError("a module that neither fails nor answers")


def settles(apply: Callable[..., None], rules: list[dict[str, Any]], *arguments: Any, **more: Any) -> dict[str, Any]:
    """Check mode, then a run that does what check mode said, then one that changes nothing. The run's answer."""
    return _settles(apply, rules, *arguments, **{"memory": _nothing_remembered(), **more})


def _settles(apply: Callable[..., None], rules: list[dict[str, Any]], *arguments: Any, **more: Any) -> dict[str, Any]:
    predicted = applied(apply, rules, *arguments, check=True, **more)
    done = applied(apply, rules, *arguments, **more)
    again = applied(apply, rules, *arguments, **more)
    for key in ("changed", "diff", "rules"):
        assert predicted[key] == done[key], key
    assert not again["changed"], again["diff"]
    assert not again["diff"]
    for slug in (each["rule"] for each in rules if each["state"] == "present"):
        assert again["rules"].get(slug, {}).get("after") == done["rules"].get(slug, {}).get("after"), slug
    return done
