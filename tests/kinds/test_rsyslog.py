"""rsyslog: states that pass, and more of them that fail, in both of its languages; edits that are given back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.apply import runtime
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import rsyslog as probe
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe.rsyslog_config import statements
from ansible_collections.cisdriver.amazon_linux.plugins.modules import rsyslog
from machines import Refused, applied, machine, rule, tree

MAIN = "/etc/rsyslog.conf"
SITE = "/etc/rsyslog.d/50 site.conf"
OURS = "/etc/rsyslog.d/60-cis-remote.conf"
INCLUDE = 'include(file="/etc/rsyslog.d/*.conf" mode="optional")\n'
STOCK = f"""# rsyslog configuration file
module(load="imuxsock"
       SysSock.Use="on")
module(load="builtin:omfile" Template="RSYSLOG_TraditionalFileFormat")
{INCLUDE}*.info;mail.none                /var/log/messages
mail.*                          -/var/log/maillog
*.emerg                         :omusrmsg:*
"""
AL2 = "$ModLoad imuxsock\n#$ModLoad imtcp\n#$InputTCPServerRun 514\n$IncludeConfig /etc/rsyslog.d/*.conf\n*.* /a\n"
MODE = {"file_mode": "0640"}
REMOTE = {"remote": True}
NO_INPUT = {"remote_input": False}
SET = "$FileCreateMode 0640\n"


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("first_line_pass", {MAIN: SET + STOCK}, MODE, "pass"),
        ("in_a_drop_in_before_the_rules_pass", {MAIN: STOCK, SITE: SET}, MODE, "pass"),
        ("stricter_pass", {MAIN: "$FileCreateMode 0600\n" + AL2}, MODE, "pass"),
        ("other_case_pass", {MAIN: "$filecreatemode 0640\n" + AL2}, MODE, "pass"),
        (
            "script_action_with_its_own_mode_pass",
            {MAIN: f'{SET}*.* action(type="omfile" file="/var/log/a" fileCreateMode="0600")\n'},
            MODE,
            "pass",
        ),
        (
            "mode_of_the_module_pass",
            {MAIN: 'module(load="builtin:omfile" fileCreateMode="0640")\n*.* action(type="omfile" file="/a")\n'},
            MODE,
            "pass",
        ),
        ("not_set_fail", {MAIN: STOCK}, MODE, "fail"),
        ("commented_fail", {MAIN: f"#{SET}{STOCK}"}, MODE, "fail"),
        ("after_the_rules_fail", {MAIN: STOCK + SET}, MODE, "fail"),
        ("a_rule_of_a_drop_in_comes_before_fail", {MAIN: INCLUDE + SET, SITE: "*.* /var/log/all\n"}, MODE, "fail"),
        ("one_of_two_weaker_fail", {MAIN: f"{SET}$FileCreateMode 0644\n{AL2}"}, MODE, "fail"),
        ("reset_fail", {MAIN: f"{SET}$ResetConfigVariables\n{AL2}"}, MODE, "fail"),
        ("script_action_is_not_reached_fail", {MAIN: SET + '*.* action(type="omfile" file="/a")\n'}, MODE, "fail"),
        (
            "script_action_over_lines_fail",
            {MAIN: SET + 'if $msg == "x" then {\n action(type="omfile"\n # )\n file="/a"\n fileCreateMode="0644")}\n'},
            MODE,
            "fail",
        ),
        ("no_configuration_fail", {}, MODE, "fail"),
        ("input_in_a_comment_after_a_rule_pass", {MAIN: '*.* /a # input(type="imudp")\n'}, NO_INPUT, "pass"),
        ("remote_in_a_comment_fail", {MAIN: '*.* /a # action(type="omfwd" target="b")\n'}, REMOTE, "fail"),
        (
            "a_hash_in_a_string_is_no_comment_fail",
            {MAIN: f'{SET}:msg, contains, "a #b" action(type="omfile" file="/a")\n'},
            MODE,
            "fail",
        ),
        ("legacy_tcp_pass", {MAIN: f"{STOCK}*.* @@logs.example.com:514\n"}, REMOTE, "pass"),
        ("legacy_udp_with_options_pass", {SITE: "*.*  @(z9)10.0.0.1;RSYSLOG_Forward\n", MAIN: AL2}, REMOTE, "pass"),
        ("second_action_of_a_rule_pass", {MAIN: f"{STOCK}& @@logs\n"}, REMOTE, "pass"),
        ("ipv6_pass", {MAIN: "*.* @@[2001:db8::1]:514\n"}, REMOTE, "pass"),
        (
            "script_over_lines_pass",
            {MAIN: STOCK, SITE: '*.* action(type="omfwd"\n  queue.type="LinkedList"\n  Target="logs" port="514")\n'},
            REMOTE,
            "pass",
        ),
        ("relp_pass", {MAIN: '*.* action(type="omrelp" target="logs" port="2514")\n'}, REMOTE, "pass"),
        ("nowhere_fail", {MAIN: STOCK}, REMOTE, "fail"),
        ("commented_forward_fail", {MAIN: f"{STOCK}# *.* @@logs.example.com\n"}, REMOTE, "fail"),
        ("script_comment_fail", {MAIN: f'{STOCK}/* *.* action(type="omfwd" target="logs") */\n'}, REMOTE, "fail"),
        ("file_that_nobody_includes_fail", {MAIN: "*.* /a\n", SITE: "*.* @@logs\n"}, REMOTE, "fail"),
        ("forward_without_target_fail", {MAIN: '*.* action(type="omfwd")\n'}, REMOTE, "fail"),
        ("no_rsyslog_pass", {}, NO_INPUT, "pass"),
        ("stock_pass", {MAIN: STOCK}, NO_INPUT, "pass"),
        ("commented_inputs_pass", {MAIN: AL2}, NO_INPUT, "pass"),
        ("legacy_module_fail", {MAIN: "$ModLoad imtcp\n"}, NO_INPUT, "fail"),
        ("legacy_module_by_file_name_fail", {MAIN: "$ModLoad /usr/lib64/rsyslog/imudp.so\n"}, NO_INPUT, "fail"),
        ("legacy_run_fail", {MAIN: "  $inputtcpserverrun 514\n"}, NO_INPUT, "fail"),
        ("udp_run_fail", {MAIN: "$UDPServerRun 514\n"}, NO_INPUT, "fail"),
        ("module_in_a_drop_in_fail", {MAIN: STOCK, SITE: 'module ( load = "imtcp" )\n'}, NO_INPUT, "fail"),
        ("input_over_lines_fail", {MAIN: 'input(\n  type="imrelp"\n  port="2514")\n'}, NO_INPUT, "fail"),
        ("second_on_a_line_fail", {MAIN: 'module(load="imuxsock") module(load="imudp")\n'}, NO_INPUT, "fail"),
    ],
)  # fmt: skip
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], spec: dict[str, Any], status: str) -> None:
    assert probe.check(machine(tmp_path, files), spec)["status"] == status, name


def test_evidence_names_file_and_line(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {MAIN: STOCK, SITE: '\nmodule(load="imtcp")\n'}), NO_INPUT)
    assert finding["reason"] == f'input from the network: expected none, found module(load="imtcp") in {SITE}:2'


def test_a_running_rsyslog_that_has_not_read_it_fails(tmp_path: Path) -> None:
    node = machine(tmp_path, {MAIN: STOCK})
    link = tmp_path / "run/systemd/units/invocation:rsyslog.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("0123")
    os.utime(link, (1, 1), follow_symlinks=False)
    assert "rsyslog.service (running)" in probe.check(node, NO_INPUT)["reason"]


def test_a_file_that_includes_itself_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(core.ProbeError, match="does it include itself"):
        list(statements(machine(tmp_path, {MAIN: f"$IncludeConfig {MAIN}\n"})))


def test_rules_are_collected_in_their_order(tmp_path: Path) -> None:
    node = machine(tmp_path, {MAIN: STOCK, SITE: '*.* action(type="omfwd" target="logs")\n'})
    finding = probe.check(node, {"rules": True})
    assert finding["status"] == "pass"
    assert [item["found"] for item in finding["evidence"]] == [
        '*.* action(type="omfwd" target="logs")',
        "*.info;mail.none /var/log/messages",
        "mail.* -/var/log/maillog",
        "*.emerg :omusrmsg:*",
    ]


# The module


class Place:
    """A tree and an rsyslogd that refuses the word nonsense in any file it reads."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
        self.root = tree(
            root, {path: text.replace("/etc/rsyslog.d", f"{root}/etc/rsyslog.d") for path, text in files.items()}
        )
        self.said: list[str] = []
        self.link = root / "run/systemd/units/invocation:rsyslog.service"
        self.link.parent.mkdir(parents=True)
        monkeypatch.setattr(rsyslog, "STARTED", str(self.link))
        monkeypatch.setattr(runtime, "manager_runs", lambda: True)

    def start(self, seconds: float = 2e9) -> None:
        self.link.unlink(missing_ok=True)
        self.link.symlink_to("0123")
        os.utime(self.link, (seconds, seconds), follow_symlinks=False)

    def text(self, path: str = MAIN) -> str:
        return (self.root / path.lstrip("/")).read_text().replace(str(self.root), "")

    def program(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "rsyslogd":
            directory = Path(argv[-1]).parent
            bad = any("nonsense" in path.read_text() for path in directory.iterdir())
            return (1, "", "error during parsing") if bad else (0, "", "")
        self.said.append(" ".join(argv))
        self.start()
        return 0, "", ""

    def run(self, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
        def apply(batch: Any) -> None:
            batch.module.params.update(main=f"{self.root}{MAIN}", path=f"{self.root}{OURS}")
            rsyslog.apply(batch)

        self.said = []
        return applied(apply, list(rules), check=check, program=self.program, memory=self.root / "memory")

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        predicted = self.run(*rules, check=True)
        assert self.said == []
        done = self.run(*rules)
        said = self.said
        again = self.run(*rules)
        assert predicted["diff"] == done["diff"] and predicted["rules"] == done["rules"]
        assert not again["changed"] and not again["diff"] and self.said == []
        for slug in (each["rule"] for each in rules if each["state"] == "present"):
            assert again["rules"][slug]["after"] == done["rules"][slug]["after"]
        self.said = said
        return done


MODES = rule("rsyslog_file_permissions", "5.1.1.4", {"file_mode": "0640"})
SENDS = rule("sends", "5.1.1.6", {"remote": {"host": "logs.example.com", "port": 6514, "protocol": "tcp"}})
NO_HOST = rule("sends", "5.1.1.6", {"remote": {"host": None, "port": 514, "protocol": "tcp"}})
DEAF = rule("rsyslog_remote_input_disabled", "5.1.1.7", {"remote_input": False})


def absent(one: dict[str, Any]) -> dict[str, Any]:
    return rule(one["rule"], one["id"], state="absent")


def test_the_mode_stands_before_all_rules_and_goes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {MAIN: STOCK})
    place.start()
    place.settles(MODES)
    assert place.text() == SET + STOCK
    assert place.said == ["systemctl try-restart rsyslog.service"]
    place.settles(absent(MODES))
    assert place.text() == STOCK


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# x\n$FileCreateMode 0644\n*.* /a\n", "# x\n$FileCreateMode 0640\n*.* /a\n"),
        ("$FileCreateMode 0600\n*.* /a\n", "$FileCreateMode 0600\n*.* /a\n"),
        ("*.* /a\n$FileCreateMode 0664\n", f"{SET}*.* /a\n$FileCreateMode 0640\n"),
        (f"module(load=\"x\"\n a.b=\"c\")\n{SET}*.* /a\n", f"module(load=\"x\"\n a.b=\"c\")\n{SET}*.* /a\n"),
        (
            f'{SET}*.* action(type="omfile"\n  file="/a")\n',
            f'{SET}*.* action(type="omfile" fileCreateMode="0640"\n  file="/a")\n',
        ),
        (
            f'{SET}*.* action(type="omfile" file="/a" fileCreateMode="0666")\n',
            f'{SET}*.* action(type="omfile" file="/a" fileCreateMode="0640")\n',
        ),
        (*[f'{SET}module(load="imjournal" FileCreateMode="0644")\n'] * 2,),
    ],
)  # fmt: skip
def test_modes_are_tightened_where_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    place = Place(tmp_path, monkeypatch, {MAIN: before})
    place.settles(MODES)
    assert place.text() == after
    assert probe.check(machine(tmp_path), MODE)["status"] == "pass"
    place.settles(absent(MODES))
    assert place.text() == before


