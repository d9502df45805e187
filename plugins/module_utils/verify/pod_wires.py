# Copyright the cisdriver authors. Apache-2.0.
"""A program of its own: wires two network namespaces as the VPC CNI wires pods, and tells whether they are reached.

The module verify_node runs its text by ``python3 -c``, with the families 4 and 6 as arguments; the answer is JSON on
standard output: ``{"ways": [{"way", "found", "ok"}]}``, or ``{"forbidden": "why"}`` where no namespace may be made.

As in amazon-vpc-cni-k8s, cmd/routed-eni-cni-plugin/driver: a veth pair, in the pod an address with the whole prefix, a
way to the gateway 169.254.1.1 (fe80::1), whose neighbour entry is static, and on the host a route to the one address.
The namespaces have no name and are held by this process alone, so that however it ends they go, and with them their
devices and routes. No setting of the host is touched. 198.18.0.0/15 is for such trials (RFC 2544): no VPC can have
addresses of 198.18.0.0/16, which is not so for most that is private; where a route knows it all the same another part
of it is taken. For IPv6 it is 2001:2::/48 (RFC 5180).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

LINKS = ("cisdriver-a", "cisdriver-b")
_CLONE_NEWNET = 0x40000000
_SECONDS = 2.0  # per connection; with all that is tried it stays below ten
_PORT, _KUBELET_PORT, _NODE_PORTS = 8080, 10250, range(30000, 32768)
_LIBC = ctypes.CDLL(None, use_errno=True)


class Family(NamedTuple):
    """``network`` is what precedes an address's last part, once a free one has been put in place of ``{}``."""

    number: str
    network: str
    bits: int
    gateway: str
    outside: str


FAMILIES = {
    "4": Family("4", "198.18.{}.", 32, "169.254.1.1", "169.254.169.254"),
    "6": Family("6", "2001:2:0:{}::", 128, "fe80::1", "fd00:ec2::254"),
}


class Failed(Exception):  # noqa: N818 - the field's word for it
    """What ``ip`` said."""


def _call(name: str, *arguments: int) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


@contextlib.contextmanager
def _inside(namespace: Optional[int], home: int) -> Iterator[None]:
    """What is opened or run within belongs to a namespace; None is the host's."""
    if namespace is None:
        yield
        return
    _call("setns", namespace, _CLONE_NEWNET)
    try:
        yield
    finally:
        _call("setns", home, _CLONE_NEWNET)


def _namespace(home: int) -> int:
    """A new one, which lives as long as the file that is given back."""
    _call("unshare", _CLONE_NEWNET)
    try:
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    finally:
        _call("setns", home, _CLONE_NEWNET)


def _ip(*commands: str, options: Tuple[str, ...] = ()) -> str:
    """What ``ip`` prints; one process for all commands, as it takes long to start on a small machine."""
    env = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    text = "".join(f"{command}\n" for command in commands)
    try:
        done = subprocess.run(
            ["ip", *options, "-batch", "-"],
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=10,
            env=env,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"ip: no end within {error.timeout:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace")
        failed = re.search(r"Command failed -:(\d+)", said)
        command = commands[int(failed.group(1)) - 1] if failed else "; ".join(commands)
        raise Failed(f"ip {command}: {said.partition('Command failed')[0].strip()}")
    return done.stdout.decode("utf-8", "replace")


def _free(family: Family) -> str:
    """The first of some networks that no route and no address of the host knows."""
    known = _ip("route show table all", "addr show", options=(f"-{family.number}",))
    for number in range(254, 200, -1):
        network = family.network.format(number)
        if network not in known:
            return network
    raise Failed(f"{family.network.format('200-254')}: all are in use")


def _wire(pods: List[int], families: List[Family], networks: Dict[str, str], home: int) -> None:
    outside: List[str] = []
    routes: List[str] = []
    for number, (pod, link) in enumerate(zip(pods, LINKS), 1):  # noqa: B905 - Python 3.8 has no strict
        mac = f"02:c1:5d:00:00:0{number}"  # given, not made: udev changes one that was made
        target = f"/proc/{os.getpid()}/fd/{pod}"
        outside.append(f"link add {link} address {mac} type veth peer name eth0 netns {target}")
        outside.append(f"link set {link} up")
        routes += [f"route add {networks[each.number]}{number}/{each.bits} dev {link} scope link" for each in families]
    _ip(*outside)
    for number, pod in enumerate(pods, 1):
        inside = ["link set lo up", "link set eth0 up"]
        for family in families:
            address = f"{networks[family.number]}{number}/{family.bits}"
            inside.append(f"addr add {address} dev eth0{' nodad' if family.number == '6' else ''}")
            inside.append(f"route add {family.gateway} dev eth0 scope link")
            inside.append(f"route add default via {family.gateway} dev eth0")
            inside.append(f"neigh add {family.gateway} lladdr 02:c1:5d:00:00:0{number} nud permanent dev eth0")
        with _inside(pod, home):
            _ip(*inside)
    _ip(*routes)


