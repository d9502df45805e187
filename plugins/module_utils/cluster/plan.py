# Copyright the cisdriver authors. Apache-2.0.
"""From settings and account to what is to be deployed: stacks with their parameters, node groups, and the bill."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from . import admins, bill, look
from .stacks import TAG, RefusedError, Stack, made

#: Add-on to the parameter that carries its version, per stack.
ADDONS = {
    "addons-first": {
        "eks-pod-identity-agent": "PodIdentityAgentVersion",
        "vpc-cni": "VpcCniVersion",
        "kube-proxy": "KubeProxyVersion",
    },
    "addons": {
        "coredns": "CorednsVersion",
        "aws-ebs-csi-driver": "EbsCsiVersion",
        "metrics-server": "MetricsServerVersion",
    },
}
LOG_TYPES = {
    "api": "LogApi",
    "audit": "LogAudit",
    "authenticator": "LogAuthenticator",
    "controllerManager": "LogControllerManager",
    "scheduler": "LogScheduler",
}
#: How many minor versions a kubelet may be behind its API server (Kubernetes' version skew policy).
SKEW = 3
DEFAULT_TYPES = {"x86_64": ["m6i.large"], "arm64": ["m6g.large"]}
#: EKS takes the services' network from the private ranges; the first two are those it would choose itself.
_SERVICE_CIDRS = ("172.20.0.0/16", "10.100.0.0/16", "192.168.0.0/16")

Settings = dict[str, Any]
Group = dict[str, Any]


class Clients:
    """The clients by service: ``clients("ec2")``."""

    def __init__(self, make: Any) -> None:
        self._make, self._made = make, dict[str, Any]()

    def __call__(self, service: str) -> Any:
        if service not in self._made:
            self._made[service] = self._make(service)
        return self._made[service]


def keys(settings: Settings) -> list[str]:
    """The stacks that the settings ask for, in the order in which they are made."""
    nodes = [f"nodes-{image['group']}" for image in settings["images"]]
    if settings["existing"]:
        return nodes
    own_network = [] if settings["vpc_id"] else ["network"]
    return [*own_network, "cluster", "addons-first", *nodes, "addons"]


def check(settings: Settings) -> None:
    """Raise RefusedError for settings that are wrong by themselves."""
    _shape("cluster_name", settings["name"], r"[A-Za-z][A-Za-z0-9-]{0,49}", "a letter, then letters, digits, hyphens")
    groups = [image["group"] for image in settings["images"]]
    for group in groups:
        _shape("group of cluster_images", group, r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", "a name such as al2023-level-1")
    if not groups:
        raise RefusedError("cluster_images is empty: expected a node group with its image at least.")
    if len(set(groups)) != len(groups):
        raise RefusedError(f"cluster_images names a group twice: {', '.join(groups)}.")
    unknown = sorted(set(settings["log_types"]) - set(LOG_TYPES))
    if unknown:
        raise RefusedError(f"cluster_log_types has {', '.join(unknown)}; EKS has {', '.join(LOG_TYPES)}.")
    strange = sorted(set(settings["addon_versions"]) - {name for names in ADDONS.values() for name in names})
    if strange:
        raise RefusedError(f"cluster_addon_versions names {', '.join(strange)}, which is not deployed.")
    if bool(settings["vpc_id"]) != bool(settings["subnet_ids"]) and not settings["existing"]:
        raise RefusedError("cluster_vpc_id and cluster_subnet_ids go together: found one of them.")
    sizes = settings["nodes"]
    if not 0 <= sizes["min"] <= sizes["desired"] <= sizes["max"] or sizes["max"] < 1:
        raise RefusedError(f"cluster_nodes is {sizes}; expected min <= desired <= max, and a max of at least 1.")
    size = _network("cluster_cidr", settings["cidr"]).prefixlen
    if not 16 <= size <= 22:
        raise RefusedError(f"cluster_cidr is {settings['cidr']}; expected a network of /16 to /22, to be cut in 16.")
    for cidr in settings["public_access_cidrs"]:
        _network("cluster_public_access_cidrs", cidr)


def _shape(what: str, text: str, pattern: str, expected: str) -> None:
    if not re.fullmatch(pattern, text):
        raise RefusedError(f"{what} is {text!r}; expected {expected}.")


def _network(what: str, text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise RefusedError(f"{what}: {error}; expected an IPv4 network such as 10.20.0.0/16.") from error


def make(clients: Clients, settings: Settings, region: str, stacks: dict[str, Stack]) -> dict[str, Any]:
    """The plan, as module cluster_plan returns it. Raises RefusedError, and botocore's errors.

    A stack that is to be made anew is among ``stacks`` without parameters and outputs.
    """
    account = clients("sts").get_caller_identity()
    existing = _existing(clients, settings, stacks)
    groups = _groups(clients, settings, _asked(settings, stacks, existing), stacks)
    wanted = existing["version"] if existing else _version(settings, groups, stacks)
    support = look.version(clients("eks"), wanted)
    _skew(groups, wanted)
    parameters: dict[str, dict[str, Any]] = {}
    if not settings["existing"]:
        admins.check_maker(settings["admins"], account["Arn"], stacks)
        admins.check_there(clients, settings, stacks)
        _log_group(clients, settings, stacks)
        parameters = _shared(clients, settings, region, wanted, stacks)
    subnets = _subnets(clients, settings, existing)
    _keep_subnets(settings, groups, subnets, stacks)
    plan = {
        "partition": account["Arn"].split(":")[1],
        "account": account["Account"],
        "kubernetes_version": wanted,
        "support": support["versionStatus"],
        "end_of_standard_support": f"{support['endOfStandardSupportDate']:%Y-%m-%d}",
        "keys": keys(settings),
        "tags": {**settings["tags"], TAG: settings["name"]},
        "parameters": parameters,
        "subnet_ids": subnets,
        "existing": existing,
        "groups": groups,
        "admins": settings["admins"],
        "stacks": stacks,
    }
    plan["bill"] = bill.bill(settings, plan)
    return plan


# What there is


def _existing(clients: Clients, settings: Settings, stacks: dict[str, Stack]) -> dict[str, Any] | None:
    """The cluster to put node groups into; refuses to touch one that is not meant."""
    found = look.cluster(clients("eks"), settings["name"])
    ours = "cluster" in stacks
    if not settings["existing"]:
        if found and not ours:
            raise RefusedError(
                f"There is a cluster {settings['name']} that cisdriver did not make ({found['arn']}). Choose another "
                "name, or put node groups into it by cluster_existing."
            )
        return None
    if ours:
        raise RefusedError(f"The cluster {settings['name']} is cisdriver's own: leave cluster_existing out.")
    if not found or found["status"] not in ("ACTIVE", "UPDATING"):
        state = found["status"] if found else "not there"
        raise RefusedError(f"The cluster {settings['name']} is {state}; cluster_existing needs one that is ACTIVE.")
    if "serviceIpv4Cidr" not in found["kubernetesNetworkConfig"]:
        family = found["kubernetesNetworkConfig"].get("ipFamily", "of another kind")
        raise RefusedError(f"The network of the cluster {settings['name']} is {family}; only ipv4 is supported.")
    return {
        "arn": found["arn"],
        "version": found["version"],
        "endpoint": found["endpoint"],
        "certificate_authority": found["certificateAuthority"]["data"],
        "service_cidr": found["kubernetesNetworkConfig"]["serviceIpv4Cidr"],
        "vpc_id": found["resourcesVpcConfig"]["vpcId"],
        "subnet_ids": found["resourcesVpcConfig"]["subnetIds"],
    }


def _asked(settings: Settings, stacks: dict[str, Stack], existing: dict[str, Any] | None) -> str:
    """The version that is given, or that of the cluster which is there; empty means that the images decide."""
    present = stacks["cluster"]["parameters"].get("KubernetesVersion", "") if "cluster" in stacks else ""
    return str(settings["kubernetes_version"] or (existing or {}).get("version", "") or present)


def _log_group(clients: Clients, settings: Settings, stacks: dict[str, Stack]) -> None:
    """EKS delivers logs for a while after a cluster is gone, and makes their group again; CloudFormation would fail."""
    name = f"/aws/eks/{settings['name']}/cluster"
    found = [] if "cluster" in stacks else clients("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    if any(one["logGroupName"] == name for one in found):
        raise RefusedError(
            f"There is a log group {name} that belongs to no stack of cisdriver's, from an earlier cluster of this "
            f"name. Choose another name, or `aws logs delete-log-group --log-group-name {name}`."
        )


# Node groups


def _groups(clients: Clients, settings: Settings, asked: str, stacks: dict[str, Stack]) -> list[Group]:
    """The node groups with their images. Baselines without an id take the image EKS recommends beside the others."""
    ec2 = clients("ec2")
    given = settings["images"]
    images = look.images(ec2, sorted({one["id"] for one in given if one.get("id")}))
    groups = [_group(one, images[one["id"]]) for one in given if one.get("id")]
    for one in (one for one in given if not one.get("id")):
        if not one.get("baseline") or not groups:
            raise RefusedError(f"cluster_images: the group {one['group']} has no image id.")
        like = groups[0]["image"]
        id_ = look.recommended(
            clients("ssm"), like["os"], like["architecture"], asked or like["kubernetes_version"] or ""
        )
        groups.append(_group({**one, "os": like["os"]}, look.images(ec2, [id_])[id_]))
    for group in groups:
        types = _types(settings, group, stacks)
        if types != DEFAULT_TYPES[group["image"]["architecture"]]:
            look.check_types(ec2, types, group["image"]["architecture"])
        group["parameters"] = _node_parameters(settings, group, types)
    return groups


def _group(given: dict[str, Any], image: dict[str, Any]) -> Group:
    tags = image["tags"]
    benchmark = tags.get("cisdriver:benchmark")
    return {
        "group": given["group"],
        "key": f"nodes-{given['group']}",
        "baseline": bool(given.get("baseline")),
        "image": {
            "id": image["ImageId"],
            "name": image["Name"],
            "os": given.get("os") or look.system(image),
            "architecture": image["Architecture"],
            "level": int(tags["cisdriver:level"]) if "cisdriver:level" in tags else None,
            "benchmark": f"{benchmark}-{tags.get('cisdriver:benchmark-version')}" if benchmark else None,
            "kubernetes_version": look.kubernetes_version(image),
            "devices": look.devices(image),
        },
    }


def _types(settings: Settings, group: Group, stacks: dict[str, Stack]) -> list[str]:
    """Instance types of a group: those that are given, else those it has. A group that is there cannot change them."""
    has = _has(group, stacks, "InstanceTypes")
    given: list[str] = settings["instance_types"]
    if given and has and given != has:
        raise _fixed(group, "instance types", has, given)
    return given or has or DEFAULT_TYPES[group["image"]["architecture"]]


def _keep_subnets(settings: Settings, groups: list[Group], subnets: list[str], stacks: dict[str, Stack]) -> None:
    """A group that is there cannot change its subnets: where none are given it keeps them."""
    for group in groups:
        has = _has(group, stacks, "SubnetIds")
        if not has or not subnets or set(has) == set(subnets):
            continue
        if settings["subnet_ids"]:
            raise _fixed(group, "subnets", has, subnets)
        group["parameters"]["SubnetIds"] = ",".join(has)


def _has(group: Group, stacks: dict[str, Stack], parameter: str) -> list[str]:
    stack = stacks.get(group["key"], {"parameters": {}})
    return [text for text in stack["parameters"].get(parameter, "").split(",") if text]


def _fixed(group: Group, what: str, has: list[str], given: list[str]) -> RefusedError:
    return RefusedError(
        f"The node group {group['group']} has the {what} {', '.join(has)} and cannot change to {', '.join(given)}: "
        "that takes another group. Use a group of another name, or leave them out."
    )


def _node_parameters(settings: Settings, group: Group, types: list[str]) -> dict[str, Any]:
    return {
        "ClusterName": settings["name"],
        "NodeGroup": group["group"],
        "ImageId": group["image"]["id"],
        "InstanceTypes": ",".join(types),
        "MinSize": settings["nodes"]["min"],
        "MaxSize": settings["nodes"]["max"],
        "DesiredSize": settings["nodes"]["desired"],
        "CniPolicy": str(settings["existing"]).lower(),
        "PermissionsBoundary": settings["permissions_boundary"],
    }


# Versions


def _version(settings: Settings, groups: list[Group], stacks: dict[str, Stack]) -> str:
    """The cluster's version: what is given, else the newest of the images and what the cluster has already."""
    present = stacks["cluster"]["parameters"].get("KubernetesVersion", "") if "cluster" in stacks else ""
    known = [group["image"]["kubernetes_version"] for group in groups]
    wanted = str(settings["kubernetes_version"] or max(filter(None, [*known, present]), key=look.minor, default=""))
    if not wanted:
        raise RefusedError("No image tells its Kubernetes version. Name the cluster's by cluster_kubernetes_version.")
    if present and look.minor(wanted) < look.minor(present):
        raise RefusedError(f"The cluster runs Kubernetes {present}, and EKS cannot go back to {wanted}.")
    if present and look.minor(wanted) > look.minor(present) + 1:
        raise RefusedError(
            f"EKS updates one version at a time: the cluster runs {present}, asked is {wanted}. "
            f"Deploy images of 1.{look.minor(present) + 1} first."
        )
    return wanted


