"""Change sets: what an update or a creation would do, kept until it is executed or deleted."""

from __future__ import annotations

import uuid
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID

from ..wire import Call
from ..world import AwsError, Before, Reply, World
from .operations import (
    LOCK,
    check_updatable,
    comparison_of,
    found_stack,
    given_only,
    live,
    served,
    shown_parameters,
    stacks,
    wanted_of,
)
from .stack import ChangeSet, Stack, now
from .template import invalid


def create_change_set(world: World, call: Call) -> Reply:
    given = served(
        call, "StackName", "ChangeSetName", "ChangeSetType", "TemplateBody", "UsePreviousTemplate", "Parameters",
        "Tags", "Capabilities", "Description", "ClientToken",
    )  # fmt: skip
    kind, name = given.get("ChangeSetType", "UPDATE"), given["ChangeSetName"]
    with LOCK:
        stack = _stack_of_change_set(world, call, kind)
        if name in stack.change_sets:
            raise AwsError(400, "AlreadyExistsException", f"ChangeSet {name} already exists")
        wanted = wanted_of(given, None if kind == "CREATE" else stack.wanted)
        comparison = comparison_of(stack, wanted)
        if stack not in world.stacks:
            world.stacks.append(stack)
    status, reason, execution = "CREATE_COMPLETE", "", "AVAILABLE"
    if comparison.empty:
        reason = (
            "The submitted information didn't contain changes. Submit different information to create a change set."
        )
        status, execution = "FAILED", "UNAVAILABLE"
    identity = f"arn:aws:cloudformation:{call.region}:{DEFAULT_ACCOUNT_ID}:changeSet/{name}/{uuid.uuid4()}"
    said = given.get("Description", "")
    stack.change_sets[name] = ChangeSet(
        identity, name, kind, wanted, comparison, said, now(), status, reason, execution
    )
    return {"Id": identity, "StackId": stack.place.id}


def _stack_of_change_set(world: World, call: Call, kind: str) -> Stack:
    """The stack; for CREATE a new one, which stays REVIEW_IN_PROGRESS until the change set is executed."""
    name = call.parameters["StackName"]
    stack = live(world, call, name)
    if kind == "CREATE":
        if stack is None:
            return Stack(world, call.region, name, wanted_of(call.parameters, None))
        if stack.status != "REVIEW_IN_PROGRESS":
            raise invalid(f"Stack [{name}] already exists and cannot be created again with the changeSet [{name}].")
        return stack
    if kind != "UPDATE":
        raise AwsError(501, "NotImplemented", f"the sandbox's CloudFormation makes no change sets of type {kind}")
    if stack is None:
        raise invalid(f"Stack [{name}] does not exist")
    check_updatable(stack)
    return stack


def _change_set(world: World, call: Call) -> tuple[Stack, ChangeSet]:
    """A change set by its id, or by its name and that of its stack. Raises AwsError."""
    name, stack_name = call.parameters["ChangeSetName"], call.parameters.get("StackName")
    candidates = [found_stack(world, call, stack_name)] if stack_name else list(stacks(world, call))
    for stack in candidates:
        for one in stack.change_sets.values():
            if name == one.id or (stack_name and name == one.name):
                return stack, one
    raise AwsError(404, "ChangeSetNotFound", f"ChangeSet [{name}] does not exist")


def _change_set_summary(stack: Stack, one: ChangeSet) -> dict[str, Any]:
    return given_only(
        {
            "StackId": stack.place.id,
            "StackName": stack.place.name,
            "ChangeSetId": one.id,
            "ChangeSetName": one.name,
            "ExecutionStatus": one.execution,
            "Status": one.status,
            "StatusReason": one.reason or None,
            "CreationTime": one.created,
            "Description": one.description or None,
            "IncludeNestedStacks": False,
        }
    )


def describe_change_set(world: World, call: Call) -> Reply:
    served(call, "ChangeSetName", "StackName")
    stack, one = _change_set(world, call)
    return {
        **_change_set_summary(stack, one),
        "Parameters": shown_parameters(one.wanted),
        "NotificationARNs": [],
        "RollbackConfiguration": {},
        "Capabilities": list(one.wanted.capabilities),
        "Tags": [{"Key": key, "Value": value} for key, value in one.wanted.tags.items()],
        "Changes": [change.reply() for change in one.comparison.changes.values()],
    }


def list_change_sets(world: World, call: Call) -> Reply:
    stack = found_stack(world, call, served(call, "StackName")["StackName"])
    return {"Summaries": [_change_set_summary(stack, one) for one in stack.change_sets.values()]}


def delete_change_set(world: World, call: Call) -> Reply:
    served(call, "ChangeSetName", "StackName")
    stack, one = _change_set(world, call)
    del stack.change_sets[one.name]
    return {}


def execute_change_set(world: World, call: Call) -> Reply:
    given = served(call, "ChangeSetName", "StackName")
    stack, one = _change_set(world, call)
    if one.execution != "AVAILABLE":
        said = f"ChangeSet [{one.id}] cannot be executed in its current status of [{one.status}]"
        raise AwsError(400, "InvalidChangeSetStatus", said)
    del stack.change_sets[one.name]
    stack.token = given.get("ClientRequestToken", "")
    if one.kind == "CREATE":
        stack.wanted = one.wanted
        stack.create(one.wanted, one.comparison.declared)
    else:
        check_updatable(stack)
        stack.update(one.wanted, one.comparison.declared)
    return {}


OPERATIONS: dict[str, Before] = {
    "CreateChangeSet": create_change_set,
    "DeleteChangeSet": delete_change_set,
    "DescribeChangeSet": describe_change_set,
    "ExecuteChangeSet": execute_change_set,
    "ListChangeSets": list_change_sets,
}
