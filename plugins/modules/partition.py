#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module partition: directories of a machine that is being made into an image move to file systems of their own."""

from __future__ import annotations

DOCUMENTATION = r"""
module: partition
author: The cisdriver authors
short_description: Moves directories to file systems of their own on a blank volume
description:
  - Makes XFS file systems on a blank device (a GPT by C(sfdisk)) or on one device each, copies what lies under their
    paths with owners, ACLs, extended attributes and SELinux labels, compares the copy, and then writes C(/etc/fstab).
  - Nothing is mounted over the running system. The old data stays where it is until the machine has been restarted;
    only then, with O(old_data=removed), is what lies hidden under the proven mounts deleted.
  - An interruption at any point leaves a machine that boots. A run after it starts over, on what it had begun itself.
  - Refuses a machine on which a kubelet or containers run, a device that holds or serves anything, and a path that is
    a mount already.
options:
  layout:
    description: >-
      The file systems, as C({path, label, share, size, options, binds, device}). V(share) is in percent of the device,
      V(size) in GiB; the one entry without either gets what is left. V(binds) are paths that are bound from directories
      of this file system. With V(device) in each entry no partition table is made.
    type: list
    elements: dict
    required: true
  device:
    description: >-
      The blank device, by the name of its block device mapping (C(/dev/xvdb)), as a node or link, or by its volume id.
    type: str
    default: ""
  old_data:
    description: V(removed) deletes what the mounts hide, once they are there.
    type: str
    choices: [kept, removed]
    default: kept
  state_path:
    description: Where the module notes what it has begun.
    type: path
    default: /var/lib/cisdriver/partition.json
"""

EXAMPLES = r"""
- name: Lay out the volume
  cisdriver.amazon_linux.partition:
    device: /dev/xvdb
    layout:
      - {path: /var, label: cis-var, share: 20, options: [nodev, nosuid]}
      - {path: /mnt/k8s-disks/cis, label: cis-pods, binds: [/var/lib/containerd, /var/lib/kubelet]}
"""

RETURN = r"""
reboot_required:
  description: Whether the mounts still wait for a restart.
  type: bool
  returned: always
mounts:
  description: Per path its device and size in MiB, 0 for all that was left. Empty when nothing had to be laid out.
  type: dict
  returned: always
"""

import json
import os
import tempfile
import time
import uuid
from typing import Any, Dict, List, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, disk, layout, runtime, trees

FSTAB = "/etc/fstab"
PROC = "/proc"
STAGE = "/run/cisdriver-partition"
#: What a new file system needs beside the data: its log, and room to live.
_ROOM = 1.1


class Failed(Exception):  # noqa: N818 - like the module's fail_json, which it becomes
    """What stopped the module; nothing that decides about the next boot has changed."""


def must(module: AnsibleModule, argv: Sequence[str], stdin: str = "") -> str:
    """Run a program that has to succeed. Raises Failed with what it said."""
    locale = {"LC_ALL": "C"}
    try:
        rc, out, err = module.run_command(
            list(argv), data=stdin or None, environ_update=locale, handle_exceptions=False
        )
    except OSError as error:
        raise Failed(f"{argv[0]}: cannot be run: {error.strerror}") from error
    if rc:
        raise Failed(f"{' '.join(argv)}: exit code {rc}: {(err or out).strip()[-500:]}")
    return str(out)


# may it be done ---------------------------------------------------------------------------------


def refuse_live() -> None:
    """Raise Failed on a machine that serves a cluster: its pods hold files open that would be left behind."""
    for entry in os.listdir(PROC):
        try:
            name = core.read(f"{PROC}/{entry}/comm").strip() if entry.isdigit() else ""
        except OSError:  # a process that ends while it is looked at
            continue
        if name in ("kubelet", "containerd-shim"):
            what = "a kubelet runs here" if name == "kubelet" else "containers run here"
            raise Failed(f"{what} (process {entry}): only a machine that is being made into an image can be laid out")


def refuse_mounted(targets: Sequence[str]) -> None:
    for path in targets:
        if path in mount_table():
            raise Failed(f"{path} is a mount of its own already: leave it out of the layout")


def mount_table() -> Dict[str, List[str]]:
    """Fields of mountinfo per mount point, of the last mount where several are stacked."""
    lines = core.read(f"{PROC}/self/mountinfo").splitlines()
    return {line.split()[4]: line.split() for line in lines}


