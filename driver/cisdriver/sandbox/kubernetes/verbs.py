"""Create, read, change and delete: the generic half of the API server."""

from __future__ import annotations

import copy
from typing import Any

from . import defaults, errors, models, patches, selectors, validation
from .admission import admit
from .cluster import Cluster
from .errors import ApiError
from .kinds import KINDS, Kind
from .requests import Request
from .store import now

Object = dict[str, Any]
Answer = tuple[int, Object]
#: Kinds whose deletion is answered with the object, as those that do not end at once.
_GRACEFUL = {"Pod", "Namespace", "PersistentVolumeClaim"}
_PROTECTED = {"default", "kube-system", "kube-public"}


def get(cluster: Cluster, request: Request, kind: Kind) -> Answer:
    return 200, find(cluster, kind, request.namespace, request.name)


def find(cluster: Cluster, kind: Kind, namespace: str, name: str) -> Object:
    """Raises ApiError 404."""
    found = cluster.store.get(kind.kind, namespace, name)
    if found is None:
        raise errors.not_found(kind, name)
    return found


def list_(cluster: Cluster, request: Request, kind: Kind) -> Answer:
    items = [
        {key: value for key, value in one.items() if key not in ("kind", "apiVersion")}
        for one in select(cluster, request, kind)
    ]
    meta = {"resourceVersion": str(cluster.store.version)}
    return 200, {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta, "items": items}


def select(cluster: Cluster, request: Request, kind: Kind) -> list[Object]:
    """The objects of a collection that the request's selectors fit."""
    read = read_selectors(request, kind)
    return [one for one in cluster.store.all(kind.kind, request.namespace) if selectors.fits(one, *read)]


def read_selectors(request: Request, kind: Kind) -> tuple[list[Object], list[Object]]:
    """The request's selectors of labels and of fields. Raises ApiError 400."""
    fields = selectors.read_fields(kind, request.query.get("fieldSelector", ""))
    return selectors.read_labels(request.query.get("labelSelector", "")), fields


def create(cluster: Cluster, request: Request, kind: Kind) -> Answer:
    one = _read(kind, request, request.body)
    meta = one["metadata"]
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = meta["generateName"] + cluster.store.suffix()
    _check_namespace(cluster, request, kind, meta.get("name", ""))
    if meta.get("name") and cluster.store.get(kind.kind, request.namespace, meta["name"]):
        raise errors.exists(kind, meta["name"])
    for key in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "selfLink", "managedFields"):
        meta.pop(key, None)
    if kind.has("status"):
        one.pop("status", None)
        meta["generation"] = 1
    defaults.fill(kind.kind, one)
    validation.check(kind, one, None)
    refusal = admit(cluster, kind.kind, one)
    if refusal:
        raise errors.forbidden(kind, meta["name"], refusal)
    if request.dry_run:
        return 201, one | {"metadata": {"uid": cluster.store.uid(), "creationTimestamp": now(), **meta}}
    return 201, cluster.store.save(kind.kind, one)


def update(cluster: Cluster, request: Request, kind: Kind) -> Answer:
    before = find(cluster, kind, request.namespace, request.name)
    return 200, _put(cluster, request, kind, before, _read(kind, request, request.body))


def patch(cluster: Cluster, request: Request, kind: Kind) -> Answer:
    applied = request.content_type == patches.APPLY
    before = cluster.store.get(kind.kind, request.namespace, request.name)
    if applied and not request.query.get("fieldManager"):
        raise ApiError(
            422, "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
        )
    if before is None and applied:
        code, one = create(cluster, request, kind)
        return code, _remember(cluster, request, one)
    before = find(cluster, kind, request.namespace, request.name)
    base = before
    if applied:
        last = cluster.applied.get((before["metadata"]["uid"], request.query["fieldManager"]), {})
        base = patches.without(before, last, request.body)
    after = patches.patched(request.content_type, base, request.body)
    one = _put(cluster, request, kind, before, _read(kind, request, after))
    return 200, _remember(cluster, request, one) if applied else one


