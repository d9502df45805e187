"""Where pods go: the filters of kube-scheduler that the manifests meet, and spreading as its score."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from . import selectors
from .cluster import Cluster, condition, is_active, with_status
from .storage import unbound_reason, zone_of_claims

Object = dict[str, Any]


def schedule(cluster: Cluster) -> None:
    """Bind every pod that waits for a node and can have one; say of the others why not."""
    for pod in cluster.store.all("Pod"):
        if not pod["spec"].get("nodeName") and is_active(pod) and not pod["spec"].get("schedulingGates"):
            node, reason = _place(cluster, pod)
            if node is not None:
                bound = {**pod, "spec": {**pod["spec"], "nodeName": node["metadata"]["name"]}}
                scheduled = condition(pod, "PodScheduled", True)
                cluster.store.save("Pod", with_status(bound, {"conditions": [scheduled]}))
                where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']} to {node['metadata']['name']}"
                text = f"Successfully assigned {where}"
                cluster.event("Pod", pod, "Scheduled", text, warning=False, source="default-scheduler")
            else:
                _waits(cluster, pod, reason)


def quantity(text: str) -> Decimal:
    """The number behind a quantity: ``100m`` is 0.1, ``1Gi`` 2**30."""
    return Decimal(parse_quantity(text))  # type: ignore[no-untyped-call]  # the client's utils carry no types


def requests(pod: Object) -> dict[str, Decimal]:
    """What a pod's containers ask for in sum, and itself as one pod."""
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for container in pod["spec"]["containers"]:
        for name, amount in container.get("resources", {}).get("requests", {}).items():
            total[name] += quantity(amount)
    return {**total, "pods": Decimal(1)}


def tolerated(pod: Object, taint: Object) -> bool:
    return any(_tolerates(one, taint) for one in pod["spec"].get("tolerations") or [])


