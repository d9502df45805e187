"""sshd: states that pass, and more of them that fail; a drop-in that wins, or a message that names what does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import sshd as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import sshd
from machines import Output, Refused, applied, machine, rule, tree

INCLUDE = "Include /etc/ssh/sshd_config.d/*.conf\n"
#: What the EKS build leaves: a crypto policy that comes first, and a Ciphers line that comes too late.
STOCK = {
    "/etc/ssh/sshd_config": f"{INCLUDE}PasswordAuthentication no\n\nCiphers aes128-ctr,aes256-ctr\n",
    "/etc/ssh/sshd_config.d/50-redhat.conf": "UsePAM yes\nX11Forwarding yes\n",
}
OURS = "/etc/ssh/sshd_config.d/00-cis.conf"
DEFAULTS = {
    "permitrootlogin": "without-password", "x11forwarding": "no", "maxauthtries": "6", "logingracetime": "120",
    "maxstartups": "10:30:100", "banner": "none", "usepam": "no", "loglevel": "INFO",
}  # fmt: skip


def read_by_sshd(root: str, path: str, matched: bool = False) -> list[tuple[str, str]]:
    """``(keyword, value)`` in the order of sshd, as for root: lines of a Match block for somebody else left out."""
    found: list[tuple[str, str]] = []
    for line in Path(root + path).read_text().splitlines():
        keyword, _blank, value = line.strip().partition(" ")
        keyword = keyword.lower()
        if not keyword or keyword.startswith("#"):
            continue
        if keyword == "match":
            matched = value.lower() not in ("all", "user root")
        elif matched:
            continue
        elif keyword == "include":
            for name in sorted(Path("/").glob((root + value).lstrip("/"))):
                found += read_by_sshd(root, str(name)[len(root) :])
        else:
            found.append((keyword, value))
    return found


def sshd_t(argv: Sequence[str], root: str, main: str = "/etc/ssh/sshd_config") -> str:
    """``sshd -T``: options of the command line, then the first line of a keyword, then what is built in."""
    settings: dict[str, str] = {}
    for place, word in enumerate(argv):
        if word == "-o":
            keyword, _equals, value = argv[place + 1].partition("=")
            settings.setdefault(keyword.lower(), value)
    for keyword, value in read_by_sshd(root, main):
        settings.setdefault(keyword, value)
    return "".join(f"{keyword} {value}\n" for keyword, value in {**DEFAULTS, **settings}.items())


def look(root: Path, files: dict[str, str], spec: dict[str, Any], exec_start: str = "") -> dict[str, Any]:
    node = machine(root, {**STOCK, **files})

    def run(argv: Sequence[str]) -> Output:
        if argv[0] == "sshd":
            return Output(0, sshd_t(argv, str(root)), "")
        return Output(0, exec_start, "") if argv[0] == "systemctl" else Output(127, "", "not found")

    node._run = run  # type: ignore[assignment] # what programs answer here
    return probe.check(node, spec)


ROOT = {"PermitRootLogin": "no"}
TRIES = {"MaxAuthTries": {"min": 1, "max": 4}}
X11 = {"X11Forwarding": "no"}
GRACE = {"LoginGraceTime": {"min": 1, "max": 60}}
LISTS = {"access_lists": {"min": 1}}
POLICY = {"crypto_policy": "inherited"}


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("drop_in_read_first_pass", {OURS: "PermitRootLogin no\n"}, ROOT, "pass"),
        ("keyword_in_any_case_pass", {OURS: "permitrootlogin NO\n"}, ROOT, "pass"),
        ("stricter_number_pass", {OURS: "MaxAuthTries 3\n"}, TRIES, "pass"),
        ("a_default_that_no_line_states_fail", {}, {"LogLevel": {"in": ["INFO", "VERBOSE"]}}, "fail"),
        ("stated_under_a_match_alone_fail", {OURS: "Match User a\nLogLevel INFO\n"}, {"LogLevel": "INFO"}, "fail"),
        (
            "later_line_agrees_pass",
            {OURS: "MaxAuthTries 4\n", "/etc/ssh/sshd_config.d/90.conf": "MaxAuthTries 2\n"},
            TRIES,
            "pass",
        ),
        (
            "contrary_line_commented_pass",
            {OURS: "X11Forwarding no\n", "/etc/ssh/sshd_config.d/50-redhat.conf": "#X11Forwarding yes\n"},
            X11,
            "pass",
        ),
        ("one_list_pass", {OURS: "AllowGroups wheel\n"}, LISTS, "pass"),
        ("policy_not_mentioned_pass", {}, POLICY, "pass"),
        ("policy_commented_pass", {"/etc/sysconfig/sshd": "# CRYPTO_POLICY=\n"}, POLICY, "pass"),
        ("built_in_value_fail", {}, ROOT, "fail"),
        ("keys_only_for_root_fail", {OURS: "PermitRootLogin prohibit-password\n"}, ROOT, "fail"),
        (
            "match_block_before_ours_fail",
            {
                "/etc/ssh/sshd_config": f"Match User root\nPermitRootLogin yes\nMatch all\n{INCLUDE}",
                OURS: "PermitRootLogin no\n",
            },
            ROOT,
            "fail",
        ),
        (
            "match_block_for_others_fail",
            {OURS: "X11Forwarding no\n", "/etc/ssh/sshd_config.d/50-redhat.conf": "Match User ci\nX11Forwarding yes\n"},
            X11,
            "fail",
        ),
        (
            "line_at_the_end_falls_into_a_match_fail",
            {"/etc/ssh/sshd_config": "Match User ci\nPermitRootLogin no\n"},
            ROOT,
            "fail",
        ),
        (
            "earlier_file_wins_fail",
            {"/etc/ssh/sshd_config.d/00-a.conf": "MaxAuthTries 6\n", OURS: "MaxAuthTries 4\n"},
            TRIES,
            "fail",
        ),
        ("contrary_line_that_loses_fail", {OURS: "X11Forwarding no\n"}, X11, "fail"),
        ("include_missing_fail", {"/etc/ssh/sshd_config": "UsePAM yes\n", OURS: "PermitRootLogin no\n"}, ROOT, "fail"),
        ("zero_is_no_limit_fail", {OURS: "LoginGraceTime 0\n"}, GRACE, "fail"),
        (
            "name_of_no_drop_in_fail",
            {"/etc/ssh/sshd_config.d/00-cis.conf.rpmsave": "PermitRootLogin no\n"},
            ROOT,
            "fail",
        ),
        ("no_list_fail", {}, LISTS, "fail"),
        ("policy_opted_out_fail", {"/etc/sysconfig/sshd": "crypto_policy =\n"}, POLICY, "fail"),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], spec: dict[str, Any], status: str) -> None:
    assert look(tmp_path, files, spec)["status"] == status, name


def test_time_written_with_units_is_compared_in_seconds(tmp_path: Path) -> None:
    # the emulation above does not normalise, sshd -T does
    node = machine(tmp_path, {"/etc/ssh/sshd_config": "LoginGraceTime 1m\n"})
    node._run = lambda argv: Output(0, "logingracetime 60\n" if argv[0] == "sshd" else "", "")  # type: ignore[assignment] # what programs answer here
    assert probe.check(node, GRACE)["status"] == "pass"


def test_an_option_of_the_service_beats_every_file(tmp_path: Path) -> None:
    start = "{ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -D -o PermitRootLogin=yes $OPTIONS ; ignore_errors=no ; }"
    assert look(tmp_path, {OURS: "PermitRootLogin no\n"}, ROOT, start)["status"] == "fail"


#: As ec2-instance-connect's drop-in of sshd.service is shown: without the quotes that stand in it.
INSTANCE_CONNECT = (
    "{ argv[]=/usr/sbin/sshd -D -o AuthorizedKeysCommand /opt/aws/bin/eic_run_authorized_keys %u %f"
    " -o AuthorizedKeysCommandUser ec2-instance-connect $OPTIONS ; ignore_errors=no ; }"
)
ITS_OPTIONS = [
    *("-o", "AuthorizedKeysCommand /opt/aws/bin/eic_run_authorized_keys %u %f"),
    *("-o", "AuthorizedKeysCommandUser ec2-instance-connect"),
]


def test_options_of_several_words_are_asked_for_whole(tmp_path: Path) -> None:
    node = machine(tmp_path, STOCK)
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> Output:
        asked.append(argv)
        return Output(0, INSTANCE_CONNECT if argv[0] == "systemctl" else "permitrootlogin no\n", "")

    node._run = run  # type: ignore[assignment] # what programs answer here
    probe.check(node, ROOT)
    assert [list(argv[-4:]) for argv in asked if argv[:2] == ("sshd", "-T")] == [ITS_OPTIONS]


def test_the_module_asks_with_them_whole_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshd.runtime, "manager_runs", lambda: True)
    place = Place(tmp_path, options=INSTANCE_CONNECT)
    asked: list[list[str]] = []
    program = place.program
    monkeypatch.setattr(place, "program", lambda argv: asked.append(argv) or program(argv))
    place.run(NO_ROOT)
    assert {" ".join(ITS_OPTIONS) in " ".join(argv) for argv in asked if "-T" in argv} == {True}
    assert all(set(ITS_OPTIONS) <= set(argv) for argv in asked if "-T" in argv)


def test_evidence_names_the_line_that_says_otherwise(tmp_path: Path) -> None:
    finding = look(tmp_path, {OURS: "X11Forwarding no\n"}, X11)
    assert finding["reason"] == (
        "X11Forwarding (line): expected no, found yes in /etc/ssh/sshd_config.d/50-redhat.conf:2"
    )


def test_an_undecided_site_is_told_the_way_out(tmp_path: Path) -> None:
    assert "cis_values: {sshd_access_limited:" in look(tmp_path, {}, LISTS)["reason"]


def test_sshd_that_cannot_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(probe.core.ProbeError, match="sshd -T"):
        probe.check(machine(tmp_path, STOCK), ROOT)


# The module, against a tree and an sshd that reads as the real one


class Place:
    """A tree, with the paths the module is given, and programs that note what they were asked."""

    def __init__(self, root: Path, files: dict[str, str] | None = None, options: str = "") -> None:
        self.root, self.options, self.asked = root, options, []
        whole = {**STOCK, **(files or {})}
        tree(root, {path: text.replace("/etc/ssh/", f"{root}/etc/ssh/") for path, text in whole.items()})
        (root / "etc/sysconfig").mkdir(exist_ok=True)

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def program(self, argv: list[str]) -> tuple[int, str, str]:
        self.asked.append(argv[0])
        if "sshd" in argv[0] and "-T" in argv:
            return 0, sshd_t(argv, "", argv[argv.index("-f") + 1]), ""
        if "sshd" in argv[0]:
            text = "".join(f"{key} {value}\n" for key, value in read_by_sshd("", argv[argv.index("-f") + 1]))
            return (255, "", "bad value") if "nonsense" in text else (0, "", "")
        return 0, self.options, ""

    def run(self, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
        def apply(batch: Any) -> None:
            batch.module.params.update(
                path=str(self.path(OURS)),
                main=str(self.path("/etc/ssh/sshd_config")),
                environment=str(self.path("/etc/sysconfig/sshd")),
            )
            sshd.apply(batch)

        return applied(apply, list(rules), check=check, program=self.program)

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        predicted, done, again = self.run(*rules, check=True), self.run(*rules), self.run(*rules)
        assert predicted["diff"] == done["diff"] and predicted["rules"] == done["rules"]
        assert not again["changed"] and not again["diff"]
        return done


@pytest.fixture(autouse=True)
def no_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshd.runtime, "manager_runs", lambda: False)
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)


NO_ROOT = rule("sshd_root_login_disabled", "4.2.7", {"PermitRootLogin": "no"})
NO_X11 = rule("sshd_x11_forwarding_disabled", "4.2.12", {"X11Forwarding": "no"})


def test_it_writes_a_drop_in_only_root_reads(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.settles(NO_ROOT)
    assert place.path(OURS).read_text().endswith("# 4.2.7 sshd_root_login_disabled\nPermitRootLogin no\n")
    assert place.path(OURS).stat().st_mode & 0o777 == 0o600


def test_it_comments_out_what_says_otherwise_and_nothing_else(tmp_path: Path) -> None:
    place = Place(tmp_path, {"/etc/ssh/sshd_config.d/60.conf": "Match User ci\n  X11Forwarding yes\n"})
    done = place.settles(NO_X11)
    redhat = place.path("/etc/ssh/sshd_config.d/50-redhat.conf")
    assert redhat.read_text() == "UsePAM yes\n# 4.2.12 cisdriver: X11Forwarding yes\n"
    assert place.path("/etc/ssh/sshd_config.d/60.conf").read_text() == "Match User ci\n  X11Forwarding yes\n"
    assert str(redhat) in done["rules"]["sshd_x11_forwarding_disabled"]["before"]


@pytest.mark.parametrize("main", ["UsePAM yes\n", f"UsePAM yes\n{INCLUDE}", f"Match User ci\n{INCLUDE}", "# none\n"])
def test_an_include_that_is_missing_or_late_is_put_first(tmp_path: Path, main: str) -> None:
    place = Place(tmp_path, {"/etc/ssh/sshd_config": main})
    before = place.path("/etc/ssh/sshd_config").read_text()
    place.settles(NO_ROOT)
    assert place.path("/etc/ssh/sshd_config").read_text() == f"Include {place.path(OURS)}\n{before}"
    place.run()
    assert place.path("/etc/ssh/sshd_config").read_text() == before
    assert not place.path(OURS).exists()


def test_a_stricter_number_is_not_loosened(tmp_path: Path) -> None:
    place = Place(tmp_path, {"/etc/ssh/sshd_config.d/60.conf": "MaxAuthTries 2\n"})
    place.settles(rule("tries", "4.2.16", {"MaxAuthTries": 4}))
    assert "MaxAuthTries 2\n" in place.path(OURS).read_text()
    assert place.path("/etc/ssh/sshd_config.d/60.conf").read_text() == "MaxAuthTries 2\n"


def test_rules_outside_the_tags_keep_their_lines_and_others_go(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(NO_ROOT, NO_X11)
    place.run(rule("sshd_root_login_disabled", "4.2.7", state="keep"))
    assert "PermitRootLogin no" in place.path(OURS).read_text()
    assert "X11Forwarding" not in place.path(OURS).read_text()


@pytest.mark.parametrize("check", [True, False])
def test_what_sshd_refuses_is_not_put_in_place(tmp_path: Path, check: bool) -> None:
    place = Place(tmp_path)
    with pytest.raises(Refused, match="sshd -t refuses it: bad value"):
        place.run(NO_X11, rule("r", "4.2.5", {"LogLevel": "nonsense"}), check=check)
    assert not place.path(OURS).exists()
    assert "# 4.2.12" not in place.path("/etc/ssh/sshd_config.d/50-redhat.conf").read_text()


def test_a_match_block_for_root_is_named(tmp_path: Path) -> None:
    block = "Match User root\nPermitRootLogin yes\nMatch all\n"
    place = Place(tmp_path, {"/etc/ssh/sshd_config.d/00-a.conf": block})
    with pytest.raises(Refused, match=r"sshd_root_login_disabled \(4.2.7\).*sshd would use yes.*00-a.conf:2"):
        place.run(NO_ROOT)
    assert not place.path(OURS).exists()


def test_an_option_of_the_service_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshd.runtime, "manager_runs", lambda: True)
    place = Place(tmp_path, options="{ argv[]=/usr/sbin/sshd -D -o PermitRootLogin=yes ; }")
    with pytest.raises(Refused, match="runs it with a -o option"):
        place.run(NO_ROOT)


def test_sshd_is_reloaded_when_something_changed_and_never_in_check_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sshd.runtime, "manager_runs", lambda: True)
    place, commands = Place(tmp_path), []
    plain = place.program
    place.program = lambda argv: (commands.append(argv[:2]), plain(argv))[1]  # type: ignore[method-assign] # what programs answer here
    place.run(NO_ROOT, check=True)
    assert ["systemctl", "reload"] not in commands
    place.run(NO_ROOT)
    assert commands.count(["systemctl", "reload"]) == 1
    place.run(NO_ROOT)
    assert commands.count(["systemctl", "reload"]) == 1


def lists(value: Any) -> dict[str, Any]:
    return rule("sshd_access_limited", "4.2.4", {"access_lists": value})


def test_an_undecided_list_writes_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.settles(lists(None))
    assert not place.path(OURS).exists()


def test_a_list_of_the_site_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "root")
    place = Place(tmp_path)
    place.settles(lists({"AllowUsers": ["root", "ec2-user"]}))
    assert "AllowUsers root ec2-user\n" in place.path(OURS).read_text()


@pytest.mark.parametrize(
    "value", [{"AllowUsers": ["ec2-user"]}, {"DenyUsers": "root"}, {"AllowGroups": ["nobody-is-here"]}]
)
def test_a_list_that_shuts_out_who_runs_this_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: dict[str, Any]
) -> None:
    monkeypatch.setenv("SUDO_USER", "root")
    place = Place(tmp_path)
    with pytest.raises(Refused, match="would shut out root, for whom this runs; nothing is changed"):
        place.run(lists(value))
    assert not place.path(OURS).exists()


def test_the_opt_out_of_the_crypto_policy_is_commented_out(tmp_path: Path) -> None:
    place = Place(tmp_path, {"/etc/sysconfig/sshd": "# CRYPTO_POLICY=\nCRYPTO_POLICY=\nOPTIONS=''\n"})
    place.settles(rule("policy", "4.2.14", {"crypto_policy": "inherited"}))
    text = place.path("/etc/sysconfig/sshd").read_text()
    assert text == "# CRYPTO_POLICY=\n# 4.2.14 cisdriver: CRYPTO_POLICY=\nOPTIONS=''\n"


def test_evidence_points_at_the_line_that_holds_and_not_at_ours(tmp_path: Path) -> None:
    block = "Match User root\nPermitRootLogin yes\nMatch all\n"
    finding = look(tmp_path, {"/etc/ssh/sshd_config.d/00-a.conf": block, OURS: "PermitRootLogin no\n"}, ROOT)
    assert "found yes in /etc/ssh/sshd_config.d/00-a.conf:2" in finding["reason"]
