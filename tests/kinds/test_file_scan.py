"""What lies on the node's file systems: one walk, told by mounts, blind to container trees and to nothing else."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import host_files
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, file_scan, scan
from ansible_collections.cisdriver.amazon_linux.plugins.modules import audit
from ansible_collections.cisdriver.amazon_linux.plugins.modules import file_scan as module
from machines import Output, applied, machine, rule, tree

ME, MINE = os.getuid(), os.getgid()
ROOT_MOUNT = "22 1 0:30 / / rw,noatime shared:1 - overlay overlay rw\n"
ACCOUNTS = {
    "/proc/self/mountinfo": ROOT_MOUNT,
    "/etc/passwd": f"root:x:{ME}:{MINE}::/root:/bin/bash\n",
    "/etc/group": f"root:x:{MINE}:\n",
}
WRITABLE = {"absent": ["world_writable_file", "world_writable_directory"]}
UNOWNED = {"absent": ["unowned", "ungrouped"]}
SET_ID = {"absent": ["unknown_setuid", "unknown_setgid"], "known": ["/opt/known"]}
QUERY = "rpm -qf --queryformat [%{FILENAMES}\\t%{FILEMODES:octal}\\t%{=NAME}\\n] "


def put(root: Path, path: str, mode: int, directory: bool = False) -> Path:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(exist_ok=True) if directory else target.write_text("x")
    target.chmod(mode)
    return target


def node(root: Path, answers: dict[str, Any] | None = None) -> core.Node:
    return machine(root, ACCOUNTS if not (root / "etc/passwd").exists() else {}, answers)


@pytest.mark.parametrize(
    ("name", "path", "mode", "directory", "status"),
    [
        ("plain_file_pass", "/usr/bin/tool", 0o755, False, "pass"),
        ("tmp_with_sticky_bit_pass", "/tmp", 0o1777, True, "pass"),
        ("image_layer_pass", "/var/lib/containerd/snapshots/7/fs/data", 0o777, True, "pass"),
        ("volume_of_a_pod_pass", "/var/lib/kubelet/pods/1/volumes/cache/file", 0o666, False, "pass"),
        ("pods_log_pass", "/var/log/pods/x/0.log", 0o666, False, "pass"),
        ("file_fail", "/usr/local/bin/tool", 0o666, False, "fail"),
        ("file_with_spaces_fail", "/srv/a b/c  d", 0o646, False, "fail"),
        ("file_with_a_newline_fail", "/srv/a\nb", 0o666, False, "fail"),
        ("write_only_fail", "/srv/drop", 0o602, False, "fail"),
        ("directory_without_sticky_bit_fail", "/opt/agent/spool", 0o777, True, "fail"),
        ("beside_a_container_tree_fail", "/var/lib/containerd-old/x", 0o666, False, "fail"),
        ("above_a_container_tree_fail", "/var/lib/x", 0o666, False, "fail"),
    ],
)
def test_what_everybody_may_write(
    tmp_path: Path, name: str, path: str, mode: int, directory: bool, status: str
) -> None:
    put(tmp_path, path, mode, directory)
    finding = file_scan.check(node(tmp_path), WRITABLE)
    assert finding["status"] == status, name
    if status == "fail":
        assert core.one_line(path) in finding["reason"]


@pytest.mark.skipif(ME != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    ("path", "uid", "status"),
    [
        ("/var/lib/private/systemd/journal-upload/state", 63150, "pass"),
        ("/var/lib/private/systemd/journal-upload/state", 4711, "fail"),
        ("/var/lib/state", 63150, "fail"),
    ],
)
def test_what_a_dynamic_user_left_in_its_place_has_an_owner(tmp_path: Path, path: str, uid: int, status: str) -> None:
    os.chown(put(tmp_path, path, 0o600), uid, uid)
    assert file_scan.check(node(tmp_path), UNOWNED)["status"] == status


def test_links_and_sockets_are_no_files(tmp_path: Path) -> None:
    tree(tmp_path, {"/srv/link": "-> nowhere"})
    os.mkfifo(tmp_path / "srv/pipe")
    (tmp_path / "srv/pipe").chmod(0o666)
    assert file_scan.check(node(tmp_path), WRITABLE)["status"] == "pass"


def test_a_name_that_is_no_utf_8_is_written_out(tmp_path: Path) -> None:
    put(tmp_path, os.fsdecode(b"/caf\xe9"), 0o666)
    reason = file_scan.check(node(tmp_path), WRITABLE)["reason"]
    assert r"/caf\xe9" in reason
    reason.encode()


def test_trees_that_are_left_out_are_named(tmp_path: Path) -> None:
    put(tmp_path, "/var/lib/containerd/x", 0o666)
    items = file_scan.check(node(tmp_path), WRITABLE)["evidence"]
    assert ("/var/lib/containerd", "not looked into") in [(item["object"], item["found"]) for item in items]


def test_a_container_tree_elsewhere_behind_a_link_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "/data/containerd/layer", 0o666)
    tree(tmp_path, {"/var/lib/containerd": "-> ../../data/containerd"})
    assert file_scan.check(node(tmp_path), WRITABLE)["status"] == "pass"


def test_of_many_offenders_some_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    for number in range(60):
        put(tmp_path, f"/srv/{number}", 0o666)
    finding = file_scan.check(node(tmp_path), WRITABLE)
    assert "10 more objects" in [item["object"] for item in finding["evidence"]]


@pytest.mark.parametrize(
    ("name", "passwd", "group", "answers", "status"),
    [
        ("both_known_pass", ME, MINE, {}, "pass"),
        ("known_to_a_directory_service_pass", ME + 1, MINE, {f"getent passwd {ME}": "me:x:1:1::/:/bin/sh"}, "pass"),
        ("no_owner_fail", ME + 1, MINE, {}, "fail"),
        ("no_group_fail", ME, MINE + 1, {}, "fail"),
    ],
)
def test_who_owns_it(tmp_path: Path, name: str, passwd: int, group: int, answers: dict[str, str], status: str) -> None:
    # root's own id stays known: what is tested is one that stands in no line
    if ME == 0:
        put(tmp_path, "/srv/old", 0o644)
        os.chown(tmp_path / "srv/old", 4242 if passwd != ME else 0, 4242 if group != MINE else 0)
        answers = {question.replace(f" {ME}", " 4242"): answer for question, answer in answers.items()}
        tree(tmp_path, ACCOUNTS)
    else:
        files = {"/etc/passwd": f"a:x:{passwd}:1::/:/bin/sh\n", "/etc/group": f"a:x:{group}:\n"}
        tree(tmp_path, {**ACCOUNTS, **files})
    assert file_scan.check(node(tmp_path, answers), UNOWNED)["status"] == status, name


def set_id(root: Path, path: str, answer: str, mode: int = 0o4755) -> Any:
    put(root, path, mode)
    return file_scan.check(node(root, {QUERY + path: answer}), SET_ID)


@pytest.mark.parametrize(
    ("name", "path", "answer", "status"),
    [
        ("brought_by_a_package_pass", "/usr/bin/su", "/usr/bin/su\t104755\tutil-linux\n", "pass"),
        ("recorded_by_the_link_bin_pass", "/usr/bin/su", "/bin/su\t104755\tutil-linux\n", "pass"),
        ("named_by_the_user_pass", "/opt/known", "file /opt/known is not owned by any package\n", "pass"),
        ("of_no_package_fail", "/usr/local/bin/x", "file /usr/local/bin/x is not owned by any package\n", "fail"),
        ("made_so_by_hand_fail", "/usr/bin/find", "/usr/bin/find\t100755\tfindutils\n", "fail"),
    ],
)
def test_whose_a_setuid_program_is(tmp_path: Path, name: str, path: str, answer: str, status: str) -> None:
    finding = set_id(tmp_path, path, answer)
    assert finding["status"] == status, name
    assert path in [item["object"] for item in finding["evidence"]]


def test_without_rpm_nobody_can_tell(tmp_path: Path) -> None:
    put(tmp_path, "/usr/bin/su", 0o4755)
    with pytest.raises(core.ProbeError, match="rpm is not there"):
        file_scan.check(node(tmp_path), SET_ID)


def test_setgid_programs_are_their_own_class(tmp_path: Path) -> None:
    finding = set_id(tmp_path, "/usr/bin/write", "/usr/bin/write\t100755\tutil-linux\n", 0o2755)
    assert "setgid" in finding["reason"]
    assert "which has it 0755" in finding["reason"]


# Mounts


def mounted(root: Path, *lines: str) -> core.Node:
    tree(root, {**ACCOUNTS, "/proc/self/mountinfo": ROOT_MOUNT + "".join(line + "\n" for line in lines)})
    for line in lines:
        (root / line.split()[4].lstrip("/")).mkdir(parents=True, exist_ok=True)
    return core.Node(str(root), lambda _argv: Output(127, "", ""))


DATA = "30 22 8:16 / /data rw - xfs /dev/nvme1n1 rw"


@pytest.mark.parametrize(
    ("name", "lines", "walked"),
    [
        ("the_root_whatever_it_is", [], ["/"]),
        ("a_disk", [DATA], ["/", "/data"]),
        ("tmpfs_where_users_write", ["31 22 0:50 / /tmp rw - tmpfs tmpfs rw"], ["/", "/tmp"]),
        ("other_tmpfs", ["31 22 0:50 / /run rw - tmpfs tmpfs rw"], ["/"]),
        ("another_machine", ["31 22 0:50 / /mnt/efs rw - nfs4 fs-1:/ rw"], ["/"]),
        ("an_overlay_of_a_container", ["31 22 0:51 / /srv/merged rw - overlay overlay rw"], ["/"]),
        ("a_volume_of_a_pod", ["31 22 8:32 / /var/lib/kubelet/pods/1/volumes/pvc rw - ext4 /dev/nvme2n1 rw"], ["/"]),
        ("a_bind_of_a_part", [DATA, "31 22 8:16 /srv /srv rw - xfs /dev/nvme1n1 rw"], ["/", "/data"]),
        ("twice_the_same", [DATA, "31 22 8:16 / /mirror rw - xfs /dev/nvme1n1 rw"], ["/", "/data"]),
        (
            "a_part_of_a_disk_that_containers_have",
            ["30 22 8:16 / /mnt/k8s-disks/0 rw - xfs d rw", "31 22 8:16 /home /home rw - xfs d rw"],
            ["/", "/home"],
        ),
        ("hidden_by_a_later_mount", ["30 22 8:16 / /data/x rw - xfs d rw", "31 22 0:9 / /data rw - nfs4 fs rw"], ["/"]),
        ("a_name_with_a_space", ["30 22 8:16 / /my\\040data rw - xfs d rw"], ["/", "/my data"]),
    ],
)
def test_which_mounts_are_walked(tmp_path: Path, name: str, lines: list[str], walked: list[str]) -> None:
    (tmp_path / "my data").mkdir()
    assert [mount.point for mount in scan.local(mounted(tmp_path, *lines))] == walked, name


def test_hardening_walks_the_same_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two implementations, one answer: else hardening would never satisfy the audit."""
    assert sorted(scan.CONTAINER_TREES) == sorted(host_files.CONTAINER_TREES)
    lines = [DATA, "31 22 8:16 /srv /srv rw - xfs d rw", "32 22 0:50 / /tmp rw,nosuid - tmpfs tmpfs rw"]
    probed = mounted(tmp_path, *lines)
    monkeypatch.setattr(host_files, "MOUNTS", str(tmp_path / "proc/self/mountinfo"))
    monkeypatch.setattr(host_files.os.path, "isdir", lambda path: path in ("/", "/data", "/srv", "/tmp"))
    assert host_files._roots() == [mount.point for mount in scan.local(probed)]


