"""The base images of the sandbox and the public SSM parameters that name them.

Shapes and names as EKS publishes them (amazon-eks-ami README; EKS user guide, "Retrieve recommended Amazon
Linux AMI IDs"): owner 602401143452, root device /dev/xvda.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EKS_OWNER = "602401143452"
#: amazon-eks-ami's templates/*/template.json, ami_block_device_mappings; volume_type is a variable there.
ROOT_VOLUME = {"VolumeSize": 20, "VolumeType": "gp3", "DeleteOnTermination": True, "Encrypted": False}
RELEASE = "20261112"
#: Kubernetes versions EKS offers for AL2023; AL2 ended with 1.32.
VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36")
AL2_LAST = "1.32"


@dataclass(frozen=True)
class BaseImage:
    """One published image: its id, what it is, and the SSM parameter that names it."""

    id: str
    os: str
    version: str
    architecture: str

    @property
    def name(self) -> str:
        if self.os == "al2":
            arm = "arm64-" if self.architecture == "arm64" else ""
            return f"amazon-eks-{arm}node-{self.version}-v{RELEASE}"
        return f"amazon-eks-node-al2023-{self.architecture}-standard-{self.version}-v{RELEASE}"

    @property
    def parameter(self) -> str:
        """The path above ``image_id``, ``image_name`` and ``release_version``."""
        start = f"/aws/service/eks/optimized-ami/{self.version}"
        if self.os == "al2":
            return f"{start}/amazon-linux-2{'-arm64' if self.architecture == 'arm64' else ''}/recommended"
        return f"{start}/amazon-linux-2023/{self.architecture}/standard/recommended"

    def parameters(self) -> dict[str, str]:
        values = {"image_id": self.id, "image_name": self.name, "release_version": f"{self.version}.0-{RELEASE}"}
        return {f"{self.parameter}/{key}": value for key, value in values.items()}

    def moto(self) -> dict[str, Any]:
        """The entry for MOTO_AMIS_PATH."""
        return {
            "ami_id": self.id,
            "name": self.name,
            "description": f"EKS-optimized Kubernetes node based on {self.os}, (k8s: {self.version})",
            "owner_id": EKS_OWNER,
            "public": True,
            "virtualization_type": "hvm",
            "architecture": self.architecture,
            "state": "available",
            "image_type": "machine",
            "image_location": f"amazon/{self.name}",
            "hypervisor": "xen",
            "root_device_name": "/dev/xvda",
            "root_device_type": "ebs",
            "sriov": "simple",
            "creation_date": "2026-11-12T00:00:00.000Z",
        }


def _catalogue() -> list[BaseImage]:
    found = []
    for number, version in enumerate(VERSIONS):
        systems = ("al2023", "al2") if version <= AL2_LAST else ("al2023",)
        for os in systems:
            for architecture in ("x86_64", "arm64"):
                kind = {"al2023": 0x2023, "al2": 0x2}[os]
                arm = int(architecture == "arm64")
                found.append(BaseImage(f"ami-0ec5{kind:04x}{arm:x}{number:08x}", os, version, architecture))
    return found


BASE_IMAGES = _catalogue()
PARAMETERS = {name: value for image in BASE_IMAGES for name, value in image.parameters().items()}
