"""The nodes of EKS's node groups: instances of the sandbox's EC2, so machines of the image's disk, that join or do not.

What EKS's Auto Scaling groups do is done by EC2's own API (the journal says ``"by": "eks"``), so that everything the
sandbox checks of RunInstances holds for nodes as well.
"""

from __future__ import annotations

import base64
import contextlib
import re
import time
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import ClientError

from . import eks_user_data
from .eks_state import Cluster, NodeGroup, Record, minor, pick
from .eks_versions import patch_of
from .images import BASE_IMAGES, BaseImage
from .world import World

#: How long a node that has joined may take to be Ready. On AWS EKS waits up to 30 minutes; nothing is pulled here.
_READY_SECONDS = 1
_JOIN_FAILURE = "Instances failed to join the kubernetes cluster"
_UNHEALTHY = "Unhealthy nodes in the kubernetes cluster"
_KERNELS = {"1.31": "6.1", "1.32": "6.1", "1.36": "6.18"}
#: Keys that instance metadata can show; EC2 refuses to launch with others where InstanceMetadataTags is on.
_METADATA_KEY = re.compile(r"[0-9a-zA-Z\-_+=,.@:]{1,255}")


class NodesError(Exception):
    """Nodes that did not come: the issue EKS reports, and its instances."""

    def __init__(self, code: str, message: str, instances: list[str]) -> None:
        super().__init__(message)
        self.code, self.message, self.instances = code, message, instances

    def issue(self) -> Record:
        return {"code": self.code, "message": self.message, "resourceIds": self.instances}


@dataclass(frozen=True)
class Launch:
    """What a group's nodes start from: a template's data, or what EKS itself would put into one."""

    image: str
    instance_type: str
    data: Record

    @property
    def user_data(self) -> bytes:
        return base64.b64decode(self.data.get("UserData", ""))


def template(world: World, region: str, wanted: Record) -> tuple[Record, Record]:
    """A launch template's name, id and version, and that version's data. Raises ClientError where EC2 has none."""
    named = {"LaunchTemplateId": wanted["id"]} if "id" in wanted else {"LaunchTemplateName": wanted["name"]}
    versions = [wanted.get("version", "$Default")]
    ec2 = world.client("ec2", region, by="eks")
    found = ec2.describe_launch_template_versions(**named, Versions=versions)["LaunchTemplateVersions"]
    if not found:
        text = f"Could not find the launch template version {versions[0]} of {wanted.get('id') or wanted.get('name')}"
        raise ClientError(
            {"Error": {"Code": "InvalidLaunchTemplateId.VersionNotFound", "Message": text}},
            "DescribeLaunchTemplateVersions",
        )
    one = found[0]
    shown = {"name": one["LaunchTemplateName"], "id": one["LaunchTemplateId"], "version": str(one["VersionNumber"])}
    return shown, one["LaunchTemplateData"]


def base_of(world: World, region: str, image: str) -> BaseImage | None:
    """The EKS image an image was baked from; None for one that was not, or that does not exist."""
    found = world.ec2(region).amis.get(image)
    origin = getattr(found, "base", image)
    return next((base for base in BASE_IMAGES if found is not None and base.id == origin), None)


def start(world: World, region: str, cluster: Cluster, group: NodeGroup, launch: Launch, count: int) -> None:
    """Start ``count`` more nodes, and note them in ``group.nodes`` whatever becomes of them.

    Raises NodesError where EC2 refuses, or where they do not join or do not become Ready.
    """
    started: dict[str, Record] = {}
    subnets = group.facts["subnets"]
    for number in range(len(group.nodes), len(group.nodes) + count):
        instance = _run(world, region, cluster, group, launch, subnets[number % len(subnets)])
        started[instance["InstanceId"]] = instance
        with world.lock:
            group.nodes[instance["InstanceId"]] = None
    base = base_of(world, region, launch.image)
    why = _obstacle(cluster, launch, base)
    if why or base is None:
        raise NodesError("NodeCreationFailure", f"{_JOIN_FAILURE} [sandbox: {why}]", list(started))
    names = {}
    for identity, instance in started.items():
        facts = _facts(world, region, group, launch, base, instance)
        cluster.server.join(facts)
        names[identity] = facts.name
        with world.lock:
            group.nodes[identity] = facts
    _wait_ready(cluster, group, names)


