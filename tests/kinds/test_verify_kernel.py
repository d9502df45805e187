"""verify_node's checks of kernel, names and time: what passes, and more that does not, or cannot be seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import core as verify
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.verify import kernel, registry
from machines import Output, machine

STOCK = {
    "/etc/sysctl.d/99-amazon.conf": "vm.overcommit_memory=1\nkernel.panic=10\nkernel.panic_on_oops=1\n",
    "/etc/sysctl.d/99-kubernetes-cri.conf": (
        "net.bridge.bridge-nf-call-ip6tables = 1\nnet.bridge.bridge-nf-call-iptables = 1\nnet.ipv4.ip_forward = 1\n"
    ),
    "/usr/lib/sysctl.d/50-default.conf": "net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.all.rp_filter\n",
    "/proc/net/route": "Iface Destination Gateway Flags RefCnt Use Metric Mask\nens5 00000000 0101000A 3 0 0 512 0\n",
    "/proc/sys/net/ipv4/ip_forward": "1\n",
    "/proc/sys/net/ipv4/conf/default/forwarding": "1\n",
    "/proc/sys/net/ipv4/conf/ens5/forwarding": "1\n",
    "/proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n",
    "/proc/sys/net/ipv6/conf/ens5/disable_ipv6": "0\n",
    "/proc/sys/net/ipv6/conf/all/forwarding": "1\n",
    "/proc/cmdline": "root=UUID=1 audit=1\n",
    **{f"/proc/sys/{key.replace('.', '/')}": f"{wanted}\n" for key, (wanted, _own) in kernel.KUBELET_VALUES.items()},
    "/lib/modules/6.12/kernel/overlay.ko.xz": "",
    "/lib/modules/6.12/kernel/xt_comment.ko.xz": "",
    "/lib/modules/6.12/modules.builtin": "kernel/fs/ext4/ext4.ko\n",
    "/lib/modules/6.12/modules.dep": "kernel/overlay.ko.xz:\nkernel/xt_comment.ko.xz: kernel/overlay.ko.xz\n",
    "/etc/nsswitch.conf": "passwd: files\nhosts:      files dns myhostname\n",
    "/etc/resolv.conf": "# by hand\nnameserver 10.0.0.2\n",
    "/etc/chrony.conf": "sourcedir /run/chrony.d\n",
    "/run/chrony.d/link-local.sources": "server 169.254.169.123 prefer iburst\n",
}
LAST = "/etc/sysctl.d/99-zz.conf"
ENTRY = "/boot/loader/entries/a.conf"
CNI = {"/etc/cni/net.d/10-aws.conflist": "{}"}
SIX = {"/etc/kubernetes/kubelet/config.json": json.dumps({"clusterDNS": ["fd00::a"]})}
CONTAINER = {"/run/.containerenv": ""}
RESOLVED = {"/etc/resolv.conf": "->../run/systemd/resolve/stub-resolv.conf"}
STUB = {**RESOLVED, "/run/systemd/resolve/stub-resolv.conf": "nameserver 127.0.0.53\n"}
UNIT = {"systemctl is-enabled systemd-resolved.service": "enabled\n"}
RUNS = {**UNIT, "systemctl is-active systemd-resolved.service": "active\n", "/run/systemd/system": None}
ROUTE = {"ip -6 route show default": "default via fe80::1 dev ens5\n"}


def proc(key: str, value: str) -> dict[str, str]:
    return {f"/proc/sys/{key.replace('.', '/')}": f"{value}\n"}


def look(root: Path, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Keys of ``given`` are files, but for those with a blank, which are commands."""
    files = {**STOCK, **{path: text for path, text in given.items() if " " not in path}}
    answers = {command: answer for command, answer in given.items() if " " in command}
    node = machine(root, {path: text for path, text in files.items() if text != "gone"}, answers)
    return verify.run(node, registry.CHECKS[name])


