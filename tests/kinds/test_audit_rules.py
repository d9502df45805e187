"""Audit rules: states that pass, and more of them that fail; what is written, loaded, put back and given back.

The kernel is the stand-in's auditctl, which keeps rules as the kernel does.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import audit_lines as apply_lines
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import core, host_files, runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import audit_lines, scan
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import audit_rules as probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core as probe_core
from ansible_collections.cisdriver.amazon_linux.plugins.modules import audit_rules
from machines import Output, Refused, applied, machine, rule, settles, tree

ROOT = Path(__file__).resolve().parents[2]
SHIM = ROOT / "driver/cisdriver/sandbox/standin/rootfs/usr/libexec/standin/auditctl"
TOPIC = yaml.safe_load((ROOT / "roles/logging/rules/audit_rules.yml").read_text())
RULES_D = "/etc/audit/rules.d"
FILE = f"{RULES_D}/50-cis.rules"

WATCH = {"rules": [{"watch": "/etc/sudoers.d/", "perm": "wa", "key": "scope"}]}
CALLS = {
    "rules": [
        {"arch": ["b64", "b32"], "syscalls": ["unlink", "rename"], "fields": ["auid>=1000", "auid!=unset"], "key": "k"}
    ]
}
EXECVE = {
    "rules": [{"arch": ["b64"], "syscalls": ["execve"], "compare": "euid!=uid", "fields": ["auid!=unset"], "key": "k"}]
}
DENIED = {"rules": [{"arch": ["b64"], "syscalls": ["open"], "fields": ["exit=-EACCES", "auid>=1000"], "key": "k"}]}
PROGRAM = {"rules": [{"path": "/usr/bin/chcon", "fields": ["perm=x", "auid>=1000", "auid!=unset"], "key": "k"}]}
LOCK = {"immutable": True}
SAME = {"running_as_on_disk": True}

W = "-w /etc/sudoers.d/ -p wa -k scope\n"
LW = "-w /etc/sudoers.d -p wa -k scope\n"
C = "".join(f"-a always,exit -F arch={a} -S unlink,rename -F auid>=1000 -F auid!=unset -k k\n" for a in ("b64", "b32"))
LC = "".join(
    f"-a always,exit -F arch={a} -S rename,unlink -F auid>=1000 -F auid!=-1 -F key=k\n" for a in ("b64", "b32")
)
SPLIT = "".join(
    f"-a exit,always -S {call} -F arch={a} -F auid!=4294967295 -F auid>=1000 -F key=x\n"
    for a in ("b64", "b32")
    for call in ("unlink", "rename")
)
E = "-a always,exit -F arch=b64 -S execve -C euid!=uid -F auid!=unset -k k\n"
LE = "-a always,exit -F arch=b64 -S execve -C uid!=euid -F auid!=-1 -F key=k\n"
P = "-a always,exit -F path=/usr/bin/chcon -F perm=x -F auid>=1000 -F auid!=unset -k k\n"
LP = "-a always,exit -S all -F path=/usr/bin/chcon -F perm=x -F auid>=1000 -F auid!=-1 -F key=k\n"
D = "-a always,exit -F arch=b64 -S open -F exit=-EACCES -F key=a\n"
NEVER = "-a never,task\n"


def node(root: Path, disk: str | dict[str, str], loaded: str | None, enabled: int = 1) -> probe_core.Node:
    """A machine with rules on disk and in the kernel; ``loaded`` None is a container's kernel."""
    files: dict[str, str | None] = (
        {FILE: disk} if isinstance(disk, str) else {f"{RULES_D}/{n}": t for n, t in disk.items()}
    )
    files |= {
        "/run/systemd/system": None,
        "/etc/sudoers.d": None,
        "/usr/bin/chcon": "",
        "/etc/passwd": "chrony:x:993:1::/:/x\n",
    }
    files |= {"/etc/selinux": None, "/var/log": None}
    answers: dict[str, str | Output] = {"augenrules --check": "/usr/sbin/augenrules: No change\n"}
    if loaded is None:
        files["/run/systemd/container"] = "podman"
        answers["auditctl -s"] = Output(1, "", "Error sending status request (Operation not permitted)")
    else:
        answers |= {"auditctl -s": f"enabled {enabled}\nfailure 1\n", "auditctl -l": loaded or "No rules\n"}
    return machine(root, files, answers)


