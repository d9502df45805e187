"""Packages that must be there, and that must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core as probe_core
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import package as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import package
from machines import Output, Refused, applied, machine, rule, settles

QUERY = "rpm -qa --queryformat %{NAME} %{VERSION}-%{RELEASE}\\n"


def look(root: Path, listing: str | Output, spec: dict[str, Any]) -> dict[str, Any]:
    return probe.check(machine(root, {}, {QUERY: listing}), spec)


@pytest.mark.parametrize(
    ("name", "listing", "spec"),
    [
        ("not_installed_pass", "bash 5.2-1\n", {"absent": ["cups"]}),
        ("library_of_the_family_pass", "cups-libs 2.3-1\n", {"absent": ["cups"]}),
        ("installed_pass", "chrony 4.3-1\n", {"present": ["chrony"]}),
        ("one_of_two_pass", "chrony 4.3-1\n", {"any_of": ["ntp", "chrony"]}),
    ],
)
def test_passes(tmp_path: Path, name: str, listing: str, spec: dict[str, Any]) -> None:
    assert look(tmp_path, listing, spec)["status"] == "pass", name


@pytest.mark.parametrize(
    ("name", "listing", "spec", "reason"),
    [
        ("installed_fail", "cups 2.3-1\n", {"absent": ["cups"]}, "cups: expected absent, found 2.3-1"),
        ("second_of_two_fail", "nginx 1-1\n", {"absent": ["httpd", "nginx"]}, "nginx: expected absent, found 1-1"),
        ("missing_fail", "bash 5-1\n", {"present": ["audit"]}, "audit: expected installed, found absent"),
        ("longer_name_fail", "audit-libs 3-1\n", {"present": ["audit"]}, "audit: expected installed, found absent"),
        ("one_of_two_present_fail", "audit 3-1\n", {"present": ["audit", "audit-libs"]}, "audit-libs: expected"),
        ("none_of_two_fail", "bash 5-1\n", {"any_of": ["ntp", "chrony"]}, "ntp or chrony: expected installed"),
    ],
)
def test_fails(tmp_path: Path, name: str, listing: str, spec: dict[str, Any], reason: str) -> None:
    finding = look(tmp_path, listing, spec)
    assert (finding["status"], finding["reason"][: len(reason)]) == ("fail", reason), name


@pytest.mark.parametrize("listing", [Output(127, "", "rpm: not found"), Output(1, "", "error: db5"), ""])
def test_a_database_that_cannot_be_read_never_passes(tmp_path: Path, listing: str | Output) -> None:
    with pytest.raises(probe_core.ProbeError):
        look(tmp_path, listing, {"absent": ["cups"]})


# the module ------------------------------------------------------------------------------------


class Rpm:
    """An RPM database that knows who needs whom, and a dnf over it."""

    def __init__(self, needs: dict[str, list[str]], repository: tuple[str, ...] = ()) -> None:
        self.needs = dict(needs)
        self.repository = repository
        self.transactions: list[list[str]] = []

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        answers: dict[str, Callable[[list[str]], tuple[int, str, str]]] = {
            "rpm -qa": lambda _rest: (0, "".join(f"{name}\n" for name in self.needs), ""),
            "rpm -e": lambda rest: self.test(rest[1:]),
            "rpm -q": lambda rest: (0, rest[-1].split("-1-1.")[0] + "\n", ""),
        }
        if argv[0] in ("dnf", "yum"):
            return self.transact(argv)
        return answers[" ".join(argv[:2])](argv[2:])

    def test(self, names: list[str]) -> tuple[int, str, str]:
        broken = [
            (need, name) for name, needs in self.needs.items() for need in needs if need in names and name not in names
        ]
        lines = [f"\t{need} is needed by (installed) {name}-1-1.noarch" for need, name in broken]
        return (1, "", "error: Failed dependencies:\n" + "\n".join(lines)) if broken else (0, "", "")

    def transact(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "yum":
            return 127, "", ""
        self.transactions.append(argv)
        verb = next(index for index, word in enumerate(argv) if word in ("install", "remove"))
        for name in argv[verb + 1 :]:
            if argv[verb] == "remove":
                del self.needs[name]
            elif name in self.repository:
                self.needs[name] = []
            else:
                return 1, "", f"Error: Unable to find a match: {name}"
        return 0, "", ""


STOCK = {"bash": [], "nfs-utils": ["rpcbind"], "rpcbind": []}
ABSENT = [
    rule("avahi_absent", "2.2.2", {"absent": ["avahi"]}),
    rule("print_server_absent", "2.2.3", {"absent": ["cups"]}),
]


def test_with_nothing_to_do_no_repository_is_asked() -> None:
    rpm = Rpm(STOCK)
    done = settles(package.apply, [*ABSENT, rule("shell", "1.1", {"present": ["bash"]})], program=rpm)
    assert not done["changed"] and not rpm.transactions
    assert done["rules"]["avahi_absent"]["after"] == {"avahi": "absent"}


def test_all_go_in_one_transaction_with_what_needs_them() -> None:
    rpm = Rpm({**STOCK, "avahi": [], "cups": ["avahi"], "cups-filters": ["cups"], "cups-libs": []})
    done = settles(package.apply, ABSENT, program=rpm)
    assert [line[-3:] for line in rpm.transactions] == [["avahi", "cups", "cups-filters"]]
    assert "--setopt=clean_requirements_on_remove=False" in rpm.transactions[0]
    assert done["diff"][0]["before"] == "avahi\ncups\ncups-filters\n"
    assert done["rules"]["print_server_absent"] == {
        "changed": True,
        "before": {"cups": "installed"},
        "after": {"cups": "absent"},
    }
    assert set(rpm.needs) == {*STOCK, "cups-libs"}


def test_what_a_node_runs_on_is_not_dragged_out() -> None:
    rpm = Rpm(STOCK)
    rules = [rule("rpcbind_absent", "9.9", {"absent": ["rpcbind"]})]
    for check in (True, False):
        with pytest.raises(Refused, match=r"rpcbind_absent \(9\.9\): removing rpcbind nfs-utils would take"):
            applied(package.apply, rules, program=rpm, check=check)
    assert not rpm.transactions


def test_what_is_missing_is_installed_in_one_transaction() -> None:
    rpm = Rpm(STOCK, repository=("nftables", "audit", "chrony"))
    rules = [rule("a", "1.1", {"present": ["nftables", "audit"]}), rule("b", "1.2", {"any_of": ["chrony", "ntp"]})]
    settles(package.apply, rules, program=rpm)
    assert [line[-4:] for line in rpm.transactions] == [["install", "audit", "chrony", "nftables"]]


def test_a_transaction_that_does_less_than_asked_is_a_failure() -> None:
    with pytest.raises(Refused, match=r"dnf install nftables: exit 1, not done for nftables: Error: Unable to find"):
        applied(package.apply, [rule("a", "1.1", {"present": ["nftables"]})], program=Rpm(STOCK))


def test_a_database_that_cannot_be_read_is_a_failure() -> None:
    with pytest.raises(Refused, match="rpm -qa: exit 1"):
        applied(package.apply, ABSENT, program=lambda _argv: (1, "", "error: cannot open Packages"))
