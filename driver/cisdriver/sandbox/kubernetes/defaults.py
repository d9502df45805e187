"""What the API server fills in where a manifest is silent (pkg/apis/*/v1/defaults.go), and admission after it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

Object = dict[str, Any]
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_NOT_READY = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for key in ("not-ready", "unreachable")
]


def fill(kind: str, one: Object) -> None:
    """Fill in the defaults of a kind, in place."""
    filler = _FILLERS.get(kind)
    if filler:
        filler(one)


def _set(one: Object, **values: Any) -> None:
    for key, value in values.items():
        one.setdefault(key, value)


def pod_spec(spec: Object) -> None:
    _set(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
    _set(spec, terminationGracePeriodSeconds=30, securityContext={}, containers=[])
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        _container(container)
        if spec.get("hostNetwork"):
            for port in container.get("ports", []):
                _set(port, hostPort=port.get("containerPort"))
    for volume in spec.get("volumes", []):
        _volume(volume)
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def _container(one: Object) -> None:
    _, _, tag = one.get("image", "").rpartition("/")[2].partition(":")
    pinned = "@" in one.get("image", "") or tag not in ("", "latest")
    _set(one, imagePullPolicy="IfNotPresent" if pinned else "Always", resources={})
    _set(one, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    limits = one["resources"].get("limits")
    if limits:
        one["resources"]["requests"] = {**limits, **one["resources"].get("requests", {})}
    for port in one.get("ports", []):
        _set(port, protocol="TCP")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in one:
            _set(one[probe], **_PROBE)
            if "httpGet" in one[probe]:
                _set(one[probe]["httpGet"], path="/", scheme="HTTP")
    for variable in one.get("env", []):
        if "fieldRef" in variable.get("valueFrom", {}):
            _set(variable["valueFrom"]["fieldRef"], apiVersion="v1")


def _volume(one: Object) -> None:
    if set(one) == {"name"}:
        one["emptyDir"] = {}
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if source in one:
            _set(one[source], defaultMode=420)
    if "hostPath" in one:
        _set(one["hostPath"], type="")
    for source in one.get("projected", {}).get("sources", []):
        if "serviceAccountToken" in source:
            _set(source["serviceAccountToken"], expirationSeconds=3600)


def admit_pod(one: Object) -> None:
    """What admission adds to a pod: its account, how long it stays on a node that fails, its priority."""
    spec = one["spec"]
    _set(spec, serviceAccountName="default", serviceAccount=spec.get("serviceAccountName", "default"))
    _set(spec, enableServiceLinks=True, preemptionPolicy="PreemptLowerPriority", priority=0)
    tolerations = spec.setdefault("tolerations", [])
    for extra in _NOT_READY:
        if not any(one.get("key") in (None, extra["key"]) for one in tolerations):
            tolerations.append(dict(extra))
    one["status"] = {"phase": "Pending", "qosClass": _quality(spec)}


def _quality(spec: Object) -> str:
    resources = [one["resources"] for one in spec["containers"]]
    if not any(one.get("requests") or one.get("limits") for one in resources):
        return "BestEffort"
    full = all(set(one.get("limits", {})) >= {"cpu", "memory"} for one in resources)
    return "Guaranteed" if full and all(one["requests"] == one["limits"] for one in resources) else "Burstable"


def _pod(one: Object) -> None:
    pod_spec(one["spec"])


def _template(one: Object) -> None:
    template = one["spec"].setdefault("template", {})
    _set(template, metadata={}, spec={})
    pod_spec(template["spec"])


def _deployment(one: Object) -> None:
    _template(one)
    _set(one["spec"], replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy={})
    strategy = one["spec"]["strategy"]
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")


def _replica_set(one: Object) -> None:
    _template(one)
    _set(one["spec"], replicas=1)


def _daemon_set(one: Object) -> None:
    _template(one)
    _set(one["spec"], revisionHistoryLimit=10, updateStrategy={"type": "RollingUpdate"})
    if one["spec"]["updateStrategy"].get("type") == "RollingUpdate":
        _set(one["spec"]["updateStrategy"].setdefault("rollingUpdate", {}), maxSurge=0, maxUnavailable=1)


def _job(one: Object) -> None:
    _template(one)
    spec = one["spec"]
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    _set(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False)
    _set(spec, podReplacementPolicy="TerminatingOrFailed", manualSelector=False)


def _service(one: Object) -> None:
    spec = one["spec"]
    _set(spec, type="ClusterIP", sessionAffinity="None")
    if spec["type"] != "ExternalName":
        _set(spec, internalTrafficPolicy="Cluster", ipFamilyPolicy="SingleStack", ipFamilies=["IPv4"])
    if spec["type"] in ("NodePort", "LoadBalancer"):
        _set(spec, externalTrafficPolicy="Cluster")
    for port in spec.get("ports", []):
        _set(port, protocol="TCP", targetPort=port.get("port"))


def _claim(one: Object) -> None:
    _set(one["spec"], volumeMode="Filesystem")
    _set(one, status={"phase": "Pending"})


def _autoscaler(one: Object) -> None:
    usage = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}
    usage["resource"]["target"]["averageUtilization"] = 80  # type: ignore[index]  # a literal of mixed values
    _set(one["spec"], minReplicas=1, metrics=[usage])


def _policy(one: Object) -> None:
    spec = one.setdefault("spec", {})
    _set(spec, podSelector={}, policyTypes=["Ingress", "Egress"] if "egress" in spec else ["Ingress"])
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
        for port in rule.get("ports", []):
            _set(port, protocol="TCP")


def _namespace(one: Object) -> None:
    one["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = one["metadata"].get("name", "")
    _set(one, spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"})


def _secret(one: Object) -> None:
    _set(one, type="Opaque")
    for key, text in one.pop("stringData", {}).items():
        one.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()


def _storage_class(one: Object) -> None:
    _set(one, reclaimPolicy="Delete", volumeBindingMode="Immediate")


_FILLERS: dict[str, Callable[[Object], None]] = {
    "Pod": _pod,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "HorizontalPodAutoscaler": _autoscaler,
    "NetworkPolicy": _policy,
    "Namespace": _namespace,
    "Secret": _secret,
    "StorageClass": _storage_class,
}