def _wait_ready(cluster: Cluster, group: NodeGroup, names: dict[str, str]) -> None:
    end = time.monotonic() + _READY_SECONDS
    while True:
        ready = set(cluster.server.ready_nodes(group.name))
        late = [identity for identity, name in names.items() if name not in ready]
        if not late:
            return
        if time.monotonic() > end:
            raise NodesError("NodeCreationFailure", _UNHEALTHY, late)
        time.sleep(0.05)


def _obstacle(cluster: Cluster, launch: Launch, base: BaseImage | None) -> str | None:
    """Why nodes started so would not join.

    Kubernetes' version skew policy (kubelet not newer than the API server, and at most three minor versions older) is
    held strictly; in AWS a node beyond it may still join.
    """
    if base is None:
        return f"image {launch.image} was not made from an image of EKS"
    if launch.data.get("MetadataOptions", {}).get("HttpEndpoint") == "disabled":
        return "instance metadata is off"
    if not 0 <= minor(cluster.version) - minor(base.version) <= 3:
        return f"kubelet {base.version} of the image does not go with Kubernetes {cluster.version}"
    return eks_user_data.obstacle(base.os, launch.user_data, cluster.facts)


def _run(world: World, region: str, cluster: Cluster, group: NodeGroup, launch: Launch, subnet: str) -> Record:
    data = launch.data
    request = pick(data, "BlockDeviceMappings", "EbsOptimized", "KeyName", "Monitoring")
    options = {key: value for key, value in data.get("MetadataOptions", {}).items() if key != "State"}
    tags = _tags(cluster, group, data)
    _check_metadata_tags(options, tags)
    request |= {"MetadataOptions": options} if options else {}
    request |= {"UserData": launch.user_data.decode()} if launch.user_data else {}
    groups = data.get("SecurityGroupIds") or [cluster.facts["resourcesVpcConfig"]["clusterSecurityGroupId"]]
    if "NetworkInterfaces" in data:
        interfaces = [{"Groups": groups, **one, "SubnetId": subnet} for one in data["NetworkInterfaces"]]
        request["NetworkInterfaces"] = interfaces
    else:
        request |= {"SecurityGroupIds": groups, "SubnetId": subnet}
    try:
        reply = world.client("ec2", region, by="eks").run_instances(
            ImageId=launch.image,
            InstanceType=launch.instance_type,
            MinCount=1,
            MaxCount=1,
            IamInstanceProfile={"Name": profile_name(group)},
            TagSpecifications=[{"ResourceType": kind, "Tags": pairs} for kind, pairs in tags.items()],
            **request,
        )
    except ClientError as error:
        raise _launch_failure(error.response["Error"]["Code"], error.response["Error"]["Message"]) from error
    instance: Record = reply["Instances"][0]
    return instance


def _launch_failure(code: str, message: str) -> NodesError:
    text = f"Could not launch On-Demand Instances. {code} - {message}. Launching EC2 instance failed."
    return NodesError("AmiIdNotFound" if code.startswith("InvalidAMIID") else "AsgInstanceLaunchFailures", text, [])


def _tags(cluster: Cluster, group: NodeGroup, data: Record) -> dict[str, list[Record]]:
    """Tags by resource type: the template's, and on instances those by which EKS knows its own."""
    own = {
        "eks:cluster-name": cluster.name,
        "eks:nodegroup-name": group.name,
        f"kubernetes.io/cluster/{cluster.name}": "owned",
        "k8s.io/cluster-autoscaler/enabled": "true",
        f"k8s.io/cluster-autoscaler/{cluster.name}": "owned",
    }
    given = {one["ResourceType"]: one["Tags"] for one in data.get("TagSpecifications", [])}
    instance = {tag["Key"]: tag["Value"] for tag in given.get("instance", [])} | own
    return {**given, "instance": [{"Key": key, "Value": value} for key, value in instance.items()]}


def _check_metadata_tags(options: Record, tags: dict[str, list[Record]]) -> None:
    """EC2 refuses keys with a slash where metadata shows tags, so EKS cannot launch (eksctl #7948, aws-cli #8825)."""
    if options.get("InstanceMetadataTags") != "enabled":
        return
    for key in (tag["Key"] for tag in tags["instance"]):
        if not _METADATA_KEY.fullmatch(key):
            text = (
                f"'{key}' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{{1,255}}), "
                "and must not be a reserved name ('.', '..', '_index')"
            )
            raise _launch_failure("InvalidParameterValue", text)


