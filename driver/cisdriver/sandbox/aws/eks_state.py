"""The state of EKS in the sandbox, and what all of its operations do alike.

moto's EKS has no add-ons, access entries, updates, versions, endpoints or instances, and no status but ACTIVE, so it
is not used: the records here are the members of botocore's shapes, kept as they are answered.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.utilities.utils import get_partition

from .wire import Call, error_status
from .world import AwsError, World

if TYPE_CHECKING:
    from cisdriver.sandbox.kubernetes import ApiServer, NodeFacts

Record = dict[str, Any]
_PAGE = 100


@dataclass
class NodeGroup:
    """``facts`` as DescribeNodegroup gives it; ``nodes`` has who joined by instance id, None for who did not."""

    facts: Record
    nodes: dict[str, NodeFacts | None] = field(default_factory=dict)
    updates: dict[str, Record] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.facts["nodegroupName"])


@dataclass
class AddOn:
    facts: Record
    updates: dict[str, Record] = field(default_factory=dict)


@dataclass
class Cluster:
    """``facts`` as DescribeCluster gives it; the rest is keyed by what the API names it with."""

    facts: Record
    server: ApiServer
    groups: dict[str, NodeGroup] = field(default_factory=dict)
    add_ons: dict[str, AddOn] = field(default_factory=dict)
    entries: dict[str, Record] = field(default_factory=dict)
    policies: dict[str, dict[str, Record]] = field(default_factory=dict)
    associations: dict[str, Record] = field(default_factory=dict)
    updates: dict[str, Record] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.facts["name"])

    @property
    def version(self) -> str:
        return str(self.facts["version"])


def refusal(code: str, message: str) -> AwsError:
    """An error of EKS with the HTTP status its model gives it."""
    return AwsError(error_status("eks", code), code, message)


def invalid(message: str) -> AwsError:
    return refusal("InvalidParameterException", message)


def cluster_of(world: World, call: Call) -> Cluster:
    """The cluster a request names, as ``name`` or ``clusterName``."""
    name = call.parameters.get("clusterName") or call.parameters.get("name")
    found = world.clusters.get((call.region, str(name)))
    if found is None:
        raise refusal("ResourceNotFoundException", f"No cluster found for name: {name}.")
    return found


def now() -> datetime:
    return datetime.now(UTC)


def arn(call: Call, resource: str) -> str:
    return f"arn:{get_partition(call.region)}:eks:{call.region}:{DEFAULT_ACCOUNT_ID}:{resource}"


def tagged(call: Call) -> Record:
    """The record's ``tags``; left out where there are none, for botocore's model asks for at least one."""
    tags = call.parameters.get("tags") or {}
    refuse_reserved(tags)
    return {"tags": dict(tags)} if tags else {}


def refuse_reserved(tags: Iterable[str]) -> None:
    reserved = [key for key in tags if key.lower().startswith("aws:")]
    if reserved:
        raise invalid(f"Tag keys starting with 'aws:' are reserved for internal use: {reserved[0]}")


def refuse_unserved(call: Call, *members: str) -> None:
    """What the sandbox would have to ignore is answered with 501, as an operation it does not serve."""
    for member in members:
        if member in call.parameters:
            raise AwsError(501, "NotImplemented", f"the sandbox does not serve {member} of eks {call.operation}")


def pick(given: Record, *members: str) -> Record:
    """Those members that were given."""
    return {member: given[member] for member in members if member in given}


def page(call: Call, member: str, items: list[Any]) -> Record:
    """One page of a list; the token is the index of the next."""
    start = int(call.parameters.get("nextToken") or 0)
    end = start + int(call.parameters.get("maxResults") or _PAGE)
    more = {"nextToken": str(end)} if end < len(items) else {}
    return {member: items[start:end], **more}


def new_update(kind: str, params: dict[str, Any]) -> Record:
    """An update that is under way; whoever carries it out sets ``status`` and ``errors``."""
    listed = [{"type": key, "value": _text(value)} for key, value in params.items()]
    record = {"id": str(uuid.uuid4()), "status": "InProgress", "type": kind, "params": listed}
    return {**record, "createdAt": now(), "errors": []}


def done(update: Record) -> Record:
    """The reply to an update that needs no time: it says InProgress, as AWS does, and is Successful from then on."""
    reply = dict(update)
    update["status"] = "Successful"
    return {"update": reply}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def role(arn_of_role: str) -> Any | None:
    """moto's role of an ARN, or None."""
    partition = arn_of_role.split(":")[1] if arn_of_role.count(":") >= 5 else "aws"
    roles = iam_backends[DEFAULT_ACCOUNT_ID][partition].roles.values()
    return next((one for one in roles if one.arn == arn_of_role), None)


def trusts(found: Any, service: str) -> bool:
    """Whether a service may assume a role; in China EC2's principal ends with ``.cn``."""
    document = found.assume_role_policy_document
    policy = json.loads(document) if isinstance(document, str) else document
    statements = policy.get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        named = [services] if isinstance(services, str) else services
        if statement.get("Effect") == "Allow" and {service, f"{service}.cn"} & set(named):
            return True
    return False


def minor(version: str) -> int:
    """The 33 of 1.33."""
    return int(version.split(".")[1])
