"""Time-out and umask of shells, umask of services: states that pass, and more of them that fail."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import unit_umask
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, shells, umasks
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import shell_env as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import login_defs, shell_env
from machines import machine, rule, settles, tree

TMOUT = {"tmout": {"min": 1, "max": 900}}
UMASK = {"umask": "027"}
GOOD = 'declare -rx TMOUT="900"'
TMOUT_QUESTION = "declare -p TMOUT 2>/dev/null; true"
OURS = {"/etc/profile.d/cis-tmout.sh": "if (unset TMOUT) 2>/dev/null; then\ntypeset -xr TMOUT=900\nfi\n"}


def told(question: str, answer: str, start: str = "022", **exceptions: str) -> dict[str, str | core.Output]:
    """What every shell of every user answers; an exception is named by shell, blanks as ``_``."""
    return {
        " ".join(shells.argv(user, shell, question, start)): "\ncisdriver-answer:"
        + exceptions.get(shell.replace(" ", "_"), answer)
        for user in shells.USERS
        for shell in shells.SHELLS
    }


@pytest.mark.parametrize(
    ("name", "files", "answers", "status"),
    [
        ("ours_pass", OURS, told(TMOUT_QUESTION, GOOD), "pass"),
        ("less_pass", {"/etc/profile": "readonly TMOUT=60\n"}, told(TMOUT_QUESTION, 'declare -irx TMOUT="60"'), "pass"),
        ("commented_pass", {**OURS, "/etc/bashrc": "# TMOUT=0\n"}, told(TMOUT_QUESTION, GOOD), "pass"),
        ("of_a_variable_pass", {**OURS, "/etc/bashrc": "TMOUT=$X\n"}, told(TMOUT_QUESTION, GOOD), "pass"),
        ("stock_fail", {}, told(TMOUT_QUESTION, ""), "fail"),
        ("zero_fail", {}, told(TMOUT_QUESTION, 'declare -rx TMOUT="0"'), "fail"),
        ("too_long_fail", {}, told(TMOUT_QUESTION, 'declare -rx TMOUT="901"'), "fail"),
        ("not_readonly_fail", {}, told(TMOUT_QUESTION, 'declare -x TMOUT="900"'), "fail"),
        ("not_exported_fail", {}, told(TMOUT_QUESTION, 'declare -r TMOUT="900"'), "fail"),
        ("empty_fail", {}, told(TMOUT_QUESTION, "declare -rx TMOUT"), "fail"),
        ("interactive_alone_fail", {}, told(TMOUT_QUESTION, GOOD, interactive_shell=""), "fail"),
        ("right_now_wrong_on_disk_fail", {"/etc/profile.d/z.sh": "  TMOUT=0\n"}, told(TMOUT_QUESTION, GOOD), "fail"),
        ("export_with_value_fail", {"/etc/bashrc": "export TMOUT=1800\n"}, told(TMOUT_QUESTION, GOOD), "fail"),
        ("unset_fail", {"/etc/profile.d/z.sh": "unset TMOUT\n"}, told(TMOUT_QUESTION, GOOD), "fail"),
        ("one_line_fail", {"/etc/profile": "[ x ] && TMOUT=0; true\n"}, told(TMOUT_QUESTION, GOOD), "fail"),
        ("right_on_disk_wrong_now_fail", OURS, told(TMOUT_QUESTION, ""), "fail"),
    ],
)
def test_timeout(
    tmp_path: Path, name: str, files: dict[str, str], answers: Mapping[str, str | core.Output], status: str
) -> None:
    assert probe.check(machine(tmp_path, files, answers), TMOUT)["status"] == status, name


PAM = {
    "/etc/login.defs": "UMASK 027\n",
    "/etc/pam.d/system-auth": "session optional pam_umask.so\n",
    "/etc/pam.d/password-auth": "session optional pam_umask.so\n",
}


@pytest.mark.parametrize(
    ("name", "files", "answers", "status"),
    [
        ("three_digits_pass", {"/etc/profile": "umask 027\n"}, told("umask", "0027"), "pass"),
        ("stricter_pass", {"/etc/profile": "umask 77\n"}, told("umask", "0077"), "pass"),
        ("symbolic_pass", {"/etc/profile": "umask u=rwx,g=rx,o=\n"}, told("umask", "0027"), "pass"),
        ("asked_pass", {"/etc/profile": 'old=$(umask)\numask "$old"\n'}, told("umask", "0027"), "pass"),
        ("comment_pass", {"/etc/profile": "umask 027 # not umask 022\n# umask 022\n"}, told("umask", "0027"), "pass"),
        ("by_pam_alone_pass", PAM, told("umask", "0027", start="027"), "pass"),
        ("stock_fail", {"/etc/profile": "umask 022\n"}, told("umask", "0022"), "fail"),
        ("one_shell_fail", {}, told("umask", "0027", login_sh="0022"), "fail"),
        ("group_writes_fail", {}, told("umask", "0007"), "fail"),
        ("nothing_set_fail", {"/etc/login.defs": "UMASK 027\n"}, told("umask", "0022"), "fail"),
        ("other_branch_fail", {"/etc/bashrc": "else umask 002; fi\n"}, told("umask", "0027"), "fail"),
        ("csh_fail", {"/etc/csh.cshrc": "  umask 022\n"}, told("umask", "0027"), "fail"),
        ("profile_d_csh_fail", {"/etc/profile.d/a.csh": "umask 022\n"}, told("umask", "0027"), "fail"),
        ("sh_local_fail", {"/etc/profile.d/sh.local": "umask 022\n"}, told("umask", "0027"), "fail"),
        ("symbolic_fail", {"/etc/profile": "umask u=rwx,g=rwx,o=\n"}, told("umask", "0027"), "fail"),
        ("after_and_fail", {"/etc/profile": "true && umask -S 0022\n"}, told("umask", "0027"), "fail"),
        ("no_number_fail", {}, told("umask", "sh: umask: bad"), "fail"),
    ],
)
def test_umask(
    tmp_path: Path, name: str, files: dict[str, str], answers: Mapping[str, str | core.Output], status: str
) -> None:
    assert probe.check(machine(tmp_path, files, answers), UMASK)["status"] == status, name


@pytest.mark.parametrize(
    ("value", "covers"),
    [
        *(("027", True), ("0027", True), ("27", True), ("77", True), ("0077", True), ("022", False), ("007", False)),
        *(("u=rwx,g=rx,o=", True), ("g=rx,o=", True), ("go=", True), ("g-w,o-rwx", True), ("a=rwx", False)),
        *(("o=", False), ("g=rx", False), ("u=rwx,g=rwx,o=", False), ("g-w,o-rw", False), ("go=,o+r", False)),
    ],
)
def test_umask_in_all_its_forms_means_the_same_to_both_halves(value: str, covers: bool) -> None:
    assert umasks.covers(value, "027") is covers
    assert (not 0o27 & ~shell_env.masked(value)) is covers


def test_a_shell_that_hangs_or_dies_is_an_error(tmp_path: Path) -> None:
    hung = dict.fromkeys(told("umask", ""), core.Output(124, "", ""))
    with pytest.raises(core.ProbeError, match="10 seconds"):
        probe.check(machine(tmp_path / "a", {}, hung), UMASK)
    with pytest.raises(core.ProbeError, match="not found"):
        probe.check(machine(tmp_path / "b"), UMASK)


UNITS = {"units": {"umask": "0022", "names": ["kubelet.service"]}}
FRAGMENT = {"/etc/systemd/system/kubelet.service": "[Service]\nExecStart=/usr/bin/kubelet\n"}
SHOW = "systemctl show --property=LoadState,UMask kubelet.service"


@pytest.mark.parametrize(
    ("name", "files", "answers", "status"),
    [
        ("no_such_unit_pass", {}, {}, "pass"),
        ("default_pass", FRAGMENT, {SHOW: "LoadState=loaded\nUMask=0022\n"}, "pass"),
        ("no_manager_pass", FRAGMENT, {}, "pass"),
        (
            "drop_in_pass",
            {**FRAGMENT, "/etc/systemd/system/kubelet.service.d/z.conf": "[Service]\nUMask=022\n"},
            {},
            "pass",
        ),
        ("fragment_fail", {"/usr/lib/systemd/system/kubelet.service": "[Service]\nUMask=0027\n"}, {}, "fail"),
        (
            "later_drop_in_fail",
            {**FRAGMENT, "/run/systemd/system/kubelet.service.d/z.conf": "[Service]\nUMask=077\n"},
            {},
            "fail",
        ),
        (
            "of_all_services_fail",
            {**FRAGMENT, "/etc/systemd/system/service.d/z.conf": "[Service]\nUMask=077\n"},
            {},
            "fail",
        ),
        ("as_loaded_fail", FRAGMENT, {SHOW: "LoadState=loaded\nUMask=0077\n"}, "fail"),
    ],
)
def test_units(tmp_path: Path, name: str, files: dict[str, str], answers: dict[str, Any], status: str) -> None:
    assert probe.check(machine(tmp_path, files, answers), UNITS)["status"] == status, name


@pytest.mark.parametrize(
    ("mode", "status"),
    [(0o644, "pass"), (0o111, "pass"), (0o600, "pass"), (0o640, "fail"), (0o750, "fail"), (0o4110, "pass")],
)
def test_what_a_umask_has_shut_to_others(tmp_path: Path, mode: int, status: str) -> None:
    node = machine(tmp_path, {"/opt/cni/bin/a b": ""})
    for path in (tmp_path / "opt/cni", tmp_path / "opt/cni/bin"):
        path.chmod(0o755)
    (tmp_path / "opt/cni/bin/a b").chmod(mode)
    (tmp_path / "opt/cni/bin/dangling").symlink_to("nowhere")
    finding = probe.check(node, {"readable": ["/opt/cni", "/etc/absent"]})
    assert finding["status"] == status
    assert status == "pass" or "/opt/cni/bin/a b" in finding["reason"]


# ---- the module

PROFILE = """if [ $UID -gt 199 ] && [ "`id -gn`" = "`id -un`" ]; then
    umask 002
