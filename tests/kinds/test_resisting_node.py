"""A real node whose administrator wants the contrary: hardening prevails, check mode foretells it, and it says how."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.node

TOPICS = "kernel_modules,mounts,process_hardening,services,network,schedulers"
#: Packages that must go, units that run, lines that would win, a mask and a drop-in.
CONTRARY = r"""
dnf -y -q install avahi cups net-snmp rsync-daemon cronie >/dev/null
systemctl -q enable snmpd rsyncd; systemctl -q disable crond; systemctl start rpcbind.socket
printf 'net.ipv4.conf.all.rp_filter = 2\nvm.swappiness = 10\n' > /etc/sysctl.d/99-zz-site.conf
echo 'net/ipv4/tcp_syncookies = 2' >> /etc/sysctl.conf
echo 'install squashfs /sbin/modprobe --ignore-install squashfs' > /etc/modprobe.d/00-a.conf
mkdir -p /etc/systemd/system/tmp.mount.d
printf '[Mount]\nOptions=mode=1777,size=3G\n' > /etc/systemd/system/tmp.mount.d/99-size.conf
ln -sf /dev/null /etc/systemd/system/tmp.mount
systemctl daemon-reload
"""


@pytest.fixture
def play(stock_node: Any, tmp_path: Path) -> Any:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(stock_node.inventory())

    def run(*argv: str) -> str:
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, "cisdriver.amazon_linux.harden"]
        command += ["--diff", "-e", "cis_level=2", *argv]
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        return f"rc={done.returncode}\n{done.stdout}{done.stderr}"

    return run


@pytest.mark.slow
def test_what_contradicts_yields_as_check_mode_says(play: Any, stock_node: Any) -> None:
    stock_node.exec(CONTRARY, check=True)
    foretold = play("--tags", TOPICS, "--check")
    assert foretold.startswith("rc=0"), foretold[-3000:]
    assert play("--tags", TOPICS) == foretold
    assert "changed=0 " in play("--tags", TOPICS)
    seen = stock_node.exec(
        "rpm -q avahi cups net-snmp | grep -c 'not installed'; rpm -q nfs-utils rpcbind >/dev/null && echo kept;"
        " systemctl is-enabled rsyncd rpcbind.socket crond tmp.mount; systemctl is-active rpcbind.socket rpcbind;"
        " cat /etc/sysctl.d/99-zz-site.conf; grep ^Options /etc/systemd/system/tmp.mount.d/zz-cis.conf"
    ).stdout.splitlines()
    assert seen == [
        *["3", "kept", "masked", "masked", "enabled", "static", "inactive", "inactive"],
        "# cisdriver 60-cis-network.conf: net.ipv4.conf.all.rp_filter = 2",
        "vm.swappiness = 10",
        "Options=mode=1777,size=3G,nodev,noexec,nosuid",
    ]


READ_ONLY = "mount --bind /etc/sysctl.d /etc/sysctl.d && mount -o remount,bind,ro /etc/sysctl.d"
FULL = "mount -t tmpfs -o size=4k tmpfs /etc/sysctl.d && head -c 4096 /dev/zero > /etc/sysctl.d/full"


@pytest.mark.slow
def test_what_cannot_be_written_is_said_and_nothing_is_left_behind(play: Any, stock_node: Any) -> None:
    for obstacle, why in ((READ_ONLY, "Read-only file system"), (FULL, "No space left on device")):
        stock_node.exec(obstacle, check=True)
        said = play("--tags", "3.3.1")
        assert said.startswith("rc=2")
        assert f"/etc/sysctl.d/60-cis-network.conf: cannot be written, the old text stays: {why}" in said
        assert ".cisdriver-" not in stock_node.exec("ls -A /etc/sysctl.d").stdout
        stock_node.exec("umount /etc/sysctl.d", check=True)
    assert "changed=1 " in play("--tags", "3.3.1")
