"""AWS requests and replies between bytes and plain values, as botocore's models describe them.

Four protocols: ``ec2`` (EC2), ``query`` (STS, IAM, CloudFormation), ``json`` (SSM, KMS, Logs, Pricing) and
``rest-json`` (EKS). A value that the model does not name is never dropped: it stands in ``unknown``, for the
layer to refuse.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import botocore.session
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.utils import parse_timestamp

#: Form fields every query request carries beside its parameters.
_ENVELOPE = {"Action", "Version"}
_SCOPE = re.compile(r"Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
#: What stands for a label in a URI of the model, ``{name}`` or, reaching over slashes, ``{name+}``.
_LABEL = re.compile(r"\{(\w+)(\+?)\}")
_JSON_TYPES = {"json": "application/x-amz-json-1.1", "rest-json": "application/json"}
_ABSENT = object()


class WireError(Exception):
    """A request that cannot be read, with the status and code AWS would answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Request:
    """What of an HTTP request says which operation is meant, and with what.

    ``uri`` is path and query as they were sent, still percent-encoded: an ARN in a path has slashes of its own.
    """

    method: str
    uri: str
    target: str
    body: bytes


@dataclass
class Call:
    """One request: whose, where, what, and what could not be placed."""

    service: str
    operation: str
    region: str
    parameters: dict[str, Any]
    unknown: list[str] = field(default_factory=list)

    @property
    def model(self) -> OperationModel:
        return service_model(self.service).operation_model(self.operation)


@cache
def service_model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


def protocol(service: str) -> str:
    return str(service_model(service).metadata["protocol"])


def scope(authorization: str) -> tuple[str, str]:
    """Service and region from a SigV4 header. Signatures are not checked: there are no secrets here."""
    found = _SCOPE.search(authorization)
    if not found:
        raise WireError(403, "MissingAuthenticationToken", "the request is not signed with AWS4-HMAC-SHA256")
    return found["service"], found["region"]


def error_status(service: str, code: str) -> int:
    """The HTTP status that the model gives an error; 400 where it says nothing."""
    shapes = {shape.name: shape for shape in service_model(service).error_shapes}
    error = shapes[code].metadata.get("error", {}) if code in shapes else {}
    return int(error.get("httpStatusCode", 400))


def read_call(service: str, region: str, request: Request) -> Call:
    """The call in a request.

    Raises WireError for an operation that botocore's model of the service does not have, and for a body that is no
    JSON where JSON is due.
    """
    model, kind = service_model(service), protocol(service)
    if kind == "rest-json":
        return _read_rest(service, region, request)
    if kind == "json":
        operation, fields = request.target.rpartition(".")[2], {}
    else:
        fields = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        operation = fields.get("Action", "")
    if operation not in model.operation_names:
        raise WireError(400, "InvalidAction", f"{service} has no operation {operation!r}")
    call = Call(service, operation, region, {})
    shape = model.operation_model(operation).input_shape
    if kind == "json":
        call.parameters = _from_json(shape, _load(request.body), call.unknown, "")
    elif shape is not None:
        used: set[str] = set(_ENVELOPE)
        found = _from_form(shape, fields, "", used, kind == "ec2")
        call.parameters = {} if found is _ABSENT else found
        call.unknown = sorted(set(fields) - used)
    return call


@cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    """Method, pattern of the path, and operation; what has fewer labels comes first."""
    model, found = service_model(service), []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path = http["requestUri"].partition("?")[0]
        pattern = _LABEL.sub(lambda label: f"(?P<{label[1]}>{'.+' if label[2] else '[^/]+'})", path)
        found.append((path.count("{"), http["method"], re.compile(pattern), name))
    return [(method, pattern, name) for _, method, pattern, name in sorted(found, key=lambda one: one[0])]


def _read_rest(service: str, region: str, request: Request) -> Call:
    """Labels of the path, the query string, and the body's JSON together are the parameters."""
    path, _, query = request.uri.partition("?")
    routes = [(pattern.fullmatch(path), name) for method, pattern, name in _routes(service) if method == request.method]
    labels, operation = next(((found, name) for found, name in routes if found), (None, ""))
    if labels is None:
        raise WireError(404, "UnknownOperationException", f"{service} has no operation at {request.method} {path}")
    call = Call(service, operation, region, {})
    shape = call.model.input_shape
    if shape is None:
        return call
    call.parameters = _from_json(shape, _load(request.body), call.unknown, "")
    values = parse_qs(query, keep_blank_values=True)
    for name, member in shape.members.items():
        location, key = member.serialization.get("location"), member.serialization.get("name", name)
        if location is None:
            continue
        if name in call.parameters:
            call.unknown.append(f"{name} (in the body)")
        if location == "uri":
            call.parameters[name] = _scalar(member, unquote(labels[key]))
        elif location != "querystring" or isinstance(member, MapShape):
            raise NotImplementedError(f"{location} member {name} of {operation}")
        elif key in values:
            found = values.pop(key)
            call.parameters[name] = found if isinstance(member, ListShape) else _scalar(member, found[-1])
    call.unknown += sorted(values)
    return call


