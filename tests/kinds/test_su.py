"""su: states that pass, and more of them that do not; one line, one group, and both gone again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import su as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import su
from machines import Refused, applied, machine, rule

STANDIN = Path(__file__).resolve().parents[2] / "driver/cisdriver/sandbox/standin/rootfs/etc"
STOCK = (STANDIN / "pam.d/su").read_text()
SU_L = (STANDIN / "pam.d/su-l").read_text()
ROOT = "auth\t\tsufficient\tpam_rootok.so\n"
WHEEL = "auth\t\trequired\tpam_wheel.so use_uid group=sugroup\n"
GROUP = "root:x:0:\nwheel:x:10:ec2-user\nsugroup:x:993:\n"
PASSWD = "root:x:0:0::/root:/bin/sh\nec2-user:x:1000:1000::/home/ec2-user:/bin/bash\n"
OTHERS = {
    **{f"/usr/lib64/security/pam_{name}.so": "" for name in ("env", "rootok", "wheel", "unix", "deny")},
    "/etc/pam.d/system-auth": "auth sufficient pam_unix.so\nauth required pam_deny.so\n",
    "/etc/pam.d/postlogin": "",
    "/etc/passwd": PASSWD,
    "/etc/group": GROUP,
}
EMPTY = {"group": "empty"}


def file(wheel: str = WHEEL) -> str:
    return STOCK.replace(ROOT, ROOT + wheel)


def look(root: Path, text: str, **more: str) -> dict[str, Any]:
    return probe.check(machine(root, {**OTHERS, "/etc/pam.d/su-l": SU_L, "/etc/pam.d/su": text, **more}), EMPTY)


@pytest.mark.parametrize(
    ("name", "text", "more", "status"),
    [
        ("hardened_pass", file(), {}, "pass"),
        (
            "requisite_and_other_order_pass",
            file("auth requisite pam_wheel.so group=sugroup use_uid debug\n"),
            {},
            "pass",
        ),
        (
            "bracket_pass",
            file("auth [success=ok ignore=ignore default=die] pam_wheel.so use_uid group=sugroup\n"),
            {},
            "pass",
        ),
        ("before_rootok_pass", WHEEL + STOCK, {}, "pass"),
        ("other_group_pass", file(WHEEL.replace("sugroup", "none")), {"/etc/group": GROUP + "none:x:994:\n"}, "pass"),
        ("stock_fail", STOCK, {}, "fail"),
        ("at_the_end_fail", STOCK + WHEEL, {}, "fail"),
        ("commented_fail", file("#" + WHEEL), {}, "fail"),
        ("sufficient_fail", file(WHEEL.replace("required", "sufficient")), {}, "fail"),
        ("no_group_fail", file(WHEEL.replace(" group=sugroup", "")), {}, "fail"),
        ("no_use_uid_fail", file(WHEEL.replace("use_uid ", "")), {}, "fail"),
        ("denies_the_group_fail", file(WHEEL.replace("use_uid", "deny use_uid")), {}, "fail"),
        ("root_only_fail", file(WHEEL.replace("use_uid", "root_only use_uid")), {}, "fail"),
        ("others_trusted_before_fail", "auth sufficient pam_wheel.so trust use_uid\n" + file(), {}, "fail"),
        ("group_missing_fail", file(), {"/etc/group": "root:x:0:\n"}, "fail"),
        ("group_has_members_fail", file(), {"/etc/group": GROUP.replace("993:", "993:ci,bob")}, "fail"),
        ("primary_group_fail", file(), {"/etc/passwd": PASSWD + "ci:x:1001:993::/:/bin/sh\n"}, "fail"),
        (
            "su_l_goes_its_own_way_fail",
            file(),
            {"/etc/pam.d/su-l": "auth sufficient pam_rootok.so\nauth include system-auth\n"},
            "fail",
        ),
    ],
)
def test_scenario(tmp_path: Path, name: str, text: str, more: dict[str, str], status: str) -> None:
    finding = look(tmp_path, text, **more)
    assert finding["status"] == status, (name, finding["reason"])


def test_evidence_says_who_and_where(tmp_path: Path) -> None:
    finding = look(tmp_path, file(), **{"/etc/group": GROUP.replace("993:", "993:ci,bob")})
    assert finding["reason"] == ("group sugroup: expected there, without members, found members ci, bob in /etc/group")
    assert look(tmp_path / "b", STOCK + WHEEL)["evidence"][0]["source"].startswith("/etc/pam.d/su:")


def test_no_su_at_all(tmp_path: Path) -> None:
    assert probe.check(machine(tmp_path), EMPTY)["status"] == "not_applicable"


# The module


class Place:
    """A file of su and one of groups, which groupadd and groupdel change."""

    def __init__(self, root: Path, text: str = STOCK, group: str = "root:x:0:\nwheel:x:10:ec2-user\n") -> None:
        root.mkdir(exist_ok=True)
        self.path, self.group, self.memory = root / "su", root / "group", root / "memory"
        self.path.write_text(text)
        self.group.write_text(group)

    def program(self, argv: list[str]) -> tuple[int, str, str]:
        lines = [
            line for line in self.group.read_text().splitlines(keepends=True) if not line.startswith(argv[-1] + ":")
        ]
        self.group.write_text("".join(lines) + (f"{argv[-1]}:x:993:\n" if argv[0] == "groupadd" else ""))
        return 0, "", ""

    def run(self, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
        def apply(batch: Any) -> None:
            batch.module.params.update(path=str(self.path), group=str(self.group))
            su.apply(batch)

        return applied(apply, list(rules), check=check, program=self.program, memory=self.memory)

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        predicted, done, again = self.run(*rules, check=True), self.run(*rules), self.run(*rules)
        assert (predicted["diff"], predicted["rules"]) == (done["diff"], done["rules"])
        assert not again["changed"] and not again["diff"]
        return done


def wanted(group: str = "sugroup") -> dict[str, Any]:
    return rule("su_access_restricted", "4.3.6", {"group": group})


ABSENT = rule("su_access_restricted", "4.3.6", state="absent")
KEEP = rule("su_access_restricted", "4.3.6", state="keep")


def test_one_line_and_one_group(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.settles(wanted())
    assert place.path.read_text() == file()
    assert "sugroup:x:993:\n" in place.group.read_text() and "wheel:x:10:ec2-user" in place.group.read_text()
    assert not place.run(KEEP)["changed"]


def test_both_go_with_the_rule(tmp_path: Path) -> None:
    text = "auth\tsufficient\tpam_wheel.so trust use_uid\n" + STOCK + "auth  required pam_wheel.so  # site\n"
    place = Place(tmp_path, text)
    before = place.path.read_text(), place.group.read_text()
    place.settles(wanted())
    assert place.path.read_text().startswith("# cisdriver su: auth\tsufficient\tpam_wheel.so trust")
    assert place.path.read_text().endswith("# cisdriver su: auth  required pam_wheel.so  # site\n")
    place.settles(ABSENT)
    assert (place.path.read_text(), place.group.read_text()) == before


def test_a_group_that_was_there_or_that_is_used_stays(tmp_path: Path) -> None:
    there = Place(tmp_path / "a", group="sugroup:x:993:\n")
    there.run(wanted())
    there.run(ABSENT)
    assert there.group.read_text() == "sugroup:x:993:\n"
    used = Place(tmp_path / "b")
    used.run(wanted())
    used.group.write_text(used.group.read_text().replace("993:", "993:bob"))
    used.run(ABSENT)
    assert "sugroup:x:993:bob" in used.group.read_text() and used.path.read_text() == STOCK


def test_another_group_takes_the_place_of_the_first(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(wanted())
    place.settles(wanted("nobodysu"))
    assert "group=nobodysu\n" in place.path.read_text() and "sugroup" not in place.path.read_text()
    assert "sugroup" not in place.group.read_text() and "nobodysu" in place.group.read_text()


@pytest.mark.parametrize("check", [True, False])
def test_a_group_with_members_is_never_emptied(tmp_path: Path, check: bool) -> None:
    place = Place(tmp_path)
    with pytest.raises(Refused, match="group wheel is to be empty, but has the members ec2-user"):
        place.run(wanted("wheel"), check=check)
    assert place.path.read_text() == STOCK


def test_root_is_not_shut_out(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK.replace(ROOT, ""))
    with pytest.raises(Refused, match="root could not use su either"):
        place.run(wanted())
    assert "sugroup" not in place.group.read_text()