def test_a_setuid_program_on_a_nosuid_mount_is_none(tmp_path: Path) -> None:
    probed = mounted(tmp_path, "31 22 0:50 / /tmp rw,nosuid - tmpfs tmpfs rw")
    put(tmp_path, "/tmp/su", 0o4755)
    put(tmp_path, "/usr/bin/su", 0o4755)
    put(tmp_path, "/var/lib/containerd/su", 0o4755)
    assert scan.privileged(probed) == ["/usr/bin/su"]


# The walk


def test_one_walk_serves_every_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[list[str]] = []
    real = subprocess.run

    def counted(argv: list[str], **more: Any) -> Any:
        walks.append(argv)
        return real(argv, **more)

    monkeypatch.setattr(scan.subprocess, "run", counted)
    put(tmp_path, "/var/log/a.log", 0o646)
    put(tmp_path, "/var/log/audit/audit.log", 0o600)
    logs = {"file_mode": [{"find": "/var/log", "max_mode": "0640"}]}
    trail = {"file_mode": [{"find": "/var/log/audit", "max_mode": "0640"}]}
    rules = {"a": {"file_scan": WRITABLE}, "b": {"file_scan": UNOWNED}, "c": logs, "d": trail}
    plan = {"entries": [{"id": "1", "rule": name, "require": require} for name, require in rules.items()]}
    findings = audit.audit(node(tmp_path), plan)
    assert {name: finding["status"] for name, finding in findings.items()} == {
        "a": "fail",
        "b": "pass",
        "c": "fail",
        "d": "pass",
    }
    starts = [argv[1 : argv.index("-xdev")] for argv in walks]
    # everything but /var/log, then /var/log: no file is looked at twice
    assert sorted(starts) == [[f"{tmp_path}/"], [f"{tmp_path}/var/log"]]
    whole = next(argv for argv in walks if argv[1] == f"{tmp_path}/")
    assert f"{tmp_path}/var/log" in whole[: whole.index("-prune")]


