# Copyright the cisdriver authors. Apache-2.0.
"""Whether containers run here: one is started and reached, and what SELinux would refuse them is looked at."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from typing import Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, selinux
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import cni, facts, own_containerd, pods
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify.core import check

#: Addresses that no network uses (RFC 5737).
_POD = pods.Pod("pod", "198.51.100.1")
_OUTSIDE = pods.Pod("outside", "203.0.113.1")
#: Of the ports on which a node has to be reached anyhow.
_NODE_PORTS = (30000, 32767)
_INSIDE = 8080
_SERVE = (
    "import socket, sys\n"
    "server = socket.create_server(('', int(sys.argv[2])))\n"
    "while True:\n"
    "    with server.accept()[0] as peer: peer.sendall(sys.argv[3].encode())\n"
)
_CALL = (
    "import socket, sys\n"
    "with socket.create_connection((sys.argv[1], int(sys.argv[2])), int(sys.argv[3])) as peer:\n"
    "    print(peer.makefile().read())\n"
)
#: What a kernel says that does not let a container have containers.
_NOT_ITS_OWN = re.compile(r"(?i)operation not permitted|permission denied|not supported|read-only file system|cgroup")
FORWARD = "/proc/sys/net/ipv4/ip_forward"


class Wiring(NamedTuple):
    """``port`` of the node leads to the container, where a plugin maps it."""

    address: str
    port: Optional[int]
    how: str


@check(
    "containerd runs a container whose network reaches out and is reached",
    why="A node on which no container starts, or whose containers nobody reaches, takes pods and fails them",
)
def container_runs(node: core.Node) -> core.Finding:
    if own_containerd.program(node, "containerd") is None:
        return core.not_applicable("there is no containerd on this machine")
    forwarding = (node.read(FORWARD) or "").strip()
    if forwarding != "1":
        return core.verdict([core.evidence("net.ipv4.ip_forward", "1", forwarding or None, False, FORWARD)])
    items: List[core.Evidence] = []
    try:
        with own_containerd.orderly() as hold, contextlib.ExitStack() as stack:
            try:
                _try(node, stack, items)
            finally:
                hold()
    except core.ProbeError as error:
        if node.in_container() and _NOT_ITS_OWN.search(str(error)):
            return core.not_applicable(f"in this container no other can be started: {error}")
        if not isinstance(error, (own_containerd.Broken, cni.Refused)):
            raise
        network = isinstance(error, cni.Refused)
        what = "network of a container" if network else "a container" if items else "containerd"
        items.append(core.evidence(what, "is made" if network else "starts", str(error), False))
    return core.verdict(items)


def _try(node: core.Node, stack: contextlib.ExitStack, items: List[core.Evidence]) -> None:
    """Fills ``items``. Raises ProbeError, also Broken and Refused."""
    runtime = stack.enter_context(own_containerd.containerd(node))
    items.append(core.evidence("containerd", "starts", "starts", True))
    cni.clear(node)
    outside = stack.enter_context(pods.pod(node, _OUTSIDE.name, _OUTSIDE.address))
    wiring, namespace = _wire(node, stack)
    items.append(core.evidence("network of a container", "is made", f"{wiring.address}, {wiring.how}", True))
    runtime.start(namespace, "-c", _SERVE, own_containerd.NAME, str(_INSIDE), "inside")
    stack.callback(runtime.stop)  # before its network goes
    items.append(core.evidence("a container", "starts", "starts", True))
    items.append(_heard("from the node", wiring.address, _INSIDE, None))
    if wiring.port is None:
        items.append(_heard("from outside", wiring.address, _INSIDE, outside.namespace))
    own = facts.primary_interface(node).address
    if wiring.port is not None and own:
        items.append(_heard("from outside, on a port of the node", own, wiring.port, outside.namespace))
    with pods.Listener("outside", namespace=outside.namespace) as listener:
        items.append(_reaches(runtime, "an address beyond the node", outside.address, listener))
    if own:
        with pods.Listener("the node", port=_free_port(node)) as listener:
            items.append(_reaches(runtime, "the node", own, listener))


def _wire(node: core.Node, stack: contextlib.ExitStack) -> Tuple[Wiring, str]:
    """By the plugins that are here, and else as the VPC CNI plugin does, which needs its daemon for that."""
    plugins = cni.find(node)
    if plugins is None:
        made = stack.enter_context(pods.pod(node, _POD.name, _POD.address))
        why = f"wired as the VPC CNI does: no plugin bridge in {', '.join(cni.directories(node))}"
        return Wiring(made.address, None, why), made.namespace
    made = stack.enter_context(pods.namespace(node, _POD))
    port = _free_port(node) if plugins.portmap else None
    address = stack.enter_context(cni.wired(node, plugins, made.namespace, {port: _INSIDE} if port else {}))
    return Wiring(address, port, f"by {plugins.directory}/bridge{' and portmap' if port else ''}"), made.namespace


def _heard(whence: str, address: str, port: int, namespace: Optional[str]) -> core.Evidence:
    word, why = pods.hear(address, port, namespace)
    return core.evidence(f"the container reached {whence}, {address}:{port}", "answers", *_answer(word, why, "inside"))


def _reaches(runtime: own_containerd.Runtime, what: str, address: str, listener: pods.Listener) -> core.Evidence:
    """By a program that is started in the running container."""
    done = runtime.execute("-c", _CALL, address, str(listener.port), str(pods.PATIENCE))
    lines = done.err.strip().splitlines() or [f"exit {done.rc}"]
    found = _answer(done.out.strip(), lines[-1], listener.word)
    return core.evidence(f"{what}, {address}:{listener.port}, reached from the container", "answers", *found)


def _answer(word: str, why: str, expected: str) -> Tuple[str, bool]:
    return ("answers", True) if word == expected else (word or why, False)


def _free_port(node: core.Node) -> int:
    """One that no program listens on and no Service of the cluster has, whose packets go elsewhere though no program
    holds its port: kube-proxy's rules name it, and by IPVS or eBPF it answers. Raises ProbeError after a hundred."""
    rules = node.run("iptables-save").out + node.run("nft", "-j", "list", "ruleset").out
    own = facts.primary_interface(node).address
    for _attempt in range(100):
        port = random.randint(*_NODE_PORTS)
        if re.search(rf"\b{port}\b", rules) or (own and pods.answers(own, port)):
            continue
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("", port))
            return port
    raise core.ProbeError(f"no port of {_NODE_PORTS[0]}-{_NODE_PORTS[1]} is free")


