"""The four kinds of patch. Merge keys of strategic merges: the patchMergeKey tags of k8s.io/api."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch

from .errors import ApiError

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
_MERGE_KEYS = {
    "addresses": "type",
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "secrets": "name",
    "taints": "key",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}


def patched(content_type: str, before: dict[str, Any], patch: Any) -> dict[str, Any]:
    """``before`` with the patch; neither argument is changed. Raises ApiError 400, 415 or 422."""
    if content_type == JSON:
        try:
            result: dict[str, Any] = jsonpatch.apply_patch(copy.deepcopy(before), patch)
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            raise ApiError(422, f"the server rejected our request due to an error in our request: {error}") from error
        return result
    if not isinstance(patch, dict):
        raise ApiError(400, f"a patch of type {content_type} is an object, found {type(patch).__name__}")
    if content_type == MERGE:
        merged: dict[str, Any] = _merge(before, patch)
        return merged
    if content_type in (STRATEGIC, APPLY):
        return _strategic(before, patch)
    accepted = ", ".join((JSON, MERGE, STRATEGIC, APPLY))
    text = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    raise ApiError(415, text)


def without(before: dict[str, Any], last: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """``before`` less what a manager applied last time and does not apply any more."""
    result = copy.deepcopy(before)
    for key, value in last.items():
        if key not in patch:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(patch[key], dict) and isinstance(result.get(key), dict):
            result[key] = without(result[key], value, patch[key])
        elif isinstance(value, list) and isinstance(patch[key], list):
            result[key] = _without_items(key, result.get(key) or [], value, patch[key])
    return result


def _without_items(field: str, before: list[Any], last: list[Any], patch: list[Any]) -> list[Any]:
    by = _merge_key(field, patch or last)
    if not by:
        return before
    gone = set(_keyed(last, by)) - set(_keyed(patch, by))
    return [one for one in before if one.get(by) not in gone]


def _merge(before: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _strategic(before: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    result = copy.deepcopy(before)
    kept = patch.get("$retainKeys")
    if kept is not None:
        result = {key: value for key, value in result.items() if key in kept}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _strategic(result[key] if isinstance(result.get(key), dict) else {}, value)
        elif isinstance(value, list):
            result[key] = _strategic_list(key, result.get(key) or [], value)
        else:
            result[key] = value
    return result


def _strategic_list(field: str, before: list[Any], patch: list[Any]) -> list[Any]:
    if field == "finalizers":
        return [*before, *(one for one in patch if one not in before)]
    by = _merge_key(field, patch)
    if not by:
        return copy.deepcopy(patch)
    result = _keyed(before, by)
    _keyed(patch, by)
    for one in patch:
        if one.get("$patch") == "delete":
            result.pop(one.get(by), None)
        elif one.get("$patch") == "replace":
            return [copy.deepcopy(other) for other in patch if "$patch" not in other]
        else:
            result[one.get(by)] = _strategic(result.get(one.get(by), {}), one)
    return list(result.values())


def _keyed(items: list[Any], by: str) -> dict[Any, Any]:
    """Items by their merge key. Raises ApiError 400 for one without."""
    for one in items:
        if "$patch" not in one and not isinstance(one.get(by), str | int):
            raise ApiError(400, f"map: {one} does not contain declared merge key: {by}")
    return {one[by]: one for one in items if isinstance(one.get(by), str | int)}


def _merge_key(field: str, items: list[Any]) -> str:
    """The key that a list is merged by; empty where it is replaced."""
    if not all(isinstance(one, dict) for one in items):
        return ""
    if field == "ports":
        # A container's by containerPort, a service's by port; a network policy's are replaced.
        return next((key for key in ("containerPort", "port") if items and all(key in one for one in items)), "")
    return _MERGE_KEYS.get(field, "")
