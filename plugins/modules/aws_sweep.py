#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module aws_sweep: delete everything a run has left in AWS."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aws_sweep
author: The cisdriver authors
short_description: Delete what a run has left behind
description:
  - Terminates the instances that carry the tag C(cisdriver:run-id) of the run, and deletes its volumes, snapshots,
    unfinished images, key pairs, security groups, roles and instance profiles.
  - An image is unfinished while it lacks the tag C(cisdriver:status). An image that is still being made from an
    instance of the run has no tags yet, and is found by that instance.
  - Running it again is harmless. It fails if something could not be deleted, after trying all the rest.
options:
  run_id:
    description: The run.
    type: str
    required: true
  timeout:
    description: Seconds to wait for instances to be gone and for what they held to be free.
    type: int
    default: 300
  spare:
    description: Ids of the finished image and its snapshots, which stay whatever EC2 says of their tags.
    type: list
    elements: str
    default: []
  finished:
    description: Delete finished images, too. For a bake that was killed before it could record the one it made.
    type: bool
    default: false
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Delete what the run has left
  cisdriver.amazon_linux.aws_sweep:
    run_id: 20261121-101500
"""

RETURN = r"""
removed:
  description: What was deleted, kind to ids.
  returned: always
  type: dict
  sample: {instances: [i-0123456789abcdef0]}
left:
  description: What could not be deleted, id to reason.
  returned: always
  type: dict
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

with contextlib.suppress(ImportError):  # AnsibleAWSModule says what is missing
    from botocore.exceptions import BotoCoreError, ClientError

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

RUN_TAG = "cisdriver:run-id"
DONE_TAG = "cisdriver:status"
#: Answers that mean: not yet. The network interfaces of an instance outlive it by seconds.
_HELD = (
    *("DependencyViolation", "InvalidSnapshot.InUse", "VolumeInUse", "InvalidGroup.InUse", "DeleteConflict"),
    *("Unavailable", "ServiceUnavailable", "RequestLimitExceeded"),
)
_GONE = ("NotFound", "NoSuchEntity", "InvalidAMIID.Unavailable")


