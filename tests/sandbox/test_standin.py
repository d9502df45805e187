"""The stand-in node is what it says it is: a stock EKS AL2023 node, as far as a container can be one.

What a container cannot show (a kernel of its own, SELinux, audit events) is in docs/stand-in.md and tested in tests/vm.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cisdriver.sandbox import node as nodes
from cisdriver.sandbox import standin
from cisdriver.sandbox.standin import StandinError

from tests.conftest import StartNode

pytestmark = pytest.mark.node

CONTAINER_TREES = ("/var/lib/containerd", "/var/lib/kubelet", "/var/lib/soci-snapshotter-grpc")
SUID = {
    *(f"4755 /usr/bin/{name}" for name in ("su", "chage", "gpasswd", "newgrp", "mount", "umount", "passwd")),
    "4111 /usr/bin/sudo",
    *(f"4755 /usr/sbin/{name}" for name in ("mount.nfs", "pam_timestamp_check", "unix_chkpwd", "grub2-set-bootflag")),
    "2755 /usr/bin/write",
    "2755 /usr/libexec/utempter/utempter",
    "2755 /usr/libexec/openssh/ssh-keysign",
}
MODES = {
    **dict.fromkeys(("/etc/passwd", "/etc/passwd-", "/etc/group", "/etc/group-"), "644 root:root"),
    **dict.fromkeys(("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-"), "0 root:root"),
    **dict.fromkeys(("/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/50-redhat.conf"), "600 root:root"),
    "/etc/sudoers": "440 root:root",
    "/etc/sudoers.d/90-cloud-init-users": "440 root:root",
    "/etc/ssh/ssh_host_ecdsa_key": "640 root:ssh_keys",
    "/etc/ssh/ssh_host_ed25519_key": "600 root:root",
    "/etc/audit": "750 root:root",
    "/etc/audit/auditd.conf": "640 root:root",
    "/etc/audit/rules.d/audit.rules": "600 root:root",
    "/var/log/audit/audit.log": "600 root:root",
    "/home/ec2-user": "700 ec2-user:ec2-user",
    "/var/log/chrony/tracking.log": "644 chrony:chrony",
    "/etc/issue": "644 root:root",
    "/run/containerd/containerd.sock": "660 root:root",
}
SYSCTL = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "2",
    "net.ipv4.conf.all.send_redirects": "1",
    "net.ipv4.conf.default.send_redirects": "1",
    "net.ipv4.conf.all.secure_redirects": "1",
    "net.ipv4.conf.all.log_martians": "0",
    "net.ipv4.icmp_echo_ignore_broadcasts": "1",
    "net.ipv4.icmp_ignore_bogus_error_responses": "1",
    "net.ipv4.tcp_syncookies": "1",
    "kernel.randomize_va_space": "2",
    "kernel.yama.ptrace_scope": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.sysrq": "16",
    "kernel.pid_max": "4194304",
    "vm.overcommit_memory": "1",
    "fs.protected_hardlinks": "1",
    "fs.inotify.max_user_watches": "524288",
}
SSHD = {
    **dict.fromkeys(("usepam", "ignorerhosts", "x11forwarding"), "yes"),
    **dict.fromkeys(("hostbasedauthentication", "permitemptypasswords", "permituserenvironment"), "no"),
    "passwordauthentication": "no",
    "maxsessions": "10",
    "maxauthtries": "6",
    "loglevel": "INFO",
    "banner": "none",
    "logingracetime": "120",
    "clientaliveinterval": "0",
    "syslogfacility": "AUTHPRIV",
    "gssapiauthentication": "yes",
    "ciphers": "aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes128-gcm@openssh.com,aes128-ctr",
}
HOST_KEYS = ("kernel", "vm", "fs")


@pytest.fixture
def node(stock_node_of_module: nodes.Node) -> nodes.Node:
    return stock_node_of_module


def host_sysctls() -> dict[str, str]:
    """What of the machine's own settings a node could spoil; counters that move by themselves are left out."""
    moving = (
        "random",
        "ns_last_pid",
        "dentry-state",
        "file-nr",
        "inode-",
        "pty",
        "nr_",
        "stat_refresh",
        "sched_domain",
    )
    found = {}
    for top in HOST_KEYS:
        for path in sorted(Path("/proc/sys", top).rglob("*")):
            if path.is_file() and not any(word in str(path) for word in moving) and path.stat().st_mode & 0o200:
                try:
                    found[str(path)] = path.read_text()
                except OSError:
                    continue
    return found


def lines(node: nodes.Node, command: str) -> list[str]:
    return node.exec(command, check=True).stdout.splitlines()


def test_boots_without_a_failed_unit(node: nodes.Node) -> None:
    assert node.wait_running() == "running", node.exec("systemctl --failed").stdout