PASS = [
    ("as_written", W, LW, WATCH),
    ("wider_permissions", "-w /etc/sudoers.d -p rwxa -k a\n", "-w /etc/sudoers.d -p rwxa -k a\n", WATCH),
    ("in_the_long_form", "-a always,exit -F dir=/etc/sudoers.d/ -F perm=wa -k a\n", LW, WATCH),
    ("other_blanks_and_order", "  -w   /etc/sudoers.d  -k a -p aw\n", LW, WATCH),
    ("a_directory_above", "-w /etc -p wa -k etc\n", "-w /etc -p wa -k etc\n", WATCH),
    ("calls", C, LC, CALLS),
    ("calls_over_several_rules", SPLIT, SPLIT, CALLS),
    ("all_calls", "-a always,exit -S all -k a\n", "-a always,exit -S all -F key=a\n", CALLS),
    ("wider_auid", C.replace("1000", "500"), LC.replace("1000", "500"), CALLS),
    ("compared_the_other_way_round", E, LE, EXECVE),
    ("error_by_number", D.replace("-EACCES", "-13").replace("b64", "x86_64"), D, DENIED),
    ("program", P, LP, PROGRAM),
    ("narrow_never_before", f"-a never,exit -F exe=/usr/sbin/chronyd -S unlink\n{C}", LC, CALLS),
    ("never_after", f"{C}-a never,exit -S unlink\n", f"{LC}-a never,exit -S unlink\n", CALLS),
    ("excluded_record_that_tells_little", f"-a always,exclude -F msgtype=CWD\n{C}", LC, CALLS),
    ("never_of_nobody", f"-a never,exit -S unlink -F auid=-1\n{C}", LC, CALLS),
    ("duplicate_and_ignored", f"-i\n{W}{W}{C}", LC, CALLS),
    ("locked", {"10.rules": "-e 1\n", "99-finalize.rules": "-e 2\n"}, "", LOCK),
    ("same", f"{W}{C}{E}{P}", f"{LW}{LC}{LE}{LP}", SAME),
    ("same_by_name", "-a always,exit -F uid=chrony -k a\n", "-a always,exit -S all -F uid=993 -F key=a\n", SAME),
    ("same_in_other_lists", f"-a exclude,never -F msgtype=CWD\n{P}", f"{LP}-a never,exclude -F msgtype=CWD\n", SAME),
]  # fmt: skip

FAIL = [
    ("nothing", "", "", WATCH),
    ("on_disk_alone", W, "", WATCH),
    ("in_the_kernel_alone", "", LW, WATCH),
    ("commented", f"# {W}", LW, WATCH),
    ("narrower_permissions", W.replace("wa", "w"), LW, WATCH),
    ("no_key", W.replace(" -k scope", ""), LW, WATCH),
    ("one_call_of_two", C.replace("unlink,", ""), LC, CALLS),
    ("one_arch_of_two", C.splitlines(keepends=True)[0], LC, CALLS),
    ("narrower_auid", C.replace("1000", "2000"), LC, CALLS),
    ("more_fields", C.replace("-k", "-F success=1 -k"), LC, CALLS),
    ("no_arch_is_the_machine's_own", "-a always,exit -S unlink,rename -k a\n", LC, CALLS),
    ("another_comparison", E.replace("euid!=uid", "euid!=auid"), LE, EXECVE),
    ("another_error", "-a always,exit -F arch=b64 -S open -F exit=-EPERM -k a\n", "", DENIED),
    ("never_task", {"10.rules": NEVER, "50.rules": C}, LC, CALLS),
    ("task_never_in_the_kernel", C, f"{NEVER}{LC}", CALLS),
    ("never_of_a_call_before", f"-a never,exit -S unlink\n{C}", LC, CALLS),
    ("never_of_people_before", C, f"-a never,exit -S all -F auid>=1000\n{LC}", CALLS),
    ("never_put_first", f"{C}-A never,exit -F arch=b32 -S rename\n", LC, CALLS),
    ("never_of_the_directory", f"-a never,exit -F dir=/etc\n{W}", LW, WATCH),
    ("syscall_records_excluded", f"-a always,exclude -F msgtype=SYSCALL\n{C}", LC, CALLS),
    ("records_excluded_by_number", C, f"{LC}-a never,exclude -F msgtype>=1300\n", CALLS),
    ("earlier_file_by_number", {"9-never.rules": "-a never,exit -S unlink\n", "10.rules": C}, LC, CALLS),
    ("other_suffix", {"50.conf": C}, LC, CALLS),
    ("deleted_again", f"{W}-W /etc/sudoers.d -p wa -k scope\n", LW, WATCH),
    ("deleted_by_key", f"{W}-D -k scope\n", LW, WATCH),
    ("load_stops_at_a_duplicate", {"10.rules": f"{W}{W}", "50.rules": C}, LC, CALLS),
    ("load_stops_at_no_directory", f"-w /nowhere/file -p wa\n{C}", LC, CALLS),
    ("switched_off_on_disk", f"{C}-e 0\n", LC, CALLS),
    ("unlocked", "-e 1\n", "", LOCK),
    ("later_file_unlocks", {"99-finalize.rules": "-e 2\n", "zz.rules": "-e 1\n"}, "", LOCK),
    ("load_ends_before_the_lock", {"10.rules": f"{W}{W}", "99-finalize.rules": "-e 2\n"}, "", LOCK),
    ("more_in_the_kernel", W, f"{LW}{LP}", SAME),
    ("more_on_disk", f"{W}{P}", LW, SAME),
    ("other_key_in_the_kernel", W, LW.replace("scope", "other"), SAME),
]  # fmt: skip


