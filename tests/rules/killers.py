"""What hardening by others does to a node, and how to see that ours does not.

The list is of public reports on roles and scripts for these benchmarks; each cost nodes, pods, logins or the build.
``alive`` is a shell line, run as root on a node hardened at level 2, that succeeds only while nothing of it is there.
"""

from __future__ import annotations

from typing import NamedTuple


class Killer(NamedTuple):
    """``what`` hardening does elsewhere, ``breaks`` what comes of it."""

    what: str
    breaks: str
    alive: str


_PROGRAMS = "/usr/bin/kubelet /usr/bin/containerd /usr/bin/nodeadm"
_DIRECTORIES = (
    "/usr/bin /usr/sbin /opt/cni/bin /usr/lib/systemd/system /etc/systemd"
    " $(ls -d /etc/eks /etc/kubernetes /etc/cni /etc/containerd 2>/dev/null)"
)
_TREES = "/var/lib/kubelet /var/lib/containerd"
_SYSCTL_FILES = "/etc/sysctl.conf /etc/sysctl.d"
#: The value that wins at boot, of all files sysctl --system reads.
_AT_BOOT = "sysctl --system 2>/dev/null | awk '/^{key} = /{{value = $3}} END {{exit !({test})}}'"

KILLERS = {
    "forwarding_off": Killer(
        "3.2.1 writes ip_forward = 0, in a file or at run time",
        "no pod is reached any more",
        "[ $(cat /proc/sys/net/ipv4/ip_forward) = 1 ] && "
        + _AT_BOOT.format(key="net.ipv4.ip_forward", test="value == 1"),
    ),
    "strict_reverse_path_per_interface": Killer(
        "3.3.7 sets rp_filter = 1 on each interface",
        "replies to pods on further network interfaces are dropped",
        f"! grep -rhE '^ *net[./]ipv4[./]conf[./]' {_SYSCTL_FILES} | grep -vE 'conf[./](all|default)[./]'",
    ),
    "router_advertisements_ignored_per_interface": Killer(
        "3.3.9 sets accept_ra = 0 on the primary interface",
        "a node of an IPv6 cluster loses its route",
        f"! grep -rhE '^ *net[./]ipv6[./]conf[./]' {_SYSCTL_FILES} | grep -vE 'conf[./](all|default)[./]'",
    ),
    "ipv6_disabled": Killer(
        "3.1.1 disables IPv6",
        "a node of an IPv6 cluster has no address",
        "[ $(cat /proc/sys/net/ipv6/conf/all/disable_ipv6) = 0 ] && ! grep -rqE 'disable_ipv6 *= *1' /etc/sysctl.d"
        " /etc/sysctl.conf && ! grep -rq ipv6.disable=1 /boot/loader/entries /etc/default/grub",
    ),
    "kubelet_kernel_values_replaced": Killer(
        "/etc/sysctl.conf or 99-amazon.conf is written anew",
        "kubelet refuses to start: protectKernelDefaults",
        "cd /proc/sys && [ $(cat vm/overcommit_memory)/$(cat kernel/panic)/$(cat kernel/panic_on_oops) = 1/10/1 ]",
    ),
    "firewalld_installed": Killer(
        "3.4.1.2 installs and starts firewalld",
        "kubelet, NodePorts and everything forwarded are rejected",
        "! rpm -q firewalld && ! systemctl is-active firewalld",
    ),
    "nftables_default_deny": Killer(
        "3.4.2.7 makes base chains that drop",
        "pods are cut off, whatever iptables says",
        "! nft list ruleset | grep 'policy drop' && [ $(systemctl is-enabled nftables) != enabled ]",
    ),
    "iptables_default_deny": Killer(
        "a policy of DROP for INPUT or FORWARD",
        "health checks, NodePorts and pods are dead",
        "! iptables -S | grep -E '^-P .* DROP' && ! ls /etc/sysconfig/iptables",
    ),
    "filter_tools_removed": Killer(
        "nftables or iptables is removed",
        "kubelet and kube-proxy cannot write rules",
        "command -v nft && command -v iptables && rpm -q nftables iptables-nft",
    ),
    "noexec_below_var": Killer(
        "/var, or what is mounted there, gets noexec or nosuid",
        "volumes of pods inherit it: nothing in them runs",
        "for p in /var/lib/kubelet /var/lib/containerd /opt/cni/bin; do"
        " ! findmnt -nro OPTIONS -T $p | grep -wE 'noexec|nosuid|nodev' || exit 1; done",
    ),
    "rescue_unbootable": Killer(
        "authentication for single-user mode is written into units with an unbalanced quote",
        "nobody gets into a node that does not boot",
        "! systemd-analyze verify --man=no rescue.service emergency.service 2>&1 | grep -E '(rescue|emergency).serv'",
    ),
    "sticky_bits_in_containers": Killer(
        "6.1.11 walks into container trees and sets sticky bits, or takes o-w from files",
        "other users of a volume cannot delete; non-root pods cannot write their termination message",
        f"find {_TREES} -type d -perm -0002 ! -perm -1000 | grep -q . && find {_TREES} -type f -perm -0002 | grep -q .",
    ),
    "unowned_files_given_away": Killer(
        "6.1.12 changes owners in container trees",
        "data of pods belongs to somebody else",
        f"find {_TREES} -nouser | grep -q .",
    ),
    "set_id_bits_taken_in_images": Killer(
        "6.1.13 takes set-uid bits from files of image layers",
        "su and ping in images do not work",
        "find /var/lib/containerd -type f -perm -4000 | grep -q .",
    ),
    "nfs_client_removed": Killer(
        "2.2.16 removes nfs-utils, or 2.2.17 rpcbind and nfs-utils with it",
        "kubelet cannot mount NFS volumes",
        "command -v mount.nfs && rpm -q nfs-utils rpcbind",
    ),
    "time_sync_replaced": Killer(
        "2.1.2 writes chrony.conf anew, with pool.ntp.org",
        "private subnets lose the time, and with it every signed request",
        "grep -rhE '^(server|pool)' /etc/chrony.conf /etc/chrony.d > /run/sources; ! grep ntp.org /run/sources &&"
        " { grep -qE '169.254.169.123|time.aws.com' /run/sources || grep -q ^sourcedir /etc/chrony.conf; }",
    ),
    "packages_cannot_be_installed": Killer(
        "1.2.4 asks for signed metadata where there is none",
        "every dnf fails",
        "dnf -q makecache --refresh",
    ),
    "selinux_enforced_at_once": Killer(
        "1.6.1.5 sets enforcing without labels and policy for containers",
        "nodeadm and kubelet are denied",
        "! grep -E '^SELINUX=enforcing' /etc/selinux/config && ! grep -r enforcing=1 /boot/loader/entries",
    ),
    "root_given_a_password": Killer(
        "4.6.6 stops without a password of root, or sets one for the fleet",
        "the run ends half-way; or a secret in every image",
        "[ \"$(passwd -S root | cut -d' ' -f2)\" = LK ] || [ \"$(passwd -S root | cut -d' ' -f2)\" = L ]",
    ),
    "login_limited_to_the_builder": Killer(
        "4.2.4 writes AllowUsers with the user of the build",
        "nobody else gets in: ec2-user, EC2 Instance Connect",
        "! sshd -T | grep -iE '^(allow|deny)(users|groups)'",
    ),
    "passwordless_sudo_taken": Killer(
        "NOPASSWD lines are removed",
        "sudo of Session Manager, of Ansible and of ec2-user is dead",
        "runuser -u ec2-user -- sudo -n true",
    ),
    "wheel_emptied": Killer(
        "4.3.6 empties the group wheel for su",
        "administrators lose sudo",
        "getent group wheel | grep -q ec2-user",
    ),
    "login_stacks_torn": Killer(
        "4.4 edits pam.d under authselect",
        "nobody can log in",
        "authselect check && runuser -l ec2-user -c true",
    ),
    "umask_of_the_builder": Killer(
        "4.6.5 takes effect before the rest of the image is built",
        "kubelet, CNI plugins and units are unreadable for those who run them",
        f'[ -z "$(find {_DIRECTORIES} -type d ! -perm -0005; find {_PROGRAMS} ! -perm -0005)" ]',
    ),
    "umask_of_services": Killer(
        "the default umask reaches kubelet and containerd",
        "pods get an /etc/hosts they cannot read",
        "for u in kubelet containerd nodeadm-config nodeadm-run; do"
        ' [ "$(systemctl show -p UMask --value $u)" = 0022 ] || exit 1; done',
    ),
    "node_halted_by_its_log": Killer(
        "5.2.2.2 and 5.2.2.3 keep all logs, and halt when there is no room",
        "any pod can bring the node down",
        "! grep -iE '^[a-z_]+_action *= *(halt|single|keep_logs)' /etc/audit/auditd.conf &&"
        " ! auditctl -l | grep -E '^-f 2' && ! grep -rE '^-f +2' /etc/audit/rules.d",
    ),
    "kernel_arguments_lost": Killer(
        "5.2.1.2 writes the kernel's command line anew",
        "the next boot lacks root= or the console",
        "grep -h ^options /boot/loader/entries/*.conf | grep root= | grep -q console=",
    ),
    "needed_modules_disabled": Killer(
        "1.1.1 disables overlay, vfat or what kube-proxy needs",
        "no container starts",
        "for m in overlay br_netfilter ip_tables iptable_nat nf_conntrack xfs ext4 vfat nfs veth; do"
        " modprobe -n -v $m 2>/dev/null | grep -E '/bin/(false|true)' && exit 1; done; :",
    ),
    "cron_brought_in": Killer(
        "1.3.2 installs cron for AIDE, and every node scans at five o'clock",
        "the disks of all nodes are busy at once",
        "! rpm -q cronie && systemctl cat aidecheck.timer | grep -q RandomizedDelaySec",
    ),
    "rsyslog_brought_in": Killer(
        "5.1.1.1 installs rsyslog beside journald",
        "logs are written twice until the kubelet evicts",
        "! rpm -q rsyslog",
    ),
}
