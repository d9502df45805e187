"""The layer in front of moto: what it refuses, what it adds, what it records."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cisdriver.sandbox.aws import Endpoint, Sandbox, SandboxError, shapes, wire
from cisdriver.sandbox.aws.images import BASE_IMAGES, EKS_OWNER
from cisdriver.sandbox.aws.operations import OPERATIONS

_HERE = Path(__file__).parent
_MACHINES = "aws_machines:NoMachines"
_RUN = [{"Key": "cisdriver:run-id", "Value": "r1"}]
_AL2023 = "/aws/service/eks/optimized-ami/1.33/amazon-linux-2023/x86_64/standard/recommended/image_id"


class Aws:
    """A running sandbox with its clients."""

    def __init__(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        self.sandbox, self.endpoint = sandbox, endpoint
        self.ec2, self.ssm, self.kms = self.client("ec2"), self.client("ssm"), self.client("kms")

    def client(self, service: str) -> Any:
        return self.endpoint.client(service)

    def run(self, **more: Any) -> str:
        reply = self.ec2.run_instances(
            ImageId=self.endpoint.base_ami, InstanceType="m6i.large", MinCount=1, MaxCount=1, **more
        )
        return str(reply["Instances"][0]["InstanceId"])

    def raw(self, service: str, body: bytes, **headers: str) -> tuple[int, str]:
        """Status and body of a request that boto3 would not send."""
        scope = f"AWS4-HMAC-SHA256 Credential=x/20260101/{self.endpoint.region}/{service}/aws4_request, Signature=0"
        sent = {"Authorization": scope, **{name.replace("_", "-"): value for name, value in headers.items()}}
        request = urllib.request.Request(self.endpoint.url, body, sent)
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(_HERE))
        sandbox = Sandbox(machines=_MACHINES)
        with sandbox as endpoint:
            yield Aws(sandbox, endpoint)


def _code(call: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return str(caught.value.response["Error"]["Code"])


# What is refused


def test_an_operation_nobody_tried_is_answered_with_501(aws: Aws) -> None:
    with pytest.raises(ClientError) as caught:
        aws.ec2.describe_addresses()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert "does not serve ec2 DescribeAddresses" in str(caught.value)
    assert aws.sandbox.requests("ec2", "DescribeAddresses")[-1]["status"] == 501


def test_a_service_nobody_tried_is_answered_with_501(aws: Aws) -> None:
    status, body = aws.raw("lambda", b"{}")
    assert status == 501
    assert "does not serve lambda" in body


def test_an_unsigned_request_is_refused(aws: Aws) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(aws.endpoint.url, b"Action=DescribeVpcs&Version=2016-11-15", timeout=20)
    assert caught.value.code == 403


@pytest.mark.parametrize(
    ("service", "body", "headers", "says"),
    [
        ("ec2", b"Action=DescribeVpcs&Version=2016-11-15&Colour=red", {}, "Colour: DescribeVpcs has no such"),
        ("ec2", b"Action=RunInstances&Version=2016-11-15&MinCount=1", {}, "MaxCount: required"),
        ("ec2", b"Action=RunInstances&Version=2016-11-15&MinCount=one&MaxCount=1", {}, "expected integer, found 'one'"),
        ("sts", b"Action=GetCallerIdentity&Version=2011-06-15&X=1", {}, "X: GetCallerIdentity has no such"),
        ("ssm", b'{"Name": "/a", "Colour": "red"}', {"X_Amz_Target": "AmazonSSM.GetParameter"}, "Colour: GetParameter"),
        ("ssm", b'{"MaxResults": 3}', {"X_Amz_Target": "AmazonSSM.DescribeInstanceInformation"}, "at least 5"),
        ("ssm", b'{"Name": 7}', {"X_Amz_Target": "AmazonSSM.GetParameter"}, "expected string, found 7"),
    ],
)
def test_a_request_that_does_not_fit_the_model_is_refused(
    aws: Aws, service: str, body: bytes, headers: dict[str, str], says: str
) -> None:
    status, text = aws.raw(service, body, **headers)
    assert status == 400
    assert says in text


def test_an_enum_that_boto3_lets_pass_is_refused(aws: Aws) -> None:
    with pytest.raises(ClientError, match="lareg' is none of"):
        aws.ec2.run_instances(ImageId=aws.endpoint.base_ami, InstanceType="m6i.lareg", MinCount=1, MaxCount=1)


def test_a_pattern_that_boto3_lets_pass_is_refused(aws: Aws) -> None:
    assert _code(aws.client("iam").create_role, RoleName="a b", AssumeRolePolicyDocument="{}") == "ValidationError"


def test_a_reply_that_does_not_fit_the_model_is_seen() -> None:
    call = wire.Call("ec2", "CreateImage", "eu-central-1", {})
    body = "<CreateImageResponse><imageId>ami-1</imageId><colour>red</colour></CreateImageResponse>"
    assert wire.read_reply(call, body.encode()) == ({"ImageId": "ami-1"}, ["colour"])
    wrong = {"Reservations": [{"Instances": [{"State": {"Name": "dreaming"}}]}]}
    shape = wire.service_model("ec2").operation_model("DescribeInstances").output_shape
    assert "'dreaming' is none of" in "; ".join(shapes.problems(shape, wrong))


def test_every_served_operation_is_one_of_aws() -> None:
    for service, operations in OPERATIONS.items():
        assert operations <= set(wire.service_model(service).operation_names), service


# What is added to moto


def test_the_eks_parameter_names_an_image_that_can_be_launched(aws: Aws) -> None:
    identity = aws.ssm.get_parameter(Name=_AL2023)["Parameter"]["Value"]
    image = aws.ec2.describe_images(ImageIds=[identity])["Images"][0]
    assert (image["RootDeviceType"], image["RootDeviceName"]) == ("ebs", "/dev/xvda")
    assert image["Name"].startswith("amazon-eks-node-al2023-x86_64-standard-1.33-v")


def test_a_release_that_eks_does_not_have_is_not_found(aws: Aws) -> None:
    assert _code(aws.ssm.get_parameter, Name=_AL2023.replace("1.33", "1.99")) == "ParameterNotFound"


def test_a_private_parameter_is_kept(aws: Aws) -> None:
    aws.ssm.put_parameter(Name="/golden/ami", Value="ami-1", Type="String", DataType="aws:ec2:image")
    assert aws.ssm.get_parameter(Name="/golden/ami")["Parameter"]["Value"] == "ami-1"


def test_base_images_map_their_root_as_those_of_eks_do(aws: Aws) -> None:
    images = aws.ec2.describe_images(Owners=[EKS_OWNER])["Images"]
    assert len(images) == len(BASE_IMAGES)
    mapped = [mapping for image in images for mapping in image["BlockDeviceMappings"]]
    assert [one["DeviceName"] for one in mapped] == ["/dev/xvda"] * len(images)
    assert {(one["Ebs"]["VolumeType"], one["Ebs"]["VolumeSize"]) for one in mapped} == {("gp3", 20)}


def test_an_image_keeps_the_volumes_of_its_instance_and_its_name_is_its_own(aws: Aws) -> None:
    disk = {"VolumeSize": 33, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    instance = aws.run(BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": disk}])
    assert aws.sandbox.leftovers()["instances"] == [instance]
    image = aws.ec2.create_image(InstanceId=instance, Name="own")["ImageId"]
    assert _code(aws.ec2.create_image, InstanceId=instance, Name="own") == "InvalidAMIName.Duplicate"
    aws.ec2.modify_image_attribute(ImageId=image, ImdsSupport={"Value": "v2.0"})
    found = aws.ec2.describe_images(ImageIds=[image])["Images"][0]
    assert (found["RootDeviceType"], found["ImdsSupport"]) == ("ebs", "v2.0")
    assert found["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 33
    assert found["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    snapshot = found["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert _code(aws.ec2.delete_snapshot, SnapshotId=snapshot) == "InvalidSnapshot.InUse"
    aws.ec2.terminate_instances(InstanceIds=[instance])
    assert aws.sandbox.leftovers() == {}
    aws.ec2.deregister_image(ImageId=image)
    assert aws.sandbox.leftovers() == {"snapshots": [snapshot]}
    aws.ec2.delete_snapshot(SnapshotId=snapshot)


def test_a_second_volume_goes_into_the_image_and_to_whatever_starts_from_it(aws: Aws) -> None:
    root = {"VolumeSize": 20, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    mappings = [
        {"DeviceName": "/dev/xvda", "Ebs": root},
        {"DeviceName": "/dev/xvdb", "Ebs": {**root, "VolumeSize": 50}},
    ]
    instance = aws.run(BlockDeviceMappings=mappings)
    image = aws.ec2.create_image(InstanceId=instance, Name="two")["ImageId"]
    aws.ec2.terminate_instances(InstanceIds=[instance])
    found = aws.ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"]
    assert [(one["DeviceName"], one["Ebs"]["VolumeSize"], one["Ebs"]["DeleteOnTermination"]) for one in found] == [
        ("/dev/xvda", 20, True),
        ("/dev/xvdb", 50, True),
    ]
    reply = aws.ec2.run_instances(ImageId=image, InstanceType="m6i.large", MinCount=1, MaxCount=1)
    started = reply["Instances"][0]["InstanceId"]
    volumes = aws.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [started]}])["Volumes"]
    assert {one["Attachments"][0]["Device"]: one["Size"] for one in volumes}["/dev/xvdb"] == 50
    aws.ec2.terminate_instances(InstanceIds=[started])
    aws.ec2.deregister_image(ImageId=image)
    snapshots = aws.sandbox.leftovers()["snapshots"]
    assert len(snapshots) == 2
    for snapshot in snapshots:
        aws.ec2.delete_snapshot(SnapshotId=snapshot)
    assert aws.sandbox.leftovers() == {}


def test_a_group_is_not_deleted_under_a_running_instance(aws: Aws) -> None:
    group = aws.ec2.create_security_group(GroupName="g", Description="d", VpcId=aws.endpoint.vpc_id)["GroupId"]
    instance = aws.run(SecurityGroupIds=[group], SubnetId=aws.endpoint.subnet_id)
    assert _code(aws.ec2.delete_security_group, GroupId=group) == "DependencyViolation"
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.ec2.delete_security_group(GroupId=group)
    assert aws.sandbox.leftovers() == {}


def test_a_running_instance_reports_to_ssm(aws: Aws) -> None:
    instance = aws.run()
    filters = [{"Key": "InstanceIds", "Values": [instance]}]
    assert (
        aws.ssm.describe_instance_information(Filters=filters)["InstanceInformationList"][0]["PingStatus"] == "Online"
    )
    aws.ec2.terminate_instances(InstanceIds=[instance])
    assert aws.ssm.describe_instance_information(Filters=filters)["InstanceInformationList"] == []


def test_reserved_tags_and_unknown_images_and_keys_are_refused(aws: Aws) -> None:
    tags = [{"Key": "aws:x", "Value": "y"}]
    assert _code(aws.ec2.create_tags, Resources=[aws.endpoint.vpc_id], Tags=tags) == "InvalidParameterValue"
    assert _code(aws.run, KeyName="nobody") == "InvalidKeyPair.NotFound"
    unknown = {"ImageId": "ami-00000000000000000", "InstanceType": "m6i.large", "MinCount": 1, "MaxCount": 1}
    assert _code(aws.ec2.run_instances, **unknown) == "InvalidAMIID.NotFound"
    assert aws.sandbox.leftovers() == {}


# What is recorded, and made to fail


def test_a_fault_is_answered_as_often_as_ordered(aws: Aws) -> None:
    aws.sandbox.fail("kms", "ListAliases", "AccessDeniedException", "not for you", times=2)
    assert _code(aws.kms.list_aliases) == "AccessDeniedException"
    assert _code(aws.kms.list_aliases) == "AccessDeniedException"
    assert aws.kms.list_aliases()["Aliases"]
    seen = [request["status"] for request in aws.sandbox.requests("kms", "ListAliases")]
    assert seen == [400, 400, 200]


def test_a_request_is_recorded_with_its_parameters(aws: Aws) -> None:
    group = aws.ec2.create_security_group(
        GroupName="h", Description="d", TagSpecifications=[{"ResourceType": "security-group", "Tags": _RUN}]
    )["GroupId"]
    recorded = aws.sandbox.requests("ec2", "CreateSecurityGroup")[-1]
    assert recorded["parameters"]["TagSpecifications"] == [{"ResourceType": "security-group", "Tags": _RUN}]
    assert recorded["status"] == 200
    aws.ec2.delete_security_group(GroupId=group)


# How it ends


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_ends_with_its_owner(number: signal.Signals) -> None:
    code = (
        "import sys, time; from cisdriver.sandbox.aws import Sandbox\n"
        f"print(Sandbox(machines={_MACHINES!r}).start().url, flush=True); time.sleep(60)"
    )
    path = os.pathsep.join([str(_HERE), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline().strip().rpartition(":")[2])
        assert _listens(port)
        owner.send_signal(number)
        owner.wait(10)
    until = time.monotonic() + 15
    while _listens(port) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _listens(port)


def test_a_sandbox_that_cannot_start_says_why() -> None:
    with pytest.raises(SandboxError, match="no_such_module"):
        Sandbox(machines="no_such_module:X").start()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