def test_logs_go_to_the_host_of_the_site_through_a_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {MAIN: STOCK})
    place.settles(SENDS)
    assert place.text() == STOCK
    text = place.text(OURS)
    assert 'target="logs.example.com" port="6514" protocol="tcp"' in text and 'queue.type="LinkedList"' in text
    tree(tmp_path / "seen", {MAIN: STOCK, OURS: text})
    assert probe.check(core.Node(str(tmp_path / "seen")), REMOTE)["status"] == "pass"
    place.settles(absent(SENDS))
    assert not (tmp_path / OURS.lstrip("/")).exists()


def test_an_include_comes_where_none_reads_the_drop_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {MAIN: "*.* /a\n"})
    place.settles(SENDS)
    assert place.text() == f"*.* /a\n$IncludeConfig {OURS}\n"
    place.settles(absent(SENDS))
    assert place.text() == "*.* /a\n"


def test_without_a_host_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {MAIN: STOCK})
    assert not place.settles(NO_HOST)["changed"]


def test_a_host_that_would_break_out_of_its_quotes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = {"remote": {"host": 'x" protocol="udp', "port": 514, "protocol": "tcp"}}
    with pytest.raises(Refused, match="expected a host name or address"):
        Place(tmp_path, monkeypatch, {MAIN: STOCK}).run(rule("sends", "5.1.1.6", want))


