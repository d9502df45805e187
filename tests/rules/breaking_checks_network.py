"""How to break what verify_node's checks of kernel, network, name and time ask for, as Break of ``breaking``.

``also`` names other checks that rightly fail with it. What stands in MORE are further ways to break the same check.
"""

from __future__ import annotations

from .breaking import Break

_SYSCTL = "/etc/sysctl.d/99-zz-broken.conf"
_MODPROBE = "/etc/modprobe.d/zz-broken.conf"
#: The checks that send packets.
_TRAFFIC = ("pod_network", "container_runs")
_NO_TABLE = "nft delete table inet broken"


def _sysctl_file(line: str) -> Break:
    """A file that is read after all others, for the next boot alone."""
    return Break(f"echo '{line}' > {_SYSCTL}", f"{_SYSCTL}:1", f"rm {_SYSCTL}")


def _nft(hook: str, policy: str, *rules: str, words: str, also: tuple[str, ...] = ()) -> Break:
    chain = f"nft 'add chain inet broken {hook} {{ type filter hook {hook} priority 0; policy {policy}; }}'"
    added = [f"nft 'add rule inet broken {hook} {rule}'" for rule in rules]
    return Break(" && ".join(["nft add table inet broken", chain, *added]), words, _NO_TABLE, also)


def _boot_rules(*rules: str) -> str:
    """nftables.service enabled, and a file of rules that its own includes."""
    text = "\\n".join(rules)
    return (
        "cp -p /etc/sysconfig/nftables.conf /root/nftables.broken;"
        f" printf '{text}\\n' > /etc/nftables/broken.nft;"
        " echo 'include \"/etc/nftables/broken.nft\"' >> /etc/sysconfig/nftables.conf;"
        " systemctl enable -q nftables"
    )


_NO_BOOT_RULES = (
    "systemctl disable -q nftables; rm /etc/nftables/broken.nft; mv /root/nftables.broken /etc/sysconfig/nftables.conf"
)

