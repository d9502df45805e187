"""A stock AL2023 image, hardened at level 2 over SSH, is still a node, on a kernel of its own.

The tests are one story, in this order; docs/vm.md tells it. `make test-vm` runs them.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.interruption import interrupt

from .conftest import Story, changed_tasks

pytestmark = [pytest.mark.vm, pytest.mark.slow]

NODE_CONFIG = """---
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  cluster:
    name: standin
    apiServerEndpoint: https://0123456789ABCDEF0123456789ABCDEF.gr7.us-west-2.eks.amazonaws.com
    certificateAuthority: U3RhbmQtaW4gY2x1c3Rlcg==
    cidr: 10.100.0.0/16
"""
#: Kernel-only breaks: rule, what breaks it on the hardened node, and a word of the evidence.
BREAKS = {
    "udf_disabled": ("modprobe --ignore-install udf", "udf"),
    "aslr_enabled": ("echo 0 > /proc/sys/kernel/randomize_va_space", "randomize_va_space"),
    "early_process_auditing_enabled": ("grubby --update-kernel ALL --remove-args audit=1", "audit"),
    "audit_user_group_changes": ("sed -i '/opasswd/d' /etc/audit/rules.d/*.rules", "opasswd"),
    "audit_running_rules_match_disk": ("true", "opasswd"),
}
#: What mends them.
MENDING = {
    "initial_setup : Kernel modules of file systems and USB storage",
    "initial_setup : Kernel parameters",
    "logging : Kernel arguments of the audit system",
    "logging : Audit rules",
}
#: All there is to know of /etc but times.
MANIFEST = (
    "find /etc -xdev -printf '%p %y %m %u %g %l\\n' | sort;"
    " find /etc -xdev -type f -print0 | sort -z | xargs -0 sha256sum"
)
#: What is in force: the kernel's arguments and values, audit rules, mounts, units. Not what pods leave behind.
STATE = (
    "xargs -n 1 < /proc/cmdline | sort; auditctl -l; getenforce;"
    " findmnt -rn -o TARGET,OPTIONS -t ext4,xfs | sort; findmnt -rn -o TARGET,OPTIONS /tmp /dev/shm;"
    " systemctl list-unit-files --no-legend --state=enabled,disabled,static,masked;"
    " grep -rhoE '^[a-z0-9._]+' /etc/sysctl.d | sort -u | xargs sysctl -e 2>/dev/null"
)
#: Topics of a hardening run, and where in each the power goes.
CUTS = {
    "mounts": interrupt.Step("after rename", r" -> /etc/fstab$"),
    "ssh": interrupt.Step("before rename", r" -> /etc/ssh/sshd_config"),
}
#: Room is taken without a write as long as there are 8 MiB, then written full.
FILL = """fallocate -l $(($(df --output=avail -B1 "$1" | tail -n 1) - 8388608)) "$1/fill"
dd if=/dev/zero of="$1/fill2" bs=1M 2>/dev/null; dd if=/dev/zero of="$1/fill3" bs=4k 2>/dev/null"""


def test_a_stock_node_boots_on_its_own_kernel(story: Story) -> None:
    with story.step("boot, stock") as words:
        story.machine.wait_ssh()
        assert story.machine.wait_running() == "running"
        words.append(story.machine.exec(["uname", "-r"], check=True).stdout.strip())
    assert "selinux=1 security=selinux" in story.machine.read("/proc/cmdline")
    assert story.machine.exec(["getenforce"]).stdout.strip() == "Permissive"
    assert story.machine.exec("auditctl -s").stdout.startswith("enabled 1")


def test_pods_on_the_stock_node(story: Story) -> None:
    with story.step("pods before") as words:
        story.machine.exec("systemctl start containerd && sysctl -qw net.ipv4.ip_forward=1", check=True)
        before = story.pods()
        story.machine.exec(["systemctl", "stop", "containerd"], check=True)
        words.append(f"{len(before)} calls")
    assert before == {
        "pod a calls pod b": "pod b\n",
        "pod b calls pod a": "pod a\n",
        "pod b calls pod a on the port of the node": "pod a\n",
        "pod b calls the outside": "outside\n",
        "the node calls pod b": "pod b\n",
        "the outside calls pod a": "pod a\n",
    }
    story.kept["pods"] = before


def test_partitions_are_found_by_label_at_boot(story: Story) -> None:
    (story.folder / "partitions.yml").write_text(
        json.dumps(
            [{"hosts": "all", "become": True, "gather_facts": False, "roles": ["cisdriver.amazon_linux.partitions"]}]
        )
    )
    with story.step("partitions, with reboot"):
        story.play(str(story.folder / "partitions.yml"))
    mounts = story.machine.exec("findmnt -no SOURCE,OPTIONS /var/log/audit", check=True).stdout
    assert mounts.startswith("/dev/nvme1n1p")
    assert "noexec" in mounts


def test_it_comes_back_when_the_power_goes_in_the_middle_of_hardening(story: Story) -> None:
    """tests/interruption stops runs on containers at forty points; here the disk is one, and so is the boot."""
    folder = story.folder / "cuts"
    folder.mkdir()
    run = interrupt.Run(story.machine, folder)
    story.kept["cuts"] = [story.texts()]
    problems = []
    with story.step("power cuts") as words:
        for topic, step in CUTS.items():
            run.up_to(interrupt.Point(step, "power"), "--tags", topic)
            problems += [f"{topic}: {problem}" for problem in interrupt.unsound(story.machine, interrupt.SOUND)]
            story.kept["cuts"].append(story.texts())
        words.append(f"{len(CUTS)}, back each time")
    assert problems == []


def test_hardens_over_ssh(story: Story) -> None:
    with story.step("harden, level 2") as words:
        words.append(f"{len(changed_tasks(story.play('cisdriver.amazon_linux.harden')))} tasks changed")
    stock, *cuts = story.kept["cuts"]
    final = story.texts()
    for cut in cuts:
        torn = {path for path, held in cut.items() if held not in (stock.get(path), final.get(path))}
        assert {path for path in torn if not interrupt.LEFTOVER.search(path)} == set(), "not as before, nor as hardened"
    assert [path for path in final if interrupt.LEFTOVER.search(path)] == []


def test_joins_and_serves_after_a_reboot(story: Story) -> None:
    """As an instance of the image: the user data makes it join, through every umask and mount option set before."""
    story.machine.put("/var/lib/cloud/instance/user-data.txt", NODE_CONFIG, mode=0o600)
    with story.step("reboot, and join") as words:
        story.machine.reboot()
        words.append(story.machine.wait_running())
    assert story.machine.exec(["systemctl", "--failed", "--no-legend"]).stdout == ""
    assert " audit=1 " in story.machine.read("/proc/cmdline").strip() + " "
    assert story.machine.exec("curl -sS http://127.0.0.1:10248/healthz").stdout == "ok"


def test_verifies(story: Story) -> None:
    results = story.folder / "verify.json"
    with story.step("verify") as words:
        story.play("cisdriver.amazon_linux.verify", "-e", f"verify_node_results_path={results}")
        found = json.loads(results.read_text())["results"]
        words.append(f"{len(found)} checks")
    assert {one["id"]: one["reason"] for one in found if one["status"] in ("fail", "error")} == {}


def test_the_audit_has_no_finding_that_is_not_accepted(story: Story) -> None:
    results = story.folder / "audit.json"
    with story.step("audit") as words:
        story.play("cisdriver.amazon_linux.audit", "-e", f"cis_results_path={results}")
        document = json.loads(results.read_text())
        counts = document["summary"]["counts"]
        words.append(
            f"{counts['pass']} pass, {len(document['summary']['exceptions'])} of {counts['fail']} fails accepted"
        )
    found = {
        one["id"]: one["reason"]
        for one in document["results"]
        if one["status"] in ("fail", "error") and not one["accepted"]
    }
    assert found == {}


def test_pods_on_the_hardened_node(story: Story) -> None:
    with story.step("pods after") as words:
        after = story.pods()
        words.append("as before" if after == story.kept["pods"] else "not as before")
    assert after == story.kept["pods"]


def test_a_watched_change_is_audited_under_its_key(story: Story) -> None:
    login = story.machine.ssh_command("sudo sh -c ': >> /etc/group'")
    assert subprocess.run(login, capture_output=True, timeout=120).returncode == 0
    said = story.machine.exec(
        "sleep 1; ausearch --input-logs -k identity --raw | grep -a type=SYSCALL | tail -n 1"
    ).stdout
    assert "auid=1000" in said, "who logged in is not who changed it"
    assert 'key="identity"' in said


def test_the_journal_outlives_the_reboot(story: Story) -> None:
    story.machine.exec("logger standin-was-here; journalctl --sync", check=True)
    assert "standin-was-here" in story.machine.exec("journalctl -q -b 0 -t root -o cat | tail").stdout
    assert len(story.machine.exec(["journalctl", "-q", "--list-boots"]).stdout.splitlines()) >= 2


def test_loaded_audit_rules_are_locked(story: Story) -> None:
    done = story.machine.exec("auditctl -w /etc/motd -p wa -k later")
    assert "immutable mode" in done.stdout + done.stderr
    assert "/etc/motd" not in story.machine.exec("auditctl -l").stdout
    assert story.machine.exec("auditctl -s").stdout.startswith("enabled 2")


def test_a_disabled_module_does_not_load(story: Story) -> None:
    assert story.machine.exec(["modprobe", "squashfs"]).returncode
    assert "squashfs" not in story.machine.exec(["lsmod"]).stdout
    story.machine.exec(["modprobe", "dummy"], check=True)


def test_what_only_a_kernel_shows_is_broken_and_mended(story: Story) -> None:
    with story.step("break, audit, mend, audit") as words:
        story.machine.exec(" && ".join(command for command, _ in BREAKS.values()), check=True)
        broken = story.audit(*BREAKS)
        # With the topics that lost power: the first run after it left them nothing to mend.
        again = changed_tasks(story.play("cisdriver.amazon_linux.harden", "--tags", ",".join([*BREAKS, *CUTS])))
        mended = story.audit(*BREAKS)
        words.append(f"{len(BREAKS)} rules")
    assert {slug: one["status"] for slug, one in broken.items()} == dict.fromkeys(BREAKS, "fail")
    for slug, (_, word) in BREAKS.items():
        assert word in json.dumps(broken[slug])
    assert {slug: one["reason"] for slug, one in mended.items() if one["status"] != "pass"} == {}
    assert again == MENDING


def test_a_full_log_partition_stops_nothing(story: Story) -> None:
    with story.step("full log partitions") as words:
        for folder in ("/var/log/audit", "/var/log"):
            story.machine.exec(["bash", "-c", FILL, "fill", folder])
        story.machine.exec("for i in $(seq 20); do : >> /etc/group; logger filling; done")
        left = story.machine.exec("df --output=avail /var/log/audit | tail -n 1", check=True).stdout
        assert int(left) < 100, "XFS keeps some KiB to itself"
        pods = story.pods()
        words.append("pods as before" if pods == story.kept["pods"] else "pods not as before")
        assert subprocess.run(story.machine.ssh_command("sudo true"), capture_output=True, timeout=120).returncode == 0
        assert (
            story.machine.exec(["systemctl", "is-active", "auditd", "kubelet", "containerd"]).stdout.split()
            == ["active"] * 3
        )
    story.machine.exec("rm /var/log/fill* /var/log/audit/fill*; service auditd resume", check=True)
    assert pods == story.kept["pods"]


def test_a_second_reboot_changes_nothing(story: Story) -> None:
    with story.step("second reboot") as words:
        before = [story.machine.exec(what, check=True).stdout.splitlines() for what in (STATE, MANIFEST)]
        story.machine.reboot()
        words.append(story.machine.wait_running())
        after = [story.machine.exec(what, check=True).stdout.splitlines() for what in (STATE, MANIFEST)]
    assert story.machine.exec(["systemctl", "--failed", "--no-legend"]).stdout == ""
    assert after == before
