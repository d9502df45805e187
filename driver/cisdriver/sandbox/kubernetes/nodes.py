"""Nodes as their kubelets and EKS show them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .cluster import Cluster, condition, title, with_status

Object = dict[str, Any]
_NO_NETWORK = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)
_PRESSURES = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}
#: What an m6i.large has, less what EKS keeps back.
_ALLOCATABLE = {"cpu": "1930m", "memory": "7Gi", "pods": "29", "ephemeral-storage": "18Gi"}
_UNSCHEDULABLE = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
_NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


@dataclass(frozen=True)
class NodeFacts:
    """A machine that joins. ``labels`` come on top of those that kubelet and EKS set; ``taints`` are ``{key, value,
    effect}``; ``allocatable`` are quantities; ``version`` is kubelet's (``v1.33.4-eks-...``)."""

    name: str
    group: str
    instance_id: str
    zone: str
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[dict[str, str]] = field(default_factory=list)
    allocatable: dict[str, str] = field(default_factory=dict)
    version: str = ""
    os_image: str = ""
    kernel: str = ""
    instance_type: str = "m6i.large"
    architecture: str = "amd64"
    address: str = ""


def join(cluster: Cluster, facts: NodeFacts) -> None:
    """A node with the facts' name, made or brought up to them."""
    before = cluster.store.get("Node", "", facts.name) or {}
    allocatable = {**_ALLOCATABLE, **facts.allocatable}
    address = facts.address or _address(before) or cluster.address("10.1")
    spec = {**before.get("spec", {}), "providerID": f"aws:///{facts.zone}/{facts.instance_id}"}
    if facts.taints:
        spec["taints"] = [dict(taint) for taint in facts.taints]
    status = {
        "capacity": allocatable,
        "allocatable": allocatable,
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": facts.name}],
        "nodeInfo": _info(cluster, facts),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
    }
    old = before.get("metadata", {})
    # What others have marked it with stays.
    meta = {**old, "name": facts.name, "labels": {**old.get("labels", {}), **_labels(cluster, facts)}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec}
    cluster.store.save("Node", node | {"status": {**before.get("status", {}), **status}})


def reconcile(cluster: Cluster) -> None:
    """Conditions of every node, and the taints that follow from them and from cordoning."""
    network = cluster.store.get("DaemonSet", "kube-system", "aws-node") is not None
    for node in cluster.store.all("Node"):
        order = cluster.orders.find([("Node", title(node))], "not_ready")
        why = order["message"] if order else "" if network else _NO_NETWORK
        conditions = [condition(node, kind, False, *words) for kind, words in _PRESSURES.items()]
        ready = ("KubeletNotReady", why) if why else ("KubeletReady", "kubelet is posting ready status")
        conditions.append(condition(node, "Ready", not why, *ready))
        others = [one for one in node["spec"].get("taints", []) if not _ours(one)]
        cordoned = node["spec"].get("unschedulable", False)
        taints = others + [_UNSCHEDULABLE] * bool(cordoned) + [_NOT_READY] * bool(why)
        spec = {key: value for key, value in node["spec"].items() if key != "taints"} | (
            {"taints": taints} if taints else {}
        )
        cluster.store.save("Node", with_status({**node, "spec": spec}, {"conditions": conditions}))


def _ours(taint: Object) -> bool:
    return taint["key"] in (_UNSCHEDULABLE["key"], _NOT_READY["key"])


def _address(node: Object) -> str:
    addresses = node.get("status", {}).get("addresses", [])
    return str(addresses[0]["address"]) if addresses else ""


def _labels(cluster: Cluster, facts: NodeFacts) -> dict[str, str]:
    system = {"kubernetes.io/arch": facts.architecture, "kubernetes.io/os": "linux"}
    return {
        **system,
        **{f"beta.{key}": value for key, value in system.items()},
        "kubernetes.io/hostname": facts.name,
        "node.kubernetes.io/instance-type": facts.instance_type,
        "topology.kubernetes.io/region": cluster.region,
        "topology.kubernetes.io/zone": facts.zone,
        "topology.ebs.csi.aws.com/zone": facts.zone,
        "eks.amazonaws.com/nodegroup": facts.group,
        "eks.amazonaws.com/capacityType": "ON_DEMAND",
        **facts.labels,
    }


def _info(cluster: Cluster, facts: NodeFacts) -> Object:
    kubelet = facts.version or f"v{cluster.version}.0-eks-sandbox"
    return {
        "architecture": facts.architecture,
        "bootID": facts.instance_id,
        "containerRuntimeVersion": "containerd://0.0.0-sandbox",
        "kernelVersion": facts.kernel or "0.0.0-sandbox",
        "kubeProxyVersion": kubelet,
        "kubeletVersion": kubelet,
        "machineID": facts.instance_id,
        "operatingSystem": "linux",
        "osImage": facts.os_image or "Amazon Linux (stand-in)",
        "systemUUID": facts.instance_id,
    }
