"""AWS requests and replies between bytes and plain values, as botocore's models describe them.

Three protocols: ``ec2`` (EC2), ``query`` (STS, IAM) and ``json`` (SSM, KMS). A value that the model does not
name is never dropped: it stands in ``unknown``, for the layer to refuse.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import botocore.session
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.utils import parse_timestamp

#: Form fields every query request carries beside its parameters.
_ENVELOPE = {"Action", "Version"}
_SCOPE = re.compile(r"Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
_ABSENT = object()


class WireError(Exception):
    """A request that cannot be read, with the status and code AWS would answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


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


def read_call(service: str, region: str, target: str, body: bytes) -> Call:
    """The call in a request. ``target`` is the X-Amz-Target header, for the json protocol.

    Raises WireError for an operation that botocore's model of the service does not have.
    """
    model = service_model(service)
    if protocol(service) == "json":
        operation, fields = target.rpartition(".")[2], {}
    else:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
        operation = fields.get("Action", "")
    if operation not in model.operation_names:
        raise WireError(400, "InvalidAction", f"{service} has no operation {operation!r}")
    call = Call(service, operation, region, {})
    shape = model.operation_model(operation).input_shape
    if protocol(service) == "json":
        call.parameters = _from_json(shape, json.loads(body or b"{}"), call.unknown, "")
    elif shape is not None:
        used: set[str] = set(_ENVELOPE)
        found = _from_form(shape, fields, "", used, protocol(service) == "ec2")
        call.parameters = {} if found is _ABSENT else found
        call.unknown = sorted(set(fields) - used)
    return call


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
    if protocol(call.service) == "json":
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
    if protocol(call.service) == "json":
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
    """Content type and body of a reply that the layer itself gives (protocols json and ec2)."""
    if protocol(call.service) == "json":
        return "application/x-amz-json-1.1", json.dumps(value, default=_json_default).encode()
    if protocol(call.service) != "ec2":
        raise NotImplementedError(f"replies in protocol {protocol(call.service)}")
    namespace = f"http://ec2.amazonaws.com/doc/{service_model('ec2').api_version}/"
    inner = "" if call.model.output_shape is None else _to_xml(call.model.output_shape, value)
    name = f"{call.operation}Response"
    return "text/xml", f'<{name} xmlns="{namespace}"><requestId>{request_id}</requestId>{inner}</{name}>'.encode()


def _to_xml(shape: Shape, value: Any) -> str:
    if isinstance(shape, StructureShape):
        parts = []
        for name, element in value.items():
            tag = shape.members[name].serialization.get("name", name)
            parts.append(f"<{tag}>{_to_xml(shape.members[name], element)}</{tag}>")
        return "".join(parts)
    if isinstance(shape, ListShape):
        return "".join(f"<item>{_to_xml(shape.member, element)}</item>" for element in value)
    if isinstance(value, bool):
        return str(value).lower()
    return escape(value.isoformat() if isinstance(value, datetime) else str(value))


def _json_default(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else str(value)


def write_error(service: str | None, status: int, code: str, message: str, request_id: str) -> tuple[str, bytes]:
    """Content type and body of an error, in the words of the service's protocol."""
    kind = protocol(service) if service else "query"
    if kind == "json":
        return "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message}).encode()
    text = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if kind == "ec2":
        body = f"<Response><Errors><Error>{text}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    else:
        who = "Sender" if status < 500 else "Receiver"
        body = (
            f"<ErrorResponse><Error><Type>{who}</Type>{text}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return "text/xml", body.encode()
