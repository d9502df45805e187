"""What stands behind the API: moto's state, the stand-in machines, and what is left of a run."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends
from moto.logs.models import logs_backends
from moto.utilities.utils import get_partition

from .wire import Call

if TYPE_CHECKING:
    from .cloudformation.stack import Stack
    from .eks_state import Cluster
    from .machines import Machines

Reply = dict[str, Any]
#: How a service of ours that calls another says so, in the User-Agent; the journal has it as ``by``.
_BY = re.compile(r"\bcisdriver-by/([a-z]+)")


class AwsError(Exception):
    """An error AWS would answer: HTTP status, code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message = status, code, message


#: Machines take seconds to start, and what fails once is to be seen once.
_CONFIG: dict[str, Any] = {"read_timeout": 600, "retries": {"total_max_attempts": 1}}


def caller(user_agent: str) -> str | None:
    """The service of the sandbox that sent a request; None for everybody else."""
    found = _BY.search(user_agent)
    return found[1] if found else None


@dataclass
class World:
    """One account in one region. ``url`` is where the sandbox answers, known from its first request on.

    ``clusters`` is EKS's state, by region and name, under ``lock``; ``directory`` is where journals are written.
    ``stacks`` is CloudFormation's state, oldest first, deleted ones too.
    """

    region: str
    machines: Machines
    url: str = ""
    directory: Path = field(default_factory=Path)
    clusters: dict[tuple[str, str], Cluster] = field(default_factory=dict)
    stacks: list[Stack] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _clients: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    _client_lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, service: str, region: str, by: str) -> Any:
        """A boto3 client of the sandbox itself, so that what one service does in another is checked and recorded.

        ``by`` is the calling service, e.g. ``cloudformation``: the journal has it.
        """
        key = (service, region, by)
        with self._client_lock:  # making a client is not safe in threads, using one is
            if key not in self._clients:
                config = Config(user_agent_extra=f"cisdriver-by/{by}", **_CONFIG)
                self._clients[key] = boto3.client(
                    service,
                    endpoint_url=self.url,
                    region_name=region,
                    aws_access_key_id="testing",
                    aws_secret_access_key="testing",
                    config=config,
                )
            return self._clients[key]

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
            "containers": self.machines.running(),
            **self._network(backend),
            **self._others(backend),
        }
        return {kind: ids for kind, ids in found.items() if ids}

    @staticmethod
    def _network(backend: Any) -> dict[str, list[str]]:
        return {
            "addresses": [one.allocation_id for one in backend.addresses],
            "internet_gateways": list(backend.internet_gateways),
            "nat_gateways": [one.id for one in backend.nat_gateways.values() if one.state != "deleted"],
            "network_interfaces": [one.id for one in backend.enis.values() if one.instance is None],
            "vpc_endpoints": [one.id for one in backend.vpc_end_points.values() if one.state != "deleted"],
            "vpcs": [one.id for one in backend.vpcs.values() if not one.is_default],
        }

    def _others(self, backend: Any) -> dict[str, list[str]]:
        iam = iam_backends[DEFAULT_ACCOUNT_ID][get_partition(self.region)]
        keys = [
            one.id
            for one in kms_backends[DEFAULT_ACCOUNT_ID][self.region].keys.values()
            if one.key_state != "PendingDeletion" and not any(name.startswith("alias/aws/") for name in one.aliases)
        ]
        return {
            "clusters": [name for region, name in self.clusters if region == self.region],
            "instance_profiles": [one.name for one in iam.instance_profiles.values()],
            "keys": keys,
            "launch_templates": list(backend.launch_templates),
            "log_groups": list(logs_backends[DEFAULT_ACCOUNT_ID][self.region].groups),
            "roles": list(iam.roles),
            "stacks": [one.place.name for one in self.stacks if one.status != "DELETE_COMPLETE"],
        }


Before = Callable[[World, Call], Reply | None]
After = Callable[[World, Call, Reply], None]
