"""What moto lets pass in networks and AWS does not, so that a template in a wrong order fails here too.

The refusals and their codes: EC2 API reference, "Error codes"; VPC user guide, "NAT gateways", "Interface endpoints".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .wire import Call
from .world import After, AwsError, Before, Reply, World


def _in_use(kind: str, identity: str) -> AwsError:
    return AwsError(400, "DependencyViolation", f"The {kind} '{identity}' has dependencies and cannot be deleted.")


def _live_gateways(world: World, call: Call) -> Iterator[Any]:
    return (one for one in world.ec2(call.region).nat_gateways.values() if one.state != "deleted")


def _live_endpoints(world: World, call: Call) -> Iterator[Any]:
    return (one for one in world.ec2(call.region).vpc_end_points.values() if one.state != "deleted")


def _internet_gateway(world: World, call: Call, vpc: str) -> bool:
    gateways = world.ec2(call.region).internet_gateways.values()
    return any(one.vpc is not None and one.vpc.id == vpc for one in gateways)


def refuse_group_in_use(world: World, call: Call) -> Reply | None:
    """By an interface, an endpoint or a rule of another group; the order of a clean-up depends on it."""
    group, backend = call.parameters.get("GroupId"), world.ec2(call.region)
    users = any(group in [held.id for held in one.group_set] for one in backend.enis.values())
    users = users or any(group in (one.security_group_ids or []) for one in _live_endpoints(world, call))
    others = [one for groups in backend.groups.values() for one in groups.values() if one.id != group]
    rules = [rule for one in others for rule in (*one.ingress_rules, *one.egress_rules)]
    if users or any(rule.source_group.get("GroupId") == group for rule in rules):
        raise AwsError(400, "DependencyViolation", f"resource {group} has a dependent object")
    return None


def refuse_subnet_in_use(world: World, call: Call) -> Reply | None:
    subnet = call.parameters["SubnetId"]
    if any(one.subnet.id == subnet for one in world.ec2(call.region).enis.values()):
        raise _in_use("subnet", subnet)
    return None


def refuse_vpc_in_use(world: World, call: Call) -> Reply | None:
    """moto looks at subnets and route tables alone."""
    vpc, backend = call.parameters["VpcId"], world.ec2(call.region)
    groups = any(one.name != "default" for one in backend.groups.get(vpc, {}).values())
    endpoints = any(one.vpc_id == vpc for one in _live_endpoints(world, call))
    if groups or endpoints or _internet_gateway(world, call, vpc):
        raise _in_use("vpc", vpc)
    return None


def refuse_mapped_addresses(world: World, call: Call) -> Reply | None:
    vpc = call.parameters["VpcId"]
    if any(one.vpc_id == vpc and one.connectivity_type != "private" for one in _live_gateways(world, call)):
        text = f"Network {vpc} has some mapped public address(es). Please unmap those before detaching the gateway."
        raise AwsError(400, "DependencyViolation", text)
    return None


def refuse_address_in_use(world: World, call: Call) -> Reply | None:
    allocation = call.parameters.get("AllocationId")
    held = [one.get("allocationId") for gateway in _live_gateways(world, call) for one in gateway.address_set]
    if allocation in held:
        raise AwsError(400, "InvalidIPAddress.InUse", f"Address {allocation} is in use.")
    return None


def check_nat_gateway(world: World, call: Call) -> Reply | None:
    """A public one needs a way out; AWS lets it fail after a while, which comes to the same."""
    subnet = world.ec2(call.region).get_subnet(call.parameters["SubnetId"])
    public = call.parameters.get("ConnectivityType", "public") == "public"
    if public and not _internet_gateway(world, call, subnet.vpc_id):
        text = f"Network {subnet.vpc_id} has no Internet gateway attached"
        raise AwsError(400, "Gateway.NotAttached", text)
    return None


def check_route(world: World, call: Call) -> Reply | None:
    gateway, table = call.parameters.get("GatewayId", ""), call.parameters["RouteTableId"]
    backend = world.ec2(call.region)
    if gateway.startswith("igw-"):
        vpc = backend.get_internet_gateway(gateway).vpc
        if vpc is None or vpc.id != backend.get_route_table(table).vpc_id:
            text = f"route table {table} and network gateway {gateway} belong to different networks"
            raise AwsError(400, "InvalidParameterValue", text)
    nat = call.parameters.get("NatGatewayId")
    if nat and nat not in [one.id for one in _live_gateways(world, call)]:
        raise AwsError(400, "InvalidNatGatewayID.NotFound", f"The natGateway ID '{nat}' does not exist")
    return None


def check_endpoint(world: World, call: Call) -> Reply | None:
    given, backend = call.parameters, world.ec2(call.region)
    services = backend.describe_vpc_endpoint_services([], [], None, None, call.region)["serviceNames"]
    if given["ServiceName"] not in services:
        text = f"The Vpc Endpoint Service '{given['ServiceName']}' does not exist"
        raise AwsError(400, "InvalidServiceName", text)
    vpc = backend.get_vpc(given["VpcId"])
    # moto keeps the text of a request, or its own default
    resolves = all(str(one).lower() == "true" for one in (vpc.enable_dns_support, vpc.enable_dns_hostnames))
    if given.get("PrivateDnsEnabled") and not resolves:
        text = "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to true"
        raise AwsError(400, "InvalidParameter", f"{text} for {vpc.id}")
    return None


def free_gateway(world: World, call: Call, _reply: Reply) -> None:
    """moto leaves the interface and the address as they were."""
    backend = world.ec2(call.region)
    gateway = backend.nat_gateways[call.parameters["NatGatewayId"]]
    backend.enis.pop(gateway._eni.id, None)
    for address in backend.addresses:
        if address.eni is gateway._eni:
            address.eni, address.association_id = None, None


BEFORE: dict[tuple[str, str], Before] = {
    ("ec2", "CreateNatGateway"): check_nat_gateway,
    ("ec2", "CreateRoute"): check_route,
    ("ec2", "CreateVpcEndpoint"): check_endpoint,
    ("ec2", "DeleteSecurityGroup"): refuse_group_in_use,
    ("ec2", "DeleteSubnet"): refuse_subnet_in_use,
    ("ec2", "DeleteVpc"): refuse_vpc_in_use,
    ("ec2", "DetachInternetGateway"): refuse_mapped_addresses,
    ("ec2", "ReleaseAddress"): refuse_address_in_use,
    ("ec2", "ReplaceRoute"): check_route,
}
AFTER: dict[tuple[str, str], After] = {("ec2", "DeleteNatGateway"): free_gateway}
