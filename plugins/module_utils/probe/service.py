# Copyright the cisdriver authors. Apache-2.0.
"""Units: the state they have at boot, and for those that must not be there, whether they run.

``systemctl is-enabled`` answers from files alone, in a chroot too; ``is-active`` needs systemd
to run. ``masked-runtime`` and ``enabled-runtime`` do not survive a boot and so meet nothing.
"""

from __future__ import annotations

from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

#: Answers of is-enabled that meet what a rule asks for.
MET = {
    "masked": ("masked",),
    "disabled": ("disabled", "masked", "not-found"),
    "enabled": ("enabled",),
    "static": ("static",),
}
STOPPED = ("masked", "disabled")
RUNNING = ("active", "activating", "reloading", "refreshing")


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    """``spec`` maps masked, disabled, enabled, static, active to units; ``or_package_absent`` names a package."""
    package = spec.get("or_package_absent")
    if package:
        version = node.packages().get(package)
        if version is None:
            return core.verdict([core.evidence(f"package {package}", "absent", "absent", True)])
    items: List[core.Evidence] = []
    for wanted, met in MET.items():
        for unit in spec.get(wanted, []):
            state = enabled_state(node, unit)
            items.append(core.evidence(f"{unit} (at boot)", {"in": list(met)}, state, state in met, _link(node, unit)))
            if wanted in STOPPED and node.exists("/run/systemd/system"):
                items.append(_running(node, unit, {"not": list(RUNNING)}))
    for unit in spec.get("active", []) if node.exists("/run/systemd/system") else ():
        items.append(_running(node, unit, {"in": list(RUNNING)}))
    return core.verdict(items)


def enabled_state(node: core.Node, unit: str) -> str:
    """What is-enabled says; ``not-found`` however the version of systemctl puts it. Raises ProbeError."""
    answer = node.run("systemctl", "is-enabled", unit)
    state = answer.out.strip()
    if state:
        return state
    if "No such file or directory" in answer.err or "not-found" in answer.err:
        return "not-found"
    raise core.ProbeError(f"systemctl is-enabled {unit}: exit {answer.rc}: {answer.err.strip()}")


def _running(node: core.Node, unit: str, predicate: Mapping[str, Any]) -> core.Evidence:
    answer = node.run("systemctl", "is-active", unit)
    state = answer.out.strip()
    if not state:
        raise core.ProbeError(f"systemctl is-active {unit}: exit {answer.rc}: {answer.err.strip()}")
    return core.evidence(f"{unit} (running)", predicate, state, core.holds(predicate, state))


def _link(node: core.Node, unit: str) -> Any:
    """The file in /etc that decides, where there is one."""
    path = f"/etc/systemd/system/{unit}"
    return path if node.lstat(path) else None
