# Copyright the cisdriver authors. Apache-2.0.
"""The stacks of a cluster: which there are, what became of them, and why one failed.

A stack is ours by its tag ``cisdriver:cluster``, and has its place by its name, ``<cluster>-<key>``. Keys, in the order
in which stacks are made: ``network``, ``cluster``, ``addons-first``, ``nodes-<group>``, ``addons``.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Collection
from typing import Any

TAG = "cisdriver:cluster"
_KEY = re.compile(r"network|cluster|addons-first|nodes-.+|addons")
#: CloudFormation takes no update of a stack in one of these, only its deletion. None has resources that serve.
UNUSABLE = (
    *("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED", "REVIEW_IN_PROGRESS"),
    "IMPORT_ROLLBACK_COMPLETE",
)
#: What CloudFormation says of resources that it stopped because another failed.
_CANCELLED = re.compile(r"Resource (creation|update|deletion) cancelled", re.IGNORECASE)
_POLL_SECONDS = 5.0

Stack = dict[str, Any]


class RefusedError(Exception):
    """What was asked cannot be done, and nothing was begun. The message says what to do instead."""


class StackFailedError(Exception):
    """A stack ended where it should not; the message names it, the resource, and AWS's words."""


def find(cfn: Any, cluster: str, wanted: Collection[str] = ()) -> dict[str, Stack]:
    """Our stacks of a cluster, by key.

    Raises RefusedError for a stack that is not ours and has the name of one that is ``wanted``.
    """
    found: dict[str, Stack] = {}
    for page in cfn.get_paginator("describe_stacks").paginate():
        for raw in page["Stacks"]:
            key = raw["StackName"].removeprefix(f"{cluster}-")
            if key == raw["StackName"] or not _KEY.fullmatch(key):
                continue
            stack = _plain(raw, key)
            if stack["tags"].get(TAG) == cluster:
                found[key] = stack
            elif key in wanted:
                raise RefusedError(
                    f"The stack {raw['StackName']} lacks the tag {TAG}={cluster}: cisdriver did not make it for this "
                    "cluster. Choose another name for the cluster, or delete that stack."
                )
    return dict(sorted(found.items(), key=lambda item: (order(item[0]), item[0])))


def describe(cfn: Any, stack: Stack) -> Stack:
    """The stack as it is now; of one that is gone, its last words (only the id finds a deleted stack)."""
    return _plain(cfn.describe_stacks(StackName=stack["id"])["Stacks"][0], stack["key"])


def resources(cfn: Any, stack: Stack) -> dict[str, str]:
    """Logical id to status of what a stack consists of."""
    pages = cfn.get_paginator("list_stack_resources").paginate(StackName=stack["id"])
    found = {
        one["LogicalResourceId"]: one["ResourceStatus"] for page in pages for one in page["StackResourceSummaries"]
    }
    return {name: status for name, status in found.items() if status != "DELETE_COMPLETE"}


def administrator(arn: str) -> str:
    """Logical id of the access entry of an ARN: named by the ARN, so that taking one out does not rename the others."""
    return f"Administrator{hashlib.sha256(arn.encode()).hexdigest()[:8]}"


def order(key: str) -> int:
    """Place of a key in the order in which stacks are made."""
    return ("network", "cluster", "addons-first", "nodes", "addons").index("nodes" if key.startswith("nodes-") else key)


def wait(cfn: Any, stacks: list[Stack], until: float, poll: float = _POLL_SECONDS) -> list[Stack]:
    """The same stacks once none is in progress. ``until`` is of the monotonic clock.

    Raises StackFailedError when that takes longer.
    """
    while True:
        stacks = [describe(cfn, stack) if in_progress(stack) else stack for stack in stacks]
        working = [stack for stack in stacks if in_progress(stack)]
        if not working:
            return stacks
        if time.monotonic() > until:
            names = ", ".join(f"{stack['name']} ({stack['status']})" for stack in working)
            raise StackFailedError(f"still at work: {names}. Wait for CloudFormation, then run this again")
        time.sleep(poll)


def made(key: str, stacks: dict[str, Stack]) -> bool:
    return bool(key in stacks and stacks[key]["outputs"])


def in_progress(stack: Stack) -> bool:
    status = str(stack["status"])
    return status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS"


def delete(cfn: Any, stacks: list[Stack], until: float, poll: float = _POLL_SECONDS) -> list[Stack]:
    """Delete all at once, and wait. Raises StackFailedError for the first that stays; the others are waited for."""
    for stack in stacks:
        if stack["status"] != "DELETE_IN_PROGRESS":
            cfn.delete_stack(StackName=stack["id"])
            stack["status"] = "DELETE_IN_PROGRESS"
    stacks = wait(cfn, stacks, until, poll)
    for stack in stacks:
        if stack["status"] != "DELETE_COMPLETE":
            raise StackFailedError(explain(stack, failure(cfn, stack)))
    return stacks


def failure(cfn: Any, stack: Stack) -> dict[str, str] | None:
    """What failed first in the last operation on a stack: ``{resource, type, reason}``, or None."""
    first = None
    for page in cfn.get_paginator("describe_stack_events").paginate(StackName=stack["id"]):
        for event in page["StackEvents"]:  # newest first
            own = event["ResourceType"] == "AWS::CloudFormation::Stack"
            status, reason = event["ResourceStatus"], event.get("ResourceStatusReason", "")
            if own and status in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"):
                return first
            if status.endswith("_FAILED") and not own and not _CANCELLED.search(reason):
                first = {"resource": event["LogicalResourceId"], "type": event["ResourceType"], "reason": reason}
    return first


def explain(stack: Stack, failed: dict[str, str] | None) -> str:
    """The sentence about a stack that failed."""
    if failed is None:
        return f"stack {stack['name']} is {stack['status']}: {stack['reason'] or 'CloudFormation says no more'}"
    return f"stack {stack['name']} ({stack['status']}): {failed['type']} {failed['resource']}: {failed['reason']}"


def _plain(raw: dict[str, Any], key: str) -> Stack:
    return {
        "key": key,
        "id": raw["StackId"],
        "name": raw["StackName"],
        "status": raw["StackStatus"],
        "reason": raw.get("StackStatusReason", ""),
        "created": raw["CreationTime"].isoformat(),
        "updated": raw.get("LastUpdatedTime", raw["CreationTime"]).isoformat(),
        "outputs": {one["OutputKey"]: one["OutputValue"] for one in raw.get("Outputs", [])},
        "parameters": {one["ParameterKey"]: one["ParameterValue"] for one in raw.get("Parameters", [])},
        "tags": {one["Key"]: one["Value"] for one in raw.get("Tags", [])},
    }
