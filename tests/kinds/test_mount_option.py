"""Mount options, now and at the next boot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import mount_option as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import mount_option
from machines import Refused, applied, machine, rule, settles, tree

ROOT = "23 1 259:1 / / rw,noatime shared:1 - xfs /dev/nvme0n1p1 rw\n"
STOCK_FSTAB = "UUID=7e5 / xfs defaults,noatime 1 1\n"
#: /tmp as AL2023 mounts it.
STOCK_UNIT = (
    "[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=tmpfs\n"
    "Options=mode=1777,strictatime,nosuid,nodev,size=50%%,nr_inodes=1m\n"
)
VENDOR, ADMIN = "/usr/lib/systemd/system/tmp.mount", "/etc/systemd/system/tmp.mount"
ALL = "nosuid,nodev,noexec"


def mount(path: str, options: str) -> str:
    return f"40 23 0:35 / {path} rw,{options} shared:2 - tmpfs tmpfs rw,size=1k\n"


def look(root: Path, files: dict[str, str | None], spec: dict[str, Any]) -> dict[str, Any]:
    return probe.check(machine(root, files), spec)


MOUNTS = "/proc/self/mountinfo"
TMP = {MOUNTS: ROOT + mount("/tmp", ALL)}
HARD_UNIT = STOCK_UNIT.replace("nodev,", "nodev,noexec,")

PASS = {
    "unit_pass": {**TMP, VENDOR: HARD_UNIT},
    "dropin_over_vendor_pass": {**TMP, VENDOR: STOCK_UNIT, ADMIN + ".d/a.conf": "[Mount]\nOptions=noexec\n"},
    "fstab_over_vendor_pass": {**TMP, VENDOR: STOCK_UNIT, "/etc/fstab": "tmpfs /tmp tmpfs rw,noexec 0 0\n"},
    "admin_unit_over_vendor_pass": {**TMP, VENDOR: STOCK_UNIT, ADMIN: HARD_UNIT},
    "taken_back_and_given_again_pass": {**TMP, "/etc/fstab": "tmpfs /tmp tmpfs noexec,exec,noexec 0 0\n"},
    "nothing_mounts_it_at_boot_pass": TMP,
    "last_of_a_stack_pass": {MOUNTS: ROOT + mount("/tmp", "relatime") + mount("/tmp", ALL), VENDOR: HARD_UNIT},
    "trailing_slash_in_fstab_pass": {**TMP, "/etc/fstab": "tmpfs /tmp/ tmpfs rw,noexec 0 0\n"},
}

FAIL = {
    "stock_fail": {MOUNTS: ROOT + mount("/tmp", "nosuid,nodev"), VENDOR: STOCK_UNIT},
    "only_now_fail": {**TMP, VENDOR: STOCK_UNIT},
    "only_at_boot_fail": {MOUNTS: ROOT + mount("/tmp", "nosuid,nodev"), VENDOR: HARD_UNIT},
    "first_of_a_stack_fail": {MOUNTS: ROOT + mount("/tmp", ALL) + mount("/tmp", "relatime"), VENDOR: HARD_UNIT},
    "option_of_the_file_system_only_fail": {
        MOUNTS: ROOT + mount("/tmp", "nosuid").replace("size=1k", "noexec"),
        VENDOR: HARD_UNIT,
    },
    "later_dropin_without_it_fail": {**TMP, VENDOR: HARD_UNIT, ADMIN + ".d/a.conf": "[Mount]\nOptions=nosuid\n"},
    "admin_unit_without_it_over_vendor_fail": {**TMP, VENDOR: HARD_UNIT, ADMIN: STOCK_UNIT},
    "fstab_without_it_over_vendor_fail": {**TMP, VENDOR: HARD_UNIT, "/etc/fstab": "tmpfs /tmp tmpfs defaults 0 0\n"},
    "fstab_with_it_under_admin_unit_fail": {**TMP, ADMIN: STOCK_UNIT, "/etc/fstab": "tmpfs /tmp tmpfs noexec 0 0\n"},
    "dropin_overrides_fstab_fail": {
        **TMP,
        "/etc/fstab": "tmpfs /tmp tmpfs noexec 0 0\n",
        ADMIN + ".d/a.conf": "[Mount]\nOptions=nosuid\n",
    },
    "second_fstab_line_without_it_fail": {
        **TMP,
        "/etc/fstab": "tmpfs /tmp tmpfs noexec 0 0\ntmpfs /tmp tmpfs rw 0 0\n",
    },
    "taken_back_fail": {**TMP, "/etc/fstab": "tmpfs /tmp tmpfs noexec,exec 0 0\n"},
    "option_in_another_section_fail": {**TMP, VENDOR: STOCK_UNIT + "[Install]\nOptions=noexec\n"},
    "unit_without_options_fail": {**TMP, VENDOR: "[Mount]\nWhat=tmpfs\n"},
}


@pytest.mark.parametrize("name", PASS)
def test_passes(tmp_path: Path, name: str) -> None:
    finding = look(tmp_path, PASS[name], {"/tmp": ["noexec"]})
    assert finding["status"] == "pass", finding


@pytest.mark.parametrize("name", FAIL)
def test_fails(tmp_path: Path, name: str) -> None:
    assert look(tmp_path, FAIL[name], {"/tmp": ["noexec"]})["status"] == "fail"


def test_no_mount_of_its_own_does_not_apply_and_names_the_rule_that_asks_for_it(tmp_path: Path) -> None:
    finding = look(tmp_path, {MOUNTS: ROOT + mount("/var/log/pods", ALL)}, {"/var/log": ["nodev"]})
    assert finding["status"] == "not_applicable"
    assert finding["reason"] == "/var/log: no separate mount, see rule var_log_separate_mount"


def test_systemds_own_options_of_dev_shm_count_until_fstab_speaks(tmp_path: Path) -> None:
    files = {MOUNTS: ROOT + mount("/dev/shm", ALL)}
    assert look(tmp_path, files, {"/dev/shm": ["nosuid", "nodev"]})["status"] == "pass"
    assert look(tmp_path, files, {"/dev/shm": ["noexec"]})["status"] == "fail"
    line = {"/etc/fstab": "tmpfs /dev/shm tmpfs defaults,noexec 0 0\n"}
    assert look(tmp_path, line, {"/dev/shm": ["nodev"]})["status"] == "fail"


def test_the_evidence_names_file_and_line(tmp_path: Path) -> None:
    finding = look(tmp_path, FAIL["only_now_fail"], {"/tmp": ["noexec"]})
    assert finding["reason"].endswith(f"in {VENDOR}:5")


# the module ------------------------------------------------------------------------------------


class Host:
    """A booted machine below a directory, at which the module points; ``mount`` writes its table."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[list[str]] = []
        self.refuse_remount = False
        tree(root, {"/run/systemd/system": None, "/etc/fstab": STOCK_FSTAB, VENDOR: STOCK_UNIT, MOUNTS: ROOT})

    def has(self, *lines: str) -> None:
        (self.root / MOUNTS[1:]).write_text(ROOT + "".join(lines))

    def text(self, path: str) -> str:
        file = self.root / path.lstrip("/")
        return file.read_text() if file.exists() else ""

    def status(self, path: str, *options: str) -> str:
        return str(look(self.root, {}, {path: list(options)})["status"])

    def program(self, argv: list[str]) -> tuple[int, str, str]:
        self.commands.append(argv)
        if argv[0] == "mount" and self.refuse_remount:
            return 32, "", "mount: permission denied"
        if argv[0] == "mount":
            _mount, _o, options, path = argv
            assert options.startswith("remount,bind,rw,")
            lines = [line for line in self.text(MOUNTS).splitlines(keepends=True) if f" {path} " not in line]
            table = "".join(lines) + mount(path, options[len("remount,bind,rw,") :])
            (self.root / MOUNTS[1:]).write_text(table)
        return 0, "", ""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    for name in ("FSTAB", "MOUNTINFO", "UNITS"):
        monkeypatch.setattr(mount_option, name, f"{tmp_path}{getattr(mount_option, name)}")
    for name in ("OTHER_ADMIN_UNITS", "VENDOR_UNITS"):
        monkeypatch.setattr(mount_option, name, tuple(f"{tmp_path}{path}" for path in getattr(mount_option, name)))
    monkeypatch.setattr(runtime, "MANAGER", f"{tmp_path}/run/systemd/system")
    monkeypatch.setattr(runtime, "CONTAINER_MARKS", (f"{tmp_path}/run/systemd/container",))
    return host


