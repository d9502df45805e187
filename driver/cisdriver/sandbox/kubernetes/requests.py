"""A request as the API server reads it: which verb, on which kind, of which name."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import yaml

from . import kinds
from .errors import ApiError
from .kinds import Kind

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass
class Request:
    """``kind`` is None for discovery and the like. ``query`` has the last value of each parameter, ``many`` all."""

    method: str
    path: str
    verb: str = ""
    kind: Kind | None = None
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: dict[str, str] = field(default_factory=dict)
    many: dict[str, list[str]] = field(default_factory=dict)
    content_type: str = ""
    body: Any = None

    @property
    def dry_run(self) -> bool:
        options = self.body if isinstance(self.body, dict) and self.body.get("kind") == "DeleteOptions" else {}
        return bool(self.query.get("dryRun") or options.get("dryRun"))


def read(environ: dict[str, Any]) -> Request:
    """The request without its body. Raises ApiError 404 for a path, 405 for a method that there is none of."""
    many = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    query = {key: values[-1] for key, values in many.items()}
    content_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip()
    request = Request(
        environ["REQUEST_METHOD"], environ["PATH_INFO"], query=query, many=many, content_type=content_type
    )
    request.verb = _VERBS.get(request.method, "")
    return request


def resolve(request: Request) -> None:
    """Find what the path names. Raises ApiError 404 for what is not served, 405 for a method it has not."""
    parts = request.path.strip("/").split("/")
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    # A namespace's own subresources look like names of kinds in it.
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        request.namespace, rest = rest[1], rest[2:]
    request.kind = kinds.find(group, version, rest[0])
    if request.kind is None or len(rest) > 3 or (request.namespace and not request.kind.namespaced):
        raise unknown_path()
    request.name = rest[1] if len(rest) > 1 else ""
    request.subresource = rest[2] if len(rest) > 2 else ""
    if request.subresource and not request.kind.has(request.subresource):
        raise unknown_path()
    _collection_verbs(request)


def _collection_verbs(request: Request) -> None:
    watched = request.query.get("watch", "").lower() in ("true", "1")
    if not request.name:
        verbs = {"get": "watch" if watched else "list", "delete": "deletecollection", "create": "create"}
        request.verb = verbs.get(request.verb, "")
    elif request.verb == "create" and not request.subresource:
        request.verb = ""
    needs_namespace = request.kind is not None and request.kind.namespaced and request.verb not in ("list", "watch")
    if not request.verb or (needs_namespace and not request.namespace):
        raise ApiError(405, "the server does not allow this method on the requested resource", "MethodNotAllowed")


def read_body(request: Request, raw: bytes) -> None:
    """Raises ApiError 400 for a body that is neither JSON nor, where that is said, YAML."""
    if not raw:
        return
    try:
        request.body = yaml.safe_load(raw) if "yaml" in request.content_type else json.loads(raw)
    except (ValueError, yaml.YAMLError) as error:
        raise ApiError(400, f"the object provided is unrecognized: couldn't get version/kind; {error}") from error
    meta = request.body.get("metadata") if isinstance(request.body, dict) else None
    if not request.name and isinstance(meta, dict):
        # For the journal and for orders; what is made takes its name from the body itself.
        request.name = str(meta.get("name") or meta.get("generateName") or "")


def unknown_path() -> ApiError:
    return ApiError(404, "the server could not find the requested resource", details={})
