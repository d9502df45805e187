"""Build the stand-in of a stock EKS Amazon Linux 2023 node: a podman image made from Debian packages.

Three images, each from the one before and each named by the hash of all that went into it: `base` (debootstrap, needs
the network and a minute), `ami` (shaped into the image of a stock node before its first boot) and `node` (joined to a
cluster). An edit of a configuration file rebuilds the last two alone. docs/stand-in.md says what is real in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = "localhost/cisdriver/standin"
STATES = ("ami", "node")
# What each image is made from, beside the image before it. A path names a file or a tree of this folder.
INPUTS = {
    "base": ("base.sh",),
    "ami": ("shape.sh", "packages.py", "packages.yml", "rootfs", "content"),
    "node": ("node.sh",),
}
SCRIPTS = {"ami": "shape.sh", "node": "node.sh"}
# What systemd, mounts and a firewall need, but not --privileged, which lets no capability be taken away: a node
# could set the machine's clock then, or reach its hardware, also through `podman exec`.
CAPABILITIES = (
    "--cap-add=ALL",
    *(f"--cap-drop={name}" for name in ("SYS_TIME", "SYS_MODULE", "SYS_RAWIO", "WAKE_ALARM")),
    *(f"--security-opt={option}" for option in ("seccomp=unconfined", "unmask=ALL", "label=disable")),
    *("--device=/dev/loop-control", "--device-cgroup-rule=b 7:* rwm"),
)
# podman's own defaults do not fit a machine in hybrid cgroup mode: crun fails, and so does a start without limits.
PODMAN_RUN = (
    *CAPABILITIES,
    *("--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw", "--no-hosts"),
    *("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"),
)


class StandinError(Exception):
    """A stand-in node cannot be made or reached: what was wrong with which object, and the way out."""


def podman(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman with the runc runtime; raises StandinError with podman's last line when check holds and it fails."""
    command = ["podman", "--runtime", "runc", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise StandinError(
            "podman: not found on this machine; install it (Debian: apt-get install podman runc)"
        ) from None
    if check and done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StandinError(f"podman {arguments[0]}: expected success, exit code {done.returncode}: {reason}")
    return done


def cache_directory() -> Path:
    """Where locks, logs and work trees lie: $CISDRIVER_CACHE, else ~/.cache/cisdriver."""
    return Path(os.environ.get("CISDRIVER_CACHE") or Path.home() / ".cache" / "cisdriver") / "standin"


def image(state: str = "node") -> str:
    """Return the reference of the image of a state, from the content of its inputs; it need not exist yet."""
    if state not in INPUTS:
        raise StandinError(f"stand-in state {state!r}: expected one of {', '.join(INPUTS)}")
    digest = hashlib.sha256()
    for stage, inputs in INPUTS.items():
        for path in _files(inputs):
            digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes() + b"\0")
        if stage == state:
            break
    return f"{REPOSITORY}-{state}:{digest.hexdigest()[:16]}"


def build(name: str = "al2023", state: str = "node") -> str:
    """Make the image of a stand-in node unless it is there already, and return its reference.

    name: the operating system; only al2023. state: "ami" (before the first boot) or "node" (joined). Says on stderr
    what it does. Raises StandinError when a program or a right is missing, or a step fails.
    """
    if name != "al2023":
        raise StandinError(f"stand-in {name!r}: expected al2023, the only one there is")
    if state not in STATES:
        raise StandinError(f"stand-in state {state!r}: expected one of {', '.join(STATES)}")
    reference = image(state)
    _check_machine()
    if _exists(reference):
        return reference
    with _lock():
        for stage in INPUTS:
            if not _exists(image(stage)):
                _build_stage(stage)
            if stage == state:
                break
    return reference


def prune_images() -> list[str]:
    """Remove the stand-in images that the present inputs no longer ask for; returns their names."""
    wanted = {image(stage) for stage in INPUTS}
    listed = podman("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    old = [name for name in listed if name.startswith(REPOSITORY) and name not in wanted]
    return [name for name in old if podman("rmi", name, check=False).returncode == 0]


def _files(inputs: tuple[str, ...]) -> Iterator[Path]:
    for name in inputs:
        path = HERE / name
        if path.is_file():
            yield path
        else:
            yield from sorted(
                entry for entry in path.rglob("*") if entry.is_file() and "__pycache__" not in entry.parts
            )


def _exists(reference: str) -> bool:
    return podman("image", "exists", reference, check=False).returncode == 0


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise StandinError("stand-in node: expected root, because its container runs systemd; use sudo")
    for program, package in (("podman", "podman"), ("runc", "runc"), ("ssh-keygen", "openssh-client")):
        if not shutil.which(program):
            raise StandinError(f"{program}: not found on this machine; install it (Debian: apt-get install {package})")


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """Let one process build at a time; the others wait and then find the image."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with (cache_directory() / "build.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process builds the stand-in; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _build_stage(stage: str) -> None:
    started = time.monotonic()
    _say(f"building {image(stage)}" + (" (debootstrap: a minute or two)" if stage == "base" else ""))
    if stage == "base":
        _build_base()
    else:
        _derive(stage, image("base" if stage == "ami" else "ami"))
    _say(f"built {image(stage)} in {time.monotonic() - started:.0f} s")


def _build_base() -> None:
    if not shutil.which("debootstrap"):
        raise StandinError("debootstrap: not found on this machine; install it (Debian: apt-get install debootstrap)")
    work = Path(tempfile.mkdtemp(prefix="base-", dir=cache_directory()))
    try:
        _logged("base", ["bash", str(HERE / "base.sh"), str(work / "root")])
        archive = work / "root.tar"
        subprocess.run(["tar", "-C", str(work / "root"), "-cf", str(archive), "."], check=True)
        podman("import", str(archive), image("base"))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _derive(stage: str, parent: str) -> None:
    """Run a stage's script in a container of the image before it and keep the result as an image."""
    container = f"cisdriver-build-{stage}-{os.getpid()}"
    command = ["podman", "--runtime", "runc", "run", "--name", container, "--network=none", *PODMAN_RUN]
    command += [f"--volume={HERE}:/run/source:ro", parent, "bash", f"/run/source/{SCRIPTS[stage]}", "/run/source"]
    try:
        _logged(stage, command)
        changes = ('CMD ["/usr/libexec/standin/init"]', "STOPSIGNAL SIGRTMIN+3")
        podman("commit", "-q", *(f"--change={change}" for change in changes), container, image(stage))
    finally:
        podman("rm", "-f", container, check=False)


def _logged(stage: str, command: list[str]) -> None:
    log = cache_directory() / f"{stage}.log"
    with log.open("w") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        found = f"expected exit code 0, found {done.returncode}"
        raise StandinError(f"stand-in image {stage}: {found}; the last lines of {log} are:\n{tail}")


def _say(message: str) -> None:
    print(f"stand-in: {message}", file=sys.stderr, flush=True)
