# Copyright the cisdriver authors. Apache-2.0.
"""Sockets of the machine's own network namespace that wait for others, and who holds them.

Read from ``/proc/1/net`` (``man 5 proc_net``), which is the host's namespace wherever the audit itself runs, and from
the descriptors of all processes. A pod with ``hostNetwork`` is in that namespace and shows; other pods are not.

A spec of kind ``listener`` holds ``loopback_only``, ports on which nothing but loopback may listen, and ``postfix``,
what its ``inet_interfaces`` must be where it is installed. One of kind ``listening_ports``, which no module sets, holds
``allow``, the listeners that are wanted. An entry of it is met when all that it names fits: ``protocol`` (tcp or udp),
``port`` (a number or ``first-last``), ``process``, ``address`` (an address or network).
"""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
import struct
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Tuple, Union

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

TABLES = ("tcp", "tcp6", "udp", "udp6")
#: States of include/net/tcp_states.h: TCP_LISTEN; and TCP_CLOSE, which is what an unconnected UDP socket has.
_WAITING = {"tcp": "0A", "udp": "07"}
MAIN_CF = "/etc/postfix/main.cf"
_KEYS = {"protocol", "port", "process", "address"}
#: The kernel cuts the name of a process to this length.
_COMM = 15

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class Listener(NamedTuple):
    """``process`` and ``unit`` are empty where none is found, as for a socket of the kernel itself."""

    protocol: str
    address: Address
    port: int
    process: str
    unit: str

    def __str__(self) -> str:
        place = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.protocol} {place}:{self.port}"

    @property
    def holder(self) -> str:
        return f"{self.process or 'no process'}, {self.unit or 'no unit'}"

    @property
    def loopback(self) -> bool:
        mapped = getattr(self.address, "ipv4_mapped", None)
        return (mapped or self.address).is_loopback


def check(node: core.Node, spec: Mapping[str, Any]) -> core.Finding:
    found = listeners(node)
    items: List[core.Evidence] = []
    if "loopback_only" in spec:
        items += _loopback_only(found, spec["loopback_only"])
    if "postfix" in spec and node.exists(MAIN_CF):
        value, source = postfix_interfaces(node)
        ok = core.holds(spec["postfix"], value)
        items.append(core.evidence("inet_interfaces", spec["postfix"], value, ok, source))
    if "allow" in spec:
        items += _allowed(found, spec["allow"])
    return core.verdict(items)


def _loopback_only(found: List[Listener], ports: List[int]) -> Iterator[core.Evidence]:
    expected = "loopback only"
    listed = ", ".join(map(str, ports))
    on_ports = [listener for listener in found if listener.port in ports]
    for listener in on_ports:
        yield core.evidence(str(listener), expected, f"listening ({listener.holder})", listener.loopback)
    if not on_ports:
        yield core.evidence(f"ports {listed}", expected, "nothing listens", True)


def _allowed(found: List[Listener], allow: List[Mapping[str, Any]]) -> Iterator[core.Evidence]:
    for entry in allow:
        if not isinstance(entry, Mapping) or not entry or not set(entry) <= _KEYS:
            raise core.ProbeError(
                f"an allowed listener: expected a mapping of {', '.join(sorted(_KEYS))}, found {entry!r}"
            )
    for listener in found:
        if listener.loopback:
            yield core.evidence(str(listener), "anything, it is loopback", f"listening ({listener.holder})", True)
            continue
        ok = any(fits(listener, entry) for entry in allow)
        expected = (
            "a service this machine is meant to offer"
            if ok
            else ("closed: remove or mask it, or name it in cis_values: {nonessential_listeners_removed: [...]}")
        )
        yield core.evidence(str(listener), expected, f"listening ({listener.holder})", ok)
    if not found:
        yield core.evidence("listening sockets", "wanted ones", "none", True)


