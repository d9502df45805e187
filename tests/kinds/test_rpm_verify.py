"""Packaged files beside their packages: evidence for a person, at the lowest priority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.lookup import rules as lookup
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import core, rpm_verify
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue
from machines import Output, machine

LIST = "rpm -qa --queryformat %{NAME} %{VERSION}-%{RELEASE}\\n"
VERIFY = (
    "nice -n 19 ionice -c 3 rpm -V --nodeps --noscripts --nomtime --nosize --nomd5 --nolinkto bash openssh-server sudo"
)
PACKAGES = "sudo 1-1\nbash 5-1\nopenssh-server 8-1\n"


def found(root: Path, text: str, spec: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    answers = {LIST: PACKAGES, VERIFY: Output(1 if text else 0, text, "")}
    finding = rpm_verify.check(machine(root, {}, answers), spec or {})
    assert finding["status"] == "pass"
    return [(item["object"], item["found"]) for item in finding["evidence"]]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (".M.......    /usr/bin/sudo", ("/usr/bin/sudo", "mode")),
        (".M...UG..    /usr/bin/a b", ("/usr/bin/a b", "mode, owner, group")),
        (".M.......  c /etc/ssh/sshd_config", ("/etc/ssh/sshd_config", "mode (configuration)")),
        ("missing     /usr/bin/gone", ("/usr/bin/gone", "missing")),
        ("missing   c /etc/gone", ("/etc/gone", "missing (configuration)")),
    ],
)
def test_a_difference_is_told_in_words(tmp_path: Path, line: str, shown: tuple[str, str]) -> None:
    assert found(tmp_path, line + "\n")[0] == shown


def test_what_hardening_makes_stricter_is_counted(tmp_path: Path) -> None:
    lines = ".M.......  c /etc/ssh/sshd_config\n.M.......    /usr/bin/sudo\n"
    items = found(tmp_path, lines, {"expected": ["/etc/ssh/*"]})
    assert items == [("/usr/bin/sudo", "mode"), ("files of 3 packages", "1 known to differ")]


def test_nothing_differs(tmp_path: Path) -> None:
    assert found(tmp_path, "") == [("files of 3 packages", "0 known to differ")]


def test_many_packages_are_asked_in_parts(tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def run(argv: Any) -> Output:
        asked.append(tuple(argv))
        return Output(0, "".join(f"p{n} 1-1\n" for n in range(100)) if argv[1] == "-qa" else "", "")

    rpm_verify.check(core.Node(str(tmp_path), run), {})
    assert [len(argv) for argv in asked[1:]] == [len(VERIFY.split()) - 3 + n for n in (40, 40, 20)]


@pytest.mark.parametrize("wanted", [True, False])
def test_it_is_gathered_only_on_demand(wanted: bool) -> None:
    selection = catalogue.Selection("al2023-1.0.0", level=2, only=("6.1.10",))
    plan = lookup.audit_plan(selection, catalogue.load().select(selection), wanted)
    (entry,) = plan["entries"]
    assert ("rpm_verify" in entry["collect"]) is wanted
    assert "cis_verify_packages" in entry["manual"]
