"""What the API server remembers: objects by kind, namespace and name, and what happened to them, for watches."""

from __future__ import annotations

import copy
import random
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
#: Watches start no earlier than this many changes ago; older ones get 410, as from etcd after a compaction.
_HISTORY = 5000


@dataclass(frozen=True)
class Change:
    """One change: ``type`` is ADDED, MODIFIED or DELETED."""

    version: int
    type: str
    kind: str
    object: Object


class Store:
    """Objects as the API shows them. Hold ``lock`` around what belongs together; objects out of it are not to be
    changed in place but copied, changed and put back by ``save``."""

    def __init__(self, seed: str) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.version = 0
        self.changes: list[Change] = []
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._random = random.Random(seed)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._objects.get(kind, {}).get((namespace, name))

    def all(self, kind: str, namespace: str = "") -> list[Object]:
        """Objects of a kind, of one namespace or of all, by namespace and name."""
        found = self._objects.get(kind, {})
        return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    def everything(self) -> Iterator[tuple[str, Object]]:
        for kind in list(self._objects):
            for one in self.all(kind):
                yield kind, one

    def owned(self, kind: str, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        namespace = owner["metadata"].get("namespace", "")
        return [one for one in self.all(kind, namespace) if uid in owners(one)]

    def save(self, kind: str, one: Object) -> Object:
        """Put an object in its place; says nothing and changes nothing if it is as before."""
        # A copy: callers pass what shares parts with the object before.
        meta = {**one["metadata"]}
        one = {**one, "metadata": meta}
        key = (meta.get("namespace", ""), meta["name"])
        place = self._objects.setdefault(kind, {})
        before = place.get(key)
        if before is not None and _same(before, one):
            return before
        if before is None:
            meta.setdefault("uid", self.uid())
            meta.setdefault("creationTimestamp", now())
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        place[key] = one
        self._note("ADDED" if before is None else "MODIFIED", kind, one)
        return one

    def remove(self, kind: str, one: Object) -> None:
        meta = one["metadata"]
        gone = self._objects.get(kind, {}).pop((meta.get("namespace", ""), meta["name"]), None)
        if gone is not None:
            self.version += 1
            last = copy.deepcopy(gone)
            last["metadata"]["resourceVersion"] = str(self.version)
            self._note("DELETED", kind, last)

    def suffix(self, length: int = 5) -> str:
        """As generateName's: the same for the same cluster and order of calls."""
        return "".join(self._random.choice(_ALPHABET) for _ in range(length))

    def uid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _note(self, what: str, kind: str, one: Object) -> None:
        with self.lock:
            self.changes.append(Change(self.version, what, kind, one))
            del self.changes[:-_HISTORY]
            self.lock.notify_all()


def owners(one: Object) -> set[str]:
    """The uids of an object's owners."""
    return {owner["uid"] for owner in one["metadata"].get("ownerReferences") or []}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def since(timestamp: str) -> float:
    """Seconds since a timestamp of the API."""
    return (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()


def _same(before: Object, after: Object) -> bool:
    left, right = ({**one, "metadata": {**one["metadata"], "resourceVersion": ""}} for one in (before, after))
    return left == right
