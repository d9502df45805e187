# Copyright the cisdriver authors. Apache-2.0.
"""logrotate: that it understands all it is told, and where no timer is there to run it, that cron does."""

from __future__ import annotations

from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

CONFIG = "/etc/logrotate.conf"
CRON = "/etc/cron.daily/logrotate"


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` is ``{config: valid, scheduled: cron}``, each left out where it is not asked."""
    items: List[core.Evidence] = []
    if "config" in spec:
        items += _config(node)
    if spec.get("scheduled") == "cron":
        about = node.lstat(CRON)
        runs = about is not None and bool(about.st_mode & 0o100)
        items.append(core.evidence(CRON, "executable", "executable" if runs else "no executable file", runs))
    return core.verdict(items)


def _config(node: core.Node) -> List[core.Evidence]:
    """``logrotate -d`` reads everything and rotates nothing; each complaint is an item."""
    if node.read(CONFIG) is None:
        return [core.evidence(CONFIG, "what to rotate, and how often", "no such file", False)]
    answer = node.run("logrotate", "-d", CONFIG)
    if answer.rc == 127:
        return [core.evidence("logrotate", "installed", "not found", False)]
    errors = [line[len("error:") :].strip() for line in answer.err.splitlines() if line.startswith("error:")]
    if answer.rc and not errors:
        raise core.ProbeError(f"logrotate -d {CONFIG}: exit {answer.rc}: {answer.err.strip()[-300:]}")
    items = [core.evidence(CONFIG, "no complaint of logrotate", error, False) for error in errors]
    return items or [core.evidence(CONFIG, "no complaint of logrotate", "none", True)]
