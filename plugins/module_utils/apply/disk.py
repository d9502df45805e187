# Copyright the cisdriver authors. Apache-2.0.
"""Block devices: found by the name EC2 knows them under, and refused where they hold or serve something."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
import time
from typing import Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime

DEV = "/dev"
SYS = "/sys"
#: A block device mapping's name: Xen shows /dev/sdb as /dev/xvdb, Nitro as some /dev/nvme1n1.
_MAPPED = re.compile(r"/dev/(?:xvd|sd)([a-z]{1,2})")
_SETTLE_SECONDS = 15


class DiskError(Exception):
    """A device cannot be used: which, what was expected, what was found, the way out."""


def resolve(module: AnsibleModule, name: str) -> str:
    """The device node behind ``/dev/xvdb``, ``/dev/nvme1n1``, a link to one, or ``vol-0123...``. Raises DiskError."""
    node = _of_volume(name) if name.startswith("vol-") else _of_mapping(module, name)
    if not node:
        disks = [os.path.basename(path) for path in glob.glob(f"{SYS}/block/*") if os.path.exists(f"{path}/device")]
        raise DiskError(f"{name}: no such device here; disks: {', '.join(sorted(disks)) or 'none'}. Is it attached?")
    if not stat.S_ISBLK(os.stat(node).st_mode):
        raise DiskError(f"{name}: expected a block device, found something else at {node}")
    return node


def _of_volume(volume: str) -> str:
    """By the serial number of the NVMe disk, which is the volume's id without its hyphen."""
    serial = volume.replace("-", "", 1)
    link = f"{DEV}/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}"
    if os.path.exists(link):
        return os.path.realpath(link)
    for path in glob.glob(f"{SYS}/block/*/device/serial"):
        with open(path, encoding="ascii", errors="replace") as file:
            if file.read().strip() == serial:
                return f"{DEV}/{path.split('/')[-3]}"
    return ""


def _of_mapping(module: AnsibleModule, name: str) -> str:
    """The node itself, or the link that ec2-utils' udev rule makes; else what its program says of each NVMe disk."""
    match = _MAPPED.fullmatch(name)
    names = [f"xvd{match.group(1)}", f"sd{match.group(1)}"] if match else []
    for node in [name, *(f"{DEV}/{one}" for one in names)]:
        if os.path.exists(node):
            return os.path.realpath(node)
    for disk in sorted(glob.glob(f"{DEV}/nvme*n1")) if names else []:
        _rc, out, _err = runtime.run(module, ["/usr/sbin/ebsnvme-id", "--block-dev", disk])
        if os.path.basename(out.strip()) in names:
            return disk
    return ""


def mib(device: str) -> int:
    """Size of a device. Raises DiskError."""
    try:
        handle = os.open(device, os.O_RDONLY)
        try:
            return os.lseek(handle, 0, os.SEEK_END) >> 20
        finally:
            os.close(handle)
    except OSError as error:
        raise DiskError(f"{device}: cannot be read: {error.strerror}") from error


def signature(module: AnsibleModule, device: str) -> Dict[str, str]:
    """What ``blkid --probe`` sees on a device: TYPE, UUID, LABEL, PTTYPE, PTUUID ...; empty for a blank one.

    Raises DiskError where it cannot tell, or sees several things.
    """
    rc, out, err = runtime.run(module, ["blkid", "--probe", "--output", "export", device])
    if rc == 2 and not out.strip():
        return {}
    if rc:
        what = "several signatures" if rc == 8 else err.strip() or f"exit code {rc}"
        raise DiskError(f"{device}: blkid cannot tell what it holds ({what}); expected a blank volume")
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def refuse_used(module: AnsibleModule, device: str, ours: List[str]) -> None:
    """Raise DiskError unless the device is idle, and blank or holds what we began ourselves (one of ``ours``)."""
    number = os.stat(device).st_rdev
    for fields in _mount_table():
        if fields[2] == f"{os.major(number)}:{os.minor(number)}":
            raise DiskError(f"{device}: it is mounted at {fields[4]}; expected a volume that nothing uses")
    found = signature(module, device)
    if found and not {found.get("UUID", ""), found.get("PTUUID", "")} & set(ours):
        table = f"a {found.get('PTTYPE', 'foreign')} partition table"
        what = f"{found['TYPE']} data" if "TYPE" in found else table
        label = f" labelled {found['LABEL']}" if "LABEL" in found else ""
        raise DiskError(
            f"{device}: it holds {what}{label}; expected a blank volume."
            f" Attach a new one, or, if nothing on it is needed: wipefs --all {device}"
        )
    try:  # the kernel knows of users that no table shows
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        why = "in use, as swap, RAID or LVM" if error.errno == errno.EBUSY else f"not to be opened: {error.strerror}"
        raise DiskError(f"{device}: it is {why}; expected a volume that nothing uses") from error


def _mount_table() -> List[List[str]]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [line.split() for line in file]


def partition(disk: str, number: int) -> str:
    """The node of a partition of a disk."""
    return f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def wait_for(node: str) -> None:
    """Wait for a partition: udev makes its node after the kernel knows. Raises DiskError."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while not os.path.exists(node):
        if time.monotonic() > deadline:
            raise DiskError(f"{node}: expected within {_SETTLE_SECONDS} s of the new partition table, found none")
        time.sleep(0.2)
