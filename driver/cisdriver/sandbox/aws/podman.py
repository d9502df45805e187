"""Instances as stand-in nodes in podman; images as podman's images.

An instance of a base image is the stock node. What CreateImage keeps is the machine's disk, so an instance of a baked
image starts hardened, as on EC2. All nodes and images carry the number of this process: what a killed one has left is
removed by the next that starts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from pathlib import Path

from cisdriver.sandbox import node, standin
from cisdriver.sandbox import volumes as disks

from .machines import Address, free_port

_OWNER = "aws-"
_REPOSITORY = "localhost/cisdriver/sandbox"
_SNAPSHOTS = "cisdriver-snapshots-"


class PodmanMachines:
    """Builds the stock image first, if there is none: that takes minutes, which no API request may.

    ``ssh_port`` is for a machine with a key pair, which somebody means to log into; nodes of a cluster have none.
    ``reboots`` is whether a machine comes back from a reboot; a test of the time limit says no.
    """

    def __init__(self, ssh_port: int, reboots: bool = True) -> None:
        self._ssh_port, self._reboots = ssh_port, reboots
        self._nodes: dict[str, node.Node] = {}
        self._images: dict[str, str] = {}
        self._snapshots: dict[str, dict[str, Path]] = {}
        self._lock = threading.Lock()
        _remove_orphans()
        self._stock = standin.build(state="ami")

    def start(self, instance: str, image: str, keys: list[str], volumes: dict[str, int]) -> None:
        snapshots = self._snapshots.get(image, {})
        with self._lock:
            taken = {one.ssh_port for one in self._nodes.values()}
            port = self._ssh_port if keys and self._ssh_port not in taken else free_port()
            self._nodes[instance] = node.start(
                f"cisdriver-{instance}",
                self._images.get(image, self._stock),
                restart=self._reboots,
                ssh_port=port,
                labels={node.RUN_LABEL: _run(os.getpid())},
                authorized_key="\n".join(keys),
                volumes={device: snapshots.get(device, size) for device, size in volumes.items()},
            )

    def stop(self, instance: str) -> None:
        self._nodes[instance].stop()

    def resume(self, instance: str) -> None:
        self._nodes[instance].start_again()

    def remove(self, instance: str) -> None:
        with self._lock:
            gone = self._nodes.pop(instance, None)
        if gone is not None:  # terminating twice is no error, as on EC2
            gone.remove()

    def commit(self, instance: str, image: str) -> None:
        stopped = self._nodes[instance]
        self._images[image] = stopped.commit(f"{_REPOSITORY}/{os.getpid()}:{image}")
        copies = {
            disks.device(volume): _snapshot_folder(os.getpid()) / image / volume.name for volume in stopped.volumes
        }
        for volume, copy in zip(stopped.volumes, copies.values(), strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            disks.copy(volume, copy)
        self._snapshots[image] = copies

    def forget(self, image: str) -> None:
        reference = self._images.pop(image, None)
        if reference is not None:
            standin.podman("rmi", "-f", reference, check=False)
            # there is none where the image has no second volume
            shutil.rmtree(_snapshot_folder(os.getpid()) / image, ignore_errors=True)
            del self._snapshots[image]

    def addresses(self) -> dict[str, Address]:
        running = [(name, one) for name, one in list(self._nodes.items()) if one.running()]
        return {name: Address(one.ssh_host, one.ssh_port, one.ssh_user) for name, one in running}

    def running(self) -> list[str]:
        return node.names(_run(os.getpid()))

    def close(self) -> None:
        _remove(os.getpid())


def _run(process: int) -> str:
    return f"{_OWNER}{process}"


def _snapshot_folder(process: int) -> Path:
    return Path(tempfile.gettempdir()) / f"{_SNAPSHOTS}{process}"


def _remove(process: int) -> None:
    """Remove the nodes, images and snapshots of one sandbox."""
    node.prune(_run(process))
    shutil.rmtree(_snapshot_folder(process), ignore_errors=True)  # there is none where no image had a second volume
    listing = standin.podman("images", "--format", "{{.Repository}}:{{.Tag}}", f"{_REPOSITORY}/{process}")
    for reference in listing.stdout.split():
        standin.podman("rmi", "-f", reference, check=False)


def orphans() -> list[int]:
    """Process ids of sandboxes that are gone while nodes, images or snapshots of theirs are still there."""
    form = f'{{{{index .Labels "{node.RUN_LABEL}"}}}}'
    labels = standin.podman("ps", "-a", "--filter", f"label={node.RUN_LABEL}", "--format", form).stdout.split()
    images = standin.podman("images", "--format", "{{.Repository}}").stdout.split()
    numbers = [label.removeprefix(_OWNER) for label in labels if label.startswith(_OWNER)]
    numbers += [path.name.removeprefix(_SNAPSHOTS) for path in Path(tempfile.gettempdir()).glob(f"{_SNAPSHOTS}*")]
    numbers += [image.removeprefix(f"{_REPOSITORY}/") for image in images if image.startswith(f"{_REPOSITORY}/")]
    return sorted({int(one) for one in numbers if one.isdigit() and not Path(f"/proc/{one}").exists()})


def _remove_orphans() -> None:
    """Remove what sandboxes have left that were killed."""
    for number in orphans():
        with contextlib.suppress(standin.StandinError):
            _remove(number)