def delete(cluster: Cluster, request: Request, kind: Kind) -> Answer:
    one = find(cluster, kind, request.namespace, request.name)
    options = request.body if isinstance(request.body, dict) else {}
    wanted = (options.get("preconditions") or {}).get("uid")
    if wanted and wanted != one["metadata"]["uid"]:
        why = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {one['metadata']['uid']}"
        raise errors.conflict(kind, request.name, why)
    if kind.kind == "Namespace" and request.name in _PROTECTED:
        raise errors.forbidden(kind, request.name, "this namespace may not be deleted")
    gone = one if request.dry_run else end(cluster, kind, one, _policy(request, options))
    if kind.kind in _GRACEFUL or gone["metadata"].get("finalizers"):
        return 200, gone
    details = {"name": request.name, "kind": kind.plural, "uid": one["metadata"]["uid"]}
    details |= {"group": kind.group} if kind.group else {}
    return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def delete_collection(cluster: Cluster, request: Request, kind: Kind) -> Answer:
    answer = list_(cluster, request, kind)
    options = request.body if isinstance(request.body, dict) else {}
    for one in [] if request.dry_run else select(cluster, request, kind):
        end(cluster, kind, one, _policy(request, options))
    return answer


def end(cluster: Cluster, kind: Kind, one: Object, policy: str = "Background") -> Object:
    """Delete an object, or mark it where finalizers hold it; what it owns goes too, or is orphaned."""
    meta = {**one["metadata"], "deletionTimestamp": one["metadata"].get("deletionTimestamp") or now()}
    if kind.kind == "Pod":
        meta["deletionGracePeriodSeconds"] = one["spec"].get("terminationGracePeriodSeconds", 30)
    gone = {**one, "metadata": meta}
    if kind.kind == "Namespace":
        gone["status"] = {"phase": "Terminating"}
        return cluster.store.save(kind.kind, gone)
    if policy == "Orphan":
        _orphan(cluster, one)
    if meta.get("finalizers"):
        return cluster.store.save(kind.kind, gone)
    cluster.store.remove(kind.kind, one)
    return gone


def status(cluster: Cluster, request: Request, kind: Kind) -> Answer:
    """The subresource ``status``: all but the status is left alone. ``finalize`` is served as a read."""
    before = find(cluster, kind, request.namespace, request.name)
    if request.verb == "get":
        return 200, before
    body = request.body
    if request.verb == "patch":
        body = patches.patched(request.content_type, before, body)
    after = _read(kind, request, body)
    one = {**before, "status": after.get("status", {})}
    return 200, one if request.dry_run else cluster.store.save(kind.kind, one)


def scale(cluster: Cluster, request: Request, kind: Kind) -> Answer:
    before = find(cluster, kind, request.namespace, request.name)
    shown = _scale_of(before)
    if request.verb == "get":
        return 200, shown
    body = patches.patched(request.content_type, shown, request.body) if request.verb == "patch" else request.body
    wanted = models.check_model("V1Scale", body, kind).get("spec", {}).get("replicas", 0)
    meta = {**before["metadata"], "generation": before["metadata"].get("generation", 1) + 1}
    after = {**before, "metadata": meta, "spec": {**before["spec"], "replicas": wanted}}
    return 200, _scale_of(after if request.dry_run else cluster.store.save(kind.kind, after))


