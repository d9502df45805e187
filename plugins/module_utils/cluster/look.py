# Copyright the cisdriver authors. Apache-2.0.
"""What an account offers to a cluster, read and checked. Nothing is written."""

from __future__ import annotations

import re
from typing import Any

from .stacks import RefusedError

#: Zones in which EKS makes no control plane (EKS user guide, "VPC and subnet requirements").
REFUSED_ZONES = ("use1-az3", "usw1-az2", "cac1-az3")
#: Services whose endpoints a VPC without a way out needs, in the order of the network template.
ENDPOINTS = ("ec2", "ecr.api", "ecr.dkr", "sts", "eks", "eks-auth", "ssm", "ssmmessages", "inspector2", "logs")
#: An older agent of Systems Manager than 3.3.40 needs it; newer regions do not have it (Systems Manager user guide).
OPTIONAL_ENDPOINT = "ec2messages"
#: Community add-ons are not in every partition (EKS user guide, "Community add-ons"); a cluster works without this one.
OPTIONAL_ADDONS = ("metrics-server",)
_RELEASE = re.compile(r"-(1\.\d+)-v\d{8}")
_NAMES = {"al2023": re.compile(r"^amazon-eks-node-al2023-"), "al2": re.compile(r"^amazon-eks-((gpu|arm64)-)?node-1\.")}

Reply = dict[str, Any]


def minor(version: str) -> int:
    return int(version.partition(".")[2])


def zones(ec2: Any, offered: set[str] | None = None) -> list[str]:
    """Up to three zones for subnets, of those ``offered`` if given.

    Raises RefusedError when there are fewer than two.
    """
    wanted = [{"Name": "zone-type", "Values": ["availability-zone"]}, {"Name": "state", "Values": ["available"]}]
    found = ec2.describe_availability_zones(Filters=wanted)["AvailabilityZones"]
    names = sorted(zone["ZoneName"] for zone in found if zone["ZoneId"] not in REFUSED_ZONES)
    if offered is not None:
        names = [name for name in names if name in offered]
    if len(names) < 2:
        where = "that it supports" if offered is None else "that have every endpoint of a closed VPC"
        raise RefusedError(
            f"EKS needs two availability zones; found {len(names)} {where}: {', '.join(names) or 'none'}. "
            f"Choose another region{'' if offered is None else ', or a VPC with a way out (cluster_nat: one)'}."
        )
    return names[:3]


def subnets(ec2: Any, vpc: str, ids: list[str]) -> list[str]:
    """The given subnets, checked: of the VPC, in two zones or more, none where EKS refuses."""
    found = ec2.describe_subnets(SubnetIds=ids)["Subnets"]
    strange = [one["SubnetId"] for one in found if one["VpcId"] != vpc]
    if strange:
        raise RefusedError(f"Not in {vpc}: {', '.join(strange)}. Name subnets of one VPC.")
    refused = [f"{one['SubnetId']} ({one['AvailabilityZoneId']})" for one in found if _zone(one) in REFUSED_ZONES]
    if refused:
        raise RefusedError(f"EKS makes no control plane in the zone of {', '.join(refused)}. Name others.")
    places = {one["AvailabilityZone"] for one in found}
    if len(places) < 2:
        raise RefusedError(
            f"EKS needs subnets in two availability zones; all of {', '.join(ids)} lie in {', '.join(sorted(places))}. "
            "Name one in another zone too."
        )
    return ids


def private_subnets(ec2: Any, vpc: str, ids: list[str]) -> list[str]:
    """Those of the subnets without a route to an internet gateway. Raises RefusedError when there is none.

    A subnet without a route table of its own has the VPC's main one (VPC user guide, "Subnet route tables").
    """
    public: dict[str, bool] = {}
    main = False
    wanted = [{"Name": "vpc-id", "Values": [vpc]}]
    for page in ec2.get_paginator("describe_route_tables").paginate(Filters=wanted):
        for table in page["RouteTables"]:
            out = any(_is_way_out(route) for route in table["Routes"])
            for association in table.get("Associations", []):
                main = out if association.get("Main") else main
                public[association.get("SubnetId", "")] = out
    found = [one for one in ids if not public.get(one, main)]
    if not found:
        raise RefusedError(
            f"All subnets of the cluster ({', '.join(ids)}) have a route to an internet gateway; expected private ones "
            "for nodes. Name subnets by cluster_subnet_ids."
        )
    return found


