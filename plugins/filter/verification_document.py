# Copyright the cisdriver authors. Apache-2.0.
"""Filter verification_document: the checks of a node as the results document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue, results

DOCUMENTATION = r"""
name: verification_document
author: The cisdriver authors
short_description: The results document of a verification
description:
  - What the module M(cisdriver.amazon_linux.verify_node) found, in the shape that audits have.
options:
  _input:
    description: What the module returned.
    type: dict
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.set_fact:
    verify_node_results: "{{ verify_node_found | cisdriver.amazon_linux.verification_document }}"
"""

RETURN = r"""
_value:
  description: The document; C(schemas/results.json) is its schema.
  type: dict
"""


def verification_document(found: Mapping[str, Any]) -> dict[str, Any]:
    source = {"name": "cisdriver verify_node", "version": catalogue.version()}
    return results.verification(found["checks"], found["node"], source)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"verification_document": verification_document}
