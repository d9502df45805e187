"""The crypto policy: states that pass, and more of them that fail; only LEGACY is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import crypto_policy as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import crypto_policy
from machines import Refused, applied, machine, rule, tree

CONFIG = "/etc/crypto-policies/config"
STATE = "/etc/crypto-policies/state/current"
END = "/etc/crypto-policies/back-ends/openssl.config"
NOT_LEGACY = {"not": ["LEGACY"]}


@pytest.mark.parametrize(
    ("name", "files", "status"),
    [
        ("default_pass", {CONFIG: "DEFAULT\n", STATE: "DEFAULT\n"}, "pass"),
        ("comment_that_names_legacy_pass", {CONFIG: "# not LEGACY\n\nDEFAULT # LEGACY\n", STATE: "DEFAULT\n"}, "pass"),
        ("sub_policy_that_names_legacy_pass", {CONFIG: "DEFAULT:AD-SUPPORT-LEGACY\n"}, "pass"),
        ("fips_pass", {CONFIG: "FIPS\n", STATE: "FIPS\n"}, "pass"),
        ("config_is_a_link_pass", {"/usr/share/config": "FUTURE\n", CONFIG: "-> ../../usr/share/config"}, "pass"),
        ("back_end_of_default_pass", {CONFIG: "DEFAULT\n", END: "-> /usr/share/crypto-policies/DEFAULT/o.txt"}, "pass"),
        ("configured_fail", {CONFIG: "LEGACY\n", STATE: "DEFAULT\n"}, "fail"),
        ("in_effect_fail", {CONFIG: "DEFAULT\n", STATE: "LEGACY\n"}, "fail"),
        ("in_small_letters_fail", {CONFIG: "  legacy \n"}, "fail"),
        ("with_a_sub_policy_fail", {CONFIG: "LEGACY:AD-SUPPORT\n"}, "fail"),
        ("nothing_but_comments_fail", {CONFIG: "# DEFAULT\n"}, "fail"),
        ("back_end_of_legacy_fail", {CONFIG: "DEFAULT\n", END: "-> /usr/share/crypto-policies/LEGACY/o.txt"}, "fail"),
        ("no_policies_not_applicable", {}, "not_applicable"),
    ],
)
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], status: str) -> None:
    assert probe.check(machine(tmp_path, files), NOT_LEGACY)["status"] == status, name


def test_evidence_names_file_and_line(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {CONFIG: "# c\nLEGACY:X\n"}), NOT_LEGACY)
    assert finding["reason"] == f"policy configured: expected not LEGACY, found LEGACY:X in {CONFIG}:2"


# The module


class Place:
    """A tree with an update-crypto-policies, which may have to be installed."""

    def __init__(self, root: Path, config: str, state: str = "", installed: bool = True) -> None:
        self.root, self.installed = tree(root, {"config": config, "state/current": state or config}), installed
        self.ran: list[list[str]] = []

    def program(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[0] == "dnf":
            self.installed = True
        elif not self.installed:
            raise FileNotFoundError(2, "No such file or directory")
        else:
            for name in ("config", "state/current"):
                (self.root / name).write_text(argv[2] + "\n")
        self.ran.append(argv)
        return 0, "", ""

    def run(self, want: dict[str, Any], check: bool = False) -> dict[str, Any]:
        def apply(batch: Any) -> None:
            batch.module.params["directory"] = str(self.root)
            crypto_policy.apply(batch)

        return applied(apply, [want], check=check, program=self.program, memory=self.root / "memory")

    def settles(self, want: dict[str, Any]) -> dict[str, Any]:
        predicted, done, again = self.run(want, check=True), self.run(want), self.run(want)
        assert predicted["diff"] == done["diff"] and predicted["rules"] == done["rules"]
        assert not again["changed"] and not again["diff"]
        return done


LEAVE = rule("crypto_policy_not_legacy", "1.9", {"not": ["LEGACY"], "to": "DEFAULT"})
GONE = rule("crypto_policy_not_legacy", "1.9", state="absent")


@pytest.mark.parametrize("policy", ["DEFAULT\n", "# LEGACY\nFIPS\n", "FUTURE\n", "DEFAULT:NO-SHA1\n"])
def test_what_is_accepted_stays(tmp_path: Path, policy: str) -> None:
    place = Place(tmp_path, policy)
    assert not place.settles(LEAVE)["changed"]
    assert place.ran == [] and (tmp_path / "config").read_text() == policy


@pytest.mark.parametrize(
    ("config", "state"), [("LEGACY\n", "LEGACY\n"), ("legacy:X\n", "DEFAULT\n"), ("DEFAULT\n", "LEGACY\n")]
)
def test_legacy_is_left_and_comes_back(tmp_path: Path, config: str, state: str) -> None:
    place = Place(tmp_path, config, state)
    place.settles(LEAVE)
    assert (tmp_path / "config").read_text() == (tmp_path / "state/current").read_text() == "DEFAULT\n"
    place.settles(GONE)
    assert (tmp_path / "config").read_text() == config.upper()


def test_the_tool_is_installed_where_it_is_missing(tmp_path: Path) -> None:
    place = Place(tmp_path, "LEGACY\n", installed=False)
    place.settles(LEAVE)
    assert [argv[-1] for argv in place.ran] == ["crypto-policies-scripts", "DEFAULT"]


def test_what_an_administrator_took_since_stays(tmp_path: Path) -> None:
    place = Place(tmp_path, "LEGACY\n")
    place.run(LEAVE)
    (tmp_path / "config").write_text("FIPS\n")
    assert not place.settles(GONE)["changed"]


def test_a_tool_that_refuses_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path, "LEGACY\n")
    place.program = lambda _argv: (1, "", "Unknown policy")  # type: ignore[method-assign] # what the tool answers here
    with pytest.raises(Refused, match=r"update-crypto-policies --set DEFAULT: exit 1, .*: Unknown policy"):
        place.run(LEAVE)


def test_what_cannot_be_given_back_is_not_forgotten(tmp_path: Path) -> None:
    place = Place(tmp_path, "LEGACY\n")
    place.run(LEAVE)
    works = place.program
    place.program = lambda _argv: (1, "", "no space")  # type: ignore[method-assign] # what the tool answers here
    with pytest.raises(Refused, match="no space"):
        place.run(GONE)
    place.program = works  # type: ignore[method-assign] # what the tool answers here
    place.run(GONE)
    assert (tmp_path / "config").read_text() == "LEGACY\n"


def test_without_crypto_policies_there_is_nothing_to_do(tmp_path: Path) -> None:
    place = Place(tmp_path, "")
    assert not place.settles(LEAVE)["changed"]
