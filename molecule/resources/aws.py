"""Start and end the sandbox's AWS for a scenario: ``aws.py start|end DIRECTORY``.

It is kept between the scenario's playbooks, its instances are names alone, and it has one image as a bake leaves it.
``DIRECTORY/aws.json`` tells the playbooks: ``{url, env, image}``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import boto3
from cisdriver.sandbox.aws import Endpoint, Sandbox

_TESTS = Path(__file__).resolve().parents[2] / "tests/sandbox"
_TAGS = {
    "cisdriver:run-id": "molecule",
    "cisdriver:level": "2",
    "cisdriver:benchmark": "al2023",
    "cisdriver:benchmark-version": "1.0.0",
    "cisdriver:base-name": "amazon-eks-node-al2023-x86_64-standard-1.36-v20261112",
}


def start(directory: Path) -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_TESTS), os.environ.get("PYTHONPATH", "")]))
    sandbox = Sandbox(machines="aws_machines:NoMachines", keep=_kept(directory))
    with sandbox as endpoint:
        about = {"url": endpoint.url, "env": endpoint.env, "image": _image(endpoint)}
    (directory / "aws.json").write_text(json.dumps(about), encoding="utf-8")


def end(directory: Path) -> None:
    Sandbox.end(_kept(directory))
    (directory / "aws.json").unlink(missing_ok=True)


def _kept(directory: Path) -> Path:
    return directory / "aws"


def _image(endpoint: Endpoint) -> str:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    ec2: Any = boto3.client("ec2", endpoint_url=endpoint.url, region_name=endpoint.region, **keys)
    volumes = [
        {"DeviceName": name, "Ebs": {"VolumeSize": size, "VolumeType": "gp3", "DeleteOnTermination": True}}
        for name, size in (("/dev/xvda", 20), ("/dev/xvdb", 50))
    ]
    run = {"ImageId": endpoint.base_ami, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
    instance = ec2.run_instances(**run, BlockDeviceMappings=volumes)["Instances"][0]["InstanceId"]
    image = str(ec2.create_image(InstanceId=instance, Name="molecule")["ImageId"])
    ec2.terminate_instances(InstanceIds=[instance])
    ec2.create_tags(Resources=[image], Tags=[{"Key": key, "Value": value} for key, value in _TAGS.items()])
    return image


if __name__ == "__main__":
    {"start": start, "end": end}[sys.argv[1]](Path(sys.argv[2]))
