"""Role cluster against the sandbox's AWS: plans, refusals, and the life of a cluster. No podman: machines are names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster.plan import Clients
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster.stacks import (
    RefusedError,
    StackFailedError,
)
from ansible_collections.cisdriver.amazon_linux.plugins.modules import cluster_destroy, cluster_plan
from cisdriver import aws_errors, stages
from cisdriver.sandbox.aws import Endpoint, Sandbox
from jsonschema import Draft202012Validator

_ROOT = Path(__file__).resolve().parents[2]
_BAKED = {
    "cisdriver:run-id": "r0",
    "cisdriver:benchmark": "al2023",
    "cisdriver:benchmark-version": "1.0.0",
    "cisdriver:base-name": "amazon-eks-node-al2023-x86_64-standard-1.36-v20261112",
}
_DEFAULTS = {name: option.get("default") for name, option in cluster_plan.ARGUMENTS.items()}


class Account:
    """A sandbox with two baked images, and the plays against it."""

    def __init__(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        self.sandbox, self.endpoint = sandbox, endpoint
        self.one, self.two = self.image("one", 1), self.image("two", 2)

    def client(self, service: str) -> Any:
        return self.endpoint.client(service)

    def image(self, name: str, level: int, **tags: str) -> str:
        ec2 = self.client("ec2")
        sizes = {"/dev/xvda": 20, "/dev/xvdb": 50} if level == 2 else {"/dev/xvda": 20}
        volumes = [
            {"DeviceName": name, "Ebs": {"VolumeSize": size, "VolumeType": "gp3", "DeleteOnTermination": True}}
            for name, size in sizes.items()
        ]
        run = {"ImageId": self.endpoint.base_ami, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
        started = ec2.run_instances(**run, BlockDeviceMappings=volumes)["Instances"][0]["InstanceId"]
        image = str(ec2.create_image(InstanceId=started, Name=name)["ImageId"])
        ec2.terminate_instances(InstanceIds=[started])
        wanted = {**_BAKED, "cisdriver:level": str(level), **tags}
        ec2.create_tags(Resources=[image], Tags=[{"Key": key, "Value": value} for key, value in wanted.items()])
        return image

    def volume(self, cluster: str) -> str:
        """A free volume, tagged as the EBS CSI driver of the cluster does."""
        ec2 = self.client("ec2")
        run = {"ImageId": self.endpoint.base_ami, "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
        mapped = [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20, "DeleteOnTermination": True}},
            {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeSize": 4, "DeleteOnTermination": False}},
        ]
        started = ec2.run_instances(**run, BlockDeviceMappings=mapped)["Instances"][0]["InstanceId"]
        attached = [{"Name": "attachment.instance-id", "Values": [started]}]
        found = ec2.describe_volumes(Filters=attached)["Volumes"]
        volume = str(next(one["VolumeId"] for one in found if one["Size"] == 4))
        ec2.create_tags(Resources=[volume], Tags=[{"Key": f"kubernetes.io/cluster/{cluster}", "Value": "owned"}])
        ec2.terminate_instances(InstanceIds=[started])
        return volume

    def plan(self, check_mode: bool = True, **settings: Any) -> dict[str, Any]:
        """What module cluster_plan makes of settings; by default of a cluster with one node group."""
        images = [{"group": "al2023-level-1", "id": self.one}]
        wanted = {**_DEFAULTS, "name": "demo", "images": images, "nodes": {"min": 2, "max": 2, "desired": 2}}
        region = self.endpoint.region
        return cluster_plan.run(Clients(self.client), {**wanted, **settings}, region, check_mode)[0]

    def play(self, verb: str, directory: Path, ok: bool = True, **variables: Any) -> dict[str, Any]:
        """The document of a play, checked against its schema. ``ok`` is whether the play ends well."""
        handed = {"cluster_run_dir": str(directory), "cluster_name": "demo", **variables}
        if verb == "deploy":
            handed = {"cluster_run_id": "r1", **handed}
        program = Path(sys.executable).with_name("ansible-playbook")
        (directory / f"{verb}.jsonl").unlink(missing_ok=True)
        done = subprocess.run(
            [program, "-i", "localhost,", "-e", json.dumps(handed), _ROOT / f"playbooks/{verb}.yml"],
            cwd=_ROOT,
            env={
                **os.environ,
                **self.endpoint.env,
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_CALLBACKS_ENABLED": "cisdriver.amazon_linux.events",
                "CISDRIVER_EVENTS": str(directory / f"{verb}.jsonl"),
            },
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert (done.returncode == 0) == ok, done.stdout[-3000:] + done.stderr
        document: dict[str, Any] = json.loads((directory / f"{verb}.json").read_text(encoding="utf-8"))
        schema = json.loads((_ROOT / f"schemas/{verb}.json").read_text(encoding="utf-8"))
        assert [error.message for error in Draft202012Validator(schema).iter_errors(document)] == []
        return document

    @staticmethod
    def stages(directory: Path, verb: str) -> list[str]:
        """The stages the driver shows of the last play, each as done."""
        tracker = stages.Tracker(lambda *_, **__: None, time.monotonic)
        for line in (directory / f"{verb}.jsonl").read_text(encoding="utf-8").splitlines():
            tracker.feed(json.loads(line))
        tracker.leave()
        assert all(stage.ok for stage in tracker.stages)
        return [stage.label for stage in tracker.stages]

    def nodes(self) -> dict[str, list[str]]:
        """The images that the running instances of each node group were started from."""
        running = [{"Name": "instance-state-name", "Values": ["running"]}]
        found: dict[str, list[str]] = {}
        for reservation in self.client("ec2").describe_instances(Filters=running)["Reservations"]:
            for one in reservation["Instances"]:
                tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
                found.setdefault(tags["cisdriver:node-group"], []).append(one["ImageId"])
        return found

    def writes(self) -> int:
        """How many requests have changed something."""
        looks = ("Describe", "Get", "List", "UpdateStack")  # an UpdateStack that changes something makes others
        return sum(one["status"] == 200 and not one["operation"].startswith(looks) for one in self.sandbox.requests())


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        sandbox = Sandbox(machines="aws_machines:NoMachines")
        with sandbox as endpoint:
            yield Account(sandbox, endpoint)


# Plans


def test_a_plan_takes_versions_zones_and_volumes_from_the_account(account: Account) -> None:
    images = [{"group": "al2023-level-2", "id": account.two}, {"group": "baseline", "baseline": True}]
    plan = account.plan(images=images, tags={"team": "platform"})
    assert plan["keys"] == ["network", "cluster", "addons-first", "nodes-al2023-level-2", "nodes-baseline", "addons"]
    assert plan["tags"] == {"team": "platform", "cisdriver:cluster": "demo"}
    assert (plan["partition"], plan["kubernetes_version"]) == ("aws", "1.36")
    zones = [plan["parameters"]["network"][f"Zone{number}"] for number in (1, 2, 3)]
    assert zones == ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    versions = [text for name, text in plan["parameters"]["addons-first"].items() if name.endswith("Version")]
    assert len(versions) == 3 and all(text.startswith("v1.") for text in versions)
    hardened, baseline = plan["groups"]
    assert (hardened["image"]["level"], hardened["image"]["benchmark"]) == (2, "al2023-1.0.0")
    second = next(one for one in hardened["image"]["devices"] if one["DeviceName"] == "/dev/xvdb")
    assert second["Ebs"]["Encrypted"] and second["Ebs"]["VolumeSize"] == 50 and second["Ebs"]["SnapshotId"]
    root = next(one for one in hardened["image"]["devices"] if one["DeviceName"] == "/dev/xvda")
    assert root["Ebs"]["Encrypted"] and "SnapshotId" not in root["Ebs"]
    assert baseline["baseline"] and baseline["image"]["name"] == _BAKED["cisdriver:base-name"]


def test_a_closed_vpc_names_an_endpoint_for_each_service(account: Account) -> None:
    plan = account.plan(nat="none")
    services = plan["parameters"]["network"]["EndpointServices"].split(",")
    assert len(services) == 10 and all(name.startswith("com.amazonaws.eu-central-1.") for name in services)
    assert plan["parameters"]["network"]["Ec2MessagesService"] == "com.amazonaws.eu-central-1.ec2messages"
    assert {"what": "interface endpoints, per zone", "kind": "endpoint", "count": 33} in plan["bill"]


def test_a_vpc_of_yours_is_used_and_its_networks_are_respected(account: Account) -> None:
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"]
    made = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"172.20.{number}.0/24", AvailabilityZone=f"eu-central-1{zone}")
        for number, zone in enumerate("aab")
    ]
    subnets = [one["Subnet"]["SubnetId"] for one in made]
    plan = account.plan(vpc_id=vpc, subnet_ids=subnets[1:])
    assert plan["keys"][0] == "cluster" and plan["subnet_ids"] == subnets[1:]
    assert plan["parameters"]["cluster"]["ServiceCidr"] == "10.100.0.0/16"
    with pytest.raises(RefusedError, match=r"two availability zones; all of .* lie in eu-central-1a"):
        account.plan(vpc_id=vpc, subnet_ids=subnets[:2])
    with pytest.raises(RefusedError, match=f"Not in {account.endpoint.vpc_id}: {subnets[0]}"):
        account.plan(vpc_id=account.endpoint.vpc_id, subnet_ids=subnets)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "-x"}, "cluster_name is '-x'"),
        ({"images": []}, "cluster_images is empty"),
        ({"images": [{"group": "a"}]}, "group a has no image id"),
        ({"kubernetes_version": "1.24"}, r"1\.24 is not supported.*Supported here: .*1\.36"),
        ({"cidr": "10.0.0.0/24"}, "expected a network of /16 to /22"),
        ({"public_access_cidrs": ["everywhere"]}, "cluster_public_access_cidrs"),
        ({"vpc_id": "vpc-1"}, "go together"),
        ({"nodes": {"min": 3, "max": 2, "desired": 2}}, "min <= desired <= max"),
        ({"log_types": ["all"]}, "cluster_log_types has all"),
        ({"addon_versions": {"vpc-cni": "v0.0.1"}}, "vpc-cni has no version v0.0.1 for Kubernetes 1.36. There is: v"),
        ({"addon_versions": {"cilium": "v1"}}, "cilium, which is not deployed"),
        ({"instance_types": ["m6g.large"]}, "m6g.large are arm64, the image is x86_64"),
        ({"existing": True}, "cluster demo is not there"),
        ({"admins": ["arn:aws:iam::123456789012:user/moto"]}, "makes the cluster, and so administers it"),
    ],
)
def test_what_cannot_succeed_is_refused_before_anything_begins(
    account: Account, settings: dict[str, Any], says: str
) -> None:
    before = account.writes()
    with pytest.raises(RefusedError, match=says):
        account.plan(check_mode=False, **settings)
    assert account.writes() == before


def test_images_that_do_not_fit_the_cluster_are_refused(account: Account) -> None:
    old = account.image("old", 1, **{"cisdriver:base-name": "amazon-eks-node-al2023-x86_64-standard-1.32-v20261112"})
    both = [{"group": "new", "id": account.one}, {"group": "old", "id": old}]
    with pytest.raises(RefusedError, match=f"{old} of the group old is for Kubernetes 1.32; a cluster of 1.36 takes"):
        account.plan(images=both)
    odd = account.image("odd", 1, **{"cisdriver:benchmark": "sles", "cisdriver:base-name": "sles"})
    with pytest.raises(RefusedError, match="does not tell its operating system"):
        account.plan(images=[{"group": "odd", "id": odd}])
    with pytest.raises(RefusedError, match="Name the cluster's by cluster_kubernetes_version"):
        account.plan(images=[{"group": "odd", "id": odd, "os": "al2023"}])
    plan = account.plan(images=[{"group": "odd", "id": odd, "os": "al2023"}], kubernetes_version="1.35")
    assert plan["kubernetes_version"] == "1.35"


_STRANGE = json.dumps({"Resources": {"Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.9.0.0/16"}}}})


def test_a_stack_that_cisdriver_did_not_make_is_refused(account: Account) -> None:
    cfn = account.client("cloudformation")
    cfn.create_stack(StackName="strange-network", TemplateBody=_STRANGE)
    with pytest.raises(RefusedError, match="strange-network lacks the tag cisdriver:cluster=strange"):
        account.plan(name="strange")
    destroy = cluster_destroy.Destroy(Clients(account.client), "strange", images=False, timeout=10)
    destroy.look()
    assert destroy.found["stacks"] == []
    cfn.delete_stack(StackName="strange-network")


def test_a_log_group_that_an_earlier_cluster_left_is_refused(account: Account) -> None:
    logs, name = account.client("logs"), "/aws/eks/late/cluster"
    logs.create_log_group(logGroupName=f"{name}-of-another")
    try:
        assert account.plan(name="late")["keys"]
        logs.create_log_group(logGroupName=name)
        with pytest.raises(RefusedError, match=f"aws logs delete-log-group --log-group-name {name}"):
            account.plan(name="late")
    finally:
        for group in logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]:
            logs.delete_log_group(logGroupName=group["logGroupName"])


def test_a_cluster_of_yours_gets_node_groups_and_nothing_else(account: Account) -> None:
    eks, iam = account.client("eks"), account.client("iam")
    found = account.client("ec2").describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    trust = {"Effect": "Allow", "Principal": {"Service": "eks.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName="yours", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    subnets = [one["SubnetId"] for one in found]
    eks.create_cluster(name="yours", version="1.36", roleArn=role, resourcesVpcConfig={"subnetIds": subnets})
    eks.get_waiter("cluster_active").wait(name="yours", WaiterConfig={"Delay": 1})
    try:
        plan = account.plan(name="yours", existing=True)
        assert plan["keys"] == ["nodes-al2023-level-1"] and sorted(plan["subnet_ids"]) == sorted(subnets)
        _public_subnets_take_no_nodes(account, plan["existing"]["vpc_id"], subnets)
        assert plan["existing"]["endpoint"].startswith("https://") and plan["parameters"] == {}
        assert plan["groups"][0]["parameters"]["CniPolicy"] == "true"
        assert not [one for one in plan["bill"] if one["kind"] in ("cluster", "nat_gateway")]
        with pytest.raises(RefusedError, match="There is a cluster yours that cisdriver did not make"):
            account.plan(name="yours")
        destroy = cluster_destroy.Destroy(Clients(account.client), "yours", images=True, timeout=10)
        with pytest.raises(RefusedError, match="cisdriver did not make it and does not delete it"):
            destroy.look()
    finally:
        eks.delete_cluster(name="yours")
        eks.get_waiter("cluster_deleted").wait(name="yours", WaiterConfig={"Delay": 1})
        iam.delete_role(RoleName="yours")


def _public_subnets_take_no_nodes(account: Account, vpc: str, subnets: list[str]) -> None:
    ec2 = account.client("ec2")
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    made = []
    try:
        made.append(ec2.associate_route_table(RouteTableId=table, SubnetId=subnets[0])["AssociationId"])
        assert sorted(account.plan(name="yours", existing=True)["subnet_ids"]) == sorted(subnets[1:])
        made += [ec2.associate_route_table(RouteTableId=table, SubnetId=one)["AssociationId"] for one in subnets[1:]]
        with pytest.raises(RefusedError, match="have a route to an internet gateway; expected private ones"):
            account.plan(name="yours", existing=True)
        assert account.plan(name="yours", existing=True, subnet_ids=subnets)["subnet_ids"] == subnets
    finally:
        for one in made:
            ec2.disassociate_route_table(AssociationId=one)
        ec2.delete_route_table(RouteTableId=table)
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        ec2.delete_internet_gateway(InternetGatewayId=gateway)


# A cluster's life


@pytest.mark.slow
def test_throttling_is_sat_out_and_credentials_that_expire_in_the_middle_leave_nothing_behind(
    account: Account, tmp_path: Path
) -> None:
    """Network and control plane are asked for with other requests: the session ends between them."""
    before = account.sandbox.leftovers()
    network, cluster = {"StackName": "brief-network"}, {"StackName": "brief-cluster"}
    account.sandbox.fail("cloudformation", "CreateStack", "Throttling", "Rate exceeded", times=2, match=network)
    words = "The security token included in the request is expired"
    account.sandbox.fail("cloudformation", "CreateStack", "ExpiredToken", words, match=cluster)
    images = [{"group": "al2023-level-1", "id": account.one}]
    failed = account.play("deploy", tmp_path, ok=False, cluster_name="brief", cluster_images=images)
    assert failed["status"] == "failed"
    assert words in failed["reason"]
    assert aws_errors.explain(failed["reason"], "`cisdriver deploy`")[0].startswith("the AWS credentials have expired")
    assert {one["name"]: one["status"] for one in failed["stacks"]} == {"brief-network": "CREATE_COMPLETE"}
    asked = account.sandbox.requests("cloudformation", "CreateStack")
    assert [one["code"] for one in asked if one["parameters"]["StackName"] == "brief-network"][:2] == ["Throttling"] * 2
    assert account.play("destroy", tmp_path, cluster_name="brief")["status"] == "done"
    assert account.sandbox.leftovers() == before


@pytest.mark.slow
def test_a_cluster_from_a_failed_start_to_its_end(account: Account, tmp_path: Path) -> None:
    """One story, since every play costs seconds: each step begins where the one before ended."""
    begin = account.sandbox.leftovers()
    both = [{"group": "al2023-level-1", "id": account.one}, {"group": "baseline", "baseline": True}]
    _fails_and_goes_on(account, tmp_path, both)
    _again_changes_nothing(account, tmp_path, both)
    _other_images_are_rolled_out(account, tmp_path)
    _comes_back_when_the_new_nodes_fail(account, tmp_path)
    _is_destroyed(account, tmp_path)
    end = account.sandbox.leftovers()
    # A deleted KMS key is there for seven days more.
    assert {kind: ids for kind, ids in end.items() if kind != "keys"} == begin
    for key in end.get("keys", []):
        state = account.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"]
        assert state == "PendingDeletion"


def _fails_and_goes_on(account: Account, directory: Path, images: list[dict[str, Any]]) -> None:
    words = "Cluster limit exceeded for account."
    account.sandbox.fail("eks", "CreateCluster", "ResourceLimitExceededException", words)
    failed = account.play("deploy", directory, ok=False, cluster_images=images)
    assert failed["status"] == "failed"
    assert "stack demo-cluster (ROLLBACK_COMPLETE): AWS::EKS::Cluster Cluster: " in failed["reason"]
    assert words in failed["reason"]
    states = {one["name"]: one["status"] for one in failed["stacks"]}
    assert states == {"demo-network": "CREATE_COMPLETE", "demo-cluster": "ROLLBACK_COMPLETE"}
    assert not any(one["deployed"] for one in failed["node_groups"])

    done = account.play("deploy", directory, cluster_images=images)
    assert (done["status"], done["reason"]) == ("done", "")
    changed = {one["name"]: one["changed"] for one in done["stacks"]}
    assert changed.pop("demo-network") is False
    assert len(changed) == 5 and all(changed.values())
    assert account.stages(directory, "deploy") == [
        *("Look and plan", "Build network and control plane", "Start the node groups", "Install the add-ons"),
        "Write the result",
    ]
    assert done["cluster"]["endpoint"].startswith("https://")
    nodes = account.nodes()
    assert nodes["al2023-level-1"] == [account.one] * 2
    assert len(nodes["baseline"]) == 2


def _again_changes_nothing(account: Account, directory: Path, images: list[dict[str, Any]]) -> None:
    before = account.writes()
    again = account.play("deploy", directory, cluster_images=images)
    assert again["status"] == "done"
    assert not any(one["changed"] for one in again["stacks"])
    assert account.writes() == before
    with pytest.raises(RefusedError, match=r"group al2023-level-1 has the instance types m6i.large and cannot change"):
        account.plan(images=images, instance_types=["m5.large"])
    creator = "arn:aws:iam::123456789012:user/moto"
    with pytest.raises(RefusedError, match=f"{creator} has an access entry in the cluster demo already"):
        account.plan(images=images, admins=[creator])


def _other_images_are_rolled_out(account: Account, directory: Path) -> None:
    images = [{"group": "al2023-level-1", "id": account.two}]
    both = [*images, {"group": "baseline", "baseline": True}]
    before = account.writes()
    planned = account.play("deploy", directory, cluster_images=both, cluster_dry_run=True)
    assert account.stages(directory, "deploy") == ["Look and plan", "Tell what would change", "Write the result"]
    assert {(one["resource"], one["action"], one["replacement"]) for one in planned["changes"]} == {
        ("LaunchTemplate", "Modify", "False"),
        ("Nodegroup", "Modify", "False"),
    }
    assert planned["status"] == "dry_run" and not any(one["changed"] for one in planned["stacks"])
    assert planned["cost"]["note"] == "" and planned["cost"]["per_hour"] > 0.1, planned["cost"]
    made = [one for one in account.sandbox.requests("cloudformation", "CreateChangeSet") if one["status"] == 200]
    deleted = account.sandbox.requests("cloudformation", "DeleteChangeSet")
    assert len(made) == len(deleted) and account.writes() == before + len(made) + len(deleted)

    # EKS refuses a new size and a new image in one update.
    sizes = {"min": 1, "max": 3, "desired": 2}
    rolled = account.play("deploy", directory, cluster_images=images, cluster_nodes=sizes)
    assert rolled["status"] == "done"
    asked = [one["operation"] for one in account.sandbox.requests("eks") if one["operation"].startswith("UpdateNode")]
    assert asked == ["UpdateNodegroupConfig", "UpdateNodegroupVersion"]
    (group,) = rolled["node_groups"]
    assert (group["launch_template_version"], group["deployed"]) == ("2", True)
    assert account.nodes()["al2023-level-1"] == [account.two] * 2
    update = account.sandbox.requests("eks", "UpdateNodegroupVersion")[-1]
    assert update["parameters"]["launchTemplate"]["version"] == "2" and update["by"] == "cloudformation"
    sent = account.sandbox.requests("ec2", "CreateLaunchTemplateVersion")[-1]["parameters"]["LaunchTemplateData"]
    assert {one["DeviceName"] for one in sent["BlockDeviceMappings"]} >= {"/dev/xvdb"}
    assert all(one["Ebs"]["Encrypted"] for one in sent["BlockDeviceMappings"])
    assert sent["MetadataOptions"]["HttpTokens"] == "required"


def _comes_back_when_the_new_nodes_fail(account: Account, directory: Path) -> None:
    words = "We currently do not have sufficient m6i.large capacity"
    account.sandbox.fail("ec2", "RunInstances", "InsufficientInstanceCapacity", words)
    images = [{"group": "al2023-level-1", "id": account.one}]
    failed = account.play("deploy", directory, ok=False, cluster_images=images)
    assert failed["status"] == "failed"
    assert "demo-nodes-al2023-level-1 (UPDATE_ROLLBACK_COMPLETE): AWS::EKS::Nodegroup Nodegroup: " in failed["reason"]
    assert words in failed["reason"]
    assert [one["deployed"] for one in failed["node_groups"]] == [False]
    assert account.nodes()["al2023-level-1"] == [account.two] * 2


def _is_destroyed(account: Account, directory: Path) -> None:
    ec2, volume = account.client("ec2"), account.volume("demo")
    before = account.writes()
    destroy = cluster_destroy.Destroy(Clients(account.client), "demo", images=True, timeout=10)
    destroy.look()
    assert account.writes() == before
    assert [one["name"] for one in destroy.found["stacks"]] == [
        *("demo-addons", "demo-nodes-al2023-level-1", "demo-nodes-baseline"),
        *("demo-addons-first", "demo-cluster", "demo-network"),
    ]
    # The image of the baseline is EKS's; the other baked one is no longer on a node group.
    assert [one["id"] for one in destroy.found["images"]] == [account.two]
    assert [(one["kind"], one["id"]) for one in destroy.found["others"]] == [("volume", volume)]

    _what_cannot_be_deleted_keeps_the_cluster(account, volume)
    account.sandbox.fail("eks", "DeleteCluster", "ResourceInUseException", "Cluster has nodegroups attached")
    failed = account.play("destroy", directory, ok=False, cluster_destroy_images=True)
    assert failed["status"] == "failed" and "demo-cluster (DELETE_FAILED)" in failed["reason"]
    assert "Cluster has nodegroups attached" in failed["reason"]
    states = {one["name"]: one["status"] for one in failed["stacks"]}
    assert states["demo-addons-first"] == "DELETE_COMPLETE" and states["demo-network"] == "CREATE_COMPLETE"

    left = {one["ImageId"] for one in ec2.describe_images(Owners=["self"])["Images"]}
    assert account.one in left and account.two not in left

    # Those of an earlier deployment are not known from the node groups; what is not ours stays whoever names it.
    named = [account.one, account.endpoint.base_ami, "ami-00000000000000000"]
    done = account.play("destroy", directory, cluster_destroy_images=True, cluster_destroy_image_ids=named)
    assert done["status"] == "done" and [one["id"] for one in done["images"]] == [account.one]
    left = {one["ImageId"] for one in ec2.describe_images()["Images"]}
    assert account.one not in left and account.endpoint.base_ami in left
    assert {one["name"]: one["status"] for one in done["stacks"]} == {
        "demo-cluster": "DELETE_COMPLETE",
        "demo-network": "DELETE_COMPLETE",
    }
    nothing = account.play("destroy", directory, cluster_destroy_plan=True)
    assert (nothing["status"], nothing["stacks"]) == ("planned", [])


def _what_cannot_be_deleted_keeps_the_cluster(account: Account, volume: str) -> None:
    """Else the next run would not know whose it is."""
    account.sandbox.fail("ec2", "DeleteVolume", "UnauthorizedOperation", "You are not authorized")
    destroy = cluster_destroy.Destroy(Clients(account.client), "demo", images=True, timeout=60)
    destroy.look()
    with pytest.raises(StackFailedError, match=f"{volume}: .*You are not authorized.*cluster stays until"):
        destroy.run()
    states = {one["name"]: one["status"] for one in destroy.found["stacks"]}
    assert (states["demo-addons"], states["demo-cluster"]) == ("DELETE_COMPLETE", "CREATE_COMPLETE")
    again = cluster_destroy.Destroy(Clients(account.client), "demo", images=True, timeout=10)
    again.look()
    assert [one["id"] for one in again.found["others"]] == [volume]
