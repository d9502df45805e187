"""Templates: read, and evaluated with parameters, before and after their resources exist."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from graphlib import CycleError, TopologicalSorter
from ipaddress import ip_network
from itertools import islice
from typing import Any

import yaml

from ..world import AwsError

Body = dict[str, Any]
#: What a Ref (attribute "") or GetAtt of a resource stands for.
Reference = Callable[[str, str], Any]

_SECTIONS = frozenset(
    {"AWSTemplateFormatVersion", "Conditions", "Description", "Mappings", "Metadata", "Outputs", "Parameters"}
    | {"Resources", "Rules"}
)
_RESOURCE = frozenset(
    {"Condition", "DeletionPolicy", "DependsOn", "Metadata", "Properties", "Type", "UpdateReplacePolicy"}
)
_POLICIES = frozenset({"Delete", "Retain", "RetainExceptOnCreate"})
_PLACE = re.compile(r"\$\{([^!}][^}]*)\}")
_ABSENT = object()


@dataclass(frozen=True)
class Unknown:
    """A value that its resources decide: the expression, and the (resource, attribute) pairs in it."""

    text: str
    of: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Declared:
    """A resource as a template has it, conditions and parameters applied. ``depends`` has DependsOn and references."""

    logical: str
    type: str
    properties: dict[str, Any]
    depends: frozenset[str]
    deletion: str
    replaced: str


def invalid(message: str) -> AwsError:
    return AwsError(400, "ValidationError", message)


def parse(text: str) -> Body:
    """The template in ``text``, YAML or JSON, short functions in their long form. Raises AwsError as AWS words it."""
    # Half a second to import; most sandboxes never see a template.
    from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]  # cfn-lint ships no types

    try:
        body = cfn_yaml.loads(text)
    except (cfn_yaml.CfnParseError, yaml.YAMLError) as error:
        raise invalid(f"Template format error: {' '.join(str(error).split())}") from error
    if not isinstance(body, dict) or not body:
        raise invalid("Template format error: unsupported structure.")
    plain: Body = _plain(body)
    unknown = sorted(set(plain) - _SECTIONS)
    if unknown:
        raise invalid(f"Invalid template property or properties [{', '.join(unknown)}]")
    if not plain.get("Resources"):
        raise invalid("Template format error: At least one Resources member must be defined.")
    if "Rules" in plain:
        raise AwsError(501, "NotImplemented", "the sandbox's CloudFormation does not evaluate Rules")
    for logical, resource in plain["Resources"].items():
        _check_resource(logical, resource)
    known = {*plain["Resources"], *plain.get("Parameters", {})}
    missing = sorted({name for name in _named(plain) if name not in known and not name.startswith("AWS::")})
    if missing:
        raise unresolved(missing)
    return plain


def _check_resource(logical: str, resource: Body) -> None:
    for name in sorted(set(resource) - _RESOURCE):
        raise invalid(f"Invalid template resource property '{name}' in {logical}")
    if "Type" not in resource:
        raise invalid(f"Template format error: [/Resources/{logical}] Every Resources object must contain a Type.")
    for name in ("DeletionPolicy", "UpdateReplacePolicy"):
        if resource.get(name, "Delete") not in _POLICIES:
            raise invalid(f"Template format error: Unrecognized {name} {resource[name]} for resource {logical}")


def _named(node: Any) -> Iterator[str]:
    """Every resource, parameter and pseudo parameter that is referred to, wherever its condition leads."""
    if isinstance(node, list):
        for element in node:
            yield from _named(element)
    if not isinstance(node, dict):
        return
    for key, element in node.items():
        if key == "Ref" and len(node) == 1:
            yield element
        elif key == "Fn::GetAtt":
            yield element.partition(".")[0] if isinstance(element, str) else element[0]
        elif key == "Fn::Sub":
            text, more = (element, {}) if isinstance(element, str) else element
            yield from (place.partition(".")[0] for place in _PLACE.findall(text) if place not in more)
            yield from _named(more)
        else:
            yield from _named(element)


def unresolved(names: list[str]) -> AwsError:
    text = "Template format error: Unresolved resource dependencies"
    return invalid(f"{text} [{', '.join(names)}] in the Resources block of the template")


def _plain(node: Any) -> Any:
    """cfn-lint's nodes as plain values; dates are strings, as CloudFormation reads them."""
    if isinstance(node, dict):
        return {str(key): _plain(element) for key, element in node.items()}
    if isinstance(node, list):
        return [_plain(element) for element in node]
    if isinstance(node, date):
        return node.isoformat()
    return str(node) if isinstance(node, str) else node


