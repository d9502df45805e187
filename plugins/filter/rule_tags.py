# Copyright the cisdriver authors. Apache-2.0.
"""Filter rule_tags: the tags of a topic's task, one per name its rules answer to."""

from __future__ import annotations

from typing import Any

from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

DOCUMENTATION = r"""
name: rule_tags
author: The cisdriver authors
short_description: The tags of a topic
description:
  - Returns every name by which a rule of a topic can be chosen, in any benchmark.
  - Names that are skipped are left out, or one skipped rule would skip the whole batch;
    the lookup P(cisdriver.amazon_linux.rules#lookup) then leaves out the rule.
options:
  _input:
    description: The topic, as C(role/topic).
    type: str
    required: true
  skipped:
    description: The play's C(ansible_skip_tags).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- ansible.builtin.import_tasks: kernel_parameters.yml
  tags: "{{ 'network/kernel_parameters' | cisdriver.amazon_linux.rule_tags(ansible_skip_tags) }}"
"""

RETURN = r"""
_value:
  description: Ids, slugs, topic, role, section and levels.
  type: list
  elements: str
"""


def rule_tags(path: str, skipped: Any = ()) -> list[str]:
    """Tags of ``role/topic``, sorted, less those in ``skipped``."""
    names = catalogue.load()
    tags: set[str] = set()
    for rule in names.topic(path):
        for benchmark, ids in rule.ids.items():
            for id_ in ids:
                tags |= catalogue.Entry(names.benchmarks[benchmark][id_], rule).tags
    return sorted(tags - set(skipped or ()))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"rule_tags": rule_tags}
