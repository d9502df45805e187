"""Would an EKS node with this user data join? Read as nodeadm (AL2023) and bootstrap.sh (AL2) read it.

nodeadm: ``nodeadm/internal/configprovider/userdata.go`` of amazon-eks-ami takes a NodeConfig, or a MIME document with
parts ``application/node.eks.aws``, later ones over earlier ones; it needs name, apiServerEndpoint, certificateAuthority
and cidr of the cluster. bootstrap.sh (``templates/al2/runtime/bootstrap.sh``) needs the name, and asks EKS for endpoint
and certificate where they are not given.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from typing import Any

import yaml

_NODE_CONFIG = "application/node.eks.aws"
_BOOTSTRAP = re.compile(r"^[^#\n]*/etc/eks/bootstrap\.sh[ \t]+(?P<arguments>.*)$", re.MULTILINE)
_LABELS = re.compile(r"--node-labels=([^\s\"',]+(?:,[^\s\"',]+)*)")
#: bootstrap.sh's options, each with one value. What is none of them counts as the cluster's name.
_OPTIONS = {
    "--apiserver-endpoint",
    "--aws-api-retry-attempts",
    "--b64-cluster-ca",
    "--cluster-id",
    "--container-runtime",
    "--containerd-config-file",
    "--dns-cluster-ip",
    "--docker-config-json",
    "--enable-docker-bridge",
    "--enable-local-outpost",
    "--ip-family",
    "--kubelet-extra-args",
    "--local-disks",
    "--mount-bpf-fs",
    "--pause-container-account",
    "--pause-container-version",
    "--service-ipv4-cidr",
    "--service-ipv6-cidr",
    "--use-max-pods",
}


def obstacle(os: str, data: bytes, cluster: dict[str, Any]) -> str | None:
    """Why a node of ``os`` ('al2023' or 'al2') with this user data would not join; None if it would.

    ``cluster`` is what DescribeCluster says of it.
    """
    try:
        return _nodeadm(data, cluster) if os == "al2023" else _bootstrap(data, cluster)
    except (yaml.YAMLError, ValueError) as error:
        return f"user data cannot be read: {' '.join(str(error).split())}"


def labels(data: bytes) -> dict[str, str]:
    """The labels kubelet registers its node with, by ``--node-labels``."""
    found: dict[str, str] = {}
    for text in [part for _, part in _parts(data)]:
        for listed in _LABELS.findall(text):
            found |= dict(pair.split("=", 1) for pair in listed.split(",") if "=" in pair)
    return found


def _parts(data: bytes) -> Iterator[tuple[str, str]]:
    """Content type and text of each part; one of type '' for user data that is no MIME document."""
    message: Message = message_from_bytes(data)
    if not message.is_multipart():
        yield "", data.decode(errors="replace")
        return
    for part in message.walk():
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes):
            yield part.get_content_type(), payload.decode(errors="replace")


def _nodeadm(data: bytes, cluster: dict[str, Any]) -> str | None:
    found: dict[str, Any] = {}
    for kind, text in _parts(data):
        if kind not in ("", _NODE_CONFIG):
            continue
        for document in yaml.safe_load_all(text):
            config = document if isinstance(document, dict) else {}
            if (config.get("apiVersion"), config.get("kind")) == ("node.eks.aws/v1alpha1", "NodeConfig"):
                found |= (config.get("spec") or {}).get("cluster") or {}
            elif kind == _NODE_CONFIG:
                return f"a part {_NODE_CONFIG} is no NodeConfig of node.eks.aws/v1alpha1"
    if not found:
        return f"user data has no NodeConfig (a MIME part {_NODE_CONFIG})"
    expected = {
        "name": cluster["name"],
        "apiServerEndpoint": cluster["endpoint"],
        "certificateAuthority": cluster["certificateAuthority"]["data"],
        "cidr": cluster["kubernetesNetworkConfig"]["serviceIpv4Cidr"],
    }
    return _difference("NodeConfig spec.cluster.", found, expected)


def _bootstrap(data: bytes, cluster: dict[str, Any]) -> str | None:
    shell = "\n".join(text for kind, text in _parts(data) if kind in ("", "text/x-shellscript"))
    call = _BOOTSTRAP.search(shell.replace("\\\n", " "))
    if call is None:
        return "user data does not call /etc/eks/bootstrap.sh"
    words, names, given = shlex.split(call["arguments"], comments=True), [], {}
    while words:
        word = words.pop(0)
        if word in _OPTIONS:
            given[word] = words.pop(0) if words else ""
        else:
            names.append(word)
    expected = {
        "name": cluster["name"],
        "--apiserver-endpoint": cluster["endpoint"],
        "--b64-cluster-ca": cluster["certificateAuthority"]["data"],
    }
    found = {"name": names[0] if names else "", **given}
    asked = {key: value for key, value in expected.items() if key in found}
    return _difference("bootstrap.sh ", found, asked)


def _difference(where: str, found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    for key, value in expected.items():
        if found.get(key) != value:
            return f"{where}{key} is {_short(found.get(key))}, not the cluster's {_short(value)}"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