def _scale_of(one: Object) -> Object:
    labels = one["spec"]["selector"].get("matchLabels") or {}
    meta = {key: one["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")}
    shown = {"replicas": one.get("status", {}).get("replicas", 0)}
    shown["selector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    made = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta}
    return made | {"spec": {"replicas": one["spec"]["replicas"]}, "status": shown}


def _read(kind: Kind, request: Request, body: Any) -> Object:
    """A body of the kind the path says. Raises ApiError 400 or 422."""
    if not isinstance(body, dict):
        raise ApiError(400, f"the request's body is not an object of kind {kind.kind}")
    # A body that does not say what it is is taken for what the path says.
    body = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
    found = (body["apiVersion"], body["kind"])
    if found != (kind.api_version, kind.kind):
        words = f"the API version or kind in the data ({found[0]}, {found[1]}) does not match the expected ones"
        raise ApiError(400, f"{words} ({kind.api_version}, {kind.kind})")
    one: Object = models.check(kind, copy.deepcopy(body))
    meta = one.setdefault("metadata", {})
    if kind.namespaced and meta.setdefault("namespace", request.namespace) != request.namespace:
        raise ApiError(400, "the namespace of the provided object does not match the namespace sent on the request")
    return one


def _put(cluster: Cluster, request: Request, kind: Kind, before: Object, after: Object) -> Object:
    meta, old = after["metadata"], before["metadata"]
    if meta.setdefault("name", request.name) != request.name:
        text = f"the name of the object ({meta['name']}) does not match the name on the URL ({request.name})"
        raise ApiError(400, text)
    for key, found in (("resourceVersion", old["resourceVersion"]), ("uid", old["uid"])):
        if meta.get(key) not in (None, "", found):
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise errors.conflict(kind, request.name, why)
    for key in ("uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"):
        meta.pop(key, None)
        meta |= {key: old[key]} if key in old else {}
    if kind.has("status"):
        after["status"] = before.get("status", {})
    _keep_allocated(kind, before, after)
    defaults.fill(kind.kind, after)
    validation.check(kind, after, before)
    if "generation" in old and after.get("spec") != before.get("spec"):
        meta["generation"] = old["generation"] + 1
    if request.dry_run:
        return after
    if "deletionTimestamp" in meta and not meta.get("finalizers"):
        cluster.store.remove(kind.kind, before)
        return after
    return cluster.store.save(kind.kind, after)


def _keep_allocated(kind: Kind, before: Object, after: Object) -> None:
    """What was given on creation stays where a replacement is silent."""
    fields = {
        "Service": ("clusterIP", "clusterIPs"),
        "Job": ("selector",),
        "PersistentVolumeClaim": ("volumeName", "storageClassName"),
    }
    for name in fields.get(kind.kind, ()):
        if name in before["spec"] and after["spec"].get(name) in (None, ""):
            after["spec"][name] = before["spec"][name]
    if kind.kind == "Service":
        given = {port["port"]: port["nodePort"] for port in before["spec"].get("ports", []) if "nodePort" in port}
        for port in after["spec"].get("ports", []):
            if port["port"] in given:
                port.setdefault("nodePort", given[port["port"]])


def _remember(cluster: Cluster, request: Request, one: Object) -> Object:
    if not request.dry_run:
        cluster.applied[(one["metadata"]["uid"], request.query["fieldManager"])] = copy.deepcopy(request.body)
    return one


def _check_namespace(cluster: Cluster, request: Request, kind: Kind, name: str) -> None:
    if not kind.namespaced:
        return
    found = cluster.store.get("Namespace", "", request.namespace)
    if found is None:
        raise errors.not_found(KINDS["Namespace"], request.namespace)
    if "deletionTimestamp" in found["metadata"]:
        text = f"namespace {request.namespace} is being terminated"
        causes = [{"reason": "NamespaceTerminating", "message": text, "field": "metadata.namespace"}]
        why = f"unable to create new content in namespace {request.namespace} because it is being terminated"
        raise errors.forbidden(kind, name, why, causes)


def _policy(request: Request, options: Object) -> str:
    orphan = request.query.get("orphanDependents") == "true" or options.get("orphanDependents")
    policy = request.query.get("propagationPolicy") or options.get("propagationPolicy")
    policy = policy or ("Orphan" if orphan else "Background")
    if policy not in ("Background", "Foreground", "Orphan"):
        supported = '"Background", "Foreground", "Orphan"'
        text = f'propagationPolicy: Unsupported value: "{policy}": supported values: {supported}'
        raise ApiError(422, f"DeleteOptions.meta.k8s.io is invalid: {text}")
    return str(policy)


def _orphan(cluster: Cluster, owner: Object) -> None:
    uid = owner["metadata"]["uid"]
    for kind, one in list(cluster.store.everything()):
        references = one["metadata"].get("ownerReferences") or []
        kept = [found for found in references if found["uid"] != uid]
        if len(kept) != len(references):
            meta = {key: value for key, value in one["metadata"].items() if key != "ownerReferences"}
            cluster.store.save(kind, {**one, "metadata": meta | ({"ownerReferences": kept} if kept else {})})