def _is_way_out(route: Reply) -> bool:
    return route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("GatewayId", "").startswith("igw-")


def _zone(subnet: Reply) -> str:
    return str(subnet.get("AvailabilityZoneId", ""))


def vpc_cidrs(ec2: Any, vpc: str) -> list[str]:
    """Its IPv4 networks. botocore's ClientError for one that is not there."""
    found = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]
    return [one["CidrBlock"] for one in found.get("CidrBlockAssociationSet", [])] or [found["CidrBlock"]]


def endpoint_services(ec2: Any, region: str) -> tuple[list[str], str, set[str]]:
    """Full names of the services of ``ENDPOINTS``, and of the optional one or nothing; the zones that all of them have.

    The prefix of a name differs by partition and service.
    """
    places: dict[str, set[str]] = {}
    arguments: dict[str, Any] = {}
    while True:  # botocore has no paginator for it
        reply = ec2.describe_vpc_endpoint_services(**arguments)
        for one in reply["ServiceDetails"]:
            places.setdefault(one["ServiceName"], set()).update(one["AvailabilityZones"])
        if not reply.get("NextToken"):
            break
        arguments["NextToken"] = reply["NextToken"]
    wanted = (*ENDPOINTS, OPTIONAL_ENDPOINT)
    found = {short: next((name for name in places if name.endswith(f".{region}.{short}")), "") for short in wanted}
    optional = found.pop(OPTIONAL_ENDPOINT)
    missing = [short for short, name in found.items() if not name]
    if missing:
        raise RefusedError(
            f"{region} has no VPC endpoint for {', '.join(missing)}, so a node in a closed VPC could not work. "
            "Let the VPC out by NAT gateways instead (cluster_nat: one)."
        )
    return (
        [*found.values()],
        optional,
        set.intersection(*(places[name] for name in (*found.values(), optional) if name)),
    )


def cluster(eks: Any, name: str) -> Reply | None:
    """DescribeCluster's cluster, or None."""
    try:
        found: Reply = eks.describe_cluster(name=name)["cluster"]
    except eks.exceptions.ResourceNotFoundException:
        return None
    return found


def version(eks: Any, wanted: str) -> Reply:
    """What EKS says of a Kubernetes version. Raises RefusedError for one it does not support."""
    offered: dict[str, Reply] = {}
    for page in eks.get_paginator("describe_cluster_versions").paginate(includeAll=True):
        offered.update({one["clusterVersion"]: one for one in page["clusterVersions"]})
    supported = {name: one for name, one in offered.items() if one.get("versionStatus") != "UNSUPPORTED"}
    if wanted not in supported:
        ended = offered.get(wanted, {}).get("endOfExtendedSupportDate")
        why = f"its extended support ended on {ended:%Y-%m-%d}" if ended else "EKS does not offer it"
        raise RefusedError(
            f"Kubernetes version {wanted} is not supported: {why}. Supported here: "
            f"{', '.join(sorted(supported, key=minor))}. Bake images for one of these."
        )
    return supported[wanted]


def addons(eks: Any, kubernetes: str, wanted: dict[str, str]) -> dict[str, str]:
    """Version per add-on: the given one, or what EKS has as default for the Kubernetes version.

    Empty for one of ``OPTIONAL_ADDONS`` that EKS does not offer here.
    """
    return {name: _addon(eks, kubernetes, name, given) for name, given in wanted.items()}


def _addon(eks: Any, kubernetes: str, name: str, given: str) -> str:
    offered: dict[str, bool] = {}
    pages = eks.get_paginator("describe_addon_versions").paginate(addonName=name, kubernetesVersion=kubernetes)
    for page in pages:
        for addon in page["addons"]:
            for one in addon["addonVersions"]:
                fits = [at for at in one["compatibilities"] if at.get("clusterVersion", kubernetes) == kubernetes]
                offered[one["addonVersion"]] = any(at.get("defaultVersion") for at in fits)
    default = next((version for version, is_default in offered.items() if is_default), "")
    if given and given not in offered:
        raise RefusedError(
            f"The add-on {name} has no version {given} for Kubernetes {kubernetes}. "
            f"There is: {', '.join(list(offered)[:8]) or 'none'}. Correct cluster_addon_versions."
        )
    if not given and not offered and name in OPTIONAL_ADDONS:
        return ""
    if not given and not default:
        raise RefusedError(
            f"EKS names no default version of the add-on {name} for Kubernetes {kubernetes}. "
            "Name one by cluster_addon_versions."
        )
    return given or default


