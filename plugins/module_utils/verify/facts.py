# Copyright the cisdriver authors. Apache-2.0.
"""What several checks ask of a node: kubelet's configuration, the cluster's address family, the primary interface."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, Dict, NamedTuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

KUBELET = "/etc/kubernetes/kubelet/config.json"
_KUBELET_OF_AL2 = "/etc/kubernetes/kubelet/kubelet-config.json"
#: ipamd of the VPC CNI writes it last of all: from then on its own settings hold.
VPC_CNI = "/etc/cni/net.d/10-aws.conflist"
_ARGUMENTS = "/etc/eks/kubelet/environment"


class Interface(NamedTuple):
    """``address`` and ``prefix`` of IPv4, ``address6`` the global one of IPv6; empty and 0 where there is none."""

    name: str
    address: str
    prefix: int
    address6: str


def kubelet_configuration(node: core.Node) -> Dict[str, Any]:
    """kubelet's settings, drop-ins over the file; none before nodeadm has written them. Raises ProbeError."""
    settings: Dict[str, Any] = {}
    for path in [_KUBELET_OF_AL2, KUBELET, *node.glob(f"{KUBELET}.d/*.conf")]:
        try:
            found = json.loads(node.read(path) or "{}")
        except ValueError as error:
            raise core.ProbeError(f"{path}: expected JSON, found other text: {error}") from error
        settings.update(found if isinstance(found, dict) else {})
    return settings


def ipv6_cluster(node: core.Node) -> bool:
    """Whether pods have IPv6 addresses: nodeadm gives kubelet the cluster's resolver and the node's own address."""
    resolvers = kubelet_configuration(node).get("clusterDNS") or []
    arguments = node.read(_ARGUMENTS) or ""
    return any(":" in str(each) for each in resolvers) or re.search(r"--node-ip=[0-9a-fA-F]*:", arguments) is not None


def primary_interface(node: core.Node) -> Interface:
    """The interface of the default route with the lowest metric; ``eth0`` without address where there is none."""
    routes = [line.split() for _number, line in node.lines("/proc/net/route")]
    default = [(int(words[6]), words[0]) for words in routes if len(words) > 6 and words[1] == "00000000"]
    name = min(default)[1] if default else "eth0"
    shown = node.run("ip", "-o", "addr", "show", "dev", name, "scope", "global").out
    inet = re.search(r"\sinet (\S+)", shown)
    inet6 = re.search(r"\sinet6 ([^/\s]+)", shown)
    if not inet:
        return Interface(name, "", 0, inet6.group(1) if inet6 else "")
    address = ipaddress.IPv4Interface(inet.group(1))
    return Interface(name, str(address.ip), address.network.prefixlen, inet6.group(1) if inet6 else "")
