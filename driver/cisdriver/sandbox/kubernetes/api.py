"""The WSGI application: who asks, what for, the answer, and a line in the journal for each request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from . import controllers, kinds, pods, policies, requests, selectors, tokens, verbs
from .cluster import Cluster
from .errors import ApiError
from .kinds import Kind
from .requests import Request
from .store import now

StartResponse = Callable[..., Any]
Control = Callable[[str, Any], Any]
Object = dict[str, Any]
_HEALTH = {"/healthz", "/livez", "/readyz"}
#: A watch that names no timeout ends after this many seconds; clients begin another.
_WATCH_SECONDS = 300.0
_VERBS: dict[str, Callable[[Cluster, Request, Kind], verbs.Answer]] = {
    "get": verbs.get,
    "list": verbs.list_,
    "create": verbs.create,
    "update": verbs.update,
    "patch": verbs.patch,
    "delete": verbs.delete,
    "deletecollection": verbs.delete_collection,
}
_SUBRESOURCES: dict[str, Callable[[Cluster, Request, Kind], verbs.Answer]] = {
    "status": verbs.status,
    "scale": verbs.scale,
    "eviction": pods.evict,
    "finalize": verbs.update,
}


class _UpgradedError(ConnectionError):
    """The connection has become a websocket, and that has ended."""


class Api:
    """``control`` answers what is under ``/_sandbox/``, which asks for no token."""

    def __init__(self, cluster: Cluster, journal: Path, control: Control, secret_key: str) -> None:
        self._cluster, self._journal, self._control, self._secret = cluster, journal, control, secret_key
        self._writing = threading.Lock()
        self.closed = False

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["PATH_INFO"].startswith("/_sandbox/"):
            return self._sandbox(environ, raw, start_response)
        request = requests.read(environ)
        line: Object = {"time": time.time(), "user": None}
        try:
            code, reply = self._answer(request, line, environ, raw)
            headers: list[tuple[str, str]] = []
        except ApiError as error:
            code, reply, headers = error.code, error.status(), error.headers()
            line["why"] = error.why
        except ConnectionError as end:
            # A fault that was ordered, or a websocket that has ended: the server is to write nothing more.
            self._record(request, line, 101 if isinstance(end, _UpgradedError) else 0)
            raise
        except Exception as error:  # the fault is ours: say so to the client instead of dropping the connection
            text = f"cisdriver sandbox: {type(error).__name__}: {error}"
            failure = ApiError(500, text)
            code, reply, headers = 500, failure.status(), []
            line["why"] = text
        self._record(request, line, code)
        return _respond(start_response, code, reply, headers)

    def _answer(self, request: Request, line: Object, environ: dict[str, Any], raw: bytes) -> tuple[int, Any]:
        if request.path in _HEALTH:
            return 200, "ok"
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        line["user"] = tokens.user_of(authorization, self._cluster.name, self._secret)
        parts = request.path.strip("/").split("/")
        if (parts[0] == "api" and len(parts) > 2) or (parts[0] == "apis" and len(parts) > 3):
            requests.resolve(request)
        requests.read_body(request, raw)
        self._meet_fault(request)
        if request.kind is None:
            return 200, self._discover(parts)
        with self._cluster.store.lock:
            # Deadlines may have passed since the last look.
            controllers.settle(self._cluster)
            if request.subresource == "exec":
                result = pods.execute(self._cluster, request)
            else:
                return self._serve(request, request.kind)
        pods.answer_exec(environ, result)
        raise _UpgradedError

    def _serve(self, request: Request, kind: Kind) -> tuple[int, Any]:
        if kind.group == kinds.METRICS_GROUP:
            return 200, _metrics(self._cluster, request, kind)
        if request.subresource == "log":
            return 200, pods.log(self._cluster, request)
        if request.verb == "watch":
            return 200, self._watch(request, kind)
        code, reply = (_SUBRESOURCES.get(request.subresource) or _VERBS[request.verb])(self._cluster, request, kind)
        # What is answered is the object before its controllers have seen it, as on a real server.
        shown = json.loads(json.dumps(reply))
        controllers.settle(self._cluster)
        return code, shown

    def _meet_fault(self, request: Request) -> None:
        kind = request.kind.kind if request.kind else ""
        order = self._cluster.orders.take(kind, f"{request.namespace}/{request.name}", request.verb)
        if order is None:
            return
        if order.outcome == "cut":
            raise ConnectionAbortedError
        status, what = order["status"], request.kind.resource if request.kind else request.path
        seconds = order["retry_after"] or (1 if status == 429 else None)
        details: Object = {"retryAfterSeconds": seconds} if seconds else {}
        words = {
            403: f'{what} "{request.name}" is forbidden: User "sandbox" cannot {request.verb} resource "{what}"',
            429: "the server has received too many requests and has asked us to try again later",
            500: "Internal error occurred: ordered by a test",
            503: "the server is currently unable to handle the request",
        }
        raise ApiError(status, words[status], details=details, why="ordered by a test")

    def _discover(self, parts: list[str]) -> Object:
        metrics = self._cluster.store.get("Deployment", "kube-system", "metrics-server") is not None
        if parts == ["version"]:
            return _version(self._cluster)
        if parts == ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        if parts == ["apis"]:
            return kinds.group_list(metrics)
        found: Object | None = None
        if parts[0] == "api" and len(parts) == 2:
            found = kinds.resource_list("", parts[1])
        elif parts[0] == "apis" and len(parts) == 3 and (metrics or parts[1] != kinds.METRICS_GROUP):
            found = kinds.resource_list(parts[1], parts[2])
        elif parts[0] == "apis" and len(parts) == 2:
            listed: Any = kinds.group_list(metrics)["groups"]
            one = next((one for one in listed if one["name"] == parts[1]), None)
            found = {"kind": "APIGroup", "apiVersion": "v1", **one} if one else None
        if found is None:
            raise requests.unknown_path()
        return found

    def _watch(self, request: Request, kind: Kind) -> Iterator[bytes]:
        store, version = self._cluster.store, request.query.get("resourceVersion", "")
        known = {one["metadata"]["uid"] for one in verbs.select(self._cluster, request, kind)} if version else set()
        first = [] if version not in ("", "0") else verbs.select(self._cluster, request, kind)
        start = int(version) if version not in ("", "0") else store.version
        end = time.monotonic() + float(request.query.get("timeoutSeconds") or _WATCH_SECONDS)

        def events() -> Iterator[bytes]:
            seen, at = known | {one["metadata"]["uid"] for one in first}, start
            for one in first:
                yield _event("ADDED", one)
            while not self.closed and time.monotonic() < end:
                with store.lock:
                    news = [one for one in store.changes if one.version > at and one.kind == kind.kind]
                    at = store.version
                    if not news:
                        store.lock.wait(0.5)
                for change in news:
                    line = _watched(request, kind, change.type, change.object, seen)
                    if line:
                        yield line

        return events()

    def _record(self, request: Request, line: Object, status: int) -> None:
        line |= {
            "verb": request.verb,
            "path": request.path,
            "kind": request.kind.kind if request.kind else None,
            "namespace": request.namespace,
            "name": request.name,
            "status": status,
            "body": request.body,
            "why": line.get("why", ""),
        }
        with self._writing, self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(line, default=str) + "\n")

    def _sandbox(self, environ: dict[str, Any], raw: bytes, start_response: StartResponse) -> Iterable[bytes]:
        what = environ["PATH_INFO"].removeprefix("/_sandbox/")
        try:
            code, reply = 200, self._control(what, json.loads(raw) if raw else None)
        except ValueError as error:
            code, reply = 400, {"error": str(error)}
        return _respond(start_response, code, reply, [])


def _respond(start_response: StartResponse, code: int, reply: Any, headers: list[tuple[str, str]]) -> Iterable[bytes]:
    streamed = isinstance(reply, Iterator)
    if streamed:
        start_response(f"{code} OK", [("Content-Type", "application/json"), *headers])
        chunks: Iterable[bytes] = reply
        return chunks
    text = isinstance(reply, str)
    body = reply.encode() if text else json.dumps(reply).encode()
    head = [("Content-Type", "text/plain" if text else "application/json"), ("Content-Length", str(len(body)))]
    start_response(f"{code} {_PHRASES.get(code, 'OK')}", [*head, *headers])
    return [body]


#: Clients read these: kubernetes.core compares them.
_PHRASES = {
    201: "Created",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def _version(cluster: Cluster) -> Object:
    major, _, minor = cluster.version.partition(".")
    git = {"gitVersion": f"v{cluster.version}.0-eks-sandbox", "gitCommit": "", "gitTreeState": "clean"}
    built = {"buildDate": now(), "goVersion": "", "compiler": "", "platform": "linux/amd64"}
    return {"major": major, "minor": minor} | git | built


def _event(kind: str, one: Object) -> bytes:
    return json.dumps({"type": kind, "object": one}).encode() + b"\n"


def _watched(request: Request, kind: Kind, what: str, one: Object, seen: set[str]) -> bytes:
    """The line for a change; empty for one that the watch's selectors leave out."""
    here = not request.namespace or one["metadata"].get("namespace") == request.namespace
    inside = here and selectors.fits(one, *verbs.read_selectors(request, kind))
    uid = one["metadata"]["uid"]
    if what == "DELETED" or not inside:
        known = uid in seen
        seen.discard(uid)
        return _event("DELETED", one) if known else b""
    shown = "MODIFIED" if uid in seen else "ADDED"
    seen.add(uid)
    return _event(shown, one)


