"""What stands behind the API: moto's state, the stand-in machines, and what is left of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends

from .wire import Call

if TYPE_CHECKING:
    from .machines import Machines

Reply = dict[str, Any]


class AwsError(Exception):
    """An error AWS would answer: HTTP status, code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message = status, code, message


@dataclass
class World:
    """One account in one region."""

    region: str
    machines: Machines

    def ec2(self, region: str) -> Any:
        """moto's EC2 of a region; its objects are what DescribeImages and the like serialise."""
        return ec2_backends[DEFAULT_ACCOUNT_ID][region]

    @staticmethod
    def snapshots_of(image: Any) -> set[str]:
        """The snapshots behind one of moto's images."""
        return {mapping["Ebs"]["SnapshotId"] for mapping in image.block_device_mappings}

    def leftovers(self) -> dict[str, list[str]]:
        """What still exists and costs: kind to ids, empty kinds left out. Registered images are no leftovers."""
        backend = self.ec2(self.region)
        kept = {snapshot for image in backend.amis.values() for snapshot in self.snapshots_of(image)}
        found = {
            "instances": [
                instance.id
                for reservation in backend.reservations.values()
                for instance in reservation.instances
                if instance._state.name != "terminated"
            ],
            "key_pairs": list(backend.key_pairs),
            "security_groups": [
                group.id for groups in backend.groups.values() for group in groups.values() if group.name != "default"
            ],
            "volumes": list(backend.volumes),
            "snapshots": [identity for identity in backend.snapshots if identity not in kept],
            "roles": list(iam_backends[DEFAULT_ACCOUNT_ID]["aws"].roles),
            "containers": self.machines.running(),
        }
        return {kind: ids for kind, ids in found.items() if ids}


Before = Callable[[World, Call], Reply | None]
After = Callable[[World, Call, Reply], None]
