"""Kernel parameters: states that pass, and more of them that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import sysctl as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import sysctl
from machines import Refused, applied, machine, rule, settles, tree

KEY = "net.ipv4.conf.all.rp_filter"
PROC = "/proc/sys/net/ipv4/conf/all/rp_filter"
#: systemd 252's own, as AL2023 has it.
VENDOR = "-net.ipv4.conf.all.rp_filter\nnet.ipv4.conf.default.rp_filter = 2\nnet.ipv4.conf.*.rp_filter = 2\n"
V6 = "net.ipv6.conf.all.accept_ra"


def look(root: Path, files: dict[str, str | None], spec: dict[str, Any] | None = None) -> dict[str, Any]:
    return probe.check(machine(root, {PROC: "1\n", **files}), spec or {KEY: 1})


OURS, LATER, VENDORS = "/etc/sysctl.d/60-a.conf", "/etc/sysctl.d/70-a.conf", "/usr/lib/sysctl.d/70-a.conf"
RIGHT, WRONG = f"{KEY} = 1\n", f"{KEY} = 0\n"

PASS = {
    "one_file_pass": {OURS: RIGHT},
    "vendor_file_alone_pass": {"/usr/lib/sysctl.d/10-a.conf": f"{KEY}=1\n"},
    "two_files_conflict_later_right_pass": {"/etc/sysctl.d/10-a.conf": WRONG, OURS: RIGHT},
    "slashes_instead_of_dots_pass": {OURS: "net/ipv4/conf/all/rp_filter = 1\n"},
    "leading_dash_pass": {OURS: f"-{KEY} = 1\n"},
    "vendor_shield_and_glob_before_ours_pass": {"/usr/lib/sysctl.d/50-default.conf": VENDOR, OURS: RIGHT},
    "later_glob_yields_to_explicit_pass": {OURS: RIGHT, "/etc/sysctl.d/90-a.conf": "net.ipv4.conf.*.rp_filter = 2\n"},
    "wrong_vendor_file_hidden_by_its_name_in_etc_pass": {VENDORS: WRONG, LATER: RIGHT},
    "wrong_vendor_file_masked_by_link_pass": {VENDORS: WRONG, LATER: "-> /dev/null", OURS: RIGHT},
    "comments_pass": {OURS: f"{KEY} = 1\n# {KEY} = 0\n; {KEY} = 0\n"},
    "sysctl_conf_that_nothing_links_to_pass": {OURS: RIGHT, "/etc/sysctl.conf": WRONG},
}

FAIL = {
    "no_file_fail": {},
    "wrong_running_value_fail": {PROC: "0\n", OURS: RIGHT},
    "key_the_kernel_lacks_fail": {PROC: None, OURS: RIGHT},
    "two_files_conflict_later_wins_fail": {OURS: RIGHT, LATER: WRONG},
    "later_line_of_one_file_fail": {OURS: f"{KEY} = 1\n{KEY} = 0\n"},
    "sysctl_conf_by_its_link_wins_fail": {
        OURS: RIGHT,
        "/etc/sysctl.conf": WRONG,
        "/etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf",
    },
    "vendor_file_of_later_name_wins_fail": {OURS: RIGHT, VENDORS: WRONG},
    "runtime_file_of_later_name_wins_fail": {OURS: RIGHT, "/run/sysctl.d/70-a.conf": WRONG},
    "later_slashed_key_wins_fail": {OURS: RIGHT, LATER: "net/ipv4/conf/all/rp_filter=0\n"},
    "later_shield_without_a_value_wins_fail": {OURS: RIGHT, LATER: f"-{KEY}\n"},
    "only_a_wrong_glob_reaches_it_fail": {OURS: "net.ipv4.conf.*.rp_filter = 2\n"},
    "right_file_of_another_ending_fail": {"/etc/sysctl.d/60-a.conf.rpmsave": RIGHT},
    "longer_key_fail": {OURS: f"{KEY}_old = 1\n"},
}


@pytest.mark.parametrize("name", PASS)
def test_passes(tmp_path: Path, name: str) -> None:
    assert look(tmp_path, PASS[name])["status"] == "pass"


@pytest.mark.parametrize("name", FAIL)
def test_fails(tmp_path: Path, name: str) -> None:
    files = {path: text for path, text in FAIL[name].items() if path != PROC or text is not None}
    if FAIL[name].get(PROC, "") is None:
        finding = probe.check(machine(tmp_path, files), {KEY: 1})
    else:
        finding = look(tmp_path, files)
    assert finding["status"] == "fail", finding["evidence"]


def test_the_evidence_names_the_line_that_wins(tmp_path: Path) -> None:
    finding = look(tmp_path, FAIL["two_files_conflict_later_wins_fail"])
    assert finding["reason"] == f"{KEY} (at boot): expected 1, found 0 in /etc/sysctl.d/70-a.conf:1"


def test_a_glob_in_braces_sets_what_no_line_names(tmp_path: Path) -> None:
    files = {"/etc/sysctl.d/60-a.conf": "net.ipv4.conf.{all,default}.rp_filter = 1\n"}
    assert look(tmp_path, files)["status"] == "pass"


def test_a_glob_stays_between_two_slashes(tmp_path: Path) -> None:
    assert look(tmp_path, {"/etc/sysctl.d/60-a.conf": "net.ipv4.*.rp_filter = 1\n"})["status"] == "fail"


def test_without_ipv6_its_keys_do_not_apply(tmp_path: Path) -> None:
    assert look(tmp_path, {}, {V6: 0})["status"] == "not_applicable"
    both = {"/etc/sysctl.d/60-a.conf": f"{KEY} = 1\n"}
    assert look(tmp_path, both, {KEY: 1, V6: 0})["status"] == "pass"


def test_in_a_container_the_hosts_kernel_is_not_judged(tmp_path: Path) -> None:
    files = {"/etc/sysctl.d/60-a.conf": "kernel.yama.ptrace_scope = 1\n"}
    spec = {"kernel.yama.ptrace_scope": 1}
    assert look(tmp_path, files, spec)["status"] == "fail"
    assert look(tmp_path, {"/run/systemd/container": "podman\n"}, spec)["status"] == "pass"


# the module ------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A booted machine below tmp_path, at which the module points."""
    tree(tmp_path, {PROC: "0\n", "/etc/sysctl.d": None, "/run/systemd/system": None})
    monkeypatch.setattr(sysctl, "PROC", f"{tmp_path}/proc/sys/")
    monkeypatch.setattr(sysctl, "DIRECTORIES", [f"{tmp_path}{directory}" for directory in sysctl.DIRECTORIES])
    monkeypatch.setattr(sysctl.runtime, "NODE_MARKS", (f"{tmp_path}/etc/eks",))
    monkeypatch.setattr(runtime, "MANAGER", f"{tmp_path}/run/systemd/system")
    monkeypatch.setattr(runtime, "CONTAINER_MARKS", (f"{tmp_path}/run/systemd/container",))
    return tmp_path