def _metrics(cluster: Cluster, request: Request, kind: Kind) -> Object:
    """Usage of nodes or pods: none, for nothing runs."""
    if not policies.metrics_served(cluster):
        raise ApiError(503, "the server is currently unable to handle the request")
    if request.verb not in ("get", "list"):
        raise ApiError(405, "the server does not allow this method on the requested resource")
    base = kinds.KINDS[kind.kind.removesuffix("Metrics").capitalize()]
    usage = {"cpu": "0", "memory": "0"}
    wanted = (
        [verbs.find(cluster, base, request.namespace, request.name)]
        if request.name
        else verbs.select(cluster, request, base)
    )
    items = [
        _measured(one, kind, usage)
        for one in wanted
        if kind.plural == "nodes" or one["status"].get("phase") == "Running"
    ]
    if request.name:
        return items[0] if items else _missing(base, request.name)
    return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": {}, "items": items}


def _missing(base: Kind, name: str) -> Object:
    raise ApiError(404, f'{base.plural}.{kinds.METRICS_GROUP} "{name}" not found')


def _measured(one: Object, kind: Kind, usage: dict[str, str]) -> Object:
    meta = {key: one["metadata"][key] for key in ("name", "namespace", "labels") if key in one["metadata"]}
    made = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta, "timestamp": now(), "window": "20s"}
    if kind.plural == "nodes":
        return made | {"usage": usage}
    return made | {
        "containers": [{"name": container["name"], "usage": usage} for container in one["spec"]["containers"]]
    }
