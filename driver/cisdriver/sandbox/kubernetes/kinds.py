"""The kinds that are served: one row each. What has no row is not found, as on a cluster without it."""

from __future__ import annotations

from dataclasses import dataclass

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True)
class Kind:
    """A resource of the API. ``model`` names its class in the official client's models; none: computed, read alone."""

    kind: str
    plural: str
    group: str
    version: str
    model: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    #: Name of the subresource to (kind, its verbs).
    subresources: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As errors call it: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def has(self, subresource: str) -> bool:
        return any(name == subresource for name, _, _ in self.subresources)


def _subs(kind: str, *names: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    of = {
        "status": (kind, ("get", "patch", "update")),
        "scale": ("Scale", ("get", "patch", "update")),
        "finalize": (kind, ("update",)),
        "log": (kind, ("get",)),
        "exec": ("PodExecOptions", ("create", "get")),
        "eviction": ("Eviction", ("create",)),
    }
    return tuple((name, *of[name]) for name in names)


def _kind(
    kind: str, plural: str, api: str = "v1", short: str = "", subs: str = "", scope: str = "namespace", model: str = ""
) -> Kind:
    group, _, version = api.rpartition("/")
    return Kind(
        kind,
        plural,
        group,
        version,
        model or version.capitalize() + kind,
        scope == "namespace",
        tuple(short.split()),
        _subs(kind, *subs.split()),
    )


_ALL = [
    _kind("Namespace", "namespaces", short="ns", subs="status finalize", scope="cluster"),
    _kind("Node", "nodes", short="no", subs="status", scope="cluster"),
    _kind("Pod", "pods", short="po", subs="status log exec eviction"),
    _kind("Service", "services", short="svc", subs="status"),
    _kind("ServiceAccount", "serviceaccounts", short="sa"),
    _kind("ConfigMap", "configmaps", short="cm"),
    _kind("Secret", "secrets"),
    _kind("Event", "events", short="ev", model="CoreV1Event"),
    _kind("PersistentVolumeClaim", "persistentvolumeclaims", short="pvc", subs="status"),
    _kind("PersistentVolume", "persistentvolumes", short="pv", subs="status", scope="cluster"),
    _kind("Deployment", "deployments", "apps/v1", "deploy", "status scale"),
    _kind("ReplicaSet", "replicasets", "apps/v1", "rs", "status scale"),
    _kind("DaemonSet", "daemonsets", "apps/v1", "ds", "status"),
    _kind("Job", "jobs", "batch/v1", subs="status"),
    _kind("HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling/v2", "hpa", "status"),
    _kind("PodDisruptionBudget", "poddisruptionbudgets", "policy/v1", "pdb", "status"),
    _kind("NetworkPolicy", "networkpolicies", "networking.k8s.io/v1", "netpol"),
    _kind("EndpointSlice", "endpointslices", "discovery.k8s.io/v1"),
    _kind("StorageClass", "storageclasses", "storage.k8s.io/v1", "sc", scope="cluster"),
    _kind("CSIDriver", "csidrivers", "storage.k8s.io/v1", scope="cluster"),
    _kind("Role", "roles", "rbac.authorization.k8s.io/v1"),
    _kind("RoleBinding", "rolebindings", "rbac.authorization.k8s.io/v1"),
    _kind("ClusterRole", "clusterroles", "rbac.authorization.k8s.io/v1", scope="cluster"),
    _kind("ClusterRoleBinding", "clusterrolebindings", "rbac.authorization.k8s.io/v1", scope="cluster"),
]
KINDS = {one.kind: one for one in _ALL}
#: What metrics-server serves, when it is there.
METRICS_GROUP = "metrics.k8s.io"
METRICS = {
    "nodes": Kind("NodeMetrics", "nodes", METRICS_GROUP, "v1beta1", "", namespaced=False),
    "pods": Kind("PodMetrics", "pods", METRICS_GROUP, "v1beta1", ""),
}


def find(group: str, version: str, plural: str) -> Kind | None:
    if group == METRICS_GROUP:
        return METRICS.get(plural) if version == "v1beta1" else None
    wanted = (group, version, plural)
    return next((one for one in _ALL if (one.group, one.version, one.plural) == wanted), None)


def group_list(metrics: bool) -> dict[str, object]:
    groups = {one.group: one.version for one in _ALL if one.group}
    if metrics:
        groups[METRICS_GROUP] = "v1beta1"
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(*one) for one in groups.items()]}


def group(name: str, version: str) -> dict[str, object]:
    one = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [one], "preferredVersion": one}


def resource_list(group: str, version: str) -> dict[str, object] | None:
    """``APIResourceList`` of a group and version; None if there is none."""
    members = [*_ALL, *METRICS.values()]
    rows = [row for one in members if (one.group, one.version) == (group, version) for row in _rows(one)]
    if not rows:
        return None
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": rows}


def _rows(one: Kind) -> list[dict[str, object]]:
    row: dict[str, object] = {
        "name": one.plural,
        "singularName": one.kind.lower(),
        "namespaced": one.namespaced,
        "kind": one.kind,
        "verbs": _VERBS if one.model else ["get", "list"],
    }
    if one.short_names:
        row["shortNames"] = list(one.short_names)
    foreign = {"Scale": ("autoscaling", "v1"), "Eviction": ("policy", "v1")}
    rows = [row]
    for name, kind, verbs in one.subresources:
        sub: dict[str, object] = {
            "name": f"{one.plural}/{name}",
            "singularName": "",
            "namespaced": one.namespaced,
            "kind": kind,
            "verbs": list(verbs),
        }
        if kind in foreign:
            sub["group"], sub["version"] = foreign[kind]
        rows.append(sub)
    return rows
