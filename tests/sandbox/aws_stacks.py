"""A sandbox with its CloudFormation, and the pieces of templates, for tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cisdriver.sandbox.aws import Endpoint, Sandbox


class Stacks:
    """A running sandbox with its CloudFormation."""

    def __init__(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        self.sandbox, self.endpoint = sandbox, endpoint
        self.api, self.ec2 = self.client("cloudformation"), self.client("ec2")

    def client(self, service: str) -> Any:
        return self.endpoint.client(service)

    def make(self, name: str, body: str | dict[str, Any], **more: Any) -> dict[str, Any]:
        self.api.create_stack(StackName=name, TemplateBody=text(body), **more)
        return self.stack(name)

    def change(self, name: str, body: str | dict[str, Any], **more: Any) -> dict[str, Any]:
        self.api.update_stack(StackName=name, TemplateBody=text(body), **more)
        return self.stack(name)

    def remove(self, name: str) -> dict[str, Any]:
        identity = self.stack(name)["StackId"]
        self.api.delete_stack(StackName=name)
        return self.stack(identity)

    def stack(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.describe_stacks(StackName=name)["Stacks"][0]
        found["Outputs"] = {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}
        return found

    def events(self, name: str) -> list[tuple[str, str]]:
        """Logical id and status of each event, oldest first."""
        found = self.api.describe_stack_events(StackName=name)["StackEvents"]
        return [(one["LogicalResourceId"], one["ResourceStatus"]) for one in reversed(found)]

    def reason(self, name: str, logical: str) -> str:
        """Why a resource failed, the newest reason of it."""
        found = self.api.describe_stack_events(StackName=name)["StackEvents"]
        failed = [one for one in found if one["LogicalResourceId"] == logical and "FAILED" in one["ResourceStatus"]]
        return str(failed[0]["ResourceStatusReason"])

    def physical(self, name: str, logical: str) -> str:
        reply = self.api.describe_stack_resources(StackName=name, LogicalResourceId=logical)
        return str(reply["StackResources"][0]["PhysicalResourceId"])


def text(body: str | dict[str, Any]) -> str:
    return body if isinstance(body, str) else json.dumps(body)


def body(resources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources, **more}


def resource(kind: str, **more: Any) -> dict[str, Any]:
    """A resource; capitalised names that a resource may have beside its properties are told apart by their own list."""
    beside = {name: more.pop(name) for name in ("DependsOn", "Condition", "DeletionPolicy") if name in more}
    return {"Type": f"AWS::{kind}", "Properties": more, **beside}


def vpc(**more: Any) -> dict[str, Any]:
    return resource("EC2::VPC", CidrBlock="10.7.0.0/16", **more)


def subnet(block: str, **more: Any) -> dict[str, Any]:
    return resource("EC2::Subnet", VpcId={"Ref": "Vpc"}, CidrBlock=block, **more)


def given(**values: str) -> list[dict[str, str]]:
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]


@contextmanager
def running_stacks() -> Iterator[Stacks]:
    """A sandbox whose machines are only names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        sandbox = Sandbox(machines="aws_machines:NoMachines")
        with sandbox as endpoint:
            yield Stacks(sandbox, endpoint)


@contextmanager
def left_clean(stacks: Stacks) -> Iterator[Stacks]:
    """Fail a test that leaves a stack or anything else behind."""
    yield stacks
    left = stacks.sandbox.leftovers()
    for stack in reversed(left.get("stacks", [])):  # the next test is not to blame
        stacks.api.delete_stack(StackName=stack)
    assert left == {}
