"""Module partition: the layout as data, devices found and refused, and whole layouts on a node's own disks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import disk, layout, trees
from cisdriver.sandbox import node as nodes
from machines import Module

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = yaml.safe_load((ROOT / "roles/partitions/defaults/main.yml").read_text())["partitions_layout"]
VAR = {"path": "/var", "label": "v", "share": 20, "options": ["nodev"]}
PODS = {"path": "/mnt/pods", "label": "p", "binds": ["/var/lib/containerd", "/var/lib/kubelet"]}


# the layout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gib", [20, 50, 500])
def test_the_default_layout_fits_volumes_of_20_gib_and_more(gib: int) -> None:
    mounts = {mount.path: mount for mount in layout.read(DEFAULT, gib << 10)}
    assert sum(mount.mib for mount in mounts.values()) == (gib << 10) - 4
    assert min(mount.mib for mount in mounts.values()) >= 1024
    assert mounts["/mnt/k8s-disks/cis"].mib > (gib << 10) * 0.55
    assert layout.table(list(mounts.values()), "").endswith('type=linux, name="cis-pods"\n')


def test_the_default_options_are_those_of_the_benchmark_and_containers_have_none() -> None:
    lines = layout.fstab_lines(layout.read(DEFAULT))
    assert lines == [
        "LABEL=cis-home /home xfs defaults,nodev,nosuid 0 0",
        "LABEL=cis-pods /mnt/k8s-disks/cis xfs defaults,noatime 0 0",
        "LABEL=cis-var /var xfs defaults,nodev,nosuid 0 0",
        "LABEL=cis-var-log /var/log xfs defaults,nodev,noexec,nosuid 0 0",
        "LABEL=cis-audit /var/log/audit xfs defaults,nodev,noexec,nosuid 0 0",
        "LABEL=cis-var-tmp /var/tmp xfs defaults,nodev,noexec,nosuid 0 0",
        "/mnt/k8s-disks/cis/containerd /var/lib/containerd none bind 0 0",
        "/mnt/k8s-disks/cis/kubelet /var/lib/kubelet none bind 0 0",
        "/mnt/k8s-disks/cis/soci-snapshotter-grpc /var/lib/soci-snapshotter-grpc none bind 0 0",
    ]


def test_the_table_has_its_id_and_what_is_left_comes_last() -> None:
    mounts = layout.read([PODS, VAR, {"path": "/home", "label": "h", "size": 1.5}], 20 << 10)
    assert layout.table(mounts, "0-1") == (
        'label: gpt\nlabel-id: 0-1\n\nsize=1536MiB, type=linux, name="h"\nsize=4096MiB, type=linux, name="v"\n'
        'type=linux, name="p"\n'
    )
    assert layout.tops(mounts) == ["/home", "/mnt/pods", "/var"]


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([], "empty"),
        ([{"path": "/var"}], "label"),
        ([{**VAR, "label": "longer-than-12"}], "1 to 12"),
        ([{**VAR, "path": "/"}], "absolute, plain path"),
        ([{**VAR, "path": "/var/"}], "absolute, plain path"),
        ([{**VAR, "path": "/my var"}], "absolute, plain path"),
        ([{**VAR, "sice": 3}], "unknown key sice"),
        ([{**VAR, "size": 3}], "found both"),
        ([{**VAR, "share": 0}], "above 0, below 100"),
        ([{**VAR, "share": 100}], "above 0, below 100"),
        ([{**VAR, "share": "much"}], "above 0, below 100"),
        ([{**VAR, "options": ["nodev,exec"]}], "one word"),
        ([{**VAR, "options": ["noexec"]}], "noexec would break"),
        ([{**PODS, "options": ["nosuid"]}], "nosuid would break"),
        ([VAR, {**VAR, "path": "/home"}], "label v: stands twice"),
        ([VAR, {**VAR, "label": "w"}], "path /var: stands twice"),
        ([{**PODS, "binds": ["/a/x", "/b/x"]}], "would share a directory"),
        ([PODS, {"path": "/home", "label": "h"}], "only one entry may go without"),
        ([{**VAR, "device": "/dev/a"}, PODS], "a device for each entry, or for none"),
        ([{**VAR, "share": 80}, {**PODS, "share": 30}], "take a larger one"),
        ([{"path": "/home", "label": "h", "size": 0.5}], "at least 1024 MiB"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(entries: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(layout.LayoutError, match=says):
        layout.read(entries, 20 << 10)


def test_fstab_tells_whether_it_was_done() -> None:
    mounts = layout.read([VAR, PODS])
    lines = layout.fstab_lines(mounts)
    assert not layout.in_fstab("UUID=1 / xfs defaults 0 0\n# LABEL=v /var xfs\n", mounts)
    assert layout.in_fstab("\n".join(lines), mounts)
    with pytest.raises(layout.LayoutError, match="mounts UUID=2 at /var"):
        layout.in_fstab("UUID=2 /var xfs defaults 0 0\n", mounts)
    with pytest.raises(layout.LayoutError, match="has /var of the layout, but not /mnt/pods"):
        layout.in_fstab(lines[1], mounts)


# devices ----------------------------------------------------------------------------------------


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories in place of /dev and /sys; any file there passes for a block device."""
    for name in ("dev/disk/by-id", "sys/block/nvme1n1/device"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(disk, "DEV", str(tmp_path / "dev"))
    monkeypatch.setattr(disk, "SYS", str(tmp_path / "sys"))
    monkeypatch.setattr(disk.stat, "S_ISBLK", lambda _mode: True)
    (tmp_path / "dev/nvme0n1").touch()
    (tmp_path / "dev/nvme1n1").touch()
    return tmp_path / "dev"


def resolved(name: str, mapped: str = "") -> str:
    def program(argv: list[str]) -> tuple[int, str, str]:
        assert argv[:2] == ["/usr/sbin/ebsnvme-id", "--block-dev"]
        return 0, mapped if argv[2].endswith("nvme1n1") else "/dev/xvda\n", ""

    return disk.resolve(Module({}, False, program), name)  # type: ignore[arg-type] # stands for Ansible\'s


@pytest.mark.parametrize("mapped", ["xvdb\n", "/dev/xvdb\n", "sdb\n"])
def test_a_mapping_is_found_by_what_ec2_utils_says_of_the_disks(dev: Path, mapped: str) -> None:
    assert resolved("/dev/xvdb", mapped) == str(dev / "nvme1n1")
    assert resolved("/dev/sdb", mapped) == str(dev / "nvme1n1")


def test_a_mapping_is_found_by_its_link(dev: Path) -> None:
    (dev / "sdb").symlink_to("nvme1n1")
    assert resolved("/dev/xvdb") == str(dev / "nvme1n1")


def test_a_volume_is_found_by_its_id(dev: Path) -> None:
    (dev.parent / "sys/block/nvme1n1/device/serial").write_text("vol0abc\n")
    assert resolved("vol-0abc") == str(dev / "nvme1n1")
    (dev / "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0def").symlink_to("../../nvme0n1")
    assert resolved("vol-0def") == str(dev / "nvme0n1")


@pytest.mark.parametrize("name", ["/dev/xvdz", "vol-0123", "/dev/disk/by-id/nothing"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(dev: Path, name: str) -> None:
    assert dev.exists()
    with pytest.raises(disk.DiskError, match=f"{name}: no such device here; disks: nvme1n1"):
        resolved(name)


def test_partitions_of_a_disk_whose_name_ends_in_a_digit() -> None:
    assert disk.partition("/dev/nvme1n1", 2) == "/dev/nvme1n1p2"
    assert disk.partition("/dev/xvdb", 2) == "/dev/xvdb2"


# copies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: (path / "file").unlink(), "file: not copied"),
        (lambda path: (path / "file").chmod(0o600), "file: mode"),
        (lambda path: (path / "file").write_text("x"), "file: size"),
        (lambda path: ((path / "link").unlink(), (path / "link").symlink_to("elsewhere")), "link: link"),
        (lambda path: path.chmod(0o700), "mode"),
        (lambda path: ((path / "dir").rmdir(), (path / "dir").write_text("")), "dir: mode"),
    ],
)
def test_a_copy_that_differs_is_seen(tmp_path: Path, spoil: Any, says: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "dir").mkdir(parents=True)
    (old / "file").write_text("text")
    (old / "link").symlink_to("nowhere")
    subprocess.run(["cp", "-a", old, new], check=True)
    later = (old / "file").stat().st_ctime + 9
    assert trees.differences(str(old), str(new), later) == []
    spoil(new)
    found = trees.differences(str(old), str(new), later)
    assert len(found) == 1
    assert says in found[0]
    assert trees.differences(str(old), str(new), 0) == []  # all of it was written meanwhile


# on a node --------------------------------------------------------------------------------------

FACTS = (
    "mkdir -p /var/lib/'a b'; echo hello > /var/lib/'a b'/file; ln /var/lib/'a b'/file /var/lib/hard;"
    "mkfifo /var/lib/fifo;"
    "ln -s nowhere /var/lib/dangling; chown 1000:1000 /var/lib/'a b'; chmod 2751 /var/lib/'a b';"
    "echo image > /var/lib/containerd/blob; echo home > /home/ec2-user/mine;"
    "python3 -c \"import os; os.setxattr('/var/lib/a b/file', 'user.note', b'kept');"
    "os.setxattr('/var/lib/hard', 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))\""
)
FACTS_OF = (
    "stat -c '%n %a %u %g %F' /var/lib/'a b' /var/lib/fifo /var/lib/dangling;"
    "stat -c '%n %a %u %g' /var /home /var/tmp /var/log /var/log/audit;"
    "stat -c '%n %a %u %g %h %s %Y' /var/lib/'a b'/file /var/lib/hard /var/lib/containerd/blob /home/ec2-user/mine;"
    "python3 -c \"import os; print(os.getxattr('/var/lib/a b/file', 'user.note'),"
    " os.getxattr('/var/lib/hard', 'security.capability').hex())\""
)


class Machine:
    """A node that is being made into an image, and the module on it."""

    def __init__(self, node: nodes.Node, tmp_path: Path) -> None:
        self.node, self._inventory = node, tmp_path / "inventory.yml"
        self._inventory.write_text(node.inventory())

    def run(self, check: bool = False, **arguments: Any) -> dict[str, Any]:
        argv = [Path(sys.executable).parent / "ansible", "all", "-i", self._inventory, "-b", "-o"]
        argv += ["-m", "cisdriver.amazon_linux.partition", "-a", json.dumps(arguments), *(["--check"] if check else [])]
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
        line = next((line for line in done.stdout.splitlines() if " => " in line), "")
        assert line, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(line.partition(" => ")[2])
        return answer

    def say(self, command: str) -> str:
        return self.node.exec(command, check=True).stdout


@pytest.fixture
def machine(start_node: Any, tmp_path: Path) -> Iterator[Machine]:
    """Stock, before it joins; three blank disks."""
    node = start_node("ami", volumes={"/dev/xvdb": 20, "/dev/sdf": 2, "/dev/sdg": 2})
    yield Machine(node, tmp_path)
    node.remove()
    assert not any(path.exists() for path in node.volumes)


@pytest.mark.node
def test_a_volume_is_laid_out_and_nothing_is_lost(machine: Machine) -> None:
    machine.say(FACTS)
    before, fstab = machine.say(FACTS_OF), machine.say("cat /etc/fstab")
    given: dict[str, Any] = {"device": "/dev/xvdb", "layout": DEFAULT}
    predicted = machine.run(check=True, **given)
    assert machine.say("cat /etc/fstab") == fstab
    done = machine.run(**given)
    assert done["changed"], done
    assert {**done, "diff": None} == {**predicted, "diff": None}
    assert done["mounts"]["/var"] == {"device": "/dev/nvme3n1p2", "mib": 2048}
    again = machine.run(**given, old_data="kept")
    assert (again["changed"], again["reboot_required"]) == (False, True)
    assert "Restart the machine first" in machine.run(**given, old_data="removed")["msg"]
    machine.node.reboot()
    machine.node.wait_running()
    assert machine.say(FACTS_OF) == before
    table = machine.say("findmnt -rno TARGET,FSTYPE,OPTIONS")
    assert "/var/log/audit xfs rw,nosuid,nodev,noexec," in table
    for path in ("/var/lib/containerd", "/var/lib/kubelet"):
        assert f"{path} xfs rw,noatime," in table, table
    assert machine.run(check=True, **given, old_data="removed")["changed"]
    assert machine.run(**given, old_data="removed")["changed"]
    assert not machine.run(**given, old_data="removed")["changed"]
    machine.say('mount --bind / /mnt; test -z "$(ls -A /mnt/var /mnt/home | grep -v :)"; umount /mnt')
    assert machine.say(FACTS_OF) == before
    machine.say(
        "cp /usr/bin/id /var/lib/kubelet/id; chmod 4755 /var/lib/kubelet/id;"
        "setpriv --reuid=1000 --clear-groups /var/lib/kubelet/id -u | grep -x 0"
    )


@pytest.mark.node
def test_a_device_per_mount_an_interruption_and_what_is_refused(machine: Machine) -> None:
    each = [
        {"path": "/var/log", "label": "log", "device": "/dev/sdf", "options": ["nodev", "noexec", "nosuid"]},
        {"path": "/home", "label": "home", "device": "/dev/sdg", "options": ["nodev"]},
    ]
    fstab = machine.say("cat /etc/fstab")
    # interrupted between the copying and fstab: a program that is missing will do
    machine.say("mv /usr/bin/cp /usr/bin/cp.away")
    assert "/home cannot be copied" in machine.run(layout=each)["msg"]
    machine.say("mv /usr/bin/cp.away /usr/bin/cp; ! findmnt /run/cisdriver-partition")
    assert machine.say("cat /etc/fstab") == fstab
    machine.node.reboot()
    machine.node.wait_running()
    assert machine.run(layout=each)["changed"]  # takes up what it had begun itself
    machine.node.reboot()
    machine.node.wait_running()
    assert machine.run(layout=each, old_data="removed")["changed"]
    assert "xfs rw,nosuid,nodev,noexec" in machine.say("findmnt -rno FSTYPE,OPTIONS /var/log")
    other = [{"path": "/var/tmp", "label": "tmp", "device": "/dev/sdg"}]
    assert "is mounted at /home" in machine.run(layout=other)["msg"]
    machine.say("mkfs.ext4 -q -F -L precious /dev/nvme3n1")
    foreign = machine.run(device="/dev/xvdb", layout=[{"path": "/var/tmp", "label": "tmp"}])["msg"]
    assert "it holds ext4 data labelled precious" in foreign
    assert "wipefs --all /dev/nvme3n1" in foreign
    assert "found both" in machine.run(device="/dev/xvdb", layout=other)["msg"]


@pytest.mark.node
def test_a_node_that_serves_a_cluster_is_refused(start_node: Any, tmp_path: Path) -> None:
    machine = Machine(start_node("node", volumes={"/dev/xvdb": 20}), tmp_path)
    said = machine.run(device="/dev/xvdb", layout=DEFAULT)["msg"]
    assert said.startswith("a kubelet runs here")
    assert machine.say("blkid --probe /dev/nvme1n1; test $? = 2") == ""
