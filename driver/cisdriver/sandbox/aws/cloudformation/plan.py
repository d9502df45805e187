"""What a template asks for before anything is done, and what it would change in a stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import botocore.session
from moto.core.models import DEFAULT_ACCOUNT_ID

from ..world import AwsError
from . import account, ec2, eks, groups, parameters, schema
from .kinds import Kind, Resource
from .template import Body, Declared, Reference, Scope, Unknown, invalid, symbol

KINDS: dict[str, Kind] = {**account.KINDS, **ec2.KINDS, **eks.KINDS, **groups.KINDS}


@dataclass(frozen=True)
class Wanted:
    """What a request asks a stack to be."""

    text: str
    body: Body
    parameters: dict[str, str]
    tags: dict[str, str]
    capabilities: tuple[str, ...]


@cache
def _partition(region: str) -> tuple[str, str]:
    """A region's partition, and the domain of its services."""
    session = botocore.session.get_session()
    partition: str = session.get_partition_for_region(region)
    known = session.get_data("partitions")["partitions"]
    return partition, next(one["outputs"]["dnsSuffix"] for one in known if one["id"] == partition)


@dataclass(frozen=True)
class Place:
    """Which stack, and where: what the pseudo parameters say."""

    region: str
    name: str
    id: str

    def scope(self, wanted: Wanted, reference: Reference) -> Scope:
        partition, suffix = _partition(self.region)
        pseudo = {
            "AWS::AccountId": DEFAULT_ACCOUNT_ID,
            "AWS::NotificationARNs": [],
            "AWS::Partition": partition,
            "AWS::Region": self.region,
            "AWS::StackId": self.id,
            "AWS::StackName": self.name,
            "AWS::URLSuffix": suffix,
        }
        return Scope(wanted.body, parameters.typed(wanted.body, wanted.parameters), pseudo, reference)

    def properties(self, type_name: str, properties: dict[str, Any], tags: dict[str, str]) -> dict[str, Any]:
        """The properties in the schema's types, with the stack's tags."""
        fitted = schema.fitted(type_name, self.region, properties)
        return schema.with_tags(type_name, self.region, fitted, tags)

    def declared(self, wanted: Wanted) -> dict[str, Declared]:
        """The resources in the order of their making, what they wait for still unknown. Raises AwsError."""
        types = {name: node["Type"] for name, node in wanted.body["Resources"].items()}
        self._check_types(types)

        def reference(logical: str, attribute: str) -> Unknown:
            if attribute and attribute not in schema.attributes(types[logical], self.region):
                said = f"resource {logical} does not support attribute type {attribute} in Fn::GetAtt"
                raise invalid(f"Template error: {said}")
            return symbol(logical, attribute)

        scope = self.scope(wanted, reference)
        found = scope.declared()
        scope.outputs()
        for logical, one in found.items():
            for name in sorted(set(one.properties) - KINDS[one.type].properties):
                said = f"the sandbox's CloudFormation does not set {name} of {one.type} ({logical})"
                raise AwsError(501, "NotImplemented", said)
        return {
            logical: replace(one, properties=self.properties(one.type, one.properties, wanted.tags))
            for logical, one in found.items()
        }

    def outputs(self, wanted: Wanted) -> dict[str, tuple[Any, str]]:
        return self.scope(wanted, symbol).outputs()

    def _check_types(self, types: dict[str, str]) -> None:
        unknown = sorted({name for name in types.values() if not schema.exists(name, self.region)})
        if unknown:
            raise invalid(f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]")
        unserved = sorted(set(types.values()) - set(KINDS))
        if unserved:
            said = f"the sandbox's CloudFormation does not serve {', '.join(unserved)}; see {__name__}"
            raise AwsError(501, "NotImplemented", said)


def needed_capability(wanted: Wanted) -> str | None:
    """The capability that the template needs and the request lacks."""
    roles = [node for node in wanted.body["Resources"].values() if node["Type"].startswith("AWS::IAM::")]
    given = set(wanted.capabilities)
    if any("RoleName" in node.get("Properties", {}) for node in roles):
        return None if "CAPABILITY_NAMED_IAM" in given else "CAPABILITY_NAMED_IAM"
    return "CAPABILITY_IAM" if roles and not given & {"CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"} else None


# Changes


@dataclass
class Change:
    """One line of a change set; ``replacement`` is True, False or Conditional, as AWS writes it."""

    action: str
    logical: str
    type: str
    physical: str = ""
    replacement: str = ""
    details: list[dict[str, Any]] = field(default_factory=list)

    def reply(self) -> dict[str, Any]:
        """As DescribeChangeSet gives it."""
        found: dict[str, Any] = {
            "Action": self.action,
            "LogicalResourceId": self.logical,
            "ResourceType": self.type,
            "Scope": sorted({detail["Target"]["Attribute"] for detail in self.details}),
            "Details": self.details,
        }
        if self.physical:
            found["PhysicalResourceId"] = self.physical
        if self.replacement:
            found["Replacement"] = self.replacement
        return {"Type": "Resource", "ResourceChange": found}


