#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module sysctl: a list of rules' kernel parameters in one drop-in, and in the running kernel."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sysctl
author: The cisdriver authors
short_description: Sets kernel parameters of a batch of rules
description:
  - Writes one drop-in that it owns whole, and sets the running values where they differ.
  - Parameters the running kernel does not have, such as those of IPv6 when it is off, are written but not set.
options:
  path:
    description: The drop-in.
    type: path
    required: true
  rules:
    description: Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want maps a key to its value.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.sysctl:
    path: /etc/sysctl.d/60-cis-network.conf
    rules:
      - {rule: send_redirects_disabled, id: 3.2.2, want: {net.ipv4.conf.all.send_redirects: 0}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), before and after mapping a key to its running value.
  type: dict
  returned: always
"""

from typing import Any, List, Mapping

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core


def lines_of(rule: Mapping[str, Any]) -> List[str]:
    return [f"{key} = {value}" for key, value in rule["want"].items()]


def running_path(key: str) -> str:
    return "/proc/sys/" + key.translate(str.maketrans("./", "/."))


def apply(batch: core.Batch, path: str) -> None:
    """Write the drop-in, then bring the running kernel to it."""
    before = core.read(path)
    batch.write(path, core.dropin(before, batch, lines_of))
    for rule in batch.present:
        written = {"file": core.block_lines(before, rule["rule"])}
        batch.record(rule["rule"], written, {"file": lines_of(rule)})
        for key, value in rule["want"].items():
            set_running(batch, rule["rule"], key, str(value))


def set_running(batch: core.Batch, rule: str, key: str, value: str) -> None:
    path = running_path(key)
    current = " ".join(core.read(path).split())
    if not current:
        return
    batch.record(rule, {key: current}, {key: value})
    if current == value or batch.module.check_mode:
        return
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        batch.fail(f"rule {rule}: cannot set {key} to {value}: {error.strerror}; it stands in the drop-in for the next boot")


def main() -> None:
    batch = core.batch_module(path={"type": "path", "required": True})
    apply(batch, batch.module.params["path"])
    batch.exit()


if __name__ == "__main__":
    main()
