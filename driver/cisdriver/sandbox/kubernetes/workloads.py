"""Controllers that make pods: Deployment, ReplicaSet, DaemonSet, Job; and the end of what has no owner any more."""

from __future__ import annotations

import copy
from typing import Any

from . import scheduler, selectors
from .cluster import Cluster, condition, controlled, fingerprint, is_active, is_true, share
from .store import now, owners, since

Object = dict[str, Any]
_HASH = "pod-template-hash"
_REVISION = "controller-revision-hash"
#: What the DaemonSet controller lets its pods endure.
_ENDURED = ("not-ready", "unreachable", "disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
_NO_EXECUTE = {"not-ready", "unreachable"}


def reconcile(cluster: Cluster) -> None:
    collect_garbage(cluster)
    for one in cluster.store.all("Deployment"):
        if "deletionTimestamp" not in one["metadata"]:
            _deployment(cluster, one)
    for one in cluster.store.all("ReplicaSet"):
        _replica_set(cluster, one)
    for one in cluster.store.all("DaemonSet"):
        _daemon_set(cluster, one)
    for one in cluster.store.all("Job"):
        _job(cluster, one)


def collect_garbage(cluster: Cluster) -> None:
    """Remove what is owned by nothing that is there any more, and pods of nodes that are gone."""
    everything = list(cluster.store.everything())
    there = {one["metadata"]["uid"] for _, one in everything}
    nodes = {one["metadata"]["name"] for one in cluster.store.all("Node")}
    for kind, one in everything:
        wanted = owners(one)
        stray = kind == "Pod" and one["spec"].get("nodeName") and one["spec"]["nodeName"] not in nodes
        if stray or (wanted and not wanted & there):
            cluster.store.remove(kind, one)


def ready(pod: Object) -> bool:
    return is_active(pod) and is_true(pod, "Ready")


def make_pod(cluster: Cluster, owner: Object, labels: dict[str, str] | None = None, node: str = "") -> None:
    """A pod of ``owner``'s template; ``node`` is where it is bound to."""
    template = copy.deepcopy(owner["spec"]["template"])
    meta = template.get("metadata") or {}
    made = controlled(owner, f"{owner['metadata']['name'][:57]}-{cluster.store.suffix()}")
    made["labels"] = {**(meta.get("labels") or {}), **(labels or {})}
    if meta.get("annotations"):
        made["annotations"] = meta["annotations"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template["spec"]}
    if node:
        pod["spec"]["nodeName"] = node
    # Here, for admission needs a cluster as well.
    from .admission import admit

    refusal = admit(cluster, "Pod", pod)
    kind = owner["kind"]
    if refusal:
        text = f"Error creating: {refusal}"
        cluster.event(kind, owner, "FailedCreate", text, source=f"{kind.lower()}-controller")
    else:
        cluster.store.save("Pod", pod)


def _deployment(cluster: Cluster, one: Object) -> None:
    template = copy.deepcopy(one["spec"]["template"])
    revision = fingerprint(template)
    sets = cluster.store.owned("ReplicaSet", one)
    new = next((found for found in sets if found["metadata"]["labels"].get(_HASH) == revision), None)
    if new is None:
        new = _make_replica_set(cluster, one, revision)
        sets = cluster.store.owned("ReplicaSet", one)
    wanted = one["spec"]["replicas"]
    _scale(cluster, new, wanted)
    fresh = cluster.store.get("ReplicaSet", one["metadata"]["namespace"], new["metadata"]["name"]) or new
    arrived = (fresh.get("status") or {}).get("availableReplicas", 0)
    for old in sets:
        # Old pods go when new ones are there, so a bad template leaves the old ones at work.
        if old["metadata"]["name"] != new["metadata"]["name"] and arrived >= wanted:
            _scale(cluster, old, 0)
    _deployment_status(cluster, one, fresh)


def _make_replica_set(cluster: Cluster, one: Object, revision: str) -> Object:
    template = copy.deepcopy(one["spec"]["template"])
    template["metadata"]["labels"] = {**template["metadata"].get("labels", {}), _HASH: revision}
    selector = copy.deepcopy(one["spec"]["selector"])
    selector.setdefault("matchLabels", {})[_HASH] = revision
    meta = controlled(one, f"{one['metadata']['name']}-{revision}", labels=template["metadata"]["labels"], generation=1)
    spec = {"replicas": 0, "selector": selector, "template": template}
    return cluster.store.save(
        "ReplicaSet", {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": spec, "status": {}}
    )


def _scale(cluster: Cluster, one: Object, replicas: int) -> None:
    one = cluster.store.get("ReplicaSet", one["metadata"]["namespace"], one["metadata"]["name"]) or one
    if one["spec"]["replicas"] != replicas:
        cluster.store.save("ReplicaSet", {**copy.deepcopy(one), "spec": {**one["spec"], "replicas": replicas}})


def _deployment_status(cluster: Cluster, one: Object, new: Object) -> None:
    wanted = one["spec"]["replicas"]
    statuses = [found.get("status") or {} for found in cluster.store.owned("ReplicaSet", one)]
    total = sum(status.get("replicas", 0) for status in statuses)
    available = sum(status.get("availableReplicas", 0) for status in statuses)
    updated = (new.get("status") or {}).get("replicas", 0)
    spare = share((one["spec"]["strategy"].get("rollingUpdate") or {}).get("maxUnavailable", 0), wanted, up=False)
    enough = available >= wanted - spare
    done = updated == wanted == total == available
    least = ("MinimumReplicasAvailable", "Deployment has minimum availability.")
    lacks = ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    name = new["metadata"]["name"]
    progress = ("NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.')
    under_way = ("ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')
    late = ("ProgressDeadlineExceeded", f'ReplicaSet "{name}" has timed out progressing.')
    overdue = not done and since(new["metadata"]["creationTimestamp"]) > one["spec"]["progressDeadlineSeconds"]
    status: Object = {
        "observedGeneration": one["metadata"].get("generation", 1),
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": available,
        "availableReplicas": available,
        "unavailableReplicas": max(0, max(total, wanted) - available),
        "conditions": [
            condition(one, "Available", enough, *(least if enough else lacks)),
            condition(one, "Progressing", not overdue, *(progress if done else late if overdue else under_way)),
        ],
    }
    # Zeroes are left out, as Go's omitempty does.
    kept = {key: value for key, value in status.items() if value or key == "observedGeneration"}
    cluster.store.save("Deployment", {**one, "status": kept})


def _replica_set(cluster: Cluster, one: Object) -> None:
    pods = [pod for pod in cluster.store.owned("Pod", one) if is_active(pod)]
    wanted = one["spec"]["replicas"]
    for _ in range(wanted - len(pods)):
        make_pod(cluster, one)
    # The ones that are not ready go first.
    for pod in sorted(pods, key=ready)[: max(0, len(pods) - wanted)]:
        cluster.store.remove("Pod", pod)
    pods = [pod for pod in cluster.store.owned("Pod", one) if is_active(pod)]
    up = sum(map(ready, pods))
    status: Object = {"replicas": len(pods), "observedGeneration": one["metadata"].get("generation", 1)}
    if up:
        status |= {"readyReplicas": up, "availableReplicas": up}
    if pods:
        status["fullyLabeledReplicas"] = len(pods)
    cluster.store.save("ReplicaSet", {**one, "status": status})


def _daemon_set(cluster: Cluster, one: Object) -> None:
    revision = fingerprint(one["spec"]["template"])
    shape = _daemon_pod(one)
    eligible = {node["metadata"]["name"] for node in cluster.store.all("Node") if not scheduler.fits_node(shape, node)}
    here: dict[str, Object] = {}
    for pod in cluster.store.owned("Pod", one):
        node = pod["spec"].get("nodeName", "")
        old = pod["metadata"]["labels"].get(_REVISION) != revision
        ended = pod["status"].get("phase") in ("Succeeded", "Failed")
        if (
            node not in eligible
            or node in here
            or ended
            or (old and one["spec"]["updateStrategy"]["type"] != "OnDelete")
        ):
            cluster.store.remove("Pod", pod)
        else:
            here[node] = pod
    owner = {**one, "spec": {**one["spec"], "template": shape}}
    for node in sorted(eligible - set(here)):
        make_pod(cluster, owner, {_REVISION: revision}, node)
    _daemon_set_status(cluster, one, revision, len(eligible))


def _daemon_pod(one: Object) -> Object:
    template = scheduler.unscheduled_copy(one["spec"]["template"])
    spec = copy.deepcopy(template["spec"])
    spec["tolerations"] = [
        *(spec.get("tolerations") or []),
        *(
            {
                "key": f"node.kubernetes.io/{key}",
                "operator": "Exists",
                "effect": "NoExecute" if key in _NO_EXECUTE else "NoSchedule",
            }
            for key in _ENDURED
        ),
        # Of a node without a network, which its agent is there to bring.
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"},
    ]
    return {**template, "spec": spec}


def _daemon_set_status(cluster: Cluster, one: Object, revision: str, wanted: int) -> None:
    pods = cluster.store.owned("Pod", one)
    up = sum(map(ready, pods))
    status = {
        "observedGeneration": one["metadata"].get("generation", 1),
        "currentNumberScheduled": len(pods),
        "numberMisscheduled": 0,
        "desiredNumberScheduled": wanted,
        "numberReady": up,
        "updatedNumberScheduled": sum(pod["metadata"]["labels"].get(_REVISION) == revision for pod in pods),
        "numberAvailable": up,
        "numberUnavailable": wanted - up,
    }
    always = (
        "observedGeneration",
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
    )
    cluster.store.save(
        "DaemonSet", {**one, "status": {key: value for key, value in status.items() if value or key in always}}
    )


def _job(cluster: Cluster, one: Object) -> None:
    status = one.get("status") or {}
    if is_true(one, "Complete") or is_true(one, "Failed"):
        ttl = one["spec"].get("ttlSecondsAfterFinished")
        if ttl is not None and since(find_end(one)) >= ttl:
            cluster.store.remove("Job", one)
        return
    if one["spec"]["suspend"] or "deletionTimestamp" in one["metadata"]:
        return
    pods = cluster.store.owned("Pod", one)
    done = sum(pod["status"].get("phase") == "Succeeded" for pod in pods)
    failed = sum(pod["status"].get("phase") == "Failed" for pod in pods) + _restarts(one, pods)
    active = [pod for pod in pods if is_active(pod)]
    started = status.get("startTime") or now()
    made: Object = {"startTime": started, "active": len(active), "ready": sum(map(ready, active))}
    made |= {"succeeded": done, "failed": failed, "terminating": 0, "uncountedTerminatedPods": {}}
    deadline = one["spec"].get("activeDeadlineSeconds")
    wanted = one["spec"].get("completions", 1)
    if done >= wanted:
        text = "Reached expected number of succeeded pods"
        conditions = [
            condition(one, kind, True, "CompletionsReached", text) for kind in ("SuccessCriteriaMet", "Complete")
        ]
        made |= {"conditions": conditions, "completionTime": now()}
    elif failed > one["spec"]["backoffLimit"]:
        made |= _job_failed(cluster, one, active, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    elif deadline is not None and since(started) >= deadline:
        made |= _job_failed(cluster, one, active, "DeadlineExceeded", "Job was active longer than specified deadline")
    else:
        for _ in range(min(one["spec"]["parallelism"], wanted - done) - len(active)):
            make_pod(cluster, one)
    cluster.store.save(
        "Job", {**one, "status": {key: value for key, value in made.items() if value != 0 or key == "ready"}}
    )


def find_end(job: Object) -> str:
    """When a job has ended."""
    ends = [one["lastTransitionTime"] for one in job["status"]["conditions"] if one["type"] in ("Complete", "Failed")]
    return str(ends[0])


def _restarts(one: Object, pods: list[Object]) -> int:
    """Restarts within pods count as failures (restartPolicy OnFailure)."""
    if one["spec"]["template"]["spec"]["restartPolicy"] != "OnFailure":
        return 0
    statuses = [found for pod in pods for found in pod["status"].get("containerStatuses") or []]
    # The kubelet's long way to the limit is gone at once.
    return one["spec"]["backoffLimit"] + 1 if any(found["restartCount"] for found in statuses) else 0


def _job_failed(cluster: Cluster, one: Object, active: list[Object], reason: str, text: str) -> Object:
    for pod in active:
        cluster.store.remove("Pod", pod)
    cluster.event("Job", one, reason, text, source="job-controller")
    conditions = [condition(one, kind, True, reason, text) for kind in ("FailureTarget", "Failed")]
    return {"conditions": conditions, "active": 0, "ready": 0}


def selected(cluster: Cluster, namespace: str, selector: Object | None) -> list[Object]:
    """The active pods of a namespace that a LabelSelector fits."""
    found = cluster.store.all("Pod", namespace)
    return [
        pod for pod in found if is_active(pod) and selectors.by_selector(selector, pod["metadata"].get("labels") or {})
    ]