def refuse_narrow(mounts: Sequence[layout.Mount], devices: Dict[str, str]) -> None:
    """Raise Failed where the data would not fit."""
    used = trees.used(layout.tops(mounts), layout.targets(mounts))
    for mount in mounts:
        needed = int(sum(used[path] for path in (mount.path, *mount.binds)) * _ROOM) >> 20
        there = mount.mib or disk.mib(devices[mount.path])
        if needed > there:
            raise Failed(f"{mount.path}: what lies there needs {needed} MiB, {there} are planned: give it more")


# making it --------------------------------------------------------------------------------------


class Notes:
    """What the module has begun: ids of the things it made, so that it knows them again after an interruption."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self.path = module.params["state_path"]
        text = core.read(self.path)
        self.known: Dict[str, Any] = json.loads(text) if text else {"ids": [], "old_data": False}

    def write(self) -> None:
        put(self._module, self.path, json.dumps(self.known, indent=1) + "\n", 0o600)

    def new_id(self) -> str:
        """An id that is noted before anything carries it."""
        self.known["ids"].append(str(uuid.uuid4()))
        self.write()
        return str(self.known["ids"][-1])


def put(module: AnsibleModule, path: str, text: str, mode: int) -> None:
    """Write a file so that after a crash it is the old one or the new one."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".cisdriver-", dir=os.path.dirname(path))
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        module.atomic_move(temporary, path)
        os.sync()  # the directory's entry, too
    except OSError as error:
        raise Failed(f"{path}: cannot be written, the old text stays: {error.strerror}") from error


def make(module: AnsibleModule, mounts: Sequence[layout.Mount], shared: str, devices: Dict[str, str]) -> None:
    """The partition table, where a device is shared, and the file systems."""
    notes = Notes(module)
    notes.known["old_data"] = True
    if shared:
        table = layout.table(mounts, notes.new_id())
        must(module, ["sfdisk", "--quiet", "--wipe", "always", "--no-reread", "--no-tell-kernel", shared], table)
        must(module, ["partx", "--update", shared])
        runtime.run(module, ["udevadm", "settle", "--timeout=15"])
    for mount in mounts:
        disk.wait_for(devices[mount.path])
        identity = f"uuid={notes.new_id()}"
        must(module, ["mkfs.xfs", "-q", "-f", "-L", mount.label, "-m", identity, devices[mount.path]])


def stage(module: AnsibleModule, mounts: Sequence[layout.Mount], devices: Dict[str, str]) -> None:
    """Mount all under STAGE as the boot will: the same options, the same order, bound where it binds."""
    os.makedirs(STAGE, mode=0o700, exist_ok=True)
    unstage(module)
    must(module, ["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", STAGE])
    for mount in mounts:
        os.makedirs(STAGE + mount.path, exist_ok=True)
        options = ",".join(["defaults", *mount.options])
        must(module, ["mount", "-t", "xfs", "-o", options, devices[mount.path], STAGE + mount.path])
    for bind, source in sorted((bind, source) for mount in mounts for bind, source in mount.sources.items()):
        for path in (bind, source):
            os.makedirs(STAGE + path, exist_ok=True)
        must(module, ["mount", "--bind", STAGE + source, STAGE + bind])


def unstage(module: AnsibleModule) -> None:
    if os.path.ismount(STAGE):
        must(module, ["umount", "--recursive", STAGE])


def copy(module: AnsibleModule, tops: Sequence[str]) -> None:
    """Copy what lies under each top, and compare. Raises Failed when the copy is not the original."""
    for top in tops:
        if not os.path.isdir(top):
            os.makedirs(STAGE + top, exist_ok=True)
            continue
        started = time.time()
        argv = ["cp", "--archive", "--one-file-system", f"{top}/.", f"{STAGE}{top}/"]
        rc, _out, err = runtime.run(module, argv)
        wrong = [line for line in err.splitlines() if not line.endswith("No such file or directory")]
        if wrong or rc not in (0, 1):
            raise Failed(f"{top} cannot be copied: {'; '.join(wrong[:3]) or f'cp ended with {rc}'}")
        found = trees.differences(top, STAGE + top, started)
        if found:
            raise Failed(f"the copy of {top} is not like it: {'; '.join(found[:3])} ({len(found)} in all)")


