# Copyright the cisdriver authors. Apache-2.0.
"""What the kernel has to do for a node: forward, load modules, speak IPv6, and hold the values kubelet insists on."""

from __future__ import annotations

import fnmatch
import os
import re
from typing import Any, Iterator, List, Mapping, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, kernel_module, sysctl
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import ipv6 as ipv6_probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import facts
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.core import check

Items = Iterator[core.Evidence]

#: What kubelet compares under protectKernelDefaults, which nodeadm sets (kubernetes,
#: pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables), and what the kernel starts with.
KUBELET_VALUES = {
    "vm.overcommit_memory": (1, 0),
    "vm.panic_on_oom": (0, 0),
    "kernel.panic": (10, 0),
    "kernel.panic_on_oops": (1, 0),
    "kernel.keys.root_maxkeys": (1000000, 1000000),
    "kernel.keys.root_maxbytes": (25000000, 25000000),
}
#: Modules by whose help a node boots, runs containers, mounts volumes and carries packets of pods.
NEEDED_MODULES = (
    *(
        "overlay",
        "fuse",
        "loop",
        "dm_mod",
        "ext4",
        "xfs",
        "vfat",
        "fat",
        "nls_*",
        "nfs",
        "nfsv[34]*",
        "nfs_acl",
        "sunrpc",
    ),
    *("lockd", "grace", "auth_rpcgss", "rpcsec_gss_krb5", "ena", "efa", "nvme", "nvme_core", "br_netfilter", "bridge"),
    *("stp", "llc", "veth", "tun", "vxlan", "8021q", "ip_tables", "ip6_tables", "iptable_*", "ip6table_*", "x_tables"),
    *(
        "ipt_*",
        "ip6t_*",
        "xt_*",
        "nf_*",
        "nft_*",
        "nfnetlink*",
        "ip_set*",
        "ip_vs*",
        "sch_ingress",
        "sch_fq",
        "sch_fq_codel",
        "sch_tbf",
        "ifb",
        "cls_bpf",
    ),
)
_STRICT, _LOOSE = "1", {"in": ["0", "2"]}
_ARGUMENTS = re.compile(r"(?:^|\s)(modprobe\.blacklist|module_blacklist)=(\S+)")


@check("IPv4 packets are forwarded, and IPv6 packets where pods have IPv6", "No packet reaches a pod, or leaves one")
def forwarding(node: core.Node) -> core.Finding:
    findings = [sysctl.check(node, {"net.ipv4.ip_forward": 1})]
    primary = facts.primary_interface(node).name
    items = [_unless_written(node, "net.ipv4.conf.all.forwarding", "1", "1")]  # another name of the same switch
    for scope in ("default", primary):  # what the interface of a new pod begins with, and what the network sends
        items += _of_interface(node, f"net.ipv4.conf.{scope}.forwarding", "1", "1")
    if facts.ipv6_cluster(node):
        # the VPC CNI sets it when it starts; a file that says otherwise undoes it whenever files are read again
        key = "net.ipv6.conf.all.forwarding"
        items.append(_unless_written(node, key, "1", "1"))
        if node.exists(facts.VPC_CNI):
            items += _running(node, key, "1")
    return core.combine([*findings, core.verdict(items)])


@check("Packets between ports of a bridge pass iptables", "Services are not translated for pods on a bridge")
def bridge_traffic(node: core.Node) -> core.Finding:
    items: List[core.Evidence] = []
    for name in ("iptables", "ip6tables"):
        key = f"net.bridge.bridge-nf-call-{name}"
        items.append(_unless_written(node, key, "1", "1"))  # 1 is br_netfilter's own
        items += _running(node, key, "1")  # there is a value only where br_netfilter is loaded
    return core.verdict(items)