def _load(body: bytes) -> Any:
    """The JSON of a body. Raises WireError where there is none."""
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise WireError(400, "SerializationException", f"the body is no JSON: {error}") from error


def _from_form(shape: Shape, fields: dict[str, str], prefix: str, used: set[str], ec2: bool) -> Any:
    """The value of ``shape`` in flattened form fields, or _ABSENT."""
    if isinstance(shape, StructureShape):
        found = {}
        for name, member in shape.members.items():
            key = _form_name(name, member, ec2)
            value = _from_form(member, fields, f"{prefix}.{key}" if prefix else key, used, ec2)
            if value is not _ABSENT:
                found[name] = value
        return found if found or not prefix else _ABSENT
    if isinstance(shape, ListShape):
        return _list_from_form(shape, fields, prefix, used, ec2)
    if isinstance(shape, MapShape):
        raise NotImplementedError(f"map {shape.name} in a form")
    if prefix not in fields:
        return _ABSENT
    used.add(prefix)
    return _scalar(shape, fields[prefix])


def _list_from_form(shape: ListShape, fields: dict[str, str], prefix: str, used: set[str], ec2: bool) -> Any:
    if fields.get(prefix) == "":  # botocore's way to send an empty list
        used.add(prefix)
        return []
    base = prefix
    if not ec2 and not shape.serialization.get("flattened"):
        base = f"{prefix}.{shape.member.serialization.get('name', 'member')}"
    start = f"{base}."
    indexes = {key[len(start) :].partition(".")[0] for key in fields if key.startswith(start)}
    ordered = sorted((index for index in indexes if index.isdigit()), key=int)
    found = [_from_form(shape.member, fields, f"{base}.{index}", used, ec2) for index in ordered]
    return [value for value in found if value is not _ABSENT] or _ABSENT


def _form_name(name: str, member: Shape, ec2: bool) -> str:
    """The key of a member: EC2 prefers queryName and otherwise capitalises (botocore's EC2Serializer)."""
    if not ec2:
        return str(member.serialization.get("name", name))
    if "queryName" in member.serialization:
        return str(member.serialization["queryName"])
    key = str(member.serialization.get("name", name))
    return key[0].upper() + key[1:]


def _scalar(shape: Shape, text: str) -> Any:
    """``text`` as the type of ``shape``; left as it is where it does not fit, for the check to refuse."""
    try:
        if shape.type_name == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if shape.type_name in ("integer", "long"):
            return int(text)
        if shape.type_name in ("float", "double"):
            return float(text)
        if shape.type_name == "timestamp":
            return parse_timestamp(text)
        if shape.type_name == "blob":
            return base64.b64decode(text)
    except (KeyError, ValueError):
        return text
    return text


def _from_json(shape: Shape | None, value: Any, unknown: list[str], path: str) -> Any:
    """A JSON value under the model's member names; null members count as not given."""
    if value is None or shape is None:
        return value
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        names = {member.serialization.get("name", name): name for name, member in shape.members.items()}
        found = {}
        for key, element in value.items():
            if key not in names:
                unknown.append(f"{path}.{key}".lstrip("."))
            elif element is not None:
                found[names[key]] = _from_json(shape.members[names[key]], element, unknown, f"{path}.{key}")
        return found
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_from_json(shape.member, element, unknown, f"{path}[]") for element in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _from_json(shape.value, element, unknown, f"{path}.{key}") for key, element in value.items()}
    if shape.type_name == "timestamp" or (shape.type_name == "blob" and isinstance(value, str)):
        return parse_timestamp(value) if shape.type_name == "timestamp" else base64.b64decode(value)
    return value


def read_reply(call: Call, body: bytes) -> tuple[dict[str, Any], list[str]]:
    """A successful reply's value, and the members of it that the model does not have."""
    shape = call.model.output_shape
    unknown: list[str] = []
    if protocol(call.service) in _JSON_TYPES:
        value = json.loads(body or b"{}")
        return (_from_json(shape, value, unknown, "") if shape else {}), unknown
    root = ElementTree.fromstring(body)
    if shape is None:
        return {}, unknown
    wrapper = shape.serialization.get("resultWrapper")
    node = next((child for child in root if _tag(child) == wrapper), None) if wrapper else root
    value = {} if node is None else _from_xml(shape, node, unknown, "")
    return value, [name for name in unknown if name not in ("requestId", "ResponseMetadata")]


