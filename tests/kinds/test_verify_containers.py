"""The checks of containers: trees with programs that answer, a containerd that is a script, and real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core as probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import selinux
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import (
    cni,
    containers,
    own_containerd,
    pods,
)
from machines import Output, machine

DAEMON = "/usr/bin/containerd"
SERVES = "#!/bin/sh\nexec sleep 60\n"
FORWARDS: dict[str, str | None] = {containers.FORWARD: "1\n"}
PLUGINS = tuple(f"/opt/cni/bin/{name}" for name in ("bridge", "host-local", "portmap"))
SUPPORTED = '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'
RESULT = json.dumps({"cniVersion": "0.4.0", "ips": [{"address": "198.51.100.66/28"}]})


class Programs:
    """Programs of a node that has containers; ``refuse`` maps words of a command to what it then says."""

    def __init__(self, root: Path, refuse: dict[str, Output] | None = None) -> None:
        self.root, self.refuse = root, refuse or {}
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str]) -> Output:
        line = " ".join(argv)
        self.asked.append(line)
        for words, answer in self.refuse.items():
            if words in line:
                return answer
        if "CNI_COMMAND=VERSION" in line:
            return Output(0, SUPPORTED, "")
        if "CNI_COMMAND=ADD" in line:
            return Output(0, RESULT, "")
        if "task exec" in line:
            word = "outside" if containers._OUTSIDE.address in argv else "the node"
            return Output(0, word + "\n\n", "")
        if "address show" in line or "addr show" in line:
            return Output(0, "2: eth0    inet 10.0.0.5/16 scope global eth0\n", "")
        return Output(0, "", "")


def node(root: Path, files: dict[str, str | None], programs: Programs, daemon: str | None = SERVES) -> probe.Node:
    made = machine(root, {**FORWARDS, "/run": None, **files, **({DAEMON: daemon} if daemon else {})})
    if daemon:
        Path(made.real(DAEMON)).chmod(0o755)
    made._run = programs
    return made


@pytest.fixture(autouse=True)
def hears(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str | None], tuple[str, str]]:
    """What is heard at an address from a namespace; everything answers but what a test puts here. No namespaces."""
    other: dict[tuple[str, str | None], tuple[str, str]] = {}
    monkeypatch.setattr(
        pods, "hear", lambda address, _port, namespace=None: other.get((address, namespace), ("inside", ""))
    )
    monkeypatch.setattr(pods, "within", lambda _path, make: make())
    monkeypatch.setattr(pods, "answers", lambda _address, _port: False)
    monkeypatch.setattr(sys, "executable", "/usr/bin/env")  # wherever this Python lies, a container could see it
    return other


def left(root: Path) -> list[str]:
    """What there is below /run and containerd's store."""
    return sorted(str(path.relative_to(root)) for place in ("run", "var") for path in (root / place).rglob("*"))


def failing(finding: probe.Finding) -> list[str]:
    return [item["object"].split(",")[0] for item in finding["evidence"] if not item["ok"]]


