"""A plan as module cluster_plan makes it, for tests that need no account."""

from __future__ import annotations

from typing import Any

TAGS = {"cisdriver:cluster": "demo", "team": "platform"}


def group(name: str, os: str = "al2023", **image: Any) -> dict[str, Any]:
    devices = [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20, "Encrypted": True, "DeleteOnTermination": True}},
        {
            "DeviceName": "/dev/xvdb",
            "Ebs": {"VolumeSize": 50, "Encrypted": True, "DeleteOnTermination": True, "SnapshotId": "snap-0123"},
        },
    ]
    return {
        "group": name,
        "key": f"nodes-{name}",
        "baseline": False,
        "image": {
            "id": "ami-0123456789abcdef0",
            "name": "eks-node",
            "os": os,
            "architecture": "x86_64",
            "level": 2,
            "benchmark": f"{os}-1.0.0",
            "kubernetes_version": "1.36",
            "devices": devices,
            **image,
        },
        "parameters": {"ClusterName": "demo", "NodeGroup": name, "DesiredSize": 2},
    }


def plan(**more: Any) -> dict[str, Any]:
    return {
        "partition": "aws",
        "kubernetes_version": "1.36",
        "keys": ["network", "cluster", "addons-first", "nodes-al2023-level-2", "addons"],
        "tags": TAGS,
        "parameters": {"network": {"Nat": "one"}, "cluster": {"KubernetesVersion": "1.36"}},
        "subnet_ids": [],
        "existing": None,
        "groups": [group("al2023-level-2")],
        "admins": [],
        "stacks": {},
        **more,
    }
