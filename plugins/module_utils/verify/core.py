# Copyright the cisdriver authors. Apache-2.0.
"""How a check is written that tells whether a machine would still join a cluster and serve.

A check is a function ``(node: probe.core.Node) -> Finding`` that the decorator ``check`` turns into a Check. It looks
at what holds now and at what the next boot will make of it, changes nothing that outlives it, and its evidence names
the file, unit or address. Finding and evidence are those of ``probe.core``.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, NamedTuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

Look = Callable[[core.Node], core.Finding]


class Check(NamedTuple):
    """``title`` says what must hold, ``why`` what stops working without it, ``topic`` is its module's name."""

    name: str
    title: str
    why: str
    topic: str
    look: Look

    def __call__(self, node: core.Node) -> core.Finding:
        return self.look(node)


def check(title: str, why: str) -> Callable[[Look], Check]:
    """Make a function a check, under its own name."""
    return lambda look: Check(look.__name__, title, why, look.__module__.rpartition(".")[2], look)


def run(node: core.Node, one: Check) -> Dict[str, Any]:
    """What a check found: ``{name, title, why, status, reason, evidence}``. One that cannot look is an ``error``."""
    try:
        finding = one(node)
    except core.ProbeError as error:
        finding = {"status": "error", "reason": str(error), "evidence": []}
    except Exception as error:  # a defect of one check must not take the other verdicts away
        reason = f"{type(error).__name__}: {error}; this is a defect of cisdriver"
        finding = {"status": "error", "reason": reason, "evidence": []}
    return {"name": one.name, "title": one.title, "why": one.why, **finding}
