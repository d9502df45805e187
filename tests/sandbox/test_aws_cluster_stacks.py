"""The templates of role cluster in the sandbox's CloudFormation, and the network rules that make a wrong order fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aws_stacks import Stacks, given, left_clean, running_stacks
from botocore.exceptions import ClientError

_FILES = Path(__file__).parents[2] / "roles" / "cluster" / "files"
_TAGS = [{"Key": "cisdriver:cluster", "Value": "c"}]
_ASK = {"Tags": _TAGS, "Capabilities": ["CAPABILITY_IAM"]}
_IMAGE = "/aws/service/eks/optimized-ami/1.33/amazon-linux-2023/x86_64/standard/recommended/image_id"
_SERVICES = "ec2 ecr.api ecr.dkr sts eks eks-auth ssm ssmmessages inspector2 logs"
_NODE_CONFIG = """MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="//"

--//
Content-Type: application/node.eks.aws

---
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  cluster:
    name: c
    apiServerEndpoint: {Endpoint}
    certificateAuthority: {CertificateAuthority}
    cidr: {ServiceCidr}

--//--
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Stacks]:
    with running_stacks() as stacks:
        yield stacks


@pytest.fixture
def stacks(running: Stacks) -> Iterator[Stacks]:
    with left_clean(running):
        yield running


def _template(name: str) -> str:
    return (_FILES / f"{name}.yml").read_text(encoding="utf-8")


def _network(stacks: Stacks, nat: str, **more: str) -> dict[str, Any]:
    values = {
        "ClusterName": "c",
        "VpcCidr": "10.0.0.0/16",
        "SubnetBits": "12",
        "Zone1": "eu-central-1a",
        "Zone2": "eu-central-1b",
        "Zone3": "eu-central-1c",
        "Nat": nat,
        "EndpointServices": ",".join(f"com.amazonaws.eu-central-1.{name}" for name in _SERVICES.split()),
        "Ec2MessagesService": "com.amazonaws.eu-central-1.ec2messages",
    }
    return stacks.make("c-network", _template("network"), Parameters=given(**{**values, **more}), Tags=_TAGS)


@pytest.mark.parametrize(
    ("nat", "gateways", "endpoints"),
    [("one", 1, 1), ("three", 3, 1), ("none", 0, 12)],
)
def test_a_network_comes_and_goes(stacks: Stacks, nat: str, gateways: int, endpoints: int) -> None:
    stack = _network(stacks, nat)
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert len(stack["Outputs"]["SubnetIds"].split(",")) == 3
    left = stacks.sandbox.leftovers()
    assert [len(left.get(kind, [])) for kind in ("nat_gateways", "vpc_endpoints")] == [gateways, endpoints]
    assert stacks.remove("c-network")["StackStatus"] == "DELETE_COMPLETE"


def test_a_network_of_two_zones(stacks: Stacks) -> None:
    stack = _network(stacks, "three", Zone3="")
    assert len(stack["Outputs"]["SubnetIds"].split(",")) == 2
    assert len(stacks.sandbox.leftovers()["nat_gateways"]) == 2
    stacks.remove("c-network")


def test_an_endpoint_that_fails_takes_the_network_with_it(stacks: Stacks) -> None:
    services = ",".join(["com.amazonaws.eu-central-1.nothing"] * 10)
    assert _network(stacks, "none", EndpointServices=services)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "The Vpc Endpoint Service" in stacks.reason("c-network", "Ec2Endpoint")
    stacks.remove("c-network")


