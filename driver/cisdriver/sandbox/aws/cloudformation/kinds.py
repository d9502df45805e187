"""What a resource is while a stack lives, and how its type is made, changed and deleted by AWS's own calls."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from .schema import Properties

if TYPE_CHECKING:
    from ..world import World

#: Seconds between looks at what is being made, and until CloudFormation's own patience here ends.
_LOOK, _PATIENCE = 0.05, 900.0
#: How the SDK that CloudFormation's handlers use calls the services.
_SERVICES = {"ec2": "Ec2", "eks": "Eks", "iam": "Iam", "kms": "Kms", "logs": "CloudWatchLogs"}
#: Parts of error codes, and the handler error code that CloudFormation shows for them (CloudFormation CLI user guide,
#: "Resource handler error codes"). The first that fits counts.
_HANDLER_CODES = (
    (("NotFound", "NoSuchEntity"), "NotFound"),
    (("Duplicate", "AlreadyExists", "ResourceInUse"), "AlreadyExists"),
    (("Throttl", "RequestLimitExceeded", "TooManyRequests"), "Throttling"),
    (("LimitExceeded", "QuotaExceeded", "InsufficientInstanceCapacity"), "ServiceLimitExceeded"),
    (("AccessDenied", "UnauthorizedOperation", "ExpiredToken", "RequestExpired"), "AccessDenied"),
    (("Invalid", "Validation", "DependencyViolation", "Malformed", "Unsupported"), "InvalidRequest"),
)


class HandlerError(Exception):
    """A resource could not be made, changed or deleted: the reason as stack events show it, and its handler code."""

    def __init__(self, reason: str, code: str = "GeneralServiceException") -> None:
        super().__init__(reason)
        self.reason, self.code = reason, code


def handler_error(message: str, service: str = "", status: int = 0, code: str = "") -> HandlerError:
    """What the registry's handlers answer to an error of a service, or without one to one of their own."""
    handler_code = "GeneralServiceException"
    for parts, name in _HANDLER_CODES:
        if any(part in code for part in parts):
            handler_code = name
            break
    who = _SERVICES.get(service, service) or "null"
    request = uuid.uuid4() if service else "null"
    said = f"{message} (Service: {who}, Status Code: {status}, Request ID: {request})"
    reason = (
        f'Resource handler returned message: "{said}" (RequestToken: {uuid.uuid4()}, HandlerErrorCode: {handler_code})'
    )
    return HandlerError(reason, handler_code)


@dataclass
class Resource:
    """One resource of a stack: what was asked for last, and what it became."""

    logical: str
    type: str
    properties: Properties
    physical: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    depends: frozenset[str] = frozenset()
    deletion: str = "Delete"
    replaced: str = "Delete"
    status: str = ""
    reason: str = ""
    changed: datetime | None = None


class Api:
    """The sandbox's own API as CloudFormation's handlers call it: checked and recorded like everybody's calls."""

    def __init__(self, world: World, region: str, stack: str) -> None:
        self._world, self.region, self._stack = world, region, stack

    def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """The reply, without parameters that are None. Raises HandlerError."""
        client = self._world.client(service, self.region, "cloudformation")
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            reply: dict[str, Any] = getattr(client, xform_name(operation))(**given)
        except ClientError as error:
            said, meta = error.response["Error"], error.response["ResponseMetadata"]
            raise handler_error(said["Message"], service, meta["HTTPStatusCode"], said["Code"]) from error
        except BotoCoreError as error:
            raise handler_error(str(error)) from error
        return reply

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Until ``done()``. Raises HandlerError if it never is, or with what ``done`` raises."""
        end = time.monotonic() + _PATIENCE
        while not done():
            if time.monotonic() > end:
                raise HandlerError(f"Exceeded attempts to wait: {what}", "NotStabilized")
            time.sleep(_LOOK)

    def gone(self, look: Callable[[], Any], what: str) -> None:
        """Until ``look`` finds nothing any more."""

        def missing() -> bool:
            try:
                return not look()
            except HandlerError as error:
                if error.code != "NotFound":
                    raise
                return True

        self.wait(missing, what)

    @contextlib.contextmanager
    def bearing(self, code: str) -> Iterator[None]:
        """Bear one handler error: what was to be added is there already, or what was to go is gone."""
        try:
            yield
        except HandlerError as error:
            if error.code != code:
                raise

    def name(self, resource: Resource, longest: int = 128) -> str:
        """The name CloudFormation invents: stack, logical id and thirteen characters nobody can guess."""
        end = uuid.uuid4().hex[:13].upper()
        return f"{self._stack}-{resource.logical}"[: longest - 14] + f"-{end}"


@dataclass(frozen=True)
class Kind:
    """A resource type: the properties it takes here, and its handlers.

    ``create`` sets ``resource.physical`` as soon as AWS has named the resource, so that what fails later is deleted.
    ``update`` gets the new properties beside the resource with its old ones, and must bear that an earlier change came
    only half-way; None where every change makes a new resource. ``named`` is the property that holds a name of the
    user's choice.
    """

    properties: frozenset[str]
    create: Callable[[Api, Resource], None]
    delete: Callable[[Api, Resource], None]
    update: Callable[[Api, Resource, Properties], None] | None = None
    read: Callable[[Api, Resource], dict[str, Any]] = lambda _api, _resource: {}
    named: str = ""


def some(properties: Properties, *names: str) -> Properties:
    """Those of the named properties that are given."""
    return {name: properties[name] for name in names if name in properties}
