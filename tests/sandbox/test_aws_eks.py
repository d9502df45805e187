"""EKS of the sandbox: clusters, node groups with their nodes, add-ons, access; what AWS refuses is refused."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError
from cisdriver.sandbox import standin
from cisdriver.sandbox.aws import Endpoint, Sandbox, eks_user_data, wire
from cisdriver.sandbox.aws.eks_versions import ADD_ONS
from cisdriver.sandbox.aws.images import BASE_IMAGES, VERSIONS

_HERE = Path(__file__).parent
_VERSION = "1.33"
_READY_SECONDS = 20
_AL2023 = next(one.id for one in BASE_IMAGES if (one.os, one.version, one.architecture) == ("al2023", "1.33", "x86_64"))
_AL2 = next(one.id for one in BASE_IMAGES if (one.os, one.version, one.architecture) == ("al2", "1.32", "x86_64"))


class Aws:
    """A running sandbox with its clients, two subnets of its default VPC, and a role for each service."""

    def __init__(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        self.sandbox, self.endpoint = sandbox, endpoint
        self.eks, self.ec2, self.iam = self.client("eks"), self.client("ec2"), self.client("iam")
        found = self.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [endpoint.vpc_id]}])["Subnets"]
        self.subnets = [one["SubnetId"] for one in found][:2]
        self.cluster_role = self.role("cluster", "eks.amazonaws.com")
        self.node_role = self.role("nodes", "ec2.amazonaws.com")
        self.pod_role = self.role("pods", "pods.eks.amazonaws.com")

    def client(self, service: str, region: str | None = None, retries: int = 4) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint.url,
            region_name=region or self.endpoint.region,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=Config(retries={"total_max_attempts": retries}),
        )

    def role(self, name: str, service: str) -> str:
        statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        return str(self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy)["Role"]["Arn"])

    def cluster(self, name: str, **more: Any) -> dict[str, Any]:
        wanted = {"version": _VERSION, "accessConfig": {"authenticationMode": "API"}, **more}
        self.eks.create_cluster(
            name=name, roleArn=self.cluster_role, resourcesVpcConfig={"subnetIds": self.subnets}, **wanted
        )
        found: dict[str, Any] = self.eks.describe_cluster(name=name)["cluster"]
        return found

    def template(self, name: str, user_data: bytes, image: str = _AL2023, **more: Any) -> str:
        data = self.data(user_data, image, **more)
        reply = self.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
        return str(reply["LaunchTemplate"]["LaunchTemplateId"])

    @staticmethod
    def data(user_data: bytes, image: str = _AL2023, **more: Any) -> dict[str, Any]:
        disk = {"VolumeSize": 30, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
        return {
            "ImageId": image,
            "InstanceType": "m6i.large",
            "UserData": base64.b64encode(user_data).decode(),
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": disk}],
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "cisdriver:cluster", "Value": "c"}]}],
            **more,
        }

    def group(self, cluster: str, name: str, template: str, version: str = "1", **more: Any) -> dict[str, Any]:
        self.eks.create_nodegroup(
            clusterName=cluster,
            nodegroupName=name,
            nodeRole=self.node_role,
            subnets=self.subnets,
            launchTemplate={"id": template, "version": version},
            **more,
        )
        return self.settled(cluster, name)

    def settled(self, cluster: str, name: str) -> dict[str, Any]:
        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end:
            found: dict[str, Any] = self.eks.describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"]
            if found["status"] not in ("CREATING", "UPDATING", "DELETING"):
                return found
            time.sleep(0.02)
        raise AssertionError(f"node group {name} is still {found['status']}")

    def nodes(self, cluster: dict[str, Any]) -> list[dict[str, Any]]:
        """The nodes of a cluster, asked for as kubectl does: by its certificate and a token of ours."""
        sts = self.client("sts")
        sts.meta.events.register(
            "before-sign.sts.GetCallerIdentity",
            lambda request, **_: request.headers.add_header("x-k8s-aws-id", cluster["name"]),
        )
        url = sts.generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
        token = "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
        authority = base64.b64decode(cluster["certificateAuthority"]["data"]).decode()
        request = urllib.request.Request(
            f"{cluster['endpoint']}/api/v1/nodes", headers={"Authorization": f"Bearer {token}"}
        )
        trust = ssl.create_default_context(cadata=authority)
        with urllib.request.urlopen(request, timeout=20, context=trust) as reply:
            found: list[dict[str, Any]] = json.load(reply)["items"]
        return found

    def update(self, cluster: str, group: str, identity: str) -> dict[str, Any]:
        self.settled(cluster, group)
        reply = self.eks.describe_update(name=cluster, nodegroupName=group, updateId=identity)
        found: dict[str, Any] = reply["update"]
        return found

    def instances(self, cluster: str, *states: str) -> list[dict[str, Any]]:
        wanted = [
            {"Name": "tag:eks:cluster-name", "Values": [cluster]},
            {"Name": "instance-state-name", "Values": list(states) or ["running"]},
        ]
        found = self.ec2.describe_instances(Filters=wanted)["Reservations"]
        return [one for reservation in found for one in reservation["Instances"]]

    def delete(self, cluster: str, *templates: str) -> None:
        """A cluster with all its node groups."""
        for name in self.eks.list_nodegroups(clusterName=cluster)["nodegroups"]:
            self.eks.delete_nodegroup(clusterName=cluster, nodegroupName=name)
        end = time.monotonic() + _READY_SECONDS
        while self.eks.list_nodegroups(clusterName=cluster)["nodegroups"] and time.monotonic() < end:
            time.sleep(0.02)
        self.eks.delete_cluster(name=cluster)
        for identity in templates:
            self.ec2.delete_launch_template(LaunchTemplateId=identity)


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(_HERE), prepend=":")
        sandbox = Sandbox(machines="aws_machines:NoMachines")
        with sandbox as endpoint:
            yield Aws(sandbox, endpoint)
            assert set(sandbox.leftovers()) == {"roles"}


@pytest.fixture(scope="module")
def shared(aws: Aws) -> Iterator[dict[str, Any]]:
    """A cluster without node groups, for what needs none."""
    yield aws.cluster("shared", tags={"cisdriver:cluster": "shared"})
    aws.delete("shared")


def node_config(cluster: dict[str, Any], **changes: Any) -> bytes:
    spec = {
        "name": cluster["name"],
        "apiServerEndpoint": cluster["endpoint"],
        "certificateAuthority": cluster["certificateAuthority"]["data"],
        "cidr": cluster["kubernetesNetworkConfig"]["serviceIpv4Cidr"],
        **changes,
    }
    document = {"apiVersion": "node.eks.aws/v1alpha1", "kind": "NodeConfig", "spec": {"cluster": spec}}
    head = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="B"\n\n--B\n'
    part = f"Content-Type: application/node.eks.aws\n\n---\n{yaml.safe_dump(document)}"
    return f"{head}{part}\n--B--\n".encode()


def bootstrap(cluster: dict[str, Any], name: str | None = None) -> bytes:
    authority = cluster["certificateAuthority"]["data"]
    return (
        "#!/bin/bash\nset -o errexit\n"
        f"/etc/eks/bootstrap.sh {name or cluster['name']} --apiserver-endpoint {cluster['endpoint']} \\\n"
        f"  --b64-cluster-ca {authority} --dns-cluster-ip 172.20.0.10 \\\n"
        "  --kubelet-extra-args '--node-labels=team=a,tier=b --max-pods=29' --use-max-pods false\n"
    ).encode()


def refused(call: Any, **parameters: Any) -> tuple[str, int, str]:
    """Code, HTTP status and message a request is refused with."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response: Any = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


