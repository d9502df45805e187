#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module aide: what AIDE watches and leaves out, and the timer that has it look every day."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aide
author: The cisdriver authors
short_description: Selection lines of AIDE's configuration, and its daily check
description:
  - >-
    Owns a block at the end of C(/etc/aide.conf), for the stock file reads no drop-ins. AIDE takes the first line that
    selects a path, so an administrator's line for one of ours is set aside, and comes back when the rule goes.
  - Owns C(aidecheck.service) and C(aidecheck.timer). The check runs at the lowest priority at a random time of the
    night, so that a fleet does not read all its disks at once. An administrator's units of these names come back when
    the rule goes.
  - The database is the business of M(cisdriver.amazon_linux.aide_database).
options:
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want has C(select), C(leave_out) and
      C(scheduled), as C(schemas/rule.json) describes them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.aide:
    rules:
      - {rule: aide_check_scheduled, id: 1.3.2, want: {scheduled: true, leave_out: [/var/lib/containerd]}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a file to lines, a unit to its state.
  type: dict
  returned: always
"""

import os
import re
from typing import Any, List, Mapping, Set

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import (
    core,
    overrides,
    runtime,
)

CONF = "/etc/aide.conf"
UNITS = "/etc/systemd/system"
BEGIN = "# cisdriver.amazon_linux owns the lines from here to the end mark; changes made here are lost."
END = "# cisdriver.amazon_linux: end"
#: Name of the place that a line set aside gave way to.
ASIDE = "below"

SERVICE = f"""\
[Unit]
Description=Check files with AIDE

[Service]
Type=oneshot
ExecStart=/usr/sbin/aide --config={CONF} --check
# bits for new, removed and changed files: a report, no failure
SuccessExitStatus=1 2 3 4 5 6 7
Nice=19
IOSchedulingClass=idle
CPUQuota=20%

[Install]
# Being enabled is what scanners ask for; started it is by the timer alone, never at boot.
Alias=aide-check.service
"""
TIMER = """\
[Unit]
Description=Check files with AIDE every day

[Timer]
OnCalendar=*-*-* 01:00:00
RandomizedDelaySec=5h

[Install]
WantedBy=timers.target
"""
FILES = {"aidecheck.service": SERVICE, "aidecheck.timer": TIMER}


def lines_of(rule: Mapping[str, Any]) -> List[str]:
    want = rule["want"]
    # a regular expression that AIDE anchors at its start alone
    lines = ["!" + path.replace(".", "\\.") + "($|/)" for path in want.get("leave_out", ())]
    select = want.get("select", {"paths": (), "attributes": ()})
    return lines + [f"{path} {'+'.join(select['attributes'])}" for path in select["paths"]]


def split(text: str) -> List[str]:
    """The text before our block, the block, the text after it."""
    match = re.search(rf"^{re.escape(BEGIN)}\n(.*?)^{re.escape(END)}\n", text, re.MULTILINE | re.DOTALL)
    return [text[: match.start()], match.group(1), text[match.end() :]] if match else [text, "", ""]


def with_block(batch: core.Batch, text: str) -> str:
    """The configuration anew. No other line changes but those that would win over ours."""
    head, block, tail = split(text)
    # a block has a first line of its own
    new = core.dropin(block, batch.present, batch.keep, lines_of).split("\n", 1)[1:]
    ours = wanted_paths("".join(new))
    head = overrides.set_aside(
        head, ASIDE, lambda line: selected(line) in ours, lambda line: selected(line) not in ours
    )
    if head and not head.endswith("\n") and new:
        head += "\n"
    return head + (f"{BEGIN}\n{new[0]}{END}\n" if new else "") + tail


def wanted_paths(block: str) -> Set[str]:
    return {line.split()[0] for line in block.splitlines() if line.startswith("/")}


def selected(line: str) -> str:
    """The one path that a selection line names, however it is written; empty for other lines."""
    match = re.match(r"\s*[=]?(/[^\s$]*)\$?\s+\S", line)
    return match.group(1) if match else ""


def configure(batch: core.Batch, conf: str) -> None:
    before = core.read(conf)
    after = with_block(batch, before)
    for rule in batch.present:
        lines = [core.block_lines(split(text)[1], rule["rule"]) for text in (before, after)]
        batch.record(rule["rule"], {conf: lines[0]}, {conf: lines[1]})
    if after and not os.path.exists(conf):
        if batch.module.check_mode:  # the package that brings the file would by now be installed
            batch.changed_file(conf, "", after)
            return
        slugs = ", ".join(f"{rule['rule']} ({rule['id']})" for rule in batch.present)
        batch.fail(f"rule {slugs}: {conf} does not exist; expected the package aide to be installed")
    if after != before:
        batch.write(conf, after, 0o600, lambda new: objection(batch, new))


def objection(batch: core.Batch, path: str) -> str:
    rc, out, err = runtime.run(batch.module, ["aide", f"--config={path}", "--config-check"])
    # 127: AIDE was removed, and a block that nobody reads has to go all the same
    return "" if rc in (0, 127) else (err or out).strip() or f"aide --config-check: exit {rc}"


def schedule(batch: core.Batch, units: str) -> None:
    """Both units with their links, or what stood there before."""
    rules = [rule for rule in batch.present if rule["want"].get("scheduled")]
    there = {unit: core.read(f"{units}/{unit}") for unit in FILES}
    if any(core.block_lines(text, slug) for text in there.values() for slug in batch.keep):
        return
    if rules:
        put_up(batch, rules, units, there)
    else:
        take_down(batch, units, [unit for unit in FILES if there[unit].startswith(core.HEADER)])


def put_up(batch: core.Batch, rules: List[Any], units: str, there: Mapping[str, str]) -> None:
    before = {unit: state(batch, unit) for unit in FILES}
    for rule in rules:
        batch.record(rule["rule"], before, dict.fromkeys(FILES, "enabled"))
    for unit, text in there.items():
        if text and not text.startswith(core.HEADER):  # of that name a benchmark's reader makes them by hand
            batch.remember(rules[0]["rule"], unit, [text, before[unit]], "ours")
    # under the line that says whose they are
    text = f"{core.HEADER}\n# {rules[0]['id']} {rules[0]['rule']}\n"
    for unit, found in before.items():
        batch.changed_file(unit, found + "\n", "enabled\n")
        if found == "masked" and not batch.module.check_mode:  # the mask is a link in the file's place
            systemctl(batch, "unmask", unit)
    written = write_units(batch, {f"{units}/{unit}": text + FILES[unit] for unit in FILES})
    if batch.module.check_mode:
        return
    if written or set(before.values()) != {"enabled"}:
        systemctl(batch, "enable", *FILES)
    if runtime.manager_runs():
        systemctl(batch, "start", "aidecheck.timer")


def write_units(batch: core.Batch, texts: Mapping[str, str]) -> bool:
    """Put unit files in place and have systemd read them. Whether they differed."""
    differs = any(core.read(path) != text for path, text in texts.items())
    stale = runtime.must_read(batch, "aidecheck", differs)
    for path, text in texts.items():
        batch.write(path, text)
    if stale and not batch.module.check_mode:
        systemctl(batch, "daemon-reload")
        runtime.has_read("aidecheck")
    return differs


def take_down(batch: core.Batch, units: str, ours: List[str]) -> None:
    """Our units go, and what an administrator had in their place comes back as it was."""
    remembered = {unit: was for slug in batch.absent for unit, (was, _now) in batch.given_back(slug).items()}
    back = {unit: remembered.get(unit, ["", "not-found"]) for unit in ours}
    for unit, (_text, was) in back.items():
        batch.changed_file(unit, state(batch, unit) + "\n", was + "\n")
    if ours and not batch.module.check_mode:  # links would dangle
        systemctl(batch, "disable", *ours)
        if "aidecheck.timer" in ours and runtime.manager_runs():
            systemctl(batch, "stop", "aidecheck.timer")
    written = [batch.write(f"{units}/{unit}", text) for unit, (text, _was) in back.items()]
    if any(written) and not batch.module.check_mode:
        if runtime.manager_runs():
            systemctl(batch, "daemon-reload")
        restart(batch, {unit: was for unit, (_text, was) in back.items()})
    for slug in batch.absent:
        batch.forget(slug)


def restart(batch: core.Batch, was: Mapping[str, str]) -> None:
    for unit, found in was.items():
        if found.startswith("enabled"):
            systemctl(batch, "enable", unit)
        if found == "enabled" and unit.endswith(".timer") and runtime.manager_runs():
            systemctl(batch, "start", unit)


def state(batch: core.Batch, unit: str) -> str:
    """What is-enabled says; ``enabled`` only for a timer that runs, where units run."""
    _rc, out, _err = runtime.run(batch.module, ["systemctl", "is-enabled", unit])
    found = out.strip() or "not-found"
    if found == "enabled" and unit.endswith(".timer") and runtime.manager_runs():
        _rc, out, _err = runtime.run(batch.module, ["systemctl", "is-active", unit])
        return found if out.strip() == "active" else "enabled, stopped"
    return found


def systemctl(batch: core.Batch, *words: str) -> None:
    rc, _out, err = runtime.run(batch.module, ["systemctl", *words])
    if rc:
        batch.fail(f"systemctl {' '.join(words)}: exit {rc}: {err.strip()}")


def apply(batch: core.Batch, conf: str = CONF, units: str = UNITS) -> None:
    configure(batch, conf)
    schedule(batch, units)


def main() -> None:
    batch = core.batch_module("aide")
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
