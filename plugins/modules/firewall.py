#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module firewall: a host firewall of nftables in a table of its own, on machines whose site wants one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
author: The cisdriver authors
short_description: Sets up the host firewall for a batch of rules
description:
  - Writes one file that it owns whole, with the table C(inet cisdriver), and includes it last in the file that
    nftables.service loads. The table takes the place of its former self in one step; no other table is touched, and
    the ruleset is never flushed.
  - C(tool) makes nftables the one tool in use; nftables.service is enabled, firewalld and the services of iptables
    masked. Where firewalld is in use already it stays, and nftables.service is masked.
  - The other settings are written only while nftables is the tool in use, whoever chose it.
  - Tries the table in an empty network namespace first. Before it denies anything it sees that the ports of sshd, and
    the connection it is itself run over, stay open.
  - A rule that is no longer selected gets its part of the table taken away, and units their state from before.
options:
  path:
    description: The file with the table.
    type: path
    default: /etc/nftables/cisdriver.nft
  main:
    description: The file that nftables.service loads.
    type: path
    default: /etc/sysconfig/nftables.conf
  memory:
    description: The directory on the node that keeps what stood there before.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want holds C(tool), C(table),
        C(base_chains), C(loopback), C(established) or C(default_deny).
      - C(default_deny) maps C(tcp), C(udp), C(output_tcp), C(output_udp) to ports that stay open, or is null. What goes
        out is denied only when one of the latter two is given.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.firewall:
    rules:
      - {rule: single_firewall_utility_in_use, id: 3.4.1.2, want: {tool: nftables}}
      - {rule: nftables_default_deny, id: 3.4.2.7, want: {default_deny: {tcp: [443]}}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a file, the table or a unit to its state.
  type: dict
  returned: always
"""

import os
import re
import shutil
import tempfile
from typing import Dict, List, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, nftables, runtime

FIREWALLD = "firewalld.service"
NFTABLES = "nftables.service"
IPTABLES = ("iptables.service", "ip6tables.service")
TABLE = ["table", "inet", nftables.TABLE]
#: Loads a file where it can touch nothing, and shows the table that came of it.
TRY = f'nft -f "$1" && nft -s list {" ".join(TABLE)}'
RUNNING = f"{' '.join(TABLE)} (running)"
PROC = "/proc"


def runs(batch: core.Batch, unit: str) -> bool:
    return runtime.manager_runs() and runtime.run(batch.module, ["systemctl", "is-active", unit])[1].strip() == "active"


class Units:
    """Units and the state they are to have at boot; what is changed is remembered, and done at the end."""

    def __init__(self, batch: core.Batch) -> None:
        self.batch = batch
        self.state = {unit: runtime.boot_state(batch, unit) for unit in (FIREWALLD, NFTABLES, *IPTABLES)}
        self.active = {unit: runs(batch, unit) for unit in self.state}
        self._todo: List[Tuple[str, str]] = []

    def used(self, unit: str) -> bool:
        """firewalld stays and can be seen running; the others load rules at boot and are gone."""
        return self.state[unit].startswith("enabled") or (unit == FIREWALLD and self.active[unit])

    def bring(self, rule: str, unit: str, state: str) -> None:
        """A unit to ``enabled`` and running, or to ``masked`` and stopped."""
        running = self.active[unit]
        wanted = (state, runtime.manager_runs() if state == "enabled" else False)
        self.batch.record(rule, {unit: _shown(self.state[unit], running)}, {unit: _shown(*wanted)})
        self.batch.remember(rule, unit, self.state[unit], state)
        if self.state[unit] != state:
            unmask = [("unmask", unit)] if self.state[unit] == "masked" else []
            self._todo += [*unmask, ("enable" if state == "enabled" else "mask", unit)]
        if running != wanted[1]:
            self._todo.append(("start" if wanted[1] else "stop", unit))
        self.batch.changed_file(unit, _shown(self.state[unit], running) + "\n", _shown(*wanted) + "\n")
        self.state[unit], self.active[unit] = wanted

    def give_back(self, slug: str) -> None:
        """The states from before. Nothing is stopped: nftables.service would flush everybody's rules."""
        for unit, (before, after) in self.batch.given_back(slug).items():
            if self.state[unit] == after and before != after:
                self.batch.record(slug, {unit: after}, {unit: before})
                self.batch.changed_file(unit, after + "\n", before + "\n")
                self._todo.append(("unmask" if after == "masked" else "disable", unit))
                if before == "masked" or before.startswith("enabled"):
                    self._todo.append(("mask" if before == "masked" else "enable", unit))
                self.state[unit] = before

    def settle(self) -> None:
        for verb, unit in self._todo if not self.batch.module.check_mode else ():
            rc, _out, err = runtime.run(self.batch.module, ["systemctl", verb, unit])
            if rc:
                self.batch.fail(f"systemctl {verb} {unit}: exit {rc}: {err.strip()}")


def _shown(state: str, running: bool) -> str:
    return f"{state}, {'running' if running else 'stopped'}"


def choose_tool(batch: core.Batch, units: Units) -> None:
    """Make one tool the only one; a firewalld that is in use keeps its place, unless it came to a table of ours."""
    ours = units.used(NFTABLES) and os.path.exists(batch.module.params["path"])
    for rule in batch.present:
        if rule["want"].get("tool") != "nftables":
            continue
        batch.record(rule["rule"], {}, {})
        if units.used(FIREWALLD) and units.used(NFTABLES) and not ours:
            batch.fail(
                f"rule {rule['rule']} ({rule['id']}): firewalld.service and nftables.service are both in use; expected"
                " one. Disable the one that is not meant, or skip the rule: stopping either drops its rules"
            )
        if units.used(FIREWALLD) and not ours:
            if units.state[NFTABLES] != "not-found":
                units.bring(rule["rule"], NFTABLES, "masked")
            continue
        units.bring(rule["rule"], NFTABLES, "enabled")
        for unit in (FIREWALLD, *IPTABLES):
            if units.state[unit] != "not-found":
                units.bring(rule["rule"], unit, "masked")


def asked(batch: core.Batch, before: str) -> Dict[str, nftables.Asked]:
    """What the table is made of: this run's rules, and those outside of it as the file has them."""
    rules = {slug: rule for slug, rule in nftables.asked(before).items() if slug in batch.keep}
    for rule in batch.present:
        settings = {name: rule["want"][name] for name in nftables.PARTS if name in rule["want"]}
        wrong = nftables.problem(settings)
        if wrong:
            batch.fail(f"rule {rule['rule']} ({rule['id']}): cis_values: {wrong}; nothing is changed")
        if settings:
            rules[rule["rule"]] = nftables.Asked(rule["id"], settings)
    return rules


# Who administers this machine stays able to


def ssh_ports(batch: core.Batch) -> List[int]:
    """Ports of sshd, as it would use them. Fails where it is installed and does not tell."""
    if not os.path.exists("/usr/sbin/sshd") and not shutil.which("sshd"):
        return []
    argv = ["/usr/sbin/sshd", "-T"]
    rc, out, err = runtime.run(batch.module, argv)
    if rc and "no hostkeys" in err:  # an image before its first boot
        directory = tempfile.mkdtemp(prefix=core.TEMPORARY)
        try:
            key = os.path.join(directory, "key")
            runtime.run(batch.module, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
            rc, out, err = runtime.run(batch.module, [*argv, "-h", key])
        finally:
            shutil.rmtree(directory)
    if rc:
        batch.fail(f"sshd -T: exit {rc}: {err.strip()}; nothing is denied before the port of sshd is known")
    return sorted({int(port) for port in re.findall(r"(?m)^(?:port |listenaddress .*:)(\d+)(?: .*)?$", out)})


def connection_port() -> int:
    """The port on this machine of the SSH connection by which this module was started; 0 where there is none."""
    pid = os.getpid()
    while pid > 1:
        try:
            with open(f"{PROC}/{pid}/environ", "rb") as file:
                found = re.search(rb"(?:^|\0)SSH_CONNECTION=\S+ \d+ \S+ (\d+)", file.read())
            with open(f"{PROC}/{pid}/status", encoding="ascii", errors="replace") as file:
                parent = re.search(r"(?m)^PPid:\s+(\d+)", file.read())
        except OSError:
            return 0
        if found:
            return int(found.group(1))
        pid = int(parent.group(1)) if parent else 0
    return 0


def check_not_shut_out(batch: core.Batch, rules: Dict[str, nftables.Asked], ssh: List[int]) -> None:
    """Fail if the table would drop the connection this runs over, or a new one like it."""
    port = connection_port()
    for slug, rule in rules.items():
        if port and "default_deny" in rule.settings:
            stays = [*map(str, ssh), *nftables.ports(rule.settings, "tcp")]
            if not nftables.contains(stays, port):
                batch.fail(
                    f"rule {slug} ({rule.id}): it would shut port {port}, by which this runs; sshd -T names"
                    f" {', '.join(map(str, ssh)) or 'no port'}. Nothing is changed; name the port: "
                    f"cis_values: {{{slug}: {{tcp: [{port}]}}}}"
                )


# The table


def tried(batch: core.Batch, text: str) -> str:
    """The table as nft shows it, made in an empty namespace. Fails, and nothing is changed, where nft refuses it."""
    handle, path = tempfile.mkstemp(prefix=core.TEMPORARY)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        rc, out, err = runtime.run(batch.module, ["unshare", "--net", "sh", "-c", TRY, "sh", path])
    finally:
        os.unlink(path)
    if rc:
        batch.fail(
            f"{batch.module.params['path']}: nothing is changed, nft refuses it: {err.strip().replace(path, '')}"
        )
    return out


def shown(batch: core.Batch) -> str:
    """The table that filters now, empty where there is none."""
    rc, out, err = runtime.run(batch.module, ["nft", "-s", "list", *TABLE])
    if rc not in (0, 127) and "No such file" not in err:
        batch.fail(f"nft list {' '.join(TABLE)}: exit {rc}: {err.strip()}; nothing is changed")
    return out if rc == 0 else ""


def has_nft(batch: core.Batch, text: str) -> bool:
    """Whether the running filter can be looked at; fails where it has to be and nft is missing."""
    if not runtime.manager_runs():
        return False
    there = runtime.run(batch.module, ["nft", "--version"])[0] != 127
    if text and not there and not batch.module.check_mode:  # in check mode the package is yet to come
        batch.fail("nft: not found; select nftables_installed (3.4.1.1), too. Nothing is changed")
    return there


def including(text: str, path: str, owned: bool) -> str:
    """The file of nftables.service with our table loaded last, or without that line once we own nothing.

    Last, for what stands below might flush it away.
    """
    line = f'include "{path}"'
    lines = text.splitlines()
    said = [each.strip() for each in lines if each.strip() and not each.lstrip().startswith("#")]
    if owned and said and said[-1] == line and said.count(line) == 1:
        return text
    if not owned and line not in said:
        return text
    lines = [each for each in lines if each.strip() != line] + ([line] if owned else [])
    return "\n".join(lines) + "\n" if lines else ""


def load(batch: core.Batch, text: str, before: str) -> None:
    """The running table made as the file has it."""
    argv = ["nft", "-f", batch.module.params["path"]] if text else ["nft", "delete", *TABLE]
    rc, _out, err = runtime.run(batch.module, argv)
    if rc:
        kept = "the old table stays" if before else "no table is loaded"
        batch.fail(f"{' '.join(argv)}: exit {rc}: {err.strip()}; {kept}")


def record(batch: core.Batch, old: str, rules: Dict[str, nftables.Asked], differs: bool) -> None:
    path, before = batch.module.params["path"], nftables.asked(old)
    for slug in {*rules, *before} - batch.keep:
        settings = [each[slug].settings if slug in each else None for each in (before, rules)]
        batch.record(slug, {path: settings[0]}, {path: settings[1]})
        if slug in rules:
            now = "otherwise" if differs else "as written"
            batch.record(slug, {RUNNING: now}, {RUNNING: "as written"})


def guard(batch: core.Batch) -> None:
    """Fail before anything is written where a host firewall would cost a node its pods."""
    mark = runtime.node_mark()
    for rule in batch.present if mark else ():
        batch.fail(
            f"rule {rule['rule']} ({rule['id']}): a host firewall would cut the pods of this Kubernetes node (it has"
            f" {mark}); use cis_profile eks, or cis_skip"
        )


def apply(batch: core.Batch) -> None:
    """Work out units and table, try it, put it in place, load it, and only then change the units."""
    params = batch.module.params
    if not (batch.present or os.path.exists(params["path"]) or any(map(batch.given_back, batch.absent))):
        return  # as on every EKS node
    guard(batch)
    units = Units(batch)
    for slug in batch.absent:
        units.give_back(slug)
    choose_tool(batch, units)
    old = core.read(params["path"])
    rules = asked(batch, old) if units.used(NFTABLES) else {}
    ssh = ssh_ports(batch) if any("default_deny" in rule.settings for rule in rules.values()) else []
    check_not_shut_out(batch, rules, ssh)
    text = nftables.text(rules, ssh)
    here = has_nft(batch, text)
    wanted, running = (tried(batch, text) if here and text else "", shown(batch) if here else "")
    record(batch, old, rules, wanted != running)
    batch.changed_file(RUNNING, running, wanted)
    batch.write(params["path"], text, mode=0o600)
    main = core.read(params["main"])
    batch.write(params["main"], including(main, params["path"], bool(text)), mode=0o600)
    if not batch.module.check_mode:
        batch.store()
        if wanted != running:
            load(batch, text, running)
    units.settle()
    for slug in batch.absent:  # not before: a unit may refuse
        batch.forget(slug)


def main() -> None:
    batch = core.batch_module(
        "firewall",
        path={"type": "path", "default": "/etc/nftables/cisdriver.nft"},
        main={"type": "path", "default": "/etc/sysconfig/nftables.conf"},
    )
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
