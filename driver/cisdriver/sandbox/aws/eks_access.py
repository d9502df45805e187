"""EKS: who may do what in a cluster. Access entries with their policies, and Pod Identity associations."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.utilities.utils import get_partition

from . import eks_versions
from .eks_state import Cluster, Record, arn, cluster_of, invalid, now, page, pick, refusal, role, tagged, trusts
from .wire import Call
from .world import Reply, World

_NODE_TYPES = {"EC2", "EC2_LINUX", "EC2_WINDOWS", "FARGATE_LINUX", "HYBRID_LINUX", "HYPERPOD_LINUX"}


def admit_creator(cluster: Cluster, call: Call) -> None:
    """What bootstrapClusterCreatorAdminPermissions does where access entries are on."""
    if cluster.facts["accessConfig"]["authenticationMode"] == "CONFIG_MAP":
        return
    # moto's GetCallerIdentity names this user, whatever the keys
    creator = f"arn:{get_partition(call.region)}:iam::{DEFAULT_ACCOUNT_ID}:user/moto"
    _add(cluster, call, creator, "STANDARD")
    policy = eks_versions.policy_arn(call, "AmazonEKSClusterAdminPolicy")
    cluster.policies[creator][policy] = _association(policy, {"type": "cluster"})


def admit_nodes(cluster: Cluster, call: Call, node_role: str) -> None:
    """Where access entries are on, EKS makes one for the role of a managed node group, and leaves it when that goes."""
    if cluster.facts["accessConfig"]["authenticationMode"] != "CONFIG_MAP" and node_role not in cluster.entries:
        _add(cluster, call, node_role, "EC2_LINUX")


def _add(cluster: Cluster, call: Call, principal: str, kind: str) -> Record:
    account_part = principal.split(":", 5)
    resource = f"access-entry/{cluster.name}/{account_part[5].split('/')[0]}/{DEFAULT_ACCOUNT_ID}/"
    entry = {
        "clusterName": cluster.name,
        "principalArn": principal,
        "kubernetesGroups": ["system:nodes"] if kind in _NODE_TYPES else [],
        "accessEntryArn": arn(call, resource + principal.rpartition("/")[2] + "/" + secrets.token_hex(16)),
        "createdAt": now(),
        "modifiedAt": now(),
        "username": "system:node:{{EC2PrivateDNSName}}" if kind in _NODE_TYPES else principal,
        "type": kind,
    }
    cluster.entries[principal], cluster.policies[principal] = entry, {}
    return entry


def _with_entries(world: World, call: Call) -> Cluster:
    cluster = cluster_of(world, call)
    if cluster.facts["accessConfig"]["authenticationMode"] == "CONFIG_MAP":
        text = (
            "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] "
            "to perform this operation."
        )
        raise refusal("InvalidRequestException", text)
    return cluster


def _entry(world: World, call: Call) -> tuple[Cluster, Record]:
    cluster = _with_entries(world, call)
    found = cluster.entries.get(call.parameters["principalArn"])
    if found is None:
        text = "The specified principalArn could not be found. You can view your available access entries with "
        raise refusal("ResourceNotFoundException", text + "'list-access-entries'.")
    return cluster, found


def create_access_entry(world: World, call: Call) -> Reply:
    cluster, wanted = _with_entries(world, call), call.parameters
    principal, kind = wanted["principalArn"], wanted.get("type", "STANDARD")
    if principal in cluster.entries:
        text = "The specified access entry resource is already in use on this cluster."
        raise refusal("ResourceInUseException", text)
    if not _exists(principal):
        raise invalid("The specified principalArn is invalid: invalid principal.")
    if kind != "STANDARD" and kind not in _NODE_TYPES:
        raise invalid(f"The specified access entry type is invalid: {kind}")
    _check_groups(wanted.get("kubernetesGroups", []))
    entry = _add(cluster, call, principal, kind)
    entry.update(pick(wanted, "kubernetesGroups", "username") | tagged(call))
    return {"accessEntry": entry}


def _exists(principal: str) -> bool:
    """Roles and users are looked up; a root or another account's principal cannot be, and passes."""
    if f":{DEFAULT_ACCOUNT_ID}:" not in principal or principal.endswith(":user/moto"):
        return principal.count(":") >= 5
    users = iam_backends[DEFAULT_ACCOUNT_ID][principal.split(":")[1]].users.values()
    return role(principal) is not None or any(one.arn == principal for one in users)


def _check_groups(groups: list[str]) -> None:
    reserved = [name for name in groups if name.startswith(("system:", "eks:", "aws:", "amazon:", "iam:"))]
    if reserved:
        raise invalid(f"The kubernetes group name {reserved[0]} is invalid, it cannot start with {reserved[0][:7]}")


def describe_access_entry(world: World, call: Call) -> Reply:
    return {"accessEntry": _entry(world, call)[1]}


def update_access_entry(world: World, call: Call) -> Reply:
    _, entry = _entry(world, call)
    _check_groups(call.parameters.get("kubernetesGroups", []))
    entry.update(pick(call.parameters, "kubernetesGroups", "username"), modifiedAt=now())
    return {"accessEntry": entry}


def delete_access_entry(world: World, call: Call) -> Reply:
    cluster, entry = _entry(world, call)
    del cluster.entries[entry["principalArn"]], cluster.policies[entry["principalArn"]]
    return {}


def list_access_entries(world: World, call: Call) -> Reply:
    cluster, policy = _with_entries(world, call), call.parameters.get("associatedPolicyArn")
    found = [one for one in cluster.entries if policy is None or policy in cluster.policies[one]]
    return page(call, "accessEntries", found)


