"""The CloudFormation templates: cfn-lint with the schemas of every partition, a policy, and errors they must catch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cfnlint
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.cisdriver.amazon_linux.plugins.filter import cluster_stack
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster import look
from ansible_collections.cisdriver.amazon_linux.plugins.modules import stack_changes
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import cluster
from cluster_support import TAGS, group, plan
from template_policy import breaches

_FILES = Path(__file__).resolve().parents[2] / "roles/cluster/files"
NAMES = ("network", "cluster", "addons-first", "nodes", "addons")
#: A region of each partition.
_REGIONS = ["eu-central-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1", "us-isob-east-1", "eusc-de-east-1"]
_ADMINS = ["arn:aws:iam::123456789012:role/ops", "arn:aws:iam::123456789012:user/ann"]

Template = dict[str, Any]


def load(name: str) -> Template:
    return dict(yaml.safe_load((_FILES / f"{name}.yml").read_text(encoding="utf-8")))


def filled(name: str) -> Template:
    """As the role applies it."""
    key = "nodes-al2023-level-2" if name == "nodes" else name
    return dict(yaml.safe_load(cluster.stack(plan(admins=_ADMINS), key, None)["template"]))


def lint(template: Template, regions: list[str]) -> list[str]:
    """cfn-lint's errors and warnings."""
    found = cfnlint.lint(yaml.safe_dump(template, sort_keys=False), regions=regions)
    return [f"{match.rule.id} {match.message}" for match in found if match.rule.id[0] in "EW"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", [load, filled])
def test_every_template_passes_cfn_lint_and_policy_in_every_partition(
    form: Callable[[str], Template], name: str
) -> None:
    template = form(name)
    assert lint(template, _REGIONS) == []
    assert breaches(name, template) == []


def test_templates_are_within_what_cloudformation_takes_and_have_no_aliases() -> None:
    assert sorted(path.stem for path in _FILES.iterdir()) == sorted(NAMES)
    for name in NAMES:
        text = (_FILES / f"{name}.yml").read_text(encoding="utf-8")
        assert len(text.encode()) < 51200
        assert not [token for token in yaml.scan(text) if isinstance(token, yaml.AliasToken)], name
        assert "*id" not in cluster.stack(plan(), "nodes-al2023-level-2" if name == "nodes" else name, None)["template"]


def test_no_partition_is_written_into_a_template() -> None:
    for name in NAMES:
        text = (_FILES / f"{name}.yml").read_text(encoding="utf-8")
        assert "arn:aws" not in text and "602401143452" not in text


# Errors that must be caught: by cfn-lint, by the policy


def _wildcard(template: Template) -> None:
    template["Resources"]["NodeRole"]["Properties"]["Policies"] = [
        {
            "PolicyName": "all",
            "PolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}],
            },
        }
    ]


def _public(template: Template) -> None:
    template["Resources"]["Cluster"]["Properties"]["ResourcesVpcConfig"]["EndpointPublicAccess"] = True


def _open_by_default(template: Template) -> None:
    template["Parameters"]["PublicAccessCidrs"]["Default"] = "0.0.0.0/0"


def _unencrypted_secrets(template: Template) -> None:
    del template["Resources"]["Cluster"]["Properties"]["EncryptionConfig"]


