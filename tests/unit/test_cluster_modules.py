"""The modules of role cluster on their own: waiting for stacks, what failed first, changes, and prices."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster import admins, look, stacks
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster import plan as planning
from ansible_collections.cisdriver.amazon_linux.plugins.modules import (
    cluster_cost,
    cluster_destroy,
    cluster_plan,
    stack_changes,
)
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


def _offers(stub: Stubber, *more: dict[str, Any]) -> None:
    zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    details = [
        {"ServiceName": f"com.amazonaws.eu-central-1.{short}", "AvailabilityZones": zones}
        for short in look.ENDPOINTS[:-1]
    ]
    stub.add_response("describe_vpc_endpoint_services", {"ServiceDetails": details, "NextToken": "2"})
    stub.add_response("describe_vpc_endpoint_services", {"ServiceDetails": list(more)})


def _service(short: str, *zones: str) -> dict[str, Any]:
    return {"ServiceName": f"com.amazonaws.eu-central-1.{short}", "AvailabilityZones": list(zones)}


def test_endpoints_tell_the_zones_that_a_closed_vpc_may_have() -> None:
    ec2, stub = client("ec2")
    _offers(stub, _service("logs", "eu-central-1b", "eu-central-1c"))
    _offers(stub, _service("logs", "eu-central-1b", "eu-central-1c"), _service("ec2messages", "eu-central-1b"))
    _offers(stub)
    with stub:
        names, optional, places = look.endpoint_services(ec2, "eu-central-1")
        assert len(names) == 10 and optional == "" and places == {"eu-central-1b", "eu-central-1c"}
        _, optional, places = look.endpoint_services(ec2, "eu-central-1")
        assert optional.endswith(".ec2messages") and places == {"eu-central-1b"}
        with pytest.raises(stacks.RefusedError, match="has no VPC endpoint for logs"):
            look.endpoint_services(ec2, "eu-central-1")


def test_zones_without_an_endpoint_do_not_count_in_a_closed_vpc() -> None:
    zones = [{"ZoneName": f"eu-central-1{name}", "ZoneId": f"euc1-az{name}"} for name in "abc"]
    ec2, stub = client("ec2")
    for _ in range(2):
        stub.add_response("describe_availability_zones", {"AvailabilityZones": zones})
    with stub:
        assert look.zones(ec2, {"eu-central-1b", "eu-central-1c"}) == ["eu-central-1b", "eu-central-1c"]
        with pytest.raises(stacks.RefusedError, match=r"found 1 that have every endpoint.*cluster_nat: one"):
            look.zones(ec2, {"eu-central-1b"})


# What a cluster has


def _addons(versions: list[str], name: str) -> dict[str, str]:
    eks, stub = client("eks")
    fits = [{"clusterVersion": "1.36", "defaultVersion": True}]
    offered = [{"addonVersion": version, "compatibilities": fits} for version in versions]
    stub.add_response("describe_addon_versions", {"addons": [{"addonVersions": offered}] if offered else []})
    with stub:
        return look.addons(eks, "1.36", {name: ""})


def test_metrics_server_may_be_missing_and_other_addons_may_not() -> None:
    assert _addons(["v1"], "metrics-server") == {"metrics-server": "v1"}
    assert _addons([], "metrics-server") == {"metrics-server": ""}
    with pytest.raises(stacks.RefusedError, match="no default version of the add-on coredns"):
        _addons([], "coredns")


def _table(gateway: str, *associations: dict[str, Any]) -> dict[str, Any]:
    return {"Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": gateway}], "Associations": list(associations)}


@pytest.mark.parametrize(
    ("main", "expected"), [("igw-1", ["subnet-private"]), ("local", ["subnet-private", "subnet-of-main"])]
)
def test_nodes_do_not_go_into_public_subnets(main: str, expected: list[str]) -> None:
    tables = [
        _table("igw-1", {"SubnetId": "subnet-public"}),
        _table(main, {"Main": True}),
        {
            "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}],
            "Associations": [{"SubnetId": "subnet-private"}],
        },
    ]
    ec2, stub = client("ec2")
    for _ in range(2):
        stub.add_response("describe_route_tables", {"RouteTables": tables})
    with stub:
        assert look.private_subnets(ec2, "vpc-1", ["subnet-public", "subnet-private", "subnet-of-main"]) == expected
        with pytest.raises(stacks.RefusedError, match="Name subnets by cluster_subnet_ids"):
            look.private_subnets(ec2, "vpc-1", ["subnet-public"])


def test_a_cluster_of_ipv6_is_refused() -> None:
    eks, stub = client("eks")
    network = {"ipFamily": "ipv6", "serviceIpv6Cidr": "fd00::/108"}
    stub.add_response(
        "describe_cluster", {"cluster": {"name": "demo", "status": "ACTIVE", "kubernetesNetworkConfig": network}}
    )
    with stub, pytest.raises(stacks.RefusedError, match="is ipv6; only ipv4 is supported"):
        planning._existing(lambda _: eks, {"name": "demo", "existing": True}, {})  # type: ignore[arg-type]  # asks for eks alone


_HAS = {"nodes-a": {"parameters": {"InstanceTypes": "m5.large,m6i.large", "SubnetIds": "subnet-1,subnet-2"}}}


def test_a_node_group_keeps_its_instance_types() -> None:
    there, new = group("a"), group("b")
    assert planning._types({"instance_types": []}, there, _HAS) == ["m5.large", "m6i.large"]
    assert planning._types({"instance_types": []}, new, _HAS) == ["m6i.large"]
    assert planning._types({"instance_types": ["m5.large", "m6i.large"]}, there, _HAS) == ["m5.large", "m6i.large"]
    with pytest.raises(stacks.RefusedError, match=r"group a has the instance types m5.large, m6i.large.*another name"):
        planning._types({"instance_types": ["c5.large"]}, there, _HAS)


def test_a_node_group_keeps_its_subnets() -> None:
    one = group("a")
    planning._keep_subnets({"subnet_ids": ["subnet-2", "subnet-1"]}, [one], ["subnet-2", "subnet-1"], _HAS)
    assert "SubnetIds" not in one["parameters"]
    with pytest.raises(stacks.RefusedError, match=r"group a has the subnets subnet-1, subnet-2.*another name"):
        planning._keep_subnets({"subnet_ids": ["subnet-3"]}, [one], ["subnet-3"], _HAS)
    planning._keep_subnets({"subnet_ids": []}, [one], ["subnet-1"], _HAS)
    assert one["parameters"]["SubnetIds"] == "subnet-1,subnet-2"


def test_an_administrator_whose_access_entry_is_not_ours_is_refused() -> None:
    mine, creator = "arn:aws:iam::123456789012:role/mine", "arn:aws:iam::123456789012:role/creator"
    made = {**stacks._plain(described("demo-cluster", "CREATE_COMPLETE"), "cluster"), "outputs": {"Arn": "a"}}
    eks, of_eks = client("eks")
    cfn, of_cfn = client("cloudformation")
    clients = planning.Clients({"eks": eks, "cloudformation": cfn}.__getitem__)
    for _ in range(2):
        of_eks.add_response("list_access_entries", {"accessEntries": [mine, creator]}, {"clusterName": "demo"})
        entry = {"LogicalResourceId": stacks.administrator(mine), "ResourceStatus": "CREATE_COMPLETE"}
        gone = {"LogicalResourceId": stacks.administrator(creator), "ResourceStatus": "DELETE_COMPLETE"}
        kind = {"ResourceType": "AWS::EKS::AccessEntry", "LastUpdatedTimestamp": _NOW}
        of_cfn.add_response("list_stack_resources", {"StackResourceSummaries": [{**entry, **kind}, {**gone, **kind}]})
    with of_eks, of_cfn:
        admins.check_there(clients, {"name": "demo", "admins": [mine, f"{mine}2"]}, {"cluster": made})
        with pytest.raises(stacks.RefusedError, match="role/creator has an access entry in the cluster demo already"):
            admins.check_there(clients, {"name": "demo", "admins": [mine, creator]}, {"cluster": made})


# What a cluster leaves


def _destroy(**clients: Any) -> cluster_destroy.Destroy:
    return cluster_destroy.Destroy(planning.Clients(clients.__getitem__), "demo", images=False, timeout=5)


def _volume(name: str, day: int) -> dict[str, Any]:
    return {"VolumeId": name, "Size": 4, "CreateTime": datetime(2026, 11, day, tzinfo=UTC)}


@pytest.mark.parametrize("key", ["cluster", "network"])
def test_volumes_of_an_earlier_cluster_of_the_name_are_kept(key: str) -> None:
    """With the control plane gone already, the network tells how old the cluster is at most."""
    cfn, of_cfn = client("cloudformation")
    eks, of_eks = client("eks")
    ec2, of_ec2 = client("ec2")
    of_cfn.add_response("describe_stacks", {"Stacks": [described(f"demo-{key}", "CREATE_COMPLETE")]})
    of_eks.add_client_error("describe_cluster", "ResourceNotFoundException")
    of_ec2.add_response("describe_volumes", {"Volumes": [_volume("vol-new", 22), _volume("vol-old", 20)]})
    of_ec2.add_response("describe_network_interfaces", {"NetworkInterfaces": []})
    destroy = _destroy(cloudformation=cfn, eks=eks, ec2=ec2)
    with of_cfn, of_eks, of_ec2:
        destroy.look()
    assert [one["id"] for one in destroy.found["others"]] == ["vol-new"]
    (kept,) = destroy.found["kept"]
    assert kept["id"] == "vol-old" and kept["what"].endswith("of an earlier cluster of this name")


class _Logs:
    """EKS makes the group again when the network goes, after the cluster has gone."""

    def __init__(self) -> None:
        self.groups: list[dict[str, str]] = []
        self.deleted: list[str] = []

    def late(self, _cfn: Any, some: list[stacks.Stack], _until: float) -> None:
        if [one["key"] for one in some] == ["network"]:
            self.groups = [{"logGroupName": "/aws/eks/demo/cluster"}, {"logGroupName": "/aws/eks/demo/cluster-2"}]

    def describe_log_groups(self, **_: Any) -> dict[str, Any]:
        return {"logGroups": self.groups}

    def delete_log_group(self, **given: str) -> None:
        self.deleted.append(given["logGroupName"])


def test_a_log_group_that_eks_makes_late_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = _Logs()
    monkeypatch.setattr(stacks, "delete", logs.late)
    cfn, of_cfn = client("cloudformation")
    eks, of_eks = client("eks")
    ec2, of_ec2 = client("ec2")
    both = [described(f"demo-{key}", "CREATE_COMPLETE") for key in ("network", "cluster")]
    of_cfn.add_response("describe_stacks", {"Stacks": both})
    for one in both:
        of_cfn.add_response("describe_stacks", {"Stacks": [one]})
    for _ in range(2):
        of_ec2.add_response("describe_volumes", {"Volumes": []})
        of_ec2.add_response("describe_network_interfaces", {"NetworkInterfaces": []})
    destroy = _destroy(cloudformation=cfn, eks=eks, ec2=ec2, logs=logs)
    with of_cfn, of_eks, of_ec2:
        destroy.look()
        destroy.run()
    assert logs.deleted == ["/aws/eks/demo/cluster"] and destroy.found["status"] == "done"


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


def _now(**status: str) -> dict[str, Any]:
    made = [
        {"key": key.replace("_", "-"), "name": f"demo-{key}", "status": text, "updated": "t"}
        for key, text in status.items()
    ]
    return {"stacks": [{**one, "outputs": {}, "parameters": {}} for one in made]}


def test_a_deployment_is_done_when_every_planned_stack_is_complete() -> None:
    planned = plan(keys=["network", "cluster"], groups=[])
    good = _document({}, _now(network="CREATE_COMPLETE", cluster="UPDATE_COMPLETE", addons="DELETE_FAILED"), planned)
    assert (good["status"], good["reason"]) == ("done", "")
    # After a roll-back, going back to what is there needs no update.
    same = _document({}, _now(network="CREATE_COMPLETE", cluster="UPDATE_ROLLBACK_COMPLETE"), planned)
    assert same["status"] == "done"
    for cluster_status in ("CREATE_IN_PROGRESS", "UPDATE_FAILED", "ROLLBACK_COMPLETE"):
        bad = _document({}, _now(network="CREATE_COMPLETE", cluster=cluster_status), planned)
        assert bad["status"] == "failed" and bad["reason"].startswith(f"not complete: cluster ({cluster_status}).")
    missing = _document({}, _now(network="CREATE_COMPLETE"), planned)
    assert missing["status"] == "failed" and "cluster (not there)" in missing["reason"]
    blind = _document({}, {"msg": "ExpiredToken"}, planned)
    assert blind["status"] == "failed" and blind["reason"] == "the stacks could not be looked at: ExpiredToken"


def test_a_stack_that_could_not_be_followed_is_not_called_deleted() -> None:
    item = {"failed": True, "cluster_applied": "network", "output": "Stack Deleted"}
    reason = _document({"msg": "x", "results": [item]}, {"failures": {}})["reason"]
    assert reason.startswith("stack network: AWS did not tell to the end") and "deploy again" in reason


def test_a_stack_that_could_not_be_followed_fails_its_task() -> None:
    """As a result, amazon.aws.cloudformation calls that a change that succeeded."""
    role = Path(__file__).resolve().parents[2] / "roles/cluster"
    tasks = yaml.safe_load((role / "tasks/stacks.yml").read_text(encoding="utf-8"))
    applied = [one for one in tasks if {"amazon.aws.cloudformation", "ansible.builtin.async_status"} & set(one)]
    assert len(applied) == 3
    for one in applied:
        name = one["register"]
        assert one["failed_when"] == f"{name} is failed or {name}.output | default('') == cluster_lost"
    assert yaml.safe_load((role / "vars/main.yml").read_text(encoding="utf-8")) == {"cluster_lost": cluster._LOST}


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