@pytest.mark.parametrize(("name", "disk", "loaded", "spec"), PASS)
def test_pass(tmp_path: Path, name: str, disk: Any, loaded: str, spec: dict[str, Any]) -> None:
    finding = probe.check(node(tmp_path, disk, loaded, enabled=2 if spec is LOCK else 1), spec)
    assert finding["status"] == "pass", (name, finding["reason"])


@pytest.mark.parametrize(("name", "disk", "loaded", "spec"), FAIL)
def test_fail(tmp_path: Path, name: str, disk: Any, loaded: str, spec: dict[str, Any]) -> None:
    assert probe.check(node(tmp_path, disk, loaded, enabled=2 if spec is LOCK else 1), spec)["status"] == "fail", name


def test_locked_on_disk_and_not_in_the_kernel_and_the_reverse(tmp_path: Path) -> None:
    assert probe.check(node(tmp_path, "-e 2\n", "", enabled=1), LOCK)["status"] == "fail"
    assert probe.check(node(tmp_path / "b", "", "", enabled=2), LOCK)["status"] == "fail"


def test_switched_off_in_the_kernel(tmp_path: Path) -> None:
    finding = probe.check(node(tmp_path, C, LC, enabled=0), CALLS)
    assert "auditing in the kernel: expected on" in finding["reason"]


def test_evidence_names_what_hides_and_what_stops(tmp_path: Path) -> None:
    hidden = probe.check(node(tmp_path, {"10.rules": f"# mine\n-a never,exit -S unlink\n{C}"}, LC), CALLS)
    assert "hidden for unlink by -a never,exit -S unlink" in hidden["reason"]
    assert f"in {RULES_D}/10.rules:2" in hidden["reason"]
    stopped = probe.check(node(tmp_path / "b", {"10.rules": f"{W}{W}{C}"}, LC), CALLS)
    assert f"a load stops before it: Rule exists at {RULES_D}/10.rules:2" in stopped["reason"]


def test_in_a_container_files_are_judged_and_the_evidence_says_so(tmp_path: Path) -> None:
    for spec, disk in ((CALLS, C), (LOCK, "-e 2\n"), (SAME, C)):
        finding = probe.check(node(tmp_path / disk[:2], disk, None), spec)
        assert finding["status"] == "pass", finding["reason"]
        assert "not looked at: in a container" in str(finding["evidence"])
    assert probe.check(node(tmp_path / "c", "", None), CALLS)["status"] == "fail"


def test_a_kernel_that_should_answer_and_does_not_is_an_error(tmp_path: Path) -> None:
    silent = node(tmp_path, C, None)
    (tmp_path / "run/systemd/container").unlink()
    with pytest.raises(probe_core.ProbeError, match="auditctl -s"):
        probe.check(silent, CALLS)


def test_merged_file_that_is_older_than_the_rules(tmp_path: Path) -> None:
    changed = "/usr/sbin/augenrules: Rules have changed and should be updated\n"
    asked = machine(tmp_path, {FILE: W}, {"augenrules --check": changed})
    assert "Rules have changed" in probe.check(asked, SAME)["reason"]


