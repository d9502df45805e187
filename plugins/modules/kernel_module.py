#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module kernel_module: modules that must not load, in one modprobe drop-in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_module
author: The cisdriver authors
short_description: Keeps kernel modules of a batch of rules from loading
description:
  - Writes one modprobe drop-in that it owns whole, an C(install) and a C(blacklist) line per module.
  - modprobe takes the first C(install) line it reads for a module. Give the drop-in a name that sorts first; a line
    of an earlier file is set aside as a comment that starts with C(# cisdriver), and comes back when the rule is
    no longer selected.
  - A module that is loaded and unused is unloaded; where that fails, or something uses it, a warning says so and
    the next boot does without. In a container or chroot nothing is unloaded.
  - Refuses modules without which an EKS node has no pods, no network or no disk.
options:
  path:
    description: The drop-in.
    type: path
    required: true
  rules:
    description: >-
      Rules as the lookup P(cisdriver.amazon_linux.rules#lookup) gives them; want is C({disabled, install}), names of
      modules and the command that stands for loading them, /bin/false by default.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- cisdriver.amazon_linux.kernel_module:
    path: /etc/modprobe.d/00-cis-network.conf
    rules:
      - {rule: rds_disabled, id: 3.1.4, want: {disabled: [rds]}}
"""

RETURN = r"""
rules:
  description: Per rule C({changed, before, after}), with the lines of the C(file) and the modules C(loaded).
  type: dict
  returned: always
"""

import fnmatch
import glob
import os
from typing import Dict, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, overrides, runtime

PROC_MODULES = "/proc/modules"
#: After the drop-in's own directory, those that modprobe merges with it, by precedence.
DIRECTORIES = ("/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
#: Container runtime, kube-proxy and CNI, file systems of root, boot and volumes, EC2 devices.
NEEDED = (
    "overlay", "br_netfilter", "bridge", "veth", "vxlan", "tun", "wireguard", "ip_tables", "ip6_tables",
    "iptable_*", "ip6table_*", "ipt_*", "nf_*", "nft_*", "nfnetlink*", "x_tables", "xt_*", "ip_set*", "ip_vs*",
    "xfs", "ext4", "jbd2", "vfat", "fat", "nls_*", "nfs", "nfsv*", "nfs_*", "sunrpc", "fuse", "ena", "efa", "nvme",
    "nvme_*", "xen_*", "dm_*",
)  # fmt: skip


def normal(name: str) -> str:
    return name.replace("-", "_")


def lines_of(rule: Mapping[str, Mapping[str, object]]) -> List[str]:
    want = rule["want"]
    lines = []
    for name in want["disabled"]:  # type: ignore[attr-defined]
        lines += [f"install {name} {want.get('install', '/bin/false')}", f"blacklist {name}"]
    return lines


def parsed(line: str) -> Tuple[Optional[str], str]:
    """Module and command of an ``install`` line; of any other line no module."""
    words = line.split()
    if len(words) < 3 or words[0] != "install":
        return None, ""
    return normal(words[1]), " ".join(words[2:])


def guard(batch: core.Batch) -> None:
    """Fail before anything is written when a rule names a module that a node needs."""
    for rule in batch.present:
        for name in rule["want"]["disabled"]:
            if any(fnmatch.fnmatchcase(normal(name), needed) for needed in NEEDED):
                batch.fail(f"rule {rule['rule']} ({rule['id']}): {name} is never disabled: an EKS node needs it")


def earlier_files(path: str) -> List[str]:
    """Files that modprobe reads before ``path``, a name in the first directory hiding its namesakes."""
    winners: Dict[str, str] = {}
    for directory in (os.path.dirname(path), *DIRECTORIES):
        for file in glob.glob(f"{directory}/*.conf"):
            winners.setdefault(os.path.basename(file), file)
    return [winners[name] for name in sorted(winners) if name < os.path.basename(path)]


def yielding(batch: core.Batch, path: str, after: str) -> Dict[str, str]:
    """New texts of the earlier files that would win over the drop-in. Fails for a file outside /etc."""
    wanted = {normal(name) for rule in batch.present for name in rule["want"]["disabled"]}
    written = {parsed(line)[0] for line in after.splitlines()}

    def offends(line: str) -> bool:
        module, command = parsed(line)
        return module in wanted and command not in ("/bin/false", "/bin/true")

    texts = {}
    for file in earlier_files(path):
        target = os.path.realpath(file)
        text = core.read(target)
        texts[target] = overrides.set_aside(text, path, offends, restore=lambda line: parsed(line)[0] not in written)
        if texts[target] != text and not target.startswith(os.path.dirname(os.path.dirname(path)) + "/"):
            batch.fail(f"{file}: it beats {path} and is not ours to edit; hide it by a file of its name in"
                       f" {os.path.dirname(path)}, or skip the rule")  # fmt: skip
    return texts


def loaded() -> Dict[str, int]:
    """Loaded modules and how often each is in use."""
    words = [line.split() for line in core.read(PROC_MODULES).splitlines()]
    return {fields[0]: int(fields[2]) for fields in words if len(fields) > 2}


def apply(batch: core.Batch, path: str) -> None:
    """Write the drop-in, let earlier lines yield, then unload what nothing uses."""
    guard(batch)
    before = core.read(path)
    after = core.dropin(before, batch.present, batch.keep, lines_of)
    others = yielding(batch, path, after)
    batch.write(path, after)
    for file, text in others.items():
        batch.write(file, text)
    running = loaded() if runtime.owns_kernel() else {}
    for rule in batch.present:
        names = [name for name in rule["want"]["disabled"] if normal(name) in running]
        left = [name for name in names if not unloads(batch, rule["rule"], name, running[normal(name)])]
        batch.record(
            rule["rule"],
            {"file": core.block_lines(before, rule["rule"]), "loaded": names},
            {"file": lines_of(rule), "loaded": left},
        )


def unloads(batch: core.Batch, rule: str, name: str, uses: int) -> bool:
    """Unload a module; whether it is gone, or would be."""
    if uses:
        batch.module.warn(f"rule {rule}: {name} is in use and stays loaded until the next boot")
        return False
    if not batch.module.check_mode:
        rc, _out, err = runtime.run(batch.module, ["modprobe", "-r", name])
        if rc:
            batch.module.warn(f"rule {rule}: {name} stays loaded until the next boot: {err.strip()}")
            return False
    batch.changed_file(PROC_MODULES, f"{name}\n", "")
    return True


def main() -> None:
    batch = core.batch_module(path={"type": "path", "required": True})
    apply(batch, batch.module.params["path"])
    batch.exit()


if __name__ == "__main__":
    main()
