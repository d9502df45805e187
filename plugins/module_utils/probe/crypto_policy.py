# Copyright the cisdriver authors. Apache-2.0.
"""The system-wide crypto policy: the one configured, the one in effect, and what programs really read.

A spec is a predicate about the policy's first word: ``DEFAULT:SHA1`` is DEFAULT with a sub-policy.
"""

from __future__ import annotations

import os
from typing import Any, Iterator, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

CONFIG = "/etc/crypto-policies/config"
STATE = "/etc/crypto-policies/state/current"
BACK_ENDS = "/etc/crypto-policies/back-ends"


def check(node: core.Node, spec: Any) -> core.Finding:
    if not node.exists(CONFIG):
        return core.not_applicable(f"{CONFIG} does not exist: this machine has no system-wide crypto policy")
    items = [_judged(node, "policy configured", CONFIG, spec)]
    if node.exists(STATE):
        items.append(_judged(node, "policy in effect", STATE, spec))
    for path, policy in _back_ends(node):
        if not core.holds(spec, policy):
            items.append(core.evidence(f"policy of {os.path.basename(path)}", spec, policy, False, path))
    return core.verdict(items)


def _judged(node: core.Node, name: str, path: str, spec: Any) -> core.Evidence:
    number, policy = _policy(node, path)
    base = policy.split(":")[0] if policy else None
    item = core.evidence(name, spec, base, core.holds(spec, base), f"{path}:{number}" if number else path)
    return {**item, "found": policy or "not set"}


def _policy(node: core.Node, path: str) -> Tuple[int, Optional[str]]:
    """Line and text of the first line that is no comment, as update-crypto-policies reads it."""
    for number, line in node.lines(path):
        text = line.split("#")[0].strip().upper()
        if text:
            return number, text
    return 0, None


def _back_ends(node: core.Node) -> Iterator[Tuple[str, str]]:
    """Files that programs include, and the policy in whose folder of /usr/share/crypto-policies they lie."""
    for path in node.glob(f"{BACK_ENDS}/*"):
        if os.path.islink(node.real(path)):
            target = os.readlink(node.real(path))
            if "/crypto-policies/" in target:
                yield path, os.path.basename(os.path.dirname(target))