RULES = [rule("reverse_path_filtering_enabled", "3.3.7", {KEY: 1})]


def path(host: Path) -> str:
    return f"{host}/etc/sysctl.d/60-cis-network.conf"


def verdict(host: Path) -> str:
    return str(probe.check(machine(host), {KEY: 1})["status"])


def test_hardening_turns_fail_into_pass(host: Path) -> None:
    # the file under /proc is a plain one here: check mode must not have written it
    assert applied(sysctl.apply, RULES, path(host), check=True)["changed"]
    assert verdict(host) == "fail" and (host / PROC[1:]).read_text() == "0\n"
    done = settles(sysctl.apply, RULES, path(host))
    assert verdict(host) == "pass"
    assert done["rules"]["reverse_path_filtering_enabled"]["before"][KEY] == "0"


@pytest.mark.parametrize(
    "name", [name for name in FAIL if "_wins_" in name and "vendor" not in name and "runtime" not in name]
)
def test_a_contradicting_line_of_an_administrator_yields_and_comes_back(host: Path, name: str) -> None:
    tree(host, {file: text for file, text in FAIL[name].items() if file != OURS})
    before = {file: file.read_text() for file in (host / "etc").rglob("*.conf")}
    settles(sysctl.apply, RULES, path(host))
    assert verdict(host) == "pass"
    assert any("# cisdriver 60-cis-network.conf: " in file.read_text() for file in before)
    applied(sysctl.apply, [], path(host))
    assert {file: file.read_text() for file in (host / "etc").rglob("*.conf")} == before