def test_every_privileged_program_has_its_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TOPIC["audit_privileged_commands"]["require"]["audit_rules"]
    paths = ["/usr/bin/chcon"]
    monkeypatch.setattr(scan, "privileged", lambda _node: list(paths))
    assert probe.check(node(tmp_path, P, LP), spec)["status"] == "pass"
    assert probe.check(node(tmp_path / "link", P.replace("/usr/bin", "/bin"), LP), spec)["status"] == "pass"
    paths.append("/opt/a program")
    assert "path=/opt/a program" in probe.check(node(tmp_path / "b", P, LP), spec)["reason"]
    paths.clear()
    assert probe.check(node(tmp_path / "c", "", ""), spec)["status"] == "pass"


def test_the_log_of_sudo_is_the_one_it_names(tmp_path: Path) -> None:
    spec = TOPIC["audit_sudo_log_changes"]["require"]["audit_rules"]
    ours, theirs = "-w /var/log/sudo.log -p wa -k a\n", "-w /var/log/mine -p wa -k a\n"
    assert probe.check(node(tmp_path, ours, ours), spec)["status"] == "pass"
    elsewhere = node(tmp_path / "b", ours, ours)
    tree(tmp_path / "b", {"/etc/sudoers": 'Defaults logfile="/var/log/mine"\n'})
    assert "/var/log/mine" in probe.check(elsewhere, spec)["reason"]
    named = node(tmp_path / "c", theirs, theirs)
    tree(tmp_path / "c", {"/etc/sudoers": "Defaults logfile=/var/log/mine\n"})
    assert probe.check(named, spec)["status"] == "pass"


def test_system_calls_that_the_machine_lacks_are_not_asked_for(tmp_path: Path) -> None:
    arm = node(tmp_path, C.replace("-S unlink,rename", "-S rename"), LC.replace("rename,unlink", "rename"))
    dump = "Using aarch64 syscall table:\n38\trename\n"
    run = arm._run
    told = {
        ("uname", "-m"): "aarch64\n",
        ("ausyscall", "aarch64", "--dump"): dump,
        ("ausyscall", "arm", "--dump"): dump,
    }
    arm._run = lambda argv: Output(0, told[tuple(argv)], "") if tuple(argv) in told else run(argv)
    assert probe.check(arm, CALLS)["status"] == "pass"


def test_programs_that_have_to_be_links(tmp_path: Path) -> None:
    spec = {"links": {"to": "/usr/bin/kmod", "from": ["/usr/sbin/lsmod", "/usr/sbin/rmmod"]}}
    good = node(tmp_path, "", "")
    tree(tmp_path, {"/usr/sbin/lsmod": "-> ../bin/kmod"})
    assert probe.check(good, spec)["status"] == "pass"
    tree(tmp_path, {"/usr/sbin/rmmod": "own program"})
    assert probe.check(good, spec)["reason"].startswith(
        "/usr/sbin/rmmod: expected a link to /usr/bin/kmod, found a file"
    )


@pytest.mark.parametrize(
    ("first", "second"), [("9-a", "10-a"), ("50-cis", "50-cis-privileged"), ("a", "b"), ("1", "a")]
)
def test_files_stand_in_the_order_of_ls_v(tmp_path: Path, first: str, second: str) -> None:
    asked = machine(tmp_path, {f"{RULES_D}/{name}.rules": f"-e {name}\n" for name in (second, first)})
    assert [text for text, _source in audit_lines.merged(asked)] == [f"-e {first}", f"-e {second}"]


# ---- the module


