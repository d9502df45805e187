"""How to break one check of verify_node on a hardened node: those of units, paths, access, storage and containers.

``also`` names checks that rightly fail with it. What a container cannot show stands in ELSEWHERE, with the reason.
"""

from __future__ import annotations

from .breaking import Break

#: Its name comes after that of hardening's own.
_DROPIN = "/etc/systemd/system/{unit}.d/zzz-broken.conf"


def _dropin(unit: str, *lines: str) -> tuple[str, str]:
    """Commands that add a drop-in and take it away again."""
    path = _DROPIN.format(unit=unit)
    text = "\\n".join(lines)
    return (
        f"mkdir -p {path.rpartition('/')[0]}; printf '{text}\\n' > {path}; systemctl daemon-reload",
        f"rm {path}; rmdir {path.rpartition('/')[0]} 2>/dev/null; systemctl daemon-reload",
    )


_UMASK = _dropin("kubelet.service", "[Service]", "UMask=0077")
_QUOTE = _dropin("rescue.service", "[Service]", "ExecStart=", 'ExecStart=-/bin/bash -c "/sbin/sulogin')
_KEY = _dropin("containerd.service", "[Service]", "Umask=0022")
_FAILING = (
    "printf '[Service]\\nExecStart=/bin/sh -c \"echo there is no such device; exit 3\"\\n'"
    " > /etc/systemd/system/broken.service; systemctl daemon-reload; systemctl start broken || true"
)

