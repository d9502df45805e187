#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module ami_publish: what a registered image still lacks before others may use it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ami_publish
author: The cisdriver authors
short_description: Finish and publish an own image
description:
  - Has instances of the image start with IMDSv2, tags image and snapshots, and writes its id to an SSM parameter.
  - The tag C(cisdriver:status=ready) is added; M(cisdriver.amazon_linux.aws_sweep) spares the images that have it.
  - C(amazon.aws.ec2_ami) can neither set ImdsSupport nor a deprecation date on an image that exists, and
    C(community.aws.ssm_parameter) cannot write the data type C(aws:ec2:image), which launch templates need.
options:
  image_id:
    description: The image.
    type: str
    required: true
  imds_support:
    description: V(v2.0) lets its instances answer IMDSv2 alone, unless they are launched otherwise.
    type: str
    choices: [v2.0]
  deprecate_after_days:
    description: Days from now until the image counts as deprecated; 0 means never.
    type: int
    default: 0
  parameter:
    description: Name of the SSM parameter that is to name the image; empty means none.
    type: str
    default: ""
  devices:
    description: >-
      Device names which the image has to map to volumes that are deleted with their instance. What starts from it
      without one of them does not boot.
    type: list
    elements: str
    default: []
  tags:
    description: Tags of the image and its snapshots. Others are left as they are.
    type: dict
    default: {}
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""

EXAMPLES = r"""
- name: Mark the image
  cisdriver.amazon_linux.ami_publish:
    image_id: ami-0123456789abcdef0
    imds_support: v2.0
    parameter: /golden/eks/al2023
    tags: {"cisdriver:level": "1"}
"""

RETURN = r"""
image:
  description: The image as it is now.
  returned: always
  type: dict
  sample:
    id: ami-0123456789abcdef0
    snapshots: [snap-0123456789abcdef0]
    tags: {}
    parameter: /golden/eks/al2023
    block_device_mappings: [{DeviceName: /dev/xvda, Ebs: {SnapshotId: snap-0123456789abcdef0, VolumeSize: 20}}]
"""

import contextlib
from datetime import datetime, timedelta, timezone
from typing import Any

with contextlib.suppress(ImportError):  # AnsibleAWSModule says what is missing
    from botocore.exceptions import BotoCoreError, ClientError

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "image_id": {"type": "str", "required": True},
            "imds_support": {"type": "str", "choices": ["v2.0"]},
            "deprecate_after_days": {"type": "int", "default": 0},
            "parameter": {"type": "str", "default": ""},
            "devices": {"type": "list", "elements": "str", "default": []},
            "tags": {"type": "dict", "default": {}},
        }
    )
    params = module.params
    image, ec2 = params["image_id"], module.client("ec2")
    snapshots: list[str] = []
    mappings: list[dict[str, Any]] = []
    tags = {**{key: str(value) for key, value in params["tags"].items()}, "cisdriver:status": "ready"}
    done = "described"
    try:
        found = ec2.describe_images(ImageIds=[image])["Images"][0]
        mappings = [one for one in found["BlockDeviceMappings"] if "SnapshotId" in one.get("Ebs", {})]
        snapshots = [one["Ebs"]["SnapshotId"] for one in mappings]
        _require(module, image, mappings)
        done = "set to IMDSv2"
        if params["imds_support"]:
            ec2.modify_image_attribute(ImageId=image, ImdsSupport={"Value": params["imds_support"]})
        done = "given a date of deprecation"
        if params["deprecate_after_days"]:
            at = datetime.now(timezone.utc) + timedelta(days=params["deprecate_after_days"])
            ec2.enable_image_deprecation(ImageId=image, DeprecateAt=at.replace(second=0, microsecond=0))
        done = "tagged"
        ec2.create_tags(Resources=[image, *snapshots], Tags=[{"Key": key, "Value": tags[key]} for key in tags])
        done = f"written to the SSM parameter {params['parameter']}"
        if params["parameter"]:
            module.client("ssm").put_parameter(
                Name=params["parameter"], Value=image, Type="String", DataType="aws:ec2:image", Overwrite=True
            )
    except (BotoCoreError, ClientError) as error:
        # Once it is tagged the image stays: who called has to know of it.
        about = {
            "id": image,
            "snapshots": snapshots,
            "tags": tags,
            "parameter": None,
            "block_device_mappings": mappings,
        }
        known = {"image": about} if done.startswith("written") else {}
        module.fail_json_aws(error, msg=f"{image} could not be {done}", **known)
    about = {"id": image, "snapshots": snapshots, "tags": tags, "parameter": params["parameter"] or None}
    module.exit_json(changed=True, image={**about, "block_device_mappings": mappings})


def _require(module: AnsibleAWSModule, image: str, mappings: list[dict[str, Any]]) -> None:
    """Fail before the image is marked where it lacks a volume: it would be taken for finished, and never boot."""
    kept = {one["DeviceName"] for one in mappings if one["Ebs"].get("DeleteOnTermination")}
    for device in module.params["devices"]:
        if device not in kept:
            found = ", ".join(one["DeviceName"] for one in mappings)
            module.fail_json(
                msg=f"{image} maps {found}; expected {device} too, deleted on termination. It is not published"
            )


if __name__ == "__main__":
    main()
