# Copyright the cisdriver authors. Apache-2.0.
"""Values of packets and how rules of a packet filter write them: addresses, ports, protocols, interfaces."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Optional

_PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp"}


def same(value: Any, written: Any) -> bool:
    """Whether a packet's value is the one a rule writes. An interface's name may end in ``*`` or ``+``."""
    if isinstance(value, bool) or isinstance(written, bool):
        return value is written
    if isinstance(value, int):
        return value == port(written)
    text = _PROTOCOLS.get(str(written), str(written))
    if text[-1:] in ("*", "+"):
        return str(value).startswith(text[:-1])
    return str(value) == text or in_network(value, text) is True


def port(written: Any) -> Optional[int]:
    """A number, or the service whose name it is."""
    if isinstance(written, int):
        return written
    try:
        return int(str(written), 0)
    except ValueError:
        pass
    try:
        return socket.getservbyname(str(written))
    except OSError:
        return None


def in_network(value: Any, written: str) -> Optional[bool]:
    """Whether an address is in a network; None where one of them is none."""
    try:
        return ipaddress.ip_address(str(value)) in ipaddress.ip_network(written, strict=False)
    except ValueError:
        return None


def within(value: Any, first: Any, last: Any) -> Optional[bool]:
    """Whether a port or an address lies in a range; None where it cannot be compared."""
    if isinstance(value, int):
        low, high = port(first), port(last)
        return None if low is None or high is None else low <= value <= high
    try:
        address = ipaddress.ip_address(str(value))
        low_address, high_address = ipaddress.ip_address(str(first)), ipaddress.ip_address(str(last))
    except ValueError:
        return None
    if {low_address.version, high_address.version} != {address.version}:
        return False
    return int(low_address) <= int(address) <= int(high_address)
