"""The WSGI application in front of moto: checks, refuses, completes and records.

A request passes these steps: is the operation one we serve; is a fault ordered; does it fit botocore's model;
does the layer answer itself, or moto; does the reply fit the model; what follows from it for the stand-in
machines. Every request is one line of the journal, whatever became of it.
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import cloudformation, ec2, eks, network, pricing, shapes, ssm, wire
from .operations import OPERATIONS, TOLERATED
from .world import AwsError, Reply, World, caller

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
#: How each protocol calls a parameter that does not fit.
_INVALID = {"ec2": "InvalidParameterValue", "query": "ValidationError", "json": "ValidationException"}
#: rest-json leaves it to the service.
_INVALID_REST = {"eks": "InvalidParameterException"}
_BEFORE = {**cloudformation.BEFORE, **ec2.BEFORE, **eks.BEFORE, **pricing.BEFORE, **network.BEFORE, **ssm.BEFORE}
_AFTER = {**ec2.AFTER, **network.AFTER}


@dataclass
class Fault:
    """An error ordered by a test: answered ``times`` times to ``service`` ``operation``.

    ``match`` narrows it to requests whose parameters have these values.
    """

    service: str
    operation: str
    code: str
    message: str
    times: int = 1
    status: int = 400
    match: dict[str, Any] = field(default_factory=dict)

    def meets(self, call: wire.Call) -> bool:
        same = (self.service, self.operation) == (call.service, call.operation)
        return same and all(call.parameters.get(name) == value for name, value in self.match.items())


@dataclass
class _Answer:
    status: int
    content_type: str
    body: bytes
    code: str = ""
    message: str = ""
    reply: dict[str, Any] = field(default_factory=dict)


class Layer:
    """``moto`` with what it lacks. ``journal`` is a file of JSON lines, one per request."""

    def __init__(self, moto: WsgiApp, world: World, journal: Path) -> None:
        self._moto, self._world, self._journal = moto, world, journal
        world.directory = journal.parent
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._last, self._ended = time.monotonic(), threading.Event()

    def wait(self, idle: float) -> None:
        """Until the owner asks for the end, or no request came for ``idle`` seconds."""
        while not self._ended.wait(min(1.0, idle)) and time.monotonic() - self._last < idle:
            pass

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        started, self._last = time.time(), time.monotonic()
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ.get("PATH_INFO", "").startswith("/_sandbox/"):
            return self._control(environ, body, start_response)
        self._world.url = f"http://127.0.0.1:{environ['SERVER_PORT']}"
        request_id = str(uuid.uuid4())
        call: wire.Call | None = None
        service: str | None = None
        try:
            service, region = wire.scope(environ.get("HTTP_AUTHORIZATION", ""))
            call = self._read(service, region, environ, body)
            answer = self._answer(call, environ, body, request_id)
        except _UnservedError as error:
            call = error.call
            answer = _refusal(service, error.status, error.code, error.message, request_id)
        except (AwsError, wire.WireError) as error:
            answer = _refusal(service, error.status, error.code, error.message, request_id)
        except Exception as error:  # the fault is ours: say so to the client instead of dropping the connection
            text = f"cisdriver sandbox: {type(error).__name__}: {error}"
            answer = _refusal(service, 500, "InternalError", text, request_id)
        asked_by = caller(environ.get("HTTP_USER_AGENT", ""))
        self._record(started, service, call, answer, asked_by)
        headers = [("Content-Type", answer.content_type), ("x-amzn-RequestId", request_id)]
        if answer.code:
            headers.append(("x-amzn-ErrorType", answer.code))
        start_response(f"{answer.status} {'OK' if answer.status == 200 else 'Refused'}", headers)
        return [answer.body]

    def _read(self, service: str, region: str, environ: dict[str, Any], body: bytes) -> wire.Call:
        if service not in OPERATIONS:
            raise AwsError(501, "NotImplemented", f"the sandbox does not serve {service}; see {__package__}.operations")
        uri, target = environ["REQUEST_URI"], environ.get("HTTP_X_AMZ_TARGET", "")
        call = wire.read_call(service, region, wire.Request(environ["REQUEST_METHOD"], uri, target, body))
        if call.operation not in OPERATIONS[service]:
            raise _UnservedError(call)
        return call

    def _answer(self, call: wire.Call, environ: dict[str, Any], body: bytes, request_id: str) -> _Answer:
        fault = self._ordered_fault(call)
        if fault is not None:
            raise AwsError(fault.status, fault.code, fault.message)
        wrong = [f"{name}: {call.operation} has no such parameter" for name in call.unknown]
        wrong += shapes.problems(call.model.input_shape, call.parameters)
        if wrong:
            code = _INVALID.get(wire.protocol(call.service)) or _INVALID_REST[call.service]
            raise AwsError(400, code, "; ".join(wrong[:5]))
        before = _BEFORE.get((call.service, call.operation))
        own: Reply | None = before(self._world, call) if before else None
        if own is not None:
            content_type, text = wire.write_reply(call, own, request_id)
            answer = _Answer(200, content_type, text)
        else:
            answer = self._ask_moto(call, environ, body)
        if answer.status == 200:
            answer.reply = _checked_reply(call, answer.body)
            after = _AFTER.get((call.service, call.operation))
            if after:
                after(self._world, call, answer.reply)
        return answer

    def _ask_moto(self, call: wire.Call, environ: dict[str, Any], body: bytes) -> _Answer:
        seen: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            named = {name.lower(): value for name, value in headers}
            seen.update(
                status=int(status.split()[0]), type=named.get("content-type", ""), error=named.get("x-amzn-errortype")
            )

        inner = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        reply = b"".join(self._moto(inner, start_response))
        answer = _Answer(seen["status"], seen["type"], reply)
        if answer.status >= 500:
            text = f"moto failed on {call.service} {call.operation}: {reply[:300].decode(errors='replace')}"
            raise AwsError(500, "InternalError", text)
        if answer.status >= 300:
            code, answer.message = wire.read_error(call, reply)
            answer.code = seen["error"] or code
        return answer

    def _ordered_fault(self, call: wire.Call) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.meets(call):
                    fault.times -= 1
                    return fault
        return None

    def _record(
        self, started: float, service: str | None, call: wire.Call | None, answer: _Answer, asked_by: str | None
    ) -> None:
        line = {
            "time": started,
            "seconds": round(time.time() - started, 3),
            "service": service,
            "operation": call.operation if call else None,
            "region": call.region if call else None,
            "parameters": call.parameters if call else None,
            "status": answer.status,
            "code": answer.code,
            "message": answer.message,
            "by": asked_by,
        }
        with self._lock, self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(line, default=str) + "\n")

    def _control(self, environ: dict[str, Any], body: bytes, start_response: StartResponse) -> Iterable[bytes]:
        """What the owner of the sandbox asks, beside AWS's own API: faults, leftovers, machines, clusters."""
        try:
            reply = self._controlled(environ["PATH_INFO"].removeprefix("/_sandbox/"), body)
            status = "200 OK" if reply is not None else "404 Not Found"
        except ValueError as error:
            status, reply = "400 Bad Request", str(error)
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(reply).encode()]

    def _controlled(self, what: str, body: bytes) -> Any:
        """The answer, or None for what there is not. Raises ValueError for what cannot be done."""
        if what == "faults":
            fault = Fault(**json.loads(body))
            if fault.operation not in OPERATIONS.get(fault.service, ()):
                raise ValueError(f"{fault.service} {fault.operation} is not served, so it cannot be made to fail")
            with self._lock:
                self._faults.append(fault)
            return asdict(fault)
        if what == "leftovers":
            return self._world.leftovers()
        if what == "machines":
            return {name: asdict(address) for name, address in self._world.machines.addresses().items()}
        if what == "directory":
            return str(self._journal.parent)
        if what == "end":
            self._ended.set()
            return True
        kind, _, rest = what.partition("/")
        name, _, asked = rest.partition("/")
        return self._of_cluster(name, asked, body) if kind == "clusters" else None

    def _of_cluster(self, name: str, what: str, body: bytes) -> Any:
        """What tests ask of a cluster's API server: orders, objects, requests."""
        cluster = self._world.clusters.get((self._world.region, name))
        return None if cluster is None else cluster.server.control(what, json.loads(body) if body else None)


