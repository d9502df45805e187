"""CloudFormation's templates in the sandbox: what they say, what is refused, what a change would do."""

from __future__ import annotations

from typing import Any

import pytest
from aws_stacks import body as body_of
from aws_stacks import given as given_of
from aws_stacks import resource, subnet, text, vpc
from cisdriver.sandbox.aws.cloudformation import parameters, template
from cisdriver.sandbox.aws.cloudformation.plan import Change, Comparison, Place, Wanted
from cisdriver.sandbox.aws.world import AwsError

_REGION = "eu-central-1"

# Templates


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ({"Ref": "Name"}, "web"),
        ({"Ref": "AWS::Region"}, _REGION),
        ({"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/${Name} ${!literal}"},
         "arn:aws:iam::123456789012:role/web ${literal}"),
        ({"Fn::Sub": ["${a}-${Name}", {"a": {"Ref": "AWS::URLSuffix"}}]}, "amazonaws.com-web"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Name"}, 3, True]]}, "a-web-3-true"),
        ({"Fn::Select": [1, {"Fn::Split": [",", "a,b,c"]}]}, "b"),
        ({"Fn::Select": ["1", {"Ref": "Zones"}]}, "z2"),
        ({"Fn::Cidr": ["10.0.0.0/16", 3, 12]}, ["10.0.0.0/20", "10.0.16.0/20", "10.0.32.0/20"]),
        ({"Fn::If": ["IsWeb", {"Fn::Base64": "yes"}, "no"]}, "eWVz"),
        ({"Fn::If": ["IsDbOrNot", "yes", {"Ref": "AWS::NoValue"}]}, None),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "Name"}, "cpu"]}, 2),
        ({"Ref": "Vpc"}, template.symbol("Vpc", "")),
    ],
)  # fmt: skip
def test_functions(node: Any, value: Any) -> None:
    body = body_of(
        {"Vpc": vpc()},
        Parameters={"Name": {"Type": "String"}, "Zones": {"Type": "CommaDelimitedList", "Default": "z1, z2"}},
        Mappings={"Sizes": {"web": {"cpu": 2}}},
        Conditions={
            "IsWeb": {"Fn::Equals": [{"Ref": "Name"}, "web"]},
            "IsDb": {"Fn::Not": [{"Condition": "IsWeb"}]},
            "IsDbOrNot": {"Fn::Or": [{"Condition": "IsDb"}, {"Fn::And": [{"Condition": "IsDb"}]}]},
        },
    )
    texts = parameters.read(body, given_of(Name="web"), {})
    wanted = Wanted("", body, texts, {}, ())
    scope = Place(_REGION, "s", "id").scope(wanted, template.symbol)
    assert scope.value({"found": node}) == ({} if value is None else {"found": value})


