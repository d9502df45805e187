"""What can be done to a pod beside its manifest: read its log, run a command in it, evict it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection
from wsproto.events import Request as Handshake
from wsproto.utilities import RemoteProtocolError

from . import kubelet, models, policies, verbs
from .cluster import Cluster
from .errors import ApiError
from .kinds import KINDS, Kind
from .requests import Request

Object = dict[str, Any]
_STDOUT, _STDERR, _ERROR = 1, 2, 3
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
#: A client is given this long to answer the end of a websocket.
_CLOSE_SECONDS = 5


def log(cluster: Cluster, request: Request) -> str:
    """The log of the container the query names. Raises ApiError 400 or 404."""
    pod = verbs.find(cluster, KINDS["Pod"], request.namespace, request.name)
    name = _container(pod, request.query.get("container", ""))
    statuses = [*(pod["status"].get("containerStatuses") or []), *(pod["status"].get("initContainerStatuses") or [])]
    status = next((one for one in statuses if one["name"] == name), None)
    previous = request.query.get("previous", "").lower() == "true"
    if previous and not (status or {}).get("restartCount"):
        text = f'previous terminated container "{name}" in pod "{request.name}" not found'
        raise ApiError(400, text)
    waiting = (status or {"state": {"waiting": {"reason": "ContainerCreating"}}})["state"].get("waiting")
    if waiting and waiting["reason"] != "CrashLoopBackOff":
        pulls = waiting["reason"] in ("ErrImagePull", "ImagePullBackOff")
        why = "trying and failing to pull image" if pulls else f"waiting to start: {waiting['reason']}"
        raise ApiError(400, f'container "{name}" in pod "{request.name}" is {why}')
    lines = kubelet.log_of(cluster, pod, name).splitlines(keepends=True)
    tail = request.query.get("tailLines")
    return "".join(lines[max(0, len(lines) - int(tail)) :] if tail else lines)


def evict(cluster: Cluster, request: Request, kind: Kind) -> verbs.Answer:
    """Raises ApiError 429 where a disruption budget says no."""
    pod = verbs.find(cluster, KINDS["Pod"], request.namespace, request.name)
    models.check_model("V1Eviction", request.body, kind)
    budgets = policies.budgets_of(cluster, pod) if pod["status"].get("phase") == "Running" else []
    for budget in budgets:
        status = budget.get("status") or {}
        if status.get("disruptionsAllowed", 0) < 1:
            need, has = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
            name = budget["metadata"]["name"]
            text = f"The disruption budget {name} needs {need} healthy pods and has {has} currently"
            causes = [{"reason": "DisruptionBudget", "message": text}]
            words = "Cannot evict pod as it would violate the pod's disruption budget."
            raise ApiError(429, words, details={"causes": causes})
    dry = bool((request.body.get("deleteOptions") or {}).get("dryRun")) or request.dry_run
    if not dry:
        verbs.end(cluster, KINDS["Pod"], pod)
    return 201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def execute(cluster: Cluster, request: Request) -> tuple[str, str, int]:
    """stdout, stderr and exit code of the command in the query. Raises ApiError 400 or 404."""
    pod = verbs.find(cluster, KINDS["Pod"], request.namespace, request.name)
    name = _container(pod, request.query.get("container", ""))
    if not request.many.get("command"):
        raise ApiError(400, "you must specify at least 1 command for the container")
    phase = pod["status"].get("phase")
    if phase in ("Succeeded", "Failed"):
        raise ApiError(400, f"cannot exec into a container in a completed pod; current phase is {phase}")
    statuses = pod["status"].get("containerStatuses") or []
    if not any(one["name"] == name and "running" in one["state"] for one in statuses):
        raise ApiError(500, f'unable to upgrade connection: container not found ("{name}")')
    return kubelet.exec_in(cluster, pod, name)


def answer_exec(environ: dict[str, Any], result: tuple[str, str, int]) -> None:
    """Speak the channel protocol on the request's socket: output, then a Status on the error channel, then close.

    Raises ApiError 400 where no websocket of that protocol was asked for.
    """
    offered = [one.strip() for one in environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")]
    protocol = next((one for one in _PROTOCOLS if one in offered), None)
    if environ.get("HTTP_UPGRADE", "").lower() != "websocket" or protocol is None:
        raise ApiError(400, f"Upgrade request required: a websocket of {' or '.join(_PROTOCOLS)}")
    connection, stream = WSConnection(ConnectionType.SERVER), environ["werkzeug.socket"]
    connection.receive_data(_handshake(environ))
    if not any(isinstance(event, Handshake) for event in connection.events()):
        raise ApiError(400, "the websocket's handshake cannot be read")
    stream.sendall(connection.send(AcceptConnection(subprotocol=protocol)))
    for frame in _frames(*result):
        stream.sendall(connection.send(BytesMessage(frame)))
    stream.sendall(connection.send(CloseConnection(1000)))
    stream.settimeout(_CLOSE_SECONDS)
    try:
        while data := stream.recv(4096):
            connection.receive_data(data)
            if any(isinstance(event, CloseConnection) for event in connection.events()):
                return
    except (OSError, RemoteProtocolError):
        # All that was to be said has been said.
        return


def _frames(stdout: str, stderr: str, code: int) -> Iterator[bytes]:
    if stdout:
        yield bytes([_STDOUT]) + stdout.encode()
    if stderr:
        yield bytes([_STDERR]) + stderr.encode()
    status: Object = {"metadata": {}, "status": "Success"}
    if code:
        causes = [{"reason": "ExitCode", "message": str(code)}]
        text = f"command terminated with non-zero exit code: command terminated with exit code {code}"
        status |= {"status": "Failure", "message": text, "reason": "NonZeroExitCode", "details": {"causes": causes}}
    yield bytes([_ERROR]) + json.dumps(status).encode()


def _handshake(environ: dict[str, Any]) -> bytes:
    """The request's head again, which the server has read already."""
    lines = [f"GET {environ['RAW_URI']} HTTP/1.1"]
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            lines.append(f"{key.removeprefix('HTTP_').replace('_', '-').title()}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _container(pod: Object, wanted: str) -> str:
    spec = pod["spec"]
    names = [one["name"] for one in spec["containers"]]
    everything = [*names, *(one["name"] for one in spec.get("initContainers") or [])]
    if wanted and wanted not in everything:
        raise ApiError(400, f"container {wanted} is not valid for pod {pod['metadata']['name']}")
    if not wanted and len(names) > 1:
        choices = " ".join(names)
        text = f"a container name must be specified for pod {pod['metadata']['name']}, choose one of: [{choices}]"
        raise ApiError(400, text)
    return wanted or names[0]
