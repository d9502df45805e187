# Copyright the cisdriver authors. Apache-2.0.
"""Every check of verify_node, in the order of the report."""

from __future__ import annotations

from typing import Any, Dict, List

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe.core import Node
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import (
    access,
    containers,
    core,
    kernel,
    name_and_time,
    network,
    paths,
    storage,
    units,
)

TOPICS = (kernel, network, name_and_time, units, paths, access, storage, containers)
CHECKS: Dict[str, core.Check] = {
    one.name: one for topic in TOPICS for one in vars(topic).values() if isinstance(one, core.Check)
}


def run_all(node: Node) -> List[Dict[str, Any]]:
    return [core.run(node, one) for one in CHECKS.values()]