class Kernel:
    """augenrules and auditctl over the stand-in's auditctl; ``refuses`` is a text whose line does not load."""

    def __init__(self, shim: Any, directory: Path) -> None:
        self.shim, self.directory = shim, directory
        self.state = dict(shim.START, rules=["-a never,task"])
        self.merged = directory.parent / "audit.rules"
        self.refuses = "nothing"
        self.loads = 0
        self.calls: list[str] = []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        words = list(argv)
        self.calls.append(" ".join(words))
        if words == ["auditctl", "-s"]:
            return 0, f"enabled {self.state['enabled']}\n", ""
        if words == ["auditctl", "-l"]:
            return 0, "\n".join(self.state["rules"] or ["No rules"]) + "\n", ""
        if words[0] == "augenrules":
            return self.augenrules(words[1:])
        raise FileNotFoundError(2, "No such file or directory")

    def augenrules(self, words: list[str]) -> tuple[int, str, str]:
        lines = [line for file in sorted(self.directory.glob("*.rules")) for line in file.read_text().splitlines()]
        lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        last = [line for line in lines if line.startswith("-e")][-1:]
        text = "\n".join(
            ["-D"] * ("-D" in lines) + [line for line in lines if line != "-D" and line[:2] != "-e"] + last
        )
        same = self.merged.exists() and self.merged.read_text() == text
        if "--check" in words:
            return 0, f"augenrules: {'No change' if same else 'Rules have changed and should be updated'}\n", ""
        self.merged.write_text(text)
        return (self.load(), "", "") if "--load" in words else (0, "", "")

    def load(self) -> int:
        self.loads += 1
        if self.state["enabled"] == 2:
            return 1
        for line in self.merged.read_text().splitlines():
            if self.refuses in line:
                return 1
            try:
                self.shim.change(self.state, line.split())
            except self.shim.Refused:
                return 1
        return 0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    stock = "# stock\n-D\n\n# Remove it if you need\n-a never,task\n"
    return tree(tmp_path, {"audit/rules.d/audit.rules": stock}) / "audit/rules.d"


