# Copyright the cisdriver authors. Apache-2.0.
"""A containerd of our own beside the node's, which starts one container of the node's own programs.

It has its own socket, state and store and none of the plugins that reach outside of them, so the node's containers and
images are not touched. The container needs no image: it sees the node's /usr, read-only, in an otherwise empty root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Iterator, List, Optional

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import pods

#: On the volume that holds the node's images and containers, where there is one.
STORE = "/var/lib/containerd/cisdriver-verify"
SOCKET = f"{pods.PLACE}/containerd.sock"
NAME = "cisdriver-verify"
_CONFIG = f"{pods.PLACE}/containerd.toml"
_LOG = f"{pods.PLACE}/containerd.log"
#: Where containerd's shim keeps what runc knows of a namespace's containers, whatever the state directory.
_RUNC = f"/run/containerd/runc/{NAME}"
_PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")
#: Plugins of 1.x and 2.x that serve a socket or a directory of the node, or look for devices.
_WITHOUT = (
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)
#: Seconds, on a machine that emulates its processor; elsewhere it takes less than one.
_START = 90


class Broken(core.ProbeError):
    """containerd or a container did not start; says what it said."""


class Runtime:
    """The containerd that serves SOCKET."""

    def __init__(self, node: core.Node) -> None:
        self._node = node
        self._root = f"{_store(node)}/rootfs"

    def _ctr(self, *words: str) -> core.Output:
        return self._node.anew("ctr", "--address", SOCKET, "--namespace", NAME, *words)

    def start(self, network: str, *python: str) -> None:
        """A container in a network namespace that runs Python with these arguments. Raises Broken."""
        mounts = ["--mount", "type=bind,src=/usr,dst=/usr,options=rbind:ro"]
        words = ["run", "--detach", "--null-io", "--rootfs", "--with-ns", f"network:{network}"]
        done = self._ctr(*words, "--cgroup", f"/{NAME}", *mounts, self._root, NAME, *_python(), *python)
        if done.rc != 0:
            raise Broken(_last_line(done.err or done.out))

    def execute(self, *python: str) -> core.Output:
        """What Python with these arguments says when it is started inside the container."""
        words = ["task", "exec", "--exec-id", f"at-{time.monotonic_ns()}", "--fifo-dir", f"{pods.PLACE}/fifo"]
        return self._ctr(*words, NAME, *_python(), *python)

    def stop(self) -> None:
        """Also where there is no container."""
        self._ctr("task", "delete", "--force", NAME)
        self._ctr("container", "delete", NAME)


@contextlib.contextmanager
def containerd(node: core.Node) -> Iterator[Runtime]:
    """A containerd for as long as the block runs. Raises Broken when it does not serve."""
    clear(node)
    _lay(node)
    daemon: Optional[subprocess.Popen[bytes]] = None
    try:
        with open(node.real(_LOG), "wb") as log:
            argv = [node.real(program(node, "containerd") or "containerd"), "--config", _CONFIG]
            argv += ["--root", _store(node), "--state", f"{pods.PLACE}/state", "--address", SOCKET]
            daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _wait(node, daemon)
        runtime = Runtime(node)
        try:
            yield runtime
        finally:
            runtime.stop()
    finally:
        if daemon:
            _end(daemon)
        clear(node)


def program(node: core.Node, name: str) -> Optional[str]:
    """Where a program is."""
    return next((f"{place}/{name}" for place in _PLACES if node.exists(f"{place}/{name}")), None)


def _store(node: core.Node) -> str:
    return STORE if node.exists(os.path.dirname(STORE)) else f"{pods.PLACE}/store"


def clear(node: core.Node) -> None:
    """Take away what is there of an earlier run."""
    for number in _left(node):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    if node.exists(_RUNC):
        node.anew("runc", "--root", _RUNC, "delete", "--force", NAME)
        with contextlib.suppress(OSError):
            os.rmdir(node.real(_RUNC))
    for path in node.glob(f"{pods.PLACE}/state/**/rootfs"):
        node.anew("umount", path)
    for path in (_store(node), f"{pods.PLACE}/state", f"{pods.PLACE}/fifo"):
        shutil.rmtree(node.real(path), ignore_errors=True)
    for path in (_CONFIG, _LOG, SOCKET, f"{SOCKET}.ttrpc"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(node.real(path))
    for directory in (f"/sys/fs/cgroup/{NAME}", *node.glob(f"/sys/fs/cgroup/*/{NAME}")):
        with contextlib.suppress(OSError):
            os.rmdir(node.real(directory))
    with contextlib.suppress(OSError):  # a namespace may still be in it
        os.rmdir(node.real(pods.PLACE))


def _left(node: core.Node) -> List[int]:
    """Processes of an earlier run: containerd and its shim name the socket, the container's process our name."""
    found = []
    for path in node.glob("/proc/[0-9]*/cmdline"):
        number = int(path.split("/")[2])
        with contextlib.suppress(OSError), open(node.real(path), "rb") as file:
            words = file.read().decode("utf-8", "replace").split("\0")
            if number != os.getpid() and (SOCKET in words or NAME in words):
                found.append(number)
    return found


def _lay(node: core.Node) -> None:
    root = f"{_store(node)}/rootfs"
    disabled = ", ".join(f'"{name}"' for name in _WITHOUT)
    os.makedirs(node.real(pods.PLACE), mode=0o700, exist_ok=True)
    with open(node.real(_CONFIG), "w", encoding="utf-8") as file:
        file.write(f"version = 2\ndisabled_plugins = [{disabled}]\n")
    for directory in ("usr", "etc", "proc", "sys", "dev", "run", "tmp"):
        os.makedirs(node.real(f"{root}/{directory}"), exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(node.real(f"/{name}")):
            os.symlink(os.readlink(node.real(f"/{name}")), node.real(f"{root}/{name}"))
    if node.exists("/etc/ld.so.cache"):
        shutil.copy(node.real("/etc/ld.so.cache"), node.real(f"{root}/etc/ld.so.cache"))


def _python() -> List[str]:
    """This interpreter, without what only slows its start. Raises ProbeError where the container cannot see it."""
    path = os.path.realpath(sys.executable)
    if not path.startswith("/usr/"):
        raise core.ProbeError(f"a container that sees /usr alone cannot run {path}")
    return [path, "-I", "-S"]


def _wait(node: core.Node, daemon: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START
    while True:
        asked = node.anew("ctr", "--address", SOCKET, "version")
        if asked.rc == 0:
            return
        if asked.rc == 127:
            raise core.ProbeError(f"containerd is asked by ctr: {asked.err}")
        if daemon.poll() is not None:
            raise Broken(f"exit {daemon.returncode}: {_last_line(_log(node))}")
        if time.monotonic() > until:
            raise Broken(f"no answer within {_START} s: {_last_line(_log(node))}")
        time.sleep(0.1)


def _log(node: core.Node) -> str:
    with open(node.real(_LOG), encoding="utf-8", errors="replace") as file:
        return file.read()


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it says nothing"


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(timeout=20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


@contextlib.contextmanager
def orderly() -> Iterator[Callable[[], None]]:
    """A closed session or a time limit, which would end this process at once, lets it take away what it made.

    A signal raises SystemExit; after the function that is given was called, when the block ends.
    """
    holding: List[bool] = []
    came: List[int] = []

    def leave(number: int, _frame: Any) -> None:
        came.append(number)
        if not holding:
            raise SystemExit(128 + number)

    held = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield lambda: holding.append(True)
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    if came:
        raise SystemExit(128 + came[0])
