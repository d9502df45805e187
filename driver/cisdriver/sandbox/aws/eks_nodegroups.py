"""EKS: managed node groups. Their nodes come and go in a thread of each request, as AWS works on after its reply."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable

import yaml
from botocore.exceptions import ClientError

from . import eks_access, eks_nodes, eks_rollouts, eks_versions
from .eks_nodes import Launch
from .eks_state import (
    Cluster,
    NodeGroup,
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
    refuse_unserved,
    role,
    tagged,
    trusts,
)
from .images import AL2_LAST, BASE_IMAGES, RELEASE, BaseImage
from .wire import Call
from .world import Reply, World

_DEFAULT_TYPE = "AL2023_x86_64_STANDARD"
#: The AMI types whose images the sandbox has: system and architecture.
_AMI_TYPES = {
    "AL2023_x86_64_STANDARD": ("al2023", "x86_64"),
    "AL2023_ARM_64_STANDARD": ("al2023", "arm64"),
    "AL2_x86_64": ("al2", "x86_64"),
    "AL2_ARM_64": ("al2", "arm64"),
}
_SCALING = {"minSize": 1, "maxSize": 2, "desiredSize": 2}


def find(cluster: Cluster, name: str) -> NodeGroup:
    if name not in cluster.groups:
        raise refusal("ResourceNotFoundException", f"No node group found for name: {name}.")
    return cluster.groups[name]


def create_nodegroup(world: World, call: Call) -> Reply:
    cluster, wanted = cluster_of(world, call), call.parameters
    name = wanted["nodegroupName"]
    if name in cluster.groups:
        text = f"NodeGroup already exists with name {name} and cluster name {cluster.name}"
        raise refusal("ResourceInUseException", text)
    refuse_unserved(call, "warmPoolConfig", *(() if "launchTemplate" in wanted else ("remoteAccess",)))
    _check_role(wanted["nodeRole"])
    _check_subnets(world, call, cluster)
    scaling = {**_SCALING, **wanted.get("scalingConfig", {})}
    _check_scaling(scaling)
    facts = _record(call, cluster, scaling)
    launch = _first_launch(world, call, cluster, facts)
    group = NodeGroup(facts)
    cluster.groups[name] = group
    eks_access.admit_nodes(cluster, call, wanted["nodeRole"])
    reply = {"nodegroup": dict(facts)}
    eks_rollouts.in_background(eks_rollouts.create, world, call.region, cluster, group, launch)
    return reply


def _check_role(wanted: str) -> None:
    found = role(wanted)
    if found is None:
        raise invalid(f"The role with name {wanted.rpartition('/')[2]} cannot be found.")
    if not trusts(found, "ec2.amazonaws.com"):
        text = "Following required service principals [ec2.amazonaws.com] were not found in the trust relationships of "
        raise invalid(f"{text}nodeRole {wanted}")


def _check_subnets(world: World, call: Call, cluster: Cluster) -> None:
    try:
        found = world.client("ec2", call.region, by="eks").describe_subnets(SubnetIds=call.parameters["subnets"])
    except ClientError as error:
        raise invalid(error.response["Error"]["Message"]) from error
    strange = [one for one in found["Subnets"] if one["VpcId"] != cluster.facts["resourcesVpcConfig"]["vpcId"]]
    if strange:
        raise invalid(f"Subnet {strange[0]['SubnetId']} is not in the VPC of cluster {cluster.name}")


def _check_scaling(scaling: Record) -> None:
    low, want, high = scaling["minSize"], scaling["desiredSize"], scaling["maxSize"]
    if low > high:
        raise invalid(f"Minimum capacity {low} can't be greater than maximum size {high}")
    if low > want:
        raise invalid(f"Minimum capacity {low} can't be greater than desired size {want}")
    if want > high:
        raise invalid(f"Desired capacity {want} can't be greater than max size {high}")


def _record(call: Call, cluster: Cluster, scaling: Record) -> Record:
    wanted, identity = call.parameters, str(uuid.uuid4())
    name = wanted["nodegroupName"]
    return {
        "nodegroupName": name,
        "nodegroupArn": arn(call, f"nodegroup/{cluster.name}/{name}/{identity}"),
        "clusterName": cluster.name,
        "version": wanted.get("version", cluster.version),
        "createdAt": now(),
        "modifiedAt": now(),
        "status": "CREATING",
        "capacityType": wanted.get("capacityType", "ON_DEMAND"),
        "scalingConfig": scaling,
        "subnets": wanted["subnets"],
        "nodeRole": wanted["nodeRole"],
        "resources": {"autoScalingGroups": [{"name": f"eks-{name}-{identity}"}]},
        "health": {"issues": []},
        "updateConfig": wanted.get("updateConfig", {"maxUnavailable": 1}),
        **pick(wanted, "labels", "taints", "nodeRepairConfig"),
        **tagged(call),
    }


def _first_launch(world: World, call: Call, cluster: Cluster, facts: Record) -> Launch:
    """What the group's nodes start from; completes ``facts`` with it. Raises what EKS refuses."""
    wanted = call.parameters
    data: Record = {}
    if "launchTemplate" in wanted:
        facts["launchTemplate"], data = _template(world, call.region, wanted["launchTemplate"])
        _check_template(wanted, data)
    types = [data["InstanceType"]] if "InstanceType" in data else wanted.get("instanceTypes", ["t3.medium"])
    facts.update({} if "InstanceType" in data else {"instanceTypes": types})
    if "ImageId" in data:
        facts.update(amiType="CUSTOM", releaseVersion=data["ImageId"])
        return Launch(data["ImageId"], types[0], data)
    kind = wanted.get("amiType", _DEFAULT_TYPE)
    if "launchTemplate" not in wanted:
        facts["diskSize"] = wanted.get("diskSize", 20)
    base = _base(cluster, kind, facts["version"])
    facts.update(amiType=kind, releaseVersion=f"{base.version}.0-{RELEASE}")
    return Launch(base.id, types[0], {**data, "UserData": _own_user_data(cluster, base)})


