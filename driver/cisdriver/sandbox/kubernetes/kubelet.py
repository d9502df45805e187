"""What becomes of a pod on its node. No container runs: it is said to, or to have ended, and its log says which."""

from __future__ import annotations

from typing import Any

from .cluster import Cluster, condition, with_status
from .orders import Order
from .store import now

Object = dict[str, Any]
NOT_RUN = "cisdriver: not run: the sandbox runs no containers"
_ID = "containerd://" + "0" * 64
#: Orders after which a container has ended.
_STOPS = ("ends", "crash_loop")


def reconcile(cluster: Cluster) -> None:
    """Bring the status of every pod that has a node to what its containers would have come to."""
    for pod in cluster.store.all("Pod"):
        node = cluster.store.get("Node", "", pod["spec"].get("nodeName", ""))
        if node is not None and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            cluster.store.save("Pod", with_status(pod, _status(cluster, pod, node)))


def log_of(cluster: Cluster, pod: Object, container: str) -> str:
    """What a container has written, with a newline at the end."""
    order = cluster.orders.find(cluster.titles(pod), "logs", "ends", "crash_loop", "hangs", container=container)
    text = order["log"] if order is not None and order["log"] else NOT_RUN
    return str(text if text.endswith("\n") else text + "\n")


def exec_in(cluster: Cluster, pod: Object, container: str) -> tuple[str, str, int]:
    """What a command in a container says and ends with: stdout, stderr, exit code."""
    order = cluster.orders.find(cluster.titles(pod), "exec", container=container)
    if order is None:
        return NOT_RUN + "\n", "", 0
    return str(order["stdout"]), str(order["stderr"]), int(order["exit_code"])


def _status(cluster: Cluster, pod: Object, node: Object) -> Object:
    status: Object = {
        "hostIP": node["status"]["addresses"][0]["address"],
        "startTime": pod["status"].get("startTime") or now(),
    }
    status["hostIPs"] = [{"ip": status["hostIP"]}]
    order = cluster.fate(pod)
    # What has once been started keeps its image and its volumes.
    waits = None if "podIP" in pod["status"] else _mount_problem(cluster, pod) or _pull_problem(cluster, pod, order)
    if waits:
        return status | _pending(pod, *waits)
    status["podIP"] = pod["status"].get("podIP") or _address(cluster, pod, status["hostIP"])
    status["podIPs"] = [{"ip": status["podIP"]}]
    return status | _run(cluster, pod, order)


def _address(cluster: Cluster, pod: Object, host: str) -> str:
    return host if pod["spec"].get("hostNetwork") else cluster.address("10.0")


def _mount_problem(cluster: Cluster, pod: Object) -> tuple[str, str] | None:
    """(reason, message) of a volume or a variable that is not there."""
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or []:
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        found = cluster.store.get("PersistentVolumeClaim", namespace, claim) if claim else None
        if claim and (found is None or found["status"]["phase"] != "Bound"):
            return "ContainerCreating", f'waiting for persistentvolumeclaim "{claim}" to be bound'
        for kind, field, key in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
            source = volume.get(field)
            if source and not source.get("optional") and not cluster.store.get(kind, namespace, source[key]):
                missing = f'{kind.lower()} "{source[key]}" not found'
                text = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {missing}'
                cluster.event("Pod", pod, "FailedMount", text)
                return "ContainerCreating", text
    return _variable_problem(cluster, pod)


def _variable_problem(cluster: Cluster, pod: Object) -> tuple[str, str] | None:
    for container in pod["spec"]["containers"]:
        sources = [one.get("valueFrom", {}) for one in container.get("env", [])]
        wanted = [(kind, one[field]) for one in sources for kind, field in _REFERENCES if field in one]
        groups = container.get("envFrom", [])
        wanted += [(kind, one[field]) for one in groups for kind, field in _GROUPS if field in one]
        for kind, source in wanted:
            there = cluster.store.get(kind, pod["metadata"]["namespace"], source["name"])
            if there is None and not source.get("optional"):
                text = f'{kind.lower()} "{source["name"]}" not found'
                cluster.event("Pod", pod, "Failed", f"Error: {text}")
                return "CreateContainerConfigError", text
    return None