# The wire


@pytest.mark.parametrize(
    ("method", "uri", "body", "operation", "parameters"),
    [
        ("GET", "/clusters/a%2Fb", b"", "DescribeCluster", {"name": "a/b"}),
        ("GET", "/clusters?maxResults=3&include=all", b"", "ListClusters", {"maxResults": 3, "include": ["all"]}),
        (
            "DELETE",
            "/clusters/c/access-entries/arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx",
            b"",
            "DeleteAccessEntry",
            {"name": "c", "principalArn": "arn:aws:iam::1:role/x"},
        ),
        ("DELETE", "/tags/arn%3Ax?tagKeys=a&tagKeys=b", b"", "UntagResource", {"tagKeys": ["a", "b"]}),
        ("POST", "/clusters/c/addons", b'{"addonName": "vpc-cni"}', "CreateAddon", {"addonName": "vpc-cni"}),
    ],
)
def test_a_rest_request_is_read_as_the_model_says(
    method: str, uri: str, body: bytes, operation: str, parameters: dict[str, Any]
) -> None:
    call = wire.read_call("eks", "eu-central-1", wire.Request(method, uri, "", body))
    assert call.operation == operation
    given = {"clusterName" if name == "name" and "clusterName" in call.parameters else name: value
             for name, value in parameters.items()}  # fmt: skip
    assert given.items() <= call.parameters.items()
    assert call.unknown == []


def test_what_a_rest_request_has_too_much_is_unknown() -> None:
    request = wire.Request("POST", "/clusters/c/addons?colour=red", "", b'{"addonName": "x", "size": 1, "name": "d"}')
    assert sorted(wire.read_call("eks", "eu-central-1", request).unknown) == [
        "clusterName (in the body)",
        "colour",
        "size",
    ]


@pytest.mark.parametrize(("method", "uri", "body"), [("PUT", "/clusters", b""), ("GET", "/nothing", b"")])
def test_a_rest_request_to_nowhere_is_refused(method: str, uri: str, body: bytes) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.read_call("eks", "eu-central-1", wire.Request(method, uri, "", body))
    assert caught.value.status == 404


def test_a_body_that_is_no_json_is_refused() -> None:
    with pytest.raises(wire.WireError, match="no JSON"):
        wire.read_call("eks", "eu-central-1", wire.Request("POST", "/clusters", "", b"{"))