def _association(policy: str, scope: Record) -> Record:
    return {"policyArn": policy, "accessScope": scope, "associatedAt": now(), "modifiedAt": now()}


def associate_access_policy(world: World, call: Call) -> Reply:
    cluster, entry = _entry(world, call)
    policy, scope = call.parameters["policyArn"], call.parameters["accessScope"]
    known = {eks_versions.policy_arn(call, name) for name in eks_versions.ACCESS_POLICIES}
    if policy not in known:
        raise invalid(f"The policyArn parameter does not name an access policy: {policy}")
    if entry["type"] in _NODE_TYPES:
        raise refusal("InvalidRequestException", f"Access policies cannot be associated with type {entry['type']}")
    if (scope.get("type") == "namespace") != bool(scope.get("namespaces")):
        raise invalid("namespaces must be given for the access scope namespace, and for no other")
    found = _association(policy, scope)
    cluster.policies[entry["principalArn"]][policy] = found
    who = {"clusterName": cluster.name, "principalArn": entry["principalArn"]}
    return {**who, "associatedAccessPolicy": found}


def disassociate_access_policy(world: World, call: Call) -> Reply:
    cluster, entry = _entry(world, call)
    if cluster.policies[entry["principalArn"]].pop(call.parameters["policyArn"], None) is None:
        raise refusal("ResourceNotFoundException", f"No such policy: {call.parameters['policyArn']}")
    return {}


def list_associated_access_policies(world: World, call: Call) -> Reply:
    cluster, entry = _entry(world, call)
    listed = page(call, "associatedAccessPolicies", list(cluster.policies[entry["principalArn"]].values()))
    return {"clusterName": cluster.name, "principalArn": entry["principalArn"], **listed}


def associate(cluster: Cluster, call: Call, wanted: Record, owner: str | None = None) -> Record:
    """A new Pod Identity association; ``owner`` is the ARN of the add-on it belongs to. Raises EKS's refusals."""
    for one in cluster.associations.values():
        if (one["namespace"], one["serviceAccount"]) == (wanted["namespace"], wanted["serviceAccount"]):
            raise refusal("ResourceInUseException", f"Association already exists: {one['associationId']}")
    _check_pod_role(wanted["roleArn"])
    identity = f"a-{secrets.token_hex(9)[:17]}"
    record = {
        "clusterName": cluster.name,
        "namespace": wanted["namespace"],
        "serviceAccount": wanted["serviceAccount"],
        "roleArn": wanted["roleArn"],
        "associationArn": arn(call, f"podidentityassociation/{cluster.name}/{identity}"),
        "associationId": identity,
        "createdAt": now(),
        "modifiedAt": now(),
        "disableSessionTags": wanted.get("disableSessionTags", False),
        **({"ownerArn": owner} if owner else {}),
        **pick(wanted, "targetRoleArn", "policy"),
    }
    cluster.associations[identity] = record
    return record


def _check_pod_role(wanted: str) -> None:
    found = role(wanted)
    if found is None:
        raise invalid(f"Role provided in the request does not exist: {wanted}")
    if not trusts(found, "pods.eks.amazonaws.com"):
        raise invalid("Trust policy of the role does not allow pods.eks.amazonaws.com to assume it")


def create_pod_identity_association(world: World, call: Call) -> Reply:
    cluster = cluster_of(world, call)
    record = associate(cluster, call, call.parameters)
    record.update(tagged(call))
    return {"association": record}


def _associated(world: World, call: Call) -> tuple[Cluster, Record]:
    cluster, identity = cluster_of(world, call), call.parameters["associationId"]
    if identity not in cluster.associations:
        raise refusal("ResourceNotFoundException", f"Association not found: {identity}")
    return cluster, cluster.associations[identity]


def describe_pod_identity_association(world: World, call: Call) -> Reply:
    return {"association": _associated(world, call)[1]}


def update_pod_identity_association(world: World, call: Call) -> Reply:
    _, record = _associated(world, call)
    if "roleArn" in call.parameters:
        _check_pod_role(call.parameters["roleArn"])
    record.update(pick(call.parameters, "roleArn", "disableSessionTags", "targetRoleArn", "policy"), modifiedAt=now())
    return {"association": record}


def delete_pod_identity_association(world: World, call: Call) -> Reply:
    cluster, record = _associated(world, call)
    if "ownerArn" in record:
        text = f"Association {record['associationId']} belongs to {record['ownerArn']}; delete it there"
        raise refusal("InvalidRequestException", text)
    return {"association": cluster.associations.pop(record["associationId"])}


def list_pod_identity_associations(world: World, call: Call) -> Reply:
    wanted = pick(call.parameters, "namespace", "serviceAccount")
    shown = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId", "ownerArn")
    records = [
        pick(one, *shown) for one in cluster_of(world, call).associations.values() if wanted.items() <= one.items()
    ]
    return page(call, "associations", records)


ANSWERS: dict[str, Callable[[World, Call], Reply]] = {
    "AssociateAccessPolicy": associate_access_policy,
    "CreateAccessEntry": create_access_entry,
    "CreatePodIdentityAssociation": create_pod_identity_association,
    "DeleteAccessEntry": delete_access_entry,
    "DeletePodIdentityAssociation": delete_pod_identity_association,
    "DescribeAccessEntry": describe_access_entry,
    "DescribePodIdentityAssociation": describe_pod_identity_association,
    "DisassociateAccessPolicy": disassociate_access_policy,
    "ListAccessEntries": list_access_entries,
    "ListAssociatedAccessPolicies": list_associated_access_policies,
    "ListPodIdentityAssociations": list_pod_identity_associations,
    "UpdateAccessEntry": update_access_entry,
    "UpdatePodIdentityAssociation": update_pod_identity_association,
}