def images(ec2: Any, ids: list[str]) -> dict[str, Reply]:
    """Images by id, each with its tags as a mapping. Raises RefusedError for one that no node can start from."""
    found = {}
    for raw in ec2.describe_images(ImageIds=ids)["Images"] if ids else []:
        image = {**raw, "tags": {tag["Key"]: tag["Value"] for tag in raw.get("Tags", [])}}
        found[raw["ImageId"]] = image
        if raw["State"] != "available" or raw["RootDeviceType"] != "ebs":
            raise RefusedError(
                f"The image {raw['ImageId']} is {raw['State']}, its root device of type {raw['RootDeviceType']}; "
                "expected one that is available and has an EBS root."
            )
    missing = [identity for identity in ids if identity not in found]
    if missing:
        raise RefusedError(f"There is no image {', '.join(missing)} here that this account may use.")
    return found


def recommended(ssm: Any, os: str, architecture: str, kubernetes: str) -> str:
    """Id of the image EKS recommends; the same parameter that role image takes its base from."""
    start = f"/aws/service/eks/optimized-ami/{kubernetes}"
    if os == "al2":
        name = f"{start}/amazon-linux-2{'-arm64' if architecture == 'arm64' else ''}/recommended/image_id"
    else:
        name = f"{start}/amazon-linux-2023/{architecture}/standard/recommended/image_id"
    try:
        return str(ssm.get_parameter(Name=name)["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound as error:
        raise RefusedError(
            f"There is no SSM parameter {name}: EKS publishes no {os} image for Kubernetes {kubernetes} on "
            f"{architecture}, so there is nothing to compare with. Leave the baseline out."
        ) from error


def system(image: Reply) -> str:
    """``al2023`` or ``al2``: which way a machine of this image joins. By our tags, then by EKS's names."""
    benchmark = image["tags"].get("cisdriver:benchmark")
    if benchmark in _NAMES:
        return str(benchmark)
    for name in (image["tags"].get("cisdriver:base-name", ""), image["Name"]):
        for os, pattern in _NAMES.items():
            if pattern.match(name):
                return os
    raise RefusedError(
        f"The image {image['ImageId']} ({image['Name']}) does not tell its operating system: expected the tag "
        "cisdriver:benchmark, or a name as EKS gives. Say it by os: al2023 or al2 beside the id in cluster_images."
    )


def kubernetes_version(image: Reply) -> str:
    """The Kubernetes version an image was made for, or nothing when it does not tell."""
    for name in (image["tags"].get("cisdriver:base-name", ""), image["Name"]):
        match = _RELEASE.search(name)
        if match:
            return match[1]
    return ""


def devices(image: Reply) -> list[Reply]:
    """The image's EBS volumes as a launch template has them, encrypted; what it maps to nothing is left out.

    A device that a template names again loses its snapshot unless it is named too; only the root keeps its own,
    which may not be named.
    """
    found = []
    for mapping in image["BlockDeviceMappings"]:
        ebs = mapping.get("Ebs")
        if not ebs:
            continue
        volume = {name: ebs[name] for name in ("VolumeSize", "VolumeType", "Iops", "Throughput") if name in ebs}
        volume.update(Encrypted=True, DeleteOnTermination=True)
        if mapping["DeviceName"] != image["RootDeviceName"] and "SnapshotId" in ebs:
            volume["SnapshotId"] = ebs["SnapshotId"]
        found.append({"DeviceName": mapping["DeviceName"], "Ebs": volume})
    return found


def check_types(ec2: Any, types: list[str], architecture: str) -> None:
    """Raise RefusedError for an instance type of another architecture than the image."""
    for one in ec2.describe_instance_types(InstanceTypes=types)["InstanceTypes"]:
        fits = one["ProcessorInfo"]["SupportedArchitectures"]
        if architecture not in fits:
            raise RefusedError(
                f"Instances of type {one['InstanceType']} are {', '.join(fits)}, the image is {architecture}. "
                "Correct cluster_instance_types."
            )
