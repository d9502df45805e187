"""What the sandbox serves. An operation that is not named here is answered with 501.

An operation is listed once it was tried against moto and did what AWS documents, as far as our verbs need
it, or once ``ec2.py`` or ``ssm.py`` makes up for what moto lacks. moto's own default for much of the rest is a
success that did nothing, which would let a broken bake pass.
"""

from __future__ import annotations

OPERATIONS: dict[str, frozenset[str]] = {
    "ec2": frozenset(
        {
            "AssociateRouteTable",
            "AuthorizeSecurityGroupEgress",
            "AuthorizeSecurityGroupIngress",
            "CreateImage",
            "CreateInternetGateway",
            "CreateKeyPair",
            "CreateRoute",
            "CreateRouteTable",
            "CreateSecurityGroup",
            "CreateSubnet",
            "CreateTags",
            "CreateVpc",
            "DeleteKeyPair",
            "DeleteSecurityGroup",
            "DeleteSnapshot",
            "DeleteTags",
            "DeleteVolume",
            "DeregisterImage",
            "DescribeAvailabilityZones",
            "DescribeImages",
            "DescribeInstanceAttribute",
            "DescribeInstanceStatus",
            "DescribeInstanceTypes",
            "DescribeInstances",
            "DescribeKeyPairs",
            "DescribeNetworkInterfaces",
            "DescribeRegions",
            "DescribeRouteTables",
            "DescribeSecurityGroups",
            "DescribeSnapshots",
            "DescribeSubnets",
            "DescribeTags",
            "DescribeVolumes",
            "DescribeVpcAttribute",
            "DescribeVpcs",
            "EnableImageDeprecation",
            "ImportKeyPair",
            "ModifyImageAttribute",
            "ModifyInstanceAttribute",
            "ModifySubnetAttribute",
            "RebootInstances",
            "RevokeSecurityGroupEgress",
            "RevokeSecurityGroupIngress",
            "RunInstances",
            "StartInstances",
            "StopInstances",
            "TerminateInstances",
        }
    ),
    "iam": frozenset(
        {
            "AddRoleToInstanceProfile",
            "AttachRolePolicy",
            "CreateInstanceProfile",
            "CreateRole",
            "DeleteInstanceProfile",
            "DeleteRole",
            "DeleteRolePolicy",
            "DetachRolePolicy",
            "GetInstanceProfile",
            "GetRole",
            "ListAccountAliases",
            "ListAttachedRolePolicies",
            "ListInstanceProfiles",
            "ListInstanceProfilesForRole",
            "ListRolePolicies",
            "ListRoleTags",
            "RemoveRoleFromInstanceProfile",
            "TagInstanceProfile",
            "TagRole",
        }
    ),
    "kms": frozenset({"CreateAlias", "CreateKey", "DescribeKey", "ListAliases"}),
    "ssm": frozenset(
        {
            "AddTagsToResource",
            "DeleteParameter",
            "DescribeInstanceInformation",
            "DescribeParameters",
            "GetParameter",
            "GetParameters",
            "ListTagsForResource",
            "PutParameter",
        }
    ),
    "sts": frozenset({"GetCallerIdentity"}),
}

#: Members in moto's replies that AWS does not send, known and harmless: operation to member paths.
TOLERATED: dict[str, frozenset[str]] = {}