def test_ec2_user_logs_in_and_becomes_root(node: nodes.Node) -> None:
    done = subprocess.run(node.ssh_command("sudo id -u; umask"), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0", "0002"], done.stderr


def test_ansible_takes_it_for_amazon_linux(node: nodes.Node, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.json"
    inventory.write_text(node.inventory("n"))
    ansible = Path(sys.executable).parent / "ansible"
    command = [ansible, "-i", inventory, "n", "-m", "setup", "-o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout.partition("=> ")[2])["ansible_facts"]
    wanted = {"distribution": "Amazon", "distribution_version": "2023", "os_family": "RedHat", "pkg_mgr": "dnf"}
    assert {key: facts[f"ansible_{key}"] for key in wanted} == wanted
    assert facts["ansible_service_mgr"] == "systemd"


def test_packages_are_those_of_the_minimal_image(node: nodes.Node) -> None:
    present = lines(node, "rpm -qa --qf '%{NAME}\\n'")
    assert {"audit", "chrony", "nfs-utils", "rpcbind", "nftables", "selinux-policy-targeted", "grubby"} <= set(present)
    assert not {"aide", "rsyslog", "cronie", "authselect", "firewalld", "telnet", "httpd"} & set(present)
    assert lines(node, "rpm -q --whatprovides 'system-release(releasever)'")[0].startswith("system-release-2023.12")


def test_no_file_differs_from_its_package(node: nodes.Node) -> None:
    assert node.exec("rpm -Va").stdout == ""


def test_file_modes_are_stock(node: nodes.Node) -> None:
    found = dict(reversed(line.split("|")) for line in lines(node, f"stat -c '%a %U:%G|%n' {' '.join(MODES)}"))
    assert found == MODES


def test_set_id_programs_are_stock(node: nodes.Node) -> None:
    pruned = " -o ".join(f"-path {tree}" for tree in CONTAINER_TREES)
    found = lines(node, rf"find / -xdev \( {pruned} \) -prune -o -type f -perm /6000 -printf '%m %p\n'")
    assert set(found) == SUID


def test_nothing_outside_the_container_trees_is_unowned_or_world_writable(node: nodes.Node) -> None:
    pruned = " -o ".join(f"-path {tree}" for tree in CONTAINER_TREES)
    unowned = lines(node, rf"find / -xdev \( {pruned} \) -prune -o \( -nouser -o -nogroup \) -print")
    writable = lines(
        node, rf"find / -xdev \( {pruned} \) -prune -o \( -type f -o -type d ! -perm -1000 \) -perm -2 -print"
    )
    assert (unowned, writable) == ([], [])


def test_sysctls_are_stock(node: nodes.Node) -> None:
    found = {key: node.exec(["sysctl", "-n", key]).stdout.strip() for key in SYSCTL}
    assert found == SYSCTL


def test_sshd_is_stock(node: nodes.Node) -> None:
    found = dict(line.split(" ", 1) for line in lines(node, "sshd -T 2>/dev/null"))
    assert {key: found[key] for key in SSHD} == SSHD
    assert not {"allowusers", "allowgroups", "denyusers"} & set(found)


def test_mounts_are_stock(node: nodes.Node) -> None:
    for path, wanted in (("/tmp", {"nosuid", "nodev"}), ("/dev/shm", {"nosuid", "nodev"})):
        options = set(lines(node, f"findmnt -no OPTIONS {path}")[0].split(","))
        assert wanted <= options
        assert "noexec" not in options
    assert node.exec("findmnt /var /home /var/log").returncode


@pytest.mark.parametrize("module", ["squashfs", "udf", "sctp", "rds"])
def test_module_can_be_loaded(node: nodes.Node, module: str) -> None:
    assert node.exec(f"modprobe -n -v {module}", check=True).stdout.splitlines()[-1].startswith("insmod ")


@pytest.mark.parametrize("module", ["cramfs", "freevxfs", "jffs2", "hfs", "hfsplus", "usb-storage", "dccp", "tipc"])
def test_module_is_not_built(node: nodes.Node, module: str) -> None:
    assert "not found" in node.exec(f"modprobe -n -v {module}").stderr


def test_services_are_stock(node: nodes.Node) -> None:
    units = {
        "sshd": "enabled",
        "chronyd": "enabled",
        "auditd": "enabled",
        "kubelet": "disabled",
        "containerd": "disabled",
    }
    assert {unit: node.exec(f"systemctl is-enabled {unit}").stdout.strip() for unit in units} == units
    assert set(node.exec(f"systemctl is-active {' '.join(units)}").stdout.split()) == {"active"}


def test_container_trees_hold_what_a_scan_must_step_over(node: nodes.Node) -> None:
    fs = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/fs"
    pod = "/var/lib/kubelet/pods/3f0c2f0e-6a52-4d4c-9a39-1f6b1e3c7d11"
    wanted = {
        f"{fs}/data": "777 0:0",
        f"{fs}/tmp": "1777 0:0",
        f"{fs}/usr/bin/su": "4755 0:0",
        f"{fs}/srv/x": "755 65532:65532",
        f"{fs}/home/app": "755 1001:2000",
        f"{pod}/volumes/kubernetes.io~empty-dir/cache": "777 0:0",
        f"{pod}/volumes/kubernetes.io~empty-dir/cache/file": "666 1001:0",
        f"{pod}/volumes/kubernetes.io~csi/pvc-1/mount": "2775 0:2000",
    }
    found = dict(reversed(line.split("|")) for line in lines(node, f"stat -c '%a %u:%g|%n' {' '.join(wanted)}"))
    assert found == wanted
    assert "overlay" in lines(node, "findmnt -nro FSTYPE,TARGET | grep io.containerd.runtime.v2.task")[0]
    assert node.exec("ls /opt/agent /usr/local/bin/tool /srv/old").stdout == ""


def test_machine_is_never_written(start_node: StartNode) -> None:
    before = host_sysctls()
    node = start_node()
    node.put("/etc/sysctl.d/99-z.conf", "kernel.randomize_va_space=1\nvm.max_map_count=99999\nkernel.pid_max=5000\n")
    node.exec("sysctl -w kernel.panic=77 fs.suid_dumpable=1 vm.swappiness=7 kernel.yama.ptrace_scope=2", check=True)
    assert node.exec("sysctl -w kernel.no_such_key=1").returncode
    assert node.exec("echo 1 > /proc/sys/kernel/no_such_key").returncode
    node.reboot()
    assert lines(node, "sysctl -n kernel.randomize_va_space kernel.pid_max kernel.panic") == ["1", "5000", "10"]
    assert host_sysctls() == before


def test_machine_clock_and_disks_are_out_of_reach(node: nodes.Node) -> None:
    effective = int(lines(node, "sed -n 's/^CapEff:\\t//p' /proc/self/status")[0], 16)
    sys_module, sys_rawio, sys_time = 16, 17, 25
    assert not effective & (1 << sys_module | 1 << sys_rawio | 1 << sys_time)
    assert not node.exec("ls -d /dev/vd* /dev/sd* /dev/mem /dev/kmsg").stdout
    assert "ro" in lines(node, "findmnt -no OPTIONS /sys")[0].split(",")


def test_dnf_installs_and_removes(stock_node: nodes.Node) -> None:
    installed = stock_node.exec("dnf -q -y install aide rsyslog && aide --init && systemctl start rsyslog", check=True)
    assert "initialized" in installed.stdout
    assert stock_node.exec("logger marker; sleep 0.5; grep -q marker /var/log/messages").returncode == 0
    assert (
        stock_node.exec("rpm -K /usr/share/standin/repo/Packages/aide-*.rpm").stdout.strip().endswith("signatures OK")
    )
    stock_node.exec("dnf -q -y remove rpcbind rsyslog", check=True)
    assert stock_node.exec("rpm -q nfs-utils rpcbind rsyslog").stdout.count("not installed") == 3
    assert not stock_node.exec("ls /usr/sbin/rsyslogd /usr/lib/systemd/system/nfs-server.service").stdout
    assert stock_node.exec("dnf -y install setroubleshoot").returncode
    assert stock_node.exec("dnf -y remove setroubleshoot").returncode == 0


def test_repository_metadata_can_be_verified(stock_node: nodes.Node) -> None:
    check = "dnf clean all; dnf -y --setopt=amazonlinux.repo_gpgcheck=1 --setopt=skip_if_unavailable=0 makecache"
    assert stock_node.exec(check).returncode == 0
    stock_node.exec("sed -i s,standin/repo$,standin/repo-unsigned, /etc/yum.repos.d/amazonlinux.repo", check=True)
    assert stock_node.exec(check).returncode


def test_reboot_keeps_disk_and_port(stock_node: nodes.Node) -> None:
    before = (stock_node.ssh_port, stock_node.boot_id(), stock_node.read("/etc/machine-id"))
    stock_node.put("/root/mark", "here\n")
    stock_node.reboot()
    assert stock_node.read("/root/mark") == "here\n"
    assert stock_node.read("/etc/machine-id") == before[2]
    assert stock_node.boot_id() not in ("", before[1])
    assert nodes.find(stock_node.name).ssh_port == before[0]
    assert stock_node.wait_running() == "running"


def test_power_off_stays_off_until_started(stock_node: nodes.Node) -> None:
    stock_node.exec("systemctl poweroff")
    time.sleep(5)
    assert not stock_node.running()
    stock_node.start_again()
    assert stock_node.wait_running() == "running"


def test_reboot_may_never_come_back(start_node: StartNode) -> None:
    node = start_node(restart=False)
    with pytest.raises(StandinError, match="expected another boot within 5 s"):
        node.reboot(timeout=5)


def test_boot_entry_becomes_the_command_line(stock_node: nodes.Node) -> None:
    stock_node.exec(
        "grubby --update-kernel ALL --args 'audit=1 audit_backlog_limit=8192' --remove-args quiet", check=True
    )
    assert "audit=1" not in stock_node.read("/proc/cmdline")
    stock_node.reboot()
    words = stock_node.read("/proc/cmdline").split()
    assert {"audit=1", "audit_backlog_limit=8192"} <= set(words)
    assert "quiet" not in words


def test_kubelet_refuses_what_the_real_one_refuses(stock_node: nodes.Node) -> None:
    assert stock_node.exec("curl -s 127.0.0.1:10248/healthz").stdout == "ok"
    stock_node.exec("sysctl -w vm.overcommit_memory=0; systemctl restart kubelet", check=True)
    time.sleep(1)
    assert stock_node.exec("systemctl is-active kubelet").stdout.strip() != "active"
    said = stock_node.exec("journalctl -u kubelet --no-pager").stdout
    assert "invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0" in said


def test_joining_goes_through_the_umask(stock_node: nodes.Node) -> None:
    assert (
        lines(stock_node, "stat -c %a /etc/kubernetes/kubelet/config.json /var/lib/kubelet/kubeconfig") == ["644"] * 2
    )
    stock_node.exec("rm -rf /etc/kubernetes/kubelet; umask 077; nodeadm init --skip config", check=True)
    assert lines(stock_node, "stat -c %a /etc/kubernetes/kubelet/config.json /etc/kubernetes/kubelet") == ["600", "700"]


def test_audit_rules_are_kept_and_locked(stock_node: nodes.Node) -> None:
    assert stock_node.exec("auditctl -l").stdout == "-a never,task\n"
    rules = "-D\n-w /etc/group -p wa -k identity\n-a always,exit -F arch=b64 -S settimeofday,adjtimex -k time\n-e 2\n"
    stock_node.put("/etc/audit/rules.d/audit.rules", rules, 0o600)
    stock_node.exec("augenrules --load", check=True)
    listed = "-w /etc/group -p wa -k identity\n-a always,exit -F arch=b64 -S adjtimex,settimeofday -F key=time\n"
    assert stock_node.exec("auditctl -l").stdout == listed
    assert stock_node.exec("auditctl -w /etc/hosts -p wa").returncode
    assert stock_node.exec("systemctl restart auditd").returncode
    assert stock_node.exec("service auditd restart").returncode == 0


def test_ami_is_clean_and_makes_its_keys_at_first_boot(stock_image: str, ami_node: nodes.Node) -> None:
    files = "ls /etc/ssh/ssh_host_* /etc/hostname; cat /etc/machine-id"
    command = ("run", "--rm", "--network=none", *standin.PODMAN_RUN, standin.image("ami"), "bash", "-c", files)
    assert "ssh_host" not in standin.podman(*command, check=False).stdout
    assert ami_node.exec("ls /etc/ssh/ssh_host_ed25519_key && grep -q . /etc/machine-id").returncode == 0
    assert ami_node.exec("ls /etc/kubernetes/kubelet /etc/eks/kubelet").returncode
    assert ami_node.exec("systemctl is-active kubelet").stdout.strip() == "inactive"
    assert stock_image != standin.image("ami")


def test_image_of_a_node_starts_another(ami_node: nodes.Node, start_node: StartNode) -> None:
    ami_node.put("/etc/motd.d-mark", "baked\n")
    reference = ami_node.commit(f"{ami_node.name}:baked")
    try:
        config = "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: other\n"
        second = start_node(reference, user_data=config)
        assert second.read("/etc/motd.d-mark") == "baked\n"
        assert "other" in second.read("/var/lib/kubelet/kubeconfig")
        assert second.exec("systemctl is-active kubelet").stdout.strip() == "active"
        second.remove()
    finally:
        standin.podman("rmi", "-f", reference, check=False)


def test_key_of_the_caller_is_let_in(start_node: StartNode, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    node = start_node("ami", authorized_key=key.with_suffix(".pub").read_text())
    assert node.ssh_key == ""
    node.wait_ssh()
    node.ssh_key = str(key)
    node.wait_ssh()


def test_unknown_state_says_what_there_is() -> None:
    with pytest.raises(StandinError, match="'al2': expected one of base, ami, node"):
        standin.image("al2")