def test_a_query_reply_is_what_botocore_reads() -> None:
    call = wire.Call("cloudformation", "DescribeStacks", "eu-central-1", {})
    stack = {
        "StackName": "a<b",
        "StackStatus": "CREATE_COMPLETE",
        "DisableRollback": False,
        "Tags": [{"Key": "k", "Value": "v"}, {"Key": "l", "Value": ""}],
        "NotificationARNs": [],
    }
    _, body = wire.write_reply(call, {"Stacks": [stack]}, "id-1")
    assert wire.read_reply(call, body)[0]["Stacks"] == [stack]
    from botocore.parsers import create_parser

    parsed = create_parser("query").parse({"body": body, "headers": {}, "status_code": 200}, call.model.output_shape)
    assert parsed["Stacks"] == [stack]
    assert parsed["ResponseMetadata"]["RequestId"] == "id-1"


# Clusters


def test_a_cluster_answers_as_describecluster_says(aws: Aws, shared: dict[str, Any]) -> None:
    assert shared["status"] == "ACTIVE"
    assert shared["endpoint"].startswith("https://127.0.0.1:")
    assert base64.b64decode(shared["certificateAuthority"]["data"]).startswith(b"-----BEGIN CERTIFICATE-----")
    group = shared["resourcesVpcConfig"]["clusterSecurityGroupId"]
    assert aws.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["VpcId"] == aws.endpoint.vpc_id
    assert "shared" in aws.eks.list_clusters()["clusters"]
    assert "shared" in aws.sandbox.leftovers()["clusters"]
    made = aws.sandbox.requests("ec2", "CreateSecurityGroup")[-1]
    assert made["by"] == "eks"


def test_what_eks_refuses_of_a_cluster(aws: Aws, shared: dict[str, Any]) -> None:  # noqa: ARG001 - it has to exist
    good = {"name": "x", "roleArn": aws.cluster_role, "resourcesVpcConfig": {"subnetIds": aws.subnets}}

    def says(**changes: Any) -> tuple[str, int, str]:
        return refused(aws.eks.create_cluster, **{**good, **changes})

    assert says(name="shared") == ("ResourceInUseException", 409, "Cluster already exists with name: shared")
    assert says(version="1.24")[2] == "unsupported Kubernetes version 1.24"
    assert "at least two different AZs" in says(resourcesVpcConfig={"subnetIds": aws.subnets[:1]})[2]
    assert "does not exist" in says(resourcesVpcConfig={"subnetIds": [aws.subnets[0], "subnet-00000000"]})[2]
    assert "could not be assumed" in says(roleArn=f"{aws.cluster_role}x")[2]
    assert "could not be assumed" in says(roleArn=aws.node_role)[2]
    closed = {"subnetIds": aws.subnets, "endpointPublicAccess": False, "endpointPrivateAccess": False}
    assert says(resourcesVpcConfig=closed)[0] == "InvalidParameterException"
    assert "x" not in aws.eks.list_clusters()["clusters"]
    assert refused(aws.eks.describe_cluster, name="nobody")[:2] == ("ResourceNotFoundException", 404)


def test_a_zone_without_eks_is_refused_by_name(aws: Aws) -> None:
    ec2, eks = aws.client("ec2", "us-east-1"), aws.client("eks", "us-east-1")
    found = {one["AvailabilityZone"]: one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]}
    network = {"subnetIds": [found["us-east-1a"], found["us-east-1e"]]}
    code, _, text = refused(eks.create_cluster, name="x", roleArn=aws.cluster_role, resourcesVpcConfig=network)
    assert code == "UnsupportedAvailabilityZoneException"
    assert "because us-east-1e, the targeted availability zone" in text
    assert text.endswith("us-east-1a, us-east-1b, us-east-1c, us-east-1d, us-east-1f")


def test_a_cluster_is_changed_one_kind_at_a_time(aws: Aws, shared: dict[str, Any]) -> None:
    private = {"endpointPublicAccess": False, "endpointPrivateAccess": True}
    update = aws.eks.update_cluster_config(name="shared", resourcesVpcConfig=private)["update"]
    assert (update["type"], update["status"]) == ("EndpointAccessUpdate", "InProgress")
    assert aws.eks.describe_update(name="shared", updateId=update["id"])["update"]["status"] == "Successful"
    network = aws.eks.describe_cluster(name="shared")["cluster"]["resourcesVpcConfig"]
    assert (network["endpointPublicAccess"], network["endpointPrivateAccess"]) == (False, True)
    assert network["subnetIds"] == shared["resourcesVpcConfig"]["subnetIds"]
    again = refused(aws.eks.update_cluster_config, name="shared", resourcesVpcConfig=private)
    assert "already at the desired configuration" in again[2]
    assert refused(aws.eks.update_cluster_version, name="shared", version="1.35")[2] == (
        "Unsupported Kubernetes minor version update from 1.33 to 1.35"
    )


