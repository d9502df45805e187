#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module audit_rules: what the audit system records, in one file of rules.d and in the kernel."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_rules
author: The cisdriver authors
short_description: Writes and loads the audit rules of a batch of rules
description:
  - Writes one file of rules.d that it owns whole, lets augenrules merge and load all, and sees that every rule of it
    is in the kernel. Where the load fails the files are put back, the old rules are loaded, and the line is named.
  - Sets a C(-a never,task) aside, with which nothing is recorded, and C(-e) lines that would beat the one it writes.
    They come back when the last rule goes.
  - Leaves out a line that stands in another file already, since the kernel refuses the second and with it the rest; and
    system calls that this kind of machine does not have.
  - While the kernel is locked (C(-e 2)) it takes no rule until it boots again. The files are written then, and a
    warning says so. Where no service manager runs, or the kernel's audit is not this machine's, only files are
    written.
options:
  path:
    description: The file of rules.d.
    type: path
    required: true
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want holds C(rules), C(privileged),
      C(immutable) or C(running_as_on_disk), as C(schemas/rule.json) has it.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.audit_rules:
    path: /etc/audit/rules.d/50-cis.rules
    rules:
      - {rule: audit_mounts, id: 5.2.3.10, want: {rules: [{watch: /etc/fstab, perm: wa, key: mounts}]}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), with the lines of the file and those the kernel lacks.
  type: dict
  returned: always
"""

import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import (
    audit_lines,
    core,
    host_files,
    overrides,
    runtime,
)

#: ``rules.d`` is left alone where the audit system is not installed; its package brings the directory.
MODE = 0o640
#: A full queue must not make system calls wait: pods would stall with the node.
NO_WAIT = "--backlog_wait_time 0"
BACKLOG = 8192
#: The kernel's tables of system calls, as ausyscall names them.
TABLES = {"x86_64": {"b64": "x86_64", "b32": "i386"}, "aarch64": {"b64": "aarch64", "b32": "arm"}}
SUDO_LOG = re.compile(r"(?m)^\s*Defaults\s(?:.*[\s,])?logfile\s*=\s*\"?([^\s,\"]+)")

LOCKED = (
    "the kernel's audit rules are locked (-e 2) and are not those on disk: what is on disk takes effect at the next"
    " boot; reboot or replace the node"
)


class Kernel(NamedTuple):
    """The audit system as it runs: ``enabled`` 2 is locked; ``rules`` as ``auditctl -l`` lists them."""

    enabled: int
    rules: List[str]

    @property
    def locked(self) -> bool:
        return self.enabled == 2

    def lacks(self, lines: Sequence[str]) -> List[str]:
        loaded = {audit_lines.canonical(rule) for rule in self.rules}
        return [line for line in lines if audit_lines.is_rule(line) and audit_lines.canonical(line) not in loaded]

    def holds_exactly(self, wanted: Mapping[audit_lines.Canonical, str]) -> bool:
        return {audit_lines.canonical(rule) for rule in self.rules} - {frozenset()} == set(wanted)


def kernel(batch: core.Batch) -> Optional[Kernel]:
    """None where the kernel's audit is not this machine's: in a chroot, and in a container, which it refuses."""
    if not runtime.manager_runs():
        return None
    _rc, out, err = runtime.run(batch.module, ["auditctl", "-s"])
    enabled = re.search(r"(?m)^enabled (\d)", out)
    if not enabled:
        if not runtime.in_container():
            batch.module.warn(f"auditctl -s: expected the state of the audit system, found {err.strip() or 'nothing'};"
                              " rules are written and not loaded")  # fmt: skip
        return None
    listed = runtime.run(batch.module, ["auditctl", "-l"])[1].splitlines()
    return Kernel(int(enabled.group(1)), [line for line in listed if line.startswith("-")])


class Machine:
    """What lines depend on: the system calls there are, the file sudo logs to, and what stands elsewhere."""

    def __init__(self, batch: core.Batch, elsewhere: Mapping[str, str]) -> None:
        self.batch = batch
        self.taken = {audit_lines.canonical(line) for text in elsewhere.values() for line in text.splitlines()}
        self._calls: Dict[str, List[str]] = {}

    def known(self, arch: str, names: Sequence[str]) -> List[str]:
        """The system calls among ``names`` that this machine has: one unknown name would end the load."""
        table = TABLES.get(os.uname().machine, {}).get(arch, "")
        if table and table not in self._calls:
            rc, out, _err = runtime.run(self.batch.module, ["ausyscall", table, "--dump"])
            self._calls[table] = (
                [] if rc else [line.split()[1] for line in out.splitlines()[1:] if len(line.split()) > 1]
            )
        calls = self._calls.get(table)
        return [name for name in names if not calls or name in calls]

    def lines(self, rule: Mapping[str, Any]) -> List[str]:
        want = rule["want"]
        if want.get("immutable"):
            return ["-e 2"]
        items = [dict(item) for item in want.get("rules", ())]
        if "privileged" in want:
            items += [{"path": path, **want["privileged"]} for path in host_files.privileged(self.batch.module)]
        for item in items:
            if "sudo_log" in item:
                item["watch"] = sudo_log() or item["sudo_log"]
        lines = [line for item in items if self.valid(rule, item) for line in audit_lines.lines_of(item, self.known)]
        return [line for line in lines if audit_lines.canonical(line) not in self.taken]

    def valid(self, rule: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
        """Whether auditctl would take a path: it has no way to write a blank, and needs the directory to be there."""
        path = item.get("watch") or item.get("path")
        if not path:
            return True
        problem = ""
        if re.search(r"\s", path):
            problem = "a rule cannot hold a name with a blank; rename the file"
        elif not os.path.isdir(os.path.dirname(path.rstrip("/"))):
            problem = "its directory does not exist"
        if problem:
            self.batch.module.warn(f"rule {rule['rule']} ({rule['id']}): {path!r} is not watched: {problem}")
        return not problem


def sudo_log(main: str = "/etc/sudoers") -> str:
    """The file that sudo's Defaults name last, or nothing."""
    beside = main + ".d"
    names = sorted(name for name in os.listdir(beside) if "." not in name) if os.path.isdir(beside) else []
    named = [log for path in (main, *(os.path.join(beside, name) for name in names)) for log in _logs(path)]
    return named[-1] if named else ""


