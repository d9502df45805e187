"""AWS::EC2::SecurityGroup and its rules."""

from __future__ import annotations

from typing import Any

from .ec2 import kind, retag, tagged
from .kinds import Api, Kind, Resource, some
from .schema import Properties

#: What EC2 gives every new group, and CloudFormation takes away where a template names egress.
_ALL_EGRESS: list[dict[str, Any]] = [{"IpProtocol": "-1", "CidrIp": "0.0.0.0/0"}]
_PAIRS = {
    "SourceSecurityGroupId": "GroupId",
    "DestinationSecurityGroupId": "GroupId",
    "SourceSecurityGroupOwnerId": "UserId",
}


def _permission(rule: dict[str, Any]) -> dict[str, Any]:
    """A template's rule as the API's IpPermission."""
    found = some(rule, "IpProtocol", "FromPort", "ToPort")
    said = some(rule, "Description")
    pair = {name: rule[key] for key, name in _PAIRS.items() if key in rule}
    lists = rule.get("SourcePrefixListId", rule.get("DestinationPrefixListId"))
    if pair:
        found["UserIdGroupPairs"] = [{**pair, **said}]
    elif lists:
        found["PrefixListIds"] = [{"PrefixListId": lists, **said}]
    elif "CidrIpv6" in rule:
        found["Ipv6Ranges"] = [{"CidrIpv6": rule["CidrIpv6"], **said}]
    else:
        found["IpRanges"] = [{"CidrIp": rule["CidrIp"], **said}]
    return found


def _change_rules(api: Api, group: str, way: str, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    for operation, rules, borne in (
        ("Revoke", [rule for rule in old if rule not in new], "NotFound"),
        ("Authorize", [rule for rule in new if rule not in old], "AlreadyExists"),
    ):
        for rule in rules:
            with api.bearing(borne):
                api.call("ec2", f"{operation}SecurityGroup{way}", GroupId=group, IpPermissions=[_permission(rule)])


def _change(api: Api, group: str, old: Properties, new: Properties) -> None:
    ingress = "SecurityGroupIngress"
    _change_rules(api, group, "Ingress", old.get(ingress, []), new.get(ingress, []))
    egress = "SecurityGroupEgress"
    _change_rules(api, group, "Egress", old.get(egress, _ALL_EGRESS), new.get(egress, _ALL_EGRESS))


def _create(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    name = wanted.get("GroupName") or api.name(resource, 255)
    said, tags = wanted["GroupDescription"], tagged("security-group", wanted)
    given = some(wanted, "VpcId")
    reply = api.call("ec2", "CreateSecurityGroup", GroupName=name, Description=said, **given, TagSpecifications=tags)
    resource.physical = reply["GroupId"]
    _change(api, resource.physical, {}, wanted)


def _update(api: Api, resource: Resource, new: Properties) -> None:
    _change(api, resource.physical, resource.properties, new)
    retag(api, resource.physical, new, resource.properties)


def _delete(api: Api, resource: Resource) -> None:
    api.call("ec2", "DeleteSecurityGroup", GroupId=resource.physical)


def _create_rule(api: Api, resource: Resource) -> None:
    group, permission = resource.properties["GroupId"], _permission(resource.properties)
    reply = api.call("ec2", "AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=[permission])
    resource.physical = reply["SecurityGroupRules"][0]["SecurityGroupRuleId"]


def _delete_rule(api: Api, resource: Resource) -> None:
    group = resource.properties["GroupId"]
    api.call("ec2", "RevokeSecurityGroupIngress", GroupId=group, SecurityGroupRuleIds=[resource.physical])


KINDS: dict[str, Kind] = {
    "AWS::EC2::SecurityGroup": kind(
        "GroupDescription GroupName SecurityGroupEgress SecurityGroupIngress Tags VpcId",
        _create,
        _delete,
        _update,
        lambda _api, resource: {"GroupId": resource.physical, "Id": resource.physical},
        named="GroupName",
    ),
    "AWS::EC2::SecurityGroupIngress": kind(
        "CidrIp CidrIpv6 Description FromPort GroupId IpProtocol SourcePrefixListId SourceSecurityGroupId"
        " SourceSecurityGroupOwnerId ToPort",
        _create_rule,
        _delete_rule,
        read=lambda _api, resource: {"Id": resource.physical},
    ),
}
