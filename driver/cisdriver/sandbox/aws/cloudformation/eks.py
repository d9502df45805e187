"""AWS::EKS: CloudFormation's names begin with capitals, the API's do not; else they are the same."""

from __future__ import annotations

from typing import Any

from .ec2 import kind
from .kinds import Api, Kind, Resource, handler_error, some
from .schema import Properties

#: Members whose keys are the user's, not names.
_MAPS = frozenset({"Labels", "Tags"})


def _api(value: Any) -> Any:
    """Properties as the API takes them."""
    if isinstance(value, dict):
        found = {key: element if key in _MAPS else _api(element) for key, element in value.items()}
        return {key[0].lower() + key[1:]: element for key, element in found.items()}
    return [_api(element) for element in value] if isinstance(value, list) else value


def _tags(properties: Properties) -> dict[str, str]:
    """The tags, which most types have as a list, and node groups as a map."""
    tags = properties.get("Tags", {})
    return tags if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags}


def _retag(api: Api, resource: Resource, new: Properties) -> None:
    arn = resource.attributes[_ARNS.get(resource.type, "Arn")]
    gone = sorted(set(_tags(resource.properties)) - set(_tags(new)))
    if gone:
        api.call("eks", "UntagResource", resourceArn=arn, tagKeys=gone)
    if _tags(new):
        api.call("eks", "TagResource", resourceArn=arn, tags=_tags(new))


def _follow(api: Api, update: dict[str, Any], **where: str) -> None:
    """Wait for an update. Raises HandlerError with its errors, in the words of EKS's handlers."""

    def done() -> bool:
        found = api.call("eks", "DescribeUpdate", updateId=update["id"], **where)["update"]
        if found["status"] in ("Failed", "Cancelled"):
            said = [
                f"ErrorDetail(ErrorCode={one.get('errorCode')}, ErrorMessage={one.get('errorMessage')},"
                f" ResourceIds=[{', '.join(one.get('resourceIds', []))}])"
                for one in found.get("errors", [])
            ]
            raise handler_error(f"[{', '.join(said)}]")
        return bool(found["status"] == "Successful")

    api.wait(done, f"update {update['id']}")


def _healthy(found: dict[str, Any], failed: tuple[str, ...]) -> bool:
    """Whether an object is ACTIVE. Raises HandlerError with its health issues once its status is one of ``failed``."""
    if found["status"] in failed:
        said = [
            f"Issue(Code={one['code']}, Message={one['message']},"
            f" ResourceIds=[{', '.join(one.get('resourceIds', []))}])"
            for one in found.get("health", {}).get("issues", [])
        ]
        raise handler_error(f"[{', '.join(said)}]" if said else f"status is {found['status']}")
    return bool(found["status"] == "ACTIVE")


# Cluster


def _cluster(properties: Properties) -> dict[str, Any]:
    """Parameters of CreateCluster; the one thing that has another shape is logging."""
    found: dict[str, Any] = _api(properties)
    if "Logging" in properties:
        found["logging"] = _logging(properties)
    if "Tags" in properties:
        found["tags"] = _tags(properties)
    return found


_LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")


def _logging(properties: Properties) -> dict[str, Any]:
    enabled = properties.get("Logging", {}).get("ClusterLogging", {}).get("EnabledTypes", [])
    types = [one["Type"] for one in enabled]
    others = [name for name in _LOG_TYPES if name not in types]
    setups = ((types, True), (others, False))
    return {"clusterLogging": [{"types": named, "enabled": on} for named, on in setups if named]}


def _create_cluster(api: Api, resource: Resource) -> None:
    given = _cluster(resource.properties)
    given.setdefault("name", api.name(resource, 100))
    api.call("eks", "CreateCluster", **given)
    resource.physical = given["name"]
    api.wait(lambda: _healthy(_described_cluster(api, resource), ("FAILED",)), resource.physical)


def _described_cluster(api: Api, resource: Resource) -> dict[str, Any]:
    found: dict[str, Any] = api.call("eks", "DescribeCluster", name=resource.physical)["cluster"]
    return found


