"""What controllers share: the store, the orders, the cluster's facts, and small ways to speak of objects."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from .orders import FATES, Order, Orders
from .store import Store, now

Object = dict[str, Any]


@dataclass
class Cluster:
    name: str
    version: str
    region: str
    store: Store
    orders: Orders = field(default_factory=Orders)
    addresses: int = 0
    #: What each field manager applied last: (uid, manager) to the manifest.
    applied: dict[tuple[str, str], Object] = field(default_factory=dict)

    def address(self, network: str) -> str:
        """The next address of a /16 given by its first two numbers."""
        self.addresses += 1
        return f"{network}.{self.addresses // 254 % 254}.{self.addresses % 254 + 1}"

    def titles(self, pod: Object) -> list[tuple[str, str]]:
        """A pod's and its owners' kind and title, the pod first."""
        found = [("Pod", title(pod))]
        one: Object | None = pod
        while one is not None and one["metadata"].get("ownerReferences"):
            owner, namespace = one["metadata"]["ownerReferences"][0], pod["metadata"]["namespace"]
            found.append((owner["kind"], f"{namespace}/{owner['name']}"))
            one = self.store.get(owner["kind"], namespace, owner["name"])
        return found

    def fate(self, pod: Object) -> Order | None:
        """How a pod is ordered to go."""
        return self.orders.find(self.titles(pod), *FATES)

    def event(self, kind: str, one: Object, reason: str, message: str, warning: bool = True, source: str = "") -> None:
        """Record an event once: said again it would be news for every look at the cluster."""
        meta = one["metadata"]
        key = hashlib.sha256(f"{meta['uid']}{reason}{message}".encode()).hexdigest()[:16]
        namespace, name = meta.get("namespace", "default"), f"{meta['name']}.{key}"
        if self.store.get("Event", namespace, name):
            return
        involved = {"kind": kind, "name": meta["name"], "uid": meta["uid"], "apiVersion": one["apiVersion"]}
        if "namespace" in meta:
            involved["namespace"] = namespace
        self.store.save(
            "Event",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "type": "Warning" if warning else "Normal",
                "count": 1,
                "firstTimestamp": now(),
                "lastTimestamp": now(),
                "source": {"component": source or "kubelet"},
                "reportingComponent": source or "kubelet",
                "reportingInstance": "",
            },
        )


def title(one: Object) -> str:
    """``namespace/name``, with nothing before the slash where there is no namespace."""
    return f"{one['metadata'].get('namespace', '')}/{one['metadata']['name']}"


def controlled(owner: Object, name: str, **metadata: Any) -> Object:
    """The metadata of what a controller makes for ``owner``."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    meta = {"name": name, "namespace": owner["metadata"]["namespace"], "ownerReferences": [reference]}
    return meta | metadata


def fingerprint(value: Any) -> str:
    """Ten letters that change with the value, as in pod-template-hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def with_status(one: Object, status: Object) -> Object:
    return {**one, "status": {**copy.deepcopy(one.get("status") or {}), **status}}


def condition(before: Object, kind: str, status: bool | str, reason: str = "", message: str = "") -> Object:
    """A condition, with the time of its last change kept. ``before`` is the object that has or had it."""
    text = status if isinstance(status, str) else str(status)
    old = find_condition(before, kind)
    same = old is not None and old["status"] == text
    since = old["lastTransitionTime"] if old is not None and same else now()
    made = {"type": kind, "status": text, "lastTransitionTime": since}
    return made | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})


def find_condition(one: Object, kind: str) -> Object | None:
    conditions = (one.get("status") or {}).get("conditions") or []
    return next((found for found in conditions if found["type"] == kind), None)


def is_true(one: Object, kind: str) -> bool:
    found = find_condition(one, kind)
    return found is not None and found["status"] == "True"


def is_active(pod: Object) -> bool:
    """Neither ended nor on its way out."""
    ended = pod["status"].get("phase") in ("Succeeded", "Failed")
    return not ended and "deletionTimestamp" not in pod["metadata"]


def share(value: int | str, total: int, up: bool) -> int:
    """An int-or-percent of a number, rounded as the field wants it."""
    if isinstance(value, int):
        return value
    exact = int(value.rstrip("%")) * total
    return -(-exact // 100) if up else exact // 100
