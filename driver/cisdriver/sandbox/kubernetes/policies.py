"""Controllers of what stands beside workloads: endpoints of services, autoscalers, disruption budgets, namespaces."""

from __future__ import annotations

import math
from typing import Any

from . import scheduler
from .cluster import Cluster, condition, controlled, share, title, with_status
from .workloads import ready, selected

Object = dict[str, Any]


def reconcile(cluster: Cluster) -> None:
    for one in cluster.store.all("Namespace"):
        _namespace(cluster, one)
    for one in cluster.store.all("Service"):
        if one["spec"].get("selector"):
            _endpoints(cluster, one)
    for one in cluster.store.all("PodDisruptionBudget"):
        _budget(cluster, one)
    for one in cluster.store.all("HorizontalPodAutoscaler"):
        _autoscale(cluster, one)


def metrics_served(cluster: Cluster) -> bool:
    found = cluster.store.get("Deployment", "kube-system", "metrics-server")
    return found is not None and bool((found.get("status") or {}).get("availableReplicas"))


def budgets_of(cluster: Cluster, pod: Object) -> list[Object]:
    """The disruption budgets that cover a pod."""
    found = cluster.store.all("PodDisruptionBudget", pod["metadata"]["namespace"])
    return [one for one in found if pod in selected(cluster, one["metadata"]["namespace"], one["spec"].get("selector"))]


def _namespace(cluster: Cluster, one: Object) -> None:
    name = one["metadata"]["name"]
    if "deletionTimestamp" not in one["metadata"]:
        for kind, made, more in (
            ("ServiceAccount", "default", {}),
            ("ConfigMap", "kube-root-ca.crt", {"data": {"ca.crt": ""}}),
        ):
            if cluster.store.get(kind, name, made) is None:
                meta = {"name": made, "namespace": name}
                cluster.store.save(kind, {"apiVersion": "v1", "kind": kind, "metadata": meta, **more})
        return
    left = [(kind, found) for kind, found in cluster.store.everything() if found["metadata"].get("namespace") == name]
    for kind, found in left:
        if not found["metadata"].get("finalizers"):
            cluster.store.remove(kind, found)
        elif "deletionTimestamp" not in found["metadata"]:
            meta = {**found["metadata"], "deletionTimestamp": one["metadata"]["deletionTimestamp"]}
            cluster.store.save(kind, {**found, "metadata": meta})
    if not left:
        cluster.store.remove("Namespace", one)


def _endpoints(cluster: Cluster, one: Object) -> None:
    namespace = one["metadata"]["namespace"]
    pods = [
        pod
        for pod in selected(cluster, namespace, {"matchLabels": one["spec"]["selector"]})
        if "podIP" in pod["status"]
    ]
    label = {"kubernetes.io/service-name": one["metadata"]["name"]}
    before = next(iter(cluster.store.owned("EndpointSlice", one)), None)
    name = before["metadata"]["name"] if before else f"{one['metadata']['name']}-{cluster.store.suffix()}"
    meta = {**(before["metadata"] if before else {}), **controlled(one, name, labels=label)}
    made = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4"}
    ports = [
        {"name": port.get("name", ""), "port": _target(pods, port), "protocol": port["protocol"]}
        for port in one["spec"].get("ports", [])
    ]
    endpoints = [_endpoint(cluster, pod) for pod in pods]
    cluster.store.save("EndpointSlice", made | {"ports": ports, "endpoints": endpoints})


def _target(pods: list[Object], port: Object) -> int | None:
    """The port's number in the pods, whose containers may know it by a name."""
    if isinstance(port["targetPort"], int):
        return int(port["targetPort"])
    named = [one for pod in pods for container in pod["spec"]["containers"] for one in container.get("ports", [])]
    return next((int(one["containerPort"]) for one in named if one.get("name") == port["targetPort"]), None)


def _endpoint(cluster: Cluster, pod: Object) -> Object:
    up = ready(pod)
    node = cluster.store.get("Node", "", pod["spec"]["nodeName"]) or {}
    reference = {"kind": "Pod", **{key: pod["metadata"][key] for key in ("name", "namespace", "uid")}}
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": up, "serving": up, "terminating": False},
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": reference,
        "zone": node.get("metadata", {}).get("labels", {}).get("topology.kubernetes.io/zone", ""),
    }


def _budget(cluster: Cluster, one: Object) -> None:
    pods = selected(cluster, one["metadata"]["namespace"], one["spec"].get("selector"))
    up, expected = sum(map(ready, pods)), len(pods)
    if "maxUnavailable" in one["spec"]:
        # What pods should be there is what their owners want.
        expected = max(expected, sum(_wanted(cluster, pods)))
        least = max(0, expected - share(one["spec"]["maxUnavailable"], expected, up=True))
    else:
        least = share(one["spec"].get("minAvailable", 1), max(expected, sum(_wanted(cluster, pods))), up=True)
    allowed = max(0, up - least)
    reason = "SufficientPods" if allowed else "InsufficientPods"
    status = {
        "observedGeneration": one["metadata"].get("generation", 1),
        "currentHealthy": up,
        "desiredHealthy": least,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        # This kind of condition always has a message.
        "conditions": [{"message": "", **condition(one, "DisruptionAllowed", allowed > 0, reason)}],
    }
    cluster.store.save("PodDisruptionBudget", with_status(one, status))


