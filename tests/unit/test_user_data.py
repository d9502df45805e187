"""User data, read back as the machines read it: MIME, then NodeConfig or the arguments of bootstrap.sh."""

from __future__ import annotations

import base64
import email
import email.policy
import shlex
from typing import Any

import pytest
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils.user_data import UserDataError, user_data
from jsonschema import Draft202012Validator

_AUTHORITY = base64.b64encode(b"-----BEGIN CERTIFICATE-----\n" + b"x" * 1000).decode()
CLUSTER = {
    "name": "demo",
    "endpoint": "https://0123.gr7.eu-central-1.eks.amazonaws.com",
    "certificate_authority": _AUTHORITY,
    "service_cidr": "172.20.0.0/16",
}
#: NodeConfig of node.eks.aws/v1alpha1, as amazon-eks-ami's nodeadm/api/v1alpha1/nodeconfig_types.go has it.
#: nodeadm decodes strictly, so nothing else is allowed.
_NODE_CONFIG: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "spec"],
    "properties": {
        "apiVersion": {"const": "node.eks.aws/v1alpha1"},
        "kind": {"const": "NodeConfig"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["cluster"],
            "properties": {
                "cluster": {
                    "type": "object",
                    "additionalProperties": False,
                    # nodeadm validates these four for a node that is not on an Outpost
                    "required": ["name", "apiServerEndpoint", "certificateAuthority", "cidr"],
                    "properties": {
                        "name": {"type": "string", "minLength": 1},
                        "apiServerEndpoint": {"type": "string", "pattern": "^https://"},
                        "certificateAuthority": {"type": "string", "contentEncoding": "base64", "minLength": 1},
                        "cidr": {"type": "string", "pattern": r"^\d+\.\d+\.\d+\.\d+/\d+$"},
                        "enableOutpost": {"type": "boolean"},
                        "id": {"type": "string"},
                    },
                },
                "containerd": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"config": {"type": "string"}, "baseRuntimeSpec": {"type": "object"}},
                },
                "instance": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "localStorage": {
                            "type": "object",
                            "properties": {"strategy": {"enum": ["RAID0", "RAID10", "Mount"]}},
                        }
                    },
                },
                "kubelet": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "config": {"type": "object"},
                        "flags": {"type": "array", "items": {"type": "string"}},
                    },
                },
                "featureGates": {"type": "object", "additionalProperties": {"type": "boolean"}},
            },
        },
    },
}
#: Arguments of amazon-eks-ami's templates/al2/runtime/bootstrap.sh; each takes a value. What it does not know it takes
#: for the cluster's name.
_BOOTSTRAP = {
    *("--apiserver-endpoint", "--aws-api-retry-attempts", "--b64-cluster-ca", "--cluster-id", "--container-runtime"),
    *("--containerd-config-file", "--dns-cluster-ip", "--docker-config-json", "--enable-docker-bridge"),
    *("--enable-local-outpost", "--ip-family", "--kubelet-extra-args", "--local-disks", "--mount-bpf-fs"),
    *("--pause-container-account", "--pause-container-version", "--service-ipv6-cidr", "--use-max-pods"),
}


def parts(text: str) -> list[tuple[str, str]]:
    """As cloud-init reads it: kind and content of each part."""
    message = email.message_from_string(text, policy=email.policy.default)
    assert message.get_content_type() == "multipart/mixed" and not message.defects
    found = [(part.get_content_type(), str(part.get_payload())) for part in message.iter_parts()]
    assert not any(part.defects for part in message.iter_parts())
    return found


def node_config(text: str) -> dict[str, Any]:
    ((kind, content),) = parts(text)
    assert kind == "application/node.eks.aws"
    found: dict[str, Any] = yaml.safe_load(content)
    return found


def test_al2023_gets_a_node_config() -> None:
    config = node_config(user_data("al2023", CLUSTER, "al2023-level-1", "ami-0123"))
    assert [error.message for error in Draft202012Validator(_NODE_CONFIG).iter_errors(config)] == []
    assert config["spec"]["cluster"] == {
        "name": "demo",
        "apiServerEndpoint": CLUSTER["endpoint"],
        "certificateAuthority": _AUTHORITY,
        "cidr": "172.20.0.0/16",
    }
    assert base64.b64decode(config["spec"]["cluster"]["certificateAuthority"], validate=True)
    labels = "eks.amazonaws.com/nodegroup=al2023-level-1,eks.amazonaws.com/nodegroup-image=ami-0123"
    assert config["spec"]["kubelet"]["flags"] == [f"--node-labels={labels}"]


def test_the_schema_refuses_what_nodeadm_would() -> None:
    config = node_config(user_data("al2023", CLUSTER, "g", "ami-0123"))
    config["spec"]["cluster"]["apiserverEndpoint"] = config["spec"]["cluster"].pop("apiServerEndpoint")
    assert list(Draft202012Validator(_NODE_CONFIG).iter_errors(config))


def bootstrap(text: str) -> tuple[str, dict[str, str]]:
    """Cluster and options, as the loop of bootstrap.sh takes them."""
    ((kind, content),) = parts(text)
    assert kind == "text/x-shellscript" and content.startswith("#!/bin/bash\n")
    program, *words = shlex.split(content.splitlines()[-1])
    assert program == "/etc/eks/bootstrap.sh"
    positional, options = [], {}
    while words:
        word = words.pop(0)
        if word in _BOOTSTRAP:
            options[word] = words.pop(0)
        else:
            positional.append(word)
    assert len(positional) == 1, "bootstrap.sh takes one cluster"
    return positional[0], options


def test_al2_runs_bootstrap() -> None:
    name, options = bootstrap(user_data("al2", CLUSTER, "al2-level-1", "ami-0123"))
    assert name == "demo"
    assert options == {
        "--apiserver-endpoint": CLUSTER["endpoint"],
        "--b64-cluster-ca": _AUTHORITY,
        "--dns-cluster-ip": "172.20.0.10",
        "--kubelet-extra-args": (
            "--node-labels=eks.amazonaws.com/nodegroup=al2-level-1,eks.amazonaws.com/nodegroup-image=ami-0123"
        ),
    }


def test_another_system_is_refused() -> None:
    with pytest.raises(UserDataError, match="no way is known by which bottlerocket joins"):
        user_data("bottlerocket", CLUSTER, "g", "ami-0123")


def test_what_cloudformation_would_not_take_is_refused() -> None:
    with pytest.raises(UserDataError, match="CloudFormation takes 4096"):
        user_data("al2023", {**CLUSTER, "certificate_authority": "x" * 4000}, "g", "ami-0123")


@pytest.mark.parametrize("os", ["al2023", "al2"])
def test_the_same_cluster_gives_the_same_text(os: str) -> None:
    assert user_data(os, CLUSTER, "g", "ami-0123") == user_data(os, dict(CLUSTER), "g", "ami-0123")
