"""The modules of role cluster on their own: waiting for stacks, what failed first, changes, and prices."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster import look, stacks
from ansible_collections.cisdriver.amazon_linux.plugins.modules import cluster_cost, cluster_plan, stack_changes
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import cluster
from botocore.stub import Stubber
from cluster_support import group, plan

_NOW = datetime(2026, 11, 21, tzinfo=UTC)
_ID = "arn:aws:cloudformation:eu-central-1:123456789012:stack/demo-network/0"


def client(service: str) -> tuple[Any, Stubber]:
    made = boto3.client(
        service, region_name="eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    return made, Stubber(made)


def described(name: str, status: str, **more: Any) -> dict[str, Any]:
    tags = [{"Key": "cisdriver:cluster", "Value": "demo"}]
    return {"StackName": name, "StackId": _ID, "CreationTime": _NOW, "StackStatus": status, "Tags": tags, **more}


def event(resource: str, status: str, reason: str = "", kind: str = "AWS::EC2::VPC") -> dict[str, Any]:
    return {
        "StackId": _ID,
        "EventId": f"{resource}-{status}",
        "StackName": "demo-network",
        "LogicalResourceId": resource,
        "ResourceType": kind,
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
        "Timestamp": _NOW,
    }


def own(status: str) -> dict[str, Any]:
    return event("demo-network", status, kind="AWS::CloudFormation::Stack")


# Stacks


def test_stacks_are_found_by_name_and_tag_over_all_pages() -> None:
    cfn, stub = client("cloudformation")
    other = [{"Key": "cisdriver:cluster", "Value": "demo-nodes"}]
    first = [
        described("demo-addons", "CREATE_COMPLETE"),
        described("demo-nodes-cluster", "CREATE_COMPLETE", Tags=other),
    ]
    second = [described("demo-network", "CREATE_COMPLETE"), described("demonstration-network", "CREATE_COMPLETE")]
    for _ in range(2):
        stub.add_response("describe_stacks", {"Stacks": first, "NextToken": "2"}, {})
        stub.add_response("describe_stacks", {"Stacks": second}, {"NextToken": "2"})
    with stub:
        assert list(stacks.find(cfn, "demo")) == ["network", "addons"]
        # A group called "cluster" of demo would have the name of the control plane of demo-nodes.
        with pytest.raises(stacks.RefusedError, match="demo-nodes-cluster lacks the tag cisdriver:cluster=demo"):
            stacks.find(cfn, "demo", ["nodes-cluster"])


def test_what_an_interrupted_run_left_at_work_is_waited_for() -> None:
    cfn, stub = client("cloudformation")
    for status in ("UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_COMPLETE"):
        found = {"Stacks": [described("demo-network", status)]}
        stub.add_response("describe_stacks", found, {"StackName": _ID})
    working = stacks._plain(described("demo-network", "UPDATE_IN_PROGRESS"), "network")
    done = stacks._plain(described("demo-cluster", "CREATE_COMPLETE"), "cluster")
    with stub:
        after = stacks.wait(cfn, [working, done], time.monotonic() + 30, poll=0)
    assert [one["status"] for one in after] == ["UPDATE_COMPLETE", "CREATE_COMPLETE"]
    stub.assert_no_pending_responses()


def test_a_stack_that_does_not_end_is_named() -> None:
    cfn, stub = client("cloudformation")
    stub.add_response("describe_stacks", {"Stacks": [described("demo-network", "CREATE_IN_PROGRESS")]})
    working = stacks._plain(described("demo-network", "CREATE_IN_PROGRESS"), "network")
    with stub, pytest.raises(stacks.StackFailedError, match=r"still at work: demo-network \(CREATE_IN_PROGRESS\)"):
        stacks.wait(cfn, [working], time.monotonic() - 1, poll=0)


def test_what_failed_first_is_told_not_what_was_cancelled_with_it_nor_what_failed_before() -> None:
    cfn, stub = client("cloudformation")
    newest_first = [
        own("ROLLBACK_COMPLETE"),
        event("Subnet", "CREATE_FAILED", "Resource creation cancelled"),
        event("Later", "CREATE_FAILED", "for another reason"),
        event("Vpc", "CREATE_FAILED", "The maximum number of VPCs has been reached."),
        own("CREATE_IN_PROGRESS"),
        event("Older", "UPDATE_FAILED", "of an earlier operation"),
    ]
    stub.add_response("describe_stack_events", {"StackEvents": newest_first[:2], "NextToken": "2"})
    stub.add_response("describe_stack_events", {"StackEvents": newest_first[2:]})
    stack = stacks._plain(described("demo-network", "ROLLBACK_COMPLETE"), "network")
    with stub:
        text = stacks.explain(stack, stacks.failure(cfn, stack))
    words = "The maximum number of VPCs has been reached."
    assert text == f"stack demo-network (ROLLBACK_COMPLETE): AWS::EC2::VPC Vpc: {words}"


def test_a_stack_that_stays_fails_the_deletion_after_the_others_are_gone() -> None:
    cfn, stub = client("cloudformation")
    some = [stacks._plain(described(f"demo-{key}", "CREATE_COMPLETE"), key) for key in ("nodes-a", "nodes-b")]
    for _ in some:
        stub.add_response("delete_stack", {}, {"StackName": _ID})
    for name, status in (("demo-nodes-a", "DELETE_FAILED"), ("demo-nodes-b", "DELETE_COMPLETE")):
        stub.add_response("describe_stacks", {"Stacks": [described(name, status)]})
    failed = event("Nodegroup", "DELETE_FAILED", "in use", "AWS::EKS::Nodegroup")
    stub.add_response("describe_stack_events", {"StackEvents": [failed, own("DELETE_IN_PROGRESS")]})
    with stub, pytest.raises(stacks.StackFailedError, match=r"demo-nodes-a \(DELETE_FAILED\).*Nodegroup: in use"):
        stacks.delete(cfn, some, time.monotonic() + 30, poll=0)
    stub.assert_no_pending_responses()


def test_a_rollback_that_failed_is_refused_with_the_way_out() -> None:
    cfn, stub = client("cloudformation")
    stub.add_response("describe_stacks", {"Stacks": [described("demo-network", "UPDATE_ROLLBACK_FAILED")]})
    stub.add_response("describe_stack_events", {"StackEvents": [event("Vpc", "UPDATE_FAILED", "in use")]})
    settings = {name: option.get("default") for name, option in cluster_plan.ARGUMENTS.items()}
    settings.update(name="demo", images=[{"group": "a", "id": "ami-1"}], nodes={"min": 1, "max": 1, "desired": 1})
    with stub, pytest.raises(stacks.RefusedError, match="continue-update-rollback --stack-name demo-network"):
        cluster_plan.run(lambda _: cfn, settings, "eu-central-1", check_mode=False)  # type: ignore[arg-type]  # asks for cloudformation alone


# Zones and images


def test_zones_that_eks_refuses_do_not_count() -> None:
    ec2, stub = client("ec2")
    zones = [{"ZoneName": f"us-west-1{name}", "ZoneId": f"usw1-az{number}"} for number, name in ((1, "a"), (2, "b"))]
    stub.add_response("describe_availability_zones", {"AvailabilityZones": zones})
    with stub, pytest.raises(stacks.RefusedError, match=r"two availability zones; found 1 .* supports: us-west-1a\."):
        look.zones(ec2)


@pytest.mark.parametrize(
    ("tags", "name", "os"),
    [
        ({"cisdriver:benchmark": "al2"}, "anything", "al2"),
        ({"cisdriver:base-name": "amazon-eks-node-al2023-x86_64-standard-1.36-v20261112"}, "mine", "al2023"),
        ({}, "amazon-eks-node-al2023-arm64-standard-1.34-v20261112", "al2023"),
        ({}, "amazon-eks-node-1.32-v20251112", "al2"),
        ({}, "amazon-eks-arm64-node-1.32-v20251112", "al2"),
    ],
)
def test_tags_or_name_tell_the_system(tags: dict[str, str], name: str, os: str) -> None:
    assert look.system({"ImageId": "ami-1", "Name": name, "tags": tags}) == os


def test_instance_stores_are_no_volumes() -> None:
    image = {
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-1", "VolumeSize": 20, "VolumeType": "gp3"}},
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/xvdc", "Ebs": {"SnapshotId": "snap-2", "VolumeSize": 9, "VolumeType": "gp2"}},
        ],
    }
    root, second = look.devices(image)
    assert root["Ebs"] == {"VolumeSize": 20, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    assert second["Ebs"]["SnapshotId"] == "snap-2"


# Changes


def _conditional(nat: str) -> list[str]:
    made = cluster.stack(
        plan(parameters={"network": {"Nat": nat, "Zone1": "a", "Zone2": "b", "Zone3": ""}}), "network", {}
    )
    return [one["resource"] for one in stack_changes.of_template(made)]


def test_a_new_stack_has_the_resources_whose_condition_holds() -> None:
    assert "NatGateway2" in _conditional("three") and "NatGateway3" not in _conditional("three")
    assert "NatGateway1" in _conditional("one") and "NatGateway2" not in _conditional("one")
    closed = _conditional("none")
    assert "InspectorEndpoint" in closed and "InternetGateway" not in closed and "PrivateSubnet3" not in closed


def _change_set(status: str, reason: str = "", changes: list[dict[str, Any]] | None = None) -> list[dict[str, str]]:
    cfn, stub = client("cloudformation")
    stub.add_response("create_change_set", {"Id": "arn:aws:cloudformation:x:1:changeSet/y/z"})
    reply = {"Status": status, "StatusReason": reason, "Changes": changes or []}
    stub.add_response("describe_change_set", reply)
    stub.add_response("delete_change_set", {})
    stack = {"name": "demo-network", "template": "Resources: {}", "parameters": {"Nat": "one"}}
    with stub:
        try:
            return stack_changes._of_change_set(cfn, stack, {"team": "platform"}, 10)
        finally:
            stub.assert_no_pending_responses()  # it is deleted, however it ended


def test_a_change_set_is_read_and_deleted() -> None:
    change = {"Action": "Modify", "LogicalResourceId": "Vpc", "ResourceType": "AWS::EC2::VPC", "Replacement": "True"}
    (found,) = _change_set("CREATE_COMPLETE", changes=[{"Type": "Resource", "ResourceChange": change}])
    assert found == {
        "stack": "demo-network",
        "action": "Modify",
        "resource": "Vpc",
        "type": "AWS::EC2::VPC",
        "replacement": "True",
    }


def test_a_change_set_without_changes_is_no_error() -> None:
    assert _change_set("FAILED", "The submitted information didn't contain changes.") == []
    with pytest.raises(stack_changes.ChangeSetError, match="Parameters: "):
        _change_set("FAILED", "Parameters: [X] must have values")


# Prices


def product(usage: str, price: str, unit: str = "Hrs") -> str:
    dimension = {"unit": unit, "pricePerUnit": {"USD": price}}
    terms = {"OnDemand": {"x": {"priceDimensions": {"y": dimension}}}}
    return json.dumps({"product": {"attributes": {"usagetype": usage}}, "terms": terms})


def _cost(kind: str, count: int, products: list[str], type_: str = "") -> dict[str, Any]:
    pricing, stub = client("pricing")
    stub.add_response("get_products", {"FormatVersion": "aws_v1", "PriceList": products})
    items = [{"what": "it", "kind": kind, "type": type_, "count": count}]
    with stub:
        prices, note = cluster_cost.ask(pricing, "eu-central-1", "USD", items)
    return cluster_cost.bill(items, prices, "USD", note)


def test_prices_are_by_the_hour_and_for_all() -> None:
    per_cluster = [
        product("EUC1-AmazonEKS-Hours:extendedSupport", "0.5"),
        product("EUC1-AmazonEKS-Hours:perCluster", "0.1"),
    ]
    assert _cost("cluster", 1, per_cluster)["per_hour"] == 0.1
    nat = [
        product("EUC1-RegionalNatGateway-Hours", "9"),
        product("NatGateway-Bytes", "9"),
        product("NatGateway-Hours", "0.05"),
    ]
    assert _cost("nat_gateway", 3, nat)["per_hour"] == 0.15
    volume = [product("EUC1-EBS:VolumeP-IOPS.gp3", "9"), product("EUC1-EBS:VolumeUsage.gp3", "0.073", "GB-Mo")]
    assert _cost("volume", 100, volume, "gp3")["per_hour"] == 0.01


def test_a_price_that_is_not_in_the_list_is_said_and_not_guessed() -> None:
    cost = _cost("instance", 2, [], "m9z.large")
    assert cost["per_hour"] is None and cost["lines"] == [{"what": "it", "count": 2, "per_hour": None}]
    assert cost["note"] == "the price list has no price for instance m9z.large in eu-central-1"


def test_a_price_list_that_does_not_answer_is_said() -> None:
    pricing, stub = client("pricing")
    stub.add_client_error("get_products", "AccessDeniedException", "not for you")
    with stub:
        prices, note = cluster_cost.ask(pricing, "x", "USD", [{"kind": "cluster", "type": ""}])
    assert prices == {} and "did not answer, so figures are missing" in note and "not for you" in note


# The document


def _document(failure: dict[str, Any], now: dict[str, Any], planned: dict[str, Any] | None = None) -> dict[str, Any]:
    about = {"run_id": "r", "region": "x", "seconds": 1.0, "dry_run": False, "changes": [], "cost": None}
    return cluster.document(about, planned, now, failure)


def test_a_refusal_is_told_without_a_plan() -> None:
    document = _document({"msg": "no", "refused": True}, {})
    assert (document["status"], document["reason"], document["cluster"]) == ("refused", "no", None)


def test_every_failed_stack_of_a_run_is_in_the_reason_and_no_other() -> None:
    failure = {
        "msg": "One or more items failed",
        "results": [
            {
                "failed": True,
                "cluster_job": {"cluster_applied": "nodes-a"},
                "output": "Problem",
                "msg": "Unknown error.",
            },
            {"failed": False, "cluster_job": {"cluster_applied": "nodes-b"}},
            {"failed": True, "cluster_applied": "nodes-c", "msg": "Rate exceeded"},
        ],
    }
    now = {"failures": {"nodes-a": "stack demo-nodes-a: why", "nodes-b": "of last week"}}
    assert _document(failure, now)["reason"] == "stack demo-nodes-a: why; Rate exceeded"


def test_without_a_look_at_the_end_the_stacks_are_as_before() -> None:
    before = {"network": {"name": "demo-network", "key": "network", "status": "CREATE_COMPLETE", "updated": "t"}}
    before["network"]["outputs"] = {}  # type: ignore[assignment]  # the rest of a stack does not matter here
    document = _document({"msg": "ExpiredToken"}, {}, plan(stacks=before, groups=[group("a")]))
    assert document["stacks"] == [{"name": "demo-network", "status": "CREATE_COMPLETE", "changed": False}]
    assert document["status"] == "failed" and document["node_groups"][0]["deployed"] is False
