# Copyright the cisdriver authors. Apache-2.0.
"""Every kind and its probe. A probe is ``check(node, spec) -> Finding``; see probe/core.py."""

from __future__ import annotations

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import sysctl

#: Kinds a rule may ``require``.
KINDS = {
    "sysctl": sysctl.check,
}