def test_tags_of_everything(aws: Aws, shared: dict[str, Any]) -> None:
    aws.eks.tag_resource(resourceArn=shared["arn"], tags={"team": "a"})
    assert aws.eks.list_tags_for_resource(resourceArn=shared["arn"])["tags"]["team"] == "a"
    aws.eks.untag_resource(resourceArn=shared["arn"], tagKeys=["team"])
    assert aws.eks.describe_cluster(name="shared")["cluster"]["tags"] == {"cisdriver:cluster": "shared"}
    assert refused(aws.eks.tag_resource, resourceArn=shared["arn"] + "x", tags={"a": "b"})[1] == 404
    assert "reserved" in refused(aws.eks.tag_resource, resourceArn=shared["arn"], tags={"aws:x": "b"})[2]


def test_versions_tell_their_dates(aws: Aws) -> None:
    found = {one["clusterVersion"]: one for one in aws.eks.describe_cluster_versions()["clusterVersions"]}
    assert sorted(found) == sorted(VERSIONS)
    assert found["1.34"]["versionStatus"] == "STANDARD_SUPPORT"
    assert found["1.32"]["versionStatus"] == "EXTENDED_SUPPORT"
    assert str(found["1.33"]["endOfExtendedSupportDate"].date()) == "2027-07-29"
    only = aws.eks.describe_cluster_versions(defaultOnly=True)["clusterVersions"]
    assert [one["clusterVersion"] for one in only] == ["1.36"]
    pages = aws.eks.get_paginator("describe_cluster_versions").paginate(PaginationConfig={"PageSize": 4})
    assert [len(one["clusterVersions"]) for one in pages] == [4, 2]


# Add-ons and access


def test_an_add_on_has_one_default_version_for_each_kubernetes(aws: Aws) -> None:
    for kubernetes in VERSIONS:
        found = aws.eks.describe_addon_versions(kubernetesVersion=kubernetes)["addons"]
        assert {one["addonName"] for one in found} == set(ADD_ONS)
        for one in found:
            flags = [version["compatibilities"][0]["defaultVersion"] for version in one["addonVersions"]]
            assert flags.count(True) == 1, one["addonName"]
    assert aws.eks.describe_addon_versions(addonName="nothing")["addons"] == []


def test_add_ons_come_with_their_pod_identities_and_go_with_them(aws: Aws, shared: dict[str, Any]) -> None:  # noqa: ARG001 - it has to exist
    identity = [{"serviceAccount": "ebs-csi-controller-sa", "roleArn": aws.pod_role}]
    where = {"clusterName": "shared", "addonName": "aws-ebs-csi-driver"}
    aws.eks.create_addon(**where, podIdentityAssociations=identity, tags={"a": "b"})
    found = aws.eks.describe_addon(**where)["addon"]
    assert found["addonVersion"] == ADD_ONS["aws-ebs-csi-driver"].versions[_VERSION][0]
    assert (found["status"], found["health"]["issues"][0]["code"]) == ("DEGRADED", "InsufficientNumberOfReplicas")
    associations = aws.eks.list_pod_identity_associations(clusterName="shared")["associations"]
    assert [one["associationArn"] for one in associations] == found["podIdentityAssociations"]
    owned = {"clusterName": "shared", "associationId": associations[0]["associationId"]}
    assert refused(aws.eks.delete_pod_identity_association, **owned)[0] == "InvalidRequestException"
    assert refused(aws.eks.create_addon, **where)[0] == "ResourceInUseException"
    version = ADD_ONS["aws-ebs-csi-driver"].versions[_VERSION][1]
    update = aws.eks.update_addon(**where, addonVersion=version)["update"]
    reply = aws.eks.describe_update(name="shared", addonName=where["addonName"], updateId=update["id"])
    assert reply["update"]["status"] == "Successful"
    aws.eks.delete_addon(**where)
    assert aws.eks.list_addons(clusterName="shared")["addons"] == []
    assert aws.eks.list_pod_identity_associations(clusterName="shared")["associations"] == []
    assert refused(aws.eks.describe_addon, **where)[1] == 404


@pytest.mark.parametrize(
    "wanted",
    [
        {"addonName": "sdn"},
        {"addonName": "coredns", "addonVersion": "v1.0.0-eksbuild.1"},
        {"addonName": "coredns", "configurationValues": "{"},
        {"addonName": "coredns", "serviceAccountRoleArn": "arn:aws:iam::123456789012:role/nobody"},
        {
            "addonName": "coredns",
            "podIdentityAssociations": [{"serviceAccount": "a", "roleArn": "arn:aws:iam::123456789012:role/nodes"}],
        },
    ],
)
def test_what_eks_refuses_of_an_add_on(aws: Aws, shared: dict[str, Any], wanted: dict[str, Any]) -> None:  # noqa: ARG001 - it has to exist
    assert refused(aws.eks.create_addon, clusterName="shared", **wanted)[:2] == ("InvalidParameterException", 400)
    assert aws.eks.list_addons(clusterName="shared")["addons"] == []


