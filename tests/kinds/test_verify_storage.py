"""Checks of disks: room, what fstab mounts, and an audit log that must not stop the node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core as probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import storage, volumes
from machines import Output, machine

Files = dict[str, str | None]
Answers = dict[str, str | Output]
BOOTED: Files = {"/run/systemd/system": None}
CONTAINER: Files = {"/run/systemd/container": "podman\n"}
KUBELET_CONFIG = "/etc/kubernetes/kubelet/config.json"
EKS = {"evictionHard": {"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%"}}
PLACES: Files = dict.fromkeys(("/var/log", "/var/lib/kubelet", "/var/lib/containerd"))


def failing(finding: probe.Finding) -> list[str]:
    return [item["object"] for item in finding["evidence"] if not item["ok"]]


def mount_line(point: str, options: str, device: str = "259:1") -> str:
    return f"30 1 {device} / {point} {options} shared:1 - xfs /dev/x rw\n"


ROOT_MOUNT = mount_line("/", "rw,relatime")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, storage.Room]:
    """Room per path; of others as that of ``/``."""
    rooms = {"/": storage.Room(100, 50)}
    monkeypatch.setattr(storage, "measure", lambda _node, path, _what: rooms.get(path, rooms["/"]))
    return rooms


def disks(root: Path, table: str = ROOT_MOUNT, config: Any = EKS) -> probe.Node:
    files = {**PLACES, volumes.TABLE: table}
    return machine(root, files if config is None else {**files, KUBELET_CONFIG: json.dumps(config)})


OWN = ROOT_MOUNT + mount_line("/var/lib/kubelet", "rw", "7:1") + mount_line("/var/lib/containerd", "rw", "7:2")


@pytest.mark.parametrize(
    ("table", "rooms", "config", "objects"),
    [
        (ROOT_MOUNT, {"/": (100, 11)}, EKS, []),  # what EKS's configuration leaves out has no threshold
        (ROOT_MOUNT, {"/": (100, 9)}, EKS, ["/, /"]),
        (ROOT_MOUNT, {"/": (100, 0)}, EKS, ["/, /", "/var/lib/containerd, /"]),
        (ROOT_MOUNT, {"/": (100, 15)}, {**EKS, "mergeDefaultEvictionSettings": True}, ["/var/lib/containerd, /"]),
        (OWN, {"/": (100, 50), "/var/lib/kubelet": (100, 10)}, EKS, ["/var/lib/kubelet, /var/lib/kubelet"]),
        (OWN, {"/var/lib/containerd": (100, 12)}, EKS, []),
        (OWN, {"/var/lib/containerd": (100, 12)}, None, ["/var/lib/containerd, /var/lib/containerd"]),
        (OWN, {"/var/lib/containerd": (100, 12)}, {"evictionHard": {"imagefs.available": "5%"}}, []),
        (ROOT_MOUNT, {"/": (10**9, 2 * 10**8)}, {"evictionHard": {"nodefs.available": "1Gi"}}, ["/, /"]),
        (ROOT_MOUNT, {"/": (100, 14)}, None, ["/var/lib/containerd, /"]),
        (ROOT_MOUNT, {"/": (0, 0)}, EKS, []),
    ],
)
def test_disk_room(
    tmp_path: Path,
    measured: dict[str, storage.Room],
    table: str,
    rooms: dict[str, tuple[int, int]],
    config: Any,
    objects: list[str],
) -> None:
    measured.update({path: storage.Room(*room) for path, room in rooms.items()})
    finding = storage.disk_room(disks(tmp_path, table, config))
    assert failing(finding) == [f"available of the volume of {name}" for name in objects]


def test_inodes(tmp_path: Path, measured: dict[str, storage.Room]) -> None:
    assert storage.inodes(disks(tmp_path / "room"))["status"] == "pass"
    measured["/"] = storage.Room(1000, 50)
    finding = storage.inodes(disks(tmp_path / "none"))
    assert finding["reason"].startswith("inodesFree of the volume of /, /: expected more than 5%, found 5.0 % (50 of")


@pytest.mark.parametrize(
    "config", [{"evictionHard": {"nodefs.available": "a lot"}}, {"evictionHard": {"nodefs.available": "9Xi"}}]
)
@pytest.mark.usefixtures("measured")
def test_a_threshold_nobody_understands_is_an_error(tmp_path: Path, config: Any) -> None:
    with pytest.raises(probe.ProbeError, match="what quantity"):
        storage.disk_room(disks(tmp_path, ROOT_MOUNT, config))


def test_a_volume_that_cannot_be_measured_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: str) -> None:
        raise OSError(5, "Input/output error")

    node = disks(tmp_path)
    monkeypatch.setattr(storage.os, "statvfs", refuse)
    with pytest.raises(probe.ProbeError, match="cannot measure /: Input/output error"):
        storage.disk_room(node)


def mounted(root: Path, text: str, files: Files | None = None, said: str = "", **found: str | Output) -> probe.Finding:
    answers: Answers = {f"findfs {tag.replace('_', '=')}": answer for tag, answer in found.items()}
    whole: Files = {"/etc/fstab": text, **(files or {})}
    node = machine(root, whole, {**answers, f"findmnt --verify --tab-file {root}/etc/fstab": said})
    return storage.fstab(node)


@pytest.mark.parametrize(
    ("name", "text", "more"),
    [
        ("stock", "UUID=1 / xfs defaults 1 1\n", {"UUID_1": "/dev/nvme0n1p1\n"}),
        ("may_be_missing", "UUID=1 /srv xfs nofail 0 0\nLABEL=x /a xfs noauto 0 0\n", {}),
        ("mounted_when_asked_for", "UUID=1 /boot/efi vfat x-systemd.automount 0 2\n", {}),
        ("a_share", "//files/x /x cifs _netdev 0 0\nfs-1.efs.eu-west-1.amazonaws.com:/ /y nfs4 _netdev 0 0\n", {}),
        ("no_device", "tmpfs /tmp tmpfs noexec 0 0\n", {}),
        ("a_device", "/dev/xvdb /srv xfs\n", {"files": {"/dev/xvdb": ""}}),
        ("a_container", "UUID=1 / xfs defaults 1 1\n", {"files": CONTAINER}),
        ("empty", "# nothing\n", {}),
        ("a_warning", "tmpfs /tmp tmpfs\n", {"said": "/tmp\n   [W] cannot detect on-disk filesystem type\n"}),
        ("what_is_judged_here", "tmpfs /tmp tmpfs\n", {"said": "/tmp\n   [E] unreachable on boot required source\n"}),
    ],
)
def test_fstab_passes(tmp_path: Path, name: str, text: str, more: dict[str, Any]) -> None:
    finding = mounted(tmp_path, text, **more)
    assert finding["status"] == "pass", (name, finding["reason"])


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("LABEL=x /var xfs defaults 0 0\n", {"LABEL_x": Output(1, "", "unable to resolve")}, "LABEL=x on /var"),
        ("tmpfs /tmp tmpfs\n/dev/xvdz /srv xfs defaults 0 0\n", {}, "found not there in /etc/fstab:2"),
        ("/dev/xvdz /srv xfs defaults 0 0\n", {"files": CONTAINER}, "/dev/xvdz on /srv"),
        ("/dev/xvdb\n", {}, "found 1 fields in /etc/fstab:1"),
        ("tmpfs /x tempfs\n", {"said": "/x\n   [E] tempfs seems unsupported by the current kernel\n"}, "--verify /x"),
    ],
)
def test_fstab_fails(tmp_path: Path, text: str, more: dict[str, Any], words: str) -> None:
    finding = mounted(tmp_path, text, **more)
    assert finding["status"] == "fail"
    assert words in finding["reason"]


def test_fstab_that_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    assert storage.fstab(machine(tmp_path / "none"))["status"] == "not_applicable"
    with pytest.raises(probe.ProbeError, match="cannot read /etc/fstab"):
        storage.fstab(machine(tmp_path / "directory", {"/etc/fstab": None}))


AUDITD = (
    "log_file = /var/log/audit/audit.log\nmax_log_file_action = ROTATE\nnum_logs = 5\nspace_left_action = SYSLOG\n"
    "admin_space_left_action = SUSPEND\ndisk_full_action = SUSPEND\ndisk_error_action = SUSPEND\n"
)


def audited(root: Path, conf: str | None = AUDITD, files: Files | None = None, **answers: str) -> probe.Finding:
    whole: Files = {"/var/log/audit": None, volumes.TABLE: ROOT_MOUNT, **PLACES, **(files or {})}
    if conf is not None:
        whole[storage.AUDITD] = conf
    told: Answers = {name.replace("_", " -"): answer for name, answer in answers.items()}
    return storage.auditd_cannot_halt(machine(root, whole, told))


def replaced(old: str, new: str) -> str:
    assert old in AUDITD
    return AUDITD.replace(old, new)


KEPT = replaced("ROTATE", "keep_logs")
LOG_VOLUME: Files = {volumes.TABLE: ROOT_MOUNT + mount_line("/var/log/audit", "rw", "7:1")}


@pytest.mark.parametrize(
    ("name", "conf", "files"),
    [
        ("stock", AUDITD, {}),
        ("kept_on_a_volume_of_its_own", KEPT, LOG_VOLUME),
        ("nothing_written", KEPT + "write_logs = no\n", {}),
        ("suspended", replaced("ROTATE", "suspend"), {}),
        ("a_script_that_tells", replaced("space_left_action = SYSLOG", "space_left_action = exec /root/tell a"),
         {"/root/tell": "#!/bin/sh\n# no halt here\nlogger full\n"}),
        ("a_script_that_is_not_there", replaced("SYSLOG", "exec /root/tell"), {}),
        ("the_last_flag_counts", AUDITD,
         {"/etc/audit/rules.d/a.rules": "-f 2\n", "/etc/audit/rules.d/b.rules": "-f 1\n"}),
        ("a_plugin_that_is_off", AUDITD, {
            "/etc/audit/plugins.d/au-remote.conf": "active = no\n",
            "/etc/audit/audisp-remote.conf": "network_failure_action = halt\n"}),
        ("rules_without_auditd", None, {"/etc/audit/rules.d/a.rules": "-f 1\n"}),
    ],
)  # fmt: skip
def test_auditd_passes(tmp_path: Path, name: str, conf: str | None, files: Files) -> None:
    finding = audited(tmp_path, conf, files)
    assert finding["status"] == "pass", (name, finding["reason"])


@pytest.mark.parametrize(
    ("conf", "files", "words"),
    [
        (replaced("disk_full_action = SUSPEND", "disk_full_action = halt"), {}, "disk_full_action: expected no halt"),
        (replaced("disk_error_action = SUSPEND", "disk_error_action = SINGLE"), {}, "disk_error_action"),
        (AUDITD + "admin_space_left_action = HALT\n", {}, "found HALT in /etc/audit/auditd.conf:8"),
        (AUDITD + "overflow_action = single\n", {}, "overflow_action"),
        (replaced("SYSLOG", "exec /root/full"), {"/root/full": "#!/bin/sh\n/sbin/shutdown -h now\n"}, "says shutdown"),
        (KEPT, {}, "keep_logs; /var/log/audit on the volume of pods"),
        (replaced("ROTATE", "ignore"), {}, "max_log_file_action"),
        (replaced("num_logs = 5", "num_logs = 1"), {}, "ROTATE, num_logs 1"),
        (KEPT, {volumes.TABLE: ROOT_MOUNT + mount_line("/var", "rw", "7:1")}, "on the volume of pods"),
        (AUDITD, {"/etc/audit/rules.d/zz.rules": "-D\n-f 2\n"}, "found -f 2 in /etc/audit/rules.d/zz.rules:2"),
        (AUDITD, {"/etc/audit/audit.rules": "-f 2\n"}, "/etc/audit/audit.rules:1"),
        (AUDITD, {
            "/etc/audit/plugins.d/au-remote.conf": "active = yes\n",
            "/etc/audit/audisp-remote.conf": "network_failure_action = halt\n"}, "/etc/audit/audisp-remote.conf:1"),
    ],
)  # fmt: skip
def test_auditd_fails(tmp_path: Path, conf: str, files: Files, words: str) -> None:
    finding = audited(tmp_path, conf, files)
    assert finding["status"] == "fail"
    assert words in finding["reason"]


def test_a_kernel_that_would_panic_fails(tmp_path: Path) -> None:
    answers = {"auditctl_s": "enabled 1\nfailure 2\n", "auditctl_l": "No rules\n"}
    finding = audited(tmp_path, AUDITD, BOOTED, **answers)
    assert finding["reason"] == "failure flag in the kernel: expected 0 or 1, found 2 in auditctl -s"


def test_no_audit_system_and_one_that_does_not_answer(tmp_path: Path) -> None:
    assert audited(tmp_path / "none", None)["status"] == "not_applicable"
    with pytest.raises(probe.ProbeError, match="auditctl -s"):
        audited(tmp_path / "mute", AUDITD, BOOTED)