def _template(world: World, region: str, wanted: Record) -> tuple[Record, Record]:
    if ("id" in wanted) == ("name" in wanted):
        raise invalid("Either the id or the name of a launch template is expected, and not both")
    try:
        return eks_nodes.template(world, region, wanted)
    except ClientError as error:
        raise refusal("InvalidRequestException", error.response["Error"]["Message"]) from error


def _check_template(wanted: Record, data: Record) -> None:
    """EKS user guide, "Customize managed nodes with launch templates": what stands in one place only."""
    interfaces = data.get("NetworkInterfaces", [])
    faults = {
        "Disk size must be specified within the launch template.": "diskSize" in wanted,
        "Remote access configuration cannot be specified with a launch template.": "remoteAccess" in wanted,
        "Launch template should not specify an instance profile. The noderole in your request will be used to "
        "construct an instance profile.": "IamInstanceProfile" in data,
        "Launch template should not specify subnets.": any("SubnetId" in one for one in interfaces),
        "Cannot specify instance types in launch template and API request": "InstanceType" in data
        and "instanceTypes" in wanted,
    }
    if "ImageId" in data:
        words = "when specifying an image id"
        faults |= {
            f"You cannot specify an AMI Type other than CUSTOM, {words} in your launch template.": (
                wanted.get("amiType", "CUSTOM") != "CUSTOM"
            ),
            f"You cannot specify a kubernetes version to use {words} to use within the launch template.": (
                "version" in wanted
            ),
            f"You cannot specify a release version to use {words} to use within the launch template.": (
                "releaseVersion" in wanted
            ),
        }
    for text, wrong in faults.items():
        if wrong:
            raise invalid(text)


