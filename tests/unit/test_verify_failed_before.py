"""Units that had failed before a node was hardened are not held against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import units

LISTED = "old.service loaded failed failed An old one\nnew.service loaded failed failed A new one\n"


@pytest.fixture
def node(tmp_path: Path) -> core.Node:
    (tmp_path / units.MANAGER.lstrip("/")).mkdir(parents=True)

    def run(argv: Sequence[str]) -> core.Output:
        return core.Output(0, LISTED if "list-units" in argv else "no such device\n", "")

    return core.Node(str(tmp_path), run)


def test_a_unit_that_had_failed_before_does_not_count(node: core.Node) -> None:
    node.memo["failed_before"] = ["old.service"]
    found = units.failed_units(node)
    assert found["status"] == "fail"
    assert found["reason"].startswith("new.service: expected not failed, found failed: no such device")
    assert {item["object"]: item["ok"] for item in found["evidence"]} == {"old.service": True, "new.service": False}


def test_without_a_list_every_failed_unit_counts(node: core.Node) -> None:
    found = units.failed_units(node)
    assert [item["ok"] for item in found["evidence"]] == [False, False]
