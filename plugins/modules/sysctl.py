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
  - A line of a later file in C(/etc) that would win at the next boot is set aside as a comment that starts with
    C(# cisdriver), and comes back when the rule is no longer selected. Files an EKS node comes with are never edited.
  - Parameters the running kernel does not have, such as those of IPv6 when it is off, are written but not set.
    In a container only C(net) parameters are set, in a chroot none.
  - Refuses the parameters without which a kubelet does not start, and on a Kubernetes node to turn forwarding off.
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

import glob
import os
from typing import Dict, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, overrides, runtime

PROC = "/proc/sys/"
#: After the drop-in's own directory, those that systemd-sysctl merges with it, by precedence.
DIRECTORIES = ("/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")
#: Files an EKS node comes with (amazon-eks-ami): nodeadm, kubelet and the CNI rely on them as they are.
EKS_FILES = ("67-eks-reserved-ports.conf", "99-amazon.conf", "99-kubernetes-cri.conf")
#: With protectKernelDefaults the kubelet refuses to start when these differ from what the AMI sets.
KUBELET_KEYS = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
FORWARDING = ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding")


def lines_of(rule: Mapping[str, Mapping[str, object]]) -> List[str]:
    return [f"{key} = {value}" for key, value in rule["want"].items()]


def parsed(line: str) -> Tuple[Optional[str], Optional[str]]:
    """Key with dots and value of a sysctl.d line; ``-key`` has no value, any other line has neither."""
    text = line.strip()
    key, equals, value = text.partition("=")
    if not text or text[0] in "#;" or not (equals or text.startswith("-")):
        return None, None
    key = key.strip().lstrip("-").strip()
    first = min((key.find(mark) for mark in "./" if mark in key), default=-1)
    if first >= 0 and key[first] == "/":
        key = key.translate(str.maketrans("./", "/."))
    return key, " ".join(value.split()) if equals else None


def guard(batch: core.Batch) -> None:
    """Fail before anything is written when a rule would cost the node its kubelet or its pods."""
    mark = runtime.node_mark()
    for rule in batch.present:
        who = f"rule {rule['rule']} ({rule['id']})"
        for key, value in rule["want"].items():
            if key in KUBELET_KEYS:
                batch.fail(f"{who}: {key} is never written: the kubelet checks it and would not start")
            if key in FORWARDING and str(value) == "0" and mark:
                batch.fail(
                    f"{who}: {key} = 0 would cut the pods of this Kubernetes node (it has {mark});"
                    " use cis_profile eks, or cis_skip"
                )


def later_files(path: str) -> List[str]:
    """Files that systemd-sysctl reads after ``path``, a name in the first directory hiding its namesakes."""
    winners: Dict[str, str] = {}
    for directory in (os.path.dirname(path), *DIRECTORIES):
        for file in glob.glob(f"{directory}/*.conf"):
            winners.setdefault(os.path.basename(file), file)
    return [winners[name] for name in sorted(winners) if name > os.path.basename(path)]


def yielding(batch: core.Batch, path: str, after: str) -> Dict[str, str]:
    """New texts of the later files that contradict the drop-in. Fails where such a file is not ours to edit."""
    wanted = {key: str(value) for rule in batch.present for key, value in rule["want"].items()}
    written = {parsed(line)[0] for line in after.splitlines()}

    def offends(line: str) -> bool:
        key, value = parsed(line)
        return key in wanted and value != wanted[key or ""]

    texts = {}
    for file in later_files(path):
        target = os.path.realpath(file)
        text = core.read(target)
        new = overrides.set_aside(text, path, offends, restore=lambda line: parsed(line)[0] not in written)
        offenders = [number for number, line in enumerate(text.splitlines(), 1) if offends(line)]
        editable = target.startswith(os.path.dirname(os.path.dirname(path)) + "/")
        if offenders and (os.path.basename(file) in EKS_FILES or not editable):
            line = text.splitlines()[offenders[0] - 1].strip()
            batch.fail(
                f"{file}:{offenders[0]}: {line!r} beats {path} and is not ours to edit; correct it there,"
                f" hide the file by one of its name in {os.path.dirname(path)}, or skip the rule"
            )
        texts[target] = new
    return texts


def apply(batch: core.Batch, path: str) -> None:
    """Write the drop-in, let contradicting lines yield, then bring the running kernel to it."""
    guard(batch)
    before = core.read(path)
    after = core.dropin(before, batch.present, batch.keep, lines_of)
    others = yielding(batch, path, after)
    batch.write(path, after)
    for file, text in others.items():
        batch.write(file, text)
    for rule in batch.present:
        written = {"file": core.block_lines(before, rule["rule"])}
        batch.record(rule["rule"], written, {"file": lines_of(rule)})
        for key, value in rule["want"].items():
            set_running(batch, rule["rule"], key, str(value))


def set_running(batch: core.Batch, rule: str, key: str, value: str) -> None:
    # what is not of a network namespace is the host's, where this is a container
    if not runtime.manager_runs() or (runtime.in_container() and not key.startswith("net.")):
        return
    path = PROC + key.translate(str.maketrans("./", "/."))
    current = " ".join(core.read(path).split())
    if not current:
        return
    batch.record(rule, {key: current}, {key: value})
    batch.changed_file(path, current + "\n", value + "\n")
    if current == value or batch.module.check_mode:
        return
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        batch.fail(f"rule {rule}: cannot set {key} to {value}: {error.strerror}; the drop-in sets it at the next boot")


def main() -> None:
    batch = core.batch_module(path={"type": "path", "required": True})
    apply(batch, batch.module.params["path"])
    batch.exit()


if __name__ == "__main__":
    main()
