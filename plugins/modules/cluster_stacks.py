#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module cluster_stacks: the stacks of a cluster as they are, with what failed in them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_stacks
author: The cisdriver authors
short_description: Describe the stacks of a cluster
description:
  - Lists the stacks that carry the tag C(cisdriver:cluster) of the cluster, each with its status.
  - For a stack whose last operation failed, tells the resource that failed first, and AWS's words.
    C(amazon.aws.cloudformation_info) lists events, of which that one has to be found among those of the roll-back.
options:
  name: {description: Name of the cluster., type: str, required: true}
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Look at the stacks
  cisdriver.amazon_linux.cluster_stacks:
    name: cisdriver
"""

RETURN = r"""
stacks:
  description: >-
    C({name, key, id, status, reason, created, updated, outputs, parameters, tags}) of each, in the order in which they
    are made.
  returned: success
  type: list
  elements: dict
failures:
  description: Key to what became of it, in a sentence.
  returned: success
  type: dict
"""

import contextlib

with contextlib.suppress(ImportError):  # AnsibleAWSModule says what is missing
    from botocore.exceptions import BotoCoreError, ClientError

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster import stacks as cluster_stacks

#: A stack in one of these has failed, or has gone back to what it was.
_FAILED = ("FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_IN_PROGRESS")


def main() -> None:
    module = AnsibleAWSModule(argument_spec={"name": {"type": "str", "required": True}}, supports_check_mode=True)
    cfn = module.client("cloudformation")
    try:
        found = cluster_stacks.find(cfn, module.params["name"])
        failures = {
            key: cluster_stacks.explain(stack, cluster_stacks.failure(cfn, stack))
            for key, stack in found.items()
            if stack["status"].endswith(_FAILED)
        }
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg="The stacks of the cluster could not be described")
    else:
        module.exit_json(changed=False, stacks=list(found.values()), failures=failures)


if __name__ == "__main__":
    main()
