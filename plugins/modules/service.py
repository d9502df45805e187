#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module service: the state of units at boot, and that masked and disabled ones do not run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service
author: The cisdriver authors
short_description: Masks, disables and enables units of a batch of rules
description:
  - Masks and disables units and stops them, sockets before what they start; enables and unmasks others.
  - A unit that is enabled is started too; where that fails a warning says so, for the boot decides.
  - Where no service manager runs only the links are made.
  - Units of a rule that is no longer selected get the state at boot back that they had before, unless somebody has
    changed it since. None is started or stopped for that.
options:
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps C(masked), C(disabled),
      C(enabled), C(static), C(active) to units; with C(or_package_absent) nothing is done while that package is not
      installed.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.service:
    rules:
      - {rule: nfs_server_masked, id: 2.2.16, want: {masked: [nfs-server.service], or_package_absent: nfs-utils}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a unit to its state.
  type: dict
  returned: always
"""

from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

#: Answers of is-enabled that need no change, and the verb that changes any other.
VERBS: Dict[str, Tuple[Tuple[str, ...], str]] = {
    "masked": (("masked",), "mask"),
    "disabled": (("disabled", "masked", "not-found"), "disable"),
    "enabled": (("enabled",), "enable"),
    "static": (("static",), "unmask"),
}
#: What brings a state back; others come by themselves once a mask is gone.
UNDONE = {"enabled": "enable", "disabled": "disable", "masked": "mask"}
STOPPED = ("masked", "disabled")
RUNNING = ("active", "activating", "reloading")


def systemctl(batch: core.Batch, *words: str) -> Tuple[int, str, str]:
    return runtime.run(batch.module, ["systemctl", *words])


def runs(batch: core.Batch, unit: str) -> bool:
    return runtime.manager_runs() and systemctl(batch, "is-active", unit)[1].strip() in RUNNING


def applies(batch: core.Batch, want: Mapping[str, Any]) -> bool:
    package = want.get("or_package_absent")
    return not package or runtime.run(batch.module, ["rpm", "-q", package])[0] == 0


def units(want: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """``(wanted state, unit)``, sockets first: a socket would start again what was stopped."""
    pairs = [(state, unit) for state in VERBS for unit in want.get(state, [])]
    return sorted(pairs, key=lambda pair: not pair[1].endswith(".socket"))


def described(state: str, running: Optional[bool]) -> str:
    return state if running is None else f"{state}, {'running' if running else 'stopped'}"


def observed(batch: core.Batch, wanted: str, unit: str) -> Tuple[str, Optional[bool]]:
    """State at boot, and whether it runs where that matters."""
    return runtime.boot_state(batch, unit), runs(batch, unit) if wanted in STOPPED else None


def settle(batch: core.Batch, rule: Mapping[str, Any], wanted: str, unit: str, was: Tuple[str, Optional[bool]]) -> None:
    """Bring one unit from what it was to what a rule wants."""
    met, verb = VERBS[wanted]
    state, running = was
    before = described(state, running)
    after = described(state if state in met else wanted, False if wanted in STOPPED else None)
    batch.record(rule["rule"], {unit: before}, {unit: after})
    batch.changed_file(unit, before + "\n", after + "\n")
    if state not in met:
        batch.remember(rule["rule"], unit, state, wanted)
        batch.store()
    if batch.module.check_mode:
        return
    if state not in met:
        change(batch, rule, verb, unit, wanted)
    if running:
        must(batch, rule, "stop", unit)


def change(batch: core.Batch, rule: Mapping[str, Any], verb: str, unit: str, wanted: str) -> None:
    if verb == "enable" and runtime.boot_state(batch, unit) == "masked":
        must(batch, rule, "unmask", unit)
    must(batch, rule, verb, unit)
    state = runtime.boot_state(batch, unit)
    if state not in VERBS[wanted][0]:
        who = f"rule {rule['rule']} ({rule['id']})"
        batch.fail(f"{who}: {unit}: expected {wanted} after systemctl {verb}, found {state}")
    if verb in ("enable", "unmask") and runtime.manager_runs():
        rc, _out, err = systemctl(batch, "start", unit)
        if rc:
            batch.module.warn(f"rule {rule['rule']}: {unit} is {wanted} but does not start: {err.strip()}")


def must(batch: core.Batch, rule: Mapping[str, Any], verb: str, unit: str) -> None:
    rc, _out, err = systemctl(batch, verb, unit)
    if rc:
        file = f"if {unit} is a file of its own in /etc/systemd/system, move it away, or skip the rule"
        hint = file if verb == "mask" else f"see systemctl status {unit}, or skip the rule"
        why = f"rule {rule['rule']} ({rule['id']}): systemctl {verb} {unit}: exit {rc}: {err.strip()}; {hint}"
        batch.fail(why + last_words(batch, unit) if verb == "start" else why)


def last_words(batch: core.Batch, unit: str) -> str:
    """What the journal has of a unit that did not start, since nobody can look later on a node that is thrown away."""
    rc, out, _err = runtime.run(batch.module, ["journalctl", "-q", "-o", "cat", "-n", "8", "-u", unit])
    lines = [line.strip() for line in out.splitlines() if line.strip()] if rc == 0 else []
    return f". Its last words: {' | '.join(lines)}" if lines else ""


def give_back(batch: core.Batch, slug: str) -> None:
    """The state at boot that the units of a rule had before it."""
    for unit, (was, now) in batch.given_back(slug).items():
        if runtime.boot_state(batch, unit) != now:
            continue
        batch.record(slug, {unit: now}, {unit: was})
        batch.changed_file(unit, now + "\n", was + "\n")
        if batch.module.check_mode:
            continue
        for verb in (["unmask"] if now == "masked" else []) + ([UNDONE[was]] if was in UNDONE else []):
            must(batch, {"rule": slug, "id": "deselected"}, verb, unit)
    batch.forget(slug)


def apply(batch: core.Batch) -> None:
    """Look at all units first: stopping one may stop others, which check mode would not see."""
    for slug in batch.absent:
        give_back(batch, slug)
    todo, active = [], []
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
        if not applies(batch, rule["want"]):
            continue
        for wanted, unit in units(rule["want"]):
            todo.append((rule, wanted, unit, observed(batch, wanted, unit)))
        for unit in rule["want"].get("active", []) if runtime.manager_runs() else ():
            active.append((rule, unit, runs(batch, unit)))
    for rule, wanted, unit, was in todo:
        settle(batch, rule, wanted, unit, was)
    for rule, unit, running in active:
        start(batch, rule, unit, running)


def start(batch: core.Batch, rule: Mapping[str, Any], unit: str, running: bool) -> None:
    """See that a unit runs, which was or was not running before anything was changed."""
    before = "running" if running else "stopped"
    batch.record(rule["rule"], {f"{unit} (running)": before}, {f"{unit} (running)": "running"})
    batch.changed_file(f"{unit} (running)", before + "\n", "running\n")
    if not running and not batch.module.check_mode:
        must(batch, rule, "start", unit)


def main() -> None:
    batch = core.batch_module("service")
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
