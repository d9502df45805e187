"""What the tests of the driver share: running the command as people do, and a results document."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
AL2023 = "al2023-1.0.0"


def environment(home: Path, **more: str) -> dict[str, str]:
    """No credentials, no metadata service, no settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CISDRIVER_"))}
    return {**kept, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", "PYTHONPATH": str(ROOT / "driver"), **more}


def cisdriver(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run ``cisdriver`` in a process of its own, from an empty directory."""
    return subprocess.run(
        [sys.executable, "-m", "cisdriver", *arguments],
        cwd=cwd,
        env=dict(env or environment(cwd)),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def evidence(**more: Any) -> dict[str, Any]:
    return {"object": "net.ipv4.ip_forward (running)", "expected": "0", "found": "1", "ok": False, **more}


def document(*changes: Mapping[str, Any], level: int = 1, benchmark: str = AL2023) -> dict[str, Any]:
    """A results document: every rule passes, but for the results that ``changes`` (with ``id``) replace."""
    from cisdriver import collection

    changed = {change["id"]: change for change in changes}
    entries = collection.load().select(collection.catalogue.Selection(benchmark, level))
    found = []
    for entry in entries:
        asked = entry.recommendation
        result = {
            "id": asked.id,
            "title": asked.title,
            "level": asked.level,
            "assessment": asked.assessment,
            "rule": entry.rule.slug if entry.rule else None,
            "status": "pass" if entry.rule else "no_rule_yet",
            "reason": "" if entry.rule else "no rule is written for this id yet",
            "evidence": [evidence(found="0", ok=True, source="/proc/sys/net/ipv4/ip_forward")] if entry.rule else [],
            "accepted": None,
        }
        found.append({**result, **changed.get(asked.id, {})})
    return {
        "version": "1",
        "source": {"name": "cisdriver audit", "version": "0.1.0"},
        "benchmark": benchmark,
        "level": level,
        "profile": "eks",
        "node": {"name": "node-1", "os": "Amazon Linux 2023", "kernel": "6.12", "started": "2026-01-02T03:04:05+00:00"}
        | {"seconds": 1.5},
        "summary": collection.results.summary(found),
        "results": found,
    }


def check(name: str, status: str = "pass", **more: Any) -> dict[str, Any]:
    """One check as the module gives it."""
    reason = {"pass": "", "fail": "expected 0, found 1", "error": "cannot run sysctl"}.get(
        status, "no kernel of its own"
    )
    about = {"name": name, "title": f"{name} holds", "why": f"Without {name} no pod starts.", "status": status}
    return {**about, "reason": reason, "evidence": [evidence(ok=status == "pass")], **more}


def verification(*checks: Mapping[str, Any]) -> dict[str, Any]:
    """A verification's results document."""
    from cisdriver import collection

    source = {"name": "cisdriver verify_node", "version": "0.1.0"}
    return collection.results.verification(checks or [check("forwarding")], document()["node"], source)


def fail(id_: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, "status": "fail", "reason": "expected 0, found 1", "evidence": [evidence()], **more}


def accepted(holds: bool = True) -> dict[str, Any]:
    return {
        "by": "eks",
        "why": "A node that does not forward packets cannot carry pods.",
        "holds": holds,
        "instead": "" if holds else "net.ipv4.ip_forward: expected 1, found 0",
        "evidence": [evidence(expected="1", found="1" if holds else "0", ok=holds)],
    }
