"""What the design forbids."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE_SIDE = sorted([*(ROOT / "plugins/modules").glob("*.py"), *(ROOT / "plugins/module_utils").rglob("*.py")])
#: Modules that talk to AWS run on the controller.
CONTROLLER_MODULES = {"ami_publish", "aws_sweep", "packer_build"} | {
    *("eks_access", "eks_api", "workload_results", "workload_sweep"),
    *("cluster_cost", "cluster_destroy", "cluster_plan", "cluster_stacks", "stack_changes"),
    *("admins", "bill", "look", "plan", "stacks"),  # of module_utils/cluster
}
STDLIB_ONLY = {path for path in NODE_SIDE if path.stem not in CONTROLLER_MODULES}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(("half", "other"), [("probe", "apply"), ("apply", "probe")])
def test_the_audit_shares_no_code_with_what_hardens(half: str, other: str) -> None:
    for path in (ROOT / f"plugins/module_utils/{half}").glob("*.py"):
        assert not any(f".module_utils.{other}" in name for name in imports(path)), path
    looking = {"audit", "verify_node"}
    modules = [path for path in (ROOT / "plugins/modules").glob("*.py") if (path.stem in looking) == (half == "probe")]
    for path in [*modules, *((ROOT / "plugins/module_utils/verify").glob("*.py") if half == "probe" else ())]:
        assert not any(f".module_utils.{other}" in name for name in imports(path)), path


@pytest.mark.parametrize("path", sorted(STDLIB_ONLY), ids=lambda path: path.stem)
def test_code_for_the_node_is_python_3_8_and_standard_library(path: Path) -> None:
    import sys

    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    allowed = set(sys.stdlib_module_names) | {"ansible", "ansible_collections", "__future__"}
    for name in imports(path):
        assert name.split(".")[0] in allowed, f"{path}: {name}"
        if name.startswith("ansible."):
            assert name.startswith("ansible.module_utils."), f"{path}: {name}"


def test_the_catalogue_imports_nothing_of_ansible() -> None:
    for path in (ROOT / "plugins/plugin_utils").glob("*.py"):
        assert not any(re.match(r"ansible\.", name) for name in imports(path)), path


def test_every_entry_of_the_collection_is_linked() -> None:
    links = ROOT / "collections/ansible_collections/cisdriver/amazon_linux"
    assert links.is_dir() and not links.is_symlink()
    for entry in (
        "roles",
        "plugins",
        "playbooks",
        "benchmarks",
        "schemas",
        "meta",
        "galaxy.yml",
        "README.md",
        "LICENSE",
    ):
        assert (links / entry).resolve() == ROOT / entry


def test_no_two_test_files_share_a_name() -> None:
    """Only tests/rules is a package: elsewhere pytest imports a file by its base name."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