def _unencrypted_volume(template: Template) -> None:
    data = template["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] = False


def _imds_v1(template: Template) -> None:
    data = template["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    data["MetadataOptions"]["HttpTokens"] = "optional"


def _open_group(template: Template) -> None:
    template["Resources"]["EndpointSecurityGroup"]["Properties"]["SecurityGroupIngress"][0]["CidrIp"] = "0.0.0.0/0"


def _more_than_needed(template: Template) -> None:
    template["Resources"]["NodeRole"]["Properties"]["ManagedPolicyArns"].append(
        {"Fn::Sub": "arn:${AWS::Partition}:iam::aws:policy/AdministratorAccess"}
    )


@pytest.mark.parametrize(
    ("name", "seed", "says"),
    [
        ("nodes", _wildcard, "Action ec2:* is not reviewed"),
        ("nodes", _wildcard, "Resource * is not reviewed"),
        ("nodes", _more_than_needed, "AdministratorAccess is not reviewed"),
        ("cluster", _public, "public without being asked"),
        ("cluster", _open_by_default, "public by default"),
        ("cluster", _unencrypted_secrets, "secrets are not encrypted"),
        ("nodes", _unencrypted_volume, "/dev/xvda is not encrypted"),
        ("nodes", _imds_v1, "IMDSv2"),
        ("network", _open_group, "open to the world"),
    ],
)
def test_the_policy_catches(name: str, seed: Callable[[Template], None], says: str) -> None:
    template = copy.deepcopy(load(name))
    seed(template)
    assert any(says in breach for breach in breaches(name, template))


def _unknown_property(template: Template) -> None:
    template["Resources"]["Nodegroup"]["Properties"]["AmiKind"] = "CUSTOM"


def _no_role(template: Template) -> None:
    del template["Resources"]["Nodegroup"]["Properties"]["NodeRole"]


def _bad_attribute(template: Template) -> None:
    template["Outputs"]["LaunchTemplateVersion"]["Value"] = {"Fn::GetAtt": ["LaunchTemplate", "Newest"]}


def _bad_enum(template: Template) -> None:
    template["Resources"]["Cluster"]["Properties"]["AccessConfig"]["AuthenticationMode"] = "APIS"


def _unknown_reference(template: Template) -> None:
    template["Resources"]["NatGateway1"]["Properties"]["SubnetId"] = {"Ref": "PublicSubnet"}


def _half_a_condition(template: Template) -> None:
    template["Outputs"]["SubnetIds"]["Value"]["Fn::Join"][1][2] = {"Ref": "PrivateSubnet3"}


@pytest.mark.parametrize(
    ("name", "seed", "rule"),
    [
        ("nodes", _unknown_property, "E3002"),
        ("nodes", _no_role, "E3003"),
        ("nodes", _bad_attribute, "E6101"),
        ("cluster", _bad_enum, "E3030"),
        ("network", _unknown_reference, "E1020"),
        ("network", _half_a_condition, "W1001"),
    ],
)
def test_cfn_lint_catches(name: str, seed: Callable[[Template], None], rule: str) -> None:
    template = copy.deepcopy(load(name))
    seed(template)
    assert any(found.startswith(rule) for found in lint(template, ["eu-central-1"]))


# What the role fills in


def test_administrators_keep_their_names_when_another_leaves() -> None:
    both, one = load("cluster"), load("cluster")
    cluster.add_administrators(both, _ADMINS)
    cluster.add_administrators(one, _ADMINS[1:])
    assert set(one["Resources"]) < set(both["Resources"])
    added = set(both["Resources"]) - set(load("cluster")["Resources"])
    assert sorted(both["Resources"][name]["Properties"]["PrincipalArn"] for name in added) == sorted(_ADMINS)


def test_a_node_group_repeats_the_volumes_of_its_image_and_tags_what_it_starts() -> None:
    data = filled("nodes")["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    assert data["BlockDeviceMappings"] == group("al2023-level-2")["image"]["devices"]
    wanted = {**TAGS, "cisdriver:node-group": "al2023-level-2", "Name": "demo-al2023-level-2"}
    assert [one["ResourceType"] for one in data["TagSpecifications"]] == ["instance", "volume", "network-interface"]
    for one in data["TagSpecifications"]:
        assert {tag["Key"]: tag["Value"] for tag in one["Tags"]} == wanted


def test_outputs_of_one_stack_are_parameters_of_the_next() -> None:
    outputs = {
        "network": {"SubnetIds": "subnet-1,subnet-2"},
        "cluster": {"Endpoint": "https://e", "CertificateAuthority": "Q0E=", "ServiceCidr": "10.1.0.0/16"},
    }
    assert cluster.stack(plan(), "cluster", outputs)["parameters"]["SubnetIds"] == "subnet-1,subnet-2"
    nodes = cluster.stack(plan(), "nodes-al2023-level-2", outputs)["parameters"]
    assert nodes["SubnetIds"] == "subnet-1,subnet-2" and "https://e" in nodes["UserData"]
    known = {"network": {"outputs": outputs["network"], "updated": ""}}
    assert cluster.stack(plan(stacks=known), "cluster", {})["parameters"]["SubnetIds"] == "subnet-1,subnet-2"
    assert cluster.stack(plan(subnet_ids=["subnet-9"]), "cluster", outputs)["parameters"]["SubnetIds"] == "subnet-9"


def test_what_a_stack_does_not_tell_is_guessed_in_a_dry_run_alone() -> None:
    assert cluster.stack(plan(), "cluster", None)["parameters"]["SubnetIds"] == cluster.UNKNOWN
    assert cluster.UNKNOWN in cluster.stack(plan(), "nodes-al2023-level-2", None)["parameters"]["UserData"]
    with pytest.raises(cluster.MissingOutputError, match=r"stack demo-network has no output SubnetIds.*Deploy again"):
        cluster.stack(plan(), "cluster", {"network": {}})
    network = {"network": {"SubnetIds": "subnet-1"}}
    with pytest.raises(cluster.MissingOutputError, match="stack demo-cluster has no output Endpoint"):
        cluster.stack(plan(), "nodes-al2023-level-2", {**network, "cluster": {}})
    with pytest.raises(AnsibleFilterError, match="stack demo-network has no output SubnetIds"):
        cluster_stack.cluster_stack(plan(), "cluster")


def test_a_node_group_that_is_there_keeps_its_subnets() -> None:
    one = group("al2023-level-2")
    one["parameters"]["SubnetIds"] = "subnet-1"
    made = cluster.stack(plan(groups=[one], subnet_ids=["subnet-2"]), one["key"], None)
    assert made["parameters"]["SubnetIds"] == "subnet-1"


@pytest.mark.parametrize("version", ["v0.8.1-eksbuild.10", ""])
def test_metrics_server_is_left_out_where_eks_does_not_offer_it(version: str) -> None:
    made = cluster.stack(plan(parameters={"addons": {"MetricsServerVersion": version}}), "addons", None)
    there = {one["resource"] for one in stack_changes.of_template(made)}
    assert ("MetricsServer" in there) == bool(version) and "Coredns" in there


@pytest.mark.parametrize("service", ["com.amazonaws.eu-central-1.ec2messages", ""])
def test_an_endpoint_that_a_region_lacks_and_nodes_can_do_without_is_left_out(service: str) -> None:
    parameters = {"network": {"Nat": "none", "Zone3": "", "Ec2MessagesService": service}}
    there = {
        one["resource"] for one in stack_changes.of_template(cluster.stack(plan(parameters=parameters), "network", {}))
    }
    assert ("Ec2MessagesEndpoint" in there) == bool(service)
    order = {"SsmMessagesEndpoint": "ssmmessages", "InspectorEndpoint": "inspector2", "LogsEndpoint": "logs"}
    for name, short in order.items():
        (at, _) = load("network")["Resources"][name]["Properties"]["ServiceName"]["Fn::Select"]
        assert look.ENDPOINTS[at] == short and name in there


def test_size_and_tags_of_a_node_group_are_updated_apart_from_its_launch_template() -> None:
    group_ = group("al2023-level-2")
    group_["parameters"].update(MinSize=1, MaxSize=3)
    then = {"MinSize": "2", "MaxSize": "3", "DesiredSize": "2", "ImageId": "ami-old", "UserData": "old"}
    present = {"key": group_["key"], "parameters": then, "tags": TAGS, "outputs": {}}
    known = plan(groups=[group_], stacks={group_["key"]: present})
    update = cluster.apart(known, [group_["key"]])[group_["key"]]
    assert (update["MinSize"], update["ImageId"]) == (1, {"use_previous_value": True})
    present["parameters"] = {**then, "MinSize": "1"}
    assert cluster.apart(known, [group_["key"]]) == {}
    present["tags"] = {"cisdriver:cluster": "demo"}
    assert list(cluster.apart(known, [group_["key"]])) == [group_["key"]]
    assert cluster.apart(plan(groups=[group_]), [group_["key"]]) == {}
