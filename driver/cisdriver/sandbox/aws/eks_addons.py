"""EKS: add-ons of a cluster. Installing one puts its workloads into the API server stand-in."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import yaml

from . import eks_access
from .eks_state import (
    AddOn,
    Cluster,
    Record,
    arn,
    cluster_of,
    done,
    invalid,
    new_update,
    now,
    page,
    pick,
    refusal,
    refuse_unserved,
    role,
    tagged,
)
from .eks_versions import ADD_ONS, owner
from .wire import Call
from .world import Reply, World

#: Where EKS puts the pods of add-ons, and of Pod Identity associations that belong to them.
_NAMESPACE = "kube-system"


def find(cluster: Cluster, name: str) -> AddOn:
    if name not in cluster.add_ons:
        raise refusal("ResourceNotFoundException", f"No addon: {name} found in cluster: {cluster.name}")
    return cluster.add_ons[name]


def create_addon(world: World, call: Call) -> Reply:
    cluster, wanted = cluster_of(world, call), call.parameters
    name = wanted["addonName"]
    refuse_unserved(call, "namespaceConfig")
    if name in cluster.add_ons:
        raise refusal("ResourceInUseException", "Addon already exists.")
    version = _version(cluster, name, wanted.get("addonVersion"))
    _check(wanted)
    facts = {
        "addonName": name,
        "clusterName": cluster.name,
        "status": "ACTIVE",
        "addonVersion": version,
        "health": {"issues": []},
        "addonArn": arn(call, f"addon/{cluster.name}/{name}/{uuid.uuid4()}"),
        "createdAt": now(),
        "modifiedAt": now(),
        "publisher": "eks",
        "owner": owner(name),
        **pick(wanted, "serviceAccountRoleArn", "configurationValues"),
        **tagged(call),
    }
    _set_associations(cluster, call, facts, wanted.get("podIdentityAssociations", []))
    cluster.server.add_on(name)
    cluster.add_ons[name] = AddOn(facts)
    return {"addon": {**facts, "status": "CREATING"}}


def _version(cluster: Cluster, name: str, wanted: str | None) -> str:
    """The version asked for, or the default one of the cluster's Kubernetes version."""
    if name not in ADD_ONS:
        raise invalid(f"Addon {name} specified is not supported")
    versions = ADD_ONS[name].versions[cluster.version]
    if wanted is not None and wanted not in versions:
        raise invalid(f"Addon version specified is not supported: {name} {wanted} in {cluster.version}")
    return wanted or versions[0]


def _check(wanted: Record) -> None:
    """Values that are neither JSON nor YAML, and roles that do not exist. The add-on's own schema is not known here."""
    account = wanted.get("serviceAccountRoleArn")
    if account and role(account) is None:
        raise invalid(f"Role provided in the request does not exist: {account}")
    try:
        values = yaml.safe_load(wanted.get("configurationValues") or "{}")
    except yaml.YAMLError as error:
        raise invalid(f"ConfigurationValue is in unexpected format: {error}") from error
    if not isinstance(values, dict):
        raise invalid("ConfigurationValue is in unexpected format: a mapping is expected")


def _set_associations(cluster: Cluster, call: Call, facts: Record, wanted: list[Record]) -> None:
    """Make the add-on's associations those of the request: all of them, or none if one is refused."""
    kept = {key: one for key, one in cluster.associations.items() if one.get("ownerArn") != facts["addonArn"]}
    before, cluster.associations = cluster.associations, kept
    try:
        made = [
            eks_access.associate(cluster, call, {**one, "namespace": _NAMESPACE}, facts["addonArn"]) for one in wanted
        ]
    except Exception:
        cluster.associations = before
        raise
    facts.pop("podIdentityAssociations", None)
    facts.update({"podIdentityAssociations": [one["associationArn"] for one in made]} if made else {})


def describe_addon(world: World, call: Call) -> Reply:
    cluster = cluster_of(world, call)
    facts = find(cluster, call.parameters["addonName"]).facts
    return {"addon": {**facts, **_health(cluster, facts["addonName"])}}


def _health(cluster: Cluster, name: str) -> Record:
    """What runs as a Deployment needs nodes: without any EKS calls the add-on degraded, not active."""
    if not ADD_ONS[name].replicas or cluster.server.add_on_ready(name):
        return {"status": "ACTIVE", "health": {"issues": []}}
    text = "The add-on is unhealthy because it doesn't have the desired number of replicas."
    return {"status": "DEGRADED", "health": {"issues": [{"code": "InsufficientNumberOfReplicas", "message": text}]}}


def list_addons(world: World, call: Call) -> Reply:
    return page(call, "addons", sorted(cluster_of(world, call).add_ons))


def update_addon(world: World, call: Call) -> Reply:
    cluster, wanted = cluster_of(world, call), call.parameters
    found = find(cluster, wanted["addonName"])
    version = _version(cluster, wanted["addonName"], wanted.get("addonVersion") or found.facts["addonVersion"])
    _check(wanted)
    if "podIdentityAssociations" in wanted:
        _set_associations(cluster, call, found.facts, wanted["podIdentityAssociations"])
    changed = pick(wanted, "serviceAccountRoleArn", "configurationValues")
    found.facts.update(changed, addonVersion=version, modifiedAt=now())
    update = new_update("AddonUpdate", {"AddonVersion": version, **_params(wanted)})
    found.updates[update["id"]] = update
    return done(update)


def _params(wanted: Record) -> dict[str, Any]:
    names = {"resolveConflicts": "ResolveConflicts", "serviceAccountRoleArn": "ServiceAccountRoleArn"}
    names |= {"configurationValues": "ConfigurationValues"}
    return {names[key]: value for key, value in wanted.items() if key in names}


def delete_addon(world: World, call: Call) -> Reply:
    cluster = cluster_of(world, call)
    facts = find(cluster, call.parameters["addonName"]).facts
    _set_associations(cluster, call, facts, [])
    if not call.parameters.get("preserve"):
        cluster.server.remove_add_on(facts["addonName"])
    del cluster.add_ons[facts["addonName"]]
    return {"addon": {**facts, "status": "DELETING"}}


ANSWERS: dict[str, Callable[[World, Call], Reply]] = {
    "CreateAddon": create_addon,
    "DeleteAddon": delete_addon,
    "DescribeAddon": describe_addon,
    "ListAddons": list_addons,
    "UpdateAddon": update_addon,
}
