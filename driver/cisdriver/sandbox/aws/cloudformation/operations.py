"""The operations: requests in, stacks changed, replies out. Each is a ``Before`` of the layer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from ..wire import Call
from ..world import AwsError, Before, Reply, World
from . import parameters
from .plan import Comparison, Wanted, needed_capability
from .stack import Stack
from .template import Body, invalid, parse

#: Parameters that change nothing here, because one account has neither rights nor alarms nor topics.
_IDLE = frozenset({"ClientRequestToken", "NotificationARNs", "TimeoutInMinutes"})
_UPDATABLE = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"})
LOCK = threading.Lock()


def served(call: Call, *names: str) -> dict[str, Any]:
    """The parameters. Raises AwsError 501 for one that would do nothing."""
    others = sorted(name for name, value in call.parameters.items() if value and name not in {*names, *_IDLE})
    if others:
        said = f"the sandbox's CloudFormation does not serve {', '.join(others)} of {call.operation}"
        raise AwsError(501, "NotImplemented", said)
    return call.parameters


def stacks(world: World, call: Call) -> Iterator[Stack]:
    """Newest first."""
    return (stack for stack in reversed(world.stacks) if stack.place.region == call.region)


def found_stack(world: World, call: Call, name: str) -> Stack:
    """The live stack of a name, or any of an id. Raises AwsError."""
    for stack in stacks(world, call):
        if name == stack.place.id or (name == stack.place.name and stack.status != "DELETE_COMPLETE"):
            return stack
    raise invalid(f"Stack with id {name} does not exist")


def live(world: World, call: Call, name: str) -> Stack | None:
    try:
        stack = found_stack(world, call, name)
    except AwsError:
        return None
    return None if stack.status == "DELETE_COMPLETE" else stack


def _body(given: dict[str, Any], before: Wanted | None) -> tuple[str, Body]:
    if given.get("UsePreviousTemplate"):
        if before is None:
            raise invalid("No template to use: the stack does not exist")
        return before.text, before.body
    if "TemplateBody" not in given:
        raise invalid("Either Template URL or Template Body must be specified.")
    text = given["TemplateBody"]
    if len(text.encode()) > 51200:
        said = (
            "Value at 'templateBody' failed to satisfy constraint: Member must have length less than or equal to 51200"
        )
        raise invalid(f"1 validation error detected: {said}")
    return text, parse(text)


def wanted_of(given: dict[str, Any], before: Wanted | None) -> Wanted:
    """What a request asks for; what it leaves out, an update keeps. Raises AwsError."""
    text, body = _body(given, before)
    texts = parameters.read(body, given.get("Parameters", []), before.parameters if before else {})
    tags = {tag["Key"]: tag["Value"] for tag in given["Tags"]} if "Tags" in given else before.tags if before else {}
    wanted = Wanted(text, body, texts, tags, tuple(given.get("Capabilities", ())))
    needed = needed_capability(wanted)
    if needed:
        raise AwsError(400, "InsufficientCapabilitiesException", f"Requires capabilities : [{needed}]")
    return wanted


# Stacks


def create_stack(world: World, call: Call) -> Reply:
    given = served(
        call, "StackName", "TemplateBody", "Parameters", "Tags", "Capabilities", "OnFailure", "DisableRollback",
        "EnableTerminationProtection", "StackPolicyBody",
    )  # fmt: skip
    wanted = wanted_of(given, None)
    with LOCK:
        if live(world, call, given["StackName"]):
            raise AwsError(400, "AlreadyExistsException", f"Stack [{given['StackName']}] already exists")
        stack = Stack(world, call.region, given["StackName"], wanted)
        declared = stack.place.declared(wanted)
        world.stacks.append(stack)
    stack.token = given.get("ClientRequestToken", "")
    stack.on_failure = given.get("OnFailure", "DO_NOTHING" if given.get("DisableRollback") else "ROLLBACK")
    stack.protected = given.get("EnableTerminationProtection", False)
    stack.policy = given.get("StackPolicyBody", "")
    stack.create(wanted, declared)
    return {"StackId": stack.place.id}


def comparison_of(stack: Stack, wanted: Wanted) -> Comparison:
    before = None if stack.status == "REVIEW_IN_PROGRESS" else stack.wanted
    return Comparison(stack.place, before, wanted, stack.resources)


def check_updatable(stack: Stack) -> None:
    if stack.status not in _UPDATABLE:
        raise invalid(f"Stack:{stack.place.id} is in {stack.status} state and can not be updated.")


def update_stack(world: World, call: Call) -> Reply:
    given = served(call, "StackName", "TemplateBody", "UsePreviousTemplate", "Parameters", "Tags", "Capabilities")
    stack = live(world, call, given["StackName"])
    if stack is None:
        raise invalid(f"Stack [{given['StackName']}] does not exist")
    check_updatable(stack)
    wanted = wanted_of(given, stack.wanted)
    comparison = comparison_of(stack, wanted)
    if comparison.empty:
        raise invalid("No updates are to be performed.")
    stack.token = given.get("ClientRequestToken", "")
    stack.update(wanted, comparison.declared)
    return {"StackId": stack.place.id}


def delete_stack(world: World, call: Call) -> Reply:
    given = served(call, "StackName")
    stack = live(world, call, given["StackName"])
    if stack is not None:
        if stack.protected:
            said = f"Stack [{stack.place.name}] cannot be deleted while TerminationProtection is enabled"
            raise invalid(said)
        stack.token = given.get("ClientRequestToken", "")
        stack.delete()
    return {}


def describe_stacks(world: World, call: Call) -> Reply:
    given = served(call, "StackName")
    if "StackName" in given:
        return {"Stacks": [_described(found_stack(world, call, given["StackName"]))]}
    return {"Stacks": [_described(stack) for stack in stacks(world, call) if stack.status != "DELETE_COMPLETE"]}


def _described(stack: Stack) -> dict[str, Any]:
    found = {
        **_summary(stack),
        "Description": stack.wanted.body.get("Description"),
        "Parameters": shown_parameters(stack.wanted),
        "DisableRollback": stack.on_failure == "DO_NOTHING",
        "NotificationARNs": [],
        "RollbackConfiguration": {},
        "Capabilities": list(stack.wanted.capabilities),
        "Tags": [{"Key": key, "Value": value} for key, value in stack.wanted.tags.items()],
        "EnableTerminationProtection": stack.protected,
        "Outputs": [_output(name, value, said) for name, (value, said) in stack.outputs.items()] or None,
    }
    found.pop("TemplateDescription", None)
    return given_only(found)


def _output(name: str, value: Any, said: str) -> dict[str, str]:
    return {"OutputKey": name, "OutputValue": value, **({"Description": said} if said else {})}


def _summary(stack: Stack) -> dict[str, Any]:
    return given_only(
        {
            "StackId": stack.place.id,
            "StackName": stack.place.name,
            "TemplateDescription": stack.wanted.body.get("Description"),
            "CreationTime": stack.created,
            "LastUpdatedTime": stack.updated,
            "DeletionTime": stack.deleted,
            "StackStatus": stack.status,
            "StackStatusReason": stack.reason or None,
            "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
        }
    )


def given_only(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def shown_parameters(wanted: Wanted) -> list[dict[str, str]]:
    declared = wanted.body.get("Parameters", {})
    hidden = {name for name, node in declared.items() if str(node.get("NoEcho", "")).lower() == "true"}
    shown = {name: "****" if name in hidden else text for name, text in wanted.parameters.items()}
    return [{"ParameterKey": name, "ParameterValue": text} for name, text in shown.items()]


def list_stacks(world: World, call: Call) -> Reply:
    wanted = set(served(call, "StackStatusFilter").get("StackStatusFilter", []))
    return {"StackSummaries": [_summary(one) for one in stacks(world, call) if not wanted or one.status in wanted]}


def describe_stack_events(world: World, call: Call) -> Reply:
    stack = found_stack(world, call, served(call, "StackName")["StackName"])
    return {"StackEvents": list(reversed(stack.events))}


def _resources(stack: Stack, when: str) -> list[dict[str, Any]]:
    return [
        given_only(
            {
                "LogicalResourceId": one.logical,
                "PhysicalResourceId": one.physical or None,
                "ResourceType": one.type,
                when: one.changed,
                "ResourceStatus": one.status,
                "ResourceStatusReason": one.reason or None,
                "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
            }
        )
        for one in stack.resources.values()
    ]


def list_stack_resources(world: World, call: Call) -> Reply:
    stack = found_stack(world, call, served(call, "StackName")["StackName"])
    return {"StackResourceSummaries": _resources(stack, "LastUpdatedTimestamp")}


def describe_stack_resources(world: World, call: Call) -> Reply:
    given = served(call, "StackName", "LogicalResourceId")
    stack, logical = found_stack(world, call, given.get("StackName", "")), given.get("LogicalResourceId")
    names = {"StackId": stack.place.id, "StackName": stack.place.name}
    found = _resources(stack, "Timestamp")
    return {"StackResources": [{**names, **one} for one in found if logical in (None, one["LogicalResourceId"])]}


def get_template(world: World, call: Call) -> Reply:
    given = served(call, "StackName", "TemplateStage")
    stack = found_stack(world, call, given["StackName"])
    return {"TemplateBody": stack.wanted.text, "StagesAvailable": ["Original", "Processed"]}


def get_template_summary(world: World, call: Call) -> Reply:
    given = served(call, "StackName", "TemplateBody")
    before = found_stack(world, call, given["StackName"]).wanted if "StackName" in given else None
    _, body = _body({**given, "UsePreviousTemplate": before is not None}, before)
    types = sorted({node["Type"] for node in body["Resources"].values()})
    return {**_validated(body), "ResourceTypes": types, "Version": str(body.get("AWSTemplateFormatVersion", ""))}


def validate_template(world: World, call: Call) -> Reply:  # noqa: ARG001 - every operation has the same two
    _, body = _body(served(call, "TemplateBody"), None)
    found = _validated(body)
    for one in found["Parameters"]:
        one.pop("ParameterType")
    return found


def _validated(body: Body) -> dict[str, Any]:
    shown = [
        given_only(
            {
                "ParameterKey": name,
                "DefaultValue": str(node["Default"]) if "Default" in node else None,
                "ParameterType": node["Type"],
                "NoEcho": str(node.get("NoEcho", "")).lower() == "true",
                "Description": node.get("Description"),
            }
        )
        for name, node in body.get("Parameters", {}).items()
    ]
    needed = needed_capability(Wanted("", body, {}, {}, ()))
    said = {"Capabilities": [needed], "CapabilitiesReason": "The following resource(s) require capabilities"}
    return given_only({"Parameters": shown, "Description": body.get("Description"), **(said if needed else {})})


def update_termination_protection(world: World, call: Call) -> Reply:
    given = served(call, "StackName", "EnableTerminationProtection")
    stack = found_stack(world, call, given["StackName"])
    stack.protected = given["EnableTerminationProtection"]
    return {"StackId": stack.place.id}


def set_stack_policy(world: World, call: Call) -> Reply:
    given = served(call, "StackName", "StackPolicyBody")
    found_stack(world, call, given["StackName"]).policy = given.get("StackPolicyBody", "")
    return {}


def get_stack_policy(world: World, call: Call) -> Reply:
    policy = found_stack(world, call, served(call, "StackName")["StackName"]).policy
    return {"StackPolicyBody": policy} if policy else {}


OPERATIONS: dict[str, Before] = {
    "CreateStack": create_stack,
    "DeleteStack": delete_stack,
    "DescribeStackEvents": describe_stack_events,
    "DescribeStackResources": describe_stack_resources,
    "DescribeStacks": describe_stacks,
    "GetStackPolicy": get_stack_policy,
    "GetTemplate": get_template,
    "GetTemplateSummary": get_template_summary,
    "ListStackResources": list_stack_resources,
    "ListStacks": list_stacks,
    "SetStackPolicy": set_stack_policy,
    "UpdateStack": update_stack,
    "UpdateTerminationProtection": update_termination_protection,
    "ValidateTemplate": validate_template,
}
