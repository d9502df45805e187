# Copyright the cisdriver authors. Apache-2.0.
"""Facts that make a rule apply at all, as its ``applies_if`` names them."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, journald


def unmet(node: core.Node, conditions: Mapping[str, Any]) -> str:
    """The first condition that does not hold, as a reason; empty when all do.

    ``package``: this RPM is installed. ``package_absent``: it is not. ``path``: this path exists.
    ``logger: rsyslog``: rsyslog is installed, or nobody keeps logs. ``value_missing``: never; the rule waits for it.
    """
    for name, value in conditions.items():
        if name == "package" and value not in node.packages():
            return f"package {value} is not installed"
        if name == "package_absent" and value in node.packages():
            return f"package {value} is installed"
        if name == "path" and not node.exists(value):
            return f"{value} does not exist"
        if name == "logger" and value not in node.packages():
            journal = journald.kept_by_journald(node)
            if journal:
                return f"package {value} is not installed; journald keeps the logs, as {journal} says"
        if name == "value_missing":
            return f"no value is configured for {value}: cis_values has none"
    return ""