@check("Kernel parameters have the values kubelet insists on", "kubelet refuses to start: protectKernelDefaults is set")
def kubelet_kernel_values(node: core.Node) -> core.Finding:
    if facts.kubelet_configuration(node).get("protectKernelDefaults") is False:
        return core.not_applicable(
            f"{facts.KUBELET}: protectKernelDefaults is false, so kubelet sets the values itself"
        )
    items: List[core.Evidence] = []
    for key, (wanted, default) in KUBELET_VALUES.items():
        if not node.in_container():  # there they are its host's
            items += _running(node, key, str(wanted))
        items.append(_unless_written(node, key, str(wanted), str(default)))
    return core.verdict(items)


def _running(node: core.Node, key: str, wanted: Any) -> List[core.Evidence]:
    """The running value, as evidence; none where the kernel has no such key."""
    path = "/proc/sys/" + key.replace(".", "/")
    text = node.read(path)
    if text is None:
        return []
    return [core.evidence(f"{key} (running)", wanted, text.strip(), core.holds(wanted, text.strip()), path)]


def _unless_written(node: core.Node, key: str, wanted: Any, default: str) -> core.Evidence:
    """What the next boot sets, or what the kernel starts with where no file says."""
    value, source = sysctl.configured(node, key)
    shown = f"{default}, which is the kernel's own" if value is None else value
    return core.evidence(
        f"{key} (at boot)", wanted, shown, core.holds(wanted, default if value is None else value), source
    )


def _of_interface(node: core.Node, key: str, wanted: Any, default: str) -> Items:
    yield from _running(node, key, wanted)
    yield _unless_written(node, key, wanted, default)


# Modules


@check("No module that a node needs is kept from loading", "Containers, volumes, Services or the network fail")
def kernel_modules(node: core.Node) -> core.Finding:
    """A module counts as kept away when an installed kernel has it and modprobe would not load it. One that no kernel
    has says nothing: kernels differ, and what is built in is in no list of files. One that depmod has listed and whose
    file is gone has been taken away."""
    kernels = kernel_module.installed(node)
    had = {name for names in kernels.values() for name in names if _needed(name)}
    items = [*_disabled(node, had), *_named_on_command_lines(node, had), *_removed(node, kernels), *_sealed(node)]
    found = f"{len(had)} there, {len([item for item in items if not item['ok']])} kept away"
    return core.verdict([core.evidence("modules of a node", "loadable or built in", found, True), *items])


def _needed(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in NEEDED_MODULES)


def _disabled(node: core.Node, had: Any) -> Items:
    """``install`` lines that do not load, and ``blacklist`` lines, for the kernel asks for most modules by alias."""
    lines = kernel_module.configuration(node)
    for line in lines:
        # without a list of the kernels' modules every line counts
        if not _needed(line.module) or (had and line.module not in had):
            continue
        if line.command == "install":
            command, source = kernel_module.install_command(node, lines, line.module)
            if command is None or re.search(r"\b(modprobe|insmod)\b", command) or source != line.source:
                continue
            yield core.evidence(f"module {line.module}", "modprobe loads it", f"modprobe runs {command}", False, source)
        else:
            yield core.evidence(f"module {line.module}", "loaded by alias", "blacklisted", False, line.source)


def _named_on_command_lines(node: core.Node, had: Any) -> Items:
    for text, source in _command_lines(node):
        for argument, names in _ARGUMENTS.findall(text):
            for name in names.split(","):
                if _needed(kernel_module.normal(name)) and (not had or kernel_module.normal(name) in had):
                    yield core.evidence(f"module {name}", "not in a blacklist", f"{argument}={names}", False, source)


def _command_lines(node: core.Node) -> Iterator[Tuple[str, str]]:
    """``(arguments, place)`` of the running kernel and of every boot entry."""
    yield node.read("/proc/cmdline") or "", "/proc/cmdline"
    for path in node.glob(ipv6_probe.ENTRIES):
        for number, line in node.lines(path):
            if line.startswith("options"):
                yield line, f"{path}:{number}"


def _removed(node: core.Node, kernels: Mapping[str, Any]) -> Items:
    for version in sorted(kernels):
        listing = f"/lib/modules/{version}/modules.dep"
        for number, line in node.lines(listing):
            file = line.partition(":")[0]
            name = kernel_module.normal(re.sub(r"\.ko(\.\w+)?$", "", os.path.basename(file)))
            if _needed(name) and name not in kernels[version]:
                found = f"/lib/modules/{version}/{file} is gone"
                yield core.evidence(f"module {name}", "a file, as depmod found it", found, False, f"{listing}:{number}")