def _skew(groups: list[Group], cluster: str) -> None:
    for group in groups:
        own = group["image"]["kubernetes_version"]
        if own and not 0 <= look.minor(cluster) - look.minor(own) <= SKEW:
            raise RefusedError(
                f"The image {group['image']['id']} of the group {group['group']} is for Kubernetes {own}; a cluster of "
                f"{cluster} takes nodes of 1.{look.minor(cluster) - SKEW} to {cluster}. Bake it for {cluster}."
            )


# Network and control plane


def _subnets(clients: Clients, settings: Settings, existing: dict[str, Any] | None) -> list[str]:
    """The subnets that are given or, in an existing cluster, its private ones; empty means those of our network."""
    vpc = existing["vpc_id"] if existing else settings["vpc_id"]
    given = settings["subnet_ids"]
    if existing and not given:
        given = look.private_subnets(clients("ec2"), vpc, existing["subnet_ids"])
    return look.subnets(clients("ec2"), vpc, given) if vpc else []


def _shared(
    clients: Clients, settings: Settings, region: str, version: str, stacks: dict[str, Stack]
) -> dict[str, dict[str, Any]]:
    """Parameters of the stacks all node groups share; those that only another stack's outputs tell are left out."""
    if settings["vpc_id"] and made("network", stacks):
        raise RefusedError(f"The cluster {settings['name']} has a VPC of its own and cannot move to another.")
    if not settings["vpc_id"] and made("cluster", stacks) and "network" not in stacks:
        raise RefusedError(f"The cluster {settings['name']} is in a VPC of yours: name it by cluster_vpc_id.")
    boundary = {"ClusterName": settings["name"], "PermissionsBoundary": settings["permissions_boundary"]}
    wanted = {name: settings["addon_versions"].get(name, "") for names in ADDONS.values() for name in names}
    versions = look.addons(clients("eks"), version, wanted)
    found: dict[str, dict[str, Any]] = {
        key: {**boundary, **{parameter: versions[name] for name, parameter in names.items()}}
        for key, names in ADDONS.items()
    }
    found["cluster"] = {
        **boundary,
        "KubernetesVersion": version,
        "PublicAccessCidrs": ",".join(settings["public_access_cidrs"]),
        "ServiceCidr": _service_cidr(clients, settings, stacks.get("cluster")),
        **{parameter: str(name in settings["log_types"]).lower() for name, parameter in LOG_TYPES.items()},
    }
    if not settings["vpc_id"]:
        found["network"] = _network_parameters(clients, settings, region, stacks.get("network"))
    return found


