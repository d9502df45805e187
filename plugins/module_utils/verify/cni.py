# Copyright the cisdriver authors. Apache-2.0.
"""A network for one container, made by the plugins bridge, host-local and portmap (https://www.cni.dev/docs/spec).

They are called as a container runtime calls them. What they leave behind is taken away: the bridge, and the chains that
portmap keeps for the next container where there were none before.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import pods

CONTAINERD = "/etc/containerd/config.toml"
#: Where packages of distributions put them, after what containerd is told and its default.
DIRECTORIES = ("/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni")
NEEDED = ("bridge", "host-local")
BRIDGE = "cis-bridge"
SUBNET = "198.51.100.64/28"
_ID = "cisdriver-verify"
_STATE = f"{pods.PLACE}/cni"
#: The rules of the table nat before anything was added.
_BEFORE = f"{_STATE}/before"
_VERSION = "0.4.0"
#: What portmap keeps in the table nat, beside a chain for each container.
_KEPT = ("CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ")


class Plugins(NamedTuple):
    directory: str
    portmap: bool


class Refused(core.ProbeError):
    """A plugin that was called as it should be and did not do it."""


def find(node: core.Node) -> Optional[Plugins]:
    """The first directory that holds what is needed; None before a network plugin brought it."""
    for directory in directories(node):
        if all(_is_plugin(node, f"{directory}/{name}") for name in NEEDED):
            return Plugins(directory, _is_plugin(node, f"{directory}/portmap"))
    return None


def directories(node: core.Node) -> List[str]:
    """``bin_dir`` of containerd, since 2.1 a list ``bin_dirs``, and the usual places."""
    told: List[str] = []
    for _number, line in node.lines(CONTAINERD):
        setting = re.match(r"bin_dirs?\s*=\s*(.*)", line)
        told += re.findall(r"[\"']([^\"']+)[\"']", setting.group(1)) if setting else []
    return list(dict.fromkeys([*told, *DIRECTORIES]))


def _is_plugin(node: core.Node, path: str) -> bool:
    """A plugin says which versions it speaks; one that may not be executed says nothing."""
    if not node.exists(path):
        return False
    done = node.run("env", "CNI_COMMAND=VERSION", path)
    return done.rc == 0 and "supportedVersions" in done.out


@contextlib.contextmanager
def wired(node: core.Node, plugins: Plugins, namespace: str, ports: Mapping[int, int]) -> Iterator[str]:
    """The address that the container in a namespace got. ``ports`` maps ports of the node to its own.

    Raises Refused with what a plugin says.
    """
    os.makedirs(node.real(_STATE), mode=0o700, exist_ok=True)
    with open(node.real(_BEFORE), "w", encoding="utf-8") as file:
        file.write("\n".join(_chains(node)))
    called: List[str] = []
    try:
        result = _call(node, plugins, "ADD", "bridge", namespace, _bridge())
        called.append("bridge")
        if plugins.portmap:
            called.append("portmap")  # one that stops half way has something to take back, too
            result = _call(node, plugins, "ADD", "portmap", namespace, _portmap(ports), result)
        yield str(result["ips"][0]["address"]).partition("/")[0]
    finally:
        for name in reversed(called):
            conf = _bridge() if name == "bridge" else _portmap(ports)
            with contextlib.suppress(Refused):  # the namespace goes with all that is in it
                _call(node, plugins, "DEL", name, namespace, conf)
        clear(node)


def clear(node: core.Node) -> None:
    """Take away what the plugins left, also in a run that was killed."""
    if not node.lstat(_BEFORE):
        return
    node.anew("ip", "link", "delete", BRIDGE)
    with open(node.real(_BEFORE), encoding="utf-8") as file:
        _clear_chains(node, file.read().splitlines())
    shutil.rmtree(node.real(_STATE))


def _bridge() -> Dict[str, Any]:
    ipam = {"type": "host-local", "subnet": SUBNET, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": _STATE}
    return {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True, "ipam": ipam}


def _portmap(ports: Mapping[int, int]) -> Dict[str, Any]:
    mapped = [{"hostPort": host, "containerPort": inside, "protocol": "tcp"} for host, inside in ports.items()]
    return {"type": "portmap", "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": mapped}}


def _call(
    node: core.Node,
    plugins: Plugins,
    command: str,
    name: str,
    namespace: str,
    conf: Mapping[str, Any],
    previous: Optional[Mapping[str, Any]] = None,
) -> Dict[str, Any]:
    path = f"{_STATE}/{name}.json"
    whole = {"cniVersion": _VERSION, "name": _ID, **conf, **({"prevResult": previous} if previous else {})}
    with open(node.real(path), "w", encoding="utf-8") as file:
        json.dump(whole, file)
    told = {"COMMAND": command, "CONTAINERID": _ID, "NETNS": namespace, "IFNAME": "eth0", "PATH": plugins.directory}
    variables = [f"CNI_{key}={value}" for key, value in told.items()]
    done = node.anew("env", *variables, "sh", "-c", 'exec "$0" < "$1"', f"{plugins.directory}/{name}", path)
    answer = _json(done.out)
    if done.rc != 0 or (command == "ADD" and not answer.get("ips")):
        said = answer.get("msg") or done.err.strip() or done.out.strip() or "no address"
        raise Refused(f"{plugins.directory}/{name} {command}: exit {done.rc}: {said}")
    return answer


def _json(text: str) -> Dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _chains(node: core.Node) -> Sequence[str]:
    """Rules of the table nat, as arguments of iptables; nothing where there is no iptables."""
    return node.anew("iptables", "-w", "10", "-t", "nat", "-S").out.splitlines()


def _clear_chains(node: core.Node, before: Sequence[str]) -> None:
    """Our container's rules and chains; then the chains of portmap that no other container has come to use."""
    base = ["iptables", "-w", "10", "-t", "nat"]
    ours = [rule for rule in _chains(node) if rule.startswith("-A ") and _ID in rule]
    for rule in ours:
        node.anew(*base, "-D", *shlex.split(rule)[1:])
    for chain in {shlex.split(rule)[-1] for rule in ours if re.search(r" -j CNI-\S+$", rule)}:
        node.anew(*base, "-F", chain)
        node.anew(*base, "-X", chain)
    now = _chains(node)
    if f"-N {_KEPT[0]}" in before or any(rule.startswith(f"-A {_KEPT[0]} ") for rule in now):
        return
    for rule in now:
        if rule.startswith("-A ") and shlex.split(rule)[-1] in _KEPT:
            node.anew(*base, "-D", *shlex.split(rule)[1:])
    for chain in _KEPT:
        if f"-N {chain}" in now:
            node.anew(*base, "-F", chain)
            node.anew(*base, "-X", chain)