def _logs(path: str) -> List[str]:
    return SUDO_LOG.findall(core.read(path))


def others(path: str) -> Dict[str, str]:
    """Files of rules.d beside ours, with their texts."""
    directory = os.path.dirname(path)
    names = sorted(name for name in os.listdir(directory) if name.endswith(".rules") and not name.startswith("."))
    found = [os.path.join(directory, name) for name in names]
    return {name: core.read(name) for name in found if name != path}


def desired(batch: core.Batch, path: str) -> Dict[str, str]:
    """Every file of rules.d and its text; ours may be empty, which removes it."""
    elsewhere = others(path)
    machine = Machine(batch, elsewhere)
    owned = core.dropin(core.read(path), batch.present, batch.keep, machine.lines)
    lines = owned.splitlines()
    records, locks = any(audit_lines.is_rule(line) for line in lines), "-e 2" in lines
    if records:
        owned = "\n".join([lines[0], *controls(elsewhere), *lines[1:]]) + "\n"

    def offends(line: str) -> bool:
        setting = audit_lines.control(line)
        return (locks and setting is not None) or (records and (audit_lines.suppresses_all(line) or setting == "0"))

    texts = {
        file: overrides.set_aside(text, path, offends, restore=lambda line: not offends(line))
        for file, text in elsewhere.items()
    }
    return {**texts, path: owned}


def controls(elsewhere: Mapping[str, str]) -> List[str]:
    """Lines above the rules: those that no other file has. augenrules moves -D and -b to the top."""
    lines = [line.split() for text in elsewhere.values() for line in text.splitlines()]
    sizes = [int(words[1]) for words in lines if len(words) == 2 and words[0] == "-b" and words[1].isdigit()]
    return [
        *([] if ["-D"] in lines else ["-D"]),
        *([] if max(sizes, default=0) >= BACKLOG else [f"-b {BACKLOG}"]),
        NO_WAIT,
    ]


