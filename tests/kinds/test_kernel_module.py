"""Kernel modules that must not load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import kernel_module as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import kernel_module
from machines import Refused, applied, machine, rule, settles, tree

HAVE = {"/lib/modules/6.1/kernel/fs/squashfs.ko.xz": "", "/lib/modules/6.1/kernel/fs/hfsplus/hfsplus.ko": ""}
OFF = "install squashfs /bin/false\nblacklist squashfs\n"
CONF = "/etc/modprobe.d/60-a.conf"


def look(
    root: Path, files: dict[str, str | None], name: str = "squashfs", showconfig: str | None = None
) -> dict[str, Any]:
    answers = {} if showconfig is None else {"modprobe --showconfig": showconfig}
    return probe.check(machine(root, files, answers), {"disabled": [name]})  # type: ignore[arg-type]


PASS = {
    "install_and_blacklist_pass": {**HAVE, CONF: OFF},
    "bin_true_pass": {**HAVE, CONF: OFF.replace("false", "true")},
    "vendor_file_pass": {**HAVE, "/usr/lib/modprobe.d/a.conf": OFF},
    "lines_in_two_files_pass": {
        **HAVE,
        CONF: "install squashfs /bin/false\n",
        "/etc/modprobe.d/b.conf": "blacklist squashfs\n",
    },
    "not_shipped_with_any_kernel_pass": {"/lib/modules/6.1/kernel/fs/udf.ko": ""},
    "longer_name_shipped_pass": {"/lib/modules/6.1/kernel/fs/squashfs_tools.ko": ""},
    "first_of_two_install_lines_counts_pass": {
        **HAVE,
        CONF: OFF,
        "/etc/modprobe.d/70-a.conf": "install squashfs /sbin/insmod x\n",
    },
    "no_kernel_installed_files_speak_pass": {CONF: OFF},
    "continued_line_pass": {**HAVE, CONF: "install squashfs \\\n  /bin/false\nblacklist squashfs\n"},
    "other_module_loaded_pass": {**HAVE, CONF: OFF, "/proc/modules": "squashfs_x 1 0 - Live 0x0\n"},
}

FAIL = {
    "stock_fail": HAVE,
    "shipped_compressed_fail": {"/lib/modules/6.1/kernel/fs/squashfs.ko.zst": ""},
    "shipped_for_another_kernel_fail": {
        "/lib/modules/6.1/kernel/fs/udf.ko": "",
        "/lib/modules/6.12/kernel/fs/squashfs.ko.xz": "",
    },
    "built_in_fail": {"/lib/modules/6.1/modules.builtin": "kernel/fs/squashfs/squashfs.ko\n"},
    "no_kernel_installed_and_no_line_fail": {CONF: "# nothing\n"},
    "blacklist_alone_fail": {**HAVE, CONF: "blacklist squashfs\n"},
    "install_alone_fail": {**HAVE, CONF: "install squashfs /bin/false\n"},
    "loaded_fail": {**HAVE, CONF: OFF, "/proc/modules": "squashfs 1 0 - Live 0x0\n"},
    "earlier_file_wins_fail": {
        **HAVE,
        CONF: OFF,
        "/etc/modprobe.d/10-a.conf": "install squashfs /sbin/modprobe --ignore-install squashfs\n",
    },
    "commented_fail": {**HAVE, CONF: "#install squashfs /bin/false\n#blacklist squashfs\n"},
    "longer_name_off_fail": {**HAVE, CONF: OFF.replace("squashfs", "squashfs2")},
    "usr_bin_true_fail": {**HAVE, CONF: OFF.replace("/bin/false", "/usr/bin/true")},
    "hidden_by_an_empty_file_of_its_name_fail": {
        **HAVE,
        "/etc/modprobe.d/a.conf": "",
        "/usr/lib/modprobe.d/a.conf": OFF,
    },
    "wrong_ending_fail": {**HAVE, "/etc/modprobe.d/a.conf.disabled": OFF},
}


@pytest.mark.parametrize("name", PASS)
def test_passes(tmp_path: Path, name: str) -> None:
    finding = look(tmp_path, PASS[name])
    assert finding["status"] == "pass", finding


@pytest.mark.parametrize("name", FAIL)
def test_fails(tmp_path: Path, name: str) -> None:
    assert look(tmp_path, FAIL[name])["status"] == "fail"


def test_modprobe_itself_has_the_last_word(tmp_path: Path) -> None:
    finding = look(tmp_path, {**HAVE, CONF: OFF}, showconfig="install squashfs /sbin/insmod\n")
    assert finding["reason"].startswith(
        "squashfs (modprobe runs): expected /bin/false or /bin/true, found /sbin/insmod"
    )


def test_dashes_and_underscores_are_one(tmp_path: Path) -> None:
    files = {"/lib/modules/6.1/kernel/usb/usb-storage.ko.xz": "", "/proc/modules": "usb_storage 1 0 - Live 0x0\n"}
    off = "install usb-storage /bin/true\nblacklist usb-storage\n"
    finding = look(tmp_path, {**files, CONF: off}, "usb-storage", showconfig="install usb_storage /bin/true\n")
    assert finding["reason"] == "usb-storage (running): expected not loaded, found loaded in /proc/modules"


def test_hfs_is_not_hfsplus(tmp_path: Path) -> None:
    assert look(tmp_path, HAVE, "hfs")["status"] == "pass"


def test_the_evidence_names_the_line(tmp_path: Path) -> None:
    finding = look(tmp_path, PASS["lines_in_two_files_pass"])
    assert [item["source"] for item in finding["evidence"][:2]] == [f"{CONF}:1", "/etc/modprobe.d/b.conf:1"]


# the module ------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tree(tmp_path, {**HAVE, "/etc/modprobe.d": None, "/run/systemd/system": None, "/proc": None})
    monkeypatch.setattr(kernel_module, "PROC_MODULES", f"{tmp_path}/proc/modules")
    monkeypatch.setattr(kernel_module, "DIRECTORIES", [f"{tmp_path}{name}" for name in kernel_module.DIRECTORIES])
    monkeypatch.setattr(runtime, "MANAGER", f"{tmp_path}/run/systemd/system")
    monkeypatch.setattr(runtime, "CONTAINER_MARKS", (f"{tmp_path}/run/systemd/container",))
    return tmp_path


RULES = [rule("squashfs_disabled", "1.1.1.1", {"disabled": ["squashfs"]})]


def path(host: Path) -> str:
    return f"{host}/etc/modprobe.d/00-cis-initial-setup.conf"


def status(host: Path) -> str:
    return str(look(host, {})["status"])


def test_hardening_turns_fail_into_pass(host: Path) -> None:
    assert status(host) == "fail"
    settles(kernel_module.apply, RULES, path(host))
    assert status(host) == "pass"


def test_an_earlier_line_yields_and_comes_back(host: Path) -> None:
    tree(host, {"/etc/modprobe.d/00-a.conf": "install squashfs /sbin/modprobe -i squashfs\noptions loop max_loop=8\n"})
    text = (host / "etc/modprobe.d/00-a.conf").read_text()
    settles(kernel_module.apply, RULES, path(host))
    assert status(host) == "pass"
    settles(kernel_module.apply, [], path(host))
    assert (host / "etc/modprobe.d/00-a.conf").read_text() == text
    assert not Path(path(host)).exists()


def test_the_command_can_be_chosen(host: Path) -> None:
    settles(
        kernel_module.apply, [rule("usb", "1.1.9", {"disabled": ["usb-storage"], "install": "/bin/true"})], path(host)
    )
    assert "install usb-storage /bin/true\nblacklist usb-storage\n" in Path(path(host)).read_text()


@pytest.mark.parametrize(
    "name", ["overlay", "br_netfilter", "br-netfilter", "nf_tables", "xfs", "vfat", "nfsv4", "ena"]
)
def test_what_a_node_needs_is_refused(host: Path, name: str) -> None:
    with pytest.raises(Refused, match=f"rule bad .9.9.: {name} is never disabled"):
        applied(kernel_module.apply, [*RULES, rule("bad", "9.9", {"disabled": [name]})], path(host))
    assert not Path(path(host)).exists()


def test_an_unused_module_is_unloaded_and_a_used_one_is_not(host: Path) -> None:
    modules = host / "proc/modules"
    modules.write_text("squashfs 1 0 - Live 0x0\nudf 1 2 - Live 0x0\n")
    rules = [*RULES, rule("udf_disabled", "1.1.1.2", {"disabled": ["udf"]})]
    commands = []

    def program(argv: list[str]) -> tuple[int, str, str]:
        commands.append(argv)
        modules.write_text("udf 1 2 - Live 0x0\n")
        return 0, "", ""

    done = settles(kernel_module.apply, rules, path(host), program=program)
    assert commands == [["modprobe", "-r", "squashfs"]]
    assert done["rules"]["udf_disabled"]["after"]["loaded"] == ["udf"]
    assert "udf is in use" in done["warnings"][0]


def test_a_module_that_does_not_unload_is_a_warning(host: Path) -> None:
    tree(host, {"/proc/modules": "squashfs 1 0 - Live 0x0\n"})
    done = applied(kernel_module.apply, RULES, path(host), program=lambda _argv: (1, "", "modprobe: FATAL: busy"))
    assert "stays loaded until the next boot: modprobe: FATAL: busy" in done["warnings"][0]


def test_in_a_container_nothing_is_unloaded(host: Path) -> None:
    tree(host, {"/run/systemd/container": "podman", "/proc/modules": "squashfs 1 0 - Live 0x0\n"})
    settles(kernel_module.apply, RULES, path(host))  # there is no modprobe to run
