# Copyright the cisdriver authors. Apache-2.0.
"""What is not up to date: pending updates, locks, a pending reboot, a newer release. Only collects.

dnf is asked from its cache: a repository that cannot be reached must not hold up the audit. Amazon Linux 2023 reads its
repositories at the release the image was made from, so that no pending update proves little; a newer release is what
tells.
"""

from __future__ import annotations

import re
from typing import Any, Iterator, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, repositories

LOCKS = ("/etc/dnf/plugins/versionlock.list", "/etc/yum/pluginconf.d/versionlock.list")
MOTDS = ("/etc/motd", "/run/motd.d/*", "/etc/motd.d/*")
#: Evidence names this many; a node that was never updated would fill the report.
SHOWN = 20


def check(node: core.Node, _spec: Mapping[str, Any]) -> core.Finding:
    return core.verdict([*_updates(node), *_locks(node), _reboot(node), _release(node)])


def _updates(node: core.Node) -> Iterator[core.Evidence]:
    tool = "dnf" if node.run("dnf", "--version").rc != 127 else "yum"
    answer = node.run(tool, "-q", "-C", "check-update")
    if answer.rc not in (0, 100):  # 100: there are some
        why = (answer.err.strip() or answer.out.strip() or f"exit {answer.rc}").splitlines()[-1]
        yield core.evidence("pending updates", "none", f"unknown without network: {why}", True)
        return
    lines = [line.split() for line in answer.out.partition("Obsoleting Packages")[0].splitlines()]
    found = [f"{fields[0]} {fields[1]}" for fields in lines if len(fields) == 3 and "." in fields[0]]
    text = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    release, source = repositories.release(node)
    yield core.evidence("pending updates", "none", f"{text or 'none'}, of release {release}", True, source)


def _locks(node: core.Node) -> Iterator[core.Evidence]:
    for path in LOCKS:
        names = [line for _number, line in node.lines(path)]
        if names:
            yield core.evidence("packages held back", "only those the site wants", ", ".join(names), True, path)


def _reboot(node: core.Node) -> core.Evidence:
    answer = node.run("dnf", "-q", "-C", "needs-restarting", "-r")
    if answer.rc == 127 or "No such command" in answer.err:
        answer = node.run("needs-restarting", "-r")
    known = {0: "not needed", 1: "needed"}.get(answer.rc, "unknown: needs-restarting cannot tell")
    names: List[str] = re.findall(r"(?m)^\s*\* (\S+)", answer.out)
    return core.evidence("reboot", "not needed", f"{known}{': ' + ', '.join(names) if names else ''}", True)


def _release(node: core.Node) -> core.Evidence:
    """The newest release that update-motd has noted; it asks when it runs, we do not."""
    for path in (path for pattern in MOTDS for path in node.glob(pattern)):
        newer = re.findall(r"Version (\d{4}\.\d+\.\d{8})", node.read(path) or "")
        if newer:
            return core.evidence("newer release", "none", max(newer, key=_numbers), True, path)
    return core.evidence("newer release", "none", "none noted on this machine", True)


def _numbers(text: str) -> List[int]:
    return [int(part) for part in text.split(".")]
