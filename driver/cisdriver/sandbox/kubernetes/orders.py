"""Outcomes that a test orders: what would go wrong on a real cluster, or how containers would end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

_PODS = {"Pod", "Job", "Deployment", "ReplicaSet", "DaemonSet"}
#: Outcome to (kinds it is for; None: any, parameters and their defaults).
OUTCOMES: dict[str, tuple[set[str] | None, dict[str, Any]]] = {
    "unschedulable": (_PODS, {"message": ""}),
    "image_pull_fails": (_PODS, {"message": ""}),
    "crash_loop": (_PODS, {"log": "", "exit_code": 1, "container": ""}),
    "ends": (_PODS, {"log": "", "exit_code": 0, "container": ""}),
    "hangs": (_PODS, {"log": ""}),
    "logs": (_PODS, {"log": "", "container": ""}),
    "exec": (_PODS, {"stdout": "", "stderr": "", "exit_code": 0, "container": ""}),
    "pending": ({"PersistentVolumeClaim"}, {"message": "could not create volume in EC2"}),
    "no_metrics": ({"HorizontalPodAutoscaler"}, {}),
    "utilization": ({"HorizontalPodAutoscaler"}, {"value": 0}),
    "not_ready": ({"Node"}, {"message": "container runtime is down"}),
    "refused": (None, {"status": 500, "verb": "*", "times": 1, "retry_after": None}),
    "cut": (None, {"verb": "*", "times": 1}),
}
_STATUSES = {403, 429, 500, 503}
#: Outcomes of a pod that exclude each other; "logs" and "exec" go along with any.
FATES = ("unschedulable", "image_pull_fails", "crash_loop", "ends", "hangs")


@dataclass
class Order:
    """``outcome`` for the objects of ``kind`` whose name fits the fnmatch pattern ``name``; one with a slash is of
    namespace and name."""

    kind: str
    name: str
    outcome: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, parameter: str) -> Any:
        return self.parameters[parameter]

    def fits(self, kind: str, title: str) -> bool:
        """``title`` is ``namespace/name``."""
        name = title if "/" in self.name else title.rpartition("/")[2]
        return self.kind in ("*", kind) and fnmatchcase(name, self.name)


class Orders:
    """All orders; of several that fit, the newest counts."""

    def __init__(self) -> None:
        self._orders: list[Order] = []

    def add(self, kind: str, name: str, outcome: str, **parameters: Any) -> Order:
        """Raises ValueError for an outcome, a kind or a parameter that there is none of."""
        if outcome not in OUTCOMES:
            raise ValueError(f"no outcome {outcome!r}; there are {', '.join(OUTCOMES)}")
        kinds, known = OUTCOMES[outcome]
        if kinds is not None and kind not in kinds:
            raise ValueError(f"{outcome} is for {', '.join(sorted(kinds))}, not for {kind}")
        if unknown := set(parameters) - set(known):
            raise ValueError(f"{outcome} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(known)}")
        if parameters.get("status", 500) not in _STATUSES:
            raise ValueError(f"status {parameters['status']}: expected one of {sorted(_STATUSES)}")
        order = Order(kind, name, outcome, {**known, **parameters})
        self._orders.insert(0, order)
        return order

    def listed(self) -> list[dict[str, Any]]:
        return [asdict(order) for order in reversed(self._orders)]

    def find(self, titles: list[tuple[str, str]], *outcomes: str, container: str = "") -> Order | None:
        """The newest order with one of ``outcomes`` for any of (kind, ``namespace/name``)."""
        for order in self._orders:
            narrowed = order.parameters.get("container") or container
            if order.outcome in outcomes and container in ("", narrowed) and any(order.fits(*one) for one in titles):
                return order
        return None

    def take(self, kind: str, title: str, verb: str) -> Order | None:
        """The fault a request meets; counted down."""
        for order in self._orders:
            fault = order.outcome in ("refused", "cut") and order["times"] > 0 and order.fits(kind, title)
            if fault and fnmatchcase(verb, order["verb"]):
                order.parameters["times"] -= 1
                return order
        return None
