"""What moto's EC2 lacks for a bake, and what its calls mean for the stand-in machines."""

from __future__ import annotations

import contextlib
from typing import Any

from moto.ec2.models.amis import Ami

from .images import EKS_OWNER, ROOT_VOLUME
from .wire import Call
from .world import After, AwsError, Before, Reply, World

#: EC2 refuses tag keys that begin with this (EC2 user guide, "Tag restrictions"); moto takes them.
_RESERVED = "aws:"


class SandboxAmi(Ami):
    """An image with the root device, block devices and snapshots of its instance; moto's always has one of 15 GiB."""

    base: str  # the published image it was baked from, at whatever remove
    mappings: list[dict[str, Any]]
    imds_support: str | None
    deprecation_time: str | None

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        return self.mappings


class BaseAmi(Ami):
    """A published image with the root volume EKS gives it; moto's has a magnetic one of 15 GiB."""

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        return [{"DeviceName": self.root_device_name, "Ebs": {"SnapshotId": self.ebs_snapshot.id, **ROOT_VOLUME}}]


def map_base_images(world: World, call: Call) -> Reply | None:
    """moto makes the images of a region when the region is first asked for anything."""
    for image in list(world.ec2(call.region).amis.values()):
        if type(image) is Ami and image.owner_id == EKS_OWNER:
            image.__class__ = BaseAmi
    return None


def refuse_taken_name(world: World, call: Call) -> Reply | None:
    name = call.parameters.get("Name")
    for image in world.ec2(call.region).amis.values():
        if image.name == name and image.owner_id == world.ec2(call.region).account_id:
            text = f"AMI name {name} is already in use by AMI {image.id}"
            raise AwsError(400, "InvalidAMIName.Duplicate", text)
    return None


def refuse_reserved_tags(_world: World, call: Call) -> Reply | None:
    for tag in call.parameters.get("Tags", []):
        if tag["Key"].lower().startswith(_RESERVED):
            text = f"Tag keys starting with 'aws:' are reserved for internal use: {tag['Key']}"
            raise AwsError(400, "InvalidParameterValue", text)
    return None


def refuse_snapshot_in_use(world: World, call: Call) -> Reply | None:
    snapshot = call.parameters["SnapshotId"]
    for image in world.ec2(call.region).amis.values():
        if snapshot in world.snapshots_of(image):
            text = f"The snapshot {snapshot} is currently in use by {image.id}"
            raise AwsError(400, "InvalidSnapshot.InUse", text)
    return None


def check_image_attribute(_world: World, call: Call) -> Reply | None:
    value = call.parameters.get("ImdsSupport", {}).get("Value", "v2.0")
    if value != "v2.0":
        raise AwsError(400, "InvalidParameterValue", f"{value} is no value of ImdsSupport; v2.0 is the only one")
    return None


def enable_image_deprecation(world: World, call: Call) -> Reply | None:
    image = _own_image(world, call)
    image.deprecation_time = call.parameters["DeprecateAt"].isoformat()
    return {"Return": True}


def store_image_attribute(world: World, call: Call, _reply: Reply) -> None:
    if "ImdsSupport" in call.parameters:
        _own_image(world, call).imds_support = call.parameters["ImdsSupport"]["Value"]


def complete_image(world: World, call: Call, reply: Reply) -> None:
    """Give the new image the block devices its instance was started with, and keep the machine's disk."""
    backend = world.ec2(call.region)
    image = backend.amis[reply["ImageId"]]
    instance = backend.get_instance(call.parameters["InstanceId"])
    source = backend.amis[instance.image_id]
    image.__class__ = SandboxAmi
    image.root_device_type, image.root_device_name = "ebs", source.root_device_name
    image.hypervisor, image.imds_support, image.deprecation_time = "xen", None, None
    image.base = getattr(source, "base", source.id)
    image.mappings = []
    for number, (device, attached) in enumerate(sorted(instance.block_device_mapping.items())):
        volume = backend.volumes[attached.volume_id]
        snapshot = image.ebs_snapshot
        if number:
            text = f"Created by CreateImage({instance.id}) for {image.id}"
            snapshot = backend.create_snapshot(volume.id, text, image.owner_id, from_ami=image.id)
        image.mappings.append({"DeviceName": device, "Ebs": _block_device(volume, snapshot, attached)})
    world.machines.commit(instance.id, image.id)