@pytest.fixture
def kernel(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    loader = importlib.machinery.SourceFileLoader("standin_auditctl", str(SHIM))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    shim = importlib.util.module_from_spec(spec)
    loader.exec_module(shim)
    numbers = {name: number for number, name in enumerate(["rename", "unlink", "open", "execve", "stime"])}
    monkeypatch.setattr(shim, "table", lambda _machine: numbers)
    (tmp_path / "manager").mkdir()
    monkeypatch.setattr(runtime, "MANAGER", str(tmp_path / "manager"))
    monkeypatch.setattr(audit_rules, "sudo_log", lambda: "")
    found = Kernel(shim, directory)
    found.augenrules(["--load"])
    return found


def batch(*wants: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule(f"r{number}", f"5.2.3.{number}", want) for number, want in enumerate(wants, 1)]


def test_rules_are_written_and_loaded(directory: Path, kernel: Kernel) -> None:
    settles_with_kernel(kernel, batch(WATCH, CALLS, PROGRAM), str(directory / "50-cis.rules"))
    assert (directory / "50-cis.rules").read_text() == (
        f"{core.HEADER}\n-b 8192\n--backlog_wait_time 0\n# 5.2.3.1 r1\n{W}# 5.2.3.2 r2\n{C}# 5.2.3.3 r3\n{P}"
    )
    assert (directory / "50-cis.rules").stat().st_mode & 0o777 == 0o640
    assert "# cisdriver 50-cis.rules: -a never,task\n" in (directory / "audit.rules").read_text()
    assert kernel.state["rules"] == f"{LW}{LC}{LP}".splitlines()
    assert kernel.state["backlog_wait_time"] == 0


def settles_with_kernel(kernel: Kernel, rules: list[dict[str, Any]], path: str) -> dict[str, Any]:
    """Check mode first, which must leave the kernel alone."""
    before = (dict(kernel.state), kernel.loads)
    applied(audit_rules.apply, rules, path, check=True, program=kernel)
    assert (dict(kernel.state), kernel.loads) == before
    return settles(audit_rules.apply, rules, path, program=kernel)


def test_what_is_deselected_goes_and_never_task_comes_back(directory: Path, kernel: Kernel) -> None:
    path, stock = str(directory / "50-cis.rules"), (directory / "audit.rules").read_text()
    settles(audit_rules.apply, batch(WATCH, PROGRAM), path, program=kernel)
    settles(audit_rules.apply, [*batch(WATCH), rule("r2", "5.2.3.2", state="absent")], path, program=kernel)
    assert kernel.state["rules"] == LW.splitlines()
    settles(audit_rules.apply, [rule("r1", "5.2.3.1", state="absent")], path, program=kernel)
    assert not (directory / "50-cis.rules").exists()
    assert (directory / "audit.rules").read_text() == stock
    assert kernel.state["rules"] == ["-a never,task"]


def test_rules_outside_this_run_stay(directory: Path, kernel: Kernel) -> None:
    path = str(directory / "50-cis.rules")
    settles(audit_rules.apply, batch(WATCH, PROGRAM), path, program=kernel)
    before = (directory / "50-cis.rules").read_text()
    kept = [rule("r1", "5.2.3.1", state="keep"), rule("r2", "5.2.3.2", PROGRAM)]
    assert not settles(audit_rules.apply, kept, path, program=kernel)["changed"]
    assert (directory / "50-cis.rules").read_text() == before


def test_an_administrators_rules_stay_and_none_is_written_twice(directory: Path, kernel: Kernel) -> None:
    mine = "-w /etc/sudoers.d  -p aw -k scope\n-w /etc/hosts -p wa -k mine\n-b 16384\n"
    tree(directory, {"30-site.rules": mine})
    settles(audit_rules.apply, batch(WATCH, PROGRAM), str(directory / "50-cis.rules"), program=kernel)
    assert (directory / "30-site.rules").read_text() == mine
    ours = (directory / "50-cis.rules").read_text()
    assert "sudoers.d" not in ours
    assert "-b 8192" not in ours
    assert kernel.state["rules"] == f"{LW}-w /etc/hosts -p wa -k mine\n{LP}".splitlines()


def test_right_on_disk_and_missing_in_the_kernel(directory: Path, kernel: Kernel) -> None:
    path = str(directory / "50-cis.rules")
    settles(audit_rules.apply, batch(WATCH, PROGRAM), path, program=kernel)
    kernel.state["rules"].remove(LW.strip())
    done = settles(audit_rules.apply, batch(WATCH, PROGRAM), path, program=kernel)
    assert done["rules"]["r1"]["before"]["not in the kernel"] == [W.strip()]
    assert kernel.state["rules"] == f"{LW}{LP}".splitlines()


def test_a_rule_loaded_by_hand_goes(directory: Path, kernel: Kernel) -> None:
    path = str(directory / "50-cis.rules")
    settles(audit_rules.apply, batch(WATCH, SAME), path, program=kernel)
    kernel.state["rules"].insert(0, "-a never,exit -S all -F auid>=1000")
    assert settles(audit_rules.apply, batch(WATCH, SAME), path, program=kernel)["changed"]
    assert kernel.state["rules"] == LW.splitlines()


def test_a_line_that_auditctl_would_refuse_can_be_read() -> None:
    assert apply_lines.canonical("-a always,exit -C euid -F auid -S") != apply_lines.canonical("-a always,exit -C uid")


def test_with_nothing_selected_what_others_loaded_stays(directory: Path, kernel: Kernel) -> None:
    path = str(directory / "50-cis.rules")
    kernel.state["rules"].append("-w /etc/hosts -p wa -k mine")
    assert not settles(audit_rules.apply, [rule("r1", "5.2.3.1", state="absent")], path, program=kernel)["changed"]
    assert kernel.state["rules"][-1] == "-w /etc/hosts -p wa -k mine"


def test_a_merged_file_changed_by_hand_is_merged_again(directory: Path, kernel: Kernel) -> None:
    path = str(directory / "50-cis.rules")
    settles(audit_rules.apply, batch(WATCH), path, program=kernel)
    right = kernel.merged.read_text()
    kernel.merged.write_text("-e 0\n")
    assert settles(audit_rules.apply, batch(WATCH), path, program=kernel)["changed"]
    assert kernel.merged.read_text() == right


def test_where_the_load_fails_all_is_as_before(directory: Path, kernel: Kernel) -> None:
    path, stock = str(directory / "50-cis.rules"), (directory / "audit.rules").read_text()
    kernel.refuses = "chcon"
    with pytest.raises(Refused, match=r"the load stops at .*50-cis.rules:\d+: -a always,exit -F path=/usr/bin/chcon"):
        applied(audit_rules.apply, batch(WATCH, PROGRAM), path, program=kernel)
    assert not (directory / "50-cis.rules").exists()
    assert (directory / "audit.rules").read_text() == stock
    assert kernel.state["rules"] == ["-a never,task"]


def test_another_file_that_does_not_load_is_named(directory: Path, kernel: Kernel) -> None:
    tree(directory, {"90-site.rules": "-w /etc/hosts -p wa -k mine\n"})
    kernel.refuses = "/etc/hosts"
    done = applied(audit_rules.apply, batch(WATCH), str(directory / "50-cis.rules"), program=kernel)
    assert "90-site.rules:1: -w /etc/hosts" in done["warnings"][0]


def test_the_lock_comes_after_a_load_that_succeeded(directory: Path, kernel: Kernel) -> None:
    settles(audit_rules.apply, batch(WATCH), str(directory / "50-cis.rules"), program=kernel)
    tree(directory, {"zz-site.rules": "-e 1\n"})
    path = str(directory / "99-finalize.rules")
    settles_with_kernel(kernel, batch(LOCK), path)
    assert (directory / "99-finalize.rules").read_text() == f"{core.HEADER}\n# 5.2.3.1 r1\n-e 2\n"
    assert (directory / "zz-site.rules").read_text() == "# cisdriver 99-finalize.rules: -e 1\n"
    assert kernel.state["enabled"] == 2
    assert kernel.state["rules"] == LW.splitlines()


def test_no_lock_over_rules_that_do_not_load(directory: Path, kernel: Kernel) -> None:
    tree(directory, {"90-site.rules": "-w /nowhere/file -p wa\n"})
    with pytest.raises(Refused, match="must load before they are locked"):
        applied(audit_rules.apply, batch(LOCK), str(directory / "99-finalize.rules"), program=kernel)
    assert not (directory / "99-finalize.rules").exists()
    assert kernel.state["enabled"] == 1


def test_a_locked_kernel_takes_effect_at_the_next_boot(directory: Path, kernel: Kernel) -> None:
    rules, lock = str(directory / "50-cis.rules"), str(directory / "99-finalize.rules")
    settles(audit_rules.apply, batch(WATCH), rules, program=kernel)
    settles(audit_rules.apply, batch(LOCK), lock, program=kernel)
    loads = kernel.loads
    assert not settles(audit_rules.apply, batch(LOCK), lock, program=kernel)["changed"]
    done = settles(audit_rules.apply, batch(WATCH, PROGRAM), rules, program=kernel)
    assert "takes effect at the next boot" in done["warnings"][0]
    assert kernel.loads == loads
    assert P.strip() in kernel.merged.read_text()
    assert kernel.merged.read_text().endswith("-e 2")
    # unlocked again it is a file less, and the next boot's business
    settles(audit_rules.apply, [rule("r1", "5.2.3.1", state="absent")], lock, program=kernel)
    assert not (directory / "99-finalize.rules").exists()
    assert kernel.state["enabled"] == 2


def test_where_no_service_manager_runs_files_alone_are_written(
    directory: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "MANAGER", "/nowhere")
    settles(audit_rules.apply, batch(WATCH), str(directory / "50-cis.rules"), program=kernel)
    assert kernel.state["rules"] == ["-a never,task"]
    assert "auditctl -l" not in kernel.calls
    assert W.strip() in kernel.merged.read_text()


def test_a_node_without_the_audit_system_is_left_alone(tmp_path: Path) -> None:
    done = settles(audit_rules.apply, batch(WATCH), str(tmp_path / "rules.d/50-cis.rules"))
    assert not done["changed"]
    assert "auditd_installed" in done["warnings"][0]


def test_what_no_line_can_hold_is_left_out_and_named(directory: Path, kernel: Kernel) -> None:
    odd = {
        "rules": [
            {"path": "/usr/bin/a b", "fields": ["perm=x"], "key": "k"},
            {"watch": "/nowhere/x", "perm": "wa", "key": "k"},
        ]
    }
    done = settles(audit_rules.apply, batch(odd, WATCH), str(directory / "50-cis.rules"), program=kernel)
    assert ["a b" in done["warnings"][0], "/nowhere/x" in done["warnings"][1]] == [True, True]
    assert kernel.state["rules"] == LW.splitlines()


def test_system_calls_that_the_machine_lacks_are_not_written(
    directory: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_rules, "TABLES", {os.uname().machine: {"b64": "aarch64", "b32": "arm"}})
    tables = {
        "aarch64": "Using aarch64 syscall table:\n38\trename\n",
        "arm": "Using arm syscall table:\n10\tunlink\n38\trename\n",
    }

    def program(argv: Sequence[str]) -> tuple[int, str, str]:
        return (0, tables[argv[1]], "") if argv[0] == "ausyscall" else kernel(argv)

    settles(audit_rules.apply, batch(CALLS), str(directory / "50-cis.rules"), program=program)
    assert [line.split()[5] for line in (directory / "50-cis.rules").read_text().splitlines() if "-S" in line] == [
        "rename",
        "unlink,rename",
    ]


def test_programs_are_found_by_one_find_and_listed_in_order(
    directory: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    finds: list[Sequence[str]] = []

    def program(argv: Sequence[str]) -> tuple[int, str, str]:
        if "find" in argv:
            finds.append(argv)
            return 0, "/usr/bin/su\0/usr/bin/chage\0", ""
        return kernel(argv)

    want = TOPIC["audit_privileged_commands"]["require"]["audit_rules"]
    monkeypatch.setattr(host_files, "MOUNTS", str(tree(directory, {"mounts": MOUNTS}) / "mounts"))
    applied(audit_rules.apply, batch(want), str(directory / "50-cis.rules"), program=program)
    assert len(finds) == 1
    assert list(finds[0][3:6]) == ["find", "/", "-xdev"]
    paths = [line.split()[3] for line in (directory / "50-cis.rules").read_text().splitlines() if "path=" in line]
    assert paths == ["path=/usr/bin/chage", "path=/usr/bin/su"]


@pytest.mark.parametrize(
    ("complaint", "refused"),
    [
        ("find: '/usr/bin/x': No such file or directory", False),
        ("find: '/var/lib/dead': Transport endpoint is not connected", False),
        ("find: '/usr/bin': Input/output error", True),
        ("", True),
    ],
)
def test_dead_mounts_of_others_do_not_stop_it(
    directory: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, complaint: str, refused: bool
) -> None:
    def program(argv: Sequence[str]) -> tuple[int, str, str]:
        return (1, "/usr/bin/su\0/usr/bin/su\0", complaint) if "find" in argv else kernel(argv)

    mounts = MOUNTS + "8 1 0:31 / /var/lib/dead rw - fuse.s3 s3 rw\n"
    monkeypatch.setattr(host_files, "MOUNTS", str(tree(directory, {"mounts": mounts}) / "mounts"))
    rules = batch(TOPIC["audit_privileged_commands"]["require"]["audit_rules"])
    if refused:
        with pytest.raises(Refused, match=r"find cannot list the setuid and setgid programs below /: (find: |exit 1)"):
            applied(audit_rules.apply, rules, str(directory / "50-cis.rules"), program=program)
    else:
        applied(audit_rules.apply, rules, str(directory / "50-cis.rules"), program=program)
        assert (directory / "50-cis.rules").read_text().count("path=/usr/bin/su") == 1


MOUNTS = """\
1 0 259:1 / / rw,noatime - xfs /dev/nvme0n1p1 rw
2 1 0:20 / /proc rw,nosuid - proc proc rw
3 1 0:21 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw
4 1 259:1 /var/x /opt/again rw - xfs /dev/nvme0n1p1 rw
5 1 259:2 / /var/lib/containerd rw - xfs /dev/nvme1n1 rw
6 1 259:3 / /home rw,nosuid - xfs /dev/nvme2n1 rw
7 1 0:30 / /var/lib/kubelet/pods/a/volumes/b rw - nfs4 x:/ rw
"""


def test_hardening_and_audit_leave_the_same_trees_out() -> None:
    assert sorted(host_files.CONTAINER_TREES) == sorted(scan.CONTAINER_TREES)


def test_what_is_written_is_what_is_asked_for(tmp_path: Path, kernel: Kernel, directory: Path) -> None:
    """Every rule of the topic: written, loaded into the stand-in's kernel, and found there by the audit."""
    numbers = {name: number for number, name in enumerate(sorted(_calls()))}
    kernel.shim.table = lambda _machine: numbers
    rules = []
    for slug, body in TOPIC.items():
        want = {**body["require"], **body.get("set", {})}["audit_rules"]
        if "rules" in want:
            # paths whose directory the machine that runs the tests may lack
            items = [
                item
                for item in want["rules"]
                if not str(item.get("watch", "")).startswith(("/etc/sysc", "/usr/share/se"))
            ]
            rules.append(rule(slug, body["ids"]["al2023-1.0.0"], {"rules": items}))
    settles(audit_rules.apply, rules, str(directory / "50-cis.rules"), program=kernel)
    on_disk = {path.name: path.read_text() for path in directory.glob("*.rules")}
    audited = node(tmp_path / "node", on_disk, "\n".join(kernel.state["rules"]))
    for path in ("/etc/security", "/run", "/usr/sbin"):
        (tmp_path / "node" / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for each in rules:
        finding = probe.check(audited, {"rules": each["want"]["rules"]})
        assert finding["status"] == "pass", finding["reason"]


def _calls() -> set[str]:
    wants = [{**body["require"], **body.get("set", {})}["audit_rules"] for body in TOPIC.values()]
    return {name for want in wants for item in want.get("rules", ()) for name in item.get("syscalls", ())}