class Cluster:
    """The stacks of a cluster up to its first node group."""

    def __init__(self, stacks: Stacks) -> None:
        self.stacks, self.eks = stacks, stacks.client("eks")
        subnets = _network(stacks, "one")["Outputs"]["SubnetIds"]
        self.settings = {
            **{f"Log{name}": "true" for name in ("Api", "Audit", "Authenticator", "ControllerManager")},
            "LogScheduler": "false",
            "ClusterName": "c",
            "KubernetesVersion": "1.33",
            "SubnetIds": subnets,
            "ServiceCidr": "172.20.0.0/16",
        }
        outputs = self.make("cluster", **self.settings)["Outputs"]
        self.versions = {
            one["addonName"]: one["addonVersions"][0]["addonVersion"]
            for one in self.eks.describe_addon_versions(kubernetesVersion="1.33")["addons"]
        }
        self.make(
            "addons-first",
            ClusterName="c",
            PodIdentityAgentVersion=self.versions["eks-pod-identity-agent"],
            VpcCniVersion=self.versions["vpc-cni"],
            KubeProxyVersion=self.versions["kube-proxy"],
        )
        self.nodes = {
            "ClusterName": "c",
            "NodeGroup": "al2023-level-1",
            "SubnetIds": subnets,
            "InstanceTypes": "m6i.large",
            "MinSize": "1",
            "MaxSize": "3",
            "DesiredSize": "2",
            "UserData": _NODE_CONFIG.format(**outputs),
            "ImageId": stacks.client("ssm").get_parameter(Name=_IMAGE)["Parameter"]["Value"],
        }
        self.make("nodes", **self.nodes)

    def make(self, name: str, **values: str) -> dict[str, Any]:
        stack = self.stacks.make(f"c-{name}", _template(name), Parameters=given(**values), **_ASK)
        assert stack["StackStatus"] == "CREATE_COMPLETE", self.stacks.events(f"c-{name}")
        return stack

    def change(self, name: str, values: dict[str, str], **more: Any) -> str:
        ask = {**_ASK, **more}
        stack = self.stacks.change(f"c-{name}", _template(name), Parameters=given(**values), **ask)
        return str(stack["StackStatus"])

    def version(self) -> str:
        """The launch template version that the node group runs."""
        group = self.eks.describe_nodegroup(clusterName="c", nodegroupName="al2023-level-1")["nodegroup"]
        return str(group["launchTemplate"]["version"])

    def instances(self) -> set[str]:
        filters = [{"Name": "instance-state-name", "Values": ["running"]}]
        reply = self.stacks.ec2.describe_instances(Filters=filters)
        return {one["InstanceId"] for group in reply["Reservations"] for one in group["Instances"]}

    def remove(self, *names: str) -> None:
        for name in names:
            assert self.stacks.remove(f"c-{name}")["StackStatus"] == "DELETE_COMPLETE", name

    def bake(self) -> str:
        """An image of a machine of the node group's image."""
        ec2 = self.stacks.ec2
        run = {"ImageId": self.nodes["ImageId"], "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
        identity = ec2.run_instances(**run)["Instances"][0]["InstanceId"]
        image = ec2.create_image(InstanceId=identity, Name="hardened")["ImageId"]
        ec2.terminate_instances(InstanceIds=[identity])
        return str(image)


def test_a_cluster_comes_changes_fails_and_goes(stacks: Stacks) -> None:
    cluster = Cluster(stacks)
    with pytest.raises(ClientError, match="No updates are to be performed"):
        cluster.change("nodes", cluster.nodes)
    with pytest.raises(ClientError, match="No updates are to be performed"):
        cluster.change("cluster", cluster.settings)
    assert cluster.change("cluster", {**cluster.settings, "LogScheduler": "true"}) == "UPDATE_COMPLETE"
    logging = cluster.eks.describe_cluster(name="c")["cluster"]["logging"]["clusterLogging"]
    assert "scheduler" in [one for setup in logging if setup["enabled"] for one in setup["types"]]

    _administer(stacks, cluster)
    _roll_out(stacks, cluster)
    _fail(stacks, cluster)

    cluster.make(
        "addons",
        ClusterName="c",
        CorednsVersion=cluster.versions["coredns"],
        EbsCsiVersion=cluster.versions["aws-ebs-csi-driver"],
        MetricsServerVersion=cluster.versions["metrics-server"],
    )
    stacks.api.delete_stack(StackName="c-cluster")
    assert stacks.stack("c-cluster")["StackStatus"] == "DELETE_FAILED"
    assert "has nodegroups attached" in stacks.reason("c-cluster", "Cluster")
    cluster.remove("addons", "nodes", "addons-first", "cluster", "network")
    stacks.ec2.deregister_image(ImageId=stacks.ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"])
    for snapshot in stacks.sandbox.leftovers().get("snapshots", []):
        stacks.ec2.delete_snapshot(SnapshotId=snapshot)


def _administer(stacks: Stacks, cluster: Cluster) -> None:
    """An access entry comes, changes its policy and goes, in the cluster's template as role cluster adds it."""
    iam = stacks.client("iam")
    who = iam.create_role(RoleName="admin", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    policies = "arn:aws:eks::aws:cluster-access-policy/AmazonEKS"
    ask = {"Parameters": given(**{**cluster.settings, "LogScheduler": "true"}), **_ASK}
    for name in ("ClusterAdminPolicy", "ViewPolicy"):
        body = yaml.safe_load(_template("cluster"))
        policy = {"PolicyArn": policies + name, "AccessScope": {"Type": "cluster"}}
        entry = {"ClusterName": {"Ref": "Cluster"}, "PrincipalArn": who, "AccessPolicies": [policy]}
        body["Resources"]["Administrator1"] = {"Type": "AWS::EKS::AccessEntry", "Properties": entry}
        assert stacks.change("c-cluster", body, **ask)["StackStatus"] == "UPDATE_COMPLETE", stacks.events("c-cluster")
        found = cluster.eks.list_associated_access_policies(clusterName="c", principalArn=who)
        assert [one["policyArn"] for one in found["associatedAccessPolicies"]] == [policies + name]
    assert stacks.change("c-cluster", _template("cluster"), **ask)["StackStatus"] == "UPDATE_COMPLETE"
    assert who not in cluster.eks.list_access_entries(clusterName="c")["accessEntries"]
    iam.delete_role(RoleName="admin")


def _roll_out(stacks: Stacks, cluster: Cluster) -> None:
    before = cluster.instances()
    assert (len(before), cluster.version()) == (2, "1")
    cluster.nodes["ImageId"] = cluster.bake()
    assert cluster.change("nodes", cluster.nodes) == "UPDATE_COMPLETE"
    assert (len(cluster.instances()), cluster.version()) == (2, "2")
    assert not before & cluster.instances()
    (update,) = stacks.sandbox.requests("eks", "UpdateNodegroupVersion")
    assert (update["by"], update["parameters"]["launchTemplate"]["version"]) == ("cloudformation", "2")


def _fail(stacks: Stacks, cluster: Cluster) -> None:
    """Nodes that do not join; a count beside a new image; another instance type under the same name."""
    before = cluster.instances()
    for wish, says in (
        ({"UserData": "#!/bin/sh"}, "NodeCreationFailure"),
        ({"UserData": "#!/bin/sh", "DesiredSize": "3"}, "updates cannot be combined with other updates"),
        ({"InstanceTypes": "m5.large"}, "when a custom-named resource requires replacing"),
    ):
        assert cluster.change("nodes", {**cluster.nodes, **wish}) == "UPDATE_ROLLBACK_COMPLETE"
        assert says in stacks.reason("c-nodes", "Nodegroup")
        assert (cluster.instances(), cluster.version()) == (before, "2")


# Networks in a wrong order


def test_a_network_cannot_be_taken_apart_in_a_wrong_order(stacks: Stacks) -> None:
    ec2, stack = stacks.ec2, _network(stacks, "one")
    vpc, gateway = stack["Outputs"]["VpcId"], stacks.physical("c-network", "InternetGateway")
    (nat,) = ec2.describe_nat_gateways(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["NatGateways"]
    allocation = nat["NatGatewayAddresses"][0]["AllocationId"]
    for operation, given_, code in (
        (ec2.delete_subnet, {"SubnetId": nat["SubnetId"]}, "DependencyViolation"),
        (ec2.release_address, {"AllocationId": allocation}, "InvalidIPAddress.InUse"),
        (ec2.detach_internet_gateway, {"InternetGatewayId": gateway, "VpcId": vpc}, "DependencyViolation"),
        (ec2.delete_vpc, {"VpcId": vpc}, "DependencyViolation"),
    ):
        with pytest.raises(ClientError, match=code):
            operation(**given_)
    stacks.remove("c-network")


def test_a_network_cannot_be_put_together_in_a_wrong_order(stacks: Stacks) -> None:
    ec2 = stacks.ec2
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.8.0.0/24")["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    route = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
    service = "com.amazonaws.eu-central-1.ec2"
    for operation, given_, code in (
        (ec2.create_route, {**route, "GatewayId": gateway}, "InvalidParameterValue"),
        (ec2.create_route, {**route, "NatGatewayId": "nat-0"}, "InvalidNatGatewayID.NotFound"),
        (ec2.create_nat_gateway, {"SubnetId": subnet, "AllocationId": address}, "Gateway.NotAttached"),
        (
            ec2.create_vpc_endpoint,
            {"VpcId": vpc, "VpcEndpointType": "Interface", "ServiceName": service, "PrivateDnsEnabled": True},
            "InvalidParameter",
        ),
    ):
        with pytest.raises(ClientError, match=code):
            operation(**given_)
    ec2.release_address(AllocationId=address)
    ec2.delete_internet_gateway(InternetGatewayId=gateway)
    ec2.delete_route_table(RouteTableId=table)
    ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)


def test_a_group_that_another_group_names_cannot_be_deleted(stacks: Stacks) -> None:
    ec2, vpc = stacks.ec2, stacks.endpoint.vpc_id
    one, two = (
        ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"] for name in ("one", "two")
    )
    pair = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": one}]}]
    ec2.authorize_security_group_ingress(GroupId=two, IpPermissions=pair)
    with pytest.raises(ClientError, match="DependencyViolation"):
        ec2.delete_security_group(GroupId=one)
    for group in (two, one):
        ec2.delete_security_group(GroupId=group)