def test_a_fault_can_be_meant_for_one_request_among_many(aws: Aws, shared: dict[str, Any]) -> None:  # noqa: ARG001 - it has to exist
    aws.sandbox.fail("eks", "CreateAddon", "ServerException", "no", status=500, match={"addonName": "coredns"})
    for name in ("eks-pod-identity-agent", "metrics-server"):
        aws.eks.create_addon(clusterName="shared", addonName=name)
        aws.eks.delete_addon(clusterName="shared", addonName=name)
    client = aws.client("eks", retries=1)
    assert refused(client.create_addon, clusterName="shared", addonName="coredns")[:2] == ("ServerException", 500)
    client.create_addon(clusterName="shared", addonName="coredns")
    client.delete_addon(clusterName="shared", addonName="coredns")


def test_access_entries_and_their_policies(aws: Aws, shared: dict[str, Any]) -> None:  # noqa: ARG001 - it has to exist
    admin, who = aws.role("admin", "ec2.amazonaws.com"), {"clusterName": "shared"}
    policies = {one["name"]: one["arn"] for one in aws.eks.list_access_policies()["accessPolicies"]}
    policy = {"policyArn": policies["AmazonEKSClusterAdminPolicy"], "accessScope": {"type": "cluster"}}
    aws.eks.create_access_entry(**who, principalArn=admin)
    aws.eks.associate_access_policy(**who, principalArn=admin, **policy)
    listed = aws.eks.list_associated_access_policies(**who, principalArn=admin)["associatedAccessPolicies"]
    assert [one["policyArn"] for one in listed] == [policy["policyArn"]]
    entries = aws.eks.list_access_entries(**who, associatedPolicyArn=policy["policyArn"])["accessEntries"]
    creator = aws.client("sts").get_caller_identity()["Arn"].replace(":sts:", ":iam:")
    assert sorted(entries) == sorted([admin, creator])
    assert refused(aws.eks.create_access_entry, **who, principalArn=admin)[:2] == ("ResourceInUseException", 409)
    assert "invalid principal" in refused(aws.eks.create_access_entry, **who, principalArn=f"{admin}x")[2]
    unknown = {**policy, "policyArn": f"{policy['policyArn']}x"}
    assert refused(aws.eks.associate_access_policy, **who, principalArn=admin, **unknown)[1] == 400
    aws.eks.delete_access_entry(**who, principalArn=admin)
    assert refused(aws.eks.describe_access_entry, **who, principalArn=admin)[1] == 404
    aws.iam.delete_role(RoleName="admin")


def test_access_entries_need_their_mode(aws: Aws) -> None:
    aws.cluster("old", accessConfig={"authenticationMode": "CONFIG_MAP"})
    code, _, text = refused(aws.eks.create_access_entry, clusterName="old", principalArn=aws.node_role)
    assert (code, "[API, API_AND_CONFIG_MAP]" in text) == ("InvalidRequestException", True)
    aws.delete("old")


# Node groups and their nodes


def test_a_node_group_has_nodes(aws: Aws) -> None:
    cluster = aws.cluster("c1")
    template = aws.template("first", node_config(cluster))
    more = {"labels": {"team": "a"}, "taints": [{"key": "t", "value": "v", "effect": "NO_SCHEDULE"}]}
    group = aws.group("c1", "al2023-level-1", template, **more)
    assert (group["status"], group["amiType"], group["releaseVersion"]) == ("ACTIVE", "CUSTOM", _AL2023)
    instances = aws.instances("c1")
    assert len(instances) == 2
    assert {one["SubnetId"] for one in instances} == set(aws.subnets)
    tags = {tag["Key"]: tag["Value"] for tag in instances[0]["Tags"]}
    assert (tags["eks:nodegroup-name"], tags["cisdriver:cluster"]) == ("al2023-level-1", "c")
    assert sorted(aws.sandbox.machines()) == sorted(one["InstanceId"] for one in instances)
    nodes = aws.nodes(cluster)
    assert {one["metadata"]["name"] for one in nodes} == {one["PrivateDnsName"] for one in instances}
    assert nodes[0]["metadata"]["labels"]["team"] == "a"
    assert nodes[0]["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.33.")
    asked = aws.sandbox.requests("ec2", "RunInstances")[-1]
    assert (asked["by"], asked["parameters"]["MetadataOptions"]["HttpTokens"]) == ("eks", "required")
    assert aws.eks.list_access_entries(clusterName="c1")["accessEntries"].count(aws.node_role) == 1
    assert refused(aws.eks.delete_cluster, name="c1")[:2] == ("ResourceInUseException", 409)
    aws.delete("c1", template)
    assert aws.instances("c1") == []
    assert not {"instances", "instance_profiles", "launch_templates", "containers"} & set(aws.sandbox.leftovers())


@pytest.fixture(scope="module")
def made(aws: Aws) -> Iterator[dict[str, Any]]:
    """A cluster of 1.32, which takes nodes of AL2 and of AL2023 alike."""
    yield aws.cluster("made", version="1.32")
    aws.delete("made")