class _UnservedError(AwsError):
    """501, with the call kept for the journal."""

    def __init__(self, call: wire.Call) -> None:
        text = f"the sandbox does not serve {call.service} {call.operation}: see {__package__}.operations"
        super().__init__(501, "NotImplemented", text)
        self.call = call


def _checked_reply(call: wire.Call, body: bytes) -> dict[str, Any]:
    """The reply's value. Raises AwsError where it is not what AWS's model promises."""
    reply, unknown = wire.read_reply(call, body)
    wrong = [f"{name}: not in {call.operation}'s output" for name in unknown]
    if call.model.output_shape is not None:
        wrong += shapes.problems(call.model.output_shape, reply)
    tolerated = TOLERATED.get(call.operation, frozenset())
    wrong = [text for text in wrong if re.sub(r"\[\d+\]", "[]", text.partition(":")[0]) not in tolerated]
    if wrong:
        text = f"the reply to {call.service} {call.operation} does not fit AWS's model: {'; '.join(wrong[:5])}"
        raise AwsError(500, "SandboxReplyInvalid", text)
    return reply


def _refusal(service: str | None, status: int, code: str, message: str, request_id: str) -> _Answer:
    known = service if service in OPERATIONS else None
    content_type, body = wire.write_error(known, status, code, message, request_id)
    return _Answer(status, content_type, body, code, message)