def _update_cluster(api: Api, resource: Resource, new: Properties) -> None:
    """EKS takes one kind of change at a time."""
    old, name = resource.properties, resource.physical
    if new.get("Version") != old.get("Version"):
        update = api.call("eks", "UpdateClusterVersion", name=name, version=new["Version"])["update"]
        _follow(api, update, name=name)
    after = _cluster(new)
    for member in ("accessConfig", "deletionProtection", "resourcesVpcConfig", "upgradePolicy"):
        if member in after and after[member] != _cluster(old).get(member):
            _update_cluster_config(api, name, {member: after[member]})
    if _logging(new) != _logging(old):
        _update_cluster_config(api, name, {"logging": _logging(new)})
    _retag(api, resource, new)


def _update_cluster_config(api: Api, name: str, change: dict[str, Any]) -> None:
    if "accessConfig" in change:
        change = {"accessConfig": some(change["accessConfig"], "authenticationMode")}
    update = api.call("eks", "UpdateClusterConfig", name=name, **change)["update"]
    _follow(api, update, name=name)


def _delete_cluster(api: Api, resource: Resource) -> None:
    api.call("eks", "DeleteCluster", name=resource.physical)
    api.gone(lambda: _described_cluster(api, resource), resource.physical)


def _read_cluster(api: Api, resource: Resource) -> dict[str, Any]:
    found = _described_cluster(api, resource)
    ready = {
        "Arn": found["arn"],
        "Endpoint": found.get("endpoint"),
        "CertificateAuthorityData": found.get("certificateAuthority", {}).get("data"),
        "ClusterSecurityGroupId": found.get("resourcesVpcConfig", {}).get("clusterSecurityGroupId"),
        "OpenIdConnectIssuerUrl": found.get("identity", {}).get("oidc", {}).get("issuer"),
    }
    return {name: value for name, value in ready.items() if value is not None}


# Node group


def _create_nodegroup(api: Api, resource: Resource) -> None:
    given = _api(resource.properties)
    given.setdefault("nodegroupName", api.name(resource, 63))
    given.pop("forceUpdateEnabled", None)
    api.call("eks", "CreateNodegroup", **given)
    resource.physical = f"{given['clusterName']}/{given['nodegroupName']}"
    failed = ("CREATE_FAILED", "DEGRADED")
    api.wait(lambda: _healthy(_described_nodegroup(api, resource), failed), resource.physical)


def _nodegroup(resource: Resource) -> dict[str, str]:
    cluster, _, name = resource.physical.partition("/")
    return {"clusterName": cluster, "nodegroupName": name}


def _described_nodegroup(api: Api, resource: Resource) -> dict[str, Any]:
    found: dict[str, Any] = api.call("eks", "DescribeNodegroup", **_nodegroup(resource))["nodegroup"]
    return found


def _update_nodegroup(api: Api, resource: Resource, new: Properties) -> None:
    """Settings or the version, where the node group differs: a roll-back may find EKS has restored it.

    Never both, tags included: so CloudFormation's handler, as aws/containers-roadmap #1258 and aws/aws-cdk #16644 show.
    """
    wanted, here = _api(new), _nodegroup(resource)
    where = {"name": here["clusterName"], "nodegroupName": here["nodegroupName"]}
    now = _described_nodegroup(api, resource)
    change, version = _nodegroup_config(now, wanted), _nodegroup_version(now, wanted)
    if version and (change or _tags(new) != _tags(resource.properties)):
        said = "Version and ReleaseVersion updates cannot be combined with other updates"
        raise handler_error(said, code="InvalidRequest")
    if change:
        _follow(api, api.call("eks", "UpdateNodegroupConfig", **here, **change)["update"], **where)
    if version:
        force = new.get("ForceUpdateEnabled", False)
        _follow(api, api.call("eks", "UpdateNodegroupVersion", **here, **version, force=force)["update"], **where)
    _retag(api, resource, new)


def _includes(now: Any, wanted: Any) -> bool:
    """Whether what EKS says, which has more members, is what was asked for."""
    if isinstance(now, dict) and isinstance(wanted, dict):
        return all(now.get(name) == value for name, value in wanted.items())
    return bool(now == wanted)


