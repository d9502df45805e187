"""AWS::EC2: networks and launch templates. Security groups have a module of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .kinds import Api, HandlerError, Kind, Resource, handler_error, some
from .schema import Properties

Tags = list[dict[str, str]]


def tagged(resource_type: str, properties: Properties) -> list[dict[str, Any]] | None:
    """TagSpecifications of a create call; None without tags."""
    return [{"ResourceType": resource_type, "Tags": properties["Tags"]}] if properties.get("Tags") else None


def retag(api: Api, identity: str, new: Properties, old: Properties) -> None:
    kept = {tag["Key"] for tag in new.get("Tags", [])}
    gone = [{"Key": tag["Key"]} for tag in old.get("Tags", []) if tag["Key"] not in kept]
    if gone:
        api.call("ec2", "DeleteTags", Resources=[identity], Tags=gone)
    if new.get("Tags"):
        api.call("ec2", "CreateTags", Resources=[identity], Tags=new["Tags"])


def _update_tags(api: Api, resource: Resource, new: Properties) -> None:
    retag(api, resource.physical, new, resource.properties)


# VPC


def _create_vpc(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    given = some(wanted, "CidrBlock", "InstanceTenancy")
    reply = api.call("ec2", "CreateVpc", **given, TagSpecifications=tagged("vpc", wanted))
    resource.physical = reply["Vpc"]["VpcId"]
    _vpc_attributes(api, resource.physical, wanted)


def _vpc_attributes(api: Api, vpc: str, wanted: Properties) -> None:
    for name in ("EnableDnsSupport", "EnableDnsHostnames"):  # one a call, and names only work with the resolver
        if name in wanted:
            api.call("ec2", "ModifyVpcAttribute", VpcId=vpc, **{name: {"Value": wanted[name]}})


def _update_vpc(api: Api, resource: Resource, new: Properties) -> None:
    defaults = {"EnableDnsSupport": True, "EnableDnsHostnames": False}
    _vpc_attributes(api, resource.physical, {**defaults, **new})
    _update_tags(api, resource, new)


def _read_vpc(api: Api, resource: Resource) -> dict[str, Any]:
    of_vpc = [{"Name": "vpc-id", "Values": [resource.physical]}]
    groups = api.call("ec2", "DescribeSecurityGroups", Filters=of_vpc)["SecurityGroups"]
    default = next(group["GroupId"] for group in groups if group["GroupName"] == "default")
    return {"VpcId": resource.physical, "DefaultSecurityGroup": default, "CidrBlock": resource.properties["CidrBlock"]}


# Subnets, gateways, routes


def _create_subnet(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    given = some(wanted, "VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId")
    reply = api.call("ec2", "CreateSubnet", **given, TagSpecifications=tagged("subnet", wanted))
    resource.physical = reply["Subnet"]["SubnetId"]
    if "MapPublicIpOnLaunch" in wanted:
        _map_public(api, resource.physical, wanted["MapPublicIpOnLaunch"])


def _map_public(api: Api, subnet: str, value: bool) -> None:
    api.call("ec2", "ModifySubnetAttribute", SubnetId=subnet, MapPublicIpOnLaunch={"Value": value})


def _update_subnet(api: Api, resource: Resource, new: Properties) -> None:
    _map_public(api, resource.physical, new.get("MapPublicIpOnLaunch", False))
    _update_tags(api, resource, new)


def _read_subnet(api: Api, resource: Resource) -> dict[str, Any]:
    found = api.call("ec2", "DescribeSubnets", SubnetIds=[resource.physical])["Subnets"][0]
    return some(found, "SubnetId", "AvailabilityZone", "AvailabilityZoneId", "CidrBlock", "VpcId")


def _create_internet_gateway(api: Api, resource: Resource) -> None:
    tags = tagged("internet-gateway", resource.properties)
    reply = api.call("ec2", "CreateInternetGateway", TagSpecifications=tags)
    resource.physical = reply["InternetGateway"]["InternetGatewayId"]


def _attach_gateway(api: Api, resource: Resource) -> None:
    given = some(resource.properties, "InternetGatewayId", "VpcId")
    api.call("ec2", "AttachInternetGateway", **given)
    resource.physical = f"IGW|{resource.properties['VpcId']}"


def _detach_gateway(api: Api, resource: Resource) -> None:
    api.call("ec2", "DetachInternetGateway", **some(resource.properties, "InternetGatewayId", "VpcId"))


def _create_route_table(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    tags = tagged("route-table", wanted)
    reply = api.call("ec2", "CreateRouteTable", VpcId=wanted["VpcId"], TagSpecifications=tags)
    resource.physical = reply["RouteTable"]["RouteTableId"]


_DESTINATIONS = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")


def _create_route(api: Api, resource: Resource) -> None:
    api.call("ec2", "CreateRoute", **resource.properties)
    destination = next(iter(some(resource.properties, *_DESTINATIONS).values()))
    resource.physical = f"{resource.properties['RouteTableId']}|{destination}"


def _update_route(api: Api, _resource: Resource, new: Properties) -> None:
    api.call("ec2", "ReplaceRoute", **new)


def _delete_route(api: Api, resource: Resource) -> None:
    api.call("ec2", "DeleteRoute", **some(resource.properties, "RouteTableId", *_DESTINATIONS))


def _associate_route_table(api: Api, resource: Resource) -> None:
    resource.physical = api.call("ec2", "AssociateRouteTable", **resource.properties)["AssociationId"]


# Addresses, NAT gateways, endpoints


def _create_address(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    reply = api.call("ec2", "AllocateAddress", Domain="vpc", TagSpecifications=tagged("elastic-ip", wanted))
    resource.physical = reply["PublicIp"]
    resource.attributes["AllocationId"] = reply["AllocationId"]  # deletion needs it, even if reading never comes


def _create_nat_gateway(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    given = some(wanted, "AllocationId", "SubnetId", "ConnectivityType")
    reply = api.call("ec2", "CreateNatGateway", **given, TagSpecifications=tagged("natgateway", wanted))
    resource.physical = reply["NatGateway"]["NatGatewayId"]

    def available() -> bool:
        found = api.call("ec2", "DescribeNatGateways", NatGatewayIds=[resource.physical])["NatGateways"][0]
        if found["State"] == "failed":
            raise HandlerError(f"NatGateway {resource.physical} is in state failed: {found.get('FailureMessage')}")
        return bool(found["State"] == "available")

    api.wait(available, resource.physical)


def _delete_nat_gateway(api: Api, resource: Resource) -> None:
    api.call("ec2", "DeleteNatGateway", NatGatewayId=resource.physical)

    def look() -> bool:
        found = api.call("ec2", "DescribeNatGateways", NatGatewayIds=[resource.physical])["NatGateways"]
        return any(one["State"] != "deleted" for one in found)

    api.gone(look, resource.physical)


_ENDPOINT = ("PrivateDnsEnabled", "RouteTableIds", "SecurityGroupIds", "SubnetIds")


def _create_endpoint(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    given = some(wanted, "ServiceName", "VpcEndpointType", "VpcId", *_ENDPOINT)
    policy = json.dumps(wanted["PolicyDocument"]) if "PolicyDocument" in wanted else None
    tags = tagged("vpc-endpoint", wanted)
    reply = api.call("ec2", "CreateVpcEndpoint", **given, PolicyDocument=policy, TagSpecifications=tags)
    resource.physical = reply["VpcEndpoint"]["VpcEndpointId"]

    def available() -> bool:
        return bool(_endpoint(api, resource)["State"].lower() == "available")

    api.wait(available, resource.physical)


def _endpoint(api: Api, resource: Resource) -> dict[str, Any]:
    found: dict[str, Any] = api.call("ec2", "DescribeVpcEndpoints", VpcEndpointIds=[resource.physical])["VpcEndpoints"][
        0
    ]
    return found


def _update_endpoint(api: Api, resource: Resource, new: Properties) -> None:
    found, given = _endpoint(api, resource), dict[str, Any]()
    now = {
        "RouteTable": found.get("RouteTableIds", []),
        "SecurityGroup": [group["GroupId"] for group in found.get("Groups", [])],
        "Subnet": found.get("SubnetIds", []),
    }
    for name, present in now.items():
        wanted = new.get(f"{name}Ids", [])
        given[f"Add{name}Ids"] = [one for one in wanted if one not in present] or None
        given[f"Remove{name}Ids"] = [one for one in present if one not in wanted] or None
    policy = json.dumps(new["PolicyDocument"]) if "PolicyDocument" in new else None
    private = new.get("PrivateDnsEnabled")
    given.update(PolicyDocument=policy, ResetPolicy=None if policy else True, PrivateDnsEnabled=private)
    api.call("ec2", "ModifyVpcEndpoint", VpcEndpointId=resource.physical, **given)
    _update_tags(api, resource, new)


def _delete_endpoint(api: Api, resource: Resource) -> None:
    reply = api.call("ec2", "DeleteVpcEndpoints", VpcEndpointIds=[resource.physical])
    for failed in reply.get("Unsuccessful", []):
        raise handler_error(failed["Error"]["Message"], "ec2", 400, failed["Error"]["Code"])
    api.gone(lambda: _endpoint(api, resource)["State"].lower() != "deleted", resource.physical)


def _by_id(operation: str, parameter: str) -> Callable[[Api, Resource], None]:
    """The deletion that needs the id alone."""

    def delete(api: Api, resource: Resource) -> None:
        api.call("ec2", operation, **{parameter: resource.physical})

    return delete


def _release_address(api: Api, resource: Resource) -> None:
    api.call("ec2", "ReleaseAddress", AllocationId=resource.attributes["AllocationId"])


# Launch templates


def _create_launch_template(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    given = some(wanted, "LaunchTemplateData", "TagSpecifications", "VersionDescription")
    name = wanted.get("LaunchTemplateName") or api.name(resource)
    reply = api.call("ec2", "CreateLaunchTemplate", LaunchTemplateName=name, **given)
    resource.physical = reply["LaunchTemplate"]["LaunchTemplateId"]


def _update_launch_template(api: Api, resource: Resource, new: Properties) -> None:
    """A new version, as a roll-back is; the default stays the first (CloudFormation's documentation of the type)."""
    given = some(new, "LaunchTemplateData", "VersionDescription")
    api.call("ec2", "CreateLaunchTemplateVersion", LaunchTemplateId=resource.physical, **given)


def _read_launch_template(api: Api, resource: Resource) -> dict[str, Any]:
    reply = api.call("ec2", "DescribeLaunchTemplates", LaunchTemplateIds=[resource.physical])
    found = reply["LaunchTemplates"][0]
    numbers = {name: str(found[name]) for name in ("LatestVersionNumber", "DefaultVersionNumber")}
    return {"LaunchTemplateId": resource.physical, **numbers}


def _own_id(name: str) -> Callable[[Api, Resource], dict[str, Any]]:
    """The attribute that is the id."""
    return lambda _api, resource: {name: resource.physical}


def kind(properties: str, *handlers: Any, **more: Any) -> Kind:
    return Kind(frozenset(properties.split()), *handlers, **more)


KINDS: dict[str, Kind] = {
    "AWS::EC2::VPC": kind(
        "CidrBlock EnableDnsHostnames EnableDnsSupport InstanceTenancy Tags",
        _create_vpc,
        _by_id("DeleteVpc", "VpcId"),
        _update_vpc,
        _read_vpc,
    ),
    "AWS::EC2::Subnet": kind(
        "AvailabilityZone AvailabilityZoneId CidrBlock MapPublicIpOnLaunch Tags VpcId",
        _create_subnet,
        _by_id("DeleteSubnet", "SubnetId"),
        _update_subnet,
        _read_subnet,
    ),
    "AWS::EC2::InternetGateway": kind(
        "Tags",
        _create_internet_gateway,
        _by_id("DeleteInternetGateway", "InternetGatewayId"),
        _update_tags,
        _own_id("InternetGatewayId"),
    ),
    "AWS::EC2::VPCGatewayAttachment": kind("InternetGatewayId VpcId", _attach_gateway, _detach_gateway),
    "AWS::EC2::RouteTable": kind(
        "Tags VpcId",
        _create_route_table,
        _by_id("DeleteRouteTable", "RouteTableId"),
        _update_tags,
        _own_id("RouteTableId"),
    ),
    "AWS::EC2::Route": kind(
        "DestinationCidrBlock DestinationIpv6CidrBlock DestinationPrefixListId GatewayId NatGatewayId RouteTableId",
        _create_route,
        _delete_route,
        _update_route,
    ),
    "AWS::EC2::SubnetRouteTableAssociation": kind(
        "RouteTableId SubnetId",
        _associate_route_table,
        _by_id("DisassociateRouteTable", "AssociationId"),
        read=_own_id("Id"),
    ),
    "AWS::EC2::EIP": kind(
        "Domain Tags",
        _create_address,
        _release_address,
        lambda api, resource, new: retag(api, resource.attributes["AllocationId"], new, resource.properties),
        lambda _api, resource: {**resource.attributes, "PublicIp": resource.physical},
    ),
    "AWS::EC2::NatGateway": kind(
        "AllocationId ConnectivityType SubnetId Tags",
        _create_nat_gateway,
        _delete_nat_gateway,
        _update_tags,
        _own_id("NatGatewayId"),
    ),
    "AWS::EC2::VPCEndpoint": kind(
        "PolicyDocument ServiceName Tags VpcEndpointType VpcId " + " ".join(_ENDPOINT),
        _create_endpoint,
        _delete_endpoint,
        _update_endpoint,
        _own_id("Id"),
    ),
    "AWS::EC2::LaunchTemplate": kind(
        "LaunchTemplateData LaunchTemplateName TagSpecifications VersionDescription",
        _create_launch_template,
        _by_id("DeleteLaunchTemplate", "LaunchTemplateId"),
        _update_launch_template,
        _read_launch_template,
        named="LaunchTemplateName",
    ),
}
