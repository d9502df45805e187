"""One cluster's API server in threads of this process."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from . import addons, controllers, nodes, tls
from .api import Api
from .cluster import Cluster, is_true, title
from .defaults import fill
from .nodes import NodeFacts
from .orders import Orders
from .store import Store

Object = dict[str, Any]
_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
#: Made by the cluster, not by its user.
_SYSTEM = {"kube-root-ca.crt", "default", "kubernetes", "gp2"}


class ApiServer:
    """The API of ``cluster`` (its name, which tokens carry) at Kubernetes ``version`` (``1.33``).

    ``journal`` becomes a file of JSON lines: ``{time, user, verb, path, kind, namespace, name, status, body, why}``;
    a status of 0 is a connection that was cut, 101 one that became a websocket. ``secret_key`` is that of every
    access key. ``url`` and ``ca_pem`` are there once it has started.
    """

    def __init__(self, cluster: str, version: str, region: str, journal: Path, secret_key: str = "testing") -> None:
        self.url = self.ca_pem = ""
        self._journal = journal
        self._cluster = Cluster(cluster, version, region, Store(cluster), Orders())
        self._api = Api(self._cluster, journal, self.control, secret_key)
        self._server: BaseWSGIServer | None = None
        _furnish(self._cluster)

    def start(self) -> None:
        context, self.ca_pem = tls.server_context(["localhost", "kubernetes.default.svc"])
        self._server = make_server("127.0.0.1", 0, self._api, threaded=True, request_handler=_Quiet)
        # Handshakes belong to the threads of their connections: one that does not come must not hold up the others.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._server.ssl_context = context
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop answering. Safe to call twice."""
        self._api.closed = True
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def join(self, facts: NodeFacts) -> None:
        """Add a node, or bring the one of that name up to date."""
        with self._cluster.store.lock:
            nodes.join(self._cluster, facts)
            controllers.settle(self._cluster)

    def leave(self, name: str) -> None:
        """Remove a node; its pods go with it. One that is not there is as good as gone."""
        with self._cluster.store.lock:
            node = self._cluster.store.get("Node", "", name)
            if node is not None:
                self._cluster.store.remove("Node", node)
                controllers.settle(self._cluster)

    def ready_nodes(self, group: str) -> list[str]:
        """Names of the Ready nodes of a node group."""
        with self._cluster.store.lock:
            found = [node for node in self._cluster.store.all("Node") if is_true(node, "Ready")]
        label = "eks.amazonaws.com/nodegroup"
        return [one["metadata"]["name"] for one in found if one["metadata"]["labels"].get(label) == group]

    def add_on(self, name: str) -> None:
        """Install what an EKS add-on brings. Raises ValueError for one that is not known."""
        with self._cluster.store.lock:
            addons.add(self._cluster, name)
            controllers.settle(self._cluster)

    def remove_add_on(self, name: str) -> None:
        """Raises ValueError for an add-on that is not known."""
        with self._cluster.store.lock:
            addons.remove(self._cluster, name)
            controllers.settle(self._cluster)

    def add_on_ready(self, name: str) -> bool:
        """Whether all pods of an add-on are up."""
        with self._cluster.store.lock:
            return addons.is_ready(self._cluster, name)

    def order(self, kind: str, name: str, outcome: str, **parameters: Any) -> None:
        """Make the objects of ``kind`` whose name fits the fnmatch pattern ``name`` go as ``orders.OUTCOMES`` says.

        A pattern with a slash is of namespace and name.
        Raises ValueError for what there is not.
        """
        with self._cluster.store.lock:
            self._cluster.orders.add(kind, name, outcome, **parameters)
            controllers.settle(self._cluster)

    def requests(self, verb: str | None = None, kind: str | None = None) -> list[Object]:
        """The journal's lines, oldest first."""
        lines = self._journal.read_text(encoding="utf-8").splitlines() if self._journal.exists() else []
        found = [json.loads(line) for line in lines]
        return [one for one in found if verb in (None, one["verb"]) and kind in (None, one["kind"])]

    def objects(self) -> list[str]:
        """What users have made and is still there, as ``Kind namespace/name``; a finished run leaves nothing."""
        with self._cluster.store.lock:
            return [
                f"{kind} {title(one).lstrip('/')}"
                for kind, one in self._cluster.store.everything()
                if _is_users(kind, one)
            ]

    def control(self, what: str, body: Any = None) -> Any:
        """What is asked beside Kubernetes' own API: ``orders`` (with a body: one more), ``requests``, ``objects``.

        Raises ValueError for anything else.
        """
        if what == "orders" and body is not None:
            if not isinstance(body, dict) or not {"kind", "name", "outcome"} <= set(body):
                raise ValueError("an order is an object with kind, name, outcome and the outcome's parameters")
            self.order(**body)
        if what == "orders":
            return self._cluster.orders.listed()
        if what == "requests":
            return self.requests()
        if what == "objects":
            return self.objects()
        raise ValueError(f"the API server's sandbox answers orders, requests and objects, not {what}")


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """The journal has every request."""

    def connection_dropped(self, *_: Any) -> None:
        # No answer has said that this connection ends here.
        self.close_connection = True


def _is_users(kind: str, one: Object) -> bool:
    name, namespace = one["metadata"]["name"], one["metadata"].get("namespace", "")
    system = kind in ("Node", "Event", "CSIDriver") or (kind == "Namespace" and name in _NAMESPACES)
    return not system and namespace != "kube-system" and name not in _SYSTEM


def _furnish(cluster: Cluster) -> None:
    """What a new EKS cluster has: namespaces, the Service of its API, the class gp2 (the default one until 1.29)."""
    for name in _NAMESPACES:
        _save(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    port = {"name": "https", "port": 443, "targetPort": 443}
    spec = {"clusterIP": "172.20.0.1", "clusterIPs": ["172.20.0.1"], "ports": [port]}
    meta = {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver"}}
    _save(cluster, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    default = int(cluster.version.partition(".")[2]) < 30
    marked = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}} if default else {}
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "gp2", **marked}}
    storage |= {"provisioner": "kubernetes.io/aws-ebs", "volumeBindingMode": "WaitForFirstConsumer"}
    _save(cluster, storage | {"parameters": {"type": "gp2", "fsType": "ext4"}})
    controllers.settle(cluster)


def _save(cluster: Cluster, one: Object) -> None:
    fill(one["kind"], one)
    cluster.store.save(one["kind"], one)