def _settle(families: List[Family]) -> None:
    """IPv6 asks for no neighbour before the address of its device is known to be no other's, about a second."""
    until = time.monotonic() + _SECONDS
    while any(family.number == "6" for family in families) and time.monotonic() < until:
        if not _ip(*(f"addr show dev {link} tentative" for link in LINKS), options=("-6",)).strip():
            return
        time.sleep(0.1)


def _own_address(family: Family) -> str:
    """The address by which the host reaches others; empty where it has none. Nothing is sent."""
    kind = socket.AF_INET if family.number == "4" else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((family.outside, 80))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _answers(listener: socket.socket) -> None:
    """Answers every caller until the listener is closed."""
    while True:
        try:
            connection, _address = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_SECONDS)
            connection.sendall(connection.recv(64))


def _listen(address: str, ports: Any, namespace: Optional[int], home: int) -> Tuple[socket.socket, int]:
    """A server on the first port that is free."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with _inside(namespace, home):
        listener = socket.socket(kind, socket.SOCK_STREAM)
        for port in ports:
            try:
                listener.bind((address, port))
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        listener.listen(4)
    threading.Thread(target=_answers, args=(listener,), daemon=True).start()
    return listener, int(listener.getsockname()[1])


def _ask(address: str, port: int, namespace: Optional[int], home: int, speaks: bool = True) -> str:
    """What a caller hears: ``answered``, or why not."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with _inside(namespace, home):
        caller = socket.socket(kind, socket.SOCK_STREAM)
    with caller:
        caller.settimeout(_SECONDS)
        try:
            caller.connect((address, port))
            if speaks:
                caller.sendall(b"cisdriver")
                if caller.recv(64) != b"cisdriver":
                    return "another answer than its own"
        except socket.timeout:
            return f"no answer within {_SECONDS:.0f} s"
        except OSError as error:
            return str(error.strerror or error)
    return "answered"


def _kubelet_listens(address: str, home: int) -> bool:
    return _ask(address, _KUBELET_PORT, None, home, speaks=False) == "answered"


def _talk(family: Family, network: str, pods: List[int], home: int) -> Iterator[Dict[str, Any]]:
    first, second = f"{network}1", f"{network}2"
    listener, _port = _listen(second, [_PORT], pods[1], home)
    with listener:
        ways = [(f"from pod {first} to pod {second}, tcp {_PORT}", second, _PORT, pods[0], True)]
        ways.append((f"from the node to pod {second}, tcp {_PORT}", second, _PORT, None, True))
        own = _own_address(family)
        served: Optional[socket.socket] = None
        if own and _kubelet_listens(own, home):
            ways.append((f"from pod {first} to kubelet, {own} tcp {_KUBELET_PORT}", own, _KUBELET_PORT, pods[0], False))
        elif own:
            served, port = _listen(own, _NODE_PORTS, None, home)
            ways.append((f"from pod {first} to the node, {own} tcp {port}", own, port, pods[0], True))
        for way, address, port, namespace, speaks in ways:
            found = _ask(address, port, namespace, home, speaks)
            yield {"way": way, "found": found, "ok": found == "answered"}
        if served:
            served.close()


def _remove() -> None:
    """The devices of this trial; they would go by themselves, but not before this returns."""
    with contextlib.suppress(Failed):
        _ip(*(f"link del {link}" for link in LINKS), options=("-force",))


def _try(families: List[Family]) -> Dict[str, Any]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        pods = [_namespace(home) for _link in LINKS]
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EINVAL):
            return {"forbidden": str(error.strerror)}
        return {"ways": [{"way": "a network namespace", "found": str(error.strerror), "ok": False}]}
    _remove()
    try:
        networks = {family.number: _free(family) for family in families}
        _wire(pods, families, networks, home)
        _settle(families)
        return {"ways": [way for each in families for way in _talk(each, networks[each.number], pods, home)]}
    except Failed as error:
        return {"ways": [{"way": "wiring of a pod", "found": str(error), "ok": False}]}
    finally:
        _remove()


def _stop(_number: int, _frame: Any) -> None:
    raise SystemExit("stopped before it had an answer")


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, _stop)
    signal.alarm(30)
    print(json.dumps(_try([FAMILIES[number] for number in sys.argv[1:]])))


if __name__ == "__main__":
    main()
