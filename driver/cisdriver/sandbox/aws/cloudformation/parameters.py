"""Parameters of a template: what is given, what is kept from before, what is missing, and whether it is allowed."""

from __future__ import annotations

import re
from typing import Any

from ..world import AwsError
from .template import Body, invalid, text_of

_LISTS = ("CommaDelimitedList", "List<")
#: AWS checks that the object of such a type exists; here the call that uses it does.
_TYPES = re.compile(r"String|Number|CommaDelimitedList|List<(String|Number|AWS::[\w:]+)>|AWS::(EC2|Route53)::[\w:]+")


def read(body: Body, given: list[dict[str, Any]], before: dict[str, str]) -> dict[str, str]:
    """Each parameter's text. ``before`` has the values of the stack, for UsePreviousValue. Raises AwsError."""
    declared = body.get("Parameters", {})
    unknown = [one["ParameterKey"] for one in given if one["ParameterKey"] not in declared]
    if unknown:
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    found = {name: text_of(node["Default"]) for name, node in declared.items() if "Default" in node}
    for one in given:
        name = one["ParameterKey"]
        if one.get("UsePreviousValue"):
            if name not in before:
                raise invalid(f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as true for it")
            found[name] = before[name]
        elif "ParameterValue" in one:
            found[name] = one["ParameterValue"]
    missing = [name for name in declared if name not in found]
    if missing:
        raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
    for name, node in declared.items():
        _check(name, node, found[name])
    return found


def _check(name: str, node: dict[str, Any], text: str) -> None:
    if not _TYPES.fullmatch(node.get("Type", "")):
        served = "String, Number, CommaDelimitedList, List<...>, AWS::EC2::..."
        raise AwsError(501, "NotImplemented", f"parameter {name}: type {node.get('Type')} is none of {served}")
    hint = node.get("ConstraintDescription")
    for value in elements(node, text):
        allowed = [text_of(one) for one in node.get("AllowedValues", [])]
        if allowed and value not in allowed:
            raise invalid(f"Parameter '{name}' must be one of AllowedValues" if not hint else _said(name, hint))
        if "AllowedPattern" in node and not re.fullmatch(node["AllowedPattern"], value):
            pattern = f"Parameter '{name}' must match pattern {node['AllowedPattern']}"
            raise invalid(pattern if not hint else _said(name, hint))
        if node["Type"] == "Number":
            _check_number(name, node, value)
    if len(text) < int(node.get("MinLength", 0)):
        raise invalid(f"Parameter '{name}' must contain at least {node['MinLength']} characters")
    if len(text) > int(node.get("MaxLength", 4096)):
        raise invalid(f"Parameter '{name}' must contain at most {node.get('MaxLength', 4096)} characters")


def _said(name: str, hint: str) -> str:
    return f"Parameter {name} failed to satisfy constraint: {hint}"


def _check_number(name: str, node: dict[str, Any], text: str) -> None:
    try:
        number = float(text)
    except ValueError:
        raise invalid(f"Parameter '{name}' must be a number.") from None
    if number < float(node.get("MinValue", number)):
        raise invalid(f"Parameter '{name}' must be a number not less than {node['MinValue']}")
    if number > float(node.get("MaxValue", number)):
        raise invalid(f"Parameter '{name}' must be a number not greater than {node['MaxValue']}")


def elements(node: dict[str, Any], text: str) -> list[str]:
    """The values in a parameter's text: one, or those of a list."""
    if not node["Type"].startswith(_LISTS):
        return [text]
    return [part.strip() for part in text.split(",")]


def typed(body: Body, texts: dict[str, str]) -> dict[str, Any]:
    """What Ref gives for each parameter: a string, or a list of them."""
    found: dict[str, Any] = {}
    for name, node in body.get("Parameters", {}).items():
        parts = elements(node, texts[name])
        found[name] = parts if node["Type"].startswith(_LISTS) else parts[0]
    return found