def _sealed(node: core.Node) -> Items:
    """``kernel.modules_disabled`` once 1 stays so until a boot, and systemd-sysctl runs before most modules load."""
    key = "kernel.modules_disabled"
    if not node.in_container():
        yield from _running(node, key, "0")
    yield _unless_written(node, key, "0", "0")


# IPv6


@check(
    "IPv6 is not disabled", "Pods of an IPv6 cluster are cut off; elsewhere servers that bind ::1 or :: do not start"
)
def ipv6(node: core.Node) -> core.Finding:
    expected = "no ipv6.disable=1"
    items = []
    for text, source in _command_lines(node):
        off = re.search(r"(?:^|\s)ipv6\.disable=1(\s|$)", text) is not None
        items.append(
            core.evidence("kernel arguments", expected, "ipv6.disable=1" if off else expected, not off, source)
        )
    if not node.exists("/proc/sys/net/ipv6"):
        there = core.evidence("/proc/sys/net/ipv6", "there", "missing", False, "/proc/cmdline")
        return core.verdict([*items, there])
    primary = facts.primary_interface(node).name
    for scope in ("all", "default", "lo", primary):
        items += _of_interface(node, f"net.ipv6.conf.{scope}.disable_ipv6", "0", "0")
    if facts.ipv6_cluster(node):
        items += _router_advertisements(node, primary)
    return core.verdict(items)


def _router_advertisements(node: core.Node, primary: str) -> Items:
    """The way out of an IPv6 node is learnt from advertisements. systemd-networkd takes them in whatever the kernel
    does; for other machines the VPC CNI makes accept_ra of the primary interface 2, as the node forwards."""
    for scope in ("default", primary):
        yield _unless_written(node, f"net.ipv6.conf.{scope}.accept_ra", {"in": ["1", "2"]}, "1")
    route = node.must("ip", "-6", "route", "show", "default").strip()
    yield core.evidence("IPv6 default route", "there", route.split("\n")[0] or None, bool(route), "ip -6 route")


# Reverse path


@check("No interface filters by reverse path strictly", "Packets of pods on further network interfaces are dropped")
def reverse_path_filter(node: core.Node) -> core.Finding:
    """The kernel takes the larger of ``all`` and the interface's own value, and 2, loose, is the larger: so a strict
    ``all`` does no harm where the interface is loose. The VPC CNI makes its primary interface loose once, at start."""
    primary = facts.primary_interface(node).name
    there = [os.path.basename(path) for path in node.glob("/proc/sys/net/ipv4/conf/*")]
    mine = {name for name in there if re.match(r"(en[opsx]|eth)\d", name)}  # eni is a pod's, and may be strict
    items = []
    for name in sorted({primary, *mine, "eth0", "eth1", "ens5", "ens6"}):
        key = f"net.ipv4.conf.{name}.rp_filter"
        value, source = sysctl.configured(node, key)
        if value is not None:
            items.append(core.evidence(f"{key} (at boot)", _LOOSE, value, value.strip() != _STRICT, source))
    if node.exists(facts.VPC_CNI) and _value(node, primary) is not None:
        items.append(_effective(node, primary))
    return core.verdict(items or [core.evidence("rp_filter", "no interface's own strict one", "none is set", True)])


def _value(node: core.Node, name: str) -> Optional[str]:
    text = node.read(f"/proc/sys/net/ipv4/conf/{name}/rp_filter")
    return None if text is None else text.strip()


def _effective(node: core.Node, name: str) -> core.Evidence:
    own, every = _value(node, name) or "0", _value(node, "all") or "0"
    found = max(own, every)
    shown = found if found != _STRICT else f"{found} (its own {own}, all {every})"
    path = f"/proc/sys/net/ipv4/conf/{name}/rp_filter"
    return core.evidence(f"rp_filter of {name} (running)", _LOOSE, shown, found != _STRICT, path)