NOEXEC = rule("tmp_noexec", "1.1.2.3", {"/tmp": ["noexec"]})
NODEV = rule("tmp_nodev", "1.1.2.2", {"/tmp": ["nodev"]})
DROPIN = ADMIN + ".d/zz-cis.conf"


def test_a_vendors_unit_gets_a_dropin_with_all_it_had_and_the_mount_its_flag(host: Host) -> None:
    host.has(mount("/tmp", "nosuid,nodev"))
    assert host.status("/tmp", "noexec") == "fail"
    done = settled(host, [NODEV, NOEXEC])
    assert host.status("/tmp", "noexec", "nodev") == "pass"
    assert "Options=mode=1777,strictatime,nosuid,nodev,size=50%%,nr_inodes=1m,noexec\n" in host.text(DROPIN)
    assert host.commands == [
        ["systemctl", "daemon-reload"],
        ["mount", "-o", "remount,bind,rw,nosuid,nodev,noexec", "/tmp"],
    ]
    assert not done["rules"]["tmp_nodev"]["changed"] and done["rules"]["tmp_noexec"]["changed"]
    assert host.text("/etc/fstab") == STOCK_FSTAB


def settled(host: Host, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return settles(mount_option.apply, rules, program=host.program)


def test_a_later_dropin_of_an_administrator_is_taken_up(host: Host) -> None:
    host.has(mount("/tmp", "nosuid"))
    tree(host.root, {ADMIN + ".d/99-size.conf": "[Mount]\nOptions=mode=1777,size=1G\n"})
    settled(host, [NOEXEC])
    assert "Options=mode=1777,size=1G,noexec\n" in host.text(DROPIN)
    assert host.status("/tmp", "noexec") == "pass"


def test_fstab_keeps_all_it_had(host: Host) -> None:
    fstab = "# mounts\n" + STOCK_FSTAB + "tmpfs\t/tmp\ttmpfs\tmode=1777,exec,size=2G\t0 0 # small\n"
    (host.root / "etc/fstab").write_text(fstab)
    host.has(mount("/tmp", "relatime"))
    settled(host, [NOEXEC])
    assert host.text("/etc/fstab") == fstab.replace("mode=1777,exec,size=2G", "mode=1777,size=2G,noexec")
    assert not host.text(DROPIN)
    assert host.status("/tmp", "noexec") == "pass"


def test_dev_shm_gets_its_line_with_the_options_it_has(host: Host) -> None:
    host.has(mount("/dev/shm", "nosuid,nodev,relatime"))
    rules = [
        rule("dev_shm_separate_mount", "1.1.8.1", {"/dev/shm": []}),
        rule("dev_shm_noexec", "1.1.8.3", {"/dev/shm": ["noexec"]}),
    ]
    settled(host, rules)
    assert host.text("/etc/fstab") == STOCK_FSTAB + "tmpfs /dev/shm tmpfs defaults,nosuid,nodev,noexec 0 0\n"
    assert host.status("/dev/shm", "noexec", "nosuid", "nodev") == "pass"


def test_what_is_no_mount_is_left_alone(host: Host) -> None:
    done = settled(host, [rule("home_nodev", "1.1.7.2", {"/home": ["nodev"]})])
    assert not done["changed"] and not host.commands


def test_what_fstab_will_mount_is_prepared_and_not_mounted(host: Host) -> None:
    (host.root / "etc/fstab").write_text("/dev/nvme1n1 /home xfs defaults 0 2\n")
    settled(host, [rule("home_nodev", "1.1.7.2", {"/home": ["nodev"]})])
    assert host.text("/etc/fstab") == "/dev/nvme1n1 /home xfs defaults,nodev 0 2\n"
    assert host.commands == [["systemctl", "daemon-reload"]]


def test_a_mount_that_nothing_makes_at_boot_gets_its_flag_now(host: Host) -> None:
    host.has(mount("/home", "relatime"))
    settled(host, [rule("home_nodev", "1.1.7.2", {"/home": ["nodev"]})])
    assert host.status("/home", "nodev") == "pass"
    assert host.text("/etc/fstab") == STOCK_FSTAB


VAR = rule(
    "var_nodev",
    "1.1.3.2",
    {"/var": {"options": ["nodev"], "live": False, "beside": ["/var/lib/kubelet", "/var/lib/containerd"]}},
)
VAR_FSTAB = STOCK_FSTAB + "/dev/nvme1n1 /var xfs defaults 0 2\n"


def test_var_waits_for_kubelet_and_containerd_to_have_mounts_of_their_own(host: Host) -> None:
    (host.root / "etc/fstab").write_text(VAR_FSTAB)
    host.has(mount("/var", "relatime"), mount("/var/lib/kubelet", "relatime"))
    done = settled(host, [VAR])
    assert not done["changed"] and "/var/lib/containerd would inherit its options" in done["warnings"][0]


def test_var_is_never_remounted_under_running_pods(host: Host) -> None:
    (host.root / "etc/fstab").write_text(VAR_FSTAB)
    host.has(*(mount(path, "relatime") for path in ("/var", "/var/lib/kubelet", "/var/lib/containerd")))
    settled(host, [VAR])
    assert host.text("/etc/fstab") == VAR_FSTAB.replace("xfs defaults 0", "xfs defaults,nodev 0")
    assert host.commands == [["systemctl", "daemon-reload"]]


def test_a_mask_is_taken_off_only_for_the_rule_that_asks_for_the_mount(host: Host) -> None:
    (host.root / "etc/systemd/system").mkdir(parents=True)
    tree(host.root, {ADMIN: "-> /dev/null"})
    settled(host, [NOEXEC])
    assert (host.root / ADMIN[1:]).is_symlink()
    settled(host, [NOEXEC, rule("tmp_separate_mount", "1.1.2.1", {"/tmp": []})])
    assert not (host.root / ADMIN[1:]).is_symlink()
    assert not any(command[0] == "mount" for command in host.commands)


def test_rules_outside_the_tags_stay_and_deselected_ones_go(host: Host) -> None:
    host.has(mount("/tmp", ALL))
    settled(host, [NODEV, NOEXEC])
    whole = host.text(DROPIN)
    settled(host, [NODEV, rule("tmp_noexec", "1.1.2.3", state="keep")])
    assert host.text(DROPIN) == whole
    settled(host, [rule("tmp_nodev", "1.1.2.2", state="keep"), rule("tmp_noexec", "1.1.2.3", state="keep")])
    assert host.text(DROPIN) == whole
    settled(host, [NODEV])
    assert "noexec" not in host.text(DROPIN)
    settled(host, [])
    assert not host.text(DROPIN)


def test_one_rule_after_the_other_is_as_both_at_once(host: Host) -> None:
    host.has(mount("/tmp", ALL))
    settled(host, [NODEV, rule("tmp_noexec", "1.1.2.3", state="keep")])
    settled(host, [rule("tmp_nodev", "1.1.2.2", state="keep"), NOEXEC])
    one_by_one = host.text(DROPIN)
    settled(host, [])
    settled(host, [NODEV, NOEXEC])
    assert host.text(DROPIN) == one_by_one


def test_in_a_chroot_only_files_are_written(host: Host) -> None:
    (host.root / "run/systemd/system").rmdir()
    settled(host, [NOEXEC, rule("dev_shm_noexec", "1.1.8.3", {"/dev/shm": ["noexec"]})])
    assert not host.commands
    assert "noexec" in host.text(DROPIN)
    assert host.text("/etc/fstab").endswith("tmpfs /dev/shm tmpfs defaults,nosuid,nodev,noexec 0 0\n")


def test_a_remount_that_fails_is_said_and_in_a_container_forgiven(host: Host) -> None:
    host.has(mount("/tmp", "nosuid,nodev"))
    host.refuse_remount = True
    with pytest.raises(Refused, match="/tmp: cannot remount with rw,nosuid,nodev,noexec: mount: permission denied"):
        applied(mount_option.apply, [NOEXEC], program=host.program)
    tree(host.root, {"/run/systemd/container": "podman\n"})
    done = applied(mount_option.apply, [NOEXEC], program=host.program)
    assert "cannot be remounted in this container" in done["warnings"][0]