def augenrules(batch: core.Batch, *words: str) -> str:
    """What augenrules has against the rules, or nothing."""
    rc, out, err = runtime.run(batch.module, ["augenrules", *words])
    if rc == 0 and "There was an error" not in err:
        return ""
    # auditctl tells a load's errors to syslog
    return err.strip() or out.strip() or f"exit {rc}; `journalctl -t auditctl` has its words"


def load(batch: core.Batch, path: str, texts: Mapping[str, str], old: Mapping[str, str]) -> None:
    """Load what is on disk. Where it fails, everything is put back as it was."""
    problem = augenrules(batch, "--load")
    state = kernel(batch)
    wanted = audit_lines.loaded_of(texts)
    missing = state.lacks(texts[path].splitlines()) if state else []
    if not problem and not missing:
        return
    loaded = {audit_lines.canonical(rule) for rule in state.rules} if state else set()
    first = next((where for rule, where in wanted.items() if rule not in loaded), "")
    what = f"the load stops at {first}: {problem}" if first else problem
    if not missing and "-e 2" not in texts[path].splitlines():
        batch.module.warn(f"audit rules of other files are not loaded whole: {what}")
        return
    for file, text in old.items():
        batch.write(file, text, mode=MODE)
    augenrules(batch, "--load")
    batch.fail(f"{path}: the audit rules cannot be loaded, the old ones are back: {what}")


def settle(batch: core.Batch, path: str, texts: Mapping[str, str], old: Mapping[str, str]) -> None:
    """Make the merged file and the kernel agree with rules.d."""
    state = kernel(batch)
    stale = "should be updated" in runtime.run(batch.module, ["augenrules", "--check"])[1]
    written = any(texts[file] != old[file] for file in texts)
    locks = "-e 2" in texts[path].splitlines()
    right = state is None or (state.holds_exactly(audit_lines.loaded_of(texts)) and (state.locked or not locks))
    if stale and not written:
        merged = os.path.join(os.path.dirname(os.path.dirname(path)), "audit.rules")
        batch.changed_file(merged, "other than rules.d\n", "merged from rules.d\n")
    if state and not right and not state.locked:
        batch.changed_file("audit rules in the kernel", "other than on disk\n", "as on disk\n")
    if state and not right and state.locked:
        batch.module.warn(LOCKED)
    if batch.module.check_mode:
        return
    if state and not state.locked and (written or stale or not right):
        load(batch, path, texts, old)
    elif written or stale:
        augenrules(batch)


def apply(batch: core.Batch, path: str) -> None:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        if batch.present:
            batch.module.warn(f"{directory} does not exist: install package audit first (rule auditd_installed)")
        return
    texts = desired(batch, path)
    old = {file: core.read(file) for file in texts}
    state = kernel(batch)
    if "-e 2" in texts[path].splitlines() and not batch.module.check_mode:
        try_out(batch, path, state)
    for rule in batch.present:
        before = core.block_lines(old[path], rule["rule"])
        after = core.block_lines(texts[path], rule["rule"])
        lacking = {"not in the kernel": state.lacks(after)} if state else {}
        left = lacking if state and state.locked else {name: [] for name in lacking}
        batch.record(rule["rule"], {"file": before, **lacking}, {"file": after, **left})
    for file, text in texts.items():
        batch.write(file, text, mode=MODE)
    batch.restrict(path, MODE)
    if batch.present or texts != old:  # with nothing selected, what others loaded into the kernel is theirs
        settle(batch, path, texts, old)


def try_out(batch: core.Batch, path: str, state: Optional[Kernel]) -> None:
    """Before the kernel is locked its rules must load, all of them: what is wrong then could not be mended."""
    if state is None:
        batch.module.warn("the kernel's audit is not this machine's: rules are locked at boot, and no load was tried")
    elif not state.locked:
        problem = augenrules(batch, "--load")
        if problem:
            batch.fail(f"{path}: not written: the audit rules must load before they are locked: {problem}")


def main() -> None:
    batch = core.batch_module(path={"type": "path", "required": True})
    apply(batch, batch.module.params["path"])
    batch.exit()


if __name__ == "__main__":
    main()
