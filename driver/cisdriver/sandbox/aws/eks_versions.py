"""What EKS offers: Kubernetes versions with their dates, add-ons with their versions, access policies.

Dates: EKS user guide, "Understand the Kubernetes version lifecycle on EKS" (14 months of standard support, 12 of
extended); patch versions and kube-proxy: "Manage kube-proxy in Amazon EKS clusters", table of mid-2026. The other
add-ons' versions are ones EKS published by then; which of them EKS calls the default changes often, and here it is the
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from moto.utilities.utils import get_partition

from .eks_state import Record, page
from .images import RELEASE, VERSIONS
from .wire import Call
from .world import Reply, World


@dataclass(frozen=True)
class Version:
    """A Kubernetes version: last patch, and the days of release, end of standard and of extended support.

    Its status is that of the day the sandbox's images are of, so that the sandbox is the same whenever it runs.
    """

    patch: str
    released: str
    standard: str
    extended: str

    def status(self) -> str:
        today = datetime.strptime(RELEASE, "%Y%m%d").replace(tzinfo=UTC)
        if today < _day(self.standard):
            return "STANDARD_SUPPORT"
        return "EXTENDED_SUPPORT" if today < _day(self.extended) else "UNSUPPORTED"


_VERSIONS = {
    "1.31": Version("1.31.14", "2024-09-26", "2025-11-26", "2026-11-26"),
    "1.32": Version("1.32.13", "2025-01-23", "2026-03-23", "2027-03-23"),
    "1.33": Version("1.33.10", "2025-05-29", "2026-07-29", "2027-07-29"),
    "1.34": Version("1.34.6", "2025-10-02", "2026-12-02", "2027-12-02"),
    "1.35": Version("1.35.3", "2026-01-28", "2027-03-27", "2028-03-27"),
    "1.36": Version("1.36.0", "2026-06-02", "2027-08-02", "2028-08-02"),
}
DEFAULT = VERSIONS[-1]
PLATFORM = "eks.1"
_PROXY_BUILDS = {"1.31": 20, "1.32": 16, "1.33": 13, "1.34": 13, "1.35": 13, "1.36": 14}


@dataclass(frozen=True)
class AddOnKind:
    """An add-on: its versions per Kubernetes version, newest first; ``replicas``: a Deployment of it needs nodes."""

    kind: str
    versions: dict[str, tuple[str, ...]]
    replicas: bool = False
    needs_permissions: bool = False


def _everywhere(*versions: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(VERSIONS, versions)


_DNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("1.31", "1.32"), ("v1.11.4-eksbuild.24", "v1.11.4-eksbuild.2")),
    **dict.fromkeys(("1.33", "1.34"), ("v1.12.4-eksbuild.1", "v1.12.1-eksbuild.2")),
    **dict.fromkeys(("1.35", "1.36"), ("v1.14.2-eksbuild.4", "v1.13.2-eksbuild.4")),
}
_PROXY: dict[str, tuple[str, ...]] = {
    version: tuple(f"v{_VERSIONS[version].patch}-eksbuild.{build}" for build in (newest, 2))
    for version, newest in _PROXY_BUILDS.items()
}
ADD_ONS = {
    "vpc-cni": AddOnKind("networking", _everywhere("v1.21.2-eksbuild.2", "v1.21.1-eksbuild.8"), needs_permissions=True),
    "kube-proxy": AddOnKind("networking", _PROXY),
    "coredns": AddOnKind("networking", _DNS, replicas=True),
    "eks-pod-identity-agent": AddOnKind("security", _everywhere("v1.3.10-eksbuild.3")),
    "aws-ebs-csi-driver": AddOnKind(
        "storage", _everywhere("v1.62.0-eksbuild.1", "v1.59.0-eksbuild.1"), replicas=True, needs_permissions=True
    ),
    "metrics-server": AddOnKind("observability", _everywhere("v0.8.1-eksbuild.10", "v0.8.1-eksbuild.6"), replicas=True),
}
#: EKS user guide, "Review access policy permissions".
ACCESS_POLICIES = (
    "AmazonEKSAdminPolicy",
    "AmazonEKSAdminViewPolicy",
    "AmazonEKSClusterAdminPolicy",
    "AmazonEKSEditPolicy",
    "AmazonEKSViewPolicy",
)


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)


def patch_of(version: str) -> str:
    return _VERSIONS[version].patch


def supported(version: str) -> bool:
    return version in _VERSIONS and _VERSIONS[version].status() != "UNSUPPORTED"


def describe_cluster_versions(_world: World, call: Call) -> Reply:
    wanted, given = call.parameters, []
    status = wanted.get("versionStatus") or str(wanted.get("status", "")).upper().replace("-", "_")
    for number, one in reversed(_VERSIONS.items()):
        record = _version_record(number, one)
        asked = number in wanted.get("clusterVersions", [number])
        shown = record["versionStatus"] == status if status else wanted.get("includeAll") or supported(number)
        if asked and shown and (record["defaultVersion"] or not wanted.get("defaultOnly")):
            given.append(record)
    return page(call, "clusterVersions", given)


def _version_record(number: str, one: Version) -> Record:
    return {
        "clusterVersion": number,
        "clusterType": "eks",
        "defaultPlatformVersion": PLATFORM,
        "defaultVersion": number == DEFAULT,
        "releaseDate": _day(one.released),
        "endOfStandardSupportDate": _day(one.standard),
        "endOfExtendedSupportDate": _day(one.extended),
        "status": one.status().lower().replace("_", "-"),
        "versionStatus": one.status(),
        "kubernetesPatchVersion": one.patch,
    }


def describe_addon_versions(_world: World, call: Call) -> Reply:
    wanted = call.parameters
    found = []
    for name, kind in ADD_ONS.items():
        record = _addon_record(name, kind, wanted.get("kubernetesVersion"))
        fits = [
            name == wanted.get("addonName", name),
            kind.kind in wanted.get("types", [kind.kind]),
            record["publisher"] in wanted.get("publishers", [record["publisher"]]),
            record["owner"] in wanted.get("owners", [record["owner"]]),
            bool(record["addonVersions"]),
        ]
        if all(fits):
            found.append(record)
    return page(call, "addons", found)


def _addon_record(name: str, kind: AddOnKind, only: str | None) -> Record:
    compatible: dict[str, list[Record]] = {}
    for kubernetes, versions in kind.versions.items():
        for version in versions if only in (None, kubernetes) else ():
            compatible.setdefault(version, []).append(
                {"clusterVersion": kubernetes, "platformVersions": ["*"], "defaultVersion": version == versions[0]}
            )
    records = [
        {
            "addonVersion": version,
            "architecture": ["amd64", "arm64"],
            "computeTypes": ["ec2"],
            "compatibilities": entries,
            "requiresConfiguration": False,
            "requiresIamPermissions": kind.needs_permissions,
        }
        for version, entries in compatible.items()
    ]
    return {"addonName": name, "type": kind.kind, "addonVersions": records, "publisher": "eks", "owner": owner(name)}


def owner(name: str) -> str:
    """Whose an add-on is: metrics-server is a community add-on (EKS user guide, "Community add-ons")."""
    return "community" if name == "metrics-server" else "aws"


def list_access_policies(_world: World, call: Call) -> Reply:
    return page(call, "accessPolicies", [{"name": name, "arn": policy_arn(call, name)} for name in ACCESS_POLICIES])


def policy_arn(call: Call, name: str) -> str:
    return f"arn:{get_partition(call.region)}:eks::aws:cluster-access-policy/{name}"
