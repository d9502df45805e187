#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module cluster_destroy: take a cluster away, or tell what that would take."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_destroy
author: The cisdriver authors
short_description: Delete a cluster with all that it leaves behind
description:
  - Deletes the stacks that carry the tag C(cisdriver:cluster) of the cluster, the last one first, node groups at once;
    and what the cluster has made beside them, which would hold its network, or cost. These are volumes of its
    PersistentVolumeClaims, network interfaces of its CNI, and its log group when EKS has made it again.
  - With O(images), deregisters the images of its node groups that cisdriver has baked, and deletes their snapshots.
  - Nothing without the tag is deleted; a cluster of this name that is not cisdriver's is refused.
  - C(amazon.aws.cloudformation) deletes one stack after the other and cannot look between them after what they leave.
  - In check mode it only tells what it would delete. Running it again goes on where it stopped.
options:
  name: {description: Name of the cluster., type: str, required: true}
  images: {description: Delete the baked images of its node groups, too., type: bool, default: false}
  timeout: {description: Seconds that all may take., type: int, default: 3600}
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Destroy
  cisdriver.amazon_linux.cluster_destroy:
    name: cisdriver
"""

RETURN = r"""
found:
  description: >-
    C({status, reason, stacks, images, others}), part of C(schemas/destroy.json); what was there, and what became of it.
  returned: always
  type: dict
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

with contextlib.suppress(ImportError):  # AnsibleAWSModule says what is missing
    from botocore.exceptions import BotoCoreError, ClientError

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster import look, stacks
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster.plan import Clients

#: Tag of what cisdriver has baked (role image).
BAKED = "cisdriver:run-id"
_POLL_SECONDS = 5.0
#: Answers that mean: not yet.
_HELD = ("VolumeInUse", "InvalidNetworkInterface.InUse", "InvalidSnapshot.InUse", "DependencyViolation")

Found = dict[str, Any]


