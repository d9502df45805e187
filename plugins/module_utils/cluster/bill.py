# Copyright the cisdriver authors. Apache-2.0.
"""What of a plan runs by the hour."""

from __future__ import annotations

from typing import Any

from . import look


def bill(settings: dict[str, Any], plan: dict[str, Any]) -> list[dict[str, Any]]:
    """What runs by the hour, as module cluster_cost takes it. Of several instance types the first is priced."""
    items: list[dict[str, Any]] = []
    if not settings["existing"]:
        items.append({"what": "control plane", "kind": "cluster", "count": 1})
        if plan["support"] == "EXTENDED_SUPPORT":
            items.append({"what": "extended support of the version", "kind": "cluster_extended", "count": 1})
        items += _network_bill(settings, plan["parameters"].get("network", {}))
    count = settings["nodes"]["desired"]
    for group in plan["groups"]:
        type_ = group["parameters"]["InstanceTypes"].split(",")[0]
        items.append({"what": f"{group['group']}: {type_} nodes", "kind": "instance", "type": type_, "count": count})
        sizes: dict[str, int] = {}
        for device in group["image"]["devices"]:
            kind = device["Ebs"].get("VolumeType", "gp3")
            sizes[kind] = sizes.get(kind, 0) + device["Ebs"]["VolumeSize"] * count
        for kind, size in sizes.items():
            items.append({"what": f"{group['group']}: GiB of {kind}", "kind": "volume", "type": kind, "count": size})
    return sorted(items, key=lambda item: item["kind"] not in ("cluster", "cluster_extended"))


def _network_bill(settings: dict[str, Any], network: dict[str, Any]) -> list[dict[str, Any]]:
    zones = sum(bool(network.get(f"Zone{number}")) for number in (1, 2, 3))
    if not zones:
        return []
    if settings["nat"] == "none":
        count = zones * (len(look.ENDPOINTS) + bool(network["Ec2MessagesService"]))
        return [{"what": "interface endpoints, per zone", "kind": "endpoint", "count": count}]
    count = zones if settings["nat"] == "three" else 1
    return [
        {"what": "NAT gateways", "kind": "nat_gateway", "count": count},
        {"what": "public addresses of NAT gateways", "kind": "public_ipv4", "count": count},
    ]
