"""EBS volumes of stand-in nodes: sparse files, which a node sees as NVMe disks through loop devices.

The node's `/usr/libexec/standin/volumes` makes the devices, as kernel and udev do on EC2; what it has attached is
detached from here, after the node is gone.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from cisdriver.sandbox.standin import StandinError

#: Device name of a mapping (`/dev/xvdb`) to GiB, or to the snapshot that a new volume is a copy of.
Wanted = Mapping[str, int | Path]
_PREFIX = "cisdriver-volumes-"
_DEVICE = re.compile(r"/dev/((?:xvd|sd)[a-z]{1,2})")


def create(wanted: Wanted) -> list[Path]:
    """Make the files of one node's volumes, in a directory of their own. Raises StandinError."""
    if not wanted:
        return []
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    made = []
    for device, content in wanted.items():
        match = _DEVICE.fullmatch(device)
        if not match:
            shutil.rmtree(folder)
            raise StandinError(f"volume {device}: expected a name such as /dev/xvdb or /dev/sdf")
        path = folder / f"{match[1]}@vol{uuid.uuid4().hex[:17]}"
        if isinstance(content, Path):
            copy(content, path)
        else:
            with path.open("wb") as file:
                file.truncate(content << 30)
        made.append(path)
    return made


def copy(source: Path, target: Path) -> None:
    """Copy a volume, holes as holes."""
    done = subprocess.run(["cp", "--sparse=always", source, target], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StandinError(f"volume {source}: cannot be copied to {target}: {done.stderr.strip()}")


def mounts(paths: Iterable[Path]) -> list[str]:
    """The arguments by which `podman run` puts them where the node looks for them."""
    return [f"--volume={path}:/dev/.volumes/{path.name}" for path in paths]


def device(path: Path) -> str:
    """The device name a volume was made for."""
    return "/dev/" + path.name.partition("@")[0]


def remove(paths: Iterable[Path]) -> None:
    """Detach and delete volumes whose node is gone. Removing twice is no error."""
    for path in paths:
        if path.exists():
            listed = ["losetup", "--list", "--noheadings", "--output=NAME", "--associated", str(path)]
            for loop in subprocess.run(listed, capture_output=True, text=True, check=False).stdout.split():
                subprocess.run(["losetup", "--detach", loop], capture_output=True, check=False)
            path.unlink()
        with contextlib.suppress(OSError):  # until the last one is gone
            path.parent.rmdir()