else
    umask 022 # for the system
fi
for i in /etc/profile.d/*.sh; do . "$i"; done
"""


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tree(tmp_path, {"/etc/profile": PROFILE, "/etc/bashrc": "umask 077\n", "/etc/profile.d": None})
    monkeypatch.setattr(shell_env, "ETC", str(tmp_path / "etc"))
    monkeypatch.setattr(unit_umask, "SYSTEMD", str(tmp_path / "systemd"))
    monkeypatch.setattr(unit_umask, "PLACES", (str(tmp_path / "systemd"), str(tmp_path / "usr")))
    return tmp_path / "etc"


def bash(argv: list[str]) -> tuple[int, str, str]:
    """The real one for syntax; nothing else of this machine."""
    if argv[0] != "bash":
        raise FileNotFoundError(2, "No such file or directory")
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def ran(etc: Path, want: dict[str, Any] | None, name: str = "zz-cis-umask.sh", dropin: str = "", **more: Any) -> Any:
    each = rule("r", "4.6.5", want) if want else rule("r", "4.6.5", state="absent")
    path = str(etc / "profile.d" / name)
    return settles(shell_env.apply, [each], path, dropin, memory=etc.parent / "memory", program=bash, **more)


def content(etc: Path) -> dict[str, str]:
    return {str(path.relative_to(etc)): path.read_text() for path in sorted(etc.rglob("*")) if path.is_file()}


def test_every_weaker_umask_is_brought_to_the_value_and_back(etc: Path) -> None:
    (etc / "csh.cshrc").write_text("if (1) then\n  umask 002\nendif\n")
    (etc / "profile.d/a b.sh").write_text('true && umask "u=rwx,g=rwx,o="\nx=$(umask); umask $x')
    (etc / "profile.d/dangling.sh").symlink_to("nowhere")
    before = content(etc)
    ran(etc, UMASK)
    assert (etc / "profile").read_text() == PROFILE.replace("umask 002", "umask 027").replace("umask 022", "umask 027")
    assert (etc / "bashrc").read_text() == "umask 077\n"
    assert (etc / "csh.cshrc").read_text() == "if (1) then\n  umask 027\nendif\n"
    assert (etc / "profile.d/a b.sh").read_text().startswith('true && umask "027"\nx=$(umask); umask $x')
    ran(etc, None)
    after = content(etc)
    assert {name: text.rstrip("\n") for name, text in after.items()} == {n: t.rstrip("\n") for n, t in before.items()}
    assert list((etc.parent / "memory").iterdir()) == []


def test_what_an_administrator_changed_since_stays(etc: Path) -> None:
    ran(etc, UMASK)
    text = (etc / "profile").read_text().replace("    umask 027 # for the system", "    umask 077")
    (etc / "profile").write_text(text + "export SITE=1\n")
    ran(etc, None)
    assert (etc / "profile").read_text() == PROFILE.replace(
        "umask 022 # for the system", "umask 077"
    ) + "export SITE=1\n"


@pytest.mark.parametrize(("before", "after"), [("022", "0027"), ("002", "0027"), ("077", "0077"), ("007", "0027")])
@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_file_of_ours_never_weakens(etc: Path, before: str, after: str, shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    ran(etc, UMASK)
    script = f"umask {before}; . {etc}/profile.d/zz-cis-umask.sh; umask"
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == after
    assert done.stderr == ""


def test_a_timeout_elsewhere_is_set_aside_and_comes_back(etc: Path) -> None:
    tree(
        etc,
        {
            "/profile.d/aa.sh": "if true; then\n  TMOUT=0\nfi\nexport TMOUT\n",
            "/profile.d/zz.sh": "unset TMOUT\nexport TMOUT=1800 # long\nTMOUT=5 read -r x\n",
        },
    )
    before = content(etc)
    ran(etc, {"tmout": 900}, "cis-tmout.sh")
    mark = ": # cisdriver cis-tmout.sh: "
    assert (etc / "profile.d/aa.sh").read_text() == f"if true; then\n{mark}  TMOUT=0\nfi\n{mark}export TMOUT\n"
    assert (etc / "profile.d/zz.sh").read_text().endswith("# long\nTMOUT=5 read -r x\n")
    assert (etc / "profile").read_text() == PROFILE
    ran(etc, None, "cis-tmout.sh")
    assert content(etc) == before


def test_a_shorter_timeout_is_taken_over_and_stays(etc: Path) -> None:
    (etc / "profile.d/aa.sh").write_text("readonly TMOUT=300\n")
    for _time in range(2):
        ran(etc, {"tmout": 900}, "cis-tmout.sh")
        assert "TMOUT=300" in (etc / "profile.d/cis-tmout.sh").read_text()
        (etc / "profile.d/late.sh").write_text("TMOUT=0\n")


def test_the_timeout_is_readonly_exported_and_may_be_read_twice(etc: Path) -> None:
    ran(etc, {"tmout": 900}, "cis-tmout.sh")
    path = etc / "profile.d/cis-tmout.sh"
    script = f"TMOUT=0; . {path}; . {path}; declare -p TMOUT"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ('declare -rx TMOUT="900"\n', "")


def test_a_rule_outside_of_the_tags_keeps_its_lines(etc: Path) -> None:
    (etc / "profile.d/aa.sh").write_text("TMOUT=0\n")
    ran(etc, {"tmout": 900}, "cis-tmout.sh")
    before = content(etc)
    path = str(etc / "profile.d/cis-tmout.sh")
    keep = [rule("r", "4.6.5", state="keep")]
    assert not settles(shell_env.apply, keep, path, "", memory=etc.parent / "memory", program=bash)["changed"]
    assert content(etc) == before


def test_services_that_are_there_keep_their_umask(etc: Path) -> None:
    systemd = etc.parent / "systemd"
    late = "[Service]\n UMask = 0077\n"
    tree(systemd, {"/kubelet.service": "", "/kubelet.service.d/zzz.conf": late, "/kubelet.service.d/a.conf": late})
    names = ["kubelet.service", "containerd.service"]
    want = {"umask": "027", "units": {"umask": "0022", "names": names}}
    ran(etc, want, dropin="zz-cis-umask.conf")
    ours = systemd / "kubelet.service.d/zz-cis-umask.conf"
    assert ours.read_text().endswith("[Service]\n# 4.6.5 r\nUMask=0022\n")
    assert "# cisdriver zz-cis-umask.conf:  UMask = 0077\n" in (systemd / "kubelet.service.d/zzz.conf").read_text()
    assert (systemd / "kubelet.service.d/a.conf").read_text() == late
    assert not (systemd / "containerd.service.d").exists()
    ran(etc, None, dropin="zz-cis-umask.conf")
    assert (systemd / "kubelet.service.d/zzz.conf").read_text() == late
    assert not ours.exists()


@pytest.mark.parametrize(("present", "after"), [("022", "027"), ("077", "077"), ("0077", "0077"), ("002", "027")])
def test_a_stricter_umask_of_new_accounts_stays(present: str, after: str) -> None:
    assert login_defs.stricter("UMASK", "027", present) == after