def read_error(call: Call, body: bytes) -> tuple[str, str]:
    """Code and message of an error reply, for the journal; the body itself where it has neither."""
    if protocol(call.service) in _JSON_TYPES:
        document = json.loads(body)
        return str(document.get("__type", "")), str(document.get("message", document.get("Message", "")))
    text = body.decode(errors="replace")
    code, message = (re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("Code", "Message"))
    return (code[1] if code else "unknown"), (message[1] if message else text[:500])


def _from_xml(shape: Shape, node: ElementTree.Element, unknown: list[str], path: str) -> Any:
    if isinstance(shape, StructureShape):
        names = {member.serialization.get("name", name): name for name, member in shape.members.items()}
        found: dict[str, Any] = {}
        for child in node:
            where = f"{path}.{_tag(child)}".lstrip(".")
            if _tag(child) not in names:
                unknown.append(where)
                continue
            name = names[_tag(child)]
            member = shape.members[name]
            if isinstance(member, ListShape) and member.serialization.get("flattened"):
                found.setdefault(name, []).append(_from_xml(member.member, child, unknown, where))
            else:
                found[name] = _from_xml(member, child, unknown, where)
        return found
    if isinstance(shape, ListShape):
        return [_from_xml(shape.member, child, unknown, path) for child in node]
    if isinstance(shape, MapShape):
        raise NotImplementedError(f"map {shape.name} in an XML reply")
    return _scalar(shape, node.text or "")


def _tag(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2]


def write_reply(call: Call, value: dict[str, Any], request_id: str) -> tuple[str, bytes]:
    """Content type and body of a reply that the layer itself gives."""
    kind, shape = protocol(call.service), call.model.output_shape
    if kind in _JSON_TYPES:
        return _JSON_TYPES[kind], json.dumps({} if shape is None else _to_json(shape, value)).encode()
    inner = "" if shape is None else _to_xml(shape, value)
    name = f"{call.operation}Response"
    if kind == "ec2":
        namespace = f"http://ec2.amazonaws.com/doc/{service_model('ec2').api_version}/"
        inner = f"<requestId>{request_id}</requestId>{inner}"
    else:
        namespace = service_model(call.service).metadata["xmlNamespace"]
        wrapper = None if shape is None else shape.serialization.get("resultWrapper")
        inner = f"<{wrapper}>{inner}</{wrapper}>" if wrapper else inner
        inner += f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
    return "text/xml", f'<{name} xmlns="{namespace}">{inner}</{name}>'.encode()


def _to_xml(shape: Shape, value: Any) -> str:
    if isinstance(shape, StructureShape):
        return "".join(_element(name, shape.members[name], element) for name, element in value.items())
    if isinstance(shape, ListShape):
        tag = shape.member.serialization.get("name", "member")
        return "".join(f"<{tag}>{_to_xml(shape.member, element)}</{tag}>" for element in value)
    if isinstance(shape, MapShape):
        raise NotImplementedError(f"map {shape.name} in an XML reply")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return escape(value.isoformat() if isinstance(value, datetime) else str(value))


def _element(name: str, member: Shape, value: Any) -> str:
    tag = member.serialization.get("name", name)
    if isinstance(member, ListShape) and member.serialization.get("flattened"):
        return "".join(f"<{tag}>{_to_xml(member.member, one)}</{tag}>" for one in value)
    return f"<{tag}>{_to_xml(member, value)}</{tag}>"


def _to_json(shape: Shape, value: Any) -> Any:
    """``value`` under the names of the wire. What does not fit the model is left, for the check of the reply."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        found = {}
        for name, element in value.items():
            member = shape.members.get(name)
            if member is None:
                found[name] = element
            elif "location" in member.serialization:
                raise NotImplementedError(f"{member.serialization['location']} member {name} in a reply")
            else:
                found[member.serialization.get("name", name)] = _to_json(member, element)
        return found
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_to_json(shape.member, element) for element in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _to_json(shape.value, element) for key, element in value.items()}
    if isinstance(value, datetime):
        return value.timestamp()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def write_error(service: str | None, status: int, code: str, message: str, request_id: str) -> tuple[str, bytes]:
    """Content type and body of an error, in the words of the service's protocol.

    rest-json has the code in the header ``x-amzn-ErrorType`` as well, which the layer sends with every error.
    """
    kind = protocol(service) if service else "query"
    if kind in _JSON_TYPES:
        named = {"__type": code} if kind == "json" else {}
        return _JSON_TYPES[kind], json.dumps({**named, "message": message}).encode()
    text = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if kind == "ec2":
        body = f"<Response><Errors><Error>{text}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    else:
        who = "Sender" if status < 500 else "Receiver"
        body = (
            f"<ErrorResponse><Error><Type>{who}</Type>{text}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return "text/xml", body.encode()