def test_what_find_cannot_look_at_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, b"", b"find: '/srv/x': Input/output error\n")
    monkeypatch.setattr(scan.subprocess, "run", lambda *_a, **_b: done)
    with pytest.raises(core.ProbeError, match="/srv/x"):
        scan.whole(node(tmp_path))


@pytest.mark.parametrize(
    "complaint",
    ["find: '/srv/x': No such file or directory", "find: '{root}/mnt/dead': Transport endpoint is not connected"],
)
def test_what_vanishes_and_dead_mounts_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: str
) -> None:
    probed = mounted(tmp_path, "31 22 0:60 / /mnt/dead rw - fuse.s3 s3 rw")
    done = subprocess.CompletedProcess([], 1, b"", complaint.format(root=tmp_path).encode() + b"\n")
    monkeypatch.setattr(scan.subprocess, "run", lambda *_a, **_b: done)
    assert scan.whole(probed) == []


def test_a_file_that_vanishes_during_the_scan_is_passed_over(tmp_path: Path) -> None:
    """For real: files come and go while find walks."""
    for number in range(300):
        put(tmp_path, f"/srv/{number % 10}/{number}", 0o644)
    script = 'while :; do for d in "$0"/srv/*; do touch $d/new; mv $d/new $d/newer; rm -f $d/newer; done; done'
    churn = subprocess.Popen(["sh", "-c", script, str(tmp_path)])
    try:
        for _ in range(10):
            file_scan.check(node(tmp_path), WRITABLE)
    finally:
        churn.kill()
        churn.wait()