#: A unit of iptables-services, which loads rules at boot and is gone.
_IPTABLES_UNIT = "/usr/lib/systemd/system/iptables.service"
_IPTABLES_RULES = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
COMMIT
"""

BY_CHECK: dict[str, Break] = {
    "forwarding": _sysctl_file("net.ipv4.ip_forward = 0"),
    "bridge_traffic": _sysctl_file("net.bridge.bridge-nf-call-iptables = 0"),
    "kubelet_kernel_values": _sysctl_file("vm.overcommit_memory = 0"),
    "kernel_modules": Break(f"echo 'install overlay /bin/false' > {_MODPROBE}", f"{_MODPROBE}:1", f"rm {_MODPROBE}"),
    "ipv6": _sysctl_file("net.ipv6.conf.all.disable_ipv6 = 1"),
    "reverse_path_filter": _sysctl_file("net.ipv4.conf.ens5.rp_filter = 1"),
    "inbound_paths": _nft("input", "accept", "tcp dport 10250 drop", words="chain inet broken input"),
    "forwarded_paths": Break(
        "iptables -P FORWARD DROP", "filter (iptables) FORWARD", "iptables -P FORWARD ACCEPT", _TRAFFIC
    ),
    "outbound_paths": _nft("output", "accept", "udp dport 123 drop", words="dropped at port 123 by rule handle"),
    # Rules of routing, which no check of packet filters sees.
    "pod_network": Break(
        "ip rule add pref 1 to 198.18.0.0/15 prohibit", "from the node to pod 198.18.", "ip rule del pref 1"
    ),
    "time_source": Break(
        "cp -p /etc/chrony.conf /root/chrony.broken;"
        " sed -i -E '/^(sourcedir|confdir|include|server|pool) /d' /etc/chrony.conf;"
        " echo 'pool pool.ntp.org iburst' >> /etc/chrony.conf",
        "pool.ntp.org (/etc/chrony.conf:",
        "mv /root/chrony.broken /etc/chrony.conf",
    ),
    "name_resolution": Break(
        "cp -p /etc/nsswitch.conf /root/nsswitch.broken; sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf",
        "/etc/nsswitch.conf:",
        "mv /root/nsswitch.broken /etc/nsswitch.conf",
    ),
}

MORE: list[tuple[str, Break]] = [
    (
        "forwarding",
        Break(
            "sysctl -qw net.ipv4.ip_forward=0",
            "net.ipv4.ip_forward (running)",
            "sysctl -qw net.ipv4.ip_forward=1",
            _TRAFFIC,
        ),
    ),
    (
        "forwarding",
        Break(
            "sysctl -qw net.ipv4.conf.default.forwarding=0",
            "net.ipv4.conf.default.forwarding (running)",
            "sysctl -qw net.ipv4.conf.default.forwarding=1",
            _TRAFFIC,
        ),
    ),
    ("kernel_modules", Break(f"echo 'blacklist xt-comment' > {_MODPROBE}", "module xt_comment", f"rm {_MODPROBE}")),
    (
        "kernel_modules",
        Break(
            "cd /lib/modules/6.12*/kernel/net/bridge && mv br_netfilter.ko /root/",
            "br_netfilter.ko is gone",
            "cd /lib/modules/6.12*/kernel/net/bridge && mv /root/br_netfilter.ko .",
        ),
    ),
    (
        "kernel_modules",
        Break(
            "sed -i.broken '/^options/s/$/ module_blacklist=overlay/' /boot/loader/entries/*.conf",
            "module_blacklist=overlay",
            "cd /boot/loader/entries && for f in *.broken; do mv $f ${f%.broken}; done",
        ),
    ),
    (
        "ipv6",
        Break(
            "sysctl -qw net.ipv6.conf.lo.disable_ipv6=1",
            "net.ipv6.conf.lo.disable_ipv6 (running)",
            "sysctl -qw net.ipv6.conf.lo.disable_ipv6=0",
        ),
    ),
    (
        "reverse_path_filter",
        Break(
            "sysctl -qw net.ipv4.conf.eth0.rp_filter=1; sysctl -qw net.ipv4.conf.all.rp_filter=1",
            "rp_filter of eth0 (running)",
            "sysctl -qw net.ipv4.conf.eth0.rp_filter=2",
        ),
    ),
    (
        "inbound_paths",
        _nft(
            "input",
            "drop",
            "ct state established,related accept",
            "iif lo accept",
            "meta l4proto icmp accept",
            "tcp dport { 22, 53, 9100, 10250, 10256, 61678 } accept",
            "udp dport 53 accept",
            words="dropped at port 30000 by policy drop",
            also=("container_runs",),
        ),
    ),
    (
        "inbound_paths",
        Break(
            "iptables -A INPUT -p tcp -m multiport --dports 30000:32767 -m comment --comment 'closed' -j REJECT",
            "--dports 30000:32767",
            "iptables -D INPUT -p tcp -m multiport --dports 30000:32767 -m comment --comment 'closed' -j REJECT",
            ("container_runs",),
        ),
    ),
    (
        "inbound_paths",
        Break(
            r"printf '[Service]\nExecStart=/bin/sleep 9\n[Install]\nWantedBy=multi-user.target\n'"
            " > /usr/lib/systemd/system/firewalld.service; rm -f /etc/systemd/system/firewalld.service;"
            " systemctl daemon-reload; systemctl enable -q firewalld",
            "firewalld.service enabled, not running; zone public",
            "systemctl disable -q firewalld; rm /usr/lib/systemd/system/firewalld.service; systemctl daemon-reload",
            ("forwarded_paths",),
        ),
    ),
    (
        "inbound_paths",
        Break(
            f"printf '{_IPTABLES_RULES}' > /etc/sysconfig/iptables;"
            f" printf '[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=basic.target\\n' > {_IPTABLES_UNIT};"
            " systemctl daemon-reload; systemctl enable -q iptables",
            "/etc/sysconfig/iptables:9",
            f"systemctl disable -q iptables; rm {_IPTABLES_UNIT} /etc/sysconfig/iptables; systemctl daemon-reload",
        ),
    ),
    (
        "forwarded_paths",
        _nft("forward", "drop", words="policy drop of chain inet broken forward", also=_TRAFFIC),
    ),
    (
        "forwarded_paths",
        Break(
            _boot_rules(
                *("table inet site {", "chain forward {", "type filter hook forward priority 0; policy drop;", "}", "}")
            ),
            "chain inet site (/etc/sysconfig/nftables.conf) forward",
            _NO_BOOT_RULES,
        ),
    ),
    (
        "outbound_paths",
        _nft(
            "input",
            "drop",
            "iif lo accept",
            "ct state new accept",
            "meta l4proto icmp accept",
            words="the answer dropped at port 443",
            also=_TRAFFIC,
        ),
    ),
    (
        "outbound_paths",
        Break(
            "iptables -A OUTPUT -d 169.254.169.254/32 -j DROP",
            "169.254.169.254/32",
            "iptables -D OUTPUT -d 169.254.169.254/32 -j DROP",
        ),
    ),
    (
        "name_resolution",
        Break(
            "cp -P /etc/resolv.conf /root/resolv.broken; rm /etc/resolv.conf;"
            " echo nameserver 10.0.0.2 > /etc/resolv.conf; chmod 0600 /etc/resolv.conf",
            "/etc/resolv.conf: expected readable by all, found mode 0600",
            "rm /etc/resolv.conf; mv /root/resolv.broken /etc/resolv.conf",
            also=("files_readable",),
        ),
    ),
    (
        "name_resolution",
        Break(
            "systemctl disable -q systemd-resolved",
            "systemd-resolved.service disabled",
            "systemctl enable -q systemd-resolved",
        ),
    ),
]
