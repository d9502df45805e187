"""Stacks and change sets in the sandbox: made, changed, brought back and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aws_stacks import Stacks, body, given, left_clean, resource, running_stacks, subnet, text, vpc
from botocore.exceptions import ClientError


@pytest.fixture(scope="module")
def running() -> Iterator[Stacks]:
    with running_stacks() as stacks:
        yield stacks


@pytest.fixture
def stacks(running: Stacks) -> Iterator[Stacks]:
    with left_clean(running):
        yield running


# Stacks


_NETWORK = body(
    {
        "Vpc": vpc(EnableDnsHostnames="true"),
        "Subnet": subnet("10.7.0.0/24", Tags=[{"Key": "team", "Value": "own"}]),
        "Group": resource(
            "EC2::SecurityGroup",
            GroupDescription="web",
            VpcId={"Ref": "Vpc"},
            SecurityGroupIngress=[{"IpProtocol": "tcp", "FromPort": "443", "ToPort": 443, "CidrIp": "10.7.0.0/16"}],
        ),
    },
    Description="a network",
    Outputs={"Zone": {"Value": {"Fn::GetAtt": ["Subnet", "AvailabilityZone"]}, "Description": "where"}},
)


def test_a_stack_is_made_in_order_by_recorded_calls_and_deleted_in_reverse(stacks: Stacks) -> None:
    tags = [{"Key": "team", "Value": "blue"}, {"Key": "cisdriver:cluster", "Value": "c"}]
    stack = stacks.make("net", _NETWORK, Tags=tags, ClientRequestToken="t1")
    assert (stack["StackStatus"], stack["Description"], stack["Tags"]) == ("CREATE_COMPLETE", "a network", tags)
    subnet = stacks.ec2.describe_subnets(SubnetIds=[stacks.physical("net", "Subnet")])["Subnets"][0]
    assert stack["Outputs"] == {"Zone": subnet["AvailabilityZone"]}
    assert {one["Key"]: one["Value"] for one in subnet["Tags"]} == {"team": "own", "cisdriver:cluster": "c"}
    events = stacks.events("net")
    assert (events[0], events[-1]) == (("net", "CREATE_IN_PROGRESS"), ("net", "CREATE_COMPLETE"))
    assert events.index(("Vpc", "CREATE_COMPLETE")) < events.index(("Subnet", "CREATE_IN_PROGRESS"))
    reply = stacks.api.describe_stack_events(StackName="net")
    assert {one["ClientRequestToken"] for one in reply["StackEvents"]} == {"t1"}
    made = stacks.sandbox.requests("ec2", "CreateSubnet")[-1]
    assert (made["by"], made["parameters"]["VpcId"]) == ("cloudformation", subnet["VpcId"])
    opened = stacks.sandbox.requests("ec2", "AuthorizeSecurityGroupIngress")[-1]["parameters"]["IpPermissions"][0]
    assert (opened["FromPort"], opened["IpRanges"]) == (443, [{"CidrIp": "10.7.0.0/16"}])

    removed = stacks.remove("net")
    assert removed["StackStatus"] == "DELETE_COMPLETE"
    events = stacks.events(removed["StackId"])
    assert events.index(("Group", "DELETE_COMPLETE")) < events.index(("Vpc", "DELETE_IN_PROGRESS"))
    with pytest.raises(ClientError, match="Stack with id net does not exist"):
        stacks.stack("net")
    stacks.api.delete_stack(StackName="net")  # as in AWS: nothing to delete is no error


def test_what_amazon_aws_reads_of_a_stack(stacks: Stacks) -> None:
    stacks.make("net", _NETWORK, StackPolicyBody='{"Statement": []}')
    listed = stacks.api.list_stack_resources(StackName="net")["StackResourceSummaries"]
    assert [one["ResourceStatus"] for one in listed] == ["CREATE_COMPLETE"] * 3
    assert all(one["LastUpdatedTimestamp"] and one["PhysicalResourceId"] for one in listed)
    assert stacks.api.get_template(StackName="net")["TemplateBody"] == _NETWORK
    assert stacks.api.get_stack_policy(StackName="net")["StackPolicyBody"] == '{"Statement": []}'
    assert stacks.api.list_change_sets(StackName="net")["Summaries"] == []
    summaries = stacks.api.list_stacks(StackStatusFilter=["CREATE_COMPLETE"])["StackSummaries"]
    assert [one["StackName"] for one in summaries] == ["net"]
    types = stacks.api.get_template_summary(TemplateBody=text(_NETWORK))["ResourceTypes"]
    assert types == ["AWS::EC2::SecurityGroup", "AWS::EC2::Subnet", "AWS::EC2::VPC"]
    assert stacks.api.validate_template(TemplateBody=text(_NETWORK))["Description"] == "a network"
    stacks.remove("net")


def test_an_update_changes_what_differs_and_nothing_else(stacks: Stacks) -> None:
    stacks.make("net", _NETWORK)
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stacks.change("net", _NETWORK)
    vpc, old_subnet = stacks.physical("net", "Vpc"), stacks.physical("net", "Subnet")
    opened = resource(
        "EC2::SecurityGroup",
        GroupDescription="web",
        VpcId={"Ref": "Vpc"},
        SecurityGroupIngress=[{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "CidrIp": "10.7.0.0/16"}],
    )
    resources = {"Vpc": _NETWORK["Resources"]["Vpc"], "Subnet": subnet("10.7.1.0/24"), "Group": opened}
    stack = stacks.change("net", body({**resources, "Address": resource("EC2::EIP", Domain="vpc")}))
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert stacks.physical("net", "Vpc") == vpc
    rules = stacks.ec2.describe_security_groups(GroupIds=[stacks.physical("net", "Group")])["SecurityGroups"][0]
    assert [rule["FromPort"] for rule in rules["IpPermissions"]] == [80]
    events = stacks.events("net")
    update = events[events.index(("net", "UPDATE_IN_PROGRESS")) :]
    assert ("Vpc", "UPDATE_IN_PROGRESS") not in update
    cleanup = update.index(("net", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"))
    assert update.index(("Subnet", "UPDATE_COMPLETE")) < cleanup < update.index(("Subnet", "DELETE_COMPLETE"))
    with pytest.raises(ClientError, match=r"InvalidSubnetID\.NotFound"):
        stacks.ec2.describe_subnets(SubnetIds=[old_subnet])

    assert len(stacks.sandbox.leftovers()["addresses"]) == 1
    stacks.change("net", body(resources))
    assert "addresses" not in stacks.sandbox.leftovers()
    stacks.remove("net")


def test_a_failed_creation_goes_back_and_says_why(stacks: Stacks) -> None:
    stacks.sandbox.fail("ec2", "CreateSecurityGroup", "SecurityGroupLimitExceeded", "no more groups", times=1)
    stack = stacks.make("net", _NETWORK)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    reason = stacks.reason("net", "Group")
    assert reason.startswith('Resource handler returned message: "no more groups (Service: Ec2, Status Code: 400,')
    assert "HandlerErrorCode: ServiceLimitExceeded" in reason
    assert stacks.sandbox.leftovers() == {"stacks": ["net"]}
    said = [
        one.get("ResourceStatusReason")
        for one in stacks.api.describe_stack_events(StackName="net")["StackEvents"]
        if one["ResourceStatus"] == "ROLLBACK_IN_PROGRESS"
    ]
    assert said == ["The following resource(s) failed to create: [Group]. Rollback requested by user."]
    with pytest.raises(ClientError, match="is in ROLLBACK_COMPLETE state and can not be updated"):
        stacks.change("net", _NETWORK)
    stacks.remove("net")


def test_on_failure_nothing_or_delete(stacks: Stacks) -> None:
    for wish, status in (("DO_NOTHING", "CREATE_FAILED"), ("DELETE", "DELETE_COMPLETE")):
        stacks.sandbox.fail("ec2", "CreateSecurityGroup", "InternalError", times=1)
        reply = stacks.api.create_stack(StackName="net", TemplateBody=text(_NETWORK), OnFailure=wish)
        assert stacks.stack(reply["StackId"])["StackStatus"] == status
        assert ("vpcs" in stacks.sandbox.leftovers()) == (wish == "DO_NOTHING")
        stacks.api.delete_stack(StackName=reply["StackId"])


def test_properties_that_do_not_fit_the_schema_fail_their_resource(stacks: Stacks) -> None:
    wrong = resource(
        "EC2::LaunchTemplate", LaunchTemplateData={"ImageId": "ami-1", "Colour": "red", "EbsOptimized": "maybe"}
    )
    assert stacks.make("lt", body({"Template": wrong}))["StackStatus"] == "ROLLBACK_COMPLETE"
    reason = stacks.reason("lt", "Template")
    assert "Properties validation failed for resource Template with message:" in reason
    assert "#/LaunchTemplateData: extraneous key [Colour] is not permitted" in reason
    assert "#/LaunchTemplateData/EbsOptimized" in reason
    stacks.remove("lt")


def test_a_failed_update_brings_everything_back(stacks: Stacks) -> None:
    stacks.make("net", _NETWORK)
    before = {name: stacks.physical("net", name) for name in ("Vpc", "Subnet", "Group")}
    resources = {**_NETWORK["Resources"], "Vpc": vpc(EnableDnsHostnames=False), "Subnet": subnet("10.7.2.0/24")}
    late = resource("EC2::EIP", Domain="vpc", DependsOn=["Group", "Subnet"])
    stacks.sandbox.fail("ec2", "AllocateAddress", "AddressLimitExceeded", "too many", times=1)
    stack = stacks.change("net", body({**resources, "Address": late}))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "too many" in stacks.reason("net", "Address")
    assert {name: stacks.physical("net", name) for name in before} == before
    names = stacks.ec2.describe_vpc_attribute(VpcId=before["Vpc"], Attribute="enableDnsHostnames")
    assert names["EnableDnsHostnames"] == {"Value": True}
    subnets = stacks.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [before["Vpc"]]}])["Subnets"]
    assert [one["SubnetId"] for one in subnets] == [before["Subnet"]]
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stacks.change("net", _NETWORK)
    stacks.remove("net")


def test_what_cannot_be_deleted_stays_with_what_it_needs(stacks: Stacks) -> None:
    stacks.make("net", _NETWORK)
    own = stacks.physical("net", "Subnet")
    instance = stacks.ec2.run_instances(
        ImageId=stacks.endpoint.base_ami, InstanceType="m6i.large", MinCount=1, MaxCount=1, SubnetId=own
    )["Instances"][0]["InstanceId"]
    stack = stacks.remove("net")
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert "failed to delete: [Subnet]" in stack["StackStatusReason"]
    assert "has dependencies and cannot be deleted" in stacks.reason("net", "Subnet")
    assert [one["VpcId"] for one in stacks.ec2.describe_vpcs(VpcIds=[stacks.physical("net", "Vpc")])["Vpcs"]]
    stacks.ec2.terminate_instances(InstanceIds=[instance])
    assert stacks.remove("net")["StackStatus"] == "DELETE_COMPLETE"


def test_termination_protection_and_retained_resources(stacks: Stacks) -> None:
    kept = resource("EC2::EIP", Domain="vpc", DeletionPolicy="Retain")
    stacks.make("net", body({"Address": kept}), EnableTerminationProtection=True)
    with pytest.raises(ClientError, match="cannot be deleted while TerminationProtection is enabled"):
        stacks.api.delete_stack(StackName="net")
    stacks.api.update_termination_protection(StackName="net", EnableTerminationProtection=False)
    removed = stacks.remove("net")
    assert ("Address", "DELETE_SKIPPED") in stacks.events(removed["StackId"])
    (address,) = stacks.sandbox.leftovers()["addresses"]
    stacks.ec2.release_address(AllocationId=address)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"Parameters": given(Colour="red")}, "ValidationError"),
        ({"RoleARN": "arn:aws:iam::123456789012:role/admin"}, "NotImplemented"),
        ({"TemplateBody": text(body({"R": resource("IAM::Role", AssumeRolePolicyDocument={})}))},
         "InsufficientCapabilitiesException"),
        ({"TemplateBody": "#" * 51201}, "ValidationError"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_done_makes_nothing(stacks: Stacks, more: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as refused:
        stacks.api.create_stack(**{"StackName": "net", "TemplateBody": text(_NETWORK), **more})
    assert refused.value.response["Error"]["Code"] == code


def test_a_name_is_taken_once(stacks: Stacks) -> None:
    stacks.make("net", body({"Address": resource("EC2::EIP")}))
    with pytest.raises(ClientError, match=r"Stack \[net\] already exists"):
        stacks.make("net", body({"Address": resource("EC2::EIP")}))
    stacks.remove("net")


# Kinds that change in place


_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
_READ = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
_POLICIES = "arn:aws:iam::aws:policy/"


def test_a_role_changes_its_policies(stacks: Stacks) -> None:
    iam = stacks.client("iam")
    old = resource(
        "IAM::Role",
        AssumeRolePolicyDocument=_TRUST,
        ManagedPolicyArns=[_POLICIES + "AmazonEKSWorkerNodePolicy", _POLICIES + "AmazonEKS_CNI_Policy"],
        Policies=[{"PolicyName": "read", "PolicyDocument": _READ}],
        PermissionsBoundary=_POLICIES + "PowerUserAccess",
        Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "1"}],
    )
    new = resource(
        "IAM::Role",
        AssumeRolePolicyDocument=_TRUST,
        ManagedPolicyArns=[_POLICIES + "AmazonEKSWorkerNodePolicy", _POLICIES + "AmazonSSMManagedInstanceCore"],
        Description="nodes",
        Tags=[{"Key": "a", "Value": "2"}],
    )
    ask = {"Capabilities": ["CAPABILITY_IAM"]}
    stacks.make("role", body({"Role": old}, Outputs={"Arn": {"Value": {"Fn::GetAtt": ["Role", "Arn"]}}}), **ask)
    name = stacks.physical("role", "Role")
    assert name.startswith("role-Role-")
    assert stacks.stack("role")["Outputs"]["Arn"].endswith(f":role/{name}")
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == ["read"]
    assert stacks.change("role", body({"Role": new}), **ask)["StackStatus"] == "UPDATE_COMPLETE"
    assert stacks.physical("role", "Role") == name
    attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    assert {one["PolicyName"] for one in attached} == {"AmazonEKSWorkerNodePolicy", "AmazonSSMManagedInstanceCore"}
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == []
    role = iam.get_role(RoleName=name)["Role"]
    assert (role["Description"], role["Tags"]) == ("nodes", [{"Key": "a", "Value": "2"}])
    assert "PermissionsBoundary" not in role
    stacks.remove("role")


def test_keys_and_log_groups_change(stacks: Stacks) -> None:
    kms, logs = stacks.client("kms"), stacks.client("logs")

    def template(rotate: bool, days: int, said: str) -> dict[str, Any]:
        tags = [{"Key": "said", "Value": said}]
        key = resource("KMS::Key", Description=said, EnableKeyRotation=rotate, PendingWindowInDays=7, Tags=tags)
        alias = resource("KMS::Alias", AliasName="alias/cisdriver/x", TargetKeyId={"Ref": "Key"})
        arn = {"Fn::GetAtt": ["Key", "Arn"]}
        group = resource("Logs::LogGroup", LogGroupName="/x", RetentionInDays=days, KmsKeyId=arn, Tags=tags)
        return body({"Key": key, "Alias": alias, "Group": group})

    stacks.make("keys", template(True, 30, "old"))
    key = stacks.physical("keys", "Key")
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is True
    assert stacks.change("keys", template(False, 90, "new"))["StackStatus"] == "UPDATE_COMPLETE"
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is False
    assert kms.describe_key(KeyId="alias/cisdriver/x")["KeyMetadata"]["Description"] == "new"
    assert kms.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "said", "TagValue": "new"}]
    (group,) = logs.describe_log_groups(logGroupNamePrefix="/x")["logGroups"]
    assert group["retentionInDays"] == 90
    assert logs.list_tags_for_resource(resourceArn=group["arn"].removesuffix(":*"))["tags"] == {"said": "new"}
    stacks.remove("keys")
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"


def test_endpoints_and_rules_change(stacks: Stacks) -> None:
    def template(port: int, *subnets: str) -> dict[str, Any]:
        rule = {"GroupId": {"Ref": "Group"}, "SourceSecurityGroupId": {"Ref": "Group"}, "IpProtocol": "tcp"}
        places = [{"Ref": name} for name in subnets]
        return body(
            {
                "Vpc": vpc(EnableDnsHostnames=True),
                "A": subnet("10.7.0.0/24", AvailabilityZone="eu-central-1a"),
                "B": subnet("10.7.1.0/24", AvailabilityZone="eu-central-1b"),
                "Group": resource("EC2::SecurityGroup", GroupDescription="endpoints", VpcId={"Ref": "Vpc"}),
                "Rule": resource("EC2::SecurityGroupIngress", FromPort=port, ToPort=port, **rule),
                "Endpoint": resource(
                    "EC2::VPCEndpoint",
                    VpcId={"Ref": "Vpc"},
                    VpcEndpointType="Interface",
                    ServiceName={"Fn::Sub": "com.amazonaws.${AWS::Region}.sts"},
                    SecurityGroupIds=[{"Fn::GetAtt": ["Group", "GroupId"]}],
                    SubnetIds=places,
                    PrivateDnsEnabled=True,
                ),
            }
        )

    stacks.make("ends", template(443, "A"))
    endpoint, second = stacks.physical("ends", "Endpoint"), stacks.physical("ends", "B")
    assert stacks.change("ends", template(8443, "B"))["StackStatus"] == "UPDATE_COMPLETE"
    found = stacks.ec2.describe_vpc_endpoints(VpcEndpointIds=[endpoint])["VpcEndpoints"][0]
    assert found["SubnetIds"] == [second]
    group = stacks.ec2.describe_security_groups(GroupIds=[stacks.physical("ends", "Group")])["SecurityGroups"][0]
    assert [rule["FromPort"] for rule in group["IpPermissions"]] == [8443]
    assert stacks.remove("ends")["StackStatus"] == "DELETE_COMPLETE"


# Change sets


def test_change_sets_plan_and_do(stacks: Stacks) -> None:
    two = {"Vpc": vpc(), "Subnet": subnet("10.7.0.0/24")}
    reply = stacks.api.create_change_set(
        StackName="net", ChangeSetName="first", ChangeSetType="CREATE", TemplateBody=text(body(two))
    )
    planned = stacks.api.describe_change_set(ChangeSetName=reply["Id"])
    assert (planned["Status"], planned["ExecutionStatus"]) == ("CREATE_COMPLETE", "AVAILABLE")
    assert [one["ResourceChange"]["Action"] for one in planned["Changes"]] == ["Add", "Add"]
    assert stacks.stack("net")["StackStatus"] == "REVIEW_IN_PROGRESS"
    assert stacks.sandbox.leftovers() == {"stacks": ["net"]}
    stacks.api.execute_change_set(ChangeSetName="first", StackName="net")
    assert stacks.stack("net")["StackStatus"] == "CREATE_COMPLETE"

    same = {"StackName": "net", "TemplateBody": text(body(two))}
    stacks.api.create_change_set(ChangeSetName="same", **same)
    nothing = stacks.api.describe_change_set(ChangeSetName="same", StackName="net")
    assert (nothing["Status"], nothing["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert nothing["StatusReason"].startswith("The submitted information didn't contain changes.")
    with pytest.raises(ClientError, match="InvalidChangeSetStatus"):
        stacks.api.execute_change_set(ChangeSetName="same", StackName="net")
    stacks.api.delete_change_set(ChangeSetName="same", StackName="net")

    moved = text(body({**two, "Subnet": subnet("10.7.5.0/24")}))
    stacks.api.create_change_set(ChangeSetName="move", StackName="net", TemplateBody=moved)
    (change,) = stacks.api.describe_change_set(ChangeSetName="move", StackName="net")["Changes"]
    assert (change["ResourceChange"]["Action"], change["ResourceChange"]["Replacement"]) == ("Modify", "True")
    assert change["ResourceChange"]["PhysicalResourceId"] == stacks.physical("net", "Subnet")
    stacks.change("net", body({**two, "Address": resource("EC2::EIP")}))
    assert stacks.api.list_change_sets(StackName="net")["Summaries"][0]["ExecutionStatus"] == "OBSOLETE"
    stacks.remove("net")