def test_the_link_to_sysctl_conf_stays_a_link(host: Path) -> None:
    tree(host, FAIL["sysctl_conf_by_its_link_wins_fail"])
    settles(sysctl.apply, RULES, path(host))
    assert (host / "etc/sysctl.d/99-sysctl.conf").is_symlink()


@pytest.mark.parametrize(
    "file", ["/usr/lib/sysctl.d/70-a.conf", "/run/sysctl.d/70-a.conf", "/etc/sysctl.d/99-amazon.conf"]
)
def test_a_file_that_is_not_ours_to_edit_is_named_and_nothing_is_written(host: Path, file: str) -> None:
    tree(host, {file: f"vm.swappiness = 1\n{KEY} = 2\n"})
    with pytest.raises(Refused, match=rf"{file}:2: '{KEY} = 2' beats"):
        applied(sysctl.apply, RULES, path(host))
    assert not Path(path(host)).exists() and (host / PROC[1:]).read_text() == "0\n"


@pytest.mark.parametrize("key", sysctl.KUBELET_KEYS)
def test_what_the_kubelet_checks_is_never_written(host: Path, key: str) -> None:
    with pytest.raises(Refused, match=f"rule other .1.1.: {key} is never written"):
        applied(sysctl.apply, [*RULES, rule("other", "1.1", {key: 0})], path(host))
    assert not Path(path(host)).exists()


def test_forwarding_is_turned_off_on_a_server_and_never_on_a_node(host: Path) -> None:
    rules = [rule("ip_forwarding_disabled", "3.2.1", {"net.ipv4.ip_forward": 0})]
    settles(sysctl.apply, rules, path(host))
    tree(host, {"/etc/eks": None})
    with pytest.raises(Refused, match="would cut the pods"):
        applied(sysctl.apply, rules, path(host))


def test_in_a_chroot_only_the_file_is_written(host: Path) -> None:
    (host / "run/systemd/system").rmdir()
    settles(sysctl.apply, RULES, path(host))
    assert (host / PROC[1:]).read_text() == "0\n"


def test_in_a_container_only_the_network_is_its_own(host: Path) -> None:
    tree(host, {"/run/systemd/container": "podman\n", "/proc/sys/kernel/randomize_va_space": "0\n"})
    settles(sysctl.apply, [*RULES, rule("aslr_enabled", "1.5.1", {"kernel.randomize_va_space": 2})], path(host))
    assert (host / PROC[1:]).read_text() == "1"
    assert (host / "proc/sys/kernel/randomize_va_space").read_text() == "0\n"


def test_rules_outside_the_tags_stay_and_deselected_ones_go(host: Path) -> None:
    other = rule("martian_packets_logged", "3.3.4", {"net.ipv4.conf.all.log_martians": 1})
    settles(sysctl.apply, [*RULES, other], path(host))
    settles(sysctl.apply, [*RULES, rule("martian_packets_logged", "3.3.4", state="keep")], path(host))
    assert "log_martians" in Path(path(host)).read_text()
    settles(sysctl.apply, RULES, path(host))
    assert "log_martians" not in Path(path(host)).read_text()
    settles(sysctl.apply, [], path(host))
    assert not Path(path(host)).exists()