class Destroy:
    """``found`` is what there is, and then what became of it."""

    def __init__(self, clients: Clients, name: str, images: bool, timeout: int) -> None:
        self._clients, self._name, self._with_images = clients, name, images
        self._until = time.monotonic() + timeout
        self._stacks: dict[str, stacks.Stack] = {}
        self.found: Found = {"status": "planned", "reason": "", "stacks": [], "images": [], "others": []}

    def look(self) -> None:
        """Fill ``found``. Raises RefusedError for a cluster that is not ours."""
        self._stacks = stacks.find(self._clients("cloudformation"), self._name)
        if "cluster" not in self._stacks:
            self._refuse_foreign()
        else:
            self.found["others"] = [*self._volumes(), *self._interfaces()]
        self.found["stacks"] = [{"name": one["name"], "status": one["status"]} for one in self._in_order()]
        if self._with_images:
            self.found["images"] = self._images()

    def run(self) -> None:
        """Delete all of it. Raises StackFailedError for a stack that stays, and botocore's errors."""
        own = "cluster" in self._stacks
        # CloudFormation deletes no stack that it updates.
        settled = stacks.wait(self._clients("cloudformation"), list(self._stacks.values()), self._until)
        self._stacks = {one["key"]: one for one in settled if one["status"] != "DELETE_COMPLETE"}
        for place in (4, 3):  # add-ons, then all node groups at once
            self._delete([one for one in self._in_order() if stacks.order(one["key"]) == place])
        # Now, as the stacks that named them are gone: a later run would not know them.
        for image in self.found["images"]:
            self._delete_image(image)
        if own:
            self._delete_others()
        for place in (2, 1):
            self._delete([one for one in self._in_order() if stacks.order(one["key"]) == place])
        if own:
            self._delete_log_group()
        self._delete([one for one in self._in_order() if one["key"] == "network"])
        left = [f"{one['id']}: {one['left']}" for one in self.found["others"] + self.found["images"] if one.get("left")]
        self.found.update(status="failed" if left else "done", reason="; ".join(left))

    def _refuse_foreign(self) -> None:
        cluster = look.cluster(self._clients("eks"), self._name)
        if cluster and not any(key.startswith("nodes-") for key in self._stacks):
            raise stacks.RefusedError(
                f"The cluster {self._name} ({cluster['arn']}) has no stack with the tag {stacks.TAG}={self._name}: "
                "cisdriver did not make it and does not delete it."
            )

    def _in_order(self) -> list[stacks.Stack]:
        return sorted(self._stacks.values(), key=lambda one: (-stacks.order(one["key"]), one["key"]))

    # Stacks

    def _delete(self, some: list[stacks.Stack]) -> None:
        cfn = self._clients("cloudformation")
        told = {one["name"]: one for one in self.found["stacks"]}
        try:
            stacks.delete(cfn, some, self._until)
        finally:
            for one in some:
                with contextlib.suppress(BotoCoreError, ClientError):  # what ended the deletion is told instead
                    told[one["name"]]["status"] = stacks.describe(cfn, one)["status"]

    # What a cluster leaves beside its stacks

    def _pages(self, operation: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        for page in self._clients("ec2").get_paginator(operation).paginate(**arguments):
            yield from page[key]

    def _volumes(self) -> list[Found]:
        """The EBS CSI add-on tags what it makes as the cluster's."""
        tagged = [{"Name": f"tag:kubernetes.io/cluster/{self._name}", "Values": ["owned"]}]
        found = self._pages("describe_volumes", "Volumes", Filters=tagged)
        return [
            {"kind": "volume", "id": one["VolumeId"], "what": f"{one['Size']} GiB of {_claim(one)}"} for one in found
        ]

    def _interfaces(self) -> list[Found]:
        """The CNI tags what it attaches to nodes; those it had no time to delete are free once the nodes are gone."""
        tagged = [
            {"Name": "tag:cluster.k8s.amazonaws.com/name", "Values": [self._name]},
            {"Name": "status", "Values": ["available"]},
        ]
        found = self._pages("describe_network_interfaces", "NetworkInterfaces", Filters=tagged)
        return [
            {"kind": "network_interface", "id": one["NetworkInterfaceId"], "what": one.get("Description", "")}
            for one in found
        ]

    def _delete_others(self) -> None:
        """Looks once more: with the nodes gone there is more that is free, and less that is there."""
        ec2 = self._clients("ec2")
        self.found["others"] = [*self._volumes(), *self._interfaces()]
        for one in self.found["others"]:
            if one["kind"] == "volume":
                self._try(one, partial(ec2.delete_volume, VolumeId=one["id"]))
            else:
                self._try(one, partial(ec2.delete_network_interface, NetworkInterfaceId=one["id"]))

    def _delete_log_group(self) -> None:
        """EKS may write a last time after the stack has deleted it, and so make it again."""
        logs, group = self._clients("logs"), f"/aws/eks/{self._name}/cluster"
        for found in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
            if found["logGroupName"] == group:
                one = {"kind": "log_group", "id": group, "what": "made again by EKS"}
                self.found["others"].append(one)
                self._try(one, partial(logs.delete_log_group, logGroupName=group))

    # Images

    def _images(self) -> list[Found]:
        """The baked ones of the node groups."""
        ids = {one["parameters"].get("ImageId") for key, one in self._stacks.items() if key.startswith("nodes-")}
        wanted = [{"Name": "image-id", "Values": sorted(filter(None, ids))}, {"Name": "tag-key", "Values": [BAKED]}]
        if not wanted[0]["Values"]:
            return []
        found = self._pages("describe_images", "Images", Owners=["self"], Filters=wanted)
        return [
            {
                "id": one["ImageId"],
                "name": one["Name"],
                "snapshots": [
                    mapping["Ebs"]["SnapshotId"]
                    for mapping in one["BlockDeviceMappings"]
                    if "SnapshotId" in mapping.get("Ebs", {})
                ],
            }
            for one in found
        ]

    def _delete_image(self, image: Found) -> None:
        """Deregister it, then delete its snapshots, unless an instance that is not the cluster's runs on it."""
        ec2 = self._clients("ec2")
        running = [
            {"Name": "image-id", "Values": [image["id"]]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
        ]
        users = [
            one["InstanceId"]
            for reservation in self._pages("describe_instances", "Reservations", Filters=running)
            for one in reservation["Instances"]
        ]
        if users:
            image["left"] = f"in use by {', '.join(users)}"
            return
        self._try(image, partial(ec2.deregister_image, ImageId=image["id"]))
        for snapshot in image["snapshots"] if "left" not in image else ():
            self._try(image, partial(ec2.delete_snapshot, SnapshotId=snapshot))

    def _try(self, one: Found, delete: Callable[[], object]) -> None:
        """Delete one thing, waiting while something holds it; what fails is noted in it, and the rest goes on."""
        while True:
            try:
                delete()
            except (BotoCoreError, ClientError) as error:
                code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
                if "NotFound" in code or code == "InvalidAMIID.Unavailable":
                    return
                if code in _HELD and self._time_left():
                    time.sleep(_POLL_SECONDS)
                    continue
                one["left"] = str(error)
            return

    def _time_left(self) -> bool:
        return time.monotonic() < self._until


def _claim(volume: dict[str, Any]) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in volume.get("Tags", [])}
    name = tags.get("kubernetes.io/created-for/pvc/name")
    return f"{tags.get('kubernetes.io/created-for/pvc/namespace')}/{name}" if name else "the cluster"


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "images": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    params = module.params
    destroy = Destroy(Clients(module.client), params["name"], params["images"], params["timeout"])
    try:
        destroy.look()
        if not module.check_mode:
            destroy.run()
    except stacks.RefusedError as error:
        destroy.found.update(status="refused", reason=str(error))
    except (stacks.StackFailedError, BotoCoreError, ClientError) as error:
        destroy.found.update(status="failed", reason=str(error))
    found = destroy.found
    if found["status"] in ("refused", "failed"):
        module.fail_json(msg=found["reason"], found=found)
    module.exit_json(changed=found["status"] == "done" and bool(found["stacks"] or found["images"]), found=found)


if __name__ == "__main__":
    main()
