"""What is settled when an object is made: accounts of pods, addresses of services, selectors of jobs."""

from __future__ import annotations

from typing import Any

from . import defaults
from .cluster import Cluster

Object = dict[str, Any]
_NODE_PORTS = range(30000, 32768)


def admit(cluster: Cluster, kind: str, one: Object) -> str:
    """Complete a new object in place. The answer says why it is forbidden; empty if it is not."""
    defaults.fill(kind, one)
    if kind == "Node":
        return "in the sandbox nodes join by their node group"
    if kind == "Pod":
        return _pod(cluster, one)
    if kind == "Service":
        _service(cluster, one)
    if kind == "Job":
        _job(cluster, one)
    return ""


def _pod(cluster: Cluster, one: Object) -> str:
    defaults.admit_pod(one)
    namespace, account = one["metadata"]["namespace"], one["spec"]["serviceAccountName"]
    if cluster.store.get("ServiceAccount", namespace, account) is None:
        return f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
    return ""


def _service(cluster: Cluster, one: Object) -> None:
    spec = one["spec"]
    if spec["type"] == "ExternalName":
        return
    address = spec.setdefault("clusterIP", "") or cluster.address("172.20")
    spec["clusterIP"], spec["clusterIPs"] = address, [address]
    if spec["type"] in ("NodePort", "LoadBalancer"):
        taken = {
            port.get("nodePort") for other in cluster.store.all("Service") for port in other["spec"].get("ports", [])
        }
        taken |= {port.get("nodePort") for port in spec["ports"]}
        free = (number for number in _NODE_PORTS if number not in taken)
        for port in spec["ports"]:
            port.setdefault("nodePort", next(free))
    one["status"] = {"loadBalancer": {}}


def _job(cluster: Cluster, one: Object) -> None:
    """A selector by the job's own uid (strategy.go of batch/job), unless the manifest brings its own."""
    if one["spec"]["manualSelector"]:
        return
    uid = one["metadata"].setdefault("uid", cluster.store.uid())
    own = {"batch.kubernetes.io/controller-uid": uid}
    one["spec"]["selector"] = {"matchLabels": own}
    labels = one["spec"]["template"]["metadata"].setdefault("labels", {})
    name = one["metadata"]["name"]
    labels |= own | {"batch.kubernetes.io/job-name": name, "controller-uid": uid, "job-name": name}
