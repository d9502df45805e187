"""AWS::IAM, AWS::KMS and AWS::Logs."""

from __future__ import annotations

import json
from typing import Any

from .ec2 import kind
from .kinds import Api, Kind, Resource, some
from .schema import Properties

# Roles


def _create_role(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    name = wanted.get("RoleName") or api.name(resource, 64)
    given = some(wanted, "Description", "MaxSessionDuration", "Path", "PermissionsBoundary")
    trust = json.dumps(wanted["AssumeRolePolicyDocument"])
    tags = wanted.get("Tags") or None
    api.call("iam", "CreateRole", RoleName=name, AssumeRolePolicyDocument=trust, **given, Tags=tags)
    resource.physical = name
    _change_policies(api, name, wanted)


def _change_policies(api: Api, role: str, wanted: Properties) -> None:
    """Attach, detach, put and delete what the role now has and should not, or the reverse."""
    arns = wanted.get("ManagedPolicyArns", [])
    attached = api.call("iam", "ListAttachedRolePolicies", RoleName=role)["AttachedPolicies"]
    present = [policy["PolicyArn"] for policy in attached]
    for arn in present:
        if arn not in arns:
            api.call("iam", "DetachRolePolicy", RoleName=role, PolicyArn=arn)
    for arn in arns:
        if arn not in present:
            api.call("iam", "AttachRolePolicy", RoleName=role, PolicyArn=arn)
    inline = {policy["PolicyName"]: json.dumps(policy["PolicyDocument"]) for policy in wanted.get("Policies", [])}
    for name in api.call("iam", "ListRolePolicies", RoleName=role)["PolicyNames"]:
        if name not in inline:
            api.call("iam", "DeleteRolePolicy", RoleName=role, PolicyName=name)
    for name, document in inline.items():
        api.call("iam", "PutRolePolicy", RoleName=role, PolicyName=name, PolicyDocument=document)


def _update_role(api: Api, resource: Resource, new: Properties) -> None:
    old, role = resource.properties, resource.physical
    trust = new["AssumeRolePolicyDocument"]
    if trust != old["AssumeRolePolicyDocument"]:
        api.call("iam", "UpdateAssumeRolePolicy", RoleName=role, PolicyDocument=json.dumps(trust))
    if some(new, "Description", "MaxSessionDuration") != some(old, "Description", "MaxSessionDuration"):
        seconds, said = new.get("MaxSessionDuration", 3600), new.get("Description", "")
        api.call("iam", "UpdateRole", RoleName=role, Description=said, MaxSessionDuration=seconds)
    _change_boundary(api, role, old.get("PermissionsBoundary"), new.get("PermissionsBoundary"))
    _change_policies(api, role, new)
    kept = {tag["Key"] for tag in new.get("Tags", [])}
    gone = [tag["Key"] for tag in old.get("Tags", []) if tag["Key"] not in kept]
    if gone:
        api.call("iam", "UntagRole", RoleName=role, TagKeys=gone)
    if new.get("Tags"):
        api.call("iam", "TagRole", RoleName=role, Tags=new["Tags"])


def _change_boundary(api: Api, role: str, old: str | None, new: str | None) -> None:
    if new and new != old:
        api.call("iam", "PutRolePermissionsBoundary", RoleName=role, PermissionsBoundary=new)
    elif old and not new:
        with api.bearing("NotFound"):
            api.call("iam", "DeleteRolePermissionsBoundary", RoleName=role)


def _delete_role(api: Api, resource: Resource) -> None:
    _change_policies(api, resource.physical, {})
    api.call("iam", "DeleteRole", RoleName=resource.physical)


def _read_role(api: Api, resource: Resource) -> dict[str, Any]:
    role = api.call("iam", "GetRole", RoleName=resource.physical)["Role"]
    return some(role, "Arn", "RoleId")


# Keys


def _key_tags(properties: Properties) -> list[dict[str, str]]:
    return [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in properties.get("Tags", [])]


def _create_key(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    policy = json.dumps(wanted["KeyPolicy"]) if "KeyPolicy" in wanted else None
    given = some(wanted, "Description", "KeySpec", "KeyUsage", "MultiRegion")
    reply = api.call("kms", "CreateKey", **given, Policy=policy, Tags=_key_tags(wanted) or None)
    resource.physical = reply["KeyMetadata"]["KeyId"]
    if wanted.get("EnableKeyRotation"):
        api.call("kms", "EnableKeyRotation", KeyId=resource.physical)


def _update_key(api: Api, resource: Resource, new: Properties) -> None:
    old, key = resource.properties, resource.physical
    if new.get("Description") != old.get("Description"):
        api.call("kms", "UpdateKeyDescription", KeyId=key, Description=new.get("Description", ""))
    if "KeyPolicy" in new and new["KeyPolicy"] != old.get("KeyPolicy"):
        api.call("kms", "PutKeyPolicy", KeyId=key, PolicyName="default", Policy=json.dumps(new["KeyPolicy"]))
    if new.get("EnableKeyRotation", False) != old.get("EnableKeyRotation", False):
        turn = "Enable" if new.get("EnableKeyRotation") else "Disable"
        api.call("kms", f"{turn}KeyRotation", KeyId=key)
    kept = {tag["TagKey"] for tag in _key_tags(new)}
    gone = [tag["TagKey"] for tag in _key_tags(old) if tag["TagKey"] not in kept]
    if gone:
        api.call("kms", "UntagResource", KeyId=key, TagKeys=gone)
    if _key_tags(new):
        api.call("kms", "TagResource", KeyId=key, Tags=_key_tags(new))


def _delete_key(api: Api, resource: Resource) -> None:
    days = resource.properties.get("PendingWindowInDays", 30)
    api.call("kms", "ScheduleKeyDeletion", KeyId=resource.physical, PendingWindowInDays=days)


def _read_key(api: Api, resource: Resource) -> dict[str, Any]:
    found = api.call("kms", "DescribeKey", KeyId=resource.physical)["KeyMetadata"]
    return some(found, "Arn", "KeyId")


def _create_alias(api: Api, resource: Resource) -> None:
    api.call("kms", "CreateAlias", **resource.properties)
    resource.physical = resource.properties["AliasName"]


def _update_alias(api: Api, _resource: Resource, new: Properties) -> None:
    api.call("kms", "UpdateAlias", **new)


def _delete_alias(api: Api, resource: Resource) -> None:
    api.call("kms", "DeleteAlias", AliasName=resource.physical)


# Log groups


def _log_tags(properties: Properties) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in properties.get("Tags", [])}


def _create_log_group(api: Api, resource: Resource) -> None:
    wanted = resource.properties
    name = wanted.get("LogGroupName") or api.name(resource, 512)
    key, tags = wanted.get("KmsKeyId"), _log_tags(wanted) or None
    api.call("logs", "CreateLogGroup", logGroupName=name, kmsKeyId=key, tags=tags)
    resource.physical = name
    _retain(api, name, {}, wanted)


def _retain(api: Api, name: str, old: Properties, new: Properties) -> None:
    days = new.get("RetentionInDays")
    if days:
        api.call("logs", "PutRetentionPolicy", logGroupName=name, retentionInDays=days)
    elif old.get("RetentionInDays"):
        api.call("logs", "DeleteRetentionPolicy", logGroupName=name)


def _update_log_group(api: Api, resource: Resource, new: Properties) -> None:
    old, name = resource.properties, resource.physical
    _retain(api, name, old, new)
    if new.get("KmsKeyId") and new.get("KmsKeyId") != old.get("KmsKeyId"):
        api.call("logs", "AssociateKmsKey", logGroupName=name, kmsKeyId=new["KmsKeyId"])
    elif old.get("KmsKeyId") and not new.get("KmsKeyId"):
        api.call("logs", "DisassociateKmsKey", logGroupName=name)
    arn = _read_log_group(api, resource)["Arn"].removesuffix(":*")
    gone = sorted(set(_log_tags(old)) - set(_log_tags(new)))
    if gone:
        api.call("logs", "UntagResource", resourceArn=arn, tagKeys=gone)
    if _log_tags(new):
        api.call("logs", "TagResource", resourceArn=arn, tags=_log_tags(new))


def _delete_log_group(api: Api, resource: Resource) -> None:
    api.call("logs", "DeleteLogGroup", logGroupName=resource.physical)


def _read_log_group(api: Api, resource: Resource) -> dict[str, Any]:
    groups = api.call("logs", "DescribeLogGroups", logGroupNamePrefix=resource.physical)["logGroups"]
    return {"Arn": next(group["arn"] for group in groups if group["logGroupName"] == resource.physical)}


KINDS: dict[str, Kind] = {
    "AWS::IAM::Role": kind(
        "AssumeRolePolicyDocument Description ManagedPolicyArns MaxSessionDuration Path PermissionsBoundary Policies"
        " RoleName Tags",
        _create_role,
        _delete_role,
        _update_role,
        _read_role,
        named="RoleName",
    ),
    "AWS::KMS::Key": kind(
        "Description EnableKeyRotation KeyPolicy KeySpec KeyUsage MultiRegion PendingWindowInDays Tags",
        _create_key,
        _delete_key,
        _update_key,
        _read_key,
    ),
    "AWS::KMS::Alias": kind("AliasName TargetKeyId", _create_alias, _delete_alias, _update_alias, named="AliasName"),
    "AWS::Logs::LogGroup": kind(
        "KmsKeyId LogGroupName RetentionInDays Tags",
        _create_log_group,
        _delete_log_group,
        _update_log_group,
        _read_log_group,
        named="LogGroupName",
    ),
}