def _base(cluster: Cluster, kind: str, version: str) -> BaseImage:
    """The image EKS itself takes for an AMI type. Raises its refusals, and 501 for images the sandbox lacks."""
    if kind == "CUSTOM":
        raise invalid("AMI type CUSTOM needs a launch template that specifies an image id.")
    if kind not in _AMI_TYPES:
        raise invalid(f"the sandbox has no images of AMI type {kind}; it has {', '.join(_AMI_TYPES)}")
    if not eks_versions.supported(version):
        raise invalid(f"unsupported Kubernetes version {version}")
    system, architecture = _AMI_TYPES[kind]
    if system == "al2" and minor(version) > minor(AL2_LAST):
        raise invalid(f"AMI Type {kind} is only supported for kubernetes versions {AL2_LAST} or earlier")
    if not 0 <= minor(cluster.version) - minor(version) <= 3:
        raise invalid(f"Nodegroup version {version} does not go with cluster version {cluster.version}")
    return next(
        one for one in BASE_IMAGES if (one.os, one.architecture, one.version) == (system, architecture, version)
    )


def _own_user_data(cluster: Cluster, base: BaseImage) -> str:
    """What EKS writes where the image is its own, in base64. A template's own user data is not merged into it here."""
    facts = cluster.facts
    authority = facts["certificateAuthority"]["data"]
    if base.os == "al2":
        end = f"--apiserver-endpoint {facts['endpoint']} --b64-cluster-ca {authority}"
        text = f"#!/bin/bash\n/etc/eks/bootstrap.sh {cluster.name} {end}\n"
    else:
        spec = {"name": cluster.name, "apiServerEndpoint": facts["endpoint"], "certificateAuthority": authority}
        spec["cidr"] = facts["kubernetesNetworkConfig"]["serviceIpv4Cidr"]
        document = {"apiVersion": "node.eks.aws/v1alpha1", "kind": "NodeConfig", "spec": {"cluster": spec}}
        text = yaml.safe_dump(document)
    return base64.b64encode(text.encode()).decode()


def _active(world: World, call: Call) -> tuple[Cluster, NodeGroup]:
    cluster = cluster_of(world, call)
    group = find(cluster, call.parameters["nodegroupName"])
    if group.facts["status"] != "ACTIVE":
        text = f"Nodegroup {group.name} cannot be updated as it is currently not in Active State"
        raise refusal("ResourceInUseException", text)
    return cluster, group


def describe_nodegroup(world: World, call: Call) -> Reply:
    return {"nodegroup": find(cluster_of(world, call), call.parameters["nodegroupName"]).facts}


def list_nodegroups(world: World, call: Call) -> Reply:
    return page(call, "nodegroups", sorted(cluster_of(world, call).groups))


def delete_nodegroup(world: World, call: Call) -> Reply:
    cluster = cluster_of(world, call)
    group = find(cluster, call.parameters["nodegroupName"])
    if group.facts["status"] in ("CREATING", "UPDATING", "DELETING"):
        text = f"Nodegroup {group.name} is {group.facts['status']}: wait until it is done"
        raise refusal("ResourceInUseException", text)
    eks_rollouts.settle(world, group, "DELETING")
    reply = {"nodegroup": dict(group.facts)}
    eks_rollouts.in_background(eks_rollouts.delete, world, call.region, cluster, group)
    return reply


def update_nodegroup_version(world: World, call: Call) -> Reply:
    """New nodes first, then the old ones go. Where the new ones fail, they go, and the group stays as it was."""
    cluster, group = _active(world, call)
    wanted, facts = call.parameters, group.facts
    changes: Record = {}
    if "launchTemplate" in wanted:
        if "launchTemplate" not in facts:
            raise invalid("Node group was not created with a launch template, so it cannot be updated with one")
        changes["launchTemplate"], data = _template(world, call.region, wanted["launchTemplate"])
        if changes["launchTemplate"]["id"] != facts["launchTemplate"]["id"]:
            raise invalid("You cannot change the launch template of a node group, only its version")
        _check_template(pick(wanted, "version", "releaseVersion"), data)
    launch = _next_launch(world, call, cluster, facts, changes)
    update = new_update("VersionUpdate", _version_params(changes))
    group.updates[update["id"]] = update
    facts["status"] = "UPDATING"
    reply = {"update": {**update, "errors": []}}
    eks_rollouts.in_background(eks_rollouts.replace, world, call.region, cluster, group, launch, changes, update)
    return reply


