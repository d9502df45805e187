"""Refusals of the API server, in its words and shape (``Status``, reasons as in apimachinery's api/errors)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .kinds import Kind

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class ApiError(Exception):
    """A refusal: HTTP code, message, reason, details. ``why`` goes to the journal alone, as to a server's own log."""

    def __init__(
        self, code: int, message: str, reason: str = "", details: dict[str, Any] | None = None, why: str = ""
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.details, self.why = code, message, details, why or message
        self.reason = reason or _REASONS[code]

    def status(self) -> dict[str, Any]:
        """The reply's body."""
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        return body | ({"details": self.details} if self.details else {})

    def headers(self) -> list[tuple[str, str]]:
        seconds = (self.details or {}).get("retryAfterSeconds")
        return [("Retry-After", str(seconds))] if seconds else []


def not_found(kind: Kind, name: str) -> ApiError:
    details = {"name": name, **_where(kind)}
    return ApiError(404, f'{kind.resource} "{name}" not found', details=details)


def exists(kind: Kind, name: str) -> ApiError:
    details = {"name": name, **_where(kind)}
    return ApiError(409, f'{kind.resource} "{name}" already exists', "AlreadyExists", details)


def conflict(kind: Kind, name: str, why: str) -> ApiError:
    details = {"name": name, **_where(kind)}
    return ApiError(409, f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}', details=details)


def forbidden(kind: Kind, name: str, why: str, causes: list[dict[str, str]] | None = None) -> ApiError:
    details = {"name": name, **_where(kind), **({"causes": causes} if causes else {})}
    return ApiError(403, f'{kind.resource} "{name}" is forbidden: {why}', details=details)


def invalid(kind: Kind, name: str, problems: list[tuple[str, str]]) -> ApiError:
    """422. ``problems`` are (field, message); the message's begin tells the cause's reason."""
    causes = [{"reason": _cause(text), "message": text, "field": path} for path, text in problems]
    texts = [f"{path}: {text}" for path, text in problems]
    words = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    title = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = {"name": name, "group": kind.group, "kind": kind.kind, "causes": causes}
    return ApiError(422, f'{title} "{name}" is invalid: {words}', details=details)


def _where(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "kind": kind.plural} if kind.group else {"kind": kind.plural}


def _cause(text: str) -> str:
    reasons = {
        "Required value": "FieldValueRequired",
        "Unsupported value": "FieldValueNotSupported",
        "Duplicate value": "FieldValueDuplicate",
        "Not found": "FieldValueNotFound",
        "Forbidden": "FieldValueForbidden",
    }
    return next((reason for begin, reason in reasons.items() if text.startswith(begin)), "FieldValueInvalid")