def fits_node(pod: Object, node: Object) -> str:
    """Why a node is not for a pod by selector, affinity or taints; empty if it is. DaemonSets ask this too."""
    labels = node["metadata"].get("labels") or {}
    spec = pod["spec"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return "node(s) didn't match Pod's node affinity/selector"
    affinity = (spec.get("affinity") or {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required and not any(_term(term, node) for term in required["nodeSelectorTerms"]):
        return "node(s) didn't match Pod's node affinity/selector"
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerated(pod, taint):
            if taint["key"] == "node.kubernetes.io/unschedulable":
                return "node(s) were unschedulable"
            value = f" {taint['value']}" if taint.get("value") else ""
            return f"node(s) had untolerated taint {{{taint['key']}:{value}}}"
    return ""


def _place(cluster: Cluster, pod: Object) -> tuple[Object | None, str]:
    order = cluster.fate(pod)
    if order is not None and order.outcome == "unschedulable":
        return None, order["message"] or "0/1 nodes are available: 1 Insufficient memory."
    reason = unbound_reason(cluster, pod)
    if reason:
        return None, f"0/{len(cluster.store.all('Node'))} nodes are available: {reason}"
    refusals: Counter[str] = Counter()
    free = []
    for node in cluster.store.all("Node"):
        why = next(filter(None, (check(cluster, pod, node) for check in _FILTERS)), "")
        if why:
            refusals[why] += 1
        else:
            free.append(node)
    if free:
        return min(free, key=lambda node: _crowd(cluster, pod, node)), ""
    total = sum(refusals.values())
    listed = ", ".join(f"{count} {why}" for why, count in sorted(refusals.items()))
    return None, f"0/{total} nodes are available: {listed}." if listed else "no nodes available to schedule pods"


def _waits(cluster: Cluster, pod: Object, reason: str) -> None:
    scheduled = condition(pod, "PodScheduled", False, "Unschedulable", reason)
    cluster.store.save("Pod", with_status(pod, {"conditions": [scheduled]}))
    cluster.event("Pod", pod, "FailedScheduling", reason, source="default-scheduler")


def _crowd(cluster: Cluster, pod: Object, node: Object) -> tuple[int, int, str]:
    """Fewest pods with the same labels first, then fewest pods."""
    labels = pod["metadata"].get("labels")
    there = _pods_on(cluster, node)
    alike = sum(one["metadata"].get("labels") == labels for one in there)
    return alike, len(there), node["metadata"]["name"]


def _pods_on(cluster: Cluster, node: Object) -> list[Object]:
    name = node["metadata"]["name"]
    return [pod for pod in cluster.store.all("Pod") if pod["spec"].get("nodeName") == name and is_active(pod)]


def _by_node(_cluster: Cluster, pod: Object, node: Object) -> str:
    return fits_node(pod, node)


def _by_ports(cluster: Cluster, pod: Object, node: Object) -> str:
    wanted = _host_ports(pod)
    taken = {port for one in _pods_on(cluster, node) for port in _host_ports(one)} if wanted else set()
    return "node(s) didn't have free ports for the requested pod ports" if wanted & taken else ""


def _by_resources(cluster: Cluster, pod: Object, node: Object) -> str:
    used: defaultdict[str, Decimal] = defaultdict(Decimal)
    for one in _pods_on(cluster, node):
        for name, amount in requests(one).items():
            used[name] += amount
    for name, wanted in requests(pod).items():
        if used[name] + wanted > quantity(node["status"]["allocatable"].get(name, "0")):
            return "Too many pods" if name == "pods" else f"Insufficient {name}"
    return ""


def _by_volumes(cluster: Cluster, pod: Object, node: Object) -> str:
    zone = zone_of_claims(cluster, pod)
    here = (node["metadata"].get("labels") or {}).get("topology.kubernetes.io/zone")
    return "node(s) had volume node affinity conflict" if zone and zone != here else ""


def _by_pods(cluster: Cluster, pod: Object, node: Object) -> str:
    affinity = pod["spec"].get("affinity") or {}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    for term in affinity.get("podAntiAffinity", {}).get(required, []):
        if _alike(cluster, pod, node, term):
            return "node(s) didn't match pod anti-affinity rules"
    for term in affinity.get("podAffinity", {}).get(required, []):
        first = not any(_selected(cluster, pod, one, term) for one in cluster.store.all("Pod"))
        # The first of pods that want to be together may go anywhere.
        alone = first and selectors.by_selector(term.get("labelSelector"), pod["metadata"].get("labels") or {})
        if not alone and not _alike(cluster, pod, node, term):
            return "node(s) didn't match pod affinity rules"
    return ""


def _by_spread(cluster: Cluster, pod: Object, node: Object) -> str:
    for rule in pod["spec"].get("topologySpreadConstraints") or []:
        if rule["whenUnsatisfiable"] != "DoNotSchedule":
            continue
        key = rule["topologyKey"]
        here = (node["metadata"].get("labels") or {}).get(key)
        if here is None:
            return "node(s) didn't match pod topology spread constraints (missing required label)"
        nodes = [one for one in cluster.store.all("Node") if key in (one["metadata"].get("labels") or {})]
        eligible = [one for one in nodes if one is node or "affinity" not in fits_node(pod, one)]
        counts = {one["metadata"]["labels"][key]: 0 for one in eligible}
        for one in eligible:
            place = one["metadata"]["labels"][key]
            counts[place] += sum(_selected(cluster, pod, other, rule) for other in _pods_on(cluster, one))
        if counts[here] + 1 - min(counts.values()) > rule["maxSkew"]:
            return "node(s) didn't match pod topology spread constraints"
    return ""


def _alike(cluster: Cluster, pod: Object, node: Object, term: Object) -> bool:
    """Whether a pod that the term selects is in the node's topology."""
    key = term["topologyKey"]
    here = (node["metadata"].get("labels") or {}).get(key)
    for other in cluster.store.all("Node"):
        if here is not None and (other["metadata"].get("labels") or {}).get(key) == here:
            there = _pods_on(cluster, other)
            if any(_selected(cluster, pod, one, term) for one in there):
                return True
    return False


def _selected(_cluster: Cluster, pod: Object, other: Object, term: Object) -> bool:
    namespaces = term.get("namespaces") or [pod["metadata"]["namespace"]]
    labels = other["metadata"].get("labels") or {}
    inside = other["metadata"]["namespace"] in namespaces or "namespaceSelector" in term
    return inside and other is not pod and selectors.by_selector(term.get("labelSelector"), labels)


def _host_ports(pod: Object) -> set[tuple[int, str]]:
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
    return {(port["hostPort"], port["protocol"]) for port in ports if port.get("hostPort")}


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    same = toleration["key"] == taint["key"]
    return same and (toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""))


def _term(term: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    by_labels = all(selectors.matches(one, labels.get(one["key"])) for one in term.get("matchExpressions") or [])
    return by_labels and all(selectors.matches(one, fields.get(one["key"])) for one in term.get("matchFields") or [])


def unscheduled_copy(template: Object) -> Object:
    """A pod as a template makes it, for asking where it could go."""
    return {"metadata": copy.deepcopy(template.get("metadata") or {}), "spec": template["spec"]}


_FILTERS: list[Callable[[Cluster, Object, Object], str]] = [
    _by_node,
    _by_ports,
    _by_resources,
    _by_volumes,
    _by_pods,
    _by_spread,
]
