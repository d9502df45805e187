#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module crypto_policy: away from a system-wide crypto policy that is not accepted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: crypto_policy
author: The cisdriver authors
short_description: Changes the system-wide crypto policy where it is one that is not accepted
description:
  - Leaves DEFAULT, FUTURE and FIPS, and their sub-policies, as it finds them.
  - Changes the policy through update-crypto-policies, which it installs where it is missing. Daemons that run keep the
    old policy until they are started again.
options:
  directory:
    description: Where the policy is configured.
    type: path
    default: /etc/crypto-policies
  memory:
    description: Where what stood there before is kept.
    type: path
    default: /var/lib/cisdriver
  rules:
    description:
      - >-
        Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want has C(not), the policies to leave,
        and C(to), the one to take then.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.crypto_policy:
    rules:
      - {rule: crypto_policy_not_legacy, id: "1.9", want: {not: [LEGACY], to: DEFAULT}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping config and state to the policy.
  type: dict
  returned: always
"""

import os
from typing import Dict

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, runtime

TOOL = "update-crypto-policies"
PACKAGE = "crypto-policies-scripts"


def policies(directory: str) -> Dict[str, str]:
    """The policy configured and the one in effect, as far as there are files that say so."""
    found = {}
    for name in ("config", "state/current"):
        lines = [line.split("#")[0].strip() for line in core.read(os.path.join(directory, name)).splitlines()]
        found[name] = next((line.upper() for line in lines if line), "")
    return {name: policy for name, policy in found.items() if policy}


def take(batch: core.Batch, policy: str) -> None:
    """Run the tool, from its package if need be, and see that it did what it said."""
    directory = batch.module.params["directory"]
    batch.changed_file(os.path.join(directory, "config"), policies(directory)["config"] + "\n", policy + "\n")
    if batch.module.check_mode:
        return
    batch.store()
    rc, out, err = runtime.run(batch.module, [TOOL, "--set", policy])
    if rc == 127:
        argv = ["dnf", "-y", "--setopt=install_weak_deps=False", "install", PACKAGE]
        rc, out, err = runtime.run(batch.module, argv)
        if rc:
            last = " ".join((err.strip() or out.strip()).splitlines()[-3:])
            batch.fail(f"{TOOL} is missing and {' '.join(argv)}: exit {rc}: {last}; the policy stays as it was")
        rc, out, err = runtime.run(batch.module, [TOOL, "--set", policy])
    now = policies(directory)
    if rc or any(found != policy for found in now.values()):
        batch.fail(f"{TOOL} --set {policy}: exit {rc}, the policy is {now}: {err.strip() or out.strip()}")


def give_back(batch: core.Batch, slug: str, now: Dict[str, str]) -> None:
    remembered = batch.given_back(slug).get("policy")
    if remembered and now.get("config") == remembered[1]:
        batch.record(slug, now, dict.fromkeys(now, remembered[0]))
        take(batch, remembered[0])
    batch.forget(slug)  # not before: take() may fail, and writes the memory down


def apply(batch: core.Batch) -> None:
    now = policies(batch.module.params["directory"])
    for rule in batch.present:
        batch.record(rule["rule"], {}, {})
    if "config" not in now:
        return  # no system-wide crypto policy here
    for slug in batch.absent:
        give_back(batch, slug, now)
    for rule in batch.present:
        unwanted = any(policy.split(":")[0] in rule["want"]["not"] for policy in now.values())
        batch.record(rule["rule"], now, dict.fromkeys(now, rule["want"]["to"]) if unwanted else now)
        if unwanted:
            batch.remember(rule["rule"], "policy", now["config"], rule["want"]["to"])
            take(batch, rule["want"]["to"])


def main() -> None:
    batch = core.batch_module("crypto_policy", directory={"type": "path", "default": "/etc/crypto-policies"})
    apply(batch)
    batch.exit()


if __name__ == "__main__":
    main()
