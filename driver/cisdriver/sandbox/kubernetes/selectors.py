"""Label and field selectors, and what they are tried on."""

from __future__ import annotations

import re
from typing import Any

from .errors import ApiError
from .kinds import Kind

Object = dict[str, Any]
_SET = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^)]*)\)$")
_EQUAL = re.compile(r"^([^\s=!]+)\s*(==|=|!=)\s*([^\s=!]*)$")
_PRESENT = re.compile(r"^(!?)\s*([\w./-]+)$")
#: Fields that may be selected by, beside metadata.name and metadata.namespace (ToSelectableFields of each kind).
_FIELDS = {
    "Pod": {
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    },
    "Node": {"spec.unschedulable"},
    "Namespace": {"status.phase"},
    "Secret": {"type"},
    "Job": {"status.successful"},
    "ReplicaSet": {"status.replicas"},
    "Event": {
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    },
}


def read_labels(text: str) -> list[Object]:
    """The expressions of a label selector as in a query. Raises ApiError 400 for one that cannot be read."""
    return [_requirement(part.strip()) for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def read_fields(kind: Kind, text: str) -> list[Object]:
    """As ``read_labels``, for fields. Raises ApiError 400 for a field that none can be selected by, too."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        equal = _EQUAL.match(part)
        if not equal:
            raise ApiError(400, f'invalid selector: "{text}"; can\'t understand "{part}"')
        path, operator, value = equal.groups()
        if path not in {"metadata.name", "metadata.namespace"} | _FIELDS.get(kind.kind, set()):
            raise ApiError(400, f'field label not supported: "{path}"')
        found.append({"key": path, "operator": "NotIn" if operator == "!=" else "In", "values": [value]})
    return found


def fits(one: Object, labels: list[Object], fields: list[Object]) -> bool:
    """Whether an object fits what ``read_labels`` and ``read_fields`` have read."""
    carried = one["metadata"].get("labels") or {}
    by_labels = all(matches(expression, carried.get(expression["key"])) for expression in labels)
    return by_labels and all(matches(expression, _field(one, expression["key"])) for expression in fields)


def by_selector(selector: Object | None, labels: dict[str, str]) -> bool:
    """Whether labels fit a ``LabelSelector``: none fits nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(matches(one, labels.get(one["key"])) for one in selector.get("matchExpressions") or [])


def matches(expression: Object, value: str | None) -> bool:
    """Whether a value (None: there is none) fits an expression of a label or node selector."""
    operator, values = expression["operator"], expression.get("values") or []
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if operator == "NotIn":
        return value not in values
    if value is None:
        return False
    if operator in ("Gt", "Lt"):
        return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
    return value in values


def _field(one: Any, path: str) -> str:
    for key in path.split("."):
        one = one.get(key) if isinstance(one, dict) else None
    return str(one).lower() if isinstance(one, bool) else "" if one is None else str(one)


def _requirement(part: str) -> Object:
    if found := _SET.match(part):
        key, operator, values = found.groups()
        names = [value.strip() for value in values.split(",")]
        return {"key": key, "operator": "In" if operator == "in" else "NotIn", "values": names}
    if found := _EQUAL.match(part):
        key, operator, value = found.groups()
        return {"key": key, "operator": "NotIn" if operator == "!=" else "In", "values": [value]}
    if found := _PRESENT.match(part):
        return {"key": found[2], "operator": "DoesNotExist" if found[1] else "Exists"}
    raise ApiError(400, f'unable to parse requirement: found "{part}", expected a label selector')