def fits(listener: Listener, entry: Mapping[str, Any]) -> bool:
    """Whether a listener is what an entry of ``allow`` describes. Raises ProbeError for an entry that says nothing."""
    if entry.get("protocol", listener.protocol) != listener.protocol:
        return False
    if "process" in entry and not fnmatch.fnmatchcase(listener.process, str(entry["process"])[:_COMM]):
        return False
    try:
        if "port" in entry:
            first, _dash, last = str(entry["port"]).partition("-")
            if not int(first) <= listener.port <= int(last or first):
                return False
        return "address" not in entry or listener.address in ipaddress.ip_network(str(entry["address"]), strict=False)
    except ValueError as error:
        raise core.ProbeError(f"an allowed listener: {dict(entry)}: {error}") from error


def listeners(node: core.Node) -> List[Listener]:
    """Every TCP and UDP socket that waits, by protocol, port and address. Raises ProbeError."""
    if node.read("/proc/1/net/tcp") is None:
        raise core.ProbeError("/proc/1/net/tcp cannot be read; is /proc mounted, and is this root?")
    rows = sorted(
        {row for table in TABLES for row in _rows(node, table)}, key=lambda row: (row[0], row[2], str(row[1]))
    )
    holders = _holders(node, {inode for *_place, inode in rows})
    sockets = _socket_units(node) if any(holders.get(inode, 0) == 1 for *_place, inode in rows) else {}
    found = []
    for protocol, address, port, inode in rows:
        pid = holders.get(inode, 0)
        unit = sockets.get((str(address), port), "") if pid == 1 else _unit(node, pid)
        found.append(Listener(protocol, address, port, (node.read(f"/proc/{pid}/comm") or "").strip(), unit))
    return found


def _rows(node: core.Node, table: str) -> Iterator[Tuple[str, Address, int, str]]:
    """``(protocol, address, port, inode)`` of the waiting sockets of one table; IPv6 may be off and have none."""
    protocol = table[:3]
    for line in (node.read(f"/proc/1/net/{table}") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _WAITING[protocol] and fields[2].endswith(":0000"):
            address, _colon, port = fields[1].partition(":")
            yield protocol, _address(address), int(port, 16), fields[9]


def _address(text: str) -> Address:
    """The kernel prints words of four bytes as numbers of the machine's byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words))


def _holders(node: core.Node, inodes: "set[str]") -> Dict[str, int]:
    """The first process that holds each socket. Processes come and go while this looks."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: Dict[str, int] = {}
    try:
        pids = sorted(int(name) for name in os.listdir(node.real("/proc")) if name.isdigit())
    except OSError as error:
        raise core.ProbeError(f"cannot list /proc: {error.strerror}") from error
    # init last: of a socket it passed on, the service that serves it is the one to name
    for pid in sorted(pids, key=lambda each: (each == 1, each)):
        directory = node.real(f"/proc/{pid}/fd")
        try:
            links = [os.readlink(os.path.join(directory, name)) for name in os.listdir(directory)]
        except OSError:
            continue
        for link in links:
            if link in wanted:
                found.setdefault(wanted[link], pid)
    return found


def _unit(node: core.Node, pid: int) -> str:
    for line in (node.read(f"/proc/{pid}/cgroup") or "").splitlines() if pid else ():
        _number, controllers, path = line.split(":", 2)
        names = re.findall(r"([^/]+\.(?:service|scope|socket))(?=/|$)", path)
        if controllers in ("", "name=systemd") and names:
            return str(names[-1])
    return ""


def _socket_units(node: core.Node) -> Dict[Tuple[str, int], str]:
    """Units for whose sake systemd itself listens."""
    done = node.run("systemctl", "list-sockets", "--no-legend", "--full")
    units = {}
    for line in done.out.splitlines():
        found = re.match(r"\[?([0-9a-fA-F.:]+?)\]?:(\d+)\s+(\S+)", line)
        if found:
            units[(found.group(1), int(found.group(2)))] = found.group(3)
    return units


def postfix_interfaces(node: core.Node) -> Tuple[str, str]:
    """``inet_interfaces`` as postfix reads it, and its line: the last wins, and a leading blank carries on."""
    value, source, inside = "all", MAIN_CF, False
    for number, line in enumerate((node.read(MAIN_CF) or "").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace():
            value = f"{value} {line.strip()}" if inside else value
            continue
        key, _equals, text = line.partition("=")
        inside = key.strip() == "inet_interfaces"
        if inside:
            value, source = text.strip(), f"{MAIN_CF}:{number}"
    return value, source
