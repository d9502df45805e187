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
    PersistentVolumeClaims, network interfaces of its CNI, and its log group when EKS has made it again. A volume older
    than the cluster stays; while one of the others cannot be deleted, the control plane and the network stay.
  - With O(images), deregisters the images of its node groups, and those of O(image_ids), that cisdriver has baked, and
    deletes their snapshots.
  - Nothing without the tag is deleted; a cluster of this name that is not cisdriver's is refused.
  - C(amazon.aws.cloudformation) deletes one stack after the other and cannot look between them after what they leave.
  - In check mode it only tells what it would delete. Running it again goes on where it stopped.
options:
  name: {description: Name of the cluster., type: str, required: true}
  images: {description: Delete the baked images of its node groups, too., type: bool, default: false}
  image_ids:
    description: With O(images), more to delete, as of node groups that are gone. Only what cisdriver has baked here is.
    type: list
    elements: str
    default: []
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
    C({status, reason, stacks, images, others, kept}), part of C(schemas/destroy.json); what was there, and what became
    of it.
  returned: always
  type: dict
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
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

    def __init__(self, clients: Clients, name: str, images: bool, timeout: int, image_ids: Sequence[str] = ()) -> None:
        self._clients, self._name, self._with_images, self._image_ids = clients, name, images, image_ids
        self._since = ""
        self._until = time.monotonic() + timeout
        self._stacks: dict[str, stacks.Stack] = {}
        self.found: Found = {"status": "planned", "reason": "", "stacks": [], "images": [], "others": [], "kept": []}

    def look(self) -> None:
        """Fill ``found``. Raises RefusedError for a cluster that is not ours."""
        self._stacks = stacks.find(self._clients("cloudformation"), self._name)
        cluster = None if "cluster" in self._stacks else look.cluster(self._clients("eks"), self._name)
        if cluster:
            self._refuse_foreign(cluster)
        else:
            # Until the last stack is gone, since an earlier run may have ended behind that of the cluster.
            first = self._stacks.get("cluster") or self._stacks.get("network")
            self._since = first["created"] if first else ""
            self.found["others"] = self._others()
        self.found["stacks"] = [{"name": one["name"], "status": one["status"]} for one in self._in_order()]
        if self._with_images:
            self.found["images"] = self._images()

    def run(self) -> None:
        """Delete all of it. Raises StackFailedError for a stack that stays, and botocore's errors."""
        # CloudFormation deletes no stack that it updates.
        settled = stacks.wait(self._clients("cloudformation"), list(self._stacks.values()), self._until)
        self._stacks = {one["key"]: one for one in settled if one["status"] != "DELETE_COMPLETE"}
        for place in (4, 3):  # add-ons, then all node groups at once
            self._delete([one for one in self._in_order() if stacks.order(one["key"]) == place])
        # Now, as the stacks that named them are gone: a later run would not know them.
        for image in self.found["images"]:
            self._delete_image(image)
        self._delete_others()
        if any(one.get("left") for one in self.found["others"]):
            # Without its stacks the next run would not know that they are the cluster's.
            raise stacks.StackFailedError(f"{self._left()}. The cluster stays until these can be deleted")
        for place in (2, 1):
            self._delete([one for one in self._in_order() if stacks.order(one["key"]) == place])
        self._delete_log_group()
        self._delete([one for one in self._in_order() if one["key"] == "network"])
        self._delete_log_group()
        left = self._left()
        self.found.update(status="failed" if left else "done", reason=left)

    def _left(self) -> str:
        both = self.found["others"] + self.found["images"]
        return "; ".join(f"{one['id']}: {one['left']}" for one in both if one.get("left"))

    def _refuse_foreign(self, cluster: dict[str, Any]) -> None:
        if not any(key.startswith("nodes-") for key in self._stacks):
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

    def _others(self) -> list[Found]:
        """Nothing unless the stacks say that the cluster is, or was, ours. Fills ``kept``."""
        if not self._since:
            return []
        volumes, self.found["kept"] = self._volumes()
        return [*volumes, *self._interfaces()]

    def _volumes(self) -> tuple[list[Found], list[Found]]:
        """Those of the cluster, and those that are older.

        The EBS CSI add-on tags what it makes with the name of its cluster, which an earlier one may have had.
        """
        tagged = [{"Name": f"tag:kubernetes.io/cluster/{self._name}", "Values": ["owned"]}]
        ours: list[Found] = []
        kept: list[Found] = []
        for one in self._pages("describe_volumes", "Volumes", Filters=tagged):
            volume = {"kind": "volume", "id": one["VolumeId"], "what": f"{one['Size']} GiB of {_claim(one)}"}
            if one["CreateTime"] >= datetime.fromisoformat(self._since):
                ours.append(volume)
            else:
                kept.append({**volume, "what": f"{volume['what']}, of an earlier cluster of this name"})
        return ours, kept

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
        self.found["others"] = self._others()
        for one in self.found["others"]:
            if one["kind"] == "volume":
                self._try(one, partial(ec2.delete_volume, VolumeId=one["id"]))
            else:
                self._try(one, partial(ec2.delete_network_interface, NetworkInterfaceId=one["id"]))

    def _delete_log_group(self) -> None:
        """EKS may write a last time after the stack has deleted it, and so make it again."""
        if not self._since:
            return
        logs, group = self._clients("logs"), f"/aws/eks/{self._name}/cluster"
        self.found["others"] = [one for one in self.found["others"] if one["id"] != group]
        for found in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
            if found["logGroupName"] == group:
                one = {"kind": "log_group", "id": group, "what": "made again by EKS"}
                self.found["others"].append(one)
                self._try(one, partial(logs.delete_log_group, logGroupName=group))

    # Images

    def _images(self) -> list[Found]:
        """The baked ones of the node groups, and of those that were named."""
        groups = {one["parameters"].get("ImageId") for key, one in self._stacks.items() if key.startswith("nodes-")}
        ids = groups | set(self._image_ids)
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
            "image_ids": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    params = module.params
    clients = Clients(module.client)
    destroy = Destroy(clients, params["name"], params["images"], params["timeout"], params["image_ids"])
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
