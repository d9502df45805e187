# Copyright the cisdriver authors. Apache-2.0.
"""Values of ``key = value`` files, with or without sections, and with drop-ins as systemd merges them.

A spec is a list of items. With ``values``, the last line of a key in ``section`` of ``path``, and of the drop-ins in
``dropins`` after it, decides. With ``every``, each line of the key in any file of the glob ``path`` has to fit.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping, Sequence, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core


def check(node: core.Node, spec: Sequence[Mapping[str, Any]]) -> core.Finding:
    items: List[core.Evidence] = []
    for want in spec:
        items += _every(node, want) if "every" in want else _last(node, want)
    return core.verdict(items)


def _last(node: core.Node, want: Mapping[str, Any]) -> Iterator[core.Evidence]:
    files = [want["path"], *node.merged(want.get("dropins", ()), ".conf")]
    lines = [line for path in files for line in _lines(node, path) if line[0] == want.get("section", "")]
    for key, predicate in want["values"].items():
        value, source = next(
            ((found, at) for _, name, found, at in reversed(lines) if name == key), (None, want["path"])
        )
        yield core.evidence(key, predicate, value, core.holds(predicate, value), source)


def _every(node: core.Node, want: Mapping[str, Any]) -> Iterator[core.Evidence]:
    lines = [line for path in node.glob(want["path"]) for line in _lines(node, path)]
    for key, predicate in want["every"].items():
        wrong = [
            (value, source) for _, name, value, source in lines if name == key and not core.holds(predicate, value)
        ]
        for value, source in wrong:
            yield core.evidence(key, predicate, value, False, source)
        if not wrong:
            yield core.evidence(f"{key} in {want['path']}", predicate, "none that differs", True)


def _lines(node: core.Node, path: str) -> Iterator[Tuple[str, str, str, str]]:
    """``(section, key, value, file:line)``."""
    section = ""
    for number, line in node.lines(path):
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith(";"):
            key, _equals, value = line.partition("=")
            yield section, key.strip(), value.strip(), f"{path}:{number}"
