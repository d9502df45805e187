"""Per check of verify_node: a stock node passes, and one that has this broken fails that check, with evidence."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import registry

from . import breaking, breaking_checks_network, breaking_checks_node
from .conftest import put_audit, verified

pytestmark = pytest.mark.node

BREAKS: list[tuple[str, breaking.Break]] = [
    *breaking_checks_network.BY_CHECK.items(),
    *breaking_checks_network.MORE,
    *((name, how) for name, hows in breaking_checks_node.BY_CHECK.items() for how in hows),
]
FINE = ("pass", "not_applicable")
#: Starts a containerd of its own, which takes as long as all others together.
SLOW = "container_runs"


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    from cisdriver.sandbox import node as standin

    with standin.start(f"cisdriver-checks-{os.getpid()}") as node:
        node.wait_ssh()
        node.wait_running()
        put_audit(node)
        yield node


def failing(found: dict[str, Any]) -> dict[str, str]:
    return {name: one["reason"] for name, one in found.items() if one["status"] not in FINE}


def test_every_check_is_broken_by_a_test() -> None:
    assert {name for name, _how in BREAKS} == set(registry.CHECKS) - set(breaking_checks_node.ELSEWHERE)


def test_a_stock_node_passes_every_check(node: Any) -> None:
    assert failing(verified(node)) == {}


@pytest.mark.parametrize(("name", "how"), BREAKS, ids=[name for name, _how in BREAKS])
def test_a_node_that_has_it_broken_fails_that_check(node: Any, name: str, how: breaking.Break) -> None:
    node.exec(how.command, check=True)
    try:
        found = verified(node, *(() if SLOW in (name, *how.also) else (SLOW,)))
        assert name in failing(found)
        assert set(failing(found)) <= {name, *how.also}, failing(found)
        assert how.words in json.dumps(found[name]), found[name]
    finally:
        node.exec(how.undo, check=True)


def test_mended_it_passes_again(node: Any) -> None:
    assert failing(verified(node)) == {}
