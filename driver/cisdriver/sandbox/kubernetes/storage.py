"""Claims and volumes: what the EBS CSI driver makes of them, as far as the API shows it. No EC2 volume is made."""

from __future__ import annotations

import copy
from typing import Any

from .cluster import Cluster, title

Object = dict[str, Any]
_PROTECTION = "kubernetes.io/pvc-protection"
_DRIVER = "ebs.csi.aws.com"
#: In-tree's name is migrated to the driver's (CSIMigrationAWS).
_PROVISIONERS = {_DRIVER, "kubernetes.io/aws-ebs"}
_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def claims_of(pod: Object) -> list[str]:
    """Names of the claims a pod uses."""
    volumes = pod["spec"].get("volumes") or []
    return [one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one]


def unbound_reason(cluster: Cluster, pod: Object) -> str:
    """Why a pod's claims keep it from any node; empty if they do not. A claim that waits for its pod does not."""
    for name in claims_of(pod):
        claim = cluster.store.get("PersistentVolumeClaim", pod["metadata"]["namespace"], name)
        if claim is None:
            return f'persistentvolumeclaim "{name}" not found.'
        if claim["status"]["phase"] == "Bound" or (_waits_for_pod(cluster, claim) and _obstacle(cluster, claim) == ""):
            continue
        if not _waits_for_pod(cluster, claim):
            return "pod has unbound immediate PersistentVolumeClaims."
        return f'running PreBind plugin "VolumeBinding": binding volumes: {_obstacle(cluster, claim)}'
    return ""


def zone_of_claims(cluster: Cluster, pod: Object) -> str:
    """The zone of a pod's bound volumes; empty if there is none."""
    for name in claims_of(pod):
        claim = cluster.store.get("PersistentVolumeClaim", pod["metadata"]["namespace"], name)
        volume = cluster.store.get("PersistentVolume", "", (claim or {}).get("spec", {}).get("volumeName", ""))
        if volume is not None:
            return str(volume["metadata"].get("labels", {}).get("topology.kubernetes.io/zone", ""))
    return ""


def reconcile(cluster: Cluster) -> None:
    """Classes for claims that name none, protection, binding, and the end of volumes."""
    pods = cluster.store.all("Pod")
    for claim in cluster.store.all("PersistentVolumeClaim"):
        users = [pod for pod in pods if _uses(pod, claim)]
        _protect(cluster, claim, users)
        if claim["status"]["phase"] != "Bound" and "deletionTimestamp" not in claim["metadata"]:
            _bind(
                cluster, _with_class(cluster, claim), next((one for one in users if one["spec"].get("nodeName")), None)
            )
    for volume in cluster.store.all("PersistentVolume"):
        _release(cluster, volume)


def _uses(pod: Object, claim: Object) -> bool:
    same = pod["metadata"]["namespace"] == claim["metadata"]["namespace"]
    ended = pod["status"].get("phase") in ("Succeeded", "Failed")
    return same and not ended and claim["metadata"]["name"] in claims_of(pod)


def _protect(cluster: Cluster, claim: Object, users: list[Object]) -> None:
    """A claim that goes stays for as long as a pod uses it."""
    finalizers = claim["metadata"].get("finalizers") or []
    gone = "deletionTimestamp" in claim["metadata"]
    if not gone and _PROTECTION not in finalizers:
        cluster.store.save("PersistentVolumeClaim", _finalized(claim, [*finalizers, _PROTECTION]))
    elif gone and not users and _PROTECTION in finalizers:
        kept = [one for one in finalizers if one != _PROTECTION]
        if kept:
            cluster.store.save("PersistentVolumeClaim", _finalized(claim, kept))
        else:
            cluster.store.remove("PersistentVolumeClaim", claim)


def _finalized(claim: Object, finalizers: list[str]) -> Object:
    return {**claim, "metadata": {**claim["metadata"], "finalizers": finalizers}}


def _with_class(cluster: Cluster, claim: Object) -> Object:
    claim = (
        cluster.store.get("PersistentVolumeClaim", claim["metadata"]["namespace"], claim["metadata"]["name"]) or claim
    )
    if "storageClassName" in claim["spec"]:
        return claim
    for one in cluster.store.all("StorageClass"):
        if (one["metadata"].get("annotations") or {}).get(_DEFAULT) == "true":
            claim = copy.deepcopy(claim)
            claim["spec"]["storageClassName"] = one["metadata"]["name"]
            return cluster.store.save("PersistentVolumeClaim", claim)
    return claim


