"""cisdriver.yml: read whole, with the line of every key, so that an error can point at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cisdriver.errors import UsageError

#: Where a value stands: its keys from the outside in, list items by index.
Location = tuple[str | int, ...]


@dataclass(frozen=True)
class SettingsFile:
    """Values of a settings file, and the line (from 1) of each."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, int] = field(default_factory=dict)

    def where(self, location: Location) -> str:
        """``cisdriver.yml:3``, for the innermost key of ``location`` that stands in the file."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.lines:
                return f"{self.path}:{self.lines[location[:length]]}"
        return str(self.path)


def read(path: Path) -> SettingsFile:
    """Read a settings file. Raises UsageError with file and line for text that is no YAML mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Name an existing file with --config.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {path}: not UTF-8 text", "Save it as UTF-8.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: not valid YAML: {error.problem}", "Correct that line.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path}: not valid YAML: {error}", "Correct the file.") from error
    if values is None:
        return SettingsFile(path)
    if not isinstance(values, dict) or node is None:
        found = type(values).__name__
        raise UsageError(f"{path}:1: expected settings as 'name: value', found a {found}", "Write one per line.")
    return SettingsFile(path, {str(key): value for key, value in values.items()}, _lines(path, node))


def _lines(path: Path, root: yaml.Node) -> dict[Location, int]:
    lines: dict[Location, int] = {}
    for location, node in _walk(root, ()):
        line = node.start_mark.line + 1
        if location in lines:
            name = ".".join(str(part) for part in location)
            raise UsageError(f"{path}:{line}: {name} is already set in line {lines[location]}", "Remove one of them.")
        lines[location] = line
    return lines


def _walk(node: yaml.Node, above: Location) -> Iterator[tuple[Location, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            location = (*above, str(key.value))
            yield location, key
            yield from _walk(value, location)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield (*above, number), item
            yield from _walk(item, (*above, number))
