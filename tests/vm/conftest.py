"""One virtual machine for all tests of this folder, in the order of the file, and the table of what it went through."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cisdriver.sandbox import vm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.cisdriver.amazon_linux.plugins.lookup import rules as lookup
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

SELECTION = catalogue.Selection("al2023-1.0.0", level=2)
#: A port of the node range, mapped to a pod.
NODE_PORT = 30080
#: Where a virtual machine finds this machine's loopback (qemu's user network).
OUTSIDE = "10.0.2.2"
#: Step, its seconds, and what came of it: the closing table.
STEPS: list[tuple[str, float, str]] = []


class Story:
    """The machine, and what the tests do with it again and again. Each ``step`` is a line of the closing table."""

    def __init__(self, machine: vm.Machine, folder: Path) -> None:
        self.machine, self.folder = machine, folder
        #: What later tests compare with: name of a step to its result.
        self.kept: dict[str, Any] = {}
        (folder / "inventory.yml").write_text(machine.inventory())

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; the words appended to what it yields are its result."""
        words: list[str] = []
        begun, failed = time.monotonic(), "failed"
        try:
            yield words
            failed = ""
        finally:
            STEPS.append((name, time.monotonic() - begun, failed or "; ".join(words) or "done"))

    def play(self, playbook: str, *arguments: str) -> str:
        """What ansible-playbook said. Fails the test when the play does."""
        argv = [Path(sys.executable).parent / "ansible-playbook", "-i", self.folder / "inventory.yml", playbook]
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        env["ANSIBLE_CALLBACKS_ENABLED"] = "ansible.posix.profile_tasks"
        done = subprocess.run(
            [*argv, "-e", "cis_level=2", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500
        )
        with (self.folder / "plays.log").open("a") as log:
            log.write(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        return done.stdout

    def texts(self) -> dict[str, str]:
        """Path of each file in /etc to the digest of what it holds."""
        said = self.machine.exec("find /etc -xdev -type f -print0 | xargs -0 sha256sum", check=True).stdout
        return {path: digest for digest, _, path in (line.partition("  ") for line in said.splitlines())}

    def audit(self, *slugs: str) -> dict[str, Any]:
        """The finding per slug, of all rules that a program judges or of some, by one execution on the node."""
        if self.machine.exec(["test", "-d", "/run/rules"]).returncode:
            tree = "/run/rules/ansible_collections/cisdriver/amazon_linux"
            self.machine.exec(["mkdir", "-p", tree], check=True)
            self.machine.copy(ROOT / "plugins", tree)
            self.machine.copy(ROOT / "tests/rules/inside.py", "/run/rules")
        entries = [entry for entry in catalogue.load().select(SELECTION) if entry.rule and not entry.rule.manual]
        chosen = [entry for entry in entries if not slugs or entry.rule.slug in slugs]
        plan = json.dumps(lookup.audit_plan(SELECTION, chosen))
        done = self.machine.exec(["python3", "/run/rules/inside.py", "/run/rules"], check=True, text=plan)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def pods(self) -> dict[str, str]:
        """Two pods at work: who reaches whom, and what is heard there."""
        script = Path(__file__).with_name("pods_on_node.py").read_text()
        said = self.machine.exec(["python3", "-", "up", str(NODE_PORT)], check=True, text=script).stdout
        try:
            return self._calls(json.loads(said))
        finally:
            self.machine.exec(["python3", "-", "down", str(NODE_PORT)], check=True, text=script)

    def _calls(self, address: dict[str, str]) -> dict[str, str]:
        with outside() as port:
            return {
                "pod a calls pod b": self._from_pod("a", f"{address['b']}:8080"),
                "pod b calls pod a": self._from_pod("b", f"{address['a']}:8080"),
                "pod b calls pod a on the port of the node": self._from_pod("b", f"10.0.2.15:{NODE_PORT}"),
                "pod b calls the outside": self._from_pod("b", f"{OUTSIDE}:{port}"),
                "the node calls pod b": self.machine.exec(f"curl -sS -m 20 http://{address['b']}:8080/").stdout,
                "the outside calls pod a": self._from_outside(),
            }

    def _from_pod(self, pod: str, place: str) -> str:
        # wget's own time-out makes Debian's static busybox crash
        wget = ["/bin/busybox", "timeout", "60", "/bin/busybox", "wget", "-q", "-O", "-", f"http://{place}/"]
        done = self.machine.exec(["ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", "call", pod, *wget])
        return done.stdout or done.stderr

    def _from_outside(self) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.machine.forwards[NODE_PORT]}/", timeout=20) as answer:
                return str(answer.read().decode())
        except OSError as error:
            return str(error)


@contextlib.contextmanager
def outside() -> Iterator[int]:
    """A server on this machine's loopback that answers ``outside``; yields its port."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"outside\n")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def changed_tasks(said: str) -> set[str]:
    """The tasks that changed something, as ``role : task``, by what a play said."""
    tasks = re.split(r"^TASK \[(?:cisdriver\.amazon_linux\.)?(.*)\] \**$", said, flags=re.M)
    return {
        name for name, output in zip(tasks[1::2], tasks[2::2], strict=True) if re.search(r"^changed: ", output, re.M)
    }


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    name = f"cisdriver-vm-{os.getpid()}"
    machine = vm.start(name, "ami", volumes={"/dev/xvdb": 20}, ports=[NODE_PORT])
    try:
        yield Story(machine, tmp_path_factory.mktemp("vm"))
    finally:
        machine.remove()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The closing table."""
    if not STEPS:
        return
    terminalreporter.section("AL2023, on a kernel of its own")
    for name, seconds, result in STEPS:
        terminalreporter.write_line(f"{name:<28} {int(seconds) // 60:>3} min {int(seconds) % 60:02} s   {result}")
    total = int(sum(seconds for _, seconds, _ in STEPS))
    terminalreporter.write_line(f"{'all steps':<28} {total // 60:>3} min {total % 60:02} s")
