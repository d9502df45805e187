"""PAM: stacks that pass, and more of them that do not; a profile of authselect made, kept and taken away again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import authselect, pam_stack
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import pam as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import pam
from machines import Output, Refused, applied, machine, rule, tree

STANDIN = Path(__file__).resolve().parents[2] / "driver/cisdriver/sandbox/standin"
STOCK = (STANDIN / "rootfs/etc/pam.d/system-auth").read_text()
GOOD = """\
auth     required   pam_env.so
auth     required   pam_faillock.so preauth silent
auth     sufficient pam_unix.so try_first_pass nullok
auth     required   pam_faillock.so authfail
auth     required   pam_deny.so
account  required   pam_faillock.so
account  required   pam_unix.so
password requisite  pam_pwquality.so try_first_pass local_users_only enforce_for_root retry=3
password requisite  pam_pwhistory.so use_authtok remember=5
password sufficient pam_unix.so sha512 shadow use_authtok remember=5
password required   pam_deny.so
"""
MODULES = {
    f"/usr/lib64/security/pam_{name}.so": ""
    for name in (
        "env",
        "faillock",
        "unix",
        "deny",
        "pwquality",
        "pwhistory",
        "permit",
        "limits",
        "systemd",
        "localuser",
    )
}
CONF = {
    "/etc/security/faillock.conf": "# deny = 3\ndeny = 3\nunlock_time = 900\n",
    "/etc/security/pwquality.conf": "# minlen = 8\nminlen = 14\nminclass = 4\n",
}
FAILLOCK = {"pam_faillock": {"enabled": True}}
LOCKED = {"pam_faillock": {"deny": {"min": 1, "max": 5}, "unlock_time": {"min": 900}}}
STRONG = {
    "pam_pwquality": {
        "enabled": True, "minlen": {"min": 14}, "classes": {"min": 4}, "retry": {"min": 1, "max": 3},
        "enforce_for_root": True,
    }
}  # fmt: skip
REUSE = {"pam_pwhistory": {"enabled": True, "remember": {"min": 5}}, "pam_unix": {"remember": {"min": 5}}}
HASH = {"pam_unix": {"hash": "sha512"}}


def files(stack: str = GOOD, **more: str) -> dict[str, str | None]:
    return {**MODULES, **CONF, "/etc/pam.d/system-auth": stack, "/etc/pam.d/password-auth": GOOD, **more}


def look(root: Path, given: dict[str, str | None], spec: dict[str, Any], check: Output | None = None) -> dict[str, Any]:
    answers = {"authselect check": check} if check else {}
    return probe.check(machine(root, given, answers), spec)


def swapped(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


PREAUTH, AUTHFAIL = (
    "auth     required   pam_faillock.so preauth silent\n",
    "auth     required   pam_faillock.so authfail\n",
)
UNIX = "auth     sufficient pam_unix.so try_first_pass nullok\n"
QUALITY = "password requisite  pam_pwquality.so try_first_pass local_users_only enforce_for_root retry=3\n"
QUALITY_ARGS = "try_first_pass local_users_only enforce_for_root retry=3"
HISTORY = "password requisite  pam_pwhistory.so use_authtok remember=5\n"


@pytest.mark.parametrize(
    ("name", "stack", "spec", "status"),
    [
        ("authselect_s_stack_pass", GOOD, {**FAILLOCK, **STRONG, **REUSE, **HASH}, "pass"),
        ("bracket_authfail_pass", swapped(AUTHFAIL, "auth [default=die] pam_faillock.so authfail\n"), FAILLOCK, "pass"),
        (
            "bracket_that_binds_pass",
            swapped(
                PREAUTH, "auth [success=ok new_authtok_reqd=ok ignore=ignore default=bad] pam_faillock.so preauth\n"
            ),
            FAILLOCK,
            "pass",
        ),
        (
            "continued_line_and_capitals_pass",
            swapped(PREAUTH, "AUTH Required \\\n pam_faillock.so preauth # x\n"),
            FAILLOCK,
            "pass",
        ),
        (
            "absolute_path_pass",
            swapped(PREAUTH, "auth required /usr/lib64/security/pam_faillock.so preauth\n"),
            FAILLOCK,
            "pass",
        ),
        ("include_pass", "auth include password-auth\naccount include password-auth\n", FAILLOCK, "pass"),
        ("substack_pass", "auth substack password-auth\naccount required pam_faillock.so\n", FAILLOCK, "pass"),
        ("all_of_another_file_pass", "@include password-auth\n", {**FAILLOCK, **STRONG, **REUSE}, "pass"),
        ("not_there_fail", STOCK, FAILLOCK, "fail"),
        ("commented_fail", swapped(PREAUTH, "#" + PREAUTH), FAILLOCK, "fail"),
        ("no_authfail_fail", swapped(AUTHFAIL, ""), FAILLOCK, "fail"),
        ("no_account_fail", swapped("account  required   pam_faillock.so\n", ""), FAILLOCK, "fail"),
        ("preauth_after_unix_fail", swapped(PREAUTH + UNIX, UNIX + PREAUTH), FAILLOCK, "fail"),
        ("authfail_before_unix_fail", swapped(UNIX + AUTHFAIL, AUTHFAIL + UNIX), FAILLOCK, "fail"),
        (
            "account_after_unix_fail",
            swapped(
                "account  required   pam_faillock.so\naccount  required   pam_unix.so\n",
                "account required pam_unix.so\naccount required pam_faillock.so\n",
            ),
            FAILLOCK,
            "fail",
        ),
        ("optional_fail", swapped(PREAUTH, "auth optional pam_faillock.so preauth\n"), FAILLOCK, "fail"),
        (
            "bracket_that_lets_by_fail",
            swapped(PREAUTH, "auth [default=ignore] pam_faillock.so preauth\n"),
            FAILLOCK,
            "fail",
        ),
        (
            "one_refusal_let_by_fail",
            swapped(PREAUTH, "auth [perm_denied=ignore auth_err=ignore default=bad] pam_faillock.so preauth\n"),
            FAILLOCK,
            "fail",
        ),
        ("requisite_unix_hides_authfail_fail", swapped(UNIX, "auth requisite pam_unix.so\n"), FAILLOCK, "fail"),
        ("permit_before_fail", swapped(PREAUTH, "auth sufficient pam_permit.so\n" + PREAUTH), FAILLOCK, "fail"),
        ("vanished_line_fail", swapped(HISTORY, "-password requisite pam_gone.so\n"), REUSE, "fail"),
        ("no_try_limit_pass", swapped("retry=3", ""), STRONG, "pass"),  # the module's own limit is one
        ("too_many_tries_fail", swapped("retry=3", "retry=9"), STRONG, "fail"),
        ("tries_said_twice_fail", swapped("retry=3", "retry=3 retry=9"), STRONG, "fail"),
        ("root_exempt_fail", swapped("enforce_for_root ", ""), STRONG, "fail"),
        ("shorter_on_the_line_fail", swapped("retry=3", "retry=3 minlen=6"), STRONG, "fail"),
        ("quality_after_unix_fail", GOOD.replace(QUALITY, "") + QUALITY, STRONG, "fail"),
        ("more_failures_on_the_line_fail", swapped("preauth silent", "preauth silent deny=9"), LOCKED, "fail"),
        ("never_unlocked_on_the_line_pass", swapped("preauth silent", "preauth unlock_time=never"), LOCKED, "pass"),
        (
            "short_history_fail",
            swapped("use_authtok remember=5\npassword suff", "remember=4\npassword suff"),
            REUSE,
            "fail",
        ),
        ("unix_history_missing_fail", swapped("shadow use_authtok remember=5", "shadow"), REUSE, "fail"),
        (
            "jump_over_remote_users_pass",
            swapped(HISTORY, "password [default=1 success=ok] pam_localuser.so\n" + HISTORY),
            REUSE,
            "pass",
        ),
        ("other_hash_fail", swapped("sha512", "yescrypt"), HASH, "fail"),
        ("two_hashes_fail", swapped("sha512", "sha512 md5"), HASH, "fail"),
        ("no_hash_fail", swapped("sha512 ", ""), HASH, "fail"),
    ],
)
def test_stack(tmp_path: Path, name: str, stack: str, spec: dict[str, Any], status: str) -> None:
    finding = look(tmp_path, files(stack), spec)
    assert finding["status"] == status, (name, finding["reason"])


@pytest.mark.parametrize(
    ("name", "path", "text", "spec", "status"),
    [
        ("blanks_and_no_equals_pass", "faillock.conf", "deny=5\nunlock_time 0\n", LOCKED, "pass"),
        ("never_pass", "faillock.conf", "deny = 1\nunlock_time = never\n", LOCKED, "pass"),
        (
            "credits_pass",
            "pwquality.conf",
            "minlen=15\nucredit=-1\nlcredit=-1\ndcredit=-2\nocredit=-1\n",
            STRONG,
            "pass",
        ),
        ("compiled_in_deny_pass", "faillock.conf", "unlock_time = 900\n", LOCKED, "pass"),
        ("stock_fail", "faillock.conf", "# deny = 3\n# unlock_time = 600\n", LOCKED, "fail"),
        ("no_limit_fail", "faillock.conf", "deny = 0\nunlock_time = 900\n", LOCKED, "fail"),
        ("last_line_wins_fail", "faillock.conf", "deny = 3\nunlock_time = 900\ndeny = 6\n", LOCKED, "fail"),
        ("not_a_number_fail", "faillock.conf", "deny = many\nunlock_time = 900\n", LOCKED, "fail"),
        ("too_soon_fail", "faillock.conf", "deny = 3\nunlock_time = 60\n", LOCKED, "fail"),
        ("three_credits_fail", "pwquality.conf", "minlen=14\nucredit=-1\nlcredit=-1\ndcredit=-1\n", STRONG, "fail"),
        ("not_enforced_fail", "pwquality.conf", "minlen=14\nminclass=4\nenforcing = 0\n", STRONG, "fail"),
        ("short_fail", "pwquality.conf", "minlen = 13\nminclass = 4\n", STRONG, "fail"),
    ],
)
def test_files(tmp_path: Path, name: str, path: str, text: str, spec: dict[str, Any], status: str) -> None:
    finding = look(tmp_path, files(**{f"/etc/security/{path}": text}), spec)
    assert finding["status"] == status, (name, finding["reason"])


def test_the_main_file_of_pwquality_is_read_last(tmp_path: Path) -> None:
    dropin = {"/etc/security/pwquality.conf.d/99.conf": "minlen = 8\nenforce_for_root\n"}
    given = files(swapped("enforce_for_root ", ""), **dropin)
    assert look(tmp_path, given, STRONG)["status"] == "pass"
    given = {**given, "/etc/security/pwquality.conf": "minclass = 4\n"}
    assert "99.conf:1" in look(tmp_path, given, STRONG)["reason"]


def test_a_module_that_is_missing_and_a_loop(tmp_path: Path) -> None:
    given = files()
    del given["/usr/lib64/security/pam_faillock.so"]
    assert "pam_faillock.so is not installed" in look(tmp_path / "a", given, FAILLOCK)["reason"]
    with pytest.raises(core.ProbeError, match="include one another"):
        look(tmp_path / "b", files("auth include system-auth\n"), FAILLOCK)
    with pytest.raises(core.ProbeError, match="no such file"):
        look(tmp_path / "c", files("auth include nothing\n"), FAILLOCK)


def test_evidence_names_file_and_line(tmp_path: Path) -> None:
    finding = look(tmp_path, files(swapped("preauth silent", "preauth deny=9")), LOCKED)
    assert finding["reason"] == "system-auth: pam_faillock deny: expected 1 to 5, found 9 in /etc/pam.d/system-auth:2"


CHANGED = Output(
    3, "Current configuration is not valid.", "[error] [/etc/pam.d/postlogin] was not created by authselect!"
)


@pytest.mark.parametrize(
    ("conf", "check", "status", "words"),
    [
        ("custom/cis\nwith-faillock\n", Output(0, "Current configuration is valid.", ""), "pass", ""),
        ("minimal\n", Output(0, "Current configuration is valid.", ""), "fail", "minimal"),
        ("custom/cis\n", CHANGED, "fail", "/etc/pam.d/postlogin"),
        (None, None, "fail", "authselect.conf"),
    ],
)
def test_authselect(tmp_path: Path, conf: str | None, check: Output | None, status: str, words: str) -> None:
    given = files(**({"/etc/authselect/authselect.conf": conf} if conf else {}))
    finding = look(tmp_path, given, {"authselect": "custom"}, check)
    assert finding["status"] == status
    assert words in json.dumps(finding)


# The edits


def mentioned(text: str, *names: str) -> list[str]:
    return pam_stack.mentions(text, names)


def test_jumps_land_where_they_landed() -> None:
    """Debian's shape: success skips the refusal."""
    stack = (
        "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\nauth required pam_permit.so\n"
        "account required pam_unix.so\npassword [success=1 default=ignore] pam_unix.so sha512\n"
        "password requisite pam_deny.so\npassword required pam_permit.so\n"
    )
    after = pam_stack.edited(stack, {"pam_faillock": {"enabled": None}, "pam_pwhistory": {"remember": "5"}}, False)
    lines = [" ".join(line.split()) for line in after.splitlines()]
    assert lines[:5] == [
        "auth required pam_faillock.so preauth silent",
        "auth [success=2 default=ignore] pam_unix.so nullok",
        "auth required pam_faillock.so authfail",
        "auth requisite pam_deny.so",
        "auth required pam_permit.so",
    ]
    assert "password requisite pam_pwhistory.so enforce_for_root remember=5" in lines
    assert pam_stack.edited(after, {"pam_faillock": {"enabled": None}}, False) == after


