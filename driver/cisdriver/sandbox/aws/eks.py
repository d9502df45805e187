"""EKS: clusters, their updates and tags; the table of everything EKS answers here.

A cluster's API server is a stand-in (``cisdriver.sandbox.kubernetes``); it answers when CreateCluster does. Refusals
are worded as AWS words them where a public report quotes them, and the code is AWS's in any case.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError
from moto.utilities.utils import get_partition

from . import eks_access, eks_addons, eks_nodegroups, eks_versions
from .eks_state import (
    Cluster,
    Record,
    arn,
    cluster_of,
    done,
    invalid,
    minor,
    new_update,
    now,
    page,
    pick,
    refusal,
    refuse_reserved,
    refuse_unserved,
    role,
    tagged,
    trusts,
)
from .wire import Call
from .world import Before, Reply, World

#: EKS user guide, "View Amazon EKS networking requirements for VPC and subnets": no control plane in these.
_CLOSED_ZONES = {"use1-az3", "usw1-az2", "cac1-az3"}
_LOGS = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
_SELF_MANAGED = ("vpc-cni", "kube-proxy", "coredns")
#: What a request sets and DescribeCluster shows as it was given.
_KEPT = (
    "encryptionConfig",
    "zonalShiftConfig",
    "remoteNetworkConfig",
    "deletionProtection",
    "controlPlaneScalingConfig",
    "clientRequestToken",
)
#: What UpdateClusterConfig changes, and how EKS calls the update.
_UPDATES = {
    "resourcesVpcConfig": "EndpointAccessUpdate",
    "logging": "LoggingUpdate",
    "accessConfig": "AccessConfigUpdate",
    "upgradePolicy": "UpgradePolicyUpdate",
    "deletionProtection": "DeletionProtectionUpdate",
}
_UNSERVED = (
    "computeConfig",
    "kubeApiServerConfig",
    "kubeControllerManagerConfig",
    "kubeSchedulerConfig",
    "outpostConfig",
    "storageConfig",
)


def create_cluster(world: World, call: Call) -> Reply:
    wanted, name = call.parameters, call.parameters["name"]
    if (call.region, name) in world.clusters:
        raise refusal("ResourceInUseException", f"Cluster already exists with name: {name}")
    refuse_unserved(call, *_UNSERVED)
    version = wanted.get("version", eks_versions.DEFAULT)
    if not eks_versions.supported(version):
        raise invalid(f"unsupported Kubernetes version {version}")
    _check_role(wanted["roleArn"])
    subnets = _subnets(world, call, name)
    facts = _cluster_record(call, version, subnets)  # whatever is wrong is said before anything is made
    vpc = facts["resourcesVpcConfig"]
    vpc["clusterSecurityGroupId"] = _security_group(world, call, name, vpc["vpcId"])
    server = _start_server(world, call, name, version)
    facts["endpoint"] = server.url
    facts["certificateAuthority"] = {"data": base64.b64encode(server.ca_pem.encode()).decode()}
    cluster = Cluster(facts, server)
    world.clusters[call.region, name] = cluster
    if wanted.get("bootstrapSelfManagedAddons", True):
        for add_on in _SELF_MANAGED:
            server.add_on(add_on)
    if wanted.get("accessConfig", {}).get("bootstrapClusterCreatorAdminPermissions", True):
        eks_access.admit_creator(cluster, call)
    return {"cluster": {**facts, "status": "CREATING"}}


def _check_role(wanted: str) -> None:
    found = role(wanted)
    if found is None or not trusts(found, "eks.amazonaws.com"):
        text = "could not be assumed because it does not exist or the trusted entity is not correct"
        raise invalid(f"Role with arn: {wanted}, {text}")


def _subnets(world: World, call: Call, name: str) -> list[Record]:
    """The subnets of a request, in as many zones as EKS asks for. Raises what EKS refuses them with."""
    wanted = call.parameters["resourcesVpcConfig"].get("subnetIds", [])
    ec2 = world.client("ec2", call.region, by="eks")
    try:
        found: list[Record] = ec2.describe_subnets(SubnetIds=wanted)["Subnets"] if wanted else []
    except ClientError as error:
        raise invalid(error.response["Error"]["Message"]) from error
    zones = {one["AvailabilityZone"]: one["AvailabilityZoneId"] for one in found}
    if len(zones) < 2:
        raise invalid("Subnets specified must be in at least two different AZs")
    if len({one["VpcId"] for one in found}) > 1:
        raise invalid("Subnets specified must belong to the same VPC")
    closed = sorted(zone for zone, identity in zones.items() if identity in _CLOSED_ZONES)
    if closed:
        everywhere = ec2.describe_availability_zones()["AvailabilityZones"]
        fine = ", ".join(sorted(one["ZoneName"] for one in everywhere if one["ZoneId"] not in _CLOSED_ZONES))
        text = (
            f"Cannot create cluster '{name}' because {closed[0]}, the targeted availability zone, does not currently "
            f"have sufficient capacity to support the cluster. Retry and choose from these availability zones: {fine}"
        )
        raise refusal("UnsupportedAvailabilityZoneException", text)
    return found


def _security_group(world: World, call: Call, name: str, vpc: str) -> str:
    """The cluster security group, which EKS makes and deletes itself; nodes without groups of their own get it."""
    tags = [
        {"Key": "Name", "Value": f"eks-cluster-sg-{name}"},
        {"Key": f"kubernetes.io/cluster/{name}", "Value": "owned"},
    ]
    reply = world.client("ec2", call.region, by="eks").create_security_group(
        GroupName=f"eks-cluster-sg-{name}-{secrets.randbelow(10**9)}",
        Description=f"EKS created security group applied to ENI that is attached to EKS Control Plane of {name}",
        VpcId=vpc,
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
    )
    return str(reply["GroupId"])


def _start_server(world: World, call: Call, name: str, version: str) -> Any:
    # Here, not above: only who makes a cluster needs the Kubernetes client.
    from cisdriver.sandbox.kubernetes import ApiServer

    server = ApiServer(name, version, call.region, world.directory / "kubernetes.jsonl")
    server.start()
    return server


def _cluster_record(call: Call, version: str, subnets: list[Record]) -> Record:
    wanted, name = call.parameters, call.parameters["name"]
    network = {"securityGroupIds": [], **wanted["resourcesVpcConfig"], "vpcId": subnets[0]["VpcId"]}
    suffix = "amazonaws.com.cn" if get_partition(call.region) == "aws-cn" else "amazonaws.com"
    issuer = f"https://oidc.eks.{call.region}.{suffix}/id/{secrets.token_hex(16).upper()}"
    access = {"bootstrapClusterCreatorAdminPermissions": True, "authenticationMode": "CONFIG_MAP"}
    return {
        "name": name,
        "arn": arn(call, f"cluster/{name}"),
        "createdAt": now(),
        "version": version,
        "roleArn": wanted["roleArn"],
        "resourcesVpcConfig": _access_to_endpoint(network),
        "kubernetesNetworkConfig": {**_network(subnets), **wanted.get("kubernetesNetworkConfig", {})},
        "logging": wanted.get("logging", {"clusterLogging": [{"types": _LOGS, "enabled": False}]}),
        "identity": {"oidc": {"issuer": issuer}},
        "status": "ACTIVE",
        "platformVersion": eks_versions.PLATFORM,
        "health": {"issues": []},
        "accessConfig": {**access, **wanted.get("accessConfig", {})},
        "upgradePolicy": wanted.get("upgradePolicy", {"supportType": "EXTENDED"}),
        **pick(wanted, *_KEPT),
        **tagged(call),
    }


def _network(subnets: list[Record]) -> Record:
    """The range of services: that of the two EKS knows which the VPC does not overlap."""
    usual = ipaddress.ip_network("172.20.0.0/16")
    taken = any(ipaddress.ip_network(one["CidrBlock"]).overlaps(usual) for one in subnets)
    return {"serviceIpv4Cidr": "10.100.0.0/16" if taken else str(usual), "ipFamily": "ipv4"}


def _access_to_endpoint(network: Record) -> Record:
    network = {"endpointPublicAccess": True, "endpointPrivateAccess": False, **network}
    if not network["endpointPublicAccess"] and not network["endpointPrivateAccess"]:
        raise invalid("Private and public endpoint access cannot both be disabled")
    if network["endpointPublicAccess"]:
        network.setdefault("publicAccessCidrs", ["0.0.0.0/0"])
    return network


def describe_cluster(world: World, call: Call) -> Reply:
    return {"cluster": cluster_of(world, call).facts}


def list_clusters(world: World, call: Call) -> Reply:
    return page(call, "clusters", sorted(name for region, name in world.clusters if region == call.region))


def delete_cluster(world: World, call: Call) -> Reply:
    cluster = cluster_of(world, call)
    if cluster.groups:
        raise refusal("ResourceInUseException", "Cluster has nodegroups attached")
    if cluster.facts.get("deletionProtection"):
        raise refusal("InvalidRequestException", f"Cluster {cluster.name} has deletion protection enabled")
    group = cluster.facts["resourcesVpcConfig"]["clusterSecurityGroupId"]
    world.client("ec2", call.region, by="eks").delete_security_group(GroupId=group)
    cluster.server.close()
    del world.clusters[call.region, cluster.name]
    return {"cluster": {**cluster.facts, "status": "DELETING"}}


def update_cluster_config(world: World, call: Call) -> Reply:
    """One kind of change per request, as EKS asks for; what is already so is refused, as EKS does."""
    cluster, wanted = cluster_of(world, call), call.parameters
    given = sorted(set(wanted) - {"name", "clientRequestToken"})
    if len(given) != 1 or given[0] not in _UPDATES:
        raise invalid(f"exactly one of {', '.join(_UPDATES)} is expected, found {', '.join(given) or 'none'}")
    member = given[0]
    before, change = cluster.facts.get(member, {}), wanted[member]
    after = {**before, **change} if isinstance(change, dict) else change
    if after == before:
        raise invalid(_nothing_to_do(member, before))
    if member == "resourcesVpcConfig":
        after = _access_to_endpoint(after)
    cluster.facts[member] = after
    update = new_update(_UPDATES[member], _params(member, change))
    cluster.updates[update["id"]] = update
    return done(update)


def _nothing_to_do(member: str, before: Record) -> str:
    if member == "logging":
        return "No changes needed for the logging config provided"
    if member == "resourcesVpcConfig":
        shown = ", ".join(f"{key}: {before.get(key)}" for key in ("endpointPrivateAccess", "endpointPublicAccess"))
        return f"Cluster is already at the desired configuration with {shown}"
    return f"Cluster is already at the desired configuration of {member}"


def _params(member: str, change: Any) -> Record:
    names = {"endpointPrivateAccess": "EndpointPrivateAccess", "endpointPublicAccess": "EndpointPublicAccess"}
    names |= {"publicAccessCidrs": "PublicAccessCidrs", "authenticationMode": "AuthenticationMode"}
    if member == "logging":
        return {"ClusterLogging": change}
    return {names[key]: value for key, value in change.items() if key in names} if isinstance(change, dict) else {}


def update_cluster_version(world: World, call: Call) -> Reply:
    cluster, version = cluster_of(world, call), call.parameters["version"]
    if not eks_versions.supported(version):
        raise invalid(f"unsupported Kubernetes version {version}")
    if minor(version) != minor(cluster.version) + 1:
        raise invalid(f"Unsupported Kubernetes minor version update from {cluster.version} to {version}")
    cluster.facts["version"] = version
    update = new_update("VersionUpdate", {"Version": version, "PlatformVersion": eks_versions.PLATFORM})
    cluster.updates[update["id"]] = update
    return done(update)


def _updates(world: World, call: Call) -> dict[str, Record]:
    """The updates of the cluster, or of the node group or add-on a request names."""
    if "nodegroupName" in call.parameters:
        cluster = cluster_of(world, call)
        return eks_nodegroups.find(cluster, call.parameters["nodegroupName"]).updates
    if "addonName" in call.parameters:
        return eks_addons.find(cluster_of(world, call), call.parameters["addonName"]).updates
    return cluster_of(world, call).updates


def describe_update(world: World, call: Call) -> Reply:
    found = _updates(world, call).get(call.parameters["updateId"])
    if found is None:
        raise refusal("ResourceNotFoundException", f"No update found for ID: {call.parameters['updateId']}")
    return {"update": found}


def list_updates(world: World, call: Call) -> Reply:
    return page(call, "updateIds", list(_updates(world, call)))


def _tagged_record(world: World, call: Call) -> Record:
    """The record behind an ARN: of a cluster, node group, add-on, access entry or association."""
    wanted = call.parameters["resourceArn"]
    for cluster in world.clusters.values():
        records = {cluster.facts["arn"]: cluster.facts}
        records |= {one.facts["nodegroupArn"]: one.facts for one in cluster.groups.values()}
        records |= {one.facts["addonArn"]: one.facts for one in cluster.add_ons.values()}
        records |= {one["accessEntryArn"]: one for one in cluster.entries.values()}
        records |= {one["associationArn"]: one for one in cluster.associations.values()}
        if wanted in records:
            return records[wanted]
    raise refusal("NotFoundException", f"Resource was not found: {wanted}")


def tag_resource(world: World, call: Call) -> Reply:
    refuse_reserved(call.parameters["tags"])
    _tagged_record(world, call).setdefault("tags", {}).update(call.parameters["tags"])
    return {}


def untag_resource(world: World, call: Call) -> Reply:
    record = _tagged_record(world, call)
    left = {key: value for key, value in record.get("tags", {}).items() if key not in call.parameters["tagKeys"]}
    record.pop("tags", None)
    record.update({"tags": left} if left else {})
    return {}


def list_tags_for_resource(world: World, call: Call) -> Reply:
    tags = _tagged_record(world, call).get("tags")
    return {"tags": tags} if tags else {}


def _one_at_a_time(answer: Before) -> Before:
    """Under the world's lock: requests come in threads, and node groups work in threads of their own."""

    def locked(world: World, call: Call) -> Reply | None:
        with world.lock:
            return answer(world, call)

    return locked


_ANSWERS: dict[str, Callable[[World, Call], Reply]] = {
    "CreateCluster": create_cluster,
    "DeleteCluster": delete_cluster,
    "DescribeAddonVersions": eks_versions.describe_addon_versions,
    "DescribeCluster": describe_cluster,
    "DescribeClusterVersions": eks_versions.describe_cluster_versions,
    "DescribeUpdate": describe_update,
    "ListAccessPolicies": eks_versions.list_access_policies,
    "ListClusters": list_clusters,
    "ListTagsForResource": list_tags_for_resource,
    "ListUpdates": list_updates,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "UpdateClusterConfig": update_cluster_config,
    "UpdateClusterVersion": update_cluster_version,
    **eks_access.ANSWERS,
    **eks_addons.ANSWERS,
    **eks_nodegroups.ANSWERS,
}
BEFORE: dict[tuple[str, str], Before] = {("eks", name): _one_at_a_time(answer) for name, answer in _ANSWERS.items()}