class Comparison:
    """A stack as it was asked to be, and as it is asked to be now."""

    def __init__(self, place: Place, old: Wanted | None, new: Wanted, resources: dict[str, Resource]) -> None:
        self._place, self._old, self._new, self._resources = place, old, new, resources
        self.declared = place.declared(new)
        before = place.declared(old) if old else {}
        self.changes: dict[str, Change] = {}
        for logical, one in self.declared.items():
            change = self._change(before.get(logical), one)
            if change:
                self.changes[logical] = change
        for logical, one in reversed(before.items()):
            if logical not in self.declared:
                self.changes[logical] = Change("Remove", logical, one.type, self._physical(logical))

    @property
    def empty(self) -> bool:
        """Whether an update would do nothing: AWS compares what is asked for, not what exists."""
        if self._old is None:
            return False
        outputs = self._place.outputs(self._old) == self._place.outputs(self._new)
        return not self.changes and outputs and self._old.tags == self._new.tags

    def _physical(self, logical: str) -> str:
        return self._resources[logical].physical if logical in self._resources else ""

    def _change(self, before: Declared | None, now: Declared) -> Change | None:
        if before is None:
            return Change("Add", now.logical, now.type)
        if before.type != now.type:
            said = "Update of resource type is not permitted. The new template modifies resource type of the following"
            raise invalid(f"{said} resources: [{now.logical}]")
        details = [*self._direct(before, now), *self._referred(before, now)]
        if not details:
            return None
        always = [one for one in details if one["Target"]["RequiresRecreation"] != "Never"]
        certain = any(_certain(one) for one in always)
        replacement = "True" if certain else "Conditional" if always else "False"
        return Change("Modify", now.logical, now.type, self._physical(now.logical), replacement, details)

    def _direct(self, before: Declared, now: Declared) -> Iterator[dict[str, Any]]:
        """Properties whose own text or parameters changed."""
        old, new, region = before.properties, now.properties, self._place.region
        always = schema.replaced(now.type, region, old, new)
        perhaps = schema.conditional(now.type, region, old, new)
        for name in schema.changed(old, new):
            recreation = "Always" if name in always else "Conditionally" if name in perhaps else "Never"
            cause = self._parameter(now.logical, name)
            source = {"ChangeSource": "ParameterReference", "CausingEntity": cause} if cause else {}
            found = {"Target": self._target(now.type, name, recreation), "Evaluation": "Static"}
            yield {**found, "ChangeSource": "DirectModification", **source}

    def _parameter(self, logical: str, name: str) -> str | None:
        """The changed parameter that alone makes a property differ: its text is the same as before."""
        assert self._old is not None
        texts = [
            body["Resources"][logical].get("Properties", {}).get(name) for body in (self._old.body, self._new.body)
        ]
        if texts[0] != texts[1]:
            return None
        old, new = self._old.parameters, self._new.parameters
        return next((parameter for parameter in new if old.get(parameter) != new[parameter]), None)

    def _referred(self, before: Declared, now: Declared) -> Iterator[dict[str, Any]]:
        """Properties whose text is the same, but what they refer to changes."""
        own = set(schema.changed(before.properties, now.properties))
        for name, value in now.properties.items():
            for logical, attribute in sorted(schema.undecided(value)) if name not in own else ():
                change = self.changes.get(logical)
                if change is None or (not attribute and change.replacement == "False"):
                    continue
                # As if it had the new value already
                after = {**now.properties, name: _settled(value, (logical, attribute))}
                always = schema.replaced(now.type, self._place.region, now.properties, after)
                target = self._target(now.type, name, "Always" if name in always else "Never")
                source = "ResourceAttribute" if attribute else "ResourceReference"
                entity = f"{logical}.{attribute}" if attribute else logical
                found = {"Target": target, "Evaluation": "Dynamic", "ChangeSource": source}
                yield {**found, "CausingEntity": entity}

    def _target(self, type_name: str, name: str, recreation: str) -> dict[str, str]:
        if schema.is_tags(type_name, self._place.region, name):
            return {"Attribute": "Tags", "RequiresRecreation": recreation}
        return {"Attribute": "Properties", "Name": name, "RequiresRecreation": recreation}


def _certain(detail: dict[str, Any]) -> bool:
    return bool(detail["Evaluation"] == "Static" and detail["Target"]["RequiresRecreation"] == "Always")


def _settled(value: Any, pair: tuple[str, str]) -> Any:
    """The value with the unknowns of one reference changed."""
    if isinstance(value, Unknown):
        return f"new {value.text}" if pair in value.of else value
    if isinstance(value, dict):
        return {key: _settled(element, pair) for key, element in value.items()}
    return [_settled(element, pair) for element in value] if isinstance(value, list) else value
