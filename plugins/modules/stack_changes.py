#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module stack_changes: what applying templates would change, without applying them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_changes
author: The cisdriver authors
short_description: Tell what applying CloudFormation templates would change
description:
  - For a stack that is there, makes a change set, reads and deletes it. For one that is not, lists the resources of the
    template whose condition holds; a change set would make the stack.
  - C(amazon.aws.cloudformation) in check mode says of a stack that is not there no more than that it is new.
options:
  stacks:
    description: The stacks, in the order in which they are made.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the stack., type: str, required: true}
      template: {description: Template as text., type: str, required: true}
      parameters: {description: Parameter to value., type: dict, default: {}}
      present: {description: Whether the stack is there and takes updates., type: bool, required: true}
  tags: {description: Tags of the stacks., type: dict, default: {}}
  timeout: {description: Seconds a change set may take., type: int, default: 300}
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: What would change
  cisdriver.amazon_linux.stack_changes:
    stacks:
      - name: cisdriver-network
        template: "{{ lookup('ansible.builtin.file', 'network.yml') }}"
        present: false
"""

RETURN = r"""
changes:
  description: One item per resource; an empty list when nothing would change.
  returned: success
  type: list
  elements: dict
  sample: [{stack: cisdriver-network, action: Add, resource: Vpc, type: "AWS::EC2::VPC", replacement: ""}]
"""

import contextlib
import time
import uuid
from typing import Any

with contextlib.suppress(ImportError):  # AnsibleAWSModule says what is missing
    from botocore.exceptions import BotoCoreError, ClientError

with contextlib.suppress(ImportError):  # ansible-core itself needs it on the controller
    import yaml

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

_CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]
#: What CloudFormation says of a change set without changes.
_NOTHING = ("didn't contain changes", "No updates are to be performed")


class ChangeSetError(Exception):
    """A change set could not be made; the message is CloudFormation's."""


def main() -> None:
    stack = {
        "name": {"type": "str", "required": True},
        "template": {"type": "str", "required": True},
        "parameters": {"type": "dict", "default": {}},
        "present": {"type": "bool", "required": True},
    }
    module = AnsibleAWSModule(
        argument_spec={
            "stacks": {"type": "list", "elements": "dict", "required": True, "options": stack},
            "tags": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    cfn, found = module.client("cloudformation"), []
    for one in module.params["stacks"]:
        try:
            if one["present"]:
                found += _of_change_set(cfn, one, module.params["tags"], module.params["timeout"])
            else:
                found += of_template(one)
        except ChangeSetError as error:
            module.fail_json(msg=f"No change set of the stack {one['name']} could be made: {error}")
        except (BotoCoreError, ClientError) as error:
            module.fail_json_aws(error, msg=f"No change set of the stack {one['name']} could be made")
    module.exit_json(changed=False, changes=found)


Change = dict[str, str]


def _of_change_set(cfn: Any, stack: dict[str, Any], tags: dict[str, str], timeout: int) -> list[Change]:
    made = cfn.create_change_set(
        StackName=stack["name"],
        ChangeSetName=f"cisdriver-{uuid.uuid4()}",
        TemplateBody=stack["template"],
        Parameters=[{"ParameterKey": name, "ParameterValue": str(it)} for name, it in stack["parameters"].items()],
        Tags=[{"Key": name, "Value": str(it)} for name, it in tags.items()],
        Capabilities=_CAPABILITIES,
    )
    try:
        return [_plain(stack["name"], one) for one in _wait(cfn, made["Id"], timeout)]
    finally:
        cfn.delete_change_set(ChangeSetName=made["Id"])


def _wait(cfn: Any, change_set: str, timeout: int) -> list[dict[str, Any]]:
    until = time.monotonic() + timeout
    while True:
        changes: list[dict[str, Any]] = []
        reply: dict[str, Any] = {}
        for reply in cfn.get_paginator("describe_change_set").paginate(ChangeSetName=change_set):
            changes += reply.get("Changes", [])
        if reply["Status"] == "CREATE_COMPLETE":
            return changes
        reason = reply.get("StatusReason", "")
        if reply["Status"] == "FAILED":
            if any(words in reason for words in _NOTHING):
                return []
            raise ChangeSetError(reason)
        if time.monotonic() > until:
            raise ChangeSetError(f"it is {reply['Status']} after {timeout} seconds")
        time.sleep(2)


def _plain(stack: str, change: dict[str, Any]) -> Change:
    one = change["ResourceChange"]
    return {
        "stack": stack,
        "action": one["Action"],
        "resource": one["LogicalResourceId"],
        "type": one["ResourceType"],
        "replacement": one.get("Replacement", ""),
    }


def of_template(stack: dict[str, Any]) -> list[Change]:
    """Every resource that a new stack would have. The template is plain YAML, with intrinsics written in full."""
    template = yaml.safe_load(stack["template"])
    given = {name: one.get("Default", "") for name, one in template.get("Parameters", {}).items()}
    given.update(stack["parameters"])
    conditions = template.get("Conditions", {})
    return [
        {"stack": stack["name"], "action": "Add", "resource": name, "type": one["Type"], "replacement": ""}
        for name, one in template["Resources"].items()
        if "Condition" not in one or holds({"Condition": one["Condition"]}, conditions, given)
    ]


def holds(condition: Any, conditions: dict[str, Any], given: dict[str, Any]) -> bool:
    """Whether a condition is true. ``conditions`` are the template's, ``given`` the values of its parameters."""
    ((name, value),) = condition.items()
    if name == "Condition":
        return holds(conditions[value], conditions, given)
    if name == "Fn::Equals":
        return _value(value[0], given) == _value(value[1], given)
    if name == "Fn::Not":
        return not holds(value[0], conditions, given)
    if name == "Fn::And":
        return all(holds(one, conditions, given) for one in value)
    if name == "Fn::Or":
        return any(holds(one, conditions, given) for one in value)
    raise ValueError(f"{name} is no condition that our templates use")


def _value(value: Any, given: dict[str, Any]) -> str:
    """Text of what a condition compares: a literal, a parameter, or the parts of a list joined."""
    if not isinstance(value, dict):
        return str(value)
    ((name, inner),) = value.items()
    if name == "Ref":
        return str(given[inner])
    if name == "Fn::Join":
        separator, of = inner
        return str(separator).join(_value(of, given).split(","))
    raise ValueError(f"{name} is nothing that the conditions of our templates compare")


if __name__ == "__main__":
    main()