class Sweep:
    """One pass in the order in which things let go of each other."""

    def __init__(
        self, ec2: Any, iam: Any, run_id: str, timeout: int, spare: Iterable[str] = (), finished: bool = False
    ) -> None:
        self._ec2, self._iam, self._run_id, self._finished = ec2, iam, run_id, finished
        # A finished image is known by its tag, too; but EC2 may go on describing it without for some seconds.
        self._spare = frozenset(spare)
        self._until = time.monotonic() + timeout
        self.removed: dict[str, list[str]] = {}
        self.left: dict[str, str] = {}

    def run(self) -> None:
        """Raises botocore's errors when it cannot even look."""
        instances = self._instances()
        live = [identity for identity, state in instances.items() if state not in ("terminated", "shutting-down")]
        # Their images first: a pending one is deregistered before its snapshots are looked for.
        images = self._images(list(instances))
        for identity in live:
            self._delete("instances", identity, lambda one: self._ec2.terminate_instances(InstanceIds=[one]))
        for identity in images:
            self._delete("images", identity, lambda one: self._ec2.deregister_image(ImageId=one))
        self._wait_for_end([identity for identity, state in instances.items() if state != "terminated"])
        for identity in self._volumes():
            self._delete("volumes", identity, lambda one: self._ec2.delete_volume(VolumeId=one))
        for identity in self._snapshots(list(instances)):
            self._delete("snapshots", identity, lambda one: self._ec2.delete_snapshot(SnapshotId=one))
        for pair in self._ec2.describe_key_pairs(Filters=self._tagged())["KeyPairs"]:
            self._delete("key_pairs", pair["KeyName"], lambda one: self._ec2.delete_key_pair(KeyName=one))
        for group in self._pages("describe_security_groups", "SecurityGroups", Filters=self._tagged()):
            self._delete("security_groups", group["GroupId"], lambda one: self._ec2.delete_security_group(GroupId=one))
        self._delete_role(f"cisdriver-{self._run_id}")

    def _tagged(self) -> list[dict[str, Any]]:
        return [{"Name": f"tag:{RUN_TAG}", "Values": [self._run_id]}]

    def _pages(self, operation: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        for page in self._ec2.get_paginator(operation).paginate(**arguments):
            yield from page[key]

    def _instances(self) -> dict[str, str]:
        found = self._pages("describe_instances", "Reservations", Filters=self._tagged())
        return {one["InstanceId"]: one["State"]["Name"] for reservation in found for one in reservation["Instances"]}

    def _images(self, instances: list[str]) -> list[str]:
        filters = [self._tagged()] + ([[{"Name": "source-instance-id", "Values": instances}]] if instances else [])
        found = {
            image["ImageId"]: {tag["Key"] for tag in image.get("Tags", [])}
            for one in filters
            for image in self._pages("describe_images", "Images", Owners=["self"], Filters=one)
        }
        spared = self._spare | {one for one, tags in found.items() if DONE_TAG in tags and not self._finished}
        return [identity for identity in found if identity not in spared]

    def _volumes(self) -> list[str]:
        found = self._pages("describe_volumes", "Volumes", Filters=self._tagged())
        return [one["VolumeId"] for one in found if one["State"] != "deleting"]

    def _snapshots(self, instances: list[str]) -> list[str]:
        """Tagged ones, and those CreateImage made of our instances, except the ones that a finished image uses."""
        made = [f"Created by CreateImage({identity})*" for identity in instances]
        filters = [self._tagged()] + ([[{"Name": "description", "Values": made}]] if made else [])
        found = {
            one["SnapshotId"]
            for one_filter in filters
            for one in self._pages("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=one_filter)
        }
        finished = self._pages("describe_images", "Images", Owners=["self"], Filters=self._tagged())
        gone = self.removed.get("images", [])
        used = {
            mapping["Ebs"].get("SnapshotId")
            for image in finished
            if image["ImageId"] not in gone
            for mapping in image["BlockDeviceMappings"]
            if "Ebs" in mapping
        }
        return sorted(found - used - self._spare)

    def _wait_for_end(self, instances: list[str]) -> None:
        while instances and time.monotonic() < self._until:
            states = self._instances()
            instances = [identity for identity in instances if states.get(identity, "terminated") != "terminated"]
            if instances:
                time.sleep(5)

    def _delete_role(self, name: str) -> None:
        """The temporary role and instance profile; none on most runs. Without leave to look, there was none to make."""
        try:
            tags = {tag["Key"]: tag["Value"] for tag in self._iam.list_role_tags(RoleName=name)["Tags"]}
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchEntity", "AccessDenied"):
                return
            raise
        if tags.get(RUN_TAG) == self._run_id:
            self._delete("roles", name, self._take_role_apart)

    def _take_role_apart(self, name: str) -> None:
        for profile in self._iam.list_instance_profiles_for_role(RoleName=name)["InstanceProfiles"]:
            self._iam.remove_role_from_instance_profile(
                InstanceProfileName=profile["InstanceProfileName"], RoleName=name
            )
            self._iam.delete_instance_profile(InstanceProfileName=profile["InstanceProfileName"])
        for policy in self._iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            self._iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
        self._iam.delete_role(RoleName=name)

    def _delete(self, kind: str, identity: str, delete: Callable[[str], object]) -> None:
        """Delete one thing, waiting while something holds it; what fails is noted, and the sweep goes on."""
        while True:
            try:
                delete(identity)
            except (BotoCoreError, ClientError) as error:
                code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
                if any(part in code for part in _GONE):
                    return
                if code in _HELD and time.monotonic() < self._until:
                    time.sleep(5)
                    continue
                self.left[identity] = str(error)
                return
            self.removed.setdefault(kind, []).append(identity)
            return


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "run_id": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 300},
            "spare": {"type": "list", "elements": "str", "default": []},
            "finished": {"type": "bool", "default": False},
        }
    )
    params = module.params
    sweep = Sweep(
        module.client("ec2"),
        module.client("iam"),
        params["run_id"],
        params["timeout"],
        params["spare"],
        params["finished"],
    )
    try:
        sweep.run()
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg=f"The sweep of run {sweep._run_id} could not look", removed=sweep.removed)
    if sweep.left:
        text = "; ".join(f"{identity}: {why}" for identity, why in sweep.left.items())
        module.fail_json(msg=f"Left in AWS, delete them by hand: {text}", removed=sweep.removed, left=sweep.left)
    module.exit_json(changed=bool(sweep.removed), removed=sweep.removed, left={})


if __name__ == "__main__":
    main()
