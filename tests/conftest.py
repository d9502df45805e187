"""Stand-in nodes for every test: each fresh, under a name of its own (also with pytest-xdist), and gone afterwards."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "driver"))

from cisdriver.sandbox import node as nodes
from cisdriver.sandbox import standin

StartNode = Callable[..., nodes.Node]


class ByFileOrScenario(LoadFileScheduling):
    """A file to one worker; each Molecule scenario by itself, as they share nothing and take minutes."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if "::test_scenario[" in nodeid else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling | None:
    return ByFileOrScenario(config, log) if config.getoption("dist") == "loadfile" else None


def _needs_podman() -> None:
    if os.geteuid() != 0 or not shutil.which("podman"):
        pytest.fail("a stand-in node needs root and podman; `make unit` runs what needs neither")


@pytest.fixture(scope="session")
def node_run_id() -> Iterator[str]:
    """The label of every node this process starts; what a failed test left behind goes at the end."""
    run_id = f"pytest-{uuid.uuid4().hex[:12]}"
    yield run_id
    if shutil.which("podman"):
        nodes.prune(run_id)


def _start(run_id: str, image: str | None = None, **options: object) -> nodes.Node:
    """Start a node, wait until it has booted and ssh answers. image and options: as cisdriver.sandbox.node.start."""
    _needs_podman()
    name = f"{run_id}-{uuid.uuid4().hex[:6]}"
    node = nodes.start(name, image, labels={nodes.RUN_LABEL: run_id}, **options)  # type: ignore[arg-type]
    node.wait_running()
    if node.ssh_key:
        node.wait_ssh()
    return node


@pytest.fixture
def start_node(node_run_id: str) -> Iterator[StartNode]:
    """Start any number of nodes: start_node("ami"), start_node(restart=False), start_node(reference)."""
    started: list[nodes.Node] = []

    def start(image: str | None = None, **options: object) -> nodes.Node:
        started.append(_start(node_run_id, image, **options))
        return started[-1]

    yield start
    for node in started:
        node.remove()


@pytest.fixture
def stock_node(start_node: StartNode) -> nodes.Node:
    """A fresh stock EKS node that has joined a cluster, for one test."""
    return start_node()


@pytest.fixture(scope="module")
def stock_node_of_module(node_run_id: str) -> Iterator[nodes.Node]:
    """The same for all tests of a module: for tests that only read, or that clean up."""
    with _start(node_run_id) as node:
        yield node


@pytest.fixture
def ami_node(start_node: StartNode) -> nodes.Node:
    """A fresh instance of the stock image that no cluster has seen: what an image is baked from."""
    return start_node("ami")


@pytest.fixture(scope="session")
def stock_image() -> str:
    """The image of the joined stock node."""
    _needs_podman()
    return standin.build(state="node")
