"""What no template of ours may do. One sentence per breach; none means that it may be deployed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Where ``*`` stands for a reason: template, logical id, what.
REVIEWED = {
    # The account's own administration of its key; AWS's default policy. Without it nobody could ever delete the key.
    ("cluster", "Key", "Action kms:*"),
    # In a key's policy ``*`` is the key itself.
    ("cluster", "Key", "Resource *"),
    # Two families of one operation each; AWS's documentation of encrypted log groups asks for both.
    ("cluster", "Key", "Action kms:ReEncrypt*"),
    ("cluster", "Key", "Action kms:GenerateDataKey*"),
}
#: All that nodes and add-ons are given.
POLICIES = {
    "AmazonEKSClusterPolicy",
    "AmazonEKSWorkerNodePolicy",
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonSSMManagedInstanceCore",
    "AmazonInspector2ManagedCisPolicy",
    "AmazonEKS_CNI_Policy",
    "service-role/AmazonEBSCSIDriverPolicy",
}
_WORLD = ("0.0.0.0/0", "::/0")


def breaches(name: str, template: dict[str, Any]) -> list[str]:
    """``name`` is that of the file without its suffix."""
    found = []
    for logical, resource in template["Resources"].items():
        check = _CHECKS.get(resource["Type"])
        told = list(_wildcards(name, logical, resource.get("Properties", {})))
        told += check(resource.get("Properties", {}), template) if check else []
        found += [f"{name}: {logical}: {text}" for text in told]
    return found


def _wildcards(name: str, logical: str, properties: Any) -> Iterator[str]:
    for key, value in _walk(properties):
        if key in ("Action", "Resource", "NotAction", "NotResource", "NotPrincipal"):
            for one in value if isinstance(value, list) else [value]:
                if key.startswith("Not") or ("*" in str(one) and (name, logical, f"{key} {one}") not in REVIEWED):
                    yield f"{key} {one} is not reviewed"
        if key == "Principal" and "*" in str(value):
            yield "everybody is let in"


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


def _cluster(properties: dict[str, Any], template: dict[str, Any]) -> Iterator[str]:
    network = properties["ResourcesVpcConfig"]
    # Public only where networks are given; none are by default.
    if network.get("EndpointPublicAccess") != {"Fn::If": ["PublicEndpoint", True, False]}:
        yield "the endpoint may be public without being asked"
    if template["Parameters"].get("PublicAccessCidrs", {}).get("Default") != "":
        yield "the endpoint is public by default"
    if network.get("EndpointPrivateAccess") is not True:
        yield "the endpoint is not reached from within"
    if [one.get("Resources") for one in properties.get("EncryptionConfig", [])] != [["secrets"]]:
        yield "secrets are not encrypted"
    if properties.get("AccessConfig", {}).get("AuthenticationMode") != "API":
        yield "access is not by access entries alone"


def _launch_template(properties: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    data = properties["LaunchTemplateData"]
    metadata = data.get("MetadataOptions", {})
    if metadata.get("HttpTokens") != "required" or metadata.get("HttpPutResponseHopLimit") != 2:
        yield "IMDSv2 with two hops is not asked for"
    if "InstanceMetadataTags" in metadata:
        yield "instance metadata tags do not go with EKS's tags"
    for device in data.get("BlockDeviceMappings") or [{"DeviceName": "(none)", "Ebs": {}}]:
        if device["Ebs"].get("Encrypted") is not True or device["Ebs"].get("DeleteOnTermination") is not True:
            yield f"{device['DeviceName']} is not encrypted, or outlives its instance"
    tagged = {one["ResourceType"]: [tag["Key"] for tag in one["Tags"]] for one in data.get("TagSpecifications", [])}
    for kind in ("instance", "volume", "network-interface"):
        if "cisdriver:cluster" not in tagged.get(kind, []):
            yield f"what it starts has no tag on its {kind}"


def _nodegroup(properties: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    for key in ("AmiType", "Version", "ReleaseVersion", "RemoteAccess", "DiskSize"):
        if key in properties:
            yield f"{key} does not go with an image of our own"


def _security_group(properties: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    rules = [*properties.get("SecurityGroupIngress", []), *properties.get("SecurityGroupEgress", [])]
    if any(rule.get("CidrIp") in _WORLD or rule.get("CidrIpv6") in _WORLD for rule in rules):
        yield "it is open to the world"


def _subnet(properties: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    if properties.get("MapPublicIpOnLaunch"):
        yield "instances get a public address"


def _log_group(properties: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    if "KmsKeyId" not in properties or "RetentionInDays" not in properties:
        yield "logs are not encrypted, or kept for ever"


def _kms_key(properties: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    if properties.get("EnableKeyRotation") is not True:
        yield "the key is not rotated"


def _role(properties: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    if "Policies" in properties:
        yield "an inline policy is not reviewed"
    if properties.get("PermissionsBoundary", {}).get("Fn::If", [""])[0] != "HasBoundary":
        yield "it takes no permissions boundary"
    for _key, arn in _walk({"arns": properties.get("ManagedPolicyArns", [])}):
        text = arn.get("Fn::Sub", "") if isinstance(arn, dict) else arn
        if isinstance(text, str) and ":policy/" in text:
            if text.partition(":policy/")[2] not in POLICIES:
                yield f"{text} is not reviewed"
            if not text.startswith("arn:${AWS::Partition}:"):
                yield f"{text} is of one partition"


_CHECKS: dict[str, Any] = {
    "AWS::EKS::Cluster": _cluster,
    "AWS::EKS::Nodegroup": _nodegroup,
    "AWS::EC2::LaunchTemplate": _launch_template,
    "AWS::EC2::SecurityGroup": _security_group,
    "AWS::EC2::Subnet": _subnet,
    "AWS::Logs::LogGroup": _log_group,
    "AWS::KMS::Key": _kms_key,
    "AWS::IAM::Role": _role,
}