def _wanted(cluster: Cluster, pods: list[Object]) -> list[int]:
    references = {
        (one["kind"], pod["metadata"]["namespace"], one["name"])
        for pod in pods
        for one in pod["metadata"].get("ownerReferences", [])
    }
    owners = [cluster.store.get(*reference) for reference in sorted(references)]
    return [one["spec"].get("replicas", 0) for one in owners if one is not None]


def _autoscale(cluster: Cluster, one: Object) -> None:
    reference = one["spec"]["scaleTargetRef"]
    target = cluster.store.get(reference["kind"], one["metadata"]["namespace"], reference["name"])
    if target is None or "replicas" not in target["spec"]:
        text = f'deployments/scale.apps "{reference["name"]}" not found'
        text = f"the HPA controller was unable to get the target's current scale: {text}"
        conditions = [condition(one, "AbleToScale", False, "FailedGetScale", text)]
        cluster.store.save("HorizontalPodAutoscaler", with_status(one, {"conditions": conditions}))
        return
    current = target["spec"]["replicas"]
    pods = selected(cluster, one["metadata"]["namespace"], target["spec"].get("selector"))
    problem = _no_metrics(cluster, one, pods)
    if problem:
        cluster.event(
            "HorizontalPodAutoscaler", one, "FailedGetResourceMetric", problem, source="horizontal-pod-autoscaler"
        )
        text = f"the HPA was unable to compute the replica count: {problem}"
        conditions = [
            condition(
                one,
                "AbleToScale",
                True,
                "SucceededGetScale",
                "the HPA controller was able to get the target's current scale",
            ),
            condition(one, "ScalingActive", False, "FailedGetResourceMetric", text),
        ]
        status = {"currentReplicas": current, "desiredReplicas": 0, "conditions": conditions}
        cluster.store.save("HorizontalPodAutoscaler", with_status(one, status))
        return
    _scale(cluster, one, target)


def _no_metrics(cluster: Cluster, one: Object, pods: list[Object]) -> str:
    """Why there is no figure to scale by; empty if there is one."""
    served = metrics_served(cluster)
    if not served or cluster.orders.find([("HorizontalPodAutoscaler", title(one))], "no_metrics"):
        cause = "no metrics returned from resource metrics API"
        missing = "unable to fetch metrics from resource metrics API: the server could not find the requested resource"
        text = cause if served else f"{missing} (get pods.metrics.k8s.io)"
        return f"failed to get cpu utilization: unable to get metrics for resource cpu: {text}"
    for pod in pods:
        for container in pod["spec"]["containers"]:
            if "cpu" not in container.get("resources", {}).get("requests", {}):
                where = f"in container {container['name']} of Pod {pod['metadata']['name']}"
                return f"failed to get cpu utilization: missing request for cpu {where}"
    return ""


def _scale(cluster: Cluster, one: Object, target: Object) -> None:
    spec, current = one["spec"], target["spec"]["replicas"]
    order = cluster.orders.find([("HorizontalPodAutoscaler", title(one))], "utilization")
    usage = int(order["value"]) if order else 0
    goal = next(
        (m["resource"]["target"].get("averageUtilization") for m in spec["metrics"] if m["type"] == "Resource"), None
    )
    wanted = math.ceil(current * usage / goal) if goal else current
    # Within a tenth of the goal nothing moves (--horizontal-pod-autoscaler-tolerance).
    if goal and abs(usage / goal - 1) <= 0.1:
        wanted = current
    desired = min(max(wanted, spec["minReplicas"]), spec["maxReplicas"])
    if desired != current:
        kind = target["kind"]
        generation = target["metadata"].get("generation", 1) + 1
        meta = {**target["metadata"], "generation": generation}
        cluster.store.save(kind, {**target, "metadata": meta, "spec": {**target["spec"], "replicas": desired}})
        text = f"New size: {desired}; reason: cpu resource utilization (percentage of request)"
        cluster.event("HorizontalPodAutoscaler", one, "SuccessfulRescale", text, warning=False)
    metric = {
        "name": "cpu",
        "current": {"averageUtilization": usage, "averageValue": f"{usage * _cpu(cluster, one, target) // 100}m"},
    }
    limited = wanted != desired
    conditions = [
        condition(one, "AbleToScale", True, "ReadyForNewScale", "recommended size matches current size"),
        condition(
            one, "ScalingActive", True, "ValidMetricFound", "the HPA was able to successfully calculate a replica count"
        ),
        condition(
            one,
            "ScalingLimited",
            limited,
            "TooManyReplicas" if wanted > desired else "TooFewReplicas" if limited else "DesiredWithinRange",
        ),
    ]
    status = {"currentReplicas": current, "desiredReplicas": desired, "conditions": conditions}
    status |= {"currentMetrics": [{"type": "Resource", "resource": metric}]}
    cluster.store.save("HorizontalPodAutoscaler", with_status(one, status))


def _cpu(cluster: Cluster, one: Object, target: Object) -> int:
    """Thousandths of a core that a pod of the target asks for."""
    pods = selected(cluster, one["metadata"]["namespace"], target["spec"].get("selector"))
    return int(scheduler.requests(pods[0]).get("cpu", 0) * 1000) if pods else 0
