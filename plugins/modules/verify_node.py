#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module verify_node: looks whether a machine would still join a cluster and serve."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_node
author: The cisdriver authors
short_description: Looks whether a machine still works as a node of Kubernetes
description:
  - Checks what kubelet, the container runtime, the network plugin and those who administer the node rely on, as it is
    now and as the next boot will make it.
  - Never changes anything that outlives it, and never fails because a check does; a check that could not look has
    status C(error).
  - Then the controller logs in a second time by ssh, with sudo, before the first login is let go; the check is called
    C(second_login).
options:
  failed_before:
    description: Units that had failed before the node was hardened; that they still fail is no finding.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.verify_node:
  register: verified
"""

RETURN = r"""
checks:
  description: A list of C({name, title, why, status, reason, evidence}), in the order of the report.
  type: list
  returned: always
node:
  description: What was looked at, C({name, os, kernel, seconds, started}).
  type: dict
  returned: always
"""

import datetime
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import registry


def main() -> None:
    options = {"failed_before": {"type": "list", "elements": "str", "default": []}}
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    began = time.monotonic()
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    node = core.Node()
    node.memo["failed_before"] = module.params["failed_before"]
    checks = registry.run_all(node)
    about = {**core.about(node), "started": started, "seconds": round(time.monotonic() - began, 3)}
    module.exit_json(changed=False, checks=checks, node=about)


if __name__ == "__main__":
    main()
