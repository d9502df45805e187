"""The collection's own loader, lookup defaults and schemas, without Ansible.

The catalogue is part of the collection, so that lookup, audit and driver share one. Its modules import each other by
their collection names, and pip's ``ansible`` brings a package ``ansible_collections`` that does not hold ours. So the
parent packages are registered here, pointing into our tree, unless something (Ansible, a test) already resolves them.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cisdriver.errors import UsageError

#: What ``ANSIBLE_COLLECTIONS_PATH`` has to hold: the same place in a checkout, an editable install and a wheel.
COLLECTIONS = Path(__file__).resolve().parent / "_collections"
ROOT = COLLECTIONS / "ansible_collections" / "cisdriver" / "amazon_linux"
NAME = "cisdriver.amazon_linux"
_PACKAGE = f"ansible_collections.{NAME}.plugins.plugin_utils"


def _register() -> None:
    """Make ``ansible_collections.cisdriver...plugin_utils`` importable from our tree."""
    if _PACKAGE in sys.modules or _resolves():
        return
    path, parent = COLLECTIONS, None
    for part in _PACKAGE.split("."):
        path = path / part
        name = f"{parent.__name__}.{part}" if parent else part
        module = sys.modules.get(name)
        if module is None:
            module = ModuleType(name)
            module.__path__ = [str(path)]
            sys.modules[name] = module
        elif str(path) not in module.__path__:
            module.__path__ = [str(path), *module.__path__]
        if parent is not None:
            setattr(parent, part, module)
        parent = module


def _resolves() -> bool:
    """Whether the import system finds our tree, and not a copy of it elsewhere."""
    try:
        spec = importlib.util.find_spec(f"{_PACKAGE}.catalogue")
    except (ImportError, ValueError):
        return False
    return bool(spec and spec.origin and Path(spec.origin).resolve() == _own("catalogue.py"))


def _own(name: str) -> Path:
    return (ROOT / "plugins" / "plugin_utils" / name).resolve()


if TYPE_CHECKING:
    from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue as catalogue
    from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import results as results
else:
    _register()
    catalogue = importlib.import_module(f"{_PACKAGE}.catalogue")
    results = importlib.import_module(f"{_PACKAGE}.results")


@functools.cache
def load() -> catalogue.Catalogue:
    """All benchmarks and rules. Raises UsageError where the collection's data is broken."""
    try:
        return catalogue.load()
    except catalogue.CatalogueError as error:
        raise UsageError(str(error), f"Correct the data in {ROOT.resolve()}, or install cisdriver again.") from error


def version() -> str:
    """The one version of collection and driver."""
    return catalogue.version()


@functools.cache
def defaults() -> dict[str, Any]:
    """Defaults of the selection, which stand in one place: the options of the lookup ``rules``."""
    import yaml

    tree = ast.parse((ROOT / "plugins" / "lookup" / "rules.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION":
            options = yaml.safe_load(ast.literal_eval(node.value))["options"]
            return {name: option["default"] for name, option in options.items() if "default" in option}
    raise LookupError("plugins/lookup/rules.py has no DOCUMENTATION")


@functools.cache
def kinds_with_module() -> frozenset[str]:
    """Kinds that a batch module writes, and whose rules therefore report one by one."""
    return frozenset(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))


def schema(name: str) -> dict[str, Any]:
    """A JSON schema of ``schemas/``, such as ``results``."""
    document: dict[str, Any] = json.loads((ROOT / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    return document
