"""What AWS refuses, in plain words, with the way out: the one table of them.

CloudFormation passes on a service's words, often without its code (``Resource handler returned message: "The maximum
number of addresses has been reached. (Service: Ec2, Status Code: 400, ...)"``), so both are looked for.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Known(NamedTuple):
    """A refusal: what it is called, and what to do. ``{again}`` stands for the command."""

    pattern: re.Pattern[str]
    name: str
    remedy: str


def _known(pattern: str, name: str, remedy: str) -> Known:
    return Known(re.compile(pattern, re.IGNORECASE), name, remedy)


#: In the order in which they are tried: what is told first explains what is told with it.
TABLE = (
    _known(
        r"ExpiredToken|RequestExpired|security token included in the request is expired|token has expired"
        r"|Error when retrieving (token|credentials)|SSO session .* expired|refreshed credentials are still expired",
        "the AWS credentials have expired",
        "Sign in again (aws sso login, or new keys); then {again} goes on where it stopped.",
    ),
    _known(
        r"InvalidClientTokenId|UnrecognizedClient|AuthFailure|SignatureDoesNotMatch|InvalidAccessKeyId",
        "AWS does not accept these credentials",
        "Look which they are (aws sts get-caller-identity) and whether this machine's clock is right; then {again}.",
    ),
    _known(
        r"Throttl|RequestLimitExceeded|TooManyRequests|Rate exceeded|SlowDown",
        "AWS takes no more requests for now",
        "Others in this account ask at the same time. Wait some minutes; then {again} goes on where it stopped.",
    ),
    _known(
        r"UnsupportedAvailabilityZone|does not support creating control plane instances in"
        r"|sufficient capacity to support the cluster|at least two different (AZs|Availability Zones)"
        r"|fewer than (two|2) (availability )?zones",
        "EKS needs subnets in two or more zones that it supports",
        "Name subnets of other zones with --subnet-ids, or leave it and --vpc-id out for a network of its own.",
    ),
    _known(
        r"InsufficientInstanceCapacity|Insufficient capacity|do(es)? not have sufficient .* capacity",
        "AWS has no such instance left there",
        "Name other types with --node-type, or try later: {again} goes on where it stopped.",
    ),
    _known(
        r"[A-Za-z]*LimitExceeded|ServiceQuotaExceeded|ResourceCountExceeded|maximum number of .* has been reached"
        r"|exceed(s|ed)? (the |your )?(limit|quota)|reached your quota|requested more vCPU capacity|limit exceeded",
        "a quota of this account is reached",
        "Raise it in Service Quotas, or free what is no longer used; then {again} goes on where it stopped.",
    ),
    _known(
        r"unsupported Kubernetes version|Kubernetes version [\d.]+ is not supported|version .* out of support",
        "EKS does not offer this version of Kubernetes",
        "`aws eks describe-cluster-versions` lists those it does. Bake an image for one of them, or name it with"
        " --kubernetes-version.",
    ),
    _known(
        r"NodeCreationFailure|failed to join the kubernetes cluster",
        "the machines started, but did not join the cluster",
        "The image, its user data or the way to the cluster's endpoint is at fault: the console's system log of an"
        " instance, or Session Manager and `journalctl -u kubelet -u nodeadm-run`, tell which.",
    ),
    _known(
        r"OptInRequired",
        "this account has not accepted the terms of the base image",
        "Subscribe to it in AWS Marketplace; then {again}.",
    ),
    _known(
        r"AccessDenied|UnauthorizedOperation|not authorized to perform|explicit deny|AuthorizationError",
        "this identity lacks a permission",
        "docs/permissions.md lists what is needed; allow it, then {again} goes on where it stopped.",
    ),
)


def find(text: str) -> Known | None:
    """The refusal that AWS's words are about, if it is a known one."""
    return next((known for known in TABLE if known.pattern.search(text)), None)


def explain(text: str, again: str) -> tuple[str, str]:
    """Message and remedy for words of AWS; an unknown refusal stands as it is, without a remedy.

    ``again`` is the command that tries again, such as "`cisdriver deploy`".
    """
    known = find(text)
    if known is None:
        return text, ""
    return f"{known.name}: {text}", known.remedy.format(again=again)