def _facts(world: World, region: str, group: NodeGroup, launch: Launch, base: BaseImage, instance: Record) -> Any:
    from cisdriver.sandbox.kubernetes import NodeFacts

    al2 = base.os == "al2"
    kernel = "5.10" if al2 else _KERNELS.get(base.version, "6.12")
    labels = {**eks_user_data.labels(launch.user_data), **group.facts.get("labels", {})}
    labels |= {"eks.amazonaws.com/capacityType": group.facts["capacityType"]}
    labels |= {"eks.amazonaws.com/nodegroup-image": launch.image}
    return NodeFacts(
        name=instance["PrivateDnsName"],
        group=group.name,
        instance_id=instance["InstanceId"],
        zone=instance["Placement"]["AvailabilityZone"],
        labels=labels,
        taints=[_taint(one) for one in group.facts.get("taints", [])],
        allocatable=_allocatable(world, region, launch),
        version=f"v{patch_of(base.version)}-eks-sandbox",
        os_image="Amazon Linux 2" if al2 else "Amazon Linux 2023",
        kernel=f"{kernel}.0-sandbox.{'amzn2' if al2 else 'amzn2023'}.{base.architecture}",
        instance_type=launch.instance_type,
        architecture="arm64" if base.architecture == "arm64" else "amd64",
        address=instance["PrivateIpAddress"],
    )


def relabel(cluster: Cluster, group: NodeGroup, removed: list[str]) -> None:
    """Bring the nodes that are there to the group's labels and taints. ``removed`` are labels to take away."""
    for identity, facts in group.nodes.items():
        if facts is not None:
            labels = {key: value for key, value in facts.labels.items() if key not in removed}
            labels |= group.facts.get("labels", {})
            taints = [_taint(one) for one in group.facts.get("taints", [])]
            changed = replace(facts, labels=labels, taints=taints)
            cluster.server.join(changed)
            group.nodes[identity] = changed


def _taint(one: Record) -> Record:
    """EKS writes NO_SCHEDULE where Kubernetes writes NoSchedule."""
    effect = "".join(word.capitalize() for word in one["effect"].split("_"))
    return {"key": one["key"], "value": one.get("value", ""), "effect": effect}


def _allocatable(world: World, region: str, launch: Launch) -> dict[str, str]:
    """What kubelet leaves to pods, by the formulas of EKS's images (nodeadm, ``internal/kubelet/config.go``)."""
    ec2 = world.client("ec2", region, by="eks")
    kind = ec2.describe_instance_types(InstanceTypes=[launch.instance_type])["InstanceTypes"][0]
    network, cores = kind["NetworkInfo"], kind["VCpuInfo"]["DefaultVCpus"]
    pods = network["MaximumNetworkInterfaces"] * (network["Ipv4AddressesPerInterface"] - 1) + 2
    reserved = 60 + 10 * (cores > 1) + 5 * min(max(cores - 2, 0), 2) + 2.5 * max(cores - 4, 0)
    memory = kind["MemoryInfo"]["SizeInMiB"] - (11 * pods + 255) - 100
    return {"cpu": f"{int(cores * 1000 - reserved)}m", "memory": f"{memory}Mi", "pods": str(pods)}


def stop(world: World, region: str, cluster: Cluster, group: NodeGroup, instances: list[str]) -> None:
    """Take nodes away: out of the cluster, then terminated."""
    for identity in instances:
        facts = group.nodes.get(identity)
        if facts is not None:
            cluster.server.leave(facts.name)
    if instances:
        world.client("ec2", region, by="eks").terminate_instances(InstanceIds=instances)
    with world.lock:
        for identity in instances:
            group.nodes.pop(identity, None)


def profile_name(group: NodeGroup) -> str:
    """EKS makes an instance profile for the role of each node group, named like its Auto Scaling group."""
    return str(group.facts["resources"]["autoScalingGroups"][0]["name"])


def make_profile(world: World, region: str, group: NodeGroup) -> None:
    iam = world.client("iam", region, by="eks")
    iam.create_instance_profile(InstanceProfileName=profile_name(group))
    role = group.facts["nodeRole"].rpartition("/")[2]
    iam.add_role_to_instance_profile(InstanceProfileName=profile_name(group), RoleName=role)


def remove_profile(world: World, region: str, group: NodeGroup) -> None:
    iam = world.client("iam", region, by="eks")
    role = group.facts["nodeRole"].rpartition("/")[2]
    with contextlib.suppress(ClientError):  # somebody took the role away first
        iam.remove_role_from_instance_profile(InstanceProfileName=profile_name(group), RoleName=role)
    with contextlib.suppress(ClientError):
        iam.delete_instance_profile(InstanceProfileName=profile_name(group))