def _block_device(volume: Any, snapshot: Any, attached: Any) -> dict[str, Any]:
    snapshot.encrypted = volume.encrypted
    return {
        "SnapshotId": snapshot.id,
        "VolumeSize": volume.size,
        "VolumeType": volume.volume_type,
        "DeleteOnTermination": attached.delete_on_termination,
        "Encrypted": volume.encrypted,
    }


def forget_image(world: World, call: Call, _reply: Reply) -> None:
    world.machines.forget(call.parameters["ImageId"])


def start_machines(world: World, call: Call, reply: Reply) -> None:
    """A machine per instance, with the request's key pair as cloud-init would install it."""
    backend = world.ec2(call.region)
    keys = []
    if "KeyName" in call.parameters:
        keys = [backend.key_pairs[call.parameters["KeyName"]].public_key]
    for instance in reply["Instances"]:
        identity = instance["InstanceId"]
        try:
            volumes = _further_volumes(backend, identity)
            world.machines.start(identity, instance["ImageId"], keys, volumes)
        except Exception:  # whatever it was goes on to the client, after its instance is gone
            with contextlib.suppress(Exception):
                backend.terminate_instances([identity])
            raise


def _further_volumes(backend: Any, identity: str) -> dict[str, int]:
    """GiB per device beside the root's: of the request, and of the image for what the request does not map."""
    instance = backend.get_instance(identity)
    image = backend.amis[instance.image_id]
    for mapping in image.block_device_mappings if isinstance(image, SandboxAmi) else []:
        name, ebs = mapping["DeviceName"], mapping["Ebs"]
        if name not in instance.block_device_mapping and name != image.root_device_name:
            size, kind, gone = ebs["VolumeSize"], ebs["VolumeType"], ebs["DeleteOnTermination"]
            instance.add_block_device(size, name, ebs["SnapshotId"], ebs["Encrypted"], gone, None, volume_type=kind)
    attached = {name: one.volume_id for name, one in instance.block_device_mapping.items()}
    # moto calls the root /dev/sda1 where the request maps nothing
    root = (image.root_device_name, "/dev/sda1")
    return {name: int(backend.volumes[volume].size) for name, volume in attached.items() if name not in root}


def stop_machines(world: World, call: Call, _reply: Reply) -> None:
    for identity in call.parameters["InstanceIds"]:
        world.machines.stop(identity)


def resume_machines(world: World, call: Call, _reply: Reply) -> None:
    for identity in call.parameters["InstanceIds"]:
        world.machines.resume(identity)


def reboot_machines(world: World, call: Call, _reply: Reply) -> None:
    for identity in call.parameters["InstanceIds"]:
        world.machines.stop(identity)
        world.machines.resume(identity)


def remove_machines(world: World, call: Call, _reply: Reply) -> None:
    """The machine, and the interface it was started with, which moto keeps."""
    backend = world.ec2(call.region)
    for identity in call.parameters["InstanceIds"]:
        world.machines.remove(identity)
        for interface in backend.get_instance(identity).nics.values():
            if interface.device_index == 0:
                backend.enis.pop(interface.id, None)


def _own_image(world: World, call: Call) -> Any:
    backend = world.ec2(call.region)
    image = backend.amis.get(call.parameters["ImageId"])
    if image is None or image.owner_id != backend.account_id:
        raise AwsError(400, "InvalidAMIID.NotFound", f"The image id '[{call.parameters['ImageId']}]' does not exist")
    return image


BEFORE: dict[tuple[str, str], Before] = {
    ("ec2", "CreateImage"): refuse_taken_name,
    ("ec2", "CreateTags"): refuse_reserved_tags,
    ("ec2", "DeleteSnapshot"): refuse_snapshot_in_use,
    ("ec2", "DescribeImages"): map_base_images,
    ("ec2", "ModifyImageAttribute"): check_image_attribute,
    ("ec2", "EnableImageDeprecation"): enable_image_deprecation,
}
AFTER: dict[tuple[str, str], After] = {
    ("ec2", "CreateImage"): complete_image,
    ("ec2", "DeregisterImage"): forget_image,
    ("ec2", "ModifyImageAttribute"): store_image_attribute,
    ("ec2", "RunInstances"): start_machines,
    ("ec2", "StopInstances"): stop_machines,
    ("ec2", "StartInstances"): resume_machines,
    ("ec2", "RebootInstances"): reboot_machines,
    ("ec2", "TerminateInstances"): remove_machines,
}
