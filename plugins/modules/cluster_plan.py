#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module cluster_plan: what deploying a cluster will do, checked against the account before anything is begun."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_plan
author: The cisdriver authors
short_description: Check and plan the deployment of a cluster
description:
  - Reads what the account offers, refuses what cannot succeed, and returns the stacks of the cluster with the
    parameters that are known beforehand, the node groups with their images, and what is to be priced.
  - Waits for stacks of the cluster that an interrupted run has left at work, and deletes those of which CloudFormation
    takes no update any more, such as one in ROLLBACK_COMPLETE. In check mode these are only named.
  - A stack or a cluster of the same name that does not carry the tag C(cisdriver:cluster) is refused.
  - One module instead of a dozen info modules, since every refusal has to come before the first change.
options:
  name: {description: Name of the cluster., type: str, required: true}
  kubernetes_version: {description: Version; empty means the newest that an image is made for., type: str, default: ""}
  images:
    description: The node groups; without an C(id) a baseline gets the image EKS recommends.
    type: list
    elements: dict
    required: true
    suboptions:
      group: {description: Name of the node group., type: str, required: true}
      id: {description: Its image., type: str, default: ""}
      baseline: {description: Whether it is there for comparison., type: bool, default: false}
      os: {description: What the image is; by default its tags and name tell., type: str, choices: [al2023, al2]}
  nat: {description: How the nodes get out., type: str, choices: [one, three, none], default: one}
  cidr: {description: Network of the VPC., type: str, default: 10.20.0.0/16}
  vpc_id: {description: A VPC to use instead., type: str, default: ""}
  subnet_ids: {description: Its subnets., type: list, elements: str, default: []}
  existing: {description: Put node groups into a cluster that is there., type: bool, default: false}
  public_access_cidrs:
    description: Who reaches the API server from outside; empty means nobody.
    type: list
    elements: str
    default: []
  admins: {description: ARNs of more administrators., type: list, elements: str, default: []}
  log_types: {description: Logs of the control plane., type: list, elements: str, default: []}
  instance_types: {description: Types of the nodes; empty means one that fits., type: list, elements: str, default: []}
  nodes:
    description: Size of each node group.
    type: dict
    required: true
    suboptions:
      min: {description: Fewest., type: int, required: true}
      max: {description: Most., type: int, required: true}
      desired: {description: At the start., type: int, required: true}
  addon_versions: {description: Add-on to version; others take EKS's default., type: dict, default: {}}
  permissions_boundary: {description: ARN of a policy that bounds the roles., type: str, default: ""}
  tags: {description: More tags for everything., type: dict, default: {}}
  timeout: {description: Seconds to wait for stacks at work., type: int, default: 3600}
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Plan
  cisdriver.amazon_linux.cluster_plan:
    name: cisdriver
    images: [{group: al2023-level-1, id: ami-0123456789abcdef0}]
    nodes: {min: 2, max: 2, desired: 2}
"""

RETURN = r"""
plan:
  description: >-
    C({partition, account, kubernetes_version, support, end_of_standard_support, keys, tags, parameters, subnet_ids,
    existing, groups, admins, stacks, bill}); C(keys) are the stacks in the order in which they are made,
    C(stacks) those that are there.
  returned: success
  type: dict
refused:
  description: Whether the plan was refused, so that nothing was begun.
  returned: failure
  type: bool
"""

import contextlib
import time
from typing import Any

with contextlib.suppress(ImportError):  # AnsibleAWSModule says what is missing
    from botocore.exceptions import BotoCoreError, ClientError

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster import plan as planning
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster import stacks as cluster_stacks

#: Answers to an id that the user has given: wrong in the settings, not in AWS.
_WRONG_ID = ("InvalidAMIID", "InvalidSubnetID", "InvalidVpcID", "InvalidInstanceType")
_IMAGE = {
    "group": {"type": "str", "required": True},
    "id": {"type": "str", "default": ""},
    "baseline": {"type": "bool", "default": False},
    "os": {"type": "str", "choices": ["al2023", "al2"]},
}
_SIZE = {"type": "int", "required": True}
_NAMES: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "kubernetes_version": {"type": "str", "default": ""},
    "images": {"type": "list", "elements": "dict", "required": True, "options": _IMAGE},
    "nat": {"type": "str", "choices": ["one", "three", "none"], "default": "one"},
    "cidr": {"type": "str", "default": "10.20.0.0/16"},
    "vpc_id": {"type": "str", "default": ""},
    "subnet_ids": _NAMES,
    "existing": {"type": "bool", "default": False},
    "public_access_cidrs": _NAMES,
    "admins": _NAMES,
    "log_types": _NAMES,
    "instance_types": _NAMES,
    "nodes": {"type": "dict", "required": True, "options": {"min": _SIZE, "max": _SIZE, "desired": _SIZE}},
    "addon_versions": {"type": "dict", "default": {}},
    "permissions_boundary": {"type": "str", "default": ""},
    "tags": {"type": "dict", "default": {}},
    "timeout": {"type": "int", "default": 3600},
}


def main() -> None:
    module = AnsibleAWSModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        plan, deleted = run(planning.Clients(module.client), module.params, module.region, module.check_mode)
    except cluster_stacks.RefusedError as error:
        module.fail_json(msg=str(error), refused=True)
    except cluster_stacks.StackFailedError as error:
        module.fail_json(msg=str(error), refused=False)
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        module.fail_json_aws(error, msg="The cluster could not be planned", refused=code.startswith(_WRONG_ID))
    else:
        module.exit_json(changed=bool(deleted), plan=plan, deleted=deleted)


def run(
    clients: planning.Clients, settings: dict[str, Any], region: str, check_mode: bool
) -> tuple[dict[str, Any], list[str]]:
    """The plan, and the names of stacks that were deleted to be made anew."""
    planning.check(settings)
    cfn, until = clients("cloudformation"), time.monotonic() + settings["timeout"]
    found = cluster_stacks.find(cfn, settings["name"], planning.keys(settings))
    stacks = {stack["key"]: stack for stack in cluster_stacks.wait(cfn, list(found.values()), until)}
    stacks = {key: stack for key, stack in stacks.items() if stack["status"] != "DELETE_COMPLETE"}
    for stack in stacks.values():
        if stack["status"] == "UPDATE_ROLLBACK_FAILED":
            raise cluster_stacks.RefusedError(
                f"{cluster_stacks.explain(stack, cluster_stacks.failure(cfn, stack))}. Mend what it names, then "
                f"`aws cloudformation continue-update-rollback --stack-name {stack['name']}`."
            )
    unusable = [stack for stack in stacks.values() if stack["status"] in cluster_stacks.UNUSABLE]
    anew = {stack["key"]: {**stack, "parameters": {}, "outputs": {}} for stack in unusable}
    plan = planning.make(clients, settings, region, {**stacks, **anew})
    if not check_mode:
        # The last first: the network cannot go before what stands in it.
        for stack in sorted(unusable, key=lambda one: cluster_stacks.order(one["key"]), reverse=True):
            cluster_stacks.delete(cfn, [stack], until)
    plan["stacks"] = {key: stack for key, stack in stacks.items() if key not in anew}
    return plan, [] if check_mode else [stack["name"] for stack in unusable]


if __name__ == "__main__":
    main()
