# Copyright the cisdriver authors. Apache-2.0.
"""Network namespaces that stand for pods, wired to the node the way the VPC CNI plugin wires pods.

A pod has an address of its own and one end of a veth pair. Its only way out is GATEWAY, the other end, whose hardware
address it is told; the node has a route to the address (amazon-vpc-cni-k8s, cmd/routed-eni-cni-plugin/driver). Nothing
but FORWARD and the routes of the node stands between two of them.

All of it lies below PLACE and is gone with it, so that what a killed run left behind can be taken away by the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
import time
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple, TypeVar

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core

PLACE = "/run/cisdriver-verify"
GATEWAY = "169.254.1.1"
#: Seconds for one connection, on a machine that emulates its processor.
PATIENCE = 10
_CLONE_NEWNET = 0x40000000

Made = TypeVar("Made")


class Pod(NamedTuple):
    name: str
    address: str

    @property
    def namespace(self) -> str:
        return f"{PLACE}/{self.name}"

    @property
    def link(self) -> str:
        """The node's end of the pair: a name of at most 15 letters."""
        return f"cis-{self.name}"


@contextlib.contextmanager
def pod(node: core.Node, name: str, address: str) -> Iterator[Pod]:
    """A wired namespace for as long as the block runs. Raises ProbeError when the node cannot make one."""
    made = Pod(name, address)
    with namespace(node, made):
        # an address that somebody set is left alone by udev
        host, inside = f"02:c1:5d:00:00:{len(name):02x}", _inside(made)
        pair = ["address", host, "type", "veth", "peer", "name", "eth0", "netns", made.namespace]
        try:
            act(node, "ip", "link", "add", made.link, *pair)
            act(node, *inside, "address", "add", f"{address}/32", "dev", "eth0")
            act(node, *inside, "link", "set", "eth0", "up")
            act(node, "ip", "link", "set", made.link, "up")
            act(node, *inside, "route", "add", GATEWAY, "dev", "eth0", "scope", "link")
            act(node, *inside, "route", "add", "default", "via", GATEWAY, "dev", "eth0")
            act(node, *inside, "neighbour", "add", GATEWAY, "lladdr", host, "dev", "eth0", "nud", "permanent")
            act(node, "ip", "route", "add", f"{address}/32", "dev", made.link, "scope", "link")
            yield made
        finally:
            node.anew("ip", "link", "delete", made.link)


@contextlib.contextmanager
def namespace(node: core.Node, of: Pod) -> Iterator[Pod]:
    """A network namespace with nothing but ``lo``, for as long as the block runs."""
    clear(node, of)
    os.makedirs(node.real(PLACE), mode=0o700, exist_ok=True)
    with open(node.real(of.namespace), "w", encoding="utf-8"):
        pass
    try:
        act(node, "unshare", f"--net={of.namespace}", "true")
        act(node, *_inside(of), "link", "set", "lo", "up")
        yield of
    finally:
        clear(node, of)


def clear(node: core.Node, of: Pod) -> None:
    """Take a namespace away, whatever is there of it."""
    if node.lstat(of.namespace):
        node.anew("ip", "link", "delete", of.link)
        node.anew("umount", of.namespace)
        os.remove(node.real(of.namespace))
    with contextlib.suppress(OSError):  # others may be in it
        os.rmdir(node.real(PLACE))


def _inside(of: Pod) -> List[str]:
    return ["nsenter", f"--net={of.namespace}", "ip"]


def act(node: core.Node, *argv: str) -> str:
    """Standard output of a program that has to succeed, called anew. Raises ProbeError."""
    done = node.anew(*argv)
    if done.rc != 0:
        raise core.ProbeError(f"{' '.join(argv)}: exit {done.rc}: {done.err.strip() or done.out.strip()}")
    return done.out


def within(path: Optional[str], make: Callable[[], Made]) -> Made:
    """What a function makes inside a namespace, where a socket then stays; in the node's own without one.

    The thread that enters it ends there, so the rest of this process stays where it is. Raises what ``make`` raises.
    """
    if path is None:
        return make()
    made: List[Made] = []
    raised: List[BaseException] = []

    def enter() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(path, encoding="utf-8") as file:
                if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), path)
            made.append(make())
        except BaseException as error:  # raised again where it was asked for
            raised.append(error)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return made[0]


class Listener:
    """Says a word to whoever connects, for as long as the ``with`` block runs. Port 0 is any that is free."""

    def __init__(self, word: str, port: int = 0, namespace: Optional[str] = None) -> None:
        self.word = word
        self._socket = within(namespace, lambda: _listening(port))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_error: Any) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _peer = self._socket.accept()
                with contextlib.suppress(OSError), connection:  # one that went away takes no others with it
                    connection.sendall(self.word.encode())


def _listening(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("", port))
    made.listen(8)
    return made


def hear(address: str, port: int, namespace: Optional[str] = None) -> Tuple[str, str]:
    """``(word, "")`` of what listens there, or ``("", why)``. What refuses may be starting, and is asked again."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return within(namespace, lambda: _word(address, port)), ""
        except ConnectionRefusedError as error:
            if time.monotonic() > until:
                return "", str(error)
            time.sleep(0.2)
        except OSError as error:  # socket.timeout is one
            return "", str(error)


def answers(address: str, port: int) -> bool:
    """Whether somebody lets us connect there already."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def _word(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=PATIENCE) as connection:
        return connection.makefile(encoding="utf-8", errors="replace").read()
