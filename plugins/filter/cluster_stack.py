# Copyright the cisdriver authors. Apache-2.0.
"""Filters cluster_stack, cluster_stacks, cluster_apart, cluster_document: a plan's stacks, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import cluster
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils.user_data import UserDataError

DOCUMENTATION = r"""
name: cluster_stack
author: The cisdriver authors
short_description: A stack of a cluster's plan, as CloudFormation takes it
description:
  - Reads the template of role P(cisdriver.amazon_linux.cluster#role) and fills in what differs from cluster to cluster
    beyond parameters, which are administrators, the volumes of an image, and tags.
  - Completes the parameters by the outputs of the stacks that were applied before, and fails where one lacks them.
options:
  _input:
    description: The plan that M(cisdriver.amazon_linux.cluster_plan) returned.
    type: dict
    required: true
  key:
    description: Which of its stacks, such as V(network) or V(nodes-al2023-level-1).
    type: str
    required: true
  outputs:
    description: Outputs of the stacks applied so far, by key.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- ansible.builtin.set_fact:
    network: "{{ made.plan | cisdriver.amazon_linux.cluster_stack('network') }}"
"""

RETURN = r"""
_value:
  description: C({name, key, template, parameters, present}); the template is YAML.
  type: dict
"""


def cluster_stack(
    plan: Mapping[str, Any], key: str, outputs: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, Any]:
    try:
        return cluster.stack(plan, key, outputs or {})
    except (UserDataError, cluster.MissingOutputError) as error:
        raise AnsibleFilterError(str(error)) from error


def cluster_stacks(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All stacks of a plan, as M(cisdriver.amazon_linux.stack_changes) takes them."""
    try:
        return cluster.stacks(plan)
    except UserDataError as error:
        raise AnsibleFilterError(str(error)) from error


def cluster_document(
    about: Mapping[str, Any],
    plan: Mapping[str, Any] | None,
    now: Mapping[str, Any],
    failure: Mapping[str, Any],
) -> dict[str, Any]:
    """The document of a deployment; C(schemas/deploy.json) is its schema."""
    return cluster.document(about, plan, now, failure)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {
            "cluster_stack": cluster_stack,
            "cluster_stacks": cluster_stacks,
            "cluster_apart": cluster.apart,
            "cluster_document": cluster_document,
        }