def _network_parameters(clients: Clients, settings: Settings, region: str, present: Stack | None) -> dict[str, Any]:
    """Zones and networks of a VPC that is there stay as they are, whatever AWS lists today."""
    old = present["parameters"] if present else {}
    closed = look.endpoint_services(clients("ec2"), region) if settings["nat"] == "none" else None
    if "Zone1" in old:
        names = [old[f"Zone{number}"] for number in (1, 2, 3) if old[f"Zone{number}"]]
    else:
        names = look.zones(clients("ec2"), closed[2] if closed else None)
    if closed and not set(names) <= closed[2]:
        raise RefusedError(
            f"The VPC of {settings['name']} is in {', '.join(names)}; only {', '.join(sorted(closed[2])) or 'no zone'} "
            "has every endpoint of a closed VPC. Keep its NAT gateways (cluster_nat: one)."
        )
    if old.get("VpcCidr", settings["cidr"]) != settings["cidr"]:
        raise RefusedError(f"The VPC of {settings['name']} is {old['VpcCidr']} and cannot become {settings['cidr']}.")
    found = {
        "ClusterName": settings["name"],
        "VpcCidr": settings["cidr"],
        "SubnetBits": 28 - ipaddress.IPv4Network(settings["cidr"]).prefixlen,
        "Nat": settings["nat"],
        **{f"Zone{number}": names[number - 1] if number <= len(names) else "" for number in (1, 2, 3)},
    }
    if closed:
        found.update(EndpointServices=",".join(closed[0]), Ec2MessagesService=closed[1])
    return found


def _service_cidr(clients: Clients, settings: Settings, present: Stack | None) -> str:
    """The services' network: as it is, or the first that does not overlap with the VPC. EKS cannot change it."""
    if present and "ServiceCidr" in present["parameters"]:
        return str(present["parameters"]["ServiceCidr"])
    used = look.vpc_cidrs(clients("ec2"), settings["vpc_id"]) if settings["vpc_id"] else [settings["cidr"]]
    for cidr in _SERVICE_CIDRS:
        if not any(ipaddress.ip_network(cidr).overlaps(ipaddress.ip_network(one)) for one in used):
            return cidr
    raise RefusedError(f"The VPC's networks {', '.join(used)} leave none of {', '.join(_SERVICE_CIDRS)} for services.")