@pytest.mark.parametrize(
    ("name", "given", "status", "words"),
    [
        ("forwarding", {}, "pass", ""),
        ("forwarding", {"/etc/sysctl.d/99-kubernetes-cri.conf": "gone"}, "fail", "net.ipv4.ip_forward (at boot)"),
        ("forwarding", {LAST: "net.ipv4.ip_forward = 0\n"}, "fail", f"{LAST}:1"),
        ("forwarding", {LAST: "net/ipv4/conf/all/forwarding = 0\n"}, "fail", f"{LAST}:1"),
        ("forwarding", {LAST: "net.ipv4.conf.*.forwarding = 0\n"}, "fail", "net.ipv4.conf.all.forwarding (at boot)"),
        ("forwarding", proc("net.ipv4.ip_forward", "0"), "fail", "net.ipv4.ip_forward (running)"),
        ("forwarding", proc("net.ipv4.conf.default.forwarding", "0"), "fail", "default.forwarding (running)"),
        ("forwarding", proc("net.ipv4.conf.ens5.forwarding", "0"), "fail", "ens5.forwarding (running)"),
        ("forwarding", {LAST: "net.ipv6.conf.all.forwarding = 0\n"}, "pass", ""),
        ("forwarding", {**SIX, LAST: "net.ipv6.conf.all.forwarding = 0\n"}, "fail", f"{LAST}:1"),
        ("forwarding", {**SIX, **proc("net.ipv6.conf.all.forwarding", "0")}, "pass", ""),  # the CNI is yet to start
        ("forwarding", {**SIX, **CNI, **proc("net.ipv6.conf.all.forwarding", "0")}, "fail", "ipv6.conf.all.forwarding"),
        ("forwarding", {**SIX, **CNI}, "pass", ""),
        ("forwarding", {"/etc/kubernetes/kubelet/config.json": "{"}, "error", "expected JSON"),
        ("bridge_traffic", {}, "pass", ""),  # br_netfilter is not loaded
        ("bridge_traffic", {"/etc/sysctl.d/99-kubernetes-cri.conf": "gone"}, "pass", "the kernel's own"),
        ("bridge_traffic", {LAST: "net.bridge.bridge-nf-call-iptables = 0\n"}, "fail", f"{LAST}:1"),
        ("bridge_traffic", proc("net.bridge.bridge-nf-call-ip6tables", "0"), "fail", "ip6tables (running)"),
        ("kubelet_kernel_values", {}, "pass", ""),
        ("kubelet_kernel_values", {LAST: "vm.overcommit_memory = 0\n"}, "fail", f"{LAST}:1"),
        ("kubelet_kernel_values", {LAST: "kernel.panic = 60\n"}, "fail", "kernel.panic (at boot)"),
        ("kubelet_kernel_values", {LAST: "vm.panic_on_oom = 1\n"}, "fail", "vm.panic_on_oom (at boot)"),
        ("kubelet_kernel_values", {LAST: "kernel.keys.root_maxkeys = 200\n"}, "fail", "root_maxkeys"),
        ("kubelet_kernel_values", {"/etc/sysctl.d/99-amazon.conf": "gone"}, "fail", "vm.overcommit_memory (at boot)"),
        ("kubelet_kernel_values", proc("kernel.panic_on_oops", "0"), "fail", "kernel.panic_on_oops (running)"),
        ("kubelet_kernel_values", {**CONTAINER, **proc("kernel.panic_on_oops", "0")}, "pass", ""),
        ("kubelet_kernel_values", {
            "/etc/kubernetes/kubelet/config.json": '{"protectKernelDefaults": false}', LAST: "kernel.panic = 0\n",
        }, "not_applicable", "protectKernelDefaults is false"),
        ("kubelet_kernel_values", {
            "/etc/kubernetes/kubelet/config.json": '{"protectKernelDefaults": false}', LAST: "kernel.panic = 0\n",
            "/etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf": '{"protectKernelDefaults": true}',
        }, "fail", "kernel.panic"),
        ("kernel_modules", {}, "pass", "3 there, 0 kept away"),
        ("kernel_modules", {"/etc/modprobe.d/cis.conf": "install cramfs /bin/false\nblacklist cramfs\n"}, "pass", ""),
        ("kernel_modules", {"/etc/modprobe.d/a.conf": "install overlay /bin/false\n"}, "fail", "a.conf:1"),
        ("kernel_modules", {"/etc/modprobe.d/a.conf": "install overlay /bin/true\n"}, "fail", "/bin/true"),
        ("kernel_modules", {"/etc/modprobe.d/a.conf": "install xt-comment /bin/false\n"}, "fail", "xt_comment"),
        ("kernel_modules", {"/etc/modprobe.d/a.conf": "blacklist xt_comment\n"}, "fail", "blacklisted"),
        ("kernel_modules", {
            "/etc/modprobe.d/a.conf": "install overlay /sbin/modprobe --ignore-install overlay; /bin/logger x\n",
        }, "pass", ""),
        # as kernel-modules-extra of the image for GPUs may, which has none that a node needs
        ("kernel_modules", {
            "/lib/modules/6.1/kernel/sch_fq_pie.ko": "", "/etc/modprobe.d/a.conf": "blacklist sch_fq_pie\n",
        }, "pass", ""),
        # no kernel here has it, so that nothing is kept away
        ("kernel_modules", {"/etc/modprobe.d/a.conf": "install ena /bin/false\n"}, "pass", ""),
        ("kernel_modules", {
            "/lib/modules/6.1/kernel/ena.ko": "", "/etc/modprobe.d/a.conf": "install ena /bin/false\n",
        }, "fail", "module ena"),
        ("kernel_modules", {"/lib/modules/6.12/kernel/overlay.ko.xz": "gone"}, "fail", "overlay.ko.xz is gone"),
        ("kernel_modules", {ENTRY: "title a\noptions ro module_blacklist=ext4,floppy\n"}, "fail", f"{ENTRY}:2"),
        ("kernel_modules", {ENTRY: "options ro modprobe.blacklist=floppy\n"}, "pass", ""),
        ("kernel_modules", {LAST: "kernel.modules_disabled = 1\n"}, "fail", "kernel.modules_disabled (at boot)"),
        ("kernel_modules", proc("kernel.modules_disabled", "1"), "fail", "kernel.modules_disabled (running)"),
        ("ipv6", {}, "pass", ""),
        ("ipv6", {LAST: "net.ipv6.conf.all.disable_ipv6 = 1\n"}, "fail", f"{LAST}:1"),
        ("ipv6", {LAST: "net.ipv6.conf.lo.disable_ipv6 = 1\n"}, "fail", "net.ipv6.conf.lo.disable_ipv6 (at boot)"),
        ("ipv6", proc("net.ipv6.conf.ens5.disable_ipv6", "1"), "fail", "ens5.disable_ipv6 (running)"),
        ("ipv6", {ENTRY: "options ro ipv6.disable=1\n"}, "fail", f"{ENTRY}:1"),
        ("ipv6", {"/proc/cmdline": "ro ipv6.disable=1\n"}, "fail", "/proc/cmdline"),
        ("ipv6", {path: "gone" for path in STOCK if path.startswith("/proc/sys/net/ipv6")}, "fail", "missing"),
        ("ipv6", {LAST: "net.ipv6.conf.default.accept_ra = 0\n"}, "pass", ""),
        ("ipv6", {**SIX, **ROUTE}, "pass", ""),
        ("ipv6", {**SIX, **ROUTE, LAST: "net.ipv6.conf.default.accept_ra = 0\n"}, "fail", "default.accept_ra"),
        ("ipv6", {**SIX, "ip -6 route show default": "\n"}, "fail", "IPv6 default route"),
        ("ipv6", SIX, "error", "ip -6 route"),
        ("reverse_path_filter", {}, "pass", ""),
        ("reverse_path_filter", {LAST: "".join(f"net.ipv4.conf.{one}.rp_filter = 1\n" for one in ("all", "default"))},
         "pass", ""),
        ("reverse_path_filter", {LAST: "net.ipv4.conf.ens5.rp_filter = 1\n"}, "fail", f"{LAST}:1"),
        ("reverse_path_filter", {LAST: "net.ipv4.conf.*.rp_filter = 1\n"}, "fail", f"{LAST}:1"),
        ("reverse_path_filter", {
            **CNI, **proc("net.ipv4.conf.ens5.rp_filter", "2"), **proc("net.ipv4.conf.all.rp_filter", "1"),
        }, "pass", ""),
        ("reverse_path_filter", {
            **CNI, **proc("net.ipv4.conf.ens5.rp_filter", "0"), **proc("net.ipv4.conf.all.rp_filter", "1"),
        }, "fail", "its own 0, all 1"),
        ("reverse_path_filter", proc("net.ipv4.conf.ens5.rp_filter", "1"), "pass", ""),  # the CNI is yet to start
        ("time_source", {}, "pass", ""),
        ("time_source", {"/etc/chrony.conf": "pool time.aws.com iburst\n"}, "pass", ""),
        ("time_source", {"/etc/chrony.conf": "server fd00:ec2::123 iburst\npool pool.ntp.org\n"}, "pass", ""),
        ("time_source", {"/etc/chrony.conf": "pool pool.ntp.org iburst\n"}, "fail", "pool.ntp.org (/etc/chrony"),
        ("time_source", {"/run/chrony.d/link-local.sources": ""}, "fail", "found none"),
        ("time_source", {"/etc/chrony.conf": "server 169.254.169.1234\n"}, "fail", "169.254.169.1234"),
        ("time_source", {"/etc/chrony.conf": "gone"}, "fail", "missing"),
        ("time_source", {"/etc/chrony.conf": "include /etc/chrony.conf\n"}, "error", "files deep"),
        ("name_resolution", {}, "pass", ""),
        ("name_resolution", {"/etc/nsswitch.conf": "hosts: files resolve [!UNAVAIL=return] dns\n"}, "pass", ""),
        ("name_resolution", {"/etc/nsswitch.conf": "gone"}, "pass", ""),
        ("name_resolution", {"/etc/nsswitch.conf": "hosts: files\n"}, "fail", "/etc/nsswitch.conf:1"),
        ("name_resolution", {"/etc/nsswitch.conf": "hosts: files [NOTFOUND=return] dns\n"}, "fail", "NOTFOUND"),
        ("name_resolution", {"/etc/resolv.conf": "gone"}, "fail", "missing"),
        ("name_resolution", {"/etc/resolv.conf": "search .\n"}, "fail", "a nameserver"),
        ("name_resolution", {**RESOLVED, **UNIT}, "fail", "stub-resolv.conf, which is not there"),
        ("name_resolution", {**STUB, **RUNS}, "pass", ""),
        ("name_resolution", {**STUB, **RUNS, next(iter(UNIT)): Output(1, "disabled\n", "")}, "fail", "disabled"),
        ("name_resolution", {**STUB, **UNIT, "/run/systemd/system": None}, "fail", "not running"),
        ("name_resolution", {**STUB, next(iter(UNIT)): Output(1, "", "no bus")}, "error", "no bus"),
        ("name_resolution", {
            "/etc/kubernetes/kubelet/config.json": '{"resolvConf": "/run/x.conf"}',
        }, "fail", "/run/x.conf"),
    ],
)  # fmt: skip
def test_check(tmp_path: Path, name: str, given: dict[str, Any], status: str, words: str) -> None:
    finding = look(tmp_path, name, given)
    assert finding["status"] == status, finding
    assert words in json.dumps(finding, ensure_ascii=False), finding


def test_resolver_that_only_root_may_read_fails(tmp_path: Path) -> None:
    node = machine(tmp_path, STOCK)
    (tmp_path / "etc/resolv.conf").chmod(0o600)
    finding = verify.run(node, registry.CHECKS["name_resolution"])
    assert finding["status"] == "fail"
    assert "mode 0600" in finding["reason"]


def test_directory_that_others_may_not_enter_fails(tmp_path: Path) -> None:
    node = machine(tmp_path, {**STOCK, **STUB}, RUNS)  # type: ignore[arg-type] # its paths are no commands
    (tmp_path / "run/systemd/resolve").chmod(0o700)
    finding = verify.run(node, registry.CHECKS["name_resolution"])
    assert finding["status"] == "fail"
    assert "/run/systemd/resolve: expected readable by all" in finding["reason"]