def unknowns(value: Any) -> Iterator[Unknown]:
    """Every unknown in a value."""
    if isinstance(value, Unknown):
        yield value
    elif isinstance(value, (dict, list)):
        for element in value.values() if isinstance(value, dict) else value:
            yield from unknowns(element)


def symbol(logical: str, attribute: str) -> Unknown:
    """The reference before its resource exists."""
    return Unknown(f"${{{logical}{'.' if attribute else ''}{attribute}}}", frozenset({(logical, attribute)}))


class Scope:
    """A template with its parameters and pseudo parameters: evaluates what its nodes say.

    ``reference`` answers for resources: ``symbol``, or their real ids and attributes.
    """

    def __init__(self, body: Body, parameters: dict[str, Any], pseudo: dict[str, Any], reference: Reference) -> None:
        self.body, self._names = body, {**pseudo, **parameters}
        self._reference, self._conditions = reference, dict[str, bool]()

    def value(self, node: Any) -> Any:
        if isinstance(node, dict):
            name = next(iter(node), "")
            if len(node) == 1 and (name == "Ref" or name.startswith("Fn::")):
                return self._function(name, node[name])
            found = {key: self.value(element) for key, element in node.items()}
            return {key: element for key, element in found.items() if element is not _ABSENT}
        if isinstance(node, list):
            return [element for element in map(self.value, node) if element is not _ABSENT]
        return node

    def _function(self, name: str, argument: Any) -> Any:
        if name == "Ref":
            return self._ref(argument, "")
        if name == "Fn::GetAtt":
            logical, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
            return self._ref(logical, attribute)
        if name == "Fn::If":
            condition, then, otherwise = argument
            return self.value(then if self.condition(condition) else otherwise)
        if name == "Fn::Sub":
            return self._sub(argument)
        if name == "Fn::FindInMap":
            return self._in_map(*map(self.value, argument))
        if name not in _FUNCTIONS:
            raise invalid(f"Template error: the sandbox does not evaluate {name}; it knows {', '.join(_FUNCTIONS)}")
        return _applied(name, self.value(argument))

    def _ref(self, name: str, attribute: str) -> Any:
        if not attribute and name == "AWS::NoValue":
            return _ABSENT
        if not attribute and name in self._names:
            return self._names[name]
        if name in self.body["Resources"] and self.present(name):
            return self._reference(name, attribute)
        raise unresolved([name])

    def _sub(self, argument: Any) -> Any:
        text, more = (argument, {}) if isinstance(argument, str) else argument
        parts: list[Any] = []
        for number, part in enumerate(_PLACE.split(text)):
            if number % 2 == 0:
                parts.append(part.replace("${!", "${"))
            elif part in more:
                parts.append(self.value(more[part]))
            else:
                name, _, attribute = part.partition(".")
                parts.append(self._ref(name, attribute))
        return _applied("Fn::Join", ["", parts])

    def _in_map(self, name: str, *keys: str) -> Any:
        found = self.body.get("Mappings", {}).get(name, {})
        for key in keys:
            if key not in found:
                raise invalid(f"Template error: Unable to get mapping for {name}::{'::'.join(keys)}")
            found = found[key]
        return found

    def present(self, logical: str) -> bool:
        """Whether a resource's or output's condition holds."""
        condition = self.body["Resources"][logical].get("Condition")
        return condition is None or self.condition(condition)

    def condition(self, name: str) -> bool:
        if name not in self._conditions:
            if name not in self.body.get("Conditions", {}):
                raise invalid(f"Template format error: Unresolved condition dependency {name}")
            self._conditions[name] = self._holds(self.body["Conditions"][name])
        return self._conditions[name]

    def _holds(self, node: Any) -> bool:
        function, argument = next(iter(node.items()))
        if function == "Condition":
            return self.condition(argument)
        if function == "Fn::Equals":
            left, right = map(self.value, argument)
            return text_of(left) == text_of(right)
        if function == "Fn::Not":
            return not self._holds(argument[0])
        if function in ("Fn::And", "Fn::Or"):
            return (all if function == "Fn::And" else any)(self._holds(one) for one in argument)
        raise invalid(f"Template error: {function} is no condition function")

    def declared(self) -> dict[str, Declared]:
        """The resources whose conditions hold, each after those it depends on. Raises AwsError for a circle."""
        found = {name: self._declare(name) for name in self.body["Resources"] if self.present(name)}
        try:
            order = list(TopologicalSorter({name: sorted(one.depends) for name, one in found.items()}).static_order())
        except CycleError as error:
            raise invalid(f"Circular dependency between resources: [{', '.join(error.args[1][1:])}]") from error
        return {name: found[name] for name in order}

    def _declare(self, logical: str) -> Declared:
        node = self.body["Resources"][logical]
        properties = self.value(node.get("Properties", {}))
        named = node.get("DependsOn", [])
        depends = {named} if isinstance(named, str) else set(named)
        missing = sorted(depends - set(self.body["Resources"]))
        if missing:
            raise unresolved(missing)
        depends = {name for name in depends if self.present(name)}
        depends |= {name for unknown in unknowns(properties) for name, _ in unknown.of}
        deletion, replaced = node.get("DeletionPolicy", "Delete"), node.get("UpdateReplacePolicy", "Delete")
        return Declared(logical, node["Type"], properties, frozenset(depends), deletion, replaced)

    def outputs(self) -> dict[str, tuple[Any, str]]:
        """Value and description of each output whose condition holds."""
        found = {}
        for name, node in self.body.get("Outputs", {}).items():
            if "Export" in node:
                text = f"the sandbox's CloudFormation has no exports; give {name} to the other stack as a parameter"
                raise AwsError(501, "NotImplemented", text)
            if "Condition" not in node or self.condition(node["Condition"]):
                found[name] = (self.value(node["Value"]), str(node.get("Description", "")))
        return found


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _applied(name: str, argument: Any) -> Any:
    """The function's value, or the expression where an argument is not known yet."""
    open_parts = list(unknowns(argument))
    if open_parts:
        text = json.dumps([name, argument], default=lambda unknown: unknown.text)
        return Unknown(text, frozenset().union(*(unknown.of for unknown in open_parts)))
    try:
        return _FUNCTIONS[name](argument)
    except (IndexError, TypeError, ValueError, AttributeError) as error:
        raise invalid(f"Template error: {name} cannot take {json.dumps(argument, default=str)}: {error}") from error


def _select(argument: list[Any]) -> Any:
    index, elements = int(argument[0]), argument[1]
    if not 0 <= index < len(elements):
        raise invalid(f"Template error: Fn::Select cannot select nonexistent value at index {index}")
    return elements[index]


def _cidr(argument: list[Any]) -> list[str]:
    block, count, bits = ip_network(argument[0]), int(argument[1]), int(argument[2]) if argument[2:] else 8
    found = [str(one) for one in islice(block.subnets(new_prefix=block.max_prefixlen - bits), count)]
    if len(found) < count:
        raise ValueError(f"{block} has no {count} blocks of {bits} bits")
    return found


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Fn::Base64": lambda text: base64.b64encode(text.encode()).decode(),
    "Fn::Cidr": _cidr,
    "Fn::Join": lambda argument: str(argument[0]).join(map(text_of, argument[1])),
    "Fn::Select": _select,
    "Fn::Split": lambda argument: argument[1].split(argument[0]),
}
