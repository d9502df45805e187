#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module package: a list of rules' packages, removed in one transaction and installed in another."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package
author: The cisdriver authors
short_description: Removes and installs packages of a batch of rules
description:
  - Reads the RPM database once. Where nothing is to be done no repository is asked.
  - What requires a package that goes, goes with it and is shown; what a package merely pulled in once, stays.
  - Refuses to remove what an EKS node runs on, and what needs it.
  - Never takes back a package of a rule that is no longer selected.
options:
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps C(absent), C(present) and
      C(any_of) to names of packages. Of C(any_of) the first is installed where none is.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.package:
    rules:
      - {rule: avahi_absent, id: 2.2.2, want: {absent: [avahi]}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a package to C(absent) or C(installed).
  type: dict
  returned: always
"""

import fnmatch
import re
from typing import Any, Dict, List, Mapping, Set

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

#: What carries the node, its way in and its way out: a transaction that removes one of these is refused.
PROTECTED = (
    "amazon-ec2-net-utils", "amazon-ssm-agent", "audit", "awscli-2", "bash", "chrony", "cloud-init", "cni-plugins",
    "conntrack-tools", "containerd", "cri-tools", "dnf", "ec2-instance-connect", "ecr-credential-provider", "glibc",
    "iproute", "iptables*", "ipvsadm", "kernel*", "kubelet", "nerdctl", "nfs-utils", "nftables", "nodeadm",
    "openssh-server", "pam", "python3", "rpm", "rpcbind", "runc", "selinux-policy*", "shadow-utils", "socat",
    "soci-snapshotter", "sudo", "systemd", "systemd-networkd", "systemd-resolved", "util-linux", "xfsprogs", "yum",
)  # fmt: skip
#: rpm says who would be left without: ``libfoo is needed by (installed) bar-1.0-1.amzn2023.x86_64``.
NEEDED_BY = re.compile(r"is needed by \(installed\) (\S+)")


def installed(batch: core.Batch) -> Set[str]:
    rc, out, err = runtime.run(batch.module, ["rpm", "-qa", "--queryformat", "%{NAME}\\n"])
    if rc or not out.strip():
        batch.fail(f"rpm -qa: exit {rc}, no packages listed: {err.strip()}")
    return set(out.split())


def changes(rule: Mapping[str, Any], have: Set[str]) -> Dict[str, str]:
    """Package to ``absent`` or ``installed``, for those that are not so yet."""
    want = rule["want"]
    wanted = {name: "absent" for name in want.get("absent", []) if name in have}
    wanted.update({name: "installed" for name in want.get("present", []) if name not in have})
    any_of = want.get("any_of", [])
    if any_of and not have & set(any_of):
        wanted[any_of[0]] = "installed"
    return wanted


def named(rule: Mapping[str, Any]) -> List[str]:
    return [name for key in ("absent", "present", "any_of") for name in rule["want"].get(key, [])]


def with_dependants(batch: core.Batch, names: List[str]) -> List[str]:
    """``names`` and, transitively, all that could not stay without them."""
    going = list(names)
    while going:
        rc, out, err = runtime.run(batch.module, ["rpm", "-e", "--test", *going])
        if rc == 0:
            break
        needing = set(NEEDED_BY.findall(out + err))
        new = sorted(name_of(batch, nevra) for nevra in needing)
        new = [name for name in dict.fromkeys(new) if name not in going]
        if not new:
            batch.fail(f"rpm -e --test {' '.join(going)}: exit {rc}: {(err or out).strip()}")
        going += new
    return going


def name_of(batch: core.Batch, nevra: str) -> str:
    rc, out, err = runtime.run(batch.module, ["rpm", "-q", "--queryformat", "%{NAME}\\n", nevra])
    if rc:
        batch.fail(f"rpm -q {nevra}: exit {rc}: {(err or out).strip()}")
    return out.split()[0]


def refuse_protected(batch: core.Batch, rules: List[Mapping[str, Any]], going: List[str]) -> None:
    kept = [name for name in going if any(fnmatch.fnmatchcase(name, pattern) for pattern in PROTECTED)]
    if kept:
        slugs = ", ".join(f"{rule['rule']} ({rule['id']})" for rule in rules)
        batch.fail(
            f"rule {slugs}: removing {' '.join(going)} would take {' '.join(kept)}, which this node runs on;"
            " nothing was removed; skip the rule, or free the package of what needs it"
        )


def remove(batch: core.Batch, wanted: Mapping[str, Dict[str, str]]) -> None:
    names = sorted({name for each in wanted.values() for name, state in each.items() if state == "absent"})
    if not names:
        return
    going = with_dependants(batch, names)
    blamed = [rule for rule in batch.present if "absent" in wanted[rule["rule"]].values()]
    refuse_protected(batch, blamed, going)
    batch.changed_file("installed packages", "".join(f"{name}\n" for name in sorted(going)), "")
    # leaves stay: what nothing requires any more may be what somebody put there
    flags = ["-y", "--setopt=clean_requirements_on_remove=False", "--disablerepo=*"]
    transact(batch, "remove", flags, going, expect=set())


def install(batch: core.Batch, wanted: Mapping[str, Dict[str, str]]) -> None:
    names = sorted({name for each in wanted.values() for name, state in each.items() if state == "installed"})
    if not names:
        return
    batch.changed_file("installed packages", "", "".join(f"{name}\n" for name in names))
    transact(batch, "install", ["-y", "--setopt=install_weak_deps=False"], names, expect=set(names))


def transact(batch: core.Batch, verb: str, flags: List[str], names: List[str], expect: Set[str]) -> None:
    """One dnf (or, on Amazon Linux 2, yum) transaction; the RPM database then has the last word."""
    if batch.module.check_mode:
        return
    for program in ("dnf", "yum"):
        rc, out, err = runtime.run(batch.module, [program, *flags, verb, *names])
        if rc != 127:
            break
    left = set(names) & installed(batch)
    if left != expect:
        wrong = " ".join(sorted(left ^ expect))
        last = " ".join((err.strip() or out.strip()).splitlines()[-3:])
        batch.fail(f"{program} {verb} {' '.join(names)}: exit {rc}, not done for {wrong}: {last}")


def apply(batch: core.Batch) -> None:
    have = installed(batch)
    wanted = {rule["rule"]: changes(rule, have) for rule in batch.present}
    remove(batch, wanted)
    install(batch, wanted)
    for rule in batch.present:
        before = {name: "installed" if name in have else "absent" for name in named(rule)}
        batch.record(rule["rule"], before, {**before, **wanted[rule["rule"]]})


def main() -> None:
    batch = core.batch_module()
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
