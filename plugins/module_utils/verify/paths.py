# Copyright the cisdriver authors. Apache-2.0.
"""Whether programs, units and configuration are open to those who need them, and may be executed where they lie."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, mounts
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import volumes
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.core import check

_LINKS = 16
KUBELET = "/usr/bin/kubelet"
_PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")


class Open(NamedTuple):
    """Paths that must be open to all, and who it is that needs them. Directories and programs: r-x. Files: r--."""

    pattern: str
    who: str


#: What a build step or a service with umask 027 closes. Not here are secrets, what root alone reads, and what a site
#: may have reasons to close: its own units and tools.
OPEN = (
    *(
        Open(f"/usr/bin/{name}", "build steps, agents and sessions that are not root")
        for name in (
            *("kubelet", "nodeadm", "nodeadm-internal", "aws", "imds", "containerd", "containerd-shim-runc-v2", "ctr"),
            *("nerdctl", "soci-snapshotter-grpc", "setup-local-disks", "vercmp", "socat", "conntrack", "ethtool"),
        )
    ),
    Open("/usr/sbin/runc", "runtimes without root"),
    Open("/opt/cni/bin", "network plugins that install there"),
    Open("/opt/cni/bin/*", "network plugins that run without root"),
    Open("/etc/cni/net.d", "agents of network plugins"),
    Open("/etc/containerd", "agents and build steps"),
    Open("/etc/kubernetes", "agents and build steps"),
    Open("/etc/kubernetes/kubelet", "agents and build steps"),
    Open("/etc/kubernetes/manifests", "agents and build steps"),
    Open("/etc/eks", "build steps and log collectors"),
    Open("/etc/eks/**/*", "build steps and log collectors"),
    Open("/etc/systemd/system", "systemctl for users"),
    *(
        Open(f"/etc/systemd/system/{unit}", "systemctl for users")
        for name in ("kubelet", "containerd", "nodeadm-*", "soci-snapshotter", "udev-net-manager@", "cni-cache-reset")
        for unit in (f"{name}.service", f"{name}.service.d", f"{name}.service.d/*")
    ),
    Open("/etc/systemd/network", "the user systemd-network"),
    Open("/etc/systemd/network/**/*", "the user systemd-network"),
    Open("/run/systemd/network", "the user systemd-network"),
    Open("/run/systemd/network/**/*", "the user systemd-network"),
    Open("/etc/systemd/networkd.conf*", "the user systemd-network"),
    Open("/etc/systemd/networkd.conf.d/*", "the user systemd-network"),
    Open("/etc/systemd/resolved.conf*", "the user systemd-resolve"),
    Open("/etc/systemd/resolved.conf.d/*", "the user systemd-resolve"),
    Open("/etc/resolv.conf", "every program that resolves a name; the kubelet hands it to pods"),
    Open("/etc/hosts", "every program that resolves a name"),
    Open("/etc/nsswitch.conf", "every program that looks up a user or a name"),
    Open("/etc/passwd", "every program that looks up a user"),
    Open("/etc/group", "every program that looks up a group"),
    Open("/etc/os-release", "the kubelet's node information and agents"),
    Open("/etc/pki/tls/certs/ca-bundle.crt", "programs and pods that trust the node's certificates"),
    Open("/etc/ssl/certs", "pods that mount the node's certificates"),
)
#: NodeConfig files, keys and what describes a tunnel may hold secrets.
_PRIVATE = ("/etc/eks/nodeadm.d/",)
_PRIVATE_ENDS = (".key", ".pem", ".netdev", "kubeconfig")


@check(
    "Programs, units and configuration of the node are open to those who need them",
    why="Under a umask of 027 they are closed: networkd finds no network, agents and sessions cannot call them",
)
def files_readable(node: core.Node) -> core.Finding:
    items: List[core.Evidence] = []
    looked = 0
    for path, who in _opened(node).items():
        looked += 1
        closed = _closed(node, path)
        if closed:
            items.append(core.evidence(path, f"open to all, for {who}", closed, False, path))
    items.append(core.evidence("programs, units and configuration", "open to all", f"looked at {looked}", True))
    return core.verdict(items)


def _opened(node: core.Node) -> Dict[str, str]:
    found: Dict[str, str] = {}
    for each in OPEN:
        for path in node.glob(each.pattern):
            if not path.startswith(_PRIVATE) and not path.endswith(_PRIVATE_ENDS):
                found.setdefault(path, each.who)
    return found


def _closed(node: core.Node, path: str) -> str:
    """What on the way to a path is closed to others; empty when nothing is, or when a link leads nowhere."""
    steps = way(node, path)
    for place, about in steps[:-1]:
        if not about.st_mode & 0o001:
            return f"mode {stat.S_IMODE(about.st_mode):04o} of {place} above it"
    for place, about in steps[-1:]:
        directory_or_program = stat.S_ISDIR(about.st_mode) or (about.st_mode & 0o100)
        wanted = 0o005 if directory_or_program else 0o004
        if about.st_mode & wanted != wanted:
            of = f" of {place}" if place != path else ""
            return f"mode {stat.S_IMODE(about.st_mode):04o}{of}"
    return ""


def way(node: core.Node, path: str) -> List[Tuple[str, os.stat_result]]:
    """The directories on the way to a file, through its links, and the file itself; nothing where there is none."""
    steps: List[Tuple[str, os.stat_result]] = []
    place, rest, links = "/", [part for part in path.split("/") if part], 0
    while rest:
        part = rest.pop(0)
        here = posixpath.normpath(posixpath.join(place, part))
        about = node.lstat(here)
        if about is None:
            return []
        if stat.S_ISLNK(about.st_mode):
            links += 1
            if links > _LINKS:
                return []
            target = os.readlink(node.real(here))
            rest = [each for each in target.split("/") if each] + rest
            place = "/" if target.startswith("/") else place
            continue
        steps.append((here, about))
        place = here
    return steps


#: Path to the flags its mount must not have, and what they would break. /run is nosuid and nodev on every node, and
#: the root of a container is a mount with flags of its own.
EXECUTABLE = {
    "/usr/bin": ("noexec", "nosuid"),
    "/usr/sbin": ("noexec", "nosuid"),
    "/opt/cni/bin": ("noexec",),
    "/etc/eks": ("noexec",),
    "/var/lib/kubelet": ("noexec", "nosuid", "nodev"),
    "/var/lib/containerd": ("noexec", "nosuid", "nodev"),
    "/var/lib/soci-snapshotter-grpc": ("noexec", "nosuid", "nodev"),
}


@check(
    "Programs may be executed where containers, network plugins and the node have them, now and at the next boot",
    why="Volumes of pods have the flags of /var/lib/kubelet, and a network plugin that may not run connects no pod",
)
def exec_allowed(node: core.Node) -> core.Finding:
    items: List[core.Evidence] = []
    for path, flags in EXECUTABLE.items():
        if not node.exists(path):
            continue
        expected = f"without {', '.join(flags)}"
        now = volumes.holding(node, path)
        if now is not None:
            items.append(_flags(f"mount of {path} (now), {now.point}", expected, flags, now.options, now.source))
        for point, later in volumes.at_boot(node, path):
            items.append(_flags(f"mount of {path} (at boot), {point}", expected, flags, later.words, later.source))
    return core.verdict(items)


def _flags(object_: str, expected: str, flags: Tuple[str, ...], words: List[str], source: str) -> core.Evidence:
    ok = not any(mounts.carries(words, flag) for flag in flags)
    return core.evidence(object_, expected, ",".join(words) or "no options", ok, source)


#: Program to who calls it. In the kubelet's case those of its volume plugins and of kube-proxy's mode are among them.
PROGRAMS = {
    "iptables": "kubelet.service before it starts, kube-proxy, network plugins",
    "iptables-save": "kube-proxy, network plugins",
    "iptables-restore": "kube-proxy, network plugins",
    "ip6tables": "kubelet, kube-proxy, network plugins",
    "conntrack": "kubelet, kube-proxy",
    "ip": "network plugins",
    "ethtool": "network plugins",
    "socat": "port forwarding",
    "mount": "kubelet",
    "umount": "kubelet",
    "mount.nfs": "kubelet, for NFS volumes",
    "mkfs.ext4": "kubelet, for new volumes",
    "mkfs.xfs": "kubelet, for new volumes",
    "fsck": "kubelet, before it mounts a volume",
    "blkid": "kubelet",
    "resize2fs": "kubelet, for volumes that grow",
    "xfs_growfs": "kubelet, for volumes that grow",
    "modprobe": "containerd, kube-proxy",
    "nsenter": "agents that mount on the node",
    "containerd-shim-runc-v2": "containerd",
    "runc": "containerd",
    "tar": "kubectl cp into the node's tools, nodeadm",
    "aws": "kubelet, for its token",
}


@check(
    "The programs that kubelet, containerd and network plugins call are there",
    why="Hardening removes packages whose programs the node calls without saying so, such as the NFS client",
)
def node_programs(node: core.Node) -> core.Finding:
    if not node.exists(KUBELET):
        return core.not_applicable("there is no kubelet on this machine")
    return core.verdict(list(_called(node)))


def _called(node: core.Node) -> Iterator[core.Evidence]:
    for name, who in PROGRAMS.items():
        expected = f"executable, for {who}"
        path = next((f"{place}/{name}" for place in _PLACES if node.exists(f"{place}/{name}")), None)
        found, ok = _executable(node, path)
        yield core.evidence(name, expected, found, ok, path)


def _executable(node: core.Node, path: Optional[str]) -> Tuple[str, bool]:
    steps = way(node, path) if path else []
    if not steps:
        return "not there", False
    mode = steps[-1][1].st_mode
    return f"mode {stat.S_IMODE(mode):04o}", bool(mode & 0o100)
