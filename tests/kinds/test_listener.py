"""Listeners: states that pass, and more of them that fail; Postfix on loopback and as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import listener as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import listener
from machines import machine, rule, settles, tree

MAIL = {"loopback_only": [25, 465, 587], "postfix": {"in": ["loopback-only", "localhost"]}}
ALLOW = {"allow": [
    {"process": "sshd", "protocol": "tcp"},
    {"process": "aws-*", "protocol": "tcp", "port": "9808-9809"},
    {"process": "eks-pod-identity-agent", "port": 2703, "address": "169.254.0.0/16"},
]}  # fmt: skip
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ANY, LOOP, IMDS = "00000000", "0100007F", "17AAFEA9"
ANY6, LOOP6 = "0" * 32, "0" * 24 + "01000000"
MAPPED_LOOP = "0" * 16 + "FFFF00000100007F"


def row(address: str, port: int, inode: int = 7, state: str = "0A", remote: str = "00000000:0000") -> str:
    return f"   0: {address}:{port:04X} {remote} {state} 00000000:00000000 00:00000000 00000000 0 0 {inode} 1 0\n"


def proc(process: str = "sshd", pid: int = 100, inode: int = 7, **tables: str) -> dict[str, Any]:
    """/proc of a machine on which one process holds the socket of that inode."""
    return {
        "/proc/1/net/tcp": HEAD,
        **{f"/proc/1/net/{name}": HEAD + rows for name, rows in tables.items()},
        f"/proc/{pid}/comm": f"{process}\n",
        f"/proc/{pid}/cgroup": f"1:name=systemd:/system.slice/{process}.service\n0::/system.slice/{process}.service\n",
        f"/proc/{pid}/fd/3": f"-> socket:[{inode}]",
        "/proc/self": "-> 100",
    }


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("nothing_listens_pass", proc(), MAIL, "pass"),
        ("mail_on_loopback_pass", proc("master", tcp=row(LOOP, 25), tcp6=row(LOOP6, 25)), MAIL, "pass"),
        ("mail_on_mapped_loopback_pass", proc("master", tcp6=row(MAPPED_LOOP, 25)), MAIL, "pass"),
        ("mail_client_pass", proc("mail", tcp=row(ANY, 25, state="01", remote="0100007F:1234")), MAIL, "pass"),
        ("postfix_local_pass", {**proc(), probe.MAIN_CF: "inet_interfaces = loopback-only\n"}, MAIL, "pass"),
        ("mail_for_all_fail", proc("master", tcp=row(ANY, 25)), MAIL, "fail"),
        ("mail_for_all_of_ipv6_fail", proc("master", tcp6=row(ANY6, 587)), MAIL, "fail"),
        ("mail_on_one_address_fail", proc("exim", tcp=row("1700000A", 465)), MAIL, "fail"),
        ("mail_by_udp_fail", proc("odd", udp=row(ANY, 25, state="07")), MAIL, "fail"),
        ("postfix_default_fail", {**proc(), probe.MAIN_CF: "mail_owner = postfix\n"}, MAIL, "fail"),
        ("postfix_later_line_wins_fail", {
            **proc(), probe.MAIN_CF: "inet_interfaces = loopback-only\ninet_interfaces=all\n"}, MAIL, "fail"),
        ("postfix_continued_line_fail", {
            **proc(), probe.MAIN_CF: "inet_interfaces = loopback-only\n# a comment\n  , 10.0.0.23\n"}, MAIL, "fail"),
        ("allowed_pass", proc("sshd", tcp=row(ANY, 22), tcp6=row(ANY6, 22)), ALLOW, "pass"),
        ("allowed_on_another_port_pass", proc("sshd", tcp=row(ANY, 2222)), ALLOW, "pass"),
        ("range_and_glob_pass", proc("aws-ebs-csi-dri", tcp6=row(ANY6, 9809)), ALLOW, "pass"),
        ("long_name_that_the_kernel_cut_pass", proc("eks-pod-identit", tcp=row(IMDS, 2703)), ALLOW, "pass"),
        ("loopback_needs_no_leave_pass", proc("anything", tcp=row(LOOP, 9999), udp=row(LOOP, 1)), ALLOW, "pass"),
        ("udp_client_pass", proc("chronyd", udp=row(ANY, 40000, state="01", remote="7BA9FEA9:007B")), ALLOW, "pass"),
        ("no_ipv6_tables_pass", proc("sshd", tcp=row(ANY, 22)), ALLOW, "pass"),
        ("name_with_a_blank_fail", proc("my server", tcp=row(ANY, 80)), ALLOW, "fail"),
        ("process_on_its_port_by_udp_fail", proc("sshd", udp=row(ANY, 22, state="07")), ALLOW, "fail"),
        ("other_process_on_an_allowed_port_fail", proc("nc", tcp=row(ANY, 9808)), ALLOW, "fail"),
        ("allowed_process_on_another_port_fail", proc("aws-x", tcp=row(ANY, 9810)), ALLOW, "fail"),
        ("allowed_process_on_another_address_fail", proc("eks-pod-identit", tcp=row(ANY, 2703)), ALLOW, "fail"),
        ("process_gone_fail", proc("sshd", inode=8, tcp=row(ANY, 22, 7)), ALLOW, "fail"),
        ("one_of_two_fail", proc("sshd", tcp=row(ANY, 22) + row(ANY, 111, 9)), ALLOW, "fail"),
    ],
)  # fmt: skip
def test_scenario(tmp_path: Path, name: str, files: dict[str, Any], spec: dict[str, Any], status: str) -> None:
    assert probe.check(machine(tmp_path, files), spec)["status"] == status, name


def test_evidence_names_process_and_unit(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, proc("httpd", tcp6=row(ANY6, 80))), ALLOW)
    assert finding["evidence"][0]["object"] == "tcp [::]:80"
    assert finding["evidence"][0]["found"] == "listening (httpd, httpd.service)"
    assert "nonessential_listeners_removed" in finding["reason"]


def test_a_socket_of_systemd_is_named_by_its_unit(tmp_path: Path) -> None:
    sockets = {"systemctl list-sockets --no-legend --full": "0.0.0.0:111  rpcbind.socket rpcbind.service\n"}
    node = machine(tmp_path, proc("systemd", pid=1, tcp=row(ANY, 111)), sockets)
    assert probe.listeners(node)[0].unit == "rpcbind.socket"


def test_the_service_is_named_before_the_systemd_that_opened_its_socket(tmp_path: Path) -> None:
    node = machine(tmp_path, {**proc("systemd", pid=1, tcp=row(ANY, 111)), **proc("rpcbind", tcp=row(ANY, 111))})
    assert probe.listeners(node)[0].process == "rpcbind"


def test_no_proc_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(core.ProbeError, match="is /proc mounted"):
        probe.check(machine(tmp_path), MAIL)


@pytest.mark.parametrize("entry", [{}, {"prot": "tcp"}, "sshd", {"port": "ssh"}, {"address": "here"}])
def test_an_entry_that_says_nothing_is_an_error(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(core.ProbeError, match="an allowed listener"):
        probe.check(machine(tmp_path, proc(tcp=row(ANY, 80))), {"allow": [entry]})


# The module


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a = 1\ninet_interfaces = all\nb = 2\n", "a = 1\ninet_interfaces = loopback-only\nb = 2\n"),
        ("inet_interfaces=$myhostname,\n\n # why\n  localhost\nb = 2\n", "inet_interfaces = loopback-only\nb = 2\n"),
        ("#inet_interfaces = all\n", "#inet_interfaces = all\ninet_interfaces = loopback-only\n"),
        ("inet_interfaces = all\nb = 2\ninet_interfaces = x\n", "inet_interfaces = loopback-only\nb = 2\n"),
        ("inet_interfaces  =  loopback-only\n", "inet_interfaces  =  loopback-only\n"),
        ("inet_interfaces_x = all\n", "inet_interfaces_x = all\ninet_interfaces = loopback-only\n"),
    ],
)
def test_postfix_is_confined(tmp_path: Path, before: str, after: str) -> None:
    path = tree(tmp_path, {"main.cf": before}) / "main.cf"
    settles(_at(path), [rule("mail_agent_local_only", "2.2.15", {"postfix": "loopback-only"})])
    assert path.read_text() == after


def _at(path: Path) -> Any:
    def apply(batch: Any) -> None:
        batch.module.params["main_cf"] = str(path)
        listener.apply(batch)

    return apply


def test_nothing_is_made_where_postfix_is_not_installed(tmp_path: Path) -> None:
    rules = [rule("mail_agent_local_only", "2.2.15", {"postfix": "loopback-only"})]
    assert not settles(_at(tmp_path / "main.cf"), rules)["changed"]
    assert not (tmp_path / "main.cf").exists()


@pytest.mark.parametrize("since", ["", "inet_interfaces = 10.0.0.1\n"])
def test_given_back_unless_somebody_changed_it(tmp_path: Path, since: str) -> None:
    path = tree(tmp_path, {"main.cf": "a = 1\ninet_interfaces = all\n"}) / "main.cf"
    memory = tmp_path / "memory"
    slug = "mail_agent_local_only"
    settles(_at(path), [rule(slug, "2.2.15", {"postfix": "loopback-only"})], memory=memory)
    path.write_text(since or path.read_text() + "b = 2\n")
    settles(_at(path), [rule(slug, "2.2.15", state="absent")], memory=memory)
    assert path.read_text() == (since or "a = 1\ninet_interfaces = all\nb = 2\n")


def test_what_was_not_there_goes_again(tmp_path: Path) -> None:
    path = tree(tmp_path, {"main.cf": "a = 1\n"}) / "main.cf"
    memory, slug = tmp_path / "memory", "mail_agent_local_only"
    settles(_at(path), [rule(slug, "2.2.15", {"postfix": "loopback-only"})], memory=memory)
    settles(_at(path), [rule(slug, "2.2.15", state="absent")], memory=memory)
    assert path.read_text() == "a = 1\n"