def test_al2_joins_by_bootstrap_sh(aws: Aws, made: dict[str, Any]) -> None:
    template = aws.template("al2", bootstrap(made), _AL2)
    assert aws.group("made", "al2", template)["status"] == "ACTIVE"
    labels = [one["metadata"]["labels"] for one in aws.nodes(made)]
    assert [(one["team"], one["tier"]) for one in labels] == [("a", "b")] * 2
    drop(aws, "made", "al2", template)


@pytest.mark.parametrize("case", ["no user data", "other cluster", "AL2's on AL2023", "too new", "metadata off"])
def test_nodes_that_cannot_join_make_the_group_fail(aws: Aws, made: dict[str, Any], case: str) -> None:
    image = next(
        one.id for one in BASE_IMAGES if (one.os, one.version, one.architecture) == ("al2023", "1.32", "x86_64")
    )
    data, options = node_config(made), {"HttpTokens": "required"}
    if case == "no user data":
        data = b""
    elif case == "other cluster":
        data = node_config(made, name="other")
    elif case == "AL2's on AL2023":
        data = bootstrap(made)
    elif case == "too new":
        image = _AL2023
    else:
        options = {"HttpEndpoint": "disabled"}
    template = aws.template("bad", data, image, MetadataOptions=options)
    group = aws.group("made", "bad", template)
    issue = group["health"]["issues"][0]
    assert (group["status"], issue["code"]) == ("CREATE_FAILED", "NodeCreationFailure")
    assert issue["message"].startswith("Instances failed to join the kubernetes cluster")
    assert sorted(issue["resourceIds"]) == sorted(one["InstanceId"] for one in aws.instances("made"))
    drop(aws, "made", "bad", template)


def drop(aws: Aws, cluster: str, group: str, *templates: str) -> None:
    aws.eks.delete_nodegroup(clusterName=cluster, nodegroupName=group)
    end = time.monotonic() + _READY_SECONDS
    while group in aws.eks.list_nodegroups(clusterName=cluster)["nodegroups"] and time.monotonic() < end:
        time.sleep(0.02)
    for template in templates:
        aws.ec2.delete_launch_template(LaunchTemplateId=template)
    assert aws.instances(cluster) == []


def test_nodes_without_a_network_are_unhealthy(aws: Aws) -> None:
    cluster = aws.cluster("bare", bootstrapSelfManagedAddons=False)
    template = aws.template("bare", node_config(cluster))
    group = aws.group("bare", "g", template, scalingConfig={"minSize": 1, "maxSize": 1, "desiredSize": 1})
    assert group["health"]["issues"][0]["message"] == "Unhealthy nodes in the kubernetes cluster"
    aws.delete("bare", template)


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (("VcpuLimitExceeded", "You have requested more vCPU capacity"), "AsgInstanceLaunchFailures", "VcpuLimit"),
        (None, "AmiIdNotFound", "InvalidAMIID"),
        ("metadata tags", "AsgInstanceLaunchFailures", "kubernetes.io/cluster/made' is not a valid tag key"),
    ],
)
def test_instances_that_ec2_refuses_make_the_group_fail(
    aws: Aws, made: dict[str, Any], fault: Any, code: str, says: str
) -> None:
    image, options = _AL2023, {"HttpTokens": "required"}
    if fault is None:
        image = "ami-00000000000000000"
    elif fault == "metadata tags":
        options["InstanceMetadataTags"] = "enabled"
    else:
        aws.sandbox.fail("ec2", "RunInstances", *fault)
    template = aws.template("refused", node_config(made), image, MetadataOptions=options)
    group = aws.group("made", "refused", template)
    assert (group["status"], group["health"]["issues"][0]["code"]) == ("CREATE_FAILED", code)
    assert says in group["health"]["issues"][0]["message"]
    drop(aws, "made", "refused", template)


def test_what_eks_refuses_of_a_node_group(aws: Aws, made: dict[str, Any]) -> None:
    template = aws.template("asked", node_config(made))
    profile = aws.template("profile", node_config(made), IamInstanceProfile={"Name": "x"})
    good = {
        "clusterName": "made",
        "nodegroupName": "x",
        "nodeRole": aws.node_role,
        "subnets": aws.subnets,
        "launchTemplate": {"id": template},
    }

    def says(**changes: Any) -> str:
        return refused(aws.eks.create_nodegroup, **{**good, **changes})[2]

    assert "kubernetes version to use when specifying an image id" in says(version="1.32")
    assert "release version to use when specifying an image id" in says(releaseVersion="1.32.0-1")
    assert "AMI Type other than CUSTOM" in says(amiType="AL2023_x86_64_STANDARD")
    assert "Disk size must be specified within the launch template" in says(diskSize=20)
    assert "Cannot specify instance types in launch template" in says(instanceTypes=["m6i.large"])
    assert "should not specify an instance profile" in says(launchTemplate={"id": profile})
    assert "required service principals [ec2.amazonaws.com]" in says(nodeRole=aws.cluster_role)
    assert "cannot be found" in says(nodeRole=f"{aws.node_role}x")
    assert "can't be greater than" in says(scalingConfig={"minSize": 3, "maxSize": 3, "desiredSize": 2})
    assert "does not exist" in says(launchTemplate={"id": "lt-00000000000000000"})
    own = {name: value for name, value in good.items() if name != "launchTemplate"}
    assert "needs a launch template" in refused(aws.eks.create_nodegroup, **own, amiType="CUSTOM")[2]
    assert refused(aws.eks.create_nodegroup, **own, remoteAccess={"ec2SshKey": "x"})[:2] == ("NotImplemented", 501)
    assert aws.eks.list_nodegroups(clusterName="made")["nodegroups"] == []
    for identity in (template, profile):
        aws.ec2.delete_launch_template(LaunchTemplateId=identity)


