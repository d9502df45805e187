# Copyright the cisdriver authors. Apache-2.0.
"""User data by which a machine of our image joins a cluster. EKS adds none of its own to a custom image.

Amazon Linux 2023 reads a NodeConfig (amazon-eks-ami, ``nodeadm/api/v1alpha1``), Amazon Linux 2 runs
``/etc/eks/bootstrap.sh`` (amazon-eks-ami, ``templates/al2/runtime/bootstrap.sh``); both out of a MIME message. All that
is known is said, so that a node in a closed VPC need not ask the EKS API.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Mapping

import yaml

#: What CloudFormation takes as the value of a parameter, in bytes.
LONGEST = 4096
_BOUNDARY = "==cisdriver=="


class UserDataError(ValueError):
    """No user data can be written: which node group, and why."""


def user_data(os: str, cluster: Mapping[str, str], group: str, image: str) -> str:
    """User data as text. ``os`` is al2023 or al2; ``cluster`` is {name, endpoint, certificate_authority, service_cidr}.

    Raises UserDataError for another os, and for a text that is too long to be passed on.
    """
    # EKS labels the nodes of its own images this way, by the user data it writes for them.
    labels = f"--node-labels=eks.amazonaws.com/nodegroup={group},eks.amazonaws.com/nodegroup-image={image}"
    if os == "al2023":
        part = _part("application/node.eks.aws", _node_config(cluster, labels))
    elif os == "al2":
        part = _part('text/x-shellscript; charset="us-ascii"', _bootstrap(cluster, labels))
    else:
        raise UserDataError(f"group {group}: no way is known by which {os} joins a cluster; expected al2023 or al2")
    head = f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{_BOUNDARY}"\n\n'
    text = f"{head}{part}--{_BOUNDARY}--\n"
    if len(text.encode()) > LONGEST:
        raise UserDataError(f"group {group}: the user data has {len(text)} bytes; CloudFormation takes {LONGEST}")
    return text


def _part(kind: str, body: str) -> str:
    return f"--{_BOUNDARY}\nContent-Type: {kind}\n\n{body}"


def _node_config(cluster: Mapping[str, str], labels: str) -> str:
    config = {
        "apiVersion": "node.eks.aws/v1alpha1",
        "kind": "NodeConfig",
        "spec": {
            "cluster": {
                "name": cluster["name"],
                "apiServerEndpoint": cluster["endpoint"],
                "certificateAuthority": cluster["certificate_authority"],
                "cidr": cluster["service_cidr"],
            },
            "kubelet": {"flags": [labels]},
        },
    }
    return str(yaml.safe_dump(config, explicit_start=True, sort_keys=False, width=LONGEST))


def _bootstrap(cluster: Mapping[str, str], labels: str) -> str:
    # EKS gives the cluster's DNS the tenth address of the services' network.
    dns = ipaddress.ip_network(cluster["service_cidr"])[10]
    arguments = [
        cluster["name"],
        *("--apiserver-endpoint", cluster["endpoint"]),
        *("--b64-cluster-ca", cluster["certificate_authority"]),
        *("--dns-cluster-ip", str(dns)),
        *("--kubelet-extra-args", labels),
    ]
    return f"#!/bin/bash\nset -o errexit\n/etc/eks/bootstrap.sh {shlex.join(arguments)}\n"