INPUTS = {
    MAIN: '$ModLoad imtcp.so\n  $InputTCPMaxSessions 9\n$InputTCPServerRun 514\nmodule(load="imuxsock")\n' + INCLUDE,
    SITE: '*.* /a\nmodule(load="imudp")\ninput(\n  type="imudp"\n  port="514"\n)\n# $UDPServerRun 1\n',
}


def test_inputs_become_comments_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, INPUTS)
    place.settles(DEAF)
    mark = "# 5.1.1.7 cisdriver: "
    assert place.text().splitlines()[:4] == [
        f"{mark}$ModLoad imtcp.so", f"{mark}  $InputTCPMaxSessions 9", f"{mark}$InputTCPServerRun 514",
        'module(load="imuxsock")',
    ]  # fmt: skip
    assert place.text(SITE).splitlines() == [
        "*.* /a", f'{mark}module(load="imudp")', f"{mark}input(", f'{mark}  type="imudp"', f'{mark}  port="514"',
        f"{mark})", "# $UDPServerRun 1",
    ]  # fmt: skip
    place.settles(absent(DEAF))
    assert {path: place.text(path) for path in INPUTS} == INPUTS


def test_a_comment_hides_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '# module (see the manual\ninput(type="imudp" port="514")\n*.* /a\n'
    place = Place(tmp_path, monkeypatch, {MAIN: text})
    place.settles(DEAF)
    assert place.text().splitlines()[1].startswith("# 5.1.1.7 cisdriver: input(")
    place.settles(absent(DEAF))
    assert place.text() == text


def test_what_rsyslogd_refuses_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {MAIN: STOCK, SITE: "nonsense\n"})
    for check in (True, False):
        with pytest.raises(Refused, match="nothing is changed, rsyslogd -N1 refuses it: error during parsing"):
            place.run(MODES, check=check)
    assert place.text() == STOCK


def test_an_rsyslog_older_than_its_files_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {MAIN: SET + STOCK})
    place.start(1)
    place.settles(MODES)
    assert place.said == ["systemctl try-restart rsyslog.service"]


def test_a_machine_without_rsyslog_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, {})
    assert not place.settles(MODES, SENDS, DEAF)["changed"]
    assert not (tmp_path / "etc").exists()
