"""Package repositories: states that pass, and more of them that fail; metadata are checked before it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import repository as probe
from ansible_collections.cisdriver.amazon_linux.plugins.modules import repository
from machines import Refused, applied, machine, rule, tree

MAIN = "/etc/dnf/dnf.conf"
AMAZON = "/etc/yum.repos.d/amazonlinux.repo"
OTHER = "/etc/yum.repos.d/other one.repo"
RELEASE = "/etc/system-release"
PINNED = "/etc/dnf/vars/releasever"
NEW, OLD = ("Amazon Linux release 2023.11.20260406 (Amazon Linux)\n", "Amazon Linux release 2023.10.20260302 (x)\n")
SIGNED = {"signed": ["amazonlinux", "kernel-livepatch"], "since": "2023.11.20260406"}
ALL = {"repo_gpgcheck": True}
INSTEAD = {**ALL, **SIGNED, "gpgcheck": True, "transports": ["https", "s3", "file"], "pinned": True}


def section(name: str = "amazonlinux", **values: object) -> str:
    values = {"mirrorlist": "https://a.example/$releasever/mirror.list", "enabled": 1, "gpgcheck": 1, **values}
    return "".join([f"[{name}]\n", *(f"{key}={value}\n" for key, value in values.items() if value is not None), "\n"])


NODE = {MAIN: "[main]\ngpgcheck=True\n", RELEASE: NEW, AMAZON: section(repo_gpgcheck=1)}


@pytest.mark.parametrize(
    ("name", "files", "spec", "status"),
    [
        ("in_the_section_pass", {}, ALL, "pass"),
        ("inherited_pass", {MAIN: "[main]\nrepo_gpgcheck=1\n", AMAZON: section()}, ALL, "pass"),
        ("word_pass", {AMAZON: section(repo_gpgcheck="True")}, ALL, "pass"),
        ("blanks_pass", {AMAZON: "[amazonlinux]\n  \nrepo_gpgcheck = 1\n"}, ALL, "pass"),
        ("disabled_one_pass", {OTHER: section("other", enabled=0, repo_gpgcheck=0)}, ALL, "pass"),
        ("off_by_word_pass", {OTHER: section("other", enabled="False", repo_gpgcheck=0)}, ALL, "pass"),
        ("main_file_of_yum_pass", {MAIN: "-> nowhere", "/etc/yum.conf": "[main]\nrepo_gpgcheck=1\n", AMAZON: section()},
         ALL, "pass"),
        ("instead_pass", {}, INSTEAD, "pass"),
        ("instead_unsigned_metadata_of_another_pass", {OTHER: section("other", repo_gpgcheck=0)}, INSTEAD, "pass"),
        ("instead_on_an_older_release_pass", {RELEASE: OLD, AMAZON: section(repo_gpgcheck=0)}, INSTEAD, "pass"),
        ("instead_empty_address_pass", {AMAZON: section(repo_gpgcheck=1, baseurl="")}, INSTEAD, "pass"),
        ("instead_gpgcheck_inherited_pass", {AMAZON: section(repo_gpgcheck=1, gpgcheck=None)}, INSTEAD, "pass"),
        ("not_set_fail", {AMAZON: section()}, ALL, "fail"),
        ("section_beats_main_fail", {MAIN: "[main]\nrepo_gpgcheck=1\n", AMAZON: section(repo_gpgcheck=0)}, ALL, "fail"),
        ("second_section_fail", {AMAZON: section(repo_gpgcheck=1) + section("b", repo_gpgcheck=0)}, ALL, "fail"),
        ("file_with_a_blank_in_its_name_fail", {OTHER: section("other")}, ALL, "fail"),
        ("enabled_left_out_fail", {OTHER: section("other", enabled=None)}, ALL, "fail"),
        ("commented_fail", {AMAZON: section() + "#repo_gpgcheck=1\n"}, ALL, "fail"),
        ("last_line_of_a_key_fail", {AMAZON: "[a]\nrepo_gpgcheck=1\nrepo_gpgcheck=0\n"}, ALL, "fail"),
        ("instead_signed_but_unchecked_fail", {AMAZON: section(repo_gpgcheck=0)}, INSTEAD, "fail"),
        ("instead_packages_unchecked_fail", {OTHER: section("other", gpgcheck=0)}, INSTEAD, "fail"),
        ("instead_plain_http_fail", {OTHER: section("o", mirrorlist=None, baseurl="http://a.example/")}, INSTEAD,
         "fail"),
        ("instead_second_address_fail",
         {OTHER: section("o", mirrorlist=None, baseurl="https://a.example/\n  http://b.example/")}, INSTEAD, "fail"),
        ("instead_latest_release_fail", {PINNED: "latest\n"}, INSTEAD, "fail"),
        ("none_not_applicable", {AMAZON: section(enabled=0)}, ALL, "not_applicable"),
    ],
)  # fmt: skip
def test_scenario(tmp_path: Path, name: str, files: dict[str, str], spec: dict[str, Any], status: str) -> None:
    assert probe.check(machine(tmp_path, {**NODE, **files}), spec)["status"] == status, name


def test_evidence_names_file_and_line(tmp_path: Path) -> None:
    finding = probe.check(machine(tmp_path, {**NODE, AMAZON: section(repo_gpgcheck=0)}), ALL)
    assert finding["reason"] == f"repo_gpgcheck of amazonlinux: expected 1, found 0 in {AMAZON}:5"


def test_collected_are_the_enabled_ones(tmp_path: Path) -> None:
    files = {**NODE, AMAZON: section(gpgkey="file:///k") + section("amazonlinux-source", enabled=0)}
    finding = probe.check(machine(tmp_path, files), {})
    assert finding["status"] == "pass"
    assert [(item["object"], item["found"]) for item in finding["evidence"]] == [
        (
            "repository amazonlinux",
            "https://a.example/$releasever/mirror.list; gpgcheck=1, repo_gpgcheck=not set, gpgkey=file:///k",
        )
    ]


def test_without_a_package_manager_it_cannot_look(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no package manager is configured"):
        probe.check(machine(tmp_path, {}), ALL)


# The module


class Place:
    """A tree with repositories, and a dnf that refuses those whose name it is told."""

    def __init__(self, root: Path, amazon: str, other: str = "", release: str = NEW, main: str = "[main]\n") -> None:
        self.root, self.refuses, self.loaded = root, "", []
        tree(root, {"dnf.conf": main, "release": release, "repos/amazonlinux.repo": amazon})
        if other:
            tree(root, {"repos/other one.repo": other})

    def text(self, name: str = "repos/amazonlinux.repo") -> str:
        return (self.root / name).read_text()

    def dnf(self, argv: list[str]) -> tuple[int, str, str]:
        directory = Path(argv[argv.index("-c") + 1]).parent
        ids = [argument.partition("=")[2] for argument in argv if argument.startswith("--repo=")]
        assert argv[-1] == "makecache" and "-y" in argv and self.root not in directory.parents
        assert "repo_gpgcheck=1" in "".join(path.read_text() for path in directory.iterdir())
        self.loaded += ids
        return (1, "", "GPG signature is not available") if self.refuses in ids else (0, "", "")

    def run(self, *rules: dict[str, Any], check: bool = False) -> dict[str, Any]:
        def apply(batch: Any) -> None:
            root = self.root
            batch.module.params.update(main=[str(root / "no"), str(root / "dnf.conf")], directory=str(root / "repos"))
            batch.module.params["release"] = [str(root / "releasever"), str(root / "release")]
            repository.apply(batch)

        return applied(apply, list(rules), check=check, program=self.dnf, memory=self.root / "memory")

    def settles(self, *rules: dict[str, Any]) -> dict[str, Any]:
        predicted, done, again = self.run(*rules, check=True), self.run(*rules), self.run(*rules)
        assert predicted["diff"] == done["diff"] and predicted["rules"] == done["rules"]
        assert not again["changed"] and not again["diff"]
        return done


EVERY = rule("repo_metadata_gpgcheck_enabled", "1.2.4", ALL)
ONLY_SIGNED = rule("repo_metadata_gpgcheck_enabled", "1.2.4", {**ALL, **SIGNED})
GONE = rule("repo_metadata_gpgcheck_enabled", "1.2.4", state="absent")
STOCK = section(repo_gpgcheck=0) + section("amazonlinux-source", enabled=0, repo_gpgcheck=0)


def test_only_signed_ones_that_are_on_are_set_and_loaded(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK, section("other"))
    place.settles(ONLY_SIGNED)
    assert place.text() == STOCK.replace("repo_gpgcheck=0", "repo_gpgcheck=1", 1)
    assert place.text("repos/other one.repo") == section("other") and place.text("dnf.conf") == "[main]\n"
    assert place.loaded == ["amazonlinux"]
    place.settles(GONE)
    assert place.text() == STOCK


@pytest.mark.parametrize("release", [OLD, "Amazon Linux release 2 (Karoo)\n", ""])
def test_a_release_without_signatures_is_left_alone(tmp_path: Path, release: str) -> None:
    place = Place(tmp_path, STOCK, release=release)
    assert not place.settles(ONLY_SIGNED)["changed"]


def test_a_pinned_older_release_counts(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK)
    (tmp_path / "releasever").write_text("2023.10.20260302\n")
    assert not place.settles(ONLY_SIGNED)["changed"]


def test_all_that_are_on_and_the_main_file_on_a_server(tmp_path: Path) -> None:
    other = section("other") + "# the end\n"
    place = Place(tmp_path, section(repo_gpgcheck="True") + section("b", repo_gpgcheck="no"), other)
    place.settles(EVERY)
    assert place.text() == section(repo_gpgcheck="True") + section("b", repo_gpgcheck=1)
    assert place.text("repos/other one.repo") == section("other")[:-1] + "\n# the end\nrepo_gpgcheck=1\n"
    assert place.text("dnf.conf") == "[main]\nrepo_gpgcheck=1\n"
    assert sorted(place.loaded) == ["b", "other"]
    place.settles(GONE)
    assert place.text("repos/other one.repo") == other and place.text("dnf.conf") == "[main]\n"


def test_what_dnf_cannot_load_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK)
    place.refuses = "amazonlinux"
    with pytest.raises(Refused, match=r"1\.2\.4\): dnf cannot load amazonlinux .*: GPG signature is not available"):
        place.run(EVERY)
    assert place.text() == STOCK and place.text("dnf.conf") == "[main]\n"


def test_a_repository_that_dnf_ignores_counts_as_refused(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK)
    place.dnf = lambda _argv: (0, "Ignoring repositories: amazonlinux", "")  # type: ignore[method-assign] # what dnf answers here
    with pytest.raises(Refused, match="Ignoring repositories"):
        place.run(ONLY_SIGNED)


def test_bytes_that_are_no_utf_8_stay(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK)
    (tmp_path / "repos/amazonlinux.repo").write_bytes(b"# d\xe9p\xf4t\n" + STOCK.encode())
    place.dnf = lambda _argv: (0, "", "")  # type: ignore[method-assign] # what dnf answers here
    place.run(ONLY_SIGNED)
    assert (tmp_path / "repos/amazonlinux.repo").read_bytes().startswith(b"# d\xe9p\xf4t\n[amazonlinux]\n")


def test_what_an_administrator_set_since_stays(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK)
    place.run(ONLY_SIGNED)
    (tmp_path / "repos/amazonlinux.repo").write_text(section(repo_gpgcheck="yes"))
    place.settles(GONE)
    assert place.text() == section(repo_gpgcheck="yes")


def test_a_repository_that_has_gone_is_no_matter(tmp_path: Path) -> None:
    place = Place(tmp_path, STOCK)
    place.run(ONLY_SIGNED)
    (tmp_path / "repos/amazonlinux.repo").unlink()
    assert not place.settles(GONE)["changed"]
