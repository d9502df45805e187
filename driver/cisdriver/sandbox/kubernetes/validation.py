"""What fits the types and is refused all the same (pkg/apis/*/validation): 422, with the server's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from . import selectors
from .errors import invalid
from .kinds import Kind

Object = dict[str, Any]
Problems = Iterator[tuple[str, str]]
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
#: Kinds whose names are a DNS label; the others' are a subdomain.
_LABEL_NAMES = {"Namespace", "Service"}
#: Kinds with names of any characters a path takes.
_PATH_NAMES = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
_RFC1123 = "a lowercase RFC 1123 {} must consist of lower case alphanumeric characters, '-'{}, and must start and end"


def check(kind: Kind, one: Object, before: Object | None) -> None:
    """Raises ApiError 422 with all that is wrong with an object, defaults filled in, or with its update."""
    problems = [*_metadata(kind, one)]
    if kind.kind in _CHECKS:
        problems += _CHECKS[kind.kind](one)
    if before is not None:
        problems += _immutable(kind, before, one)
    if problems:
        raise invalid(kind, one["metadata"].get("name", ""), problems)


def _metadata(kind: Kind, one: Object) -> Problems:
    name = one["metadata"].get("name", "")
    if not name:
        yield "metadata.name", "Required value: name or generateName is required"
    elif kind.kind in _LABEL_NAMES and not (_LABEL.match(name) and len(name) <= 63):
        yield "metadata.name", f'Invalid value: "{name}": {_RFC1123.format("label", "")} with an alphanumeric character'
    elif kind.kind not in _PATH_NAMES and not (_SUBDOMAIN.match(name) and len(name) <= 253):
        words = _RFC1123.format("subdomain", " or '.'")
        yield "metadata.name", f'Invalid value: "{name}": {words} with an alphanumeric character'
    yield from _labels("metadata.labels", one["metadata"].get("labels"))


def _labels(path: str, labels: dict[str, str] | None) -> Problems:
    for value in (labels or {}).values():
        if len(value) > 63 or not _LABEL_VALUE.match(value):
            words = "must be no more than 63 characters" if len(value) > 63 else "a valid label must be an empty string"
            yield path, f"Invalid value: \"{value}\": {words} or consist of alphanumeric characters, '-', '_' or '.'"


def _pod(one: Object) -> Problems:
    return _pod_spec(one["spec"], "spec")


def _pod_spec(spec: Object, path: str, policies: tuple[str, ...] = ("Always", "OnFailure", "Never")) -> Problems:
    if not spec.get("containers"):
        yield f"{path}.containers", "Required value"
    if spec["restartPolicy"] not in policies:
        yield f"{path}.restartPolicy", _unsupported(spec["restartPolicy"], policies)
    volumes = [one["name"] for one in spec.get("volumes", [])]
    for name in sorted({name for name in volumes if volumes.count(name) > 1}):
        yield f"{path}.volumes[{volumes.index(name)}].name", f'Duplicate value: "{name}"'
    for number, volume in enumerate(spec.get("volumes", [])):
        for source, key in (("configMap", "name"), ("secret", "secretName")):
            if source in volume and not volume[source].get(key):
                yield f"{path}.volumes[{number}].{source}.{key}", "Required value"
    seen: set[str] = set()
    for field in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(field, [])):
            here = f"{path}.{field}[{number}]"
            yield from _container(container, here, volumes)
            if container["name"] in seen:
                yield f"{here}.name", f'Duplicate value: "{container["name"]}"'
            seen.add(container["name"])


def _container(one: Object, path: str, volumes: list[str]) -> Problems:
    if not _LABEL.match(one["name"]):
        yield f"{path}.name", f'Invalid value: "{one["name"]}": {_RFC1123.format("label", "")}'
    if not one.get("image"):
        yield f"{path}.image", "Required value"
    policies = ("Always", "IfNotPresent", "Never")
    if one["imagePullPolicy"] not in policies:
        yield f"{path}.imagePullPolicy", _unsupported(one["imagePullPolicy"], policies)
    for number, mount in enumerate(one.get("volumeMounts", [])):
        if mount["name"] not in volumes:
            yield f"{path}.volumeMounts[{number}].name", f'Not found: "{mount["name"]}"'
    for number, port in enumerate(one.get("ports", [])):
        yield from _port(port["containerPort"], f"{path}.ports[{number}].containerPort")


def _port(number: int, path: str) -> Problems:
    if not 0 < number < 65536:
        yield path, f"Invalid value: {number}: must be between 1 and 65535, inclusive"


def _unsupported(value: str, allowed: tuple[str, ...]) -> str:
    listed = ", ".join(f'"{one}"' for one in allowed)
    return f'Unsupported value: "{value}": supported values: {listed}'


def _selects_template(one: Object) -> Problems:
    selector, template = one["spec"].get("selector"), one["spec"]["template"]
    labels = template["metadata"].get("labels") or {}
    if selector is not None and not (selector.get("matchLabels") or selector.get("matchExpressions")):
        yield "spec.selector", f"Invalid value: {{}}: empty selector is invalid for {one['kind'].lower()}"
    elif not selectors.by_selector(selector, labels):
        yield "spec.template.metadata.labels", f"Invalid value: {labels}: `selector` does not match template `labels`"
    yield from _labels("spec.template.labels", labels)
    yield from _pod_spec(template["spec"], "spec.template.spec", ("Always",))


def _job(one: Object) -> Problems:
    spec = one["spec"]["template"]["spec"]
    if spec["restartPolicy"] == "Always":
        words = 'Required value: valid values: "OnFailure", "Never"'
        yield "spec.template.spec.restartPolicy", words
    else:
        yield from _pod_spec(spec, "spec.template.spec")


def _service(one: Object) -> Problems:
    spec = one["spec"]
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec["type"] not in kinds:
        yield "spec.type", _unsupported(spec["type"], kinds)
    ports = spec.get("ports", [])
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        yield "spec.ports", "Required value"
    for number, port in enumerate(ports):
        yield from _port(port["port"], f"spec.ports[{number}].port")
        if len(ports) > 1 and not port.get("name"):
            yield f"spec.ports[{number}].name", "Required value"
        wanted = port.get("nodePort")
        if wanted and not 30000 <= wanted <= 32767:
            words = f"Invalid value: {wanted}: provided port is not in the valid range. The range of valid ports is"
            yield f"spec.ports[{number}].nodePort", f"{words} 30000-32767"


def _claim(one: Object) -> Problems:
    if not one["spec"].get("accessModes"):
        yield "spec.accessModes", "Required value: at least 1 access mode is required"
    if not one["spec"].get("resources", {}).get("requests", {}).get("storage"):
        yield "spec.resources[storage]", "Required value"


def _budget(one: Object) -> Problems:
    spec = one.get("spec", {})
    if "minAvailable" in spec and "maxUnavailable" in spec:
        yield "spec", "Invalid value: minAvailable and maxUnavailable cannot be both set"


def _immutable(kind: Kind, before: Object, after: Object) -> Problems:
    for field in _FIXED.get(kind.kind, ()):
        old, new = before.get("spec", {}).get(field), after.get("spec", {}).get(field)
        if old is not None and old != new:
            yield f"spec.{field}", "Invalid value: field is immutable"
    if kind.kind == "Pod" and _frozen(before["spec"]) != _frozen(after["spec"]):
        fields = (
            "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations`"
        )
        yield "spec", f"Forbidden: pod updates may not change fields other than {fields} (only additions to existing)"


def _frozen(spec: Object) -> Object:
    """What of a pod cannot be changed."""
    kept = {key: value for key, value in spec.items() if key not in ("tolerations", "activeDeadlineSeconds")}
    for field in ("containers", "initContainers"):
        kept[field] = [{**one, "image": ""} for one in spec.get(field, [])]
    return kept


_FIXED = {
    "Deployment": ("selector",),
    "ReplicaSet": ("selector",),
    "DaemonSet": ("selector",),
    "Job": ("selector", "template", "completionMode"),
    "Service": ("clusterIP",),
    "PersistentVolumeClaim": ("storageClassName", "accessModes", "volumeName", "volumeMode"),
}
_CHECKS: dict[str, Callable[[Object], Problems]] = {
    "Pod": _pod,
    "Deployment": _selects_template,
    "ReplicaSet": _selects_template,
    "DaemonSet": _selects_template,
    "Job": _job,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "PodDisruptionBudget": _budget,
}