def test_a_group_without_an_image_takes_eks_own(aws: Aws, made: dict[str, Any]) -> None:  # noqa: ARG001 - it has to exist
    one = {"clusterName": "made", "nodegroupName": "own", "nodeRole": aws.node_role, "subnets": aws.subnets}
    too_new = refused(aws.eks.create_nodegroup, **one, version="1.33")
    assert "1.33 does not go with cluster version 1.32" in too_new[2]
    aws.eks.create_nodegroup(**one, instanceTypes=["m6i.large"])
    group = aws.settled("made", "own")
    assert (group["status"], group["amiType"], group["version"]) == ("ACTIVE", "AL2023_x86_64_STANDARD", "1.32")
    drop(aws, "made", "own")


def test_an_update_replaces_the_nodes(aws: Aws) -> None:
    cluster = aws.cluster("c2")
    template = aws.template("rolled", node_config(cluster))
    aws.group("c2", "g", template)
    before = {one["InstanceId"] for one in aws.instances("c2")}
    newer = aws.data(node_config(cluster))
    aws.ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData=newer)
    wanted = {"clusterName": "c2", "nodegroupName": "g", "launchTemplate": {"id": template, "version": "2"}}
    update = aws.eks.update_nodegroup_version(**wanted)["update"]
    assert aws.update("c2", "g", update["id"])["status"] == "Successful"
    after = {one["InstanceId"] for one in aws.instances("c2")}
    assert (len(after), before & after) == (2, set())
    assert aws.settled("c2", "g")["launchTemplate"]["version"] == "2"
    assert len(aws.nodes(cluster)) == 2

    bad = aws.data(node_config(cluster, name="other"))
    aws.ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData=bad)
    wanted["launchTemplate"]["version"] = "3"
    update = aws.eks.update_nodegroup_version(**wanted)["update"]
    assert refused(aws.eks.update_nodegroup_version, **wanted)[0] in ("ResourceInUseException",)
    failed = aws.update("c2", "g", update["id"])
    assert (failed["status"], failed["errors"][0]["errorCode"]) == ("Failed", "NodeCreationFailure")
    assert "new nodes are not joining node group g" in failed["errors"][0]["errorMessage"]
    group = aws.settled("c2", "g")
    assert (group["status"], group["launchTemplate"]["version"]) == ("ACTIVE", "2")
    assert {one["InstanceId"] for one in aws.instances("c2")} == after
    assert aws.eks.list_updates(name="c2", nodegroupName="g")["updateIds"][-1] == update["id"]

    labels, scaled = {"addOrUpdateLabels": {"team": "b"}}, {"minSize": 1, "maxSize": 3, "desiredSize": 3}
    where = {"clusterName": "c2", "nodegroupName": "g"}
    update = aws.eks.update_nodegroup_config(**where, scalingConfig=scaled, labels=labels)["update"]
    assert aws.update("c2", "g", update["id"])["status"] == "Successful"
    assert len(aws.instances("c2")) == 3
    assert [one["metadata"]["labels"]["team"] for one in aws.nodes(cluster)] == ["b"] * 3
    update = aws.eks.update_nodegroup_config(**where, scalingConfig={**scaled, "desiredSize": 1})["update"]
    assert aws.update("c2", "g", update["id"])["status"] == "Successful"
    assert len(aws.instances("c2")) == len(aws.nodes(cluster)) == 1
    aws.delete("c2", template)


