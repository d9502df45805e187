"""Resource types as CloudFormation's registry describes them: cfn-lint carries the schemas of every region.

``replaced`` follows createOnlyProperties, ``conditional`` conditionalCreateOnlyProperties (CloudFormation CLI user
guide, "Resource type schema").
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from .template import Unknown, text_of, unknowns

Properties = dict[str, Any]


@cache
def _registered(type_name: str, region: str) -> Any:
    # Half a second to import; most sandboxes never see a template. It ships no types.
    from cfnlint.schema import PROVIDER_SCHEMA_MANAGER, ResourceNotFoundError  # type: ignore[import-untyped]

    try:
        return PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, type_name)
    except ResourceNotFoundError:
        return None


def exists(type_name: str, region: str) -> bool:
    return _registered(type_name, region) is not None


def attributes(type_name: str, region: str) -> set[str]:
    """The names that Fn::GetAtt takes."""
    return set(_registered(type_name, region).get_atts)


def fitted(type_name: str, region: str, properties: Properties) -> Properties:
    """The properties with numbers and booleans that came as text, or the reverse, in the type the schema names."""
    root = _registered(type_name, region).schema
    fitted: Properties = _fit(root, root, properties)
    return fitted


def _fit(root: dict[str, Any], schema: dict[str, Any], value: Any) -> Any:
    if "$ref" in schema:
        definition: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            definition = definition[part]
        return _fit(root, definition, value)
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("patternProperties", {})
        other: dict[str, Any] = next(iter(others.values()), {})
        return {key: _fit(root, known.get(key, other), element) for key, element in value.items()}
    if isinstance(value, list):
        return [_fit(root, schema.get("items", {}), element) for element in value]
    return _scalar(schema.get("type"), value)


def _scalar(kind: Any, value: Any) -> Any:
    if kind == "string" and isinstance(value, (bool, int, float)):
        return text_of(value)
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    if kind == "integer" and isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    return value


def problems(type_name: str, region: str, properties: Properties) -> list[str]:
    """What of known properties does not fit the schema, in CloudFormation's words where it has them."""
    from cfnlint.jsonschema import StandardValidator  # type: ignore[import-untyped]  # as above

    found = []
    for error in StandardValidator(_registered(type_name, region).schema).iter_errors(properties):
        path = [str(part) for part in error.path]
        if error.validator == "additionalProperties":
            found.append(f"#{_pointer(path[:-1])}: extraneous key [{path[-1]}] is not permitted")
        elif error.validator == "required":
            found.append(f"#{_pointer(path)}: required key [{error.message.split(chr(39))[1]}] not found")
        else:
            found.append(f"#{_pointer(path)}: {error.message}")
    return found


def _pointer(path: list[str]) -> str:
    return "".join(f"/{part}" for part in path)


def with_tags(type_name: str, region: str, properties: Properties, tags: dict[str, str]) -> Properties:
    """The properties with the stack's tags, as CloudFormation spreads them; the resource's own tags win."""
    schema = _registered(type_name, region).schema
    tagging = schema.get("tagging", {})
    if not tags or not tagging.get("taggable") or "tagProperty" not in tagging:
        return properties
    name = tagging["tagProperty"].rpartition("/")[2]
    own = properties.get(name)
    if schema["properties"][name].get("type") == "object":
        return {**properties, name: {**tags, **(own or {})}}
    named = {one["Key"] for one in own or []}
    added = [{"Key": key, "Value": value} for key, value in tags.items() if key not in named]
    return {**properties, name: [*(own or []), *added]}


def is_tags(type_name: str, region: str, name: str) -> bool:
    tagging = _registered(type_name, region).schema.get("tagging", {})
    return bool(tagging.get("tagProperty") == f"/properties/{name}")


def changed(old: Properties, new: Properties) -> list[str]:
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def replaced(type_name: str, region: str, old: Properties, new: Properties) -> set[str]:
    """The top-level properties whose change makes a new resource."""
    return _differing(_registered(type_name, region).schema.get("createOnlyProperties", []), old, new)


def conditional(type_name: str, region: str, old: Properties, new: Properties) -> set[str]:
    """The top-level properties whose change may make a new resource."""
    return _differing(_registered(type_name, region).schema.get("conditionalCreateOnlyProperties", []), old, new)


def _differing(pointers: list[str], old: Properties, new: Properties) -> set[str]:
    paths = [pointer.removeprefix("/properties/").split("/") for pointer in pointers]
    return {path[0] for path in paths if list(_plucked(old, path)) != list(_plucked(new, path))}


def _plucked(value: Any, path: list[str]) -> Iterator[Any]:
    if not path or isinstance(value, Unknown):
        yield value
    elif isinstance(value, list):
        for element in value:
            yield from _plucked(element, path[path[0] == "*" :])
    elif isinstance(value, dict) and path[0] in value:
        yield from _plucked(value[path[0]], path[1:])


def undecided(value: Any) -> frozenset[tuple[str, str]]:
    """The (resource, attribute) pairs that a value waits for."""
    return frozenset().union(*(unknown.of for unknown in unknowns(value)))
