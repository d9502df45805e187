"""Start, reach and remove stand-in nodes with a kernel of their own: virtual machines, emulated by qemu.

The same tree as a container's, on a disk; Debian's kernel; the real programs where a container has shims. A virtual
machine is reached as a container is (cisdriver.sandbox.node): ssh on a port of 127.0.0.1, and root commands past it.
`python -m cisdriver.sandbox.vm build|start|stop|cut|again|remove|list|ssh|exec|inventory` for developers.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cisdriver.sandbox import node as nodes
from cisdriver.sandbox import standin
from cisdriver.sandbox.standin import StandinError

#: What the disk is made from, beside the image of the state; vm/ goes into the initial RAM disk at each start.
SCRIPT = "vm.sh"
#: Where the root file system starts on the disk, in bytes (vm.sh).
ROOT_OFFSET = 24576 * 512
ENTRIES = "/boot/loader/entries"
#: A guest's clock runs slower than ours: what takes a container a second takes half a minute.
PATIENCE = 300.0


@dataclass
class Machine(nodes.Node):
    """A stand-in node with a kernel of its own. ``forwards`` gives the port of 127.0.0.1 for a port of the node."""

    folder: Path = Path()
    forwards: dict[int, int] = field(default_factory=dict)
    keeper: subprocess.Popen[bytes] | None = None

    def exec(
        self, command: str | Iterable[str], *, check: bool = False, text: str = "", timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell line, or a program with its arguments, as root, past network and sshd; text is its input.

        The code is 125 where no kernel runs, or it went down meanwhile. Raises StandinError, with what the command
        said, when check holds and it fails, or when it takes longer than timeout seconds.
        """
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        request = {"id": uuid.uuid4().hex, "argv": argv, "input": base64.b64encode(text.encode()).decode()}
        try:
            reply = self._ask(request, timeout)
        except TimeoutError:
            raise StandinError(f"node {self.name}: {shlex.join(argv)}: no answer within {timeout:.0f} s") from None
        except OSError as error:
            reply = {"code": 125, "out": "", "err": base64.b64encode(str(error).encode()).decode()}
        out, err = (base64.b64decode(reply[stream]).decode(errors="replace") for stream in ("out", "err"))
        done = subprocess.CompletedProcess(argv, reply["code"], out, err)
        if check and done.returncode:
            said = (err or out).strip()
            raise StandinError(
                f"node {self.name}: {shlex.join(argv)}: expected exit code 0, found {done.returncode}: {said}"
            )
        return done

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file as root; its directory must exist."""
        self.exec(
            f"umask 077 && cat > {shlex.quote(path)} && chmod {mode:o} {shlex.quote(path)}", check=True, text=text
        )

    def copy(self, source: Path, folder: str) -> None:
        """Copy a file or a tree into a folder of the node."""
        command = ["tar", "-C", str(source.parent), "--exclude=__pycache__", "-czf", "-", source.name]
        packed = subprocess.run(command, capture_output=True, check=True).stdout
        self.exec(f"base64 -d | tar -C {shlex.quote(folder)} -xz", check=True, text=base64.b64encode(packed).decode())

    def running(self) -> bool:
        """Whether a kernel runs now; false for the second or so that a reboot takes."""
        return _alive(_pid(self.folder / "qemu.pid"))

    def wait_ssh(self, timeout: float = PATIENCE) -> None:
        """As Node.wait_ssh(); stops waiting when the machine is off."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not _alive(_pid(self.folder / "keeper.pid")):
                raise StandinError(f"node {self.name}: expected a boot, found it off: {self.console(5)}")
            # a login takes the guest seconds: it is tried when there is something to be tried
            ready = self.exec(["systemctl", "is-active", "sshd", "systemd-user-sessions"])
            if ready.stdout.split() == ["active", "active"] and self._answers():
                return
            time.sleep(1)
        raise StandinError(f"node {self.name}: expected ssh within {timeout:.0f} s, found none: {self.console(5)}")

    def wait_running(self, timeout: float = PATIENCE) -> str:
        """Wait until systemd has finished starting; returns its word: running, or degraded."""
        return super().wait_running(timeout)

    def reboot(self, timeout: float = PATIENCE) -> None:
        """Reboot the way an administrator would, with the command line of the boot entry, and wait for ssh."""
        super().reboot(timeout)

    def power_cut(self) -> None:
        """Take the power away: what the kernel had not written to the disk is lost. start_again() brings it back."""
        pid = _pid(self.folder / "qemu.pid")
        if _alive(pid):
            os.kill(pid, signal.SIGKILL)
        self._wait_for_keeper()

    def stop(self) -> None:
        """Stop the instance; its disk and its port stay."""
        self.exec(["systemctl", "poweroff"])
        deadline = time.monotonic() + 120
        while _alive(_pid(self.folder / "keeper.pid")) and time.monotonic() < deadline:
            time.sleep(0.3)
        self.power_cut()

    def start_again(self) -> None:
        """Start a stopped or powered-off instance and wait for ssh."""
        self._wait_for_keeper()
        self.keeper = _keep(self.folder, detached=False)
        self.wait_ssh()

    def remove(self) -> None:
        """Terminate the instance: process, disk and key are gone. Removing twice is no error."""
        keeper = _pid(self.folder / "keeper.pid")
        if _alive(keeper):
            os.kill(keeper, signal.SIGTERM)
        self._wait_for_keeper()
        shutil.rmtree(self.folder, ignore_errors=True)

    def commit(self, tag: str) -> str:
        """Not for virtual machines."""
        raise StandinError(f"node {self.name}: cannot keep {tag}: images are made of containers")

    def inventory(self, host: str | None = None) -> str:
        """As Node.inventory(), with more patience: sudo's prompt may take longer than Ansible's ten seconds."""
        hosts = json.loads(super().inventory(host))
        hosts["all"]["hosts"][host or self.name]["ansible_ssh_timeout"] = 120
        return json.dumps(hosts, indent=2) + "\n"

    def console(self, lines: int = 20) -> str:
        """The last lines of the serial console."""
        with contextlib.suppress(OSError):
            return "\n".join((self.folder / "console.log").read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _ask(self, request: Mapping[str, object], timeout: float) -> dict[str, Any]:
        """The agent's reply. Raises OSError where none comes, TimeoutError where it takes too long."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(self.folder / "agent.sock"))
            connection.sendall(json.dumps(request).encode() + b"\n")
            for line in connection.makefile("rb"):
                with contextlib.suppress(ValueError):  # the rest of a reply whose caller had left
                    reply = json.loads(line)
                    if reply.get("id") == request["id"]:
                        return dict(reply)
        raise ConnectionError("the machine went down")

    def _wait_for_keeper(self) -> None:
        """Wait until the process that keeps qemu running is gone."""
        if self.keeper:
            self.keeper.wait(timeout=30)
            self.keeper = None
        deadline = time.monotonic() + 30
        while _alive(_pid(self.folder / "keeper.pid")) and time.monotonic() < deadline:
            time.sleep(0.1)


def start(
    name: str,
    state: str = "node",
    *,
    authorized_key: str = "",
    user_data: str = "",
    volumes: Mapping[str, int] | None = None,
    ports: Iterable[int] = (),
    detached: bool = False,
) -> Machine:
    """Start a virtual machine and return it while it boots; Machine.wait_ssh() waits for the rest.

    state: "ami" or "node", whose disk is built when missing. authorized_key: a public key to let in; without it the
    machine gets a key pair of its own. user_data: as for an EC2 instance. volumes: further disks and their size in GiB,
    by the device name a mapping would give them; they are /dev/nvme1n1 and so on. ports: ports of the node to be
    reached through ports of 127.0.0.1. detached: let it live on after this process. Raises StandinError.
    """
    image = build(state)
    folder = _machines() / name
    if folder.exists():
        raise StandinError(f"node {name}: is there already; `python -m cisdriver.sandbox.vm remove {name}` removes it")
    folder.mkdir(parents=True)
    try:
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", image / "disk.img", folder / "disk.img"], check=True)
        shutil.copyfile(image / "vmlinuz", folder / "vmlinuz")
        disks = [str(folder / "disk.img")]
        for number, gib in enumerate((volumes or {}).values(), 1):
            disks.append(str(folder / f"volume{number}.img"))
            with open(disks[-1], "wb") as stream:  # noqa: PTH123 - truncate() makes a sparse file
                stream.truncate(gib << 30)
        key = "" if authorized_key else str(folder / "key")
        if key:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True)
        public = authorized_key or Path(key + ".pub").read_text()
        instance = {
            "STANDIN_INSTANCE": uuid.uuid4().hex,
            "STANDIN_AUTHORIZED_KEY": public.strip(),
            "STANDIN_USER_DATA": base64.b64encode(user_data.encode()).decode(),
        }
        (folder / "initrd").write_bytes(_initrd(image, instance, list(volumes or {})))
        forwards = {port: nodes._free_port() for port in (22, *ports)}
        facts = {"image": str(image), "key": key, "disks": disks, "forwards": forwards}
        (folder / "facts.json").write_text(json.dumps(facts))
        machine = find(name)
        machine.keeper = _keep(folder, detached=detached)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return machine


def find(name: str) -> Machine:
    """Return a machine that another process started. Raises StandinError when there is none of that name."""
    folder = _machines() / name
    try:
        facts = json.loads((folder / "facts.json").read_text())
    except OSError:
        raise StandinError(
            f"node {name}: not found; `python -m cisdriver.sandbox.vm list` names those there are"
        ) from None
    forwards = {int(port): host for port, host in facts["forwards"].items()}
    return Machine(
        name=name, image=facts["image"], ssh_port=forwards[22], ssh_key=facts["key"], folder=folder, forwards=forwards
    )


def names() -> list[str]:
    """Names of all machines, running or not."""
    return sorted(path.parent.name for path in _machines().glob("*/facts.json"))


def build(state: str = "node") -> Path:
    """Make the disk of a state unless it is there already; returns the folder with disk and kernel."""
    for program, package in (("qemu-system-x86_64", "qemu-system-x86"), ("debugfs", "e2fsprogs")):
        if not shutil.which(program):
            raise StandinError(f"{program}: not found on this machine; install it (Debian: apt-get install {package})")
    reference = standin.build(state=state)
    digest = hashlib.sha256(reference.encode() + (standin.HERE / SCRIPT).read_bytes()).hexdigest()[:16]
    folder = standin.cache_directory() / "disks" / f"{state}-{digest}"
    if folder.exists():
        return folder
    with standin._lock():
        if not folder.exists():
            _build_disk(state, reference, folder)
    return folder


def _build_disk(state: str, reference: str, folder: Path) -> None:
    """Run vm.sh in a container of the base image, with the tree of the node at hand."""
    started = time.monotonic()
    standin._say(f"building the disk of a virtual machine ({state})")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.parent.glob(f"{state}-*"):
        shutil.rmtree(old)
    work = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    try:
        command = ["podman", "--runtime", "runc", "run", "--rm", "--network=none", *standin.PODMAN_RUN]
        command += [f"--volume={standin.HERE}:/run/source:ro", f"--volume={work}:/run/out"]
        command += [f"--mount=type=image,source={reference},target=/run/node"]
        command += [standin.image("base"), "bash", f"/run/source/{SCRIPT}", "/run/node", "/run/out"]
        standin._logged("disk", command)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    standin._say(f"built it in {time.monotonic() - started:.0f} s")


def _machines() -> Path:
    return standin.cache_directory() / "machines"


def _pid(file: Path) -> int:
    """The process id in a file, 0 without one."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _alive(pid: int) -> bool:
    if not pid:
        return False
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _initrd(image: Path, instance: Mapping[str, str], volumes: list[str]) -> bytes:
    """The initial RAM disk: busybox, the modules for what qemu attaches, standin/vm, and links for volumes."""
    tree: dict[str, tuple[int, bytes]] = {"bin": (0o40755, b""), "modules": (0o40755, b"")}
    tree["bin/busybox"] = (0o100755, (image / "busybox").read_bytes())
    for module in sorted((image / "initrd-modules").iterdir()):
        tree[f"modules/{module.name}"] = (0o100644, module.read_bytes())
    for path in sorted((standin.HERE / "vm").rglob("*")):
        name = str(path.relative_to(standin.HERE / "vm"))
        tree[name] = (0o40755, b"") if path.is_dir() else (0o100755 if name == "init" else 0o100644, path.read_bytes())
    links = [
        f'SUBSYSTEM=="block", KERNEL=="nvme{number}n1", SYMLINK+="{device.removeprefix("/dev/")}"\n'
        for number, device in enumerate(volumes, 1)
    ]
    tree["run/udev"] = tree["run/udev/rules.d"] = (0o40755, b"")
    tree["run/udev/rules.d/70-ec2-nvme-devices.rules"] = (0o100644, "".join(links).encode())
    settings = "".join(f"{key}={shlex.quote(value)}\n" for key, value in instance.items())
    tree["instance"] = (0o100600, settings.encode())
    return _cpio(tree)


def _cpio(tree: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An archive as the kernel reads it ("newc"): a header of 13 numbers, the name, the content, each padded to 4."""
    archive = bytearray()
    for inode, (name, (mode, content)) in enumerate([*tree.items(), ("TRAILER!!!", (0, b""))], 1):
        numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08x" % number for number in numbers) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def _keep(folder: Path, *, detached: bool) -> subprocess.Popen[bytes]:
    """Start the process that keeps qemu running; it ends with this one unless detached."""
    (folder / "keeper.pid").unlink(missing_ok=True)
    command = [sys.executable, "-m", "cisdriver.sandbox.vm", "keep", *(["--detached"] if detached else []), str(folder)]
    with (folder / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    (folder / "keeper.pid").write_text(str(keeper.pid))
    return keeper


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, however it does (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _run_keeper(folder: Path, *, detached: bool) -> int:
    """Boot the machine, and boot it again whenever it asks to; end when it is powered off or cut off."""
    if not detached:
        _die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while _boot(folder):
        pass
    return 0


def _boot(folder: Path) -> bool:
    """Run qemu until it ends; whether the guest wants another boot."""
    facts = json.loads((folder / "facts.json").read_text())
    command = _qemu(folder, facts)
    # qemu's control channel is on its standard streams, and tells why it ends
    qemu = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=_die_with_parent, bufsize=1
    )
    assert qemu.stdin
    assert qemu.stdout
    (folder / "qemu.pid").write_text(str(qemu.pid))
    reason = ""
    try:
        qemu.stdin.write('{"execute": "qmp_capabilities"}\n')
        for event in _events(qemu.stdout):
            if event.get("event") == "SHUTDOWN":
                reason = event["data"]["reason"]
    finally:
        qemu.kill()
        qemu.wait()
        (folder / "qemu.pid").unlink(missing_ok=True)
    print(f"keeper: qemu ended: {reason or 'killed'}", flush=True)
    return reason == "guest-reset"


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _qemu(folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """The command line of a boot; the kernel's is that of the boot entry on the disk."""
    network = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{port}" for port, host in facts["forwards"].items())
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]
    command += ["-display", "none", "-nodefaults", "-no-user-config", "-qmp", "stdio", "-action", "reboot=shutdown"]
    command += ["-chardev", f"file,id=console,path={folder}/console.log,append=on", "-serial", "chardev:console"]
    command += ["-kernel", f"{folder}/vmlinuz", "-initrd", f"{folder}/initrd", "-append", _kernel_arguments(folder)]
    for number, disk in enumerate(facts["disks"]):
        command += ["-drive", f"if=none,id=disk{number},file={disk},format=raw,cache=unsafe,discard=unmap"]
        command += ["-device", f"nvme,drive=disk{number},serial=vol{number:017x}"]
    command += ["-netdev", f"user,id=net{network}"]
    command += ["-device", "virtio-net-pci,netdev=net,addr=5,romfile=", "-device", "virtio-rng-pci"]
    command += [
        "-device",
        "virtio-serial-pci",
        "-chardev",
        f"socket,id=agent,path={folder}/agent.sock,server=on,wait=off",
    ]
    command += ["-device", "virtserialport,chardev=agent,name=standin"]
    return command


def _kernel_arguments(folder: Path) -> str:
    """What GRUB would make of the newest boot entry on the disk. Raises StandinError where there is none."""
    disk = f"{folder}/disk.img?offset={ROOT_OFFSET}"
    listed = _debugfs(disk, f"ls -p {ENTRIES}").splitlines()
    entries = sorted(
        line.split("/")[5] for line in listed if line.count("/") > 5 and line.split("/")[5].endswith(".conf")
    )
    text = _debugfs(disk, f"cat {ENTRIES}/{entries[-1]}") if entries else ""
    entry = dict(line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2)
    if "options" not in entry or "linux" not in entry:
        raise StandinError(f"{folder}: no boot entry in {ENTRIES} to boot with")
    return f"BOOT_IMAGE=(hd0,gpt1){entry['linux']} {entry['options']}"


def _debugfs(disk: str, request: str) -> str:
    return subprocess.run(["debugfs", "-R", request, disk], capture_output=True, text=True, check=False).stdout


def main(arguments: list[str] | None = None) -> int:
    """The developers' command line."""
    parser = argparse.ArgumentParser(prog="python -m cisdriver.sandbox.vm", description="Handle virtual machines.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build", help="build the disk").add_argument("--state", choices=standin.STATES, default="node")
    starting = verbs.add_parser("start", help="start a machine, wait for ssh and print its inventory")
    starting.add_argument("--state", choices=standin.STATES, default="node")
    starting.add_argument("--volume", action="append", default=[], metavar="DEVICE=GIB", help="a further disk")
    starting.add_argument("--port", action="append", default=[], type=int, help="a port of the node to be reached")
    starting.add_argument("name")
    for verb, text in (
        ("stop", "shut a machine down"),
        ("cut", "take its power away"),
        ("again", "start a stopped machine"),
        ("remove", "remove a machine"),
        ("inventory", "print its inventory"),
    ):
        verbs.add_parser(verb, help=text).add_argument("name")
    verbs.add_parser("list", help="list the machines")
    for verb, text in (("ssh", "log in, or run a command"), ("exec", "run a command as root, past ssh")):
        shell = verbs.add_parser(verb, help=text)
        shell.add_argument("name")
        shell.add_argument("command", nargs=argparse.REMAINDER)
    keeping = verbs.add_parser("keep", help="(used by start) run qemu for a machine")
    keeping.add_argument("--detached", action="store_true")
    keeping.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        return _run_verb(options)
    except StandinError as error:
        print(error, file=sys.stderr)
        return 1


def _run_verb(options: argparse.Namespace) -> int:
    if options.verb == "keep":
        return _run_keeper(options.folder, detached=options.detached)
    if options.verb == "build":
        print(build(options.state))
    elif options.verb == "start":
        volumes = {device: int(size) for device, _, size in (one.partition("=") for one in options.volume)}
        machine = start(options.name, options.state, volumes=volumes, ports=options.port, detached=True)
        machine.wait_ssh()
        print(machine.inventory(), end="")
    elif options.verb == "list":
        for name in names():
            machine = find(name)
            print(f"{name}\t{'running' if machine.running() else 'stopped'}\t127.0.0.1:{machine.ssh_port}")
    else:
        return _run_on(find(options.name), options)
    return 0


def _run_on(machine: Machine, options: argparse.Namespace) -> int:
    if options.verb == "ssh":
        return subprocess.run(machine.ssh_command(*options.command), check=False).returncode
    if options.verb == "exec":
        done = machine.exec(shlex.join(options.command) if len(options.command) > 1 else options.command[0])
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode
    if options.verb == "inventory":
        print(machine.inventory(), end="")
    elif options.verb == "cut":
        machine.power_cut()
    elif options.verb == "again":
        _keep(machine.folder, detached=True)
        machine.wait_ssh()
    else:
        getattr(machine, options.verb)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