def test_a_baked_image_is_known_by_what_it_was_baked_from(aws: Aws) -> None:
    request = {"ImageId": _AL2023, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
    first = aws.ec2.run_instances(**request)["Instances"][0]["InstanceId"]
    image = aws.ec2.create_image(InstanceId=first, Name="baked")["ImageId"]
    aws.ec2.terminate_instances(InstanceIds=[first])
    cluster = aws.cluster("baked")
    template = aws.template("baked", node_config(cluster), image)
    group = aws.group("baked", "al2023-level-1", template)
    assert (group["status"], group["releaseVersion"]) == ("ACTIVE", image)
    assert {one["ImageId"] for one in aws.instances("baked")} == {image}
    aws.delete("baked", template)
    snapshot = aws.ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    aws.ec2.deregister_image(ImageId=image)
    aws.ec2.delete_snapshot(SnapshotId=snapshot)


@pytest.mark.node
@pytest.mark.slow
def test_the_machines_of_a_node_group_have_the_disk_of_their_image() -> None:
    sandbox = Sandbox()
    with sandbox as endpoint:
        aws = Aws(sandbox, endpoint)
        request = {"ImageId": _AL2023, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
        built = aws.ec2.run_instances(**request)["Instances"][0]["InstanceId"]
        standin.podman("exec", f"cisdriver-{built}", "touch", "/etc/hardened")
        aws.ec2.stop_instances(InstanceIds=[built])
        image = aws.ec2.create_image(InstanceId=built, Name="baked")["ImageId"]
        aws.ec2.terminate_instances(InstanceIds=[built])
        cluster = aws.cluster("real")
        template = aws.template("real", node_config(cluster), image)
        scaling = {"minSize": 1, "maxSize": 1, "desiredSize": 1}
        assert aws.group("real", "g", template, scalingConfig=scaling)["status"] == "ACTIVE"
        node = aws.instances("real")[0]["InstanceId"]
        standin.podman("exec", f"cisdriver-{node}", "test", "-e", "/etc/hardened")
        assert list(sandbox.machines()) == [node]
        aws.delete("real", template)
        assert sandbox.machines() == {}


# Prices


def test_the_price_list_has_samples_and_filters_them(aws: Aws) -> None:
    pricing = aws.client("pricing", "us-east-1")

    def ask(service: str, **fields: str) -> list[dict[str, Any]]:
        filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()]
        pages = pricing.get_paginator("get_products").paginate(ServiceCode=service, Filters=filters)
        return [json.loads(text) for one in pages for text in one["PriceList"]]

    found = ask("AmazonEC2", regionCode="eu-central-1", instanceType="m6i.large", operatingSystem="Linux")
    assert [one["product"]["attributes"]["usagetype"] for one in found] == ["EUC1-BoxUsage:m6i.large"]
    assert found[0]["product"]["attributes"]["sample"] == "true"
    offer = next(iter(found[0]["terms"]["OnDemand"].values()))
    assert next(iter(offer["priceDimensions"].values()))["pricePerUnit"] == {"USD": "0.1000000000"}
    assert ask("AmazonEC2", regionCode="eu-central-1", instanceType="m6i.large", operatingSystem="Windows") == []
    eks = [one["product"]["attributes"]["usagetype"] for one in ask("AmazonEKS", regionCode="us-east-1")]
    assert eks == ["AmazonEKS-Hours:perCluster", "AmazonEKS-Hours:extendedSupport"]
    for kind, usage in (("gp2", "gp2"), ("gp3", "gp3"), ("io1", "piops")):
        volumes = ask("AmazonEC2", regionCode="us-east-1", volumeApiName=kind)
        assert [one["product"]["attributes"]["usagetype"] for one in volumes] == [f"EBS:VolumeUsage.{usage}"]
    assert len(ask("AmazonEC2", regionCode="eu-central-1")) > 100


# User data


def test_user_data_is_read_as_the_nodes_read_it() -> None:
    cluster = {
        "name": "c",
        "endpoint": "https://e",
        "certificateAuthority": {"data": "QQ=="},
        "kubernetesNetworkConfig": {"serviceIpv4Cidr": "172.20.0.0/16"},
    }
    plain = node_config(cluster).split(b"\n\n---\n", 1)[1].rsplit(b"\n--B--", 1)[0]
    assert eks_user_data.obstacle("al2023", node_config(cluster), cluster) is None
    assert eks_user_data.obstacle("al2023", plain, cluster) is None
    assert eks_user_data.obstacle("al2", bootstrap(cluster), cluster) is None
    assert eks_user_data.obstacle("al2", b"#!/bin/bash\n/etc/eks/bootstrap.sh c\n", cluster) is None
    faults = {
        "cidr is '10.0.0.0/16'": node_config(cluster, cidr="10.0.0.0/16"),
        "certificateAuthority is 'Qg=='": node_config(cluster, certificateAuthority="Qg=="),
        "apiServerEndpoint is None": node_config(cluster).replace(b"apiServerEndpoint", b"apiserver"),
        "has no NodeConfig": bootstrap(cluster),
        "no NodeConfig of node.eks.aws/v1alpha1": node_config(cluster).replace(b"v1alpha1", b"v1"),
        "cannot be read": node_config(cluster).replace(b"spec:", b"spec: {"),
    }
    for text, data in faults.items():
        assert text in str(eks_user_data.obstacle("al2023", data, cluster))
    assert "does not call" in str(eks_user_data.obstacle("al2", node_config(cluster), cluster))
    assert "name is 'd'" in str(eks_user_data.obstacle("al2", bootstrap(cluster, "d"), cluster))
    assert "name is '--endpoint'" in str(
        eks_user_data.obstacle("al2", b"#!/bin/sh\n/etc/eks/bootstrap.sh --endpoint c", cluster)
    )
    commented = b"#!/bin/sh\n# /etc/eks/bootstrap.sh c\n"
    assert "does not call" in str(eks_user_data.obstacle("al2", commented, cluster))