def test_short_functions_and_dates_are_read_as_cloudformation_reads_them() -> None:
    text = "Resources: {A: {Type: 'AWS::EC2::VPC', Metadata: {when: 2012-10-17, what: !GetAtt B.C.D, sum: !Sub '${B}'}}"
    body = template.parse(text + ", B: {Type: 'AWS::EC2::VPC'}}")
    metadata = {"when": "2012-10-17", "what": {"Fn::GetAtt": ["B", "C.D"]}, "sum": {"Fn::Sub": "${B}"}}
    assert body["Resources"]["A"]["Metadata"] == metadata


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("Resources: {A: {Type: x}, A: {Type: y}}", "Duplicate"),
        ("Resources: [", "Template format error"),
        ({"Resources": {}}, "At least one Resources member must be defined."),
        (body_of({"Vpc": vpc()}, Colour="red"), "Invalid template property or properties [Colour]"),
        (body_of({"Vpc": {"Properties": {}}}), "Every Resources object must contain a Type."),
        (body_of({"Vpc": {**vpc(), "Colour": 1}}), "Invalid template resource property 'Colour' in Vpc"),
        (body_of({"Vpc": vpc(DeletionPolicy="Keep")}), "Unrecognized DeletionPolicy Keep for resource Vpc"),
        (body_of({"Subnet": subnet("10.7.0.0/24")}), "Unresolved resource dependencies [Vpc]"),
        (body_of({"Vpc": vpc(DependsOn="No")}), "Unresolved resource dependencies [No]"),
        (body_of({"Vpc": vpc(Condition="No")}), "Unresolved condition dependency No"),
        (body_of({"Vpc": vpc(Tags={"Fn::GetAZs": ""})}), "does not evaluate Fn::GetAZs"),
        (body_of({"Vpc": vpc(Tags={"Fn::Select": [2, ["a"]]})}), "nonexistent value at index 2"),
        (body_of({"A": vpc(DependsOn="B"), "B": vpc(DependsOn="A")}), "Circular dependency between resources"),
        (body_of({"Vpc": resource("EC2::Castle")}), "Unrecognized resource types: [AWS::EC2::Castle]"),
        (body_of({"Vpc": vpc(), "X": resource("EC2::EIP", Tags=[{"Fn::GetAtt": ["Vpc", "Moat"]}])}),
         "resource Vpc does not support attribute type Moat in Fn::GetAtt"),
        (body_of({"Bucket": resource("S3::Bucket")}), "does not serve AWS::S3::Bucket"),
        (body_of({"Vpc": vpc(Ipv4IpamPoolId="x")}), "does not set Ipv4IpamPoolId of AWS::EC2::VPC (Vpc)"),
        (body_of({"Vpc": vpc()}, Outputs={"A": {"Value": "x", "Export": {"Name": "x"}}}), "has no exports"),
        (body_of({"Vpc": vpc()}, Rules={"A": {}}), "does not evaluate Rules"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_done_is_refused(body: Any, says: str) -> None:
    with pytest.raises(AwsError) as refused:
        Place(_REGION, "s", "id").declared(Wanted("", template.parse(text(body)), {}, {}, ()))
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("declared", "given", "says"),
    [
        ({}, {"Colour": "red"}, "Parameters: [Colour] do not exist in the template"),
        ({"Type": "String"}, {}, "Parameters: [Name] must have values"),
        ({"Type": "String", "AllowedValues": ["a"]}, {"Name": "b"}, "must be one of AllowedValues"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, {"Name": "B"}, "must match pattern [a-z]+"),
        ({"Type": "String", "MinLength": 2}, {"Name": "b"}, "at least 2"),
        ({"Type": "String"}, {"Name": "b" * 4097}, "at most 4096"),
        ({"Type": "Number"}, {"Name": "many"}, "must be a number"),
        ({"Type": "Number", "MaxValue": 3}, {"Name": "4"}, "not greater than 3"),
        ({"Type": "AWS::SSM::Parameter::Name"}, {"Name": "x"}, "is none of String"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(declared: Any, given: dict[str, str], says: str) -> None:
    with pytest.raises(AwsError) as refused:
        parameters.read({"Parameters": {"Name": declared} if declared else {}}, given_of(**given), {})
    assert says in refused.value.message


# Plans


def _changes(old: dict[str, Any], new: dict[str, Any], **tags: str) -> dict[str, Change]:
    place = Place(_REGION, "s", "id")
    wanted = [Wanted("", body, {}, given, ()) for body, given in ((old, {}), (new, tags))]
    return Comparison(place, wanted[0], wanted[1], {}).changes


def test_a_plan_tells_what_is_replaced_and_what_follows_from_it() -> None:
    template_of = resource("EC2::LaunchTemplate", LaunchTemplateData={"ImageId": "ami-1"})
    group = resource(
        "EKS::Nodegroup",
        ClusterName="c",
        NodeRole="arn:aws:iam::123456789012:role/r",
        Subnets=[{"Ref": "Subnet"}],
        LaunchTemplate={"Id": {"Ref": "Template"}, "Version": {"Fn::GetAtt": ["Template", "LatestVersionNumber"]}},
    )
    old = body_of({"Vpc": vpc(), "Subnet": subnet("10.7.0.0/24"), "Template": template_of, "Group": group})
    assert _changes(old, old) == {}

    new_image = resource("EC2::LaunchTemplate", LaunchTemplateData={"ImageId": "ami-2"})
    changes = _changes(old, {"Resources": {**old["Resources"], "Template": new_image}})
    assert {name: (one.action, one.replacement) for name, one in changes.items()} == {
        "Template": ("Modify", "False"),
        "Group": ("Modify", "False"),
    }
    (follows,) = changes["Group"].details
    assert (follows["Evaluation"], follows["CausingEntity"]) == ("Dynamic", "Template.LatestVersionNumber")

    changes = _changes(old, {"Resources": {**old["Resources"], "Subnet": subnet("10.7.1.0/24")}})
    assert {name: one.replacement for name, one in changes.items()} == {"Subnet": "True", "Group": "Conditional"}
    assert changes["Group"].details[0]["Target"]["RequiresRecreation"] == "Always"


def test_a_plan_tells_additions_removals_and_tags() -> None:
    old = body_of({"Vpc": vpc(), "A": subnet("10.7.0.0/24")})
    new = body_of({"Vpc": vpc(), "B": subnet("10.7.1.0/24")})
    assert {name: one.action for name, one in _changes(old, new).items()} == {"A": "Remove", "B": "Add"}
    changes = _changes(old, old, team="blue")
    assert {name: one.reply()["ResourceChange"]["Scope"] for name, one in changes.items()} == {
        "Vpc": ["Tags"],
        "A": ["Tags"],
    }


def test_a_resource_cannot_change_its_type() -> None:
    with pytest.raises(AwsError, match=r"modifies resource type of the following resources: \[A\]"):
        _changes(body_of({"A": vpc()}), body_of({"A": resource("EC2::EIP")}))