_REFERENCES = (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef"))
_GROUPS = (("ConfigMap", "configMapRef"), ("Secret", "secretRef"))


def _pull_problem(cluster: Cluster, pod: Object, order: Order | None) -> tuple[str, str] | None:
    if order is None or order.outcome != "image_pull_fails":
        return None
    image = pod["spec"]["containers"][0]["image"]
    cause = order["message"] or f'failed to pull and unpack image "{image}": failed to resolve reference: not found'
    cluster.event("Pod", pod, "Failed", f'Failed to pull image "{image}": {cause}')
    cluster.event("Pod", pod, "Failed", "Error: ImagePullBackOff")
    return "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {cause}'


def _pending(pod: Object, reason: str, message: str) -> Object:
    waiting = {"waiting": {"reason": reason, "message": message}}
    containers = [_container(one, waiting) for one in pod["spec"]["containers"]]
    return {"phase": "Pending", "conditions": _conditions(pod, ready=False), "containerStatuses": containers}


def _run(cluster: Cluster, pod: Object, order: Order | None) -> Object:
    """The status of a pod whose containers have been started."""
    for one in pod["spec"].get("initContainers") or []:
        code = _exit_code(order, one) if order is not None and order.parameters.get("container") == one["name"] else 0
        if code:
            return _init_failed(cluster, pod, one, code)
    states = [_container_status(cluster, pod, one, order) for one in pod["spec"]["containers"]]
    ended = all("terminated" in one["state"] for one in states)
    failed = any(one["state"].get("terminated", {}).get("exitCode") for one in states)
    phase = "Running" if not ended else "Failed" if failed else "Succeeded"
    ready = phase == "Running" and all(one["ready"] for one in states)
    status: Object = {"phase": phase, "conditions": _conditions(pod, ready, ended), "containerStatuses": states}
    if pod["spec"].get("initContainers"):
        status["initContainerStatuses"] = [_init_status(pod, one, ended) for one in pod["spec"]["initContainers"]]
    return status


def _container_status(cluster: Cluster, pod: Object, container: Object, order: Order | None) -> Object:
    policy = pod["spec"]["restartPolicy"]
    outcome = order.outcome if order is not None else ""
    code = _exit_code(order, container)
    stops = outcome in _STOPS and _is_meant(order, container)
    if stops and (policy == "Always" or (policy == "OnFailure" and code)):
        return _back_off(cluster, pod, container, code)
    if policy != "Always" and outcome != "hangs":
        return _container(container, _old_state(pod, container, "state", "terminated") or _terminated(pod, code))
    running = _old_state(pod, container, "state", "running") or {"running": {"startedAt": now()}}
    return {**_container(container, running), "ready": True, "started": True}


def _is_meant(order: Order | None, container: Object) -> bool:
    return order is not None and order.parameters.get("container", "") in ("", container["name"])


def _exit_code(order: Order | None, container: Object) -> int:
    stops = order is not None and order.outcome in _STOPS and _is_meant(order, container)
    return int(order["exit_code"]) if order is not None and stops else 0


def _init_failed(cluster: Cluster, pod: Object, container: Object, code: int) -> Object:
    """The status of a pod whose init container fails: again and again, or for good."""
    final = pod["spec"]["restartPolicy"] == "Never"
    inits = [_container(container, _terminated(pod, code))] if final else [_back_off(cluster, pod, container, code)]
    waiting = {"waiting": {"reason": "PodInitializing"}}
    states = [_container(one, waiting) for one in pod["spec"]["containers"]]
    conditions = _conditions(pod, ready=False, initialized=False)
    phase = "Failed" if final else "Pending"
    return {"phase": phase, "conditions": conditions, "initContainerStatuses": inits, "containerStatuses": states}


def _back_off(cluster: Cluster, pod: Object, container: Object, code: int) -> Object:
    where = f"{pod['metadata']['name']}_{pod['metadata']['namespace']}"
    text = f"back-off 5m0s restarting failed container={container['name']} pod={where}"
    cluster.event("Pod", pod, "BackOff", f"Back-off restarting failed container {container['name']} in pod {where}")
    status = _container(container, {"waiting": {"reason": "CrashLoopBackOff", "message": text}})
    last = _old_state(pod, container, "lastState", "terminated") or _terminated(pod, code)
    return {**status, "lastState": last, "restartCount": 5}


def _old_state(pod: Object, container: Object, field: str, kind: str) -> Object | None:
    """The state a container had, if it is of that kind: its times must not change with every look."""
    statuses = [*(pod["status"].get("containerStatuses") or []), *(pod["status"].get("initContainerStatuses") or [])]
    for one in statuses:
        if one["name"] == container["name"] and kind in one.get(field, {}):
            found: Object = one[field]
            return found
    return None


def _init_status(pod: Object, container: Object, ended: bool) -> Object:
    statuses: list[Object] = pod["status"].get("initContainerStatuses") or []
    old = next((one for one in statuses if one["name"] == container["name"]), None)
    stays = container.get("restartPolicy") == "Always" and not ended
    if old is not None and ("running" in old["state"]) is stays:
        return old
    state = {"running": {"startedAt": now()}} if stays else _terminated(pod, 0)
    return {**_container(container, state), "ready": True, "started": stays}


def _terminated(pod: Object, code: int) -> Object:
    reason = "Completed" if code == 0 else "Error"
    times = {"startedAt": pod["status"].get("startTime") or now(), "finishedAt": now()}
    return {"terminated": {"exitCode": code, "reason": reason, **times, "containerID": _ID}}


def _container(container: Object, state: Object) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": container["image"] if "@" in container["image"] else "",
        "containerID": "" if "waiting" in state else _ID,
        "ready": False,
        "started": False,
        "restartCount": 0,
        "state": state,
        "lastState": {},
    }


def _conditions(pod: Object, ready: bool, ended: bool = False, initialized: bool = True) -> list[Object]:
    reason, text = ("PodCompleted", "") if ended else ("ContainersNotReady", "containers with unready status")
    why = ("", "") if ready else (reason, text)
    started = ready or ended
    return [
        condition(pod, "PodReadyToStartContainers", started),
        condition(pod, "Initialized", initialized, "PodCompleted" if ended else ""),
        condition(pod, "Ready", ready, *why),
        condition(pod, "ContainersReady", ready, *why),
        condition(pod, "PodScheduled", True),
    ]