#: What has to be let run, and containerd's and the kubelet's own types beside those of all programs.
_LABELLED = ("kubelet", "containerd", "containerd-shim-runc-v2", "runc", "nodeadm", "nodeadm-internal")
_MAY_RUN = re.compile(r"bin_t|\w+_exec_t")
_SETTINGS = (cni.CONTAINERD, "/etc/containerd/conf.d/*.toml", "/etc/eks/nodeadm.d/*")


@check(
    "SELinux lets kubelet and containerd run, and containerd labels its containers where it enforces",
    why="A program with the label of a temporary or private file is refused, and so are containers without labels",
)
def selinux_labels(node: core.Node) -> core.Finding:
    mode = selinux.live(node)
    if mode is None:
        return core.not_applicable("in a container or chroot SELinux is another machine's")
    if mode == "disabled":
        return core.not_applicable("the kernel runs without SELinux")
    if mode != "enforcing" and not _will_enforce(node):
        return core.not_applicable("SELinux is permissive, now and at the next boot: it refuses nothing")
    items = list(_labels(node))
    if not items:
        return core.not_applicable("there is neither kubelet nor containerd on this machine")
    if mode == "enforcing":
        items.append(_labels_containers(node))
    return core.verdict(items)


def _will_enforce(node: core.Node) -> bool:
    return re.search(r"(?mi)^SELINUX=\s*enforcing\b", node.read(selinux.CONFIG) or "") is not None


def _labels(node: core.Node) -> Iterator[core.Evidence]:
    for path in filter(None, (own_containerd.program(node, name) for name in _LABELLED)):
        label = node.must("stat", "--dereference", "--format=%C", path).strip()
        parts = label.split(":")
        ok = len(parts) > 2 and bool(_MAY_RUN.fullmatch(parts[2]))
        yield core.evidence(f"label of {path}", "of type bin_t or *_exec_t", label, ok, path)


def _labels_containers(node: core.Node) -> core.Evidence:
    """containerd's configuration, which is made at the first join of what NodeConfig files say."""
    lines = [(path, *line) for pattern in _SETTINGS for path in node.glob(pattern) for line in node.lines(path)]
    for path, number, text in lines:
        setting = re.match(r"enable_selinux\s*=\s*(\w+)", text)
        if setting:
            found = setting.group(1)
            return core.evidence("containerd enable_selinux", "true", found, found == "true", f"{path}:{number}")
    return core.evidence("containerd enable_selinux", "true", None, False, cni.CONTAINERD)
