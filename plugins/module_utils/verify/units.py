# Copyright the cisdriver authors. Apache-2.0.
"""Units that join the node, serve, and let people in: whether systemd can start them, with which umask, what failed."""

from __future__ import annotations

import re
from typing import Iterator, List

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, service, unit_umask
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.core import check

MANAGER = "/run/systemd/system"
KUBERNETES = (
    "kubelet.service",
    "containerd.service",
    "nodeadm-boot-hook.service",
    "nodeadm-config.service",
    "nodeadm-run.service",
)
#: rescue and emergency are what is left when another fails.
UNITS = (
    *KUBERNETES,
    "amazon-ssm-agent.service",
    "sshd.service",
    "chronyd.service",
    "systemd-networkd.service",
    "rescue.service",
    "emergency.service",
)
#: Enabled on the stock image. kubelet and containerd are not: nodeadm starts them, on Amazon Linux 2 bootstrap.sh.
ENABLED = (
    "nodeadm-boot-hook.service",
    "nodeadm-config.service",
    "nodeadm-run.service",
    "sshd.service",
    "chronyd.service",
    "systemd-networkd.service",
)
#: What containers and mounts of pods leave behind when they end badly, which is no fault of the node's.
OF_PODS = re.compile(r".*\.scope|(var-lib-kubelet-(pods|plugins)|run-containerd)-.*\.mount")
#: Written when the node joins; before it nodeadm has nothing to read and fails, as on a machine that is baked.
JOINED = "/var/lib/kubelet/kubeconfig"


@check(
    "Units that join the node and serve are valid, not masked, and enabled where the stock node has them so",
    why="A unit that systemd refuses or skips takes with it the cluster's node, the login or the network",
)
def units_valid(node: core.Node) -> core.Finding:
    states = [(unit, service.enabled_state(node, unit)) for unit in UNITS]
    there = [(unit, state) for unit, state in states if state != "not-found"]
    items = [_state(node, unit, state) for unit, state in there]
    items += _verified(node, [unit for unit, state in there if not state.startswith("masked")])
    absent = [unit for unit, state in states if state == "not-found"]
    if absent:
        items.append(core.evidence("units that are not on this machine", "none to judge", ", ".join(absent), True))
    return core.verdict(items)


def _state(node: core.Node, unit: str, state: str) -> core.Evidence:
    path = f"/etc/systemd/system/{unit}"
    source = path if state.startswith("masked") and node.lstat(path) else None
    if unit in ENABLED:
        # a socket that starts it on demand will do
        on_demand = state == "disabled" and _enabled(node, unit.replace(".service", ".socket"))
        return core.evidence(unit, "enabled", state, state == "enabled" or on_demand, source)
    return core.evidence(unit, "not masked", state, not state.startswith("masked"), source)


def _enabled(node: core.Node, unit: str) -> bool:
    return service.enabled_state(node, unit) == "enabled"


def _verified(node: core.Node, units: List[str]) -> Iterator[core.Evidence]:
    """What systemd says of the units themselves; of files that packages bring only what makes it refuse them."""
    done = node.run("systemd-analyze", "verify", "--man=no", *units)
    if done.rc == 127:
        raise core.ProbeError(f"systemd-analyze: {done.err}")
    said = [line.strip() for line in (done.err + "\n" + done.out).splitlines() if line.strip()]
    blamed = False
    for unit in units:
        complaints = [line for line in said if _is_about(unit, line, refused=done.rc != 0)]
        blamed = blamed or bool(complaints)
        found = complaints[0] if complaints else "accepted"
        yield core.evidence(f"systemd-analyze verify {unit}", "accepted", found, not complaints)
    if done.rc != 0 and not blamed:
        found = said[-1] if said else f"exit {done.rc}"
        yield core.evidence("systemd-analyze verify", "accepted", found, False)


def _is_about(unit: str, line: str, refused: bool) -> bool:
    """Lines start with a file and number, or where something is refused with a unit or ``Unit NAME``."""
    if re.match(rf"/(etc|run)/systemd/system/{re.escape(unit)}(\.d/[^:]+)?:", line):
        return True
    return refused and bool(re.match(rf"(Unit )?{re.escape(unit)}\b", line))


@check(
    "kubelet, containerd and nodeadm run with umask 0022",
    why="Files that they make for pods, such as /etc/hosts, and the node's configuration would be closed to readers",
)
def service_umask(node: core.Node) -> core.Finding:
    names = [unit for unit in KUBERNETES if service.enabled_state(node, unit) != "not-found"]
    if not names:
        return core.not_applicable("there is neither kubelet nor containerd on this machine")
    return core.verdict(unit_umask.check(node, {"names": names, "umask": "0022"}))


@check(
    "No unit has failed, and none starts over and over",
    why="What a unit was to do, a mount or the network, is missing; hardening shows itself here first",
)
def failed_units(node: core.Node) -> core.Finding:
    if not node.exists(MANAGER):
        return core.not_applicable("no service manager runs here")
    listed = node.must("systemctl", "list-units", "--all", "--plain", "--no-legend", "--state=failed,auto-restart")
    units = [line.split() for line in listed.splitlines() if len(line.split()) > 3]
    items = [_failed(node, fields[0], fields[3]) for fields in units]
    return core.verdict(items or [core.evidence("units that failed", "none", "none", True)])


def _failed(node: core.Node, unit: str, state: str) -> core.Evidence:
    expected, ok = "not failed", False
    if unit.startswith("nodeadm-") and not node.exists(JOINED):
        expected, ok = "failed or not: it has no NodeConfig to read before the node joins a cluster", True
    if OF_PODS.fullmatch(unit):
        expected, ok = "failed or not: it is a pod's or a session's", True
    if unit in node.memo.get("failed_before", ()):
        expected, ok = "failed or not: it had failed before", True
    return core.evidence(unit, expected, f"{state}: {_last_word(node, unit)}", ok, f"journalctl -u {unit}")


def _last_word(node: core.Node, unit: str) -> str:
    """The last line in the journal: the unit's own, or what systemd says of it when it said nothing."""
    for whose in (f"_SYSTEMD_UNIT={unit}", f"--unit={unit}"):
        told = node.run("journalctl", whose, "--lines=1", "--output=cat", "--no-pager", "--quiet")
        lines = [line.strip() for line in told.out.splitlines() if line.strip()]
        if lines:
            return lines[-1]
    return "nothing in the journal"