def test_a_jump_that_reaches_a_module_does_not_reach_before_it() -> None:
    sssd = (
        "auth required pam_env.so\nauth [default=1 ignore=ignore success=ok] pam_localuser.so\n"
        "auth sufficient pam_unix.so\nauth sufficient pam_sss.so\nauth required pam_deny.so\n"
        "account required pam_unix.so\npassword sufficient pam_unix.so\n"
    )
    after = pam_stack.edited(sssd, {"pam_faillock": {"enabled": None}}, False)
    names = [
        line.split()[-1] if "faillock" in line else re.findall(r"pam_\w+", line)[0] for line in after.splitlines()[:7]
    ]
    assert names == ["pam_env", "silent", "pam_localuser", "pam_unix", "pam_sss", "authfail", "pam_deny"]
    assert "[default=1 " in after


def test_a_stack_without_a_place_for_authfail_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for authfail"):
        pam_stack.edited(
            "auth required pam_unix.so\npassword required pam_unix.so\n", {"pam_faillock": {"enabled": None}}, False
        )
    with pytest.raises(ValueError, match="no auth line of pam_unix"):
        pam_stack.edited("auth include system-auth-ac\n", {}, False)


# The module, with the stand-in's authselect


class Place:
    """A node's tree; programs are answered by the shim, moved below the root."""

    def __init__(self, root: Path, more: dict[str, str | None] | None = None) -> None:
        self.root = root
        given: dict[str, str | None] = {
            **MODULES,
            "/etc/pam.d/system-auth": STOCK,
            "/etc/pam.d/password-auth": STOCK,
            "/etc/pam.d/postlogin": "#%PAM-1.0\nsession optional pam_lastlog.so silent\n",
            "/etc/nsswitch.conf": "# of glibc\npasswd: files sss\nhosts: files resolve [!UNAVAIL=return] dns\n",
            "/etc/security/faillock.conf": "# deny = 3\n# unlock_time = 600\n",
            "/etc/security/pwquality.conf": "# minlen = 8\n",
            **(more or {}),
        }
        tree(root, given)
        shim = (STANDIN / "content/authselect/usr/bin/authselect").read_text().replace("os.geteuid() != 0", "False")
        self.shim = root / "authselect.py"
        self.shim.write_text(re.sub(r'"(/etc|/var/lib|/usr/share)/', rf'"{root}\1/', shim))
        self.installed = True
        self.calls: list[list[str]] = []
        self.failing: dict[str, tuple[int, str, str]] = {}

    def program(self, argv: list[str]) -> tuple[int, str, str]:
        self.calls.append(argv)
        if argv[0] == "dnf":
            self.installed = True
            return 0, "", ""
        if argv[0] != "authselect" or not self.installed:
            raise FileNotFoundError(2, "No such file or directory")
        for word, answer in self.failing.items():
            if argv[1] == word:
                return answer
        done = subprocess.run([sys.executable, str(self.shim), *argv[1:]], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def run(self, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
        def apply(batch: Any) -> None:
            batch.module.params.update(root=str(self.root), profile="cis")
            pam.apply(batch)

        return applied(apply, list(rules), check=check, program=self.program, memory=self.root / "memory")

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        predicted = self.run(*rules, check=True)
        assert ["dnf"] not in [call[:1] for call in self.calls]
        done, again = self.run(*rules), self.run(*rules)
        assert (predicted["diff"], predicted["rules"]) == (done["diff"], done["rules"])
        assert not again["changed"] and not again["diff"]
        return done

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def state(self) -> dict[str, str]:
        """Texts and links below etc, less what authselect keeps for itself."""
        found = {}
        for path in sorted((self.root / "etc").rglob("*")):
            if path.is_symlink() or path.is_file():
                name = str(path.relative_to(self.root))
                if name != "etc/authselect/user-nsswitch.conf":
                    found[name] = f"->{path.readlink()}" if path.is_symlink() else path.read_text()
        return found


CUSTOM = rule("authselect_custom_profile_used", "4.4.1", {"authselect": "custom"})
ENABLED = rule("pam_faillock_enabled", "4.4.2", {"pam_faillock": "enabled"})
QUALITIES = rule(
    "password_strength_required", "4.5.1", {"pam_pwquality": "enabled minlen=14 minclass=4 retry=3 enforce_for_root"}
)
LOCKING = rule("failed_logins_locked_out", "4.5.2", {"pam_faillock": "deny=3 unlock_time=900"})
REMEMBER = rule("password_reuse_limited", "4.5.3", {"pam_pwhistory": "remember=5", "pam_unix": "remember=5"})
SHA512 = rule("password_hash_strong", "4.5.4", {"pam_unix": "sha512"})
ALL = (CUSTOM, ENABLED, QUALITIES, LOCKING, REMEMBER, SHA512)


def without(*rules: dict[str, Any], gone: tuple[dict[str, Any], ...] = ALL) -> list[dict[str, Any]]:
    """Every rule of ALL, those not given as absent."""
    named = {each["rule"] for each in rules}
    return [*rules, *(rule(each["rule"], each["id"], state="absent") for each in gone if each["rule"] not in named)]


def test_all_rules_on_a_stock_node(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.installed = False
    done = place.settles(*ALL)
    assert place.installed
    assert place.text("/etc/authselect/authselect.conf") == "custom/cis\nwith-faillock\n"
    for name in ("system-auth", "password-auth"):
        lines = mentioned(
            place.text(f"/etc/pam.d/{name}"), "pam_faillock", "pam_pwquality", "pam_pwhistory", "pam_unix"
        )
        assert lines == [
            "auth required pam_faillock.so preauth silent",
            "auth sufficient pam_unix.so try_first_pass nullok",
            "auth required pam_faillock.so authfail",
            "account required pam_faillock.so",
            "account required pam_unix.so",
            f"password requisite pam_pwquality.so {QUALITY_ARGS} authtok_type=",
            "password requisite pam_pwhistory.so use_authtok enforce_for_root remember=5",
            "password sufficient pam_unix.so try_first_pass use_authtok nullok sha512 shadow remember=5",
            "session required pam_unix.so",
        ]
    assert "# deny = 3\ndeny = 3\n# unlock_time = 600\nunlock_time = 900\n" in place.text("/etc/security/faillock.conf")
    assert done["rules"]["authselect_custom_profile_used"]["after"] == {"authselect": "custom/cis with-faillock"}
    assert not done["rules"]["password_hash_strong"]["changed"]


def test_name_resolution_and_the_rest_of_pam_stay(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(*ALL)
    assert "passwd: files sss\nhosts: files resolve [!UNAVAIL=return] dns\n" in place.text("/etc/nsswitch.conf")
    assert "session optional pam_lastlog.so silent\n" in place.text("/etc/pam.d/postlogin").replace("        ", " ")


def test_nothing_selected_leaves_the_node_as_it_was(tmp_path: Path) -> None:
    place = Place(tmp_path)
    before = place.state()
    place.run(*ALL)
    assert place.state() != before
    place.settles(*without())
    assert place.state() == before
    assert not list((tmp_path / "memory").iterdir())


def test_a_rule_that_goes_takes_its_own_along_and_no_other(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(*ALL)
    place.settles(*without(*(each for each in ALL if each is not ENABLED and each is not LOCKING)))
    text = place.text("/etc/pam.d/system-auth")
    assert "faillock" not in text and "pam_pwhistory" in text
    assert place.text("/etc/authselect/authselect.conf").split() == ["custom/cis"]
    assert place.text("/etc/security/faillock.conf") == "# deny = 3\n# unlock_time = 600\n"
    assert "minlen = 14" in place.text("/etc/security/pwquality.conf")


def test_a_rule_outside_of_the_tags_keeps_what_it_wrote(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(*ALL)
    before = place.state()
    kept = [rule(each["rule"], each["id"], state="keep") for each in ALL if each is not REMEMBER]
    assert not place.run(REMEMBER, *kept)["changed"]
    assert place.state() == before


def test_the_files_alone_need_no_profile(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.settles(*without(LOCKING))
    assert not (tmp_path / "etc/authselect").exists()
    assert "deny = 3" in place.text("/etc/security/faillock.conf")


def test_an_option_on_the_line_that_would_win_brings_the_profile(tmp_path: Path) -> None:
    loud = STOCK.replace(
        "auth        sufficient", "auth required pam_faillock.so preauth audit deny=9\nauth        sufficient"
    )
    place = Place(tmp_path, {"/etc/pam.d/system-auth": loud})
    place.settles(*without(LOCKING))
    assert mentioned(place.text("/etc/pam.d/system-auth"), "pam_faillock") == [
        "auth required pam_faillock.so preauth audit"
    ]


def test_what_is_stricter_stays(tmp_path: Path) -> None:
    place = Place(
        tmp_path,
        {
            "/etc/security/faillock.conf": "deny=2\n unlock_time = never\n",
            "/etc/security/pwquality.conf": "minlen 20\n",
            "/etc/pam.d/system-auth": STOCK.replace("shadow", "shadow remember=24").replace("retry=3", "retry=1"),
        },
    )
    place.settles(*ALL)
    assert place.text("/etc/security/faillock.conf") == "deny=2\n unlock_time = never\n"
    assert place.text("/etc/security/pwquality.conf") == "minlen 20\nminclass = 4\n"
    line = mentioned(place.text("/etc/pam.d/system-auth"), "pam_pwquality", "pam_unix")
    assert "retry=1" in line[2] and "remember=24" in line[3]


def test_a_comment_behind_a_value_is_none_of_it(tmp_path: Path) -> None:
    path = "/etc/security/pwquality.conf"
    text = "minlen = 15 # ours\nminclass=3  # of four\n"
    place = Place(tmp_path, {path: text})
    place.settles(*ALL)
    assert place.text(path) == "minlen = 15 # ours\nminclass=4  # of four\n"
    finding = look(tmp_path / "n", files(**{path: place.text(path)}), STRONG)
    assert finding["status"] == "pass", finding
    place.settles(*without())
    assert place.text(path) == text


def test_a_stricter_value_that_an_administrator_chose_since_stays(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(*ALL)
    path = tmp_path / "etc/security/faillock.conf"
    path.write_text(path.read_text().replace("\ndeny = 3\n", "\ndeny = 2\n"))
    place.run(*ALL)
    place.run(*without())
    assert path.read_text() == "# deny = 3\ndeny = 2\n# unlock_time = 600\n"


def test_a_profile_that_cannot_come_back_is_named(tmp_path: Path) -> None:
    profile = dict.fromkeys(("system-auth", "password-auth"), STOCK)
    given = {f"/etc/authselect/custom/site/{name}": text for name, text in {**profile, "README": "Site\n"}.items()}
    place = Place(tmp_path, dict(given))
    place.program(["authselect", "select", "custom/site", "--force", "--nobackup"])
    place.run(*ALL)
    place.failing["select"] = (3, "", "no such profile")
    with pytest.raises(Refused, match=r"authselect select custom/site: exit 3: no such profile.*keep the rules"):
        place.run(*without())
    assert (tmp_path / "etc/authselect/custom/cis/system-auth").exists()
    assert place.program(["authselect", "check"])[0] == 0
    place.failing.clear()
    place.settles(*without())
    assert place.text("/etc/authselect/authselect.conf").split() == ["custom/site"]


def test_what_cannot_be_put_back_is_named_and_the_rest_is(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("new")
    saved = {str(tmp_path / "no/a"): ("file", "old", "644"), str(tmp_path / "b"): ("file", "old", "640")}
    assert pam.roll_back(saved) == [f"{tmp_path}/no/a: No such file or directory"]
    assert ((tmp_path / "b").read_text(), (tmp_path / "b").stat().st_mode & 0o777) == ("old", 0o640)


def test_what_an_administrator_set_since_is_not_given_back(tmp_path: Path) -> None:
    place = Place(tmp_path, {"/etc/security/pwquality.conf": "minlen = 10\nminlen = 9\n"})
    place.run(*ALL)
    assert place.text("/etc/security/pwquality.conf").startswith("minlen = 14\nminlen = 14\n")
    (tmp_path / "etc/security/faillock.conf").write_text("deny = 4\nunlock_time = 900\n")
    place.run(*without())
    assert place.text("/etc/security/pwquality.conf") == "minlen = 10\nminlen = 9\n"
    assert place.text("/etc/security/faillock.conf") == "deny = 4\n"


def test_a_profile_that_was_selected_before_comes_back(tmp_path: Path) -> None:
    profile = {
        "/etc/authselect/custom/site/README": "Site\n",
        "/etc/authselect/custom/site/system-auth": STOCK + 'session required pam_limits.so {include if "with-x"}\n',
        "/etc/authselect/custom/site/password-auth": STOCK,
        "/etc/authselect/custom/site/nsswitch.conf": "passwd: files\nhosts: files dns\n",
    }
    place = Place(tmp_path, dict(profile))
    place.program(["authselect", "select", "custom/site", "with-x", "--force", "--nobackup"])
    place.settles(*ALL)
    assert place.text("/etc/pam.d/system-auth").count("pam_limits") == 2
    place.settles(*without())
    assert place.text("/etc/authselect/authselect.conf").split() == ["custom/site", "with-x"]
    assert place.program(["authselect", "check"])[0] == 0
    assert not (tmp_path / "etc/authselect/custom/cis").exists()


@pytest.mark.parametrize(
    "spoil",
    ["/etc/pam.d/system-auth", "/etc/authselect/system-auth", "/etc/authselect/custom/cis/system-auth"],
)
def test_what_was_changed_by_hand_is_made_good(tmp_path: Path, spoil: str) -> None:
    place = Place(tmp_path)
    place.run(*ALL)
    before = place.text("/etc/pam.d/system-auth").split("\n", 3)[3]
    path = tmp_path / spoil.lstrip("/")
    text = path.read_text().replace("pam_pwhistory", "pam_permit")
    path.unlink()
    path.write_text(text)
    place.settles(*ALL)
    assert place.text("/etc/pam.d/system-auth").split("\n", 3)[3] == before
    assert place.program(["authselect", "check"])[0] == 0


@pytest.mark.parametrize("failing", ["select", "check"])
def test_what_authselect_refuses_leaves_the_stacks_as_they_were(tmp_path: Path, failing: str) -> None:
    place = Place(tmp_path)
    before = {name: text for name, text in place.state().items() if "/custom/" not in name}
    place.failing[failing] = (5, "", "it does not like this")
    with pytest.raises(Refused, match=r"it does not like this.*The stacks are as they were"):
        place.run(*ALL)
    now = {name: text for name, text in place.state().items() if "/custom/" not in name and "security" not in name}
    assert now == {name: text for name, text in before.items() if "security" not in name}


def test_a_node_that_answers_otherwise_gets_its_stacks_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    results = iter([{"su": 0}, {"su": 1}])
    monkeypatch.setattr(pam, "answers", lambda *_: next(results))
    with pytest.raises(Refused, match="su: worked before, now fails with 1"):
        place.run(*ALL)
    assert not (tmp_path / "etc/pam.d/system-auth").is_symlink()
    assert place.text("/etc/pam.d/system-auth") == STOCK


@pytest.mark.parametrize("check", [True, False])
def test_a_module_that_is_not_installed_is_never_put_into_a_stack(tmp_path: Path, check: bool) -> None:
    place = Place(tmp_path)
    (tmp_path / "usr/lib64/security/pam_pwhistory.so").unlink()
    before = place.text("/etc/pam.d/system-auth")
    with pytest.raises(Refused, match=r"pam_pwhistory.so is in none of .* nobody could log in"):
        place.run(*ALL, check=check)
    assert place.text("/etc/pam.d/system-auth") == before and not (tmp_path / "etc/authselect").exists()


def test_amazon_linux_2_is_left_alone_with_a_warning(tmp_path: Path) -> None:
    place = Place(tmp_path, {"/etc/os-release": 'ID="amzn"\nVERSION_ID="2"\n'})
    done = place.run(*ALL)
    assert not done["changed"] and "no authselect" in done["warnings"][0]


def test_a_path_is_put_back_as_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for make in (lambda: path.symlink_to("gone"), lambda: path.write_text("a\n"), lambda: None):
        make()
        was = authselect.entry(str(path))
        path.unlink(missing_ok=True)
        path.write_text("other")
        authselect.put_back(str(path), was)
        assert authselect.entry(str(path)) == was
        path.unlink(missing_ok=True)
