"""The WSGI application in front of moto: checks, refuses, completes and records.

A request passes these steps: is the operation one we serve; is a fault ordered; does it fit botocore's model;
does the layer answer itself, or moto; does the reply fit the model; what follows from it for the stand-in
machines. Every request is one line of the journal, whatever became of it.
"""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import ec2, shapes, ssm, wire
from .operations import OPERATIONS, TOLERATED
from .world import AwsError, Reply, World

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
#: How each protocol calls a parameter that does not fit.
_INVALID = {"ec2": "InvalidParameterValue", "query": "ValidationError", "json": "ValidationException"}
_BEFORE = {**ec2.BEFORE, **ssm.BEFORE}
_AFTER = {**ec2.AFTER}


@dataclass
class Fault:
    """An error ordered by a test: answered ``times`` times to ``service`` ``operation``."""

    service: str
    operation: str
    code: str
    message: str
    times: int = 1
    status: int = 400


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
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        started = time.time()
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ.get("PATH_INFO", "").startswith("/_sandbox/"):
            return self._control(environ, body, start_response)
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
        self._record(started, service, call, answer)
        headers = [("Content-Type", answer.content_type), ("x-amzn-RequestId", request_id)]
        start_response(f"{answer.status} {'OK' if answer.status == 200 else 'Refused'}", headers)
        return [answer.body]

    def _read(self, service: str, region: str, environ: dict[str, Any], body: bytes) -> wire.Call:
        if service not in OPERATIONS:
            raise AwsError(501, "NotImplemented", f"the sandbox does not serve {service}; see {__package__}.operations")
        call = wire.read_call(service, region, environ.get("HTTP_X_AMZ_TARGET", ""), body)
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
            raise AwsError(400, _INVALID[wire.protocol(call.service)], "; ".join(wrong[:5]))
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
            seen.update(status=int(status.split()[0]), type=dict(headers).get("Content-Type", ""))

        inner = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        reply = b"".join(self._moto(inner, start_response))
        answer = _Answer(seen["status"], seen["type"], reply)
        if answer.status >= 500:
            text = f"moto failed on {call.service} {call.operation}: {reply[:300].decode(errors='replace')}"
            raise AwsError(500, "InternalError", text)
        if answer.status >= 300:
            answer.code, answer.message = wire.read_error(call, reply)
        return answer

    def _ordered_fault(self, call: wire.Call) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if (fault.service, fault.operation) == (call.service, call.operation) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def _record(self, started: float, service: str | None, call: wire.Call | None, answer: _Answer) -> None:
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
        }
        with self._lock, self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(line, default=str) + "\n")

    def _control(self, environ: dict[str, Any], body: bytes, start_response: StartResponse) -> Iterable[bytes]:
        """What the owner of the sandbox asks, beside AWS's own API: faults, leftovers, machines."""
        what = environ["PATH_INFO"].rpartition("/")[2]
        reply: Any = None
        if what == "faults":
            fault = Fault(**json.loads(body))
            if fault.operation not in OPERATIONS.get(fault.service, ()):
                raise ValueError(f"{fault.service} {fault.operation} is not served, so it cannot be made to fail")
            with self._lock:
                self._faults.append(fault)
            reply = asdict(fault)
        elif what == "leftovers":
            reply = self._world.leftovers()
        elif what == "machines":
            reply = {name: asdict(address) for name, address in self._world.machines.addresses().items()}
        start_response("200 OK" if reply is not None else "404 Not Found", [("Content-Type", "application/json")])
        return [json.dumps(reply).encode()]


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
    wrong = [text for text in wrong if text.partition(":")[0] not in tolerated]
    if wrong:
        text = f"the reply to {call.service} {call.operation} does not fit AWS's model: {'; '.join(wrong[:5])}"
        raise AwsError(500, "SandboxReplyInvalid", text)
    return reply


def _refusal(service: str | None, status: int, code: str, message: str, request_id: str) -> _Answer:
    known = service if service in OPERATIONS else None
    content_type, body = wire.write_error(known, status, code, message, request_id)
    return _Answer(status, content_type, body, code, message)