def _nodegroup_version(now: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Parameters of UpdateNodegroupVersion that make ``now`` what is wanted; {} when it is."""
    return {
        name: wanted[name]
        for name in ("launchTemplate", "releaseVersion", "version")
        if name in wanted and not _includes(now.get(name), wanted[name])
    }


def _nodegroup_config(now: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Parameters of UpdateNodegroupConfig that make ``now`` what is wanted; {} when it is."""
    found: dict[str, Any] = {
        name: wanted[name]
        for name in ("nodeRepairConfig", "scalingConfig", "updateConfig")
        if name in wanted and not _includes(now.get(name), wanted[name])
    }
    labels, had = wanted.get("labels", {}), now.get("labels", {})
    if labels != had:
        found["labels"] = {"addOrUpdateLabels": labels, "removeLabels": sorted(set(had) - set(labels))}
    taints, stood = wanted.get("taints", []), now.get("taints", [])
    if taints != stood:
        gone = [taint for taint in stood if taint not in taints]
        found["taints"] = {"addOrUpdateTaints": taints, "removeTaints": gone}
    return found


def _delete_nodegroup(api: Api, resource: Resource) -> None:
    api.call("eks", "DeleteNodegroup", **_nodegroup(resource))

    def look() -> bool:
        found = _described_nodegroup(api, resource)
        _healthy(found, ("DELETE_FAILED",))
        return True

    api.gone(look, resource.physical)


def _read_nodegroup(api: Api, resource: Resource) -> dict[str, Any]:
    found = _described_nodegroup(api, resource)
    names = {"ClusterName": found["clusterName"], "NodegroupName": found["nodegroupName"]}
    return {"Arn": found["nodegroupArn"], "Id": resource.physical, **names}


# Add-on


def _create_addon(api: Api, resource: Resource) -> None:
    given = _addon(resource.properties)
    api.call("eks", "CreateAddon", **given)
    resource.physical = f"{given['clusterName']}|{given['addonName']}"
    failed = ("CREATE_FAILED", "DEGRADED")
    api.wait(lambda: _healthy(_described_addon(api, resource), failed), resource.physical)


def _addon(properties: Properties) -> dict[str, Any]:
    found: dict[str, Any] = _api(properties)
    found.pop("preserveOnDelete", None)
    if "Tags" in properties:
        found["tags"] = _tags(properties)
    return found


def _described_addon(api: Api, resource: Resource) -> dict[str, Any]:
    found: dict[str, Any] = api.call("eks", "DescribeAddon", **_addon_names(resource))["addon"]
    return found


def _addon_names(resource: Resource) -> dict[str, str]:
    cluster, _, name = resource.physical.partition("|")
    return {"clusterName": cluster, "addonName": name}


def _update_addon(api: Api, resource: Resource, new: Properties) -> None:
    given = {name: value for name, value in _addon(new).items() if name not in ("tags", "namespaceConfig")}
    if given != {name: value for name, value in _addon(resource.properties).items() if name in given}:
        update = api.call("eks", "UpdateAddon", **given)["update"]
        _follow(api, update, name=given["clusterName"], addonName=given["addonName"])
    _retag(api, resource, new)


def _delete_addon(api: Api, resource: Resource) -> None:
    preserve = resource.properties.get("PreserveOnDelete")
    api.call("eks", "DeleteAddon", **_addon_names(resource), preserve=preserve)
    api.gone(lambda: _described_addon(api, resource), resource.physical)


def _read_addon(api: Api, resource: Resource) -> dict[str, Any]:
    return {"Arn": _described_addon(api, resource)["addonArn"]}


# Access entries and pod identities


def _create_access(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    given = _api({name: value for name, value in wanted.items() if name != "AccessPolicies"})
    if "Tags" in wanted:
        given["tags"] = _tags(wanted)
    api.call("eks", "CreateAccessEntry", **given)
    resource.physical = f"{wanted['PrincipalArn']}|{wanted['ClusterName']}"
    _change_access_policies(api, wanted)


def _access(properties: Properties) -> dict[str, str]:
    return {"clusterName": properties["ClusterName"], "principalArn": properties["PrincipalArn"]}


def _change_access_policies(api: Api, wanted: Properties) -> None:
    where = _access(wanted)
    reply = api.call("eks", "ListAssociatedAccessPolicies", **where)
    policies = {one["policyArn"]: one["accessScope"] for one in map(_api, wanted.get("AccessPolicies", []))}
    for one in reply["associatedAccessPolicies"]:
        if one["policyArn"] not in policies:
            api.call("eks", "DisassociateAccessPolicy", **where, policyArn=one["policyArn"])
    for arn, reach in policies.items():
        api.call("eks", "AssociateAccessPolicy", **where, policyArn=arn, accessScope=reach)


def _update_access(api: Api, resource: Resource, new: Properties) -> None:
    names = ("KubernetesGroups", "Username")
    if some(new, *names) != some(resource.properties, *names):
        api.call("eks", "UpdateAccessEntry", **_access(new), **_api(some(new, *names)))
    _change_access_policies(api, new)
    _retag(api, resource, new)


def _delete_access(api: Api, resource: Resource) -> None:
    api.call("eks", "DeleteAccessEntry", **_access(resource.properties))


def _read_access(api: Api, resource: Resource) -> dict[str, Any]:
    found = api.call("eks", "DescribeAccessEntry", **_access(resource.properties))["accessEntry"]
    return {"AccessEntryArn": found["accessEntryArn"]}


def _create_identity(api: Api, resource: Resource) -> None:
    given = {**_api(resource.properties), "tags": _tags(resource.properties) or None}
    found = api.call("eks", "CreatePodIdentityAssociation", **given)["association"]
    resource.physical = found["associationArn"]
    resource.attributes = {"AssociationArn": found["associationArn"], "AssociationId": found["associationId"]}


def _identity(resource: Resource) -> dict[str, str]:
    identity = resource.attributes["AssociationId"]
    return {"clusterName": resource.properties["ClusterName"], "associationId": identity}


def _update_identity(api: Api, resource: Resource, new: Properties) -> None:
    if new["RoleArn"] != resource.properties["RoleArn"]:
        api.call("eks", "UpdatePodIdentityAssociation", **_identity(resource), roleArn=new["RoleArn"])
    _retag(api, resource, new)


def _delete_identity(api: Api, resource: Resource) -> None:
    api.call("eks", "DeletePodIdentityAssociation", **_identity(resource))


_ARNS = {"AWS::EKS::AccessEntry": "AccessEntryArn", "AWS::EKS::PodIdentityAssociation": "AssociationArn"}

KINDS: dict[str, Kind] = {
    "AWS::EKS::Cluster": kind(
        "AccessConfig BootstrapSelfManagedAddons DeletionProtection EncryptionConfig KubernetesNetworkConfig Logging"
        " Name ResourcesVpcConfig RoleArn Tags UpgradePolicy Version",
        _create_cluster,
        _delete_cluster,
        _update_cluster,
        _read_cluster,
        named="Name",
    ),
    "AWS::EKS::Nodegroup": kind(
        "AmiType CapacityType ClusterName ForceUpdateEnabled InstanceTypes Labels LaunchTemplate NodeRepairConfig"
        " NodeRole NodegroupName ReleaseVersion ScalingConfig Subnets Tags Taints UpdateConfig Version",
        _create_nodegroup,
        _delete_nodegroup,
        _update_nodegroup,
        _read_nodegroup,
        named="NodegroupName",
    ),
    "AWS::EKS::Addon": kind(
        "AddonName AddonVersion ClusterName ConfigurationValues NamespaceConfig PodIdentityAssociations"
        " PreserveOnDelete ResolveConflicts ServiceAccountRoleArn Tags",
        _create_addon,
        _delete_addon,
        _update_addon,
        _read_addon,
    ),
    "AWS::EKS::AccessEntry": kind(
        "AccessPolicies ClusterName KubernetesGroups PrincipalArn Tags Type Username",
        _create_access,
        _delete_access,
        _update_access,
        _read_access,
    ),
    "AWS::EKS::PodIdentityAssociation": kind(
        "ClusterName Namespace RoleArn ServiceAccount Tags",
        _create_identity,
        _delete_identity,
        _update_identity,
        lambda _api, resource: resource.attributes,
    ),
}
