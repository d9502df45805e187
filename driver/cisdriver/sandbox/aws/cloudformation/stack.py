"""Stacks: state, events, and how they come to be, change, go back and go."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from moto.core.models import DEFAULT_ACCOUNT_ID

from ..world import AwsError
from . import schema
from .kinds import Api, HandlerError, Resource
from .plan import KINDS, Comparison, Place, Wanted
from .template import Declared, text_of

if TYPE_CHECKING:
    from ..world import World

#: Seconds a request waits for what it started, so that what is done at once is seen done at the first look.
_AT_ONCE = 20.0
_STACK = "AWS::CloudFormation::Stack"


@dataclass
class ChangeSet:
    """A planned change: ``status`` FAILED with a reason when there is nothing to do."""

    id: str
    name: str
    kind: str
    wanted: Wanted
    comparison: Comparison
    description: str
    created: datetime
    status: str
    reason: str
    execution: str


@dataclass
class _Step:
    """What an update did: enough to undo it."""

    done: str
    resource: Resource
    before: Resource | None = None
    attempted: dict[str, Any] = field(default_factory=dict)


class _FailedError(Exception):
    """A resource of the stack failed; ``verb`` says at what."""

    def __init__(self, logical: str, verb: str) -> None:
        super().__init__(logical)
        self.logical, self.verb = logical, verb

    @property
    def reason(self) -> str:
        return f"The following resource(s) failed to {self.verb}: [{self.logical}]. "


class Stack:
    """One stack. Its work is done in a thread of its own; ``wanted`` is what it was last brought to."""

    def __init__(self, world: World, region: str, name: str, wanted: Wanted) -> None:
        partition = f"arn:aws:cloudformation:{region}:{DEFAULT_ACCOUNT_ID}"
        self.place = Place(region, name, f"{partition}:stack/{name}/{uuid.uuid1()}")
        self.world, self.wanted = world, wanted
        self.created = now()
        self.updated: datetime | None = None
        self.deleted: datetime | None = None
        self.status, self.reason, self.on_failure, self.token = "REVIEW_IN_PROGRESS", "", "ROLLBACK", ""
        self.protected, self.policy = False, ""
        self.resources: dict[str, Resource] = {}
        self.outputs: dict[str, tuple[Any, str]] = {}
        self.events: list[dict[str, Any]] = []
        self.change_sets: dict[str, ChangeSet] = {}
        self._thread: threading.Thread | None = None

    # What is asked of it

    def create(self, wanted: Wanted, declared: dict[str, Declared]) -> None:
        self._go("CREATE_IN_PROGRESS", lambda: self._create(wanted, declared))

    def update(self, wanted: Wanted, declared: dict[str, Declared]) -> None:
        self.updated = now()
        for one in self.change_sets.values():  # they compare with a stack that will be no more
            one.execution = "OBSOLETE"
        self._go("UPDATE_IN_PROGRESS", lambda: self._update(wanted, declared))

    def delete(self) -> None:
        before = self._thread

        def work() -> None:
            if before:
                before.join()
            self._say("DELETE_IN_PROGRESS", "User Initiated")
            self._delete()

        self._go(None, work)

    def _go(self, status: str | None, work: Callable[[], None]) -> None:
        if status:
            self._say(status, "User Initiated")

        def run() -> None:
            try:
                work()
            except Exception as error:  # the fault is ours: a stack must not stay in progress for ever
                doing = self.status.removesuffix("_IN_PROGRESS").removesuffix("_CLEANUP").removesuffix("_COMPLETE")
                self._say(f"{doing}_FAILED", f"cisdriver sandbox: {type(error).__name__}: {error}")

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._thread.join(_AT_ONCE)

    # Creation

    def _create(self, wanted: Wanted, declared: dict[str, Declared]) -> None:
        try:
            for one in declared.values():
                self._add(wanted, one)
            self._set_outputs(wanted)
        except _FailedError as error:
            self._creation_failed(error)
            return
        self._say("CREATE_COMPLETE")

    def _creation_failed(self, error: _FailedError) -> None:
        if self.on_failure == "DO_NOTHING":
            self._say("CREATE_FAILED", error.reason)
            return
        ending = "DELETE" if self.on_failure == "DELETE" else "ROLLBACK"
        said = f"{error.reason}{'Delete' if ending == 'DELETE' else 'Rollback'} requested by user."
        self._say(f"{ending}_IN_PROGRESS", said)
        stuck = self._remove(self.resources.values(), creating=True)
        self.deleted = now()
        self._say(f"{ending}_FAILED" if stuck else f"{ending}_COMPLETE", _stuck(stuck))

    def _add(self, wanted: Wanted, declared: Declared, before: Resource | None = None) -> Resource:
        """Make a resource, new or in the place of ``before``. Raises _FailedError."""
        resource = Resource(declared.logical, declared.type, {})
        self.resources[declared.logical] = resource
        _take_policies(resource, declared)
        verb = "UPDATE" if before else "CREATE"
        said = "Requested update requires the creation of a new physical resource; hence creating one."
        self._note(resource, f"{verb}_IN_PROGRESS", said if before else "")
        with self._failing(resource, verb):
            resource.properties = self._resolved(wanted, declared)
            self._check(resource)
            KINDS[resource.type].create(self._api, resource)
            self._note(resource, f"{verb}_IN_PROGRESS", "Resource creation Initiated")
            self._read(resource)
        self._note(resource, f"{verb}_COMPLETE")
        return resource

    @contextlib.contextmanager
    def _failing(self, resource: Resource, verb: str) -> Iterator[None]:
        """What is raised inside becomes the failure of the resource, noted with its reason."""
        try:
            yield
        except (HandlerError, AwsError) as error:
            reason = error.reason if isinstance(error, HandlerError) else error.message
            self._note(resource, f"{verb}_FAILED", reason)
            raise _FailedError(resource.logical, verb.lower()) from error

    def _check(self, resource: Resource) -> None:
        wrong = schema.problems(resource.type, self.place.region, resource.properties)
        if wrong:
            said = f"Properties validation failed for resource {resource.logical} with message:"
            raise HandlerError(f"{said} [{', '.join(wrong)}]", "InvalidRequest")

    def _read(self, resource: Resource) -> None:
        resource.attributes = {**resource.attributes, **KINDS[resource.type].read(self._api, resource)}

    @property
    def _api(self) -> Api:
        return Api(self.world, self.place.region, self.place.name)

    def _resolved(self, wanted: Wanted, declared: Declared) -> dict[str, Any]:
        """The properties with what the resources before have become."""
        node = wanted.body["Resources"][declared.logical].get("Properties", {})
        value = self.place.scope(wanted, self._reference).value(node)
        return self.place.properties(declared.type, value, wanted.tags)

    def _reference(self, logical: str, attribute: str) -> Any:
        resource = self.resources[logical]
        if not attribute:
            return resource.physical
        value: Any = resource.attributes.get(attribute)
        if value is None:
            value = resource.properties
            for part in attribute.split("."):
                value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            raise HandlerError(f"the sandbox's CloudFormation does not know {attribute} of {resource.type} {logical}")
        return value

    def _set_outputs(self, wanted: Wanted) -> None:
        found = self.place.scope(wanted, self._reference).outputs()
        self.outputs = {name: (text_of(value), said) for name, (value, said) in found.items()}

    # Update

    def _update(self, wanted: Wanted, declared: dict[str, Declared]) -> None:
        steps: list[_Step] = []
        try:
            for one in declared.values():
                self._bring(wanted, one, steps)
            self._set_outputs(wanted)
        except _FailedError as error:
            self._roll_back(error, steps)
            return
        self.wanted = wanted
        self._say("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        old = [step.before for step in steps if step.done == "replaced" and step.before]
        gone = [resource for logical, resource in self.resources.items() if logical not in declared]
        for resource in gone:
            del self.resources[resource.logical]
        self._remove([*gone, *old], replacing=old)
        self._say("UPDATE_COMPLETE")

    def _bring(self, wanted: Wanted, declared: Declared, steps: list[_Step]) -> None:
        """One resource to what is wanted; the steps taken are noted before they can fail."""
        current = self.resources.get(declared.logical)
        if current is None:
            steps.append(_Step("created", Resource(declared.logical, declared.type, {})))
            try:
                self._add(wanted, declared)
            finally:
                steps[-1].resource = self.resources[declared.logical]
            return
        with self._failing(current, "UPDATE"):
            properties = self._resolved(wanted, declared)
        before = replace(current)
        kind = KINDS[current.type]
        if properties == before.properties:
            _take_policies(current, declared)
            return
        if kind.update and not schema.replaced(current.type, self.place.region, before.properties, properties):
            steps.append(_Step("updated", current, before, properties))
            _take_policies(current, declared)
            self._modify(current, before.properties, properties)
            return
        if kind.named and properties.get(kind.named) == current.properties.get(kind.named, ""):
            said = "CloudFormation cannot update a stack when a custom-named resource requires replacing."
            with self._failing(current, "UPDATE"):
                raise HandlerError(f"{said} Rename {current.physical} and update the stack again.")
        steps.append(_Step("replaced", current, current))
        try:
            self._add(wanted, declared, before=current)
        finally:
            steps[-1].resource = self.resources[declared.logical]

    def _modify(self, resource: Resource, old: dict[str, Any], new: dict[str, Any]) -> None:
        update = KINDS[resource.type].update
        assert update is not None
        self._note(resource, "UPDATE_IN_PROGRESS")
        with self._failing(resource, "UPDATE"):
            self._check(replace(resource, properties=new))
            update(self._api, replace(resource, properties=old), new)
            resource.properties = new
            self._read(resource)
        self._note(resource, "UPDATE_COMPLETE")

    def _roll_back(self, error: _FailedError, steps: list[_Step]) -> None:
        self._say("UPDATE_ROLLBACK_IN_PROGRESS", error.reason)
        made = []
        try:
            for step in reversed(steps):
                if step.done == "updated":
                    assert step.before is not None
                    self._modify(step.resource, step.attempted, step.before.properties)
                    _take_policies(step.resource, step.before)
                    continue
                made.append(step.resource)
                del self.resources[step.resource.logical]
                if step.before:
                    self.resources[step.resource.logical] = step.before
        except _FailedError as again:
            self._say("UPDATE_ROLLBACK_FAILED", again.reason)
            return
        self._say("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        self._remove(made, creating=True)
        self._say("UPDATE_ROLLBACK_COMPLETE")

    # Deletion

    def _delete(self) -> None:
        stuck = self._remove(self.resources.values())
        if stuck:
            self._say("DELETE_FAILED", _stuck(stuck))
            return
        self.deleted = now()
        self._say("DELETE_COMPLETE")

    def _remove(
        self, resources: Iterable[Resource], creating: bool = False, replacing: Iterable[Resource] = ()
    ) -> list[str]:
        """Delete in reverse order what nothing needs any more; the logical ids of what could not be deleted."""
        stuck: list[Resource] = []
        for resource in _dependents_first(resources):
            if any(resource.logical in one.depends for one in stuck):
                stuck.append(resource)
                continue
            policy = resource.replaced if resource in replacing else resource.deletion
            if policy == "Retain" or (policy == "RetainExceptOnCreate" and not creating):
                self._note(resource, "DELETE_SKIPPED")
            elif not self._remove_one(resource):
                stuck.append(resource)
        return [one.logical for one in stuck if one.status == "DELETE_FAILED"]

    def _remove_one(self, resource: Resource) -> bool:
        self._note(resource, "DELETE_IN_PROGRESS")
        try:
            if resource.physical:
                with self._api.bearing("NotFound"):
                    KINDS[resource.type].delete(self._api, resource)
        except HandlerError as error:
            self._note(resource, "DELETE_FAILED", error.reason)
            return False
        self._note(resource, "DELETE_COMPLETE")
        return True

    # Events

    def _say(self, status: str, reason: str = "") -> None:
        self._event(self.place.name, self.place.id, _STACK, status, reason, "")
        self.status, self.reason = status, reason  # last: who sees the status finds the event

    def _note(self, resource: Resource, status: str, reason: str = "") -> None:
        resource.status, resource.reason, resource.changed = status, reason, now()
        properties = json.dumps(resource.properties, default=str)
        self._event(resource.logical, resource.physical, resource.type, status, reason, properties)

    def _event(self, logical: str, physical: str, kind: str, status: str, reason: str, properties: str) -> None:
        found = {
            "StackId": self.place.id,
            "EventId": str(uuid.uuid4()),
            "StackName": self.place.name,
            "LogicalResourceId": logical,
            "PhysicalResourceId": physical,
            "ResourceType": kind,
            "Timestamp": now(),
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
            "ResourceProperties": properties,
            "ClientRequestToken": self.token,
        }
        self.events.append({name: value for name, value in found.items() if value != ""})


def now() -> datetime:
    return datetime.now(UTC)


def _stuck(names: list[str]) -> str:
    return f"The following resource(s) failed to delete: [{', '.join(names)}]. " if names else ""


def _take_policies(resource: Resource, declared: Declared | Resource) -> None:
    resource.depends, resource.deletion = declared.depends, declared.deletion
    resource.replaced = declared.replaced


def _dependents_first(resources: Iterable[Resource]) -> list[Resource]:
    """Those that still exist, each before those it depends on. One logical id may be there twice."""
    live = [one for one in resources if one.status not in ("DELETE_COMPLETE", "DELETE_SKIPPED")]
    names = {one.logical for one in live}
    graph = {one.logical: sorted(one.depends & names) for one in live}
    order = {name: number for number, name in enumerate(TopologicalSorter(graph).static_order())}
    return sorted(live, key=lambda one: order[one.logical], reverse=True)
