"""What EKS's add-ons put into kube-system, as far as others depend on it: networks, volumes, metrics, drains."""

from __future__ import annotations

from typing import Any

from .admission import admit
from .cluster import Cluster

Object = dict[str, Any]
_NAMESPACE = "kube-system"
#: Add-on to (kind, name, ports of a Service of that name).
_WORKLOADS: dict[str, list[tuple[str, str, int]]] = {
    "vpc-cni": [("DaemonSet", "aws-node", 0)],
    "kube-proxy": [("DaemonSet", "kube-proxy", 0)],
    "coredns": [("Deployment", "coredns", 0)],
    "eks-pod-identity-agent": [("DaemonSet", "eks-pod-identity-agent", 0)],
    "aws-ebs-csi-driver": [("Deployment", "ebs-csi-controller", 0), ("DaemonSet", "ebs-csi-node", 0)],
    "metrics-server": [("Deployment", "metrics-server", 443)],
}
#: DaemonSets of the host's network.
_HOST_NETWORK = {"aws-node", "kube-proxy", "eks-pod-identity-agent"}
_APP_LABELS = {"aws-node": "k8s-app", "kube-proxy": "k8s-app", "coredns": "k8s-app"}


def add(cluster: Cluster, name: str) -> None:
    """Raises ValueError for an add-on that is not known."""
    for kind, workload, port in _known(name):
        _save(cluster, kind, _workload(cluster, kind, workload))
        if port:
            _save(cluster, "Service", _service(workload, workload, port, "TCP"))
    if name == "coredns":
        _save(cluster, "Service", _service("kube-dns", "coredns", 53, "UDP"))
    if name == "aws-ebs-csi-driver":
        driver = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "ebs.csi.aws.com"}}
        _save(cluster, "CSIDriver", driver | {"spec": {"attachRequired": True, "podInfoOnMount": False}})


def remove(cluster: Cluster, name: str) -> None:
    """Raises ValueError for an add-on that is not known. One that is not there is as good as removed."""
    made = [(kind, workload) for kind, workload, _ in _known(name)]
    made += [("Service", workload) for _, workload, port in _known(name) if port]
    made += [("Service", "kube-dns")] if name == "coredns" else []
    for kind, workload in made:
        found = cluster.store.get(kind, _NAMESPACE, workload)
        if found is not None:
            cluster.store.remove(kind, found)
    if name == "aws-ebs-csi-driver" and (found := cluster.store.get("CSIDriver", "", "ebs.csi.aws.com")):
        cluster.store.remove("CSIDriver", found)


def is_ready(cluster: Cluster, name: str) -> bool:
    """Whether all its pods are up: Deployments need nodes, DaemonSets are content with none."""
    found = [cluster.store.get(kind, _NAMESPACE, workload) for kind, workload, _ in _known(name)]
    return all(one is not None and _up(one) for one in found)


def _known(name: str) -> list[tuple[str, str, int]]:
    if name not in _WORKLOADS:
        raise ValueError(f"add-on {name}: the sandbox knows {', '.join(_WORKLOADS)}")
    return _WORKLOADS[name]


def _up(one: Object) -> bool:
    status = one.get("status") or {}
    if one["kind"] == "DaemonSet":
        return bool(status.get("numberReady", 0) == status.get("desiredNumberScheduled", -1))
    return bool(status.get("availableReplicas", 0) == one["spec"]["replicas"])


def _save(cluster: Cluster, kind: str, one: Object) -> None:
    if cluster.store.get(kind, one["metadata"].get("namespace", ""), one["metadata"]["name"]) is None:
        admit(cluster, kind, one)
        cluster.store.save(kind, one)


def _labels(workload: str) -> dict[str, str]:
    if workload == "coredns":
        return {"k8s-app": "kube-dns", "eks.amazonaws.com/component": "coredns"}
    return {_APP_LABELS.get(workload, "app.kubernetes.io/name"): workload}


def _workload(cluster: Cluster, kind: str, name: str) -> Object:
    labels = _labels(name)
    everywhere = [{"operator": "Exists"}]
    image = f"602401143452.dkr.ecr.{cluster.region}.amazonaws.com/eks/{name}:sandbox"
    spec: Object = {"containers": [{"name": name, "image": image}], "priorityClassName": "system-node-critical"}
    if kind == "DaemonSet":
        spec |= {"tolerations": everywhere, "hostNetwork": name in _HOST_NETWORK}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": _NAMESPACE, "labels": labels, "generation": 1},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
            **({"replicas": 2} if kind == "Deployment" else {}),
        },
        "status": {},
    }


def _service(name: str, workload: str, port: int, protocol: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": _NAMESPACE, "labels": _labels(workload)},
        "spec": {"selector": _labels(workload), "ports": [{"name": "main", "port": port, "protocol": protocol}]},
    }
