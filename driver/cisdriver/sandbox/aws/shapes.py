"""Values checked against botocore's shapes, strictly.

botocore's own validator leaves out enums, patterns and maxima, and never looks at replies.
The checks here are applied in both directions: what a client sends, and what the sandbox answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

#: Java's character classes, which Python's ``re`` does not know, as ranges for use inside brackets.
_JAVA_CLASSES = {
    r"\p{L}": "A-Za-z\u00aa-\u02ff\u0370-\u1fff\u2c00-\ud7ff",
    r"\p{Z}": " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    r"\p{N}": "0-9\u00b2\u00b3\u00b9\u0660-\u0669",
    r"\p{S}": "$+<=>^`|~\u00a2-\u00a9",
    r"\p{P}": "!-#%-*,-/:;?@\\[-\\]_{}\u00a1\u00a7",
    r"\p{M}": "\u0300-\u036f",
    r"\p{Cc}": "\u0000-\u001f\u007f-\u009f",
    r"\p{Cs}": "",
    r"\p{Cn}": "",
}


def problems(shape: Shape | None, value: Any, path: str = "") -> Iterator[str]:
    """Say what is wrong with ``value``, one sentence per fault; nothing when it fits ``shape``."""
    if shape is None:
        if value:
            yield f"{path or 'body'}: nothing is expected here, found {value!r}"
        return
    if shape.type_name not in _TYPES:
        raise NotImplementedError(f"botocore type {shape.type_name} of {shape.name}")
    accepted = _TYPES[shape.type_name]
    if not isinstance(value, accepted) or (isinstance(value, bool) and shape.type_name != "boolean"):
        yield f"{path}: expected {shape.type_name}, found {value!r}"
        return
    checks = _CHECKS.get(shape.type_name)
    if checks is not None:
        yield from checks(shape, value, path)


def _structure(shape: Shape, value: dict[str, Any], path: str) -> Iterator[str]:
    assert isinstance(shape, StructureShape)
    for name in shape.required_members:
        if name not in value:
            yield f"{_join(path, name)}: required, not given"
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        yield f"{path}: exactly one of {', '.join(shape.members)} is expected, found {sorted(value)}"
    for name, member in value.items():
        if name not in shape.members:
            yield f"{_join(path, name)}: {shape.name} has no such member"
        else:
            yield from problems(shape.members[name], member, _join(path, name))


def _list(shape: Shape, value: list[Any], path: str) -> Iterator[str]:
    assert isinstance(shape, ListShape)
    yield from _size(shape, len(value), path, "elements")
    for index, element in enumerate(value):
        yield from problems(shape.member, element, f"{path}[{index}]")


def _map(shape: Shape, value: dict[str, Any], path: str) -> Iterator[str]:
    assert isinstance(shape, MapShape)
    yield from _size(shape, len(value), path, "entries")
    for key, element in value.items():
        yield from problems(shape.key, key, f"{path}.(key {key})")
        yield from problems(shape.value, element, f"{path}.{key}")


def _string(shape: Shape, value: str, path: str) -> Iterator[str]:
    yield from _size(shape, len(value), path, "characters")
    enum = shape.metadata.get("enum")
    if enum and value not in enum:
        shown = ", ".join(enum[:8]) + (", ..." if len(enum) > 8 else "")
        yield f"{path}: {value!r} is none of {shown}"
    pattern = _compiled(shape.metadata["pattern"]) if "pattern" in shape.metadata else None
    if pattern is not None and not pattern.fullmatch(value):
        yield f"{path}: {value!r} does not match {shape.metadata['pattern']}"


def _number(shape: Shape, value: float, path: str) -> Iterator[str]:
    yield from _size(shape, value, path, "")


def _size(shape: Shape, size: float, path: str, unit: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{path}: at least {low} {unit} expected, found {size}"
    if high is not None and size > high:
        yield f"{path}: at most {high} {unit} expected, found {size}"


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """``pattern`` as Python's ``re`` takes it; None where Java's syntax has no counterpart."""
    for java, ranges in _JAVA_CLASSES.items():
        pattern = pattern.replace(java, ranges)
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error:
        return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


_TYPES: dict[str, type | tuple[type, ...]] = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "character": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float, Decimal),
    "double": (int, float, Decimal),
    "timestamp": datetime,
    "blob": bytes,
}
_CHECKS: dict[str, Callable[[Shape, Any, str], Iterator[str]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "integer": _number,
    "long": _number,
    "float": _number,
    "double": _number,
}