#: Several ways per check: a node is killed in more than one.
BY_CHECK: dict[str, tuple[Break, ...]] = {
    "units_valid": (
        Break("systemctl mask -q containerd", "containerd.service", "systemctl unmask -q containerd"),
        Break("systemctl disable -q nodeadm-run", "nodeadm-run.service", "systemctl enable -q nodeadm-run"),
        Break(_QUOTE[0], "rescue.service", _QUOTE[1]),
        Break(_KEY[0], "/etc/systemd/system/containerd.service.d/zzz-broken.conf:2", _KEY[1]),
        Break("mv /usr/bin/nodeadm /root/", "/usr/bin/nodeadm", "mv /root/nodeadm /usr/bin/"),
    ),
    "service_umask": (Break(_UMASK[0], "kubelet.service.d/zzz-broken.conf:2", _UMASK[1]),),
    "failed_units": (
        Break(
            _FAILING,
            "there is no such device",
            "systemctl reset-failed broken; rm /etc/systemd/system/broken.service; systemctl daemon-reload",
        ),
    ),
    "files_readable": (
        Break("chmod 0750 /usr/bin/kubelet", "/usr/bin/kubelet", "chmod 0755 /usr/bin/kubelet"),
        Break("chmod 0750 /opt/cni", "/opt/cni above it", "chmod 0755 /opt/cni"),
        Break("chmod 0640 /etc/eks/release", "/etc/eks/release", "chmod 0644 /etc/eks/release"),
        Break(
            "echo '[Match]' > /etc/systemd/network/10-x.network; chmod 0640 /etc/systemd/network/10-x.network",
            "the user systemd-network",
            "rm /etc/systemd/network/10-x.network",
        ),
    ),
    "exec_allowed": (
        Break(
            "mount --bind /var/lib/kubelet /var/lib/kubelet && mount -o remount,bind,noexec /var/lib/kubelet",
            "/var/lib/kubelet (now)",
            "umount /var/lib/kubelet",
        ),
        Break(
            "cp -p /etc/fstab /root/; echo 'tmpfs /opt tmpfs noexec,nofail 0 0' >> /etc/fstab",
            "/opt/cni/bin (at boot)",
            "cp -p /root/fstab /etc/fstab",
        ),
        Break(
            "printf '[Mount]\\nWhat=tmpfs\\nWhere=/var/lib/containerd\\nType=tmpfs\\nOptions=nosuid\\n'"
            " > /etc/systemd/system/var-lib-containerd.mount",
            "var-lib-containerd.mount:5",
            "rm /etc/systemd/system/var-lib-containerd.mount",
        ),
    ),
    "node_programs": (
        Break("mv /usr/sbin/mount.nfs /root/", "mount.nfs", "mv /root/mount.nfs /usr/sbin/"),
        Break("chmod 0644 /usr/sbin/conntrack", "/usr/sbin/conntrack", "chmod 0755 /usr/sbin/conntrack"),
    ),
    "sshd": (
        Break(
            "echo 'AllowUsers somebody' > /etc/ssh/sshd_config.d/00-aa.conf",
            "somebody",
            "rm /etc/ssh/sshd_config.d/00-aa.conf",
        ),
        Break(
            "echo 'LogLevel LOUD' > /etc/ssh/sshd_config.d/00-aa.conf",
            "00-aa.conf",
            "rm /etc/ssh/sshd_config.d/00-aa.conf",
        ),
        Break(
            "printf 'Match User ec2-user\\nPubkeyAuthentication no\\n' > /etc/ssh/sshd_config.d/00-aa.conf",
            "PubkeyAuthentication",
            "rm /etc/ssh/sshd_config.d/00-aa.conf",
        ),
        Break("chmod g+w /home/ec2-user/.ssh", "/home/ec2-user/.ssh", "chmod g-w /home/ec2-user/.ssh"),
        Break("chown -R root:root /home/ec2-user/.ssh", "authorized_keys", "chown -R ec2-user: /home/ec2-user/.ssh"),
        Break("touch /etc/nologin", "/etc/nologin", "rm /etc/nologin"),
    ),
    "sudo": (
        Break(
            "echo 'ec2-user ALL=(ALL' > /etc/sudoers.d/zz; chmod 440 /etc/sudoers.d/zz",
            "/etc/sudoers.d/zz",
            "rm /etc/sudoers.d/zz",
        ),
        Break(
            "echo 'ec2-user ALL=(ALL) ALL' > /etc/sudoers.d/zz; chmod 440 /etc/sudoers.d/zz",
            "sudo -n true as ec2-user",
            "rm /etc/sudoers.d/zz",
        ),
    ),
    "ssm_agent": (
        Break(
            "systemctl mask -q amazon-ssm-agent",
            "amazon-ssm-agent.service",
            "systemctl unmask -q amazon-ssm-agent",
            also=("units_valid",),
        ),
        Break(
            "systemctl disable -q amazon-ssm-agent", "amazon-ssm-agent.service", "systemctl enable -q amazon-ssm-agent"
        ),
        Break(
            "useradd -s /sbin/nologin ssm-user; chage -M -1 ssm-user;"
            " echo 'ssm-user ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/ssm-agent-users; chmod 440 /etc/sudoers.d/*",
            "shell of ssm-user",
            "userdel -r ssm-user; rm /etc/sudoers.d/ssm-agent-users",
        ),
        Break(
            "useradd -s /bin/bash ssm-user; chage -M -1 ssm-user;"
            " echo 'ssm-user ALL=(ALL) ALL' > /etc/sudoers.d/ssm-agent-users; chmod 440 /etc/sudoers.d/*",
            "sudo -n true as ssm-user",
            "userdel -r ssm-user; rm /etc/sudoers.d/ssm-agent-users",
        ),
    ),
    "password_aging": (
        # PAM refuses sudo to an expired account as it refuses the login
        Break("chage -E 2020-01-01 ec2-user", "expiry of account ec2-user", "chage -E -1 ec2-user", also=("sudo",)),
        Break("chage -M 365 ec2-user", "ages after 365 days", "chage -M 99999 ec2-user"),
    ),
    "fstab": (
        Break(
            "cp -p /etc/fstab /root/; echo '/dev/xvdz /srv xfs defaults 0 2' >> /etc/fstab",
            "/dev/xvdz",
            "cp -p /root/fstab /etc/fstab",
        ),
        Break("cp -p /etc/fstab /root/; echo '/dev/null' >> /etc/fstab", "/etc/fstab:", "cp -p /root/fstab /etc/fstab"),
    ),
    "auditd_cannot_halt": (
        Break(
            "cp -p /etc/audit/auditd.conf /root/; sed -i 's/^disk_full_action.*/disk_full_action = halt/'"
            " /etc/audit/auditd.conf",
            "disk_full_action",
            "cp -p /root/auditd.conf /etc/audit/",
        ),
        Break(
            "cp -p /etc/audit/auditd.conf /root/; printf '#!/bin/sh\\nsystemctl poweroff\\n' > /root/full.sh; sed -i"
            " 's|^space_left_action.*|space_left_action = exec /root/full.sh|' /etc/audit/auditd.conf",
            "poweroff",
            "cp -p /root/auditd.conf /etc/audit/; rm /root/full.sh",
        ),
        Break(
            "cp -p /etc/audit/auditd.conf /root/; sed -i 's/^max_log_file_action.*/max_log_file_action = keep_logs/'"
            " /etc/audit/auditd.conf",
            "keep_logs",
            "cp -p /root/auditd.conf /etc/audit/",
        ),
        Break(
            "echo '-f 2' > /etc/audit/rules.d/zz.rules",
            "/etc/audit/rules.d/zz.rules:1",
            "rm /etc/audit/rules.d/zz.rules",
        ),
    ),
    "container_runs": (
        Break("chmod a-x /usr/sbin/runc", "runc", "chmod a+x /usr/sbin/runc", also=("node_programs",)),
        Break(
            "iptables -I FORWARD -j DROP",
            "reached from outside",
            "iptables -D FORWARD -j DROP",
            also=("forwarded_paths", "pod_network"),
        ),
    ),
}

#: Check to the reason why no stand-in shows it broken.
ELSEWHERE = {
    "disk_room": "the disk is the machine's: tests/kinds/test_verify_storage.py breaks it, the VM fills one",
    "inodes": "the disk is the machine's: tests/kinds/test_verify_storage.py breaks it",
    "selinux_labels": "in a container SELinux is the host's: tests/kinds/test_verify_containers.py breaks it",
}
