"""Start, reach and remove stand-in nodes: podman containers that boot systemd and answer by ssh like an EC2 instance.

`python -m cisdriver.sandbox.node build|start|stop|remove|list|ssh` for developers.
"""

from __future__ import annotations

import argparse
import base64
import json
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from cisdriver.sandbox import standin
from cisdriver.sandbox import volumes as disks
from cisdriver.sandbox.standin import StandinError, podman

LABEL = "io.cisdriver.standin"
RUN_LABEL = "io.cisdriver.run"
USER = "ec2-user"


@dataclass
class Node:
    """A stand-in node. ssh_key is the private key's path, empty where the public half was given to start()."""

    name: str
    image: str
    ssh_port: int
    ssh_key: str
    ssh_host: str = "127.0.0.1"
    ssh_user: str = USER
    #: The files behind its disks, beside the root volume; they go with the node.
    volumes: list[Path] = field(default_factory=list)

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def exec(self, command: str | Iterable[str], *, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a shell line, or a program with its arguments, as root inside the node, past ssh.

        Raises StandinError, with what the command said, when check holds and it fails.
        """
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        done = podman("exec", "-i", self.name, *argv, check=False)
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise StandinError(
                f"node {self.name}: {shlex.join(argv)}: expected exit code 0, found {done.returncode}: {said}"
            )
        return done

    def ssh_command(self, *command: str) -> list[str]:
        """The ssh command line that runs a command on the node as its user."""
        options = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=5",
            "BatchMode=yes",
        )
        identity = ["-i", self.ssh_key] if self.ssh_key else []
        flags = [part for option in options for part in ("-o", option)]
        return ["ssh", *flags, *identity, "-p", str(self.ssh_port), f"{self.ssh_user}@{self.ssh_host}", *command]

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file as root; its directory must exist."""
        script = f"umask 077 && cat > {shlex.quote(path)} && chmod {mode:o} {shlex.quote(path)}"
        command = ["podman", "--runtime", "runc", "exec", "-i", self.name, "bash", "-c", script]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StandinError(f"node {self.name}: cannot write {path}: {done.stderr.strip()}")

    def read(self, path: str) -> str:
        """Return a file's text. Raises StandinError when it cannot be read."""
        return self.exec(["cat", path], check=True).stdout

    def running(self) -> bool:
        """Whether the container runs now; false for the second or so that a reboot takes."""
        return podman("inspect", "-f", "{{.State.Running}}", self.name, check=False).stdout.strip() == "true"

    def boot_id(self) -> str:
        """The id of this boot, empty while the node is down."""
        return self.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()

    def wait_ssh(self, timeout: float = 60) -> None:
        """Wait until sshd speaks, and where there is a key until the user may log in.

        Raises StandinError after timeout seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(0.2)
        said = self.exec("systemctl --failed --no-legend; journalctl -n 5 --no-pager -u sshd").stdout.strip()
        place = f"{self.ssh_host}:{self.ssh_port}"
        found = said or "the node is down"
        raise StandinError(f"node {self.name}: expected ssh on {place} within {timeout:.0f} s, found none: {found}")

    def wait_running(self, timeout: float = 60) -> str:
        """Wait until systemd has finished starting; returns its word: running, or degraded."""
        deadline = time.monotonic() + timeout
        state = ""
        while time.monotonic() < deadline:
            state = self.exec(["systemctl", "is-system-running"]).stdout.strip()
            if state in ("running", "degraded"):
                return state
            time.sleep(0.3)
        raise StandinError(f"node {self.name}: expected running within {timeout:.0f} s, found {state or 'no answer'}")

    def reboot(self, timeout: float = 60) -> None:
        """Reboot the way an administrator would and wait for ssh.

        Raises StandinError when the node does not come back within timeout seconds.
        """
        before = self.boot_id()
        self.exec(["systemctl", "reboot"])
        deadline = time.monotonic() + timeout
        while self.boot_id() in ("", before):
            if time.monotonic() > deadline:
                raise StandinError(f"node {self.name}: expected another boot within {timeout:.0f} s, found none")
            time.sleep(0.3)
        self.wait_ssh(max(1.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """Stop the instance; its disk and its port stay."""
        podman("stop", "-t", "10", self.name)

    def start_again(self) -> None:
        """Start a stopped or powered-off instance and wait for ssh."""
        podman("start", self.name)
        self.wait_ssh()

    def remove(self) -> None:
        """Terminate the instance: container, volumes and key are gone. Removing twice is no error."""
        podman("rm", "-f", "-t", "0", self.name, check=False)
        disks.remove(self.volumes)
        if self.ssh_key and (own := Path(self.ssh_key).parent).name.startswith("cisdriver-node-"):
            shutil.rmtree(own, ignore_errors=True)

    def commit(self, tag: str) -> str:
        """Keep the disk as an image, as EC2 CreateImage does with a running instance, and return its reference.

        What belongs to this instance alone (host keys, machine id) is kept as the node left it.
        """
        reference = tag if "/" in tag else f"localhost/cisdriver/{tag}"
        podman("commit", "-q", self.name, reference)
        return reference

    def inventory(self, host: str | None = None) -> str:
        """An Ansible inventory (YAML) with this node as its only host, named host or the node's name."""
        variables = {
            "ansible_host": self.ssh_host,
            "ansible_port": self.ssh_port,
            "ansible_user": self.ssh_user,
            "ansible_ssh_private_key_file": self.ssh_key,
            "ansible_become": True,
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_pipelining": True,
            "ansible_ssh_common_args": (
                "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "
                "-o ControlMaster=auto -o ControlPersist=60s"
            ),
        }
        return json.dumps({"all": {"hosts": {host or self.name: variables}}}, indent=2) + "\n"

    def _answers(self) -> bool:
        if self.ssh_key:
            done = subprocess.run(self.ssh_command("true"), capture_output=True, stdin=subprocess.DEVNULL, check=False)
            return done.returncode == 0
        try:
            with socket.create_connection((self.ssh_host, self.ssh_port), timeout=2) as connection:
                connection.settimeout(2)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def start(
    name: str,
    image: str | None = None,
    *,
    restart: bool = True,
    ssh_port: int | None = None,
    labels: dict[str, str] | None = None,
    authorized_key: str = "",
    user_data: str = "",
    volumes: disks.Wanted | None = None,
) -> Node:
    """Start a node and return it while it boots; Node.wait_ssh() waits for the rest.

    image: a reference, or "ami" or "node" (the default) for the stock image of that state, built when missing. restart:
    whether it comes back from a reboot. authorized_key: a public key to let in; without it the node gets a key pair of
    its own. user_data: as for an EC2 instance; a NodeConfig in it makes the node join at boot. volumes: further disks,
    {"/dev/xvdb": 50} in GiB, or the file to copy. Raises StandinError.
    """
    reference = standin.build(state=image or "node") if image in (None, *standin.STATES) else str(image)
    key = "" if authorized_key else _make_key(name)
    public = authorized_key or Path(key + ".pub").read_text()
    port = ssh_port or _free_port()
    environment = {
        "STANDIN_INSTANCE": uuid.uuid4().hex,
        "STANDIN_AUTHORIZED_KEY": public.strip(),
        "STANDIN_USER_DATA": base64.b64encode(user_data.encode()).decode(),
    }
    command = ["run", "-d", "--name", name, "--hostname", "ip-10-0-1-23.us-west-2.compute.internal", "--systemd=always"]
    command += [*standin.PODMAN_RUN, "--dns=none", f"--publish=127.0.0.1:{port}:22"]
    command += [f"--restart={'on-failure' if restart else 'no'}"]
    command += [f"--env={key}={value}" for key, value in environment.items()]
    files = disks.create(volumes or {})
    command += disks.mounts(files)
    facts = {"port": port, "key": key, "volumes": [str(file) for file in files]}
    all_labels = {LABEL: json.dumps(facts), **(labels or {})}
    command += [f"--label={key}={value}" for key, value in all_labels.items()]
    node = Node(name=name, image=reference, ssh_port=port, ssh_key=key, volumes=files)
    try:
        podman(*command, reference)
        _wait_for_walls(node)
    except StandinError:
        node.remove()
        raise
    return node


def _wait_for_walls(node: Node) -> None:
    """Wait until the node has its own /proc/sys: a command run earlier could write the machine's."""
    deadline = time.monotonic() + 20
    while node.exec(["test", "-e", "/run/standin/ready"]).returncode:
        if time.monotonic() > deadline:
            said = podman("logs", "--tail", "5", node.name, check=False)
            reason = (said.stdout + said.stderr).strip()
            raise StandinError(f"node {node.name}: expected it to begin its boot within 20 s, found: {reason}")
        time.sleep(0.1)


def find(name: str) -> Node:
    """Return a node that another process started. Raises StandinError when there is none of that name."""
    form = f'{{{{index .Config.Labels "{LABEL}"}}}}|{{{{.ImageName}}}}'
    done = podman("inspect", "--type", "container", "-f", form, name, check=False)
    if done.returncode or not done.stdout.startswith("{"):
        raise StandinError(f"node {name}: not found; `python -m cisdriver.sandbox.node list` names those there are")
    label, _, image = done.stdout.strip().rpartition("|")
    facts = json.loads(label)
    files = [Path(file) for file in facts.get("volumes", [])]
    return Node(name=name, image=image, ssh_port=facts["port"], ssh_key=facts["key"], volumes=files)


def names(run_id: str = "") -> list[str]:
    """Names of all nodes on this machine, running or not; of one run where run_id is given (label io.cisdriver.run)."""
    chosen = f"label={RUN_LABEL}={run_id}" if run_id else f"label={LABEL}"
    return podman("ps", "-a", "--filter", chosen, "--format", "{{.Names}}").stdout.split()


def prune(run_id: str) -> list[str]:
    """Remove the nodes that were started with labels={RUN_LABEL: run_id}; returns their names."""
    found = names(run_id)
    for name in found:
        find(name).remove()
    return found


def _make_key(name: str) -> str:
    folder = tempfile.mkdtemp(prefix="cisdriver-node-")
    path = str(Path(folder) / "key")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StandinError(f"ssh-keygen: cannot make a key in {folder}: {done.stderr.strip()}")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: list[str] | None = None) -> int:
    """The developers' command line."""
    parser = argparse.ArgumentParser(prog="python -m cisdriver.sandbox.node", description="Handle stand-in nodes.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build", help="build the image").add_argument("--state", choices=standin.STATES, default="node")
    starting = verbs.add_parser("start", help="start a node, wait for ssh and print its inventory")
    starting.add_argument("--image", help="ami, node (the default) or an image reference")
    starting.add_argument("--volume", action="append", default=[], metavar="DEVICE=GIB", help="a further disk")
    starting.add_argument("--no-restart", action="store_true", help="let a reboot never come back")
    starting.add_argument("name")
    for verb, text in (("stop", "stop a node"), ("remove", "remove a node"), ("inventory", "print its inventory")):
        verbs.add_parser(verb, help=text).add_argument("name")
    verbs.add_parser("list", help="list the nodes")
    verbs.add_parser("clean", help="remove the images of earlier states of this code")
    shell = verbs.add_parser("ssh", help="log in, or run a command")
    shell.add_argument("name")
    shell.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    try:
        return _run_verb(options)
    except StandinError as error:
        print(error, file=sys.stderr)
        return 1


def _run_verb(options: argparse.Namespace) -> int:
    if options.verb == "build":
        print(standin.build(state=options.state))
    elif options.verb == "start":
        volumes = {device: int(size) for device, _, size in (one.partition("=") for one in options.volume)}
        node = start(options.name, options.image, restart=not options.no_restart, volumes=volumes)
        node.wait_ssh()
        print(node.inventory(), end="")
    elif options.verb == "list":
        for name in names():
            node = find(name)
            print(f"{name}\t{'running' if node.running() else 'stopped'}\t127.0.0.1:{node.ssh_port}\t{node.image}")
    elif options.verb == "clean":
        print("\n".join(standin.prune_images()))
    elif options.verb == "ssh":
        return subprocess.run(find(options.name).ssh_command(*options.command), check=False).returncode
    elif options.verb == "inventory":
        print(find(options.name).inventory(), end="")
    else:
        node = find(options.name)
        node.stop() if options.verb == "stop" else node.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