def test_a_container_is_reached_and_reaches_out(tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    finding = containers.container_runs(node(tmp_path, {}, programs))
    assert finding["status"] == "pass", finding["reason"]
    wired = finding["evidence"][1]["found"]
    assert wired.startswith("198.51.100.1, wired as the VPC CNI does: no plugin bridge in /opt/cni/bin")
    assert left(tmp_path) == []
    assert [line for line in programs.asked if " task delete --force" in line]


def test_the_plugins_that_are_there_wire_it(tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    finding = containers.container_runs(
        node(tmp_path, {**dict.fromkeys(PLUGINS, ""), "/var/lib/containerd": None}, programs)
    )
    assert finding["status"] == "pass", finding["reason"]
    assert finding["evidence"][1]["found"] == "198.51.100.66, by /opt/cni/bin/bridge and portmap"
    calls = re.findall(r"CNI_COMMAND=(ADD|DEL).*/opt/cni/bin/(\w+) ", "\n".join(programs.asked))
    assert calls == [("ADD", "bridge"), ("ADD", "portmap"), ("DEL", "portmap"), ("DEL", "bridge")]
    assert left(tmp_path) == ["var/lib", "var/lib/containerd"]


@pytest.mark.parametrize(
    ("files", "refuse", "daemon", "words"),
    [
        ({containers.FORWARD: "0\n"}, {}, SERVES, "net.ipv4.ip_forward: expected 1, found 0"),
        ({}, {"version": Output(1, "", "")}, "#!/bin/sh\necho cannot open the store >&2; exit 7\n",
         "containerd: expected starts, found exit 7: cannot open the store"),
        ({}, {" run ": Output(1, "", "ctr: runc: permission denied\n")}, SERVES,
         "a container: expected starts, found ctr: runc: permission denied"),
        ({}, {"task exec": Output(1, "", "Traceback\nTimeoutError: timed out\n")}, SERVES,
         "reached from the container: expected answers, found TimeoutError: timed out"),
        (dict.fromkeys(PLUGINS, ""), {"CNI_COMMAND=ADD": Output(1, '{"code": 11, "msg": "no nat"}', "")}, SERVES,
         "network of a container: expected is made, found /opt/cni/bin/bridge ADD: exit 1: no nat"),
        (dict.fromkeys(PLUGINS, ""), {"CNI_COMMAND=ADD": Output(0, "", "")}, SERVES, "exit 0: no address"),
    ],
)  # fmt: skip
def test_a_node_that_runs_no_container_fails(
    tmp_path: Path, files: dict[str, str | None], refuse: dict[str, Output], daemon: str, words: str
) -> None:
    finding = containers.container_runs(node(tmp_path, files, Programs(tmp_path, refuse), daemon))
    assert finding["status"] == "fail"
    assert words in finding["reason"]
    assert [path for path in left(tmp_path) if "cisdriver" in path] == []


@pytest.mark.parametrize(
    ("whence", "plugins", "object_"),
    [
        (("198.51.100.1", None), (), "the container reached from the node"),
        (("198.51.100.1", f"{pods.PLACE}/outside"), (), "the container reached from outside"),
        (("10.0.0.5", f"{pods.PLACE}/outside"), PLUGINS, "the container reached from outside"),
    ],
)
def test_a_container_that_is_not_reached_fails(
    tmp_path: Path, hears: dict[Any, Any], whence: Any, plugins: tuple[str, ...], object_: str
) -> None:
    hears[whence] = ("", "timed out")
    files: dict[str, str | None] = dict.fromkeys(plugins, "")
    files["/proc/net/route"] = (
        "Iface Destination Gateway Flags RefCnt Use Metric Mask\neth0 00000000 0100000A 3 0 0 0 0\n"
    )
    finding = containers.container_runs(node(tmp_path, files, Programs(tmp_path)))
    assert failing(finding) == [object_]
    assert finding["reason"].endswith("expected answers, found timed out")


def test_another_who_answers_is_not_the_container(tmp_path: Path, hears: dict[Any, Any]) -> None:
    hears[("198.51.100.1", None)] = ("HTTP/1.1 400", "")
    finding = containers.container_runs(node(tmp_path, {}, Programs(tmp_path)))
    assert failing(finding) == ["the container reached from the node"]


def test_a_port_of_a_service_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program holds such a port: rules name it, or it answers."""
    ports = iter([30001, 30002, 30003, 30004])
    monkeypatch.setattr(containers.random, "randint", lambda *_range: next(ports))
    monkeypatch.setattr(pods, "answers", lambda _address, port: port == 30003)
    rule = "-A KUBE-NODEPORTS -p tcp -m comment --comment shop -m tcp --dport 30001 -j KUBE-EXT-X\n"
    said = {"iptables-save": Output(0, rule, ""), "nft -j": Output(0, '{"concat": ["tcp", 30002]}', "")}
    assert containers._free_port(node(tmp_path, {}, Programs(tmp_path, said))) == 30004


def test_no_containerd_and_a_kernel_that_is_not_ours(tmp_path: Path) -> None:
    finding = containers.container_runs(node(tmp_path / "none", {}, Programs(tmp_path), daemon=None))
    assert finding == probe.not_applicable("there is no containerd on this machine")
    denied = {"unshare": Output(1, "", "unshare: unshare failed: Operation not permitted")}
    inside: dict[str, str | None] = {"/run/systemd/container": "podman"}
    finding = containers.container_runs(node(tmp_path / "in", inside, Programs(tmp_path, denied)))
    assert finding["status"] == "not_applicable"
    assert "Operation not permitted" in finding["reason"]
    broken = {" run ": Output(1, "", "ctr: runc is not there")}
    finding = containers.container_runs(node(tmp_path / "broken", inside, Programs(tmp_path, broken)))
    assert finding["status"] == "fail"  # a container's kernel is not to blame for that


@pytest.mark.parametrize(
    ("refuse", "words"),
    [
        ({"unshare": Output(1, "", "No space left on device")}, "No space left on device"),
        ({"ctr ": Output(127, "", "ctr: not found")}, "containerd is asked by ctr: ctr: not found"),
    ],
)
def test_what_keeps_us_from_looking_is_an_error(tmp_path: Path, refuse: dict[str, Output], words: str) -> None:
    with pytest.raises(probe.ProbeError, match=words):
        containers.container_runs(node(tmp_path, {}, Programs(tmp_path, refuse)))
    assert [path for path in left(tmp_path) if "cisdriver" in path] == []


def test_a_python_outside_of_usr_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/python/bin/python3")
    with pytest.raises(probe.ProbeError, match="cannot run /opt/python/bin/python3"):
        containers.container_runs(node(tmp_path, {}, Programs(tmp_path)))


def test_a_signal_ends_it_in_order(tmp_path: Path) -> None:
    class Interrupted(Programs):
        def __call__(self, argv: Sequence[str]) -> Output:
            if " run " in " ".join(argv):
                os.kill(os.getpid(), signal.SIGTERM)
            if "delete" in argv:  # a second one, while things are taken away
                os.kill(os.getpid(), signal.SIGHUP)
            return super().__call__(argv)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        containers.container_runs(node(tmp_path, {}, Interrupted(tmp_path)))
    assert [path for path in left(tmp_path) if "cisdriver" in path] == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_killed_run_left_is_taken_away_first(tmp_path: Path) -> None:
    old: dict[str, str | None] = {
        f"{own_containerd.STORE}/rootfs/etc/ld.so.cache": "",
        f"{pods.PLACE}/containerd.sock": "",
        f"{pods.PLACE}/outside": "",
        f"{pods.PLACE}/cni/before": "",
        f"{pods.PLACE}/state/x/rootfs": None,
    }
    programs = Programs(tmp_path)
    assert containers.container_runs(node(tmp_path, old, programs))["status"] == "pass"
    assert [path for path in left(tmp_path) if "cisdriver" in path] == []
    unmounted = [line.split()[-1] for line in programs.asked if line.startswith("umount")]
    assert f"{pods.PLACE}/state/x/rootfs" in unmounted
    assert f"ip link delete {cni.BRIDGE}" in programs.asked


# The plugins

RULES = """-N CNI-HOSTPORT-DNAT
-N CNI-DN-1
-N CNI-DN-2
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -s 198.51.100.66/32 -m comment --comment "id: \\"cisdriver-verify\\"" -j CNI-DN-1
"""


class Nat(Programs):
    """A table nat with these rules, that takes ``-D`` and ``-X``."""

    def __init__(self, root: Path, rules: str) -> None:
        super().__init__(root)
        self.rules = rules.splitlines()

    def __call__(self, argv: Sequence[str]) -> Output:
        words = list(argv[5:])
        if argv[0] == "iptables" and words[0] == "-S":
            return Output(0, "\n".join(self.rules), "")
        if argv[0] == "iptables":
            gone = {"-X": "-N", "-D": "-A"}.get(words[0], "")
            plain = [rule.replace("\\", "").replace('"', "") for rule in self.rules]
            wanted = " ".join([gone, *words[1:]]).replace('"', "")
            self.rules = [rule for rule, text in zip(self.rules, plain, strict=True) if text != wanted]
        return super().__call__(argv)


@pytest.mark.parametrize(
    ("before", "more", "rest"),
    [
        ("", "", ["-N CNI-DN-2"]),
        ("-N CNI-HOSTPORT-DNAT", "", [*RULES.splitlines()[0:1], "-N CNI-DN-2", RULES.splitlines()[3]]),
        ("", "-A CNI-HOSTPORT-DNAT -m comment --comment other -j CNI-DN-2\n",
         ["-N CNI-HOSTPORT-DNAT", "-N CNI-DN-2", RULES.splitlines()[3],
          "-A CNI-HOSTPORT-DNAT -m comment --comment other -j CNI-DN-2"]),
    ],
)  # fmt: skip
def test_rules_of_others_stay(tmp_path: Path, before: str, more: str, rest: list[str]) -> None:
    nat = Nat(tmp_path, RULES + more)
    cni.clear(node(tmp_path, {f"{pods.PLACE}/cni/before": before}, nat))
    assert nat.rules == rest


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("bin_dir = '/usr/lib/cni'\n", "/usr/lib/cni"),
        ('bin_dirs = ["/a", "/b"]\n', "/a"),
        ("# bin_dir = '/x'\n", "/opt/cni/bin"),
        ("", "/opt/cni/bin"),
    ],
)
def test_directories_of_plugins(tmp_path: Path, text: str, first: str) -> None:
    assert cni.directories(machine(tmp_path, {cni.CONTAINERD: text}))[0] == first


def test_what_answers_no_version_is_no_plugin(tmp_path: Path) -> None:
    files: dict[str, str | None] = dict.fromkeys(PLUGINS, "")
    mute = Programs(tmp_path, {"/opt/cni/bin/bridge": Output(0, "", "")})
    assert cni.find(node(tmp_path, files, mute)) is None
    no_portmap = Programs(tmp_path, {"/opt/cni/bin/portmap": Output(126, "", "Permission denied")})
    assert cni.find(node(tmp_path, files, no_portmap)) == cni.Plugins("/opt/cni/bin", False)


# Sockets


@contextlib.contextmanager
def taken() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_listener_says_its_word_to_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pods.Listener("hello") as listener:
        port = listener.port
        assert [pods.hear("127.0.0.1", port) for _ in range(3)] == [("hello", "")] * 3
        assert pods.answers("127.0.0.1", port)
    monkeypatch.setattr(pods, "PATIENCE", 0.3)
    assert pods.hear("127.0.0.1", port)[1].endswith("Connection refused")
    assert not pods.answers("127.0.0.1", port)


def test_what_refuses_is_asked_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(pods, "PATIENCE", 0.3)
    with taken() as port:
        assert pods.hear("127.0.0.1", port) == ("", "[Errno 111] Connection refused")


def test_a_namespace_that_is_not_there_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "No such file" in pods.hear("127.0.0.1", 1, str(tmp_path / "none"))[1]


def test_a_pod_that_cannot_be_wired_leaves_nothing(tmp_path: Path) -> None:
    programs = Programs(tmp_path, {"link add": Output(2, "", "RTNETLINK answers: Operation not supported")})
    with (
        pytest.raises(probe.ProbeError, match="not supported"),
        pods.pod(node(tmp_path, {}, programs), "a", "10.9.9.9"),
    ):
        pass
    assert left(tmp_path) == []
    assert "umount /run/cisdriver-verify/a" in programs.asked


# SELinux

BOOTED: dict[str, str | None] = {"/run/systemd/system": None}
HERE = ("/usr/bin/kubelet", "/usr/bin/containerd", "/usr/sbin/runc")
CONFIG = cni.CONTAINERD
ENFORCING: dict[str, str | None] = {selinux.CONFIG: "# SELINUX= is one of enforcing, permissive\nSELINUX=enforcing\n"}


def labels(enforce: str | None, kind: str = "bin_t", **odd: str) -> Any:
    def look(root: Path, files: dict[str, str | None] | None = None) -> probe.Finding:
        state: dict[str, str | None] = {} if enforce is None else {"/sys/fs/selinux/enforce": enforce}
        answers: dict[str, str | Output] = {
            f"stat --dereference --format=%C {path}": f"system_u:object_r:{odd.get(Path(path).name, kind)}:s0\n"
            for path in HERE
        }
        return containers.selinux_labels(
            machine(root, {**BOOTED, **dict.fromkeys(HERE, ""), **state, **(files or {})}, answers)
        )

    return look


@pytest.mark.parametrize(
    ("look", "files", "status", "words"),
    [
        (labels("0", kubelet="user_tmp_t"), {}, "not_applicable", "permissive, now and at the next boot"),
        (labels("0", kubelet="user_tmp_t"), {selinux.CONFIG: "SELINUX=permissive\n"}, "not_applicable", "permissive"),
        (labels("0"), ENFORCING, "pass", ""),
        (labels("0", "container_runtime_exec_t", kubelet="kubelet_exec_t"), ENFORCING, "pass", ""),
        (labels("1"), {CONFIG: "[plugins]\n  enable_selinux = true\n"}, "pass", ""),
        (labels("1"), {"/etc/eks/nodeadm.d/80-cis-selinux.yaml": "spec:\n   enable_selinux = true\n"}, "pass", ""),
        (labels("0", kubelet="user_tmp_t"), ENFORCING, "fail", "label of /usr/bin/kubelet"),
        (labels("1", runc="unlabeled_t"), {}, "fail", "unlabeled_t:s0 in /usr/sbin/runc"),
        (labels("1"), {}, "fail", "containerd enable_selinux: expected true, found not set"),
        (labels("1"), {CONFIG: "enable_selinux = false\n"}, "fail", "/etc/containerd/config.toml:1"),
        (labels(None), {}, "not_applicable", "without SELinux"),
        (labels("1"), {"/run/systemd/container": "podman"}, "not_applicable", "another machine's"),
    ],
)
def test_selinux_labels(tmp_path: Path, look: Any, files: dict[str, str | None], status: str, words: str) -> None:
    finding = look(tmp_path, files)
    assert finding["status"] == status, finding["reason"]
    assert words in finding["reason"]


def test_labels_without_a_node_and_without_an_answer(tmp_path: Path) -> None:
    files: dict[str, str | None] = {**BOOTED, "/sys/fs/selinux/enforce": "1"}
    assert containers.selinux_labels(machine(tmp_path / "none", files))["status"] == "not_applicable"
    with pytest.raises(probe.ProbeError, match="stat"):
        containers.selinux_labels(machine(tmp_path / "mute", {**files, "/usr/bin/kubelet": ""}))