# The module


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree whose root the module takes for the only file system."""
    monkeypatch.setattr(host_files, "_roots", lambda *_without: [str(tmp_path / "host")])
    monkeypatch.setattr(host_files, "CONTAINER_TREES", (str(tmp_path / "host/var/lib/containerd"),))
    (tmp_path / "host").mkdir()
    return tmp_path / "host"


def program(argv: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, check=False)
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def mended() -> dict[str, Any]:
    """Check mode, a run that does what it said, and one that finds nothing any more. The first run's answer."""
    predicted = applied(module.apply, RULES, check=True, program=program)
    done = applied(module.apply, RULES, program=program)
    again = applied(module.apply, RULES, program=program)
    assert (predicted["changed"], predicted["diff"], predicted["rules"]) == (True, done["diff"], done["rules"])
    assert (again["changed"], again["diff"]) == (False, [])
    return done


RULES = [rule("r", "6.1.11", WRITABLE)]
GONE = [rule("r", "6.1.11", state="absent")]


def test_files_lose_the_bit_and_directories_get_theirs(host: Path) -> None:
    file, spool = put(host, "/a b", 0o666), put(host, "/spool", 0o777, directory=True)
    layer, odd = put(host, "/var/lib/containerd/x", 0o666), put(host, "/new\nline", 0o6777)
    done = mended()
    assert [mode_of(path) for path in (file, spool, layer, odd)] == [0o664, 0o1777, 0o666, 0o6775]
    assert set(done["rules"]["r"]["after"]) == {str(path) for path in (file, spool, odd)}


def test_a_name_that_is_no_utf_8_can_be_answered(host: Path) -> None:
    put(host, os.fsdecode(b"/caf\xe9"), 0o666)
    done = mended()
    assert r"caf\xe9" in str(done["rules"]).replace("\\\\", "\\")
    str(done).encode()


def test_links_pipes_and_what_nobody_may_write_stay(host: Path) -> None:
    outside = put(host.parent, "/outside", 0o666)
    (host / "link").symlink_to(outside)
    os.mkfifo(host / "pipe")
    (host / "pipe").chmod(0o666)
    assert not applied(module.apply, RULES, program=program)["changed"]
    assert mode_of(outside) == 0o666


def test_a_rule_that_goes_gives_the_modes_back(host: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    file, changed, gone = put(host, "/a", 0o666), put(host, "/b", 0o777), put(host, "/c", 0o666)
    applied(module.apply, RULES, program=program, memory=memory)
    changed.chmod(0o700)
    gone.unlink()
    done = applied(module.apply, GONE, program=program, memory=memory)
    assert (mode_of(file), mode_of(changed)) == (0o666, 0o700)
    assert done["changed"]
    assert not applied(module.apply, GONE, program=program, memory=memory)["changed"]


def test_what_vanished_is_forgotten(host: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    gone = put(host, "/c", 0o666)
    applied(module.apply, RULES, program=program, memory=memory)
    gone.unlink()
    applied(module.apply, RULES, program=program, memory=memory)
    assert not (memory / "kind.json").exists()


def test_classes_a_person_decides_about_change_nothing(host: Path) -> None:
    file = put(host, "/suid", 0o4777)
    done = applied(module.apply, [rule("r", "6.1.13", SET_ID), rule("s", "6.1.12", UNOWNED)], program=program)
    assert mode_of(file) == 0o4777
    assert not done["changed"]