def lay_out(module: AnsibleModule, mounts: Sequence[layout.Mount], shared: str, fstab: str) -> Dict[str, Any]:
    """All up to fstab, which comes last: until it is written, the next boot is as the last one."""
    refuse_live()
    refuse_mounted(layout.targets(mounts))
    devices = {mount.path: disk.resolve(module, mount.device) for mount in mounts if mount.device}
    for device in [shared] if shared else devices.values():
        disk.refuse_used(module, device, Notes(module).known["ids"])
    if shared:
        order = enumerate(layout.in_table_order(mounts), 1)
        devices = {mount.path: disk.partition(shared, number) for number, mount in order}
    refuse_narrow(mounts, devices)
    newline = "\n" if fstab and not fstab.endswith("\n") else ""
    after = fstab + newline + "\n".join(layout.fstab_lines(mounts)) + "\n"
    if not module.check_mode:
        make(module, mounts, shared, devices)
        try:
            stage(module, mounts, devices)
            copy(module, layout.tops(mounts))
        finally:
            os.sync()
            unstage(module)
        put(module, FSTAB, after, 0o644)
    texts = [(FSTAB, fstab, after)] + ([(shared, "", layout.table(mounts, ""))] if shared else [])
    diff = [{"before_header": name, "after_header": name, "before": old, "after": new} for name, old, new in texts]
    facts = {mount.path: {"device": devices[mount.path], "mib": mount.mib} for mount in mounts}
    return {"changed": True, "diff": diff, "mounts": facts, "reboot_required": True}


# after the restart ------------------------------------------------------------------------------


def missing(module: AnsibleModule, mounts: Sequence[layout.Mount]) -> List[str]:
    """Why the mounts are not what they should be: not there, of another label, bound from elsewhere."""
    table, found = mount_table(), []
    for mount in mounts:
        fields = table.get(mount.path)
        if not fields:
            found.append(f"{mount.path} is not mounted")
            continue
        source = fields[fields.index("-") + 2]
        _rc, out, _err = runtime.run(module, ["blkid", "--match-tag", "LABEL", "--output", "value", source])
        if out.strip() != mount.label:
            found.append(f"{mount.path} is mounted from {source}, labelled {out.strip()!r}, not {mount.label}")
        for bind, from_ in mount.sources.items():
            other = table.get(bind)
            if not other or other[2] != fields[2] or other[3] != "/" + os.path.basename(from_):
                found.append(f"{bind} is not bound from {from_}")
    return found


def settle(module: AnsibleModule, mounts: Sequence[layout.Mount]) -> Dict[str, Any]:
    """fstab has the layout: see that it is mounted, and take away the old data when that is asked for."""
    wrong, notes = missing(module, mounts), Notes(module)
    changed = module.params["old_data"] == "removed" and notes.known["old_data"]
    if changed and wrong:
        raise Failed(f"the old data is kept: {wrong[0]}. Restart the machine first")
    if changed and not module.check_mode:
        for top in layout.tops(mounts):
            uncover(module, top)
        notes.known["old_data"] = False
        notes.write()
    return {"changed": changed, "diff": [], "mounts": {}, "reboot_required": bool(wrong)}


def uncover(module: AnsibleModule, top: str) -> None:
    """Empty the directory that a mount hides, through a second view of the file system it is in."""
    parent = os.path.dirname(top)
    os.makedirs(STAGE, mode=0o700, exist_ok=True)
    unstage(module)
    must(module, ["mount", "--bind", parent, STAGE])
    try:
        hidden = os.path.join(STAGE, os.path.basename(top))
        if os.path.isdir(hidden) and not os.path.ismount(hidden):
            trees.empty(hidden)
    finally:
        unstage(module)


def run(module: AnsibleModule) -> Dict[str, Any]:
    """The answer. Raises Failed, LayoutError, DiskError."""
    given, device = module.params["layout"], module.params["device"]
    alone = any(entry.get("device") for entry in given)
    if alone == bool(device):
        found = "both" if alone else "neither"
        raise Failed(f"device, or a device in each entry of the layout, is expected; found {found}")
    fstab = core.read(FSTAB)
    if layout.in_fstab(fstab, layout.read(given)):
        return settle(module, layout.read(given))
    shared = "" if alone else disk.resolve(module, device)
    return lay_out(module, layout.read(given, disk.mib(shared) if shared else 0), shared, fstab)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "layout": {"type": "list", "elements": "dict", "required": True},
            "device": {"type": "str", "default": ""},
            "old_data": {"type": "str", "choices": ["kept", "removed"], "default": "kept"},
            "state_path": {"type": "path", "default": "/var/lib/cisdriver/partition.json"},
        },
        supports_check_mode=True,
    )
    try:
        answer = run(module)
    except (Failed, layout.LayoutError, disk.DiskError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}; the next boot is as the last one was")
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