def _class_of(cluster: Cluster, claim: Object) -> Object | None:
    return cluster.store.get("StorageClass", "", claim["spec"].get("storageClassName", ""))


def _waits_for_pod(cluster: Cluster, claim: Object) -> bool:
    found = _class_of(cluster, claim)
    return found is not None and found["volumeBindingMode"] == "WaitForFirstConsumer"


def _obstacle(cluster: Cluster, claim: Object) -> str:
    """Why no volume can be made for a claim; empty if one can."""
    order = cluster.orders.find([("PersistentVolumeClaim", title(claim))], "pending")
    if order is not None:
        return str(order["message"])
    found = _class_of(cluster, claim)
    name = claim["spec"].get("storageClassName", "")
    if found is None:
        return (
            f'storageclass.storage.k8s.io "{name}" not found'
            if name
            else "no persistent volumes available for this claim and no storage class is set"
        )
    if found["provisioner"] not in _PROVISIONERS:
        return f"no provisioner {found['provisioner']} runs in this cluster"
    if not _driver_runs(cluster):
        words = "Waiting for a volume to be created either by the external provisioner"
        return f"{words} '{_DRIVER}' or manually by the system administrator."
    return ""


def _driver_runs(cluster: Cluster) -> bool:
    controller = cluster.store.get("Deployment", "kube-system", "ebs-csi-controller")
    return controller is not None and bool((controller.get("status") or {}).get("availableReplicas"))


def _bind(cluster: Cluster, claim: Object, user: Object | None) -> None:
    obstacle = _obstacle(cluster, claim)
    if obstacle:
        reason = "ExternalProvisioning" if obstacle.startswith("Waiting") else "ProvisioningFailed"
        cluster.event("PersistentVolumeClaim", claim, reason, obstacle, source="persistentvolume-controller")
        return
    if _waits_for_pod(cluster, claim) and user is None:
        text = "waiting for first consumer to be created before binding"
        cluster.event("PersistentVolumeClaim", claim, "WaitForFirstConsumer", text, warning=False)
        return
    node = cluster.store.get("Node", "", user["spec"]["nodeName"] if user else "")
    nodes = [node] if node else cluster.store.all("Node")
    zone = nodes[0]["metadata"]["labels"]["topology.kubernetes.io/zone"] if nodes else f"{cluster.region}a"
    volume = cluster.store.save("PersistentVolume", _volume(cluster, claim, zone))
    name = volume["metadata"]["name"]
    capacity = volume["spec"]["capacity"]
    status = {"phase": "Bound", "capacity": capacity, "accessModes": claim["spec"]["accessModes"]}
    bound = {**claim, "spec": {**claim["spec"], "volumeName": name}, "status": status}
    cluster.store.save("PersistentVolumeClaim", bound)
    text = f"Successfully provisioned volume {name}"
    cluster.event("PersistentVolumeClaim", claim, "ProvisioningSucceeded", text, warning=False, source=_DRIVER)


def _volume(cluster: Cluster, claim: Object, zone: str) -> Object:
    found = _class_of(cluster, claim) or {}
    uid = claim["metadata"]["uid"]
    expression = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}
    reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "uid": uid}
    reference |= {key: claim["metadata"][key] for key in ("name", "namespace")}
    handle = f"vol-{uid.replace('-', '')[:17]}"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{uid}", "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {
            "capacity": dict(claim["spec"]["resources"]["requests"]),
            "accessModes": claim["spec"]["accessModes"],
            "claimRef": reference,
            "persistentVolumeReclaimPolicy": found.get("reclaimPolicy", "Delete"),
            "storageClassName": claim["spec"].get("storageClassName", ""),
            "volumeMode": claim["spec"]["volumeMode"],
            "csi": {"driver": _DRIVER, "volumeHandle": handle, "fsType": "ext4"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
        },
        "status": {"phase": "Bound"},
    }


def _release(cluster: Cluster, volume: Object) -> None:
    reference = volume["spec"].get("claimRef")
    if not reference:
        return
    claim = cluster.store.get("PersistentVolumeClaim", reference["namespace"], reference["name"])
    if claim is not None and claim["metadata"]["uid"] == reference["uid"]:
        return
    if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
        cluster.store.remove("PersistentVolume", volume)
    else:
        cluster.store.save("PersistentVolume", {**volume, "status": {"phase": "Released"}})