def _next_launch(world: World, call: Call, cluster: Cluster, facts: Record, changes: Record) -> Launch:
    """What the new nodes start from; completes ``changes``, which become the group's facts if they come up."""
    wanted: Record = changes.get("launchTemplate") or facts.get("launchTemplate") or {}
    data = _template(world, call.region, {"id": wanted["id"], "version": wanted["version"]})[1] if wanted else {}
    kind = data.get("InstanceType") or facts["instanceTypes"][0]
    if "ImageId" in data:
        changes.update(amiType="CUSTOM", releaseVersion=data["ImageId"], version=cluster.version)
        return Launch(data["ImageId"], kind, data)
    version = call.parameters.get("version", cluster.version)
    base = _base(cluster, facts["amiType"], version)
    changes.update(releaseVersion=f"{version}.0-{RELEASE}", version=version)
    return Launch(base.id, kind, {**data, "UserData": _own_user_data(cluster, base)})


def _version_params(changes: Record) -> Record:
    template = changes.get("launchTemplate", {})
    named = {"LaunchTemplateName": template.get("name"), "LaunchTemplateVersion": template.get("version")}
    shown = {key: value for key, value in named.items() if value}
    return shown or {"Version": changes["version"], "ReleaseVersion": changes["releaseVersion"]}


def update_nodegroup_config(world: World, call: Call) -> Reply:
    refuse_unserved(call, "warmPoolConfig")
    cluster, group = _active(world, call)
    wanted, facts = call.parameters, group.facts
    scaling = {**facts["scalingConfig"], **wanted.get("scalingConfig", {})}
    _check_scaling(scaling)
    facts.update(pick(wanted, "updateConfig", "nodeRepairConfig"))
    _relabel(facts, wanted.get("labels", {}), wanted.get("taints", {}))
    eks_nodes.relabel(cluster, group, wanted.get("labels", {}).get("removeLabels", []))
    update = new_update("ConfigUpdate", _scaling_params(wanted.get("scalingConfig", {})))
    group.updates[update["id"]] = update
    count = scaling["desiredSize"] - len(group.nodes)
    facts["scalingConfig"] = scaling
    if not count:
        return done(update)
    launch = _next_launch(world, call, cluster, facts, {})
    facts["status"] = "UPDATING"
    reply = {"update": {**update, "errors": []}}
    eks_rollouts.in_background(eks_rollouts.scale, world, call.region, cluster, group, launch, count, update)
    return reply


def _relabel(facts: Record, labels: Record, taints: Record) -> None:
    left = {**facts.get("labels", {}), **labels.get("addOrUpdateLabels", {})}
    facts["labels"] = {key: value for key, value in left.items() if key not in labels.get("removeLabels", [])}
    replaced = [*taints.get("addOrUpdateTaints", []), *taints.get("removeTaints", [])]
    keys = {(one["key"], one["effect"]) for one in replaced}
    kept = [one for one in facts.get("taints", []) if (one["key"], one["effect"]) not in keys]
    facts["taints"] = [*kept, *taints.get("addOrUpdateTaints", [])]


def _scaling_params(scaling: Record) -> Record:
    names = {"minSize": "MinSize", "maxSize": "MaxSize", "desiredSize": "DesiredSize"}
    return {names[key]: value for key, value in scaling.items()}


ANSWERS: dict[str, Callable[[World, Call], Reply]] = {
    "CreateNodegroup": create_nodegroup,
    "DeleteNodegroup": delete_nodegroup,
    "DescribeNodegroup": describe_nodegroup,
    "ListNodegroups": list_nodegroups,
    "UpdateNodegroupConfig": update_nodegroup_config,
    "UpdateNodegroupVersion": update_nodegroup_version,
}
