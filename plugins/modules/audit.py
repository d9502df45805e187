#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module audit: looks at every rule of a selection in one execution and changes nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit
author: The cisdriver authors
short_description: Audits a machine against the rules of a benchmark
description:
  - Reads the effective state of the machine through probes that share no code with the modules that harden.
  - Never changes anything, and never fails because a rule does; a rule it could not look at gets status C(error).
options:
  plan:
    description: The selection, as the lookup P(cisdriver.amazon_linux.rules#lookup) gives it without a term.
    type: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.audit:
    plan: "{{ lookup('cisdriver.amazon_linux.rules') }}"
"""

RETURN = r"""
findings:
  description: Per rule C({status, reason, evidence}), and C(instead), the finding of what must hold instead.
  type: dict
  returned: always
node:
  description: What was looked at, C({name, os, kernel, seconds, started}).
  type: dict
  returned: always
"""

import datetime
import time
from typing import Any, Dict, Mapping

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import (
    conditions,
    core,
    file_mode,
    registry,
    scan,
)


def look(node: core.Node, require: Mapping[str, Any]) -> core.Finding:
    """The finding of all kinds a rule requires; a probe that cannot look makes an error."""
    findings = []
    for kind, spec in require.items():
        try:
            findings.append(registry.KINDS[kind](node, spec))
        except core.ProbeError as error:
            findings.append({"status": "error", "reason": f"{kind}: {error}", "evidence": []})
        except Exception as error:  # a defect of one probe must not take the other verdicts away
            reason = f"{kind}: {type(error).__name__}: {error}; this is a defect of cisdriver"
            findings.append({"status": "error", "reason": reason, "evidence": []})
    return core.combine(findings)


def judge(node: core.Node, entry: Mapping[str, Any]) -> core.Finding:
    """The finding for one entry of the plan."""
    try:
        missing = conditions.unmet(node, entry.get("applies_if") or {})
    except core.ProbeError as error:
        return {"status": "error", "reason": str(error), "evidence": []}
    if missing:
        return core.not_applicable(missing)
    if entry.get("manual"):
        collected = look(node, entry["collect"]) if entry.get("collect") else {"evidence": []}
        return {"status": "manual", "reason": entry["manual"], "evidence": collected["evidence"]}
    finding = look(node, entry["require"])
    if entry.get("instead"):
        finding["instead"] = look(node, entry["instead"])
    return finding


def announce(node: core.Node, plan: Mapping[str, Any]) -> None:
    """Tell the walk of the file system which directories the rules want whole, so that there is one walk."""
    tops = []
    for entry in plan["entries"]:
        for part in ("require", "instead", "collect"):
            for item in (entry.get(part) or {}).get("file_mode", ()):
                try:
                    tops += [file_mode.location(node, item)] if "find" in item else []
                except core.ProbeError:  # the rule that asks for it will say so
                    continue
    scan.announce(node, tops)


def audit(node: core.Node, plan: Mapping[str, Any]) -> Dict[str, core.Finding]:
    announce(node, plan)
    findings: Dict[str, core.Finding] = {}
    for entry in plan["entries"]:
        if entry.get("rule") and entry["rule"] not in findings:
            findings[entry["rule"]] = judge(node, entry)
    return findings


def main() -> None:
    module = AnsibleModule(argument_spec={"plan": {"type": "dict", "required": True}}, supports_check_mode=True)
    began = time.monotonic()
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    node = core.Node()
    findings = audit(node, module.params["plan"])
    about = {**core.about(node), "started": started, "seconds": round(time.monotonic() - began, 3)}
    module.exit_json(changed=False, findings=findings, node=about)


if __name__ == "__main__":
    main()
