# Copyright the cisdriver authors. Apache-2.0.
"""Lookup workloads: what is ordered of a cluster to prove its node groups."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import workloads

DOCUMENTATION = r"""
name: workloads
author: The cisdriver authors
short_description: The workloads of every node group, with their objects
options:
  _terms:
    description: The nodes of the cluster, as its API has them.
  known:
    description: The workloads there are.
    type: list
    elements: dict
    required: true
  options:
    description: >-
      The variables of role P(cisdriver.amazon_linux.workloads#role) without their prefix, C(used_ports), and C(now) in
      seconds.
    type: dict
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.set_fact:
    planned: "{{ lookup('cisdriver.amazon_linux.workloads', nodes, known=workloads_known, options=options) }}"
"""

RETURN = r"""
_raw:
  description: C(groups) with their nodes, C(workloads) with their objects, and the C(namespaces) they are in.
  type: list
  elements: dict
"""


class LookupModule(LookupBase):
    """Ansible's entry point."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        options = self.get_option("options")
        try:
            groups = workloads.groups(terms[0], options["groups"])
            if options["baseline"] and options["baseline"] not in groups:
                raise workloads.WorkloadsError(
                    f"workloads_baseline is {options['baseline']}; the groups are: {', '.join(groups)}"
                )
            planned = workloads.plan(self.get_option("known"), groups, options)
        except workloads.WorkloadsError as error:
            raise AnsibleError(str(error)) from error
        spaces = workloads.namespaces(planned, options["run_id"], time.time())
        return [{"groups": groups, "workloads": planned, "namespaces": spaces}]
