# Copyright the cisdriver authors. Apache-2.0.
"""Filter results_document: an audit's findings as the results document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue, results

DOCUMENTATION = r"""
name: results_document
author: The cisdriver authors
short_description: The results document of an audit
description:
  - Joins what the module M(cisdriver.amazon_linux.audit) found with titles, levels, exceptions and scores.
options:
  _input:
    description: What the module returned.
    type: dict
    required: true
  plan:
    description: The plan the module was given.
    type: dict
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.set_fact:
    cis_audit: "{{ audit_found | cisdriver.amazon_linux.results_document(audit_plan) }}"
"""

RETURN = r"""
_value:
  description: The document; C(schemas/results.json) is its schema.
  type: dict
"""


def results_document(found: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    selection = catalogue.Selection(
        plan["benchmark"],
        plan["level"],
        plan["profile"],
        only=tuple(plan["only"]),
        skip=tuple(plan["skip"]),
        strict=tuple(plan["strict"]),
    )
    source = {"name": "cisdriver audit", "version": catalogue.version()}
    try:
        return results.document(selection, found["findings"], found["node"], source)
    except catalogue.CatalogueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"results_document": results_document}
