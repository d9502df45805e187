# Copyright the cisdriver authors. Apache-2.0.
"""Filter workload_documents: what the workloads have proven, as results documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import workloads

DOCUMENTATION = r"""
name: workload_documents
author: The cisdriver authors
short_description: The results documents of workloads, one per node group
options:
  _input:
    description: The workloads with their findings, as M(cisdriver.amazon_linux.workload_results) returns them.
    type: list
    required: true
  groups:
    description: The groups, of the lookup P(cisdriver.amazon_linux.workloads#lookup).
    type: dict
    required: true
  about:
    description: C(started) and C(seconds) of the run.
    type: dict
    required: true
  baseline:
    description: The group that is not hardened; empty for none.
    type: str
    required: true
  reports:
    description: Logs of kube-bench by group.
    type: dict
    required: true
  benchmark:
    description: The benchmark kube-bench was told.
    type: str
    required: true
  image:
    description: The image of kube-bench, whose tag is its version.
    type: str
    required: true
"""

EXAMPLES = r"""
- ansible.builtin.set_fact:
    documents: >-
      {{ found.workloads | cisdriver.amazon_linux.workload_documents(planned.groups, about, baseline='',
      reports=found.reports,
         benchmark='eks-1.8.0', image='docker.io/aquasec/kube-bench:v0.16.0') }}
"""

RETURN = r"""
_value:
  description: C(workloads) and C(kube-bench), each a document per group; C(schemas/results.json) is their schema.
  type: dict
"""


def workload_documents(
    done: list[dict[str, Any]],
    groups: Mapping[str, Any],
    about: Mapping[str, Any],
    baseline: str,
    reports: Mapping[str, str],
    benchmark: str,
    image: str,
) -> dict[str, Any]:
    version = image.partition("@")[0].rpartition(":")[2]
    return {
        "workloads": workloads.documents(done, groups, about, baseline),
        "kube-bench": workloads.kube_bench(reports, groups, about, benchmark, version),
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"workload_documents": workload_documents}
