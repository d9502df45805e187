"""Whether a manifest is what the API's types say: the official client's models, read strictly.

The server does as with ``fieldValidation=Strict``: an unknown field is refused, not dropped. The models are those of
the installed client, so a field newer than the cluster's version is let through.
"""

from __future__ import annotations

import base64
import importlib
import re
import typing
from datetime import datetime
from typing import Any

from .errors import ApiError, invalid
from .kinds import Kind

_LIST, _MAP = re.compile(r"[Ll]ist\[(.+)\]$"), re.compile(r"[Dd]ict\[str, (.+)\]$")
_QUANTITY = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([numkKMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?$")
#: Attributes whose strings are quantities, which may be written as numbers.
_QUANTITIES = {
    "limits",
    "requests",
    "capacity",
    "allocatable",
    "allocated_resources",
    "hard",
    "overhead",
    "size_limit",
    "divisor",
    "average_value",
}
#: Kinds that are nothing without a spec, which the models leave open.
_WITH_SPEC = {
    "DaemonSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Job",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "ReplicaSet",
    "Service",
}
_GO_TYPES = {"str": "string", "int": "int32", "bool": "bool", "float": "float64"}
_PYTHON: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}
_JSON_NAMES = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


def check(kind: Kind, body: Any) -> Any:
    """``body`` without nulls and with quantities as strings.

    Raises ApiError: 400 for an unknown field or a wrong type, 422 for a missing one.
    """
    reading = _Reading()
    clean = reading.model(kind.model, body, "")
    if reading.unknown or reading.wrong:
        words = reading.wrong[0] if reading.wrong else "strict decoding error: " + ", ".join(reading.unknown)
        title = f'{kind.kind} in version "{kind.version}"'
        raise ApiError(400, f"{title} cannot be handled as a {kind.kind}: {words}")
    if kind.kind in _WITH_SPEC and "spec" not in clean:
        reading.missing.append("spec")
    if reading.missing:
        name = (clean.get("metadata") or {}).get("name", "")
        raise invalid(kind, name, [(path, "Required value") for path in reading.missing])
    return clean


def check_model(name: str, body: Any, kind: Kind) -> Any:
    """As ``check``, for the body of a subresource."""
    return check(Kind(name.removeprefix("V1"), kind.plural, kind.group, kind.version, name), body)


def _field(model: Any, attribute: str) -> Any:
    """pydantic's field behind an attribute: those that Python or pydantic want for themselves have another name."""
    return model.model_fields.get(attribute) or model.model_fields[f"var_{attribute.lstrip('_')}"]


class _Reading:
    """One walk through a body."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.wrong: list[str] = []
        self.missing: list[str] = []

    def model(self, name: str, value: Any, path: str) -> Any:
        model = getattr(importlib.import_module("kubernetes.client.models"), name)
        if not isinstance(value, dict):
            return self._refuse(value, path, name.removeprefix("V1"))
        attributes = {key: attribute for attribute, key in model.attribute_map.items()}
        clean = {}
        for key, member in value.items():
            here = f"{path}.{key}".lstrip(".")
            if key not in attributes:
                self.unknown.append(f'unknown field "{here}"')
            elif member is not None:
                attribute = attributes[key]
                annotation = _field(model, attribute).annotation
                clean[key] = self._value(model.openapi_types[attribute], member, here, attribute, annotation)
        for key, attribute in attributes.items():
            if _field(model, attribute).is_required() and key not in clean and not path.startswith("status"):
                self.missing.append(f"{path}.{key}".lstrip("."))
        return clean

    def _value(self, kind: str, value: Any, path: str, attribute: str, annotation: Any) -> Any:
        if found := _LIST.match(kind):
            if not isinstance(value, list):
                return self._refuse(value, path, f"[]{found[1]}")
            return [
                self._value(found[1], one, f"{path}[{number}]", attribute, None) for number, one in enumerate(value)
            ]
        if found := _MAP.match(kind):
            if not isinstance(value, dict):
                return self._refuse(value, path, f"map[string]{_GO_TYPES.get(found[1], found[1])}")
            return {key: self._value(found[1], one, f"{path}.{key}", attribute, None) for key, one in value.items()}
        if kind == "object":
            return self._open(value, path, annotation)
        if kind == "str" and (attribute in _QUANTITIES or path.endswith(".target.value")):
            return self._quantity(value, path)
        return self._plain(kind, value, path)

    def _plain(self, kind: str, value: Any, path: str) -> Any:
        if kind in ("datetime", "bytes"):
            return self._time(value, path) if kind == "datetime" else self._base64(value, path)
        if kind not in _PYTHON:
            return self.model(kind, value, path)
        truth = isinstance(value, bool)
        if not isinstance(value, _PYTHON[kind]) or (truth and kind != "bool"):
            return self._refuse(value, path, _GO_TYPES[kind])
        return value

    def _open(self, value: Any, path: str, annotation: Any) -> Any:
        """An int-or-string, or anything."""
        names = str(typing.get_args(annotation))
        if "int" in names and "str" in names and (isinstance(value, bool) or not isinstance(value, int | str)):
            return self._refuse(value, path, "intstr.IntOrString")
        return value

    def _quantity(self, value: Any, path: str) -> Any:
        if isinstance(value, bool) or not _QUANTITY.match(str(value)):
            expression = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
            self.wrong.append(f"quantities must match the regular expression '{expression}': {path}: {value!r}")
        return str(value)

    def _time(self, value: Any, path: str) -> Any:
        try:
            datetime.fromisoformat(value)
        except (TypeError, ValueError):
            self.wrong.append(f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": {path}')
        return value

    def _base64(self, value: Any, path: str) -> Any:
        try:
            base64.b64decode(value, validate=True)
        except (TypeError, ValueError):
            self.wrong.append(f"illegal base64 data: {path}")
        return value

    def _refuse(self, value: Any, path: str, wanted: str) -> Any:
        found = _JSON_NAMES.get(type(value), "null")
        self.wrong.append(f"json: cannot unmarshal {found} into Go struct field {path or '.'} of type {wanted}")
        return value
