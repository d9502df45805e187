"""The loader: what it reads, what it selects, what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

ROOT = Path(__file__).resolve().parents[2]
AL2023 = "al2023-1.0.0"


@pytest.fixture(scope="module")
def names() -> catalogue.Catalogue:
    return catalogue.load(ROOT)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of our own: two recommendations, one rule file to be written by the test."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "roles/network/rules").mkdir(parents=True)
    lines = [
        {"id": "1.1", "title": "One", "level": 1, "assessment": "automated"},
        {"id": "1.2", "title": "Two", "level": 2, "assessment": "manual"},
    ]
    (tmp_path / "benchmarks/b-1.yml").write_text(yaml.safe_dump(lines))
    return tmp_path


def write_rules(tree: Path, text: str, name: str = "topic") -> None:
    (tree / f"roles/network/rules/{name}.yml").write_text(text)


def test_benchmarks_are_whole(names: catalogue.Catalogue) -> None:
    sizes = {name: len(ids) for name, ids in names.benchmarks.items()}
    assert sizes[AL2023] == 243
    assert {entry.recommendation.level for entry in names.entries(AL2023)} == {1, 2}


def test_every_rule_is_claimed_once_and_known(names: catalogue.Catalogue) -> None:
    # load() raises otherwise; this says that it did look at something
    assert len(names.rules) >= 100
    assert all(set(rule.ids) <= set(names.benchmarks) for rule in names.rules.values())


def test_every_recommendation_of_al2023_has_a_rule(names: catalogue.Catalogue) -> None:
    entries = names.entries(AL2023)
    assert len(entries) == len({entry.recommendation.id for entry in entries}) == 243
    assert [entry.recommendation.id for entry in entries if entry.rule is None] == []


def test_a_rule_is_for_a_person_only_where_the_benchmark_leaves_it_to_one(names: catalogue.Catalogue) -> None:
    shown = [entry for entry in names.entries(AL2023) if entry.rule and entry.rule.manual]
    assert {entry.recommendation.assessment for entry in shown} == {"manual"}
    assert all(entry.rule.collect for entry in shown if entry.rule)


def test_at_most_fourteen_are_excepted_for_eks_and_none_for_a_server(names: catalogue.Catalogue) -> None:
    rules = [entry.rule for entry in names.entries(AL2023) if entry.rule]
    assert sum(rule.verdict("eks") == "except" for rule in rules) <= 14
    assert {rule.verdict("server") for rule in rules} == {"apply", "manual"}


def test_level_one_is_part_of_level_two(names: catalogue.Catalogue) -> None:
    one, two = (
        {entry.recommendation.id for entry in names.select(catalogue.Selection(AL2023, level))} for level in (1, 2)
    )
    assert one < two and len(two) == 243


@pytest.mark.parametrize("name", ["3.2.2", "send_redirects_disabled"])
def test_only_takes_ids_and_slugs(names: catalogue.Catalogue, name: str) -> None:
    chosen = names.select(catalogue.Selection(AL2023, only=(name,)))
    assert [entry.recommendation.id for entry in chosen] == ["3.2.2"]


def test_skip_takes_a_topic(names: catalogue.Catalogue) -> None:
    chosen = names.select(catalogue.Selection(AL2023, skip=("kernel_parameters",)))
    assert not {"3.2.1", "3.2.2"} & {entry.recommendation.id for entry in chosen}


def test_an_excepted_rule_writes_nothing_for_eks_and_its_predicate_for_a_server(names: catalogue.Catalogue) -> None:
    rule = names.rules["ip_forwarding_disabled"]
    assert rule.writes("eks") == {}
    assert rule.writes("server")["sysctl"]["net.ipv4.ip_forward"] == 0


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (catalogue.Selection("al1984"), "unknown benchmark 'al1984'"),
        (catalogue.Selection(AL2023, level=3), "unknown level 3"),
        (catalogue.Selection(AL2023, profile="desktop"), "unknown profile 'desktop'"),
        (catalogue.Selection(AL2023, only=("9.9.9",)), "no rule, id, topic or section '9.9.9'"),
        (catalogue.Selection(AL2023, skip=("sendredirects",)), "'sendredirects'"),
        (catalogue.Selection(AL2023, strict=("send_redirects_disabled",)), "with an EKS verdict"),
        (catalogue.Selection(AL2023, values={"nonesuch": 1}), "unknown rule 'nonesuch'"),
        (catalogue.Selection(AL2023, values={"send_redirects_disabled": 1}), "takes no value"),
    ],
)
def test_a_wrong_choice_is_named(names: catalogue.Catalogue, selection: catalogue.Selection, message: str) -> None:
    with pytest.raises(catalogue.CatalogueError, match=message):
        names.select(selection)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {ids: {b-1: '1.1'}, require: {}, levle: 1}", r"topic.yml: rule a: unknown key 'levle'"),
        ("a: {require: {}}", "rule a: needs ids, and require or manual"),
        ("a: {ids: {b-1: '1.1'}}", "rule a: needs ids, and require or manual"),
        ("a: {ids: {b-1: '9.9'}, require: {}}", "b-1 has no recommendation '9.9'"),
        ("a: {ids: {b-9: '1.1'}, require: {}}", "unknown benchmark 'b-9'"),
        (
            "a: {ids: {b-1: '1.1'}, require: {}}\nz: {ids: {b-1: '1.1'}, require: {}}",
            "rule z: b-1 1.1 is already claimed by a",
        ),
        ("a: [", "cannot read .*topic.yml"),
    ],
)
def test_bad_data_is_named_with_file_rule_and_key(tree: Path, text: str, message: str) -> None:
    write_rules(tree, text)
    with pytest.raises(catalogue.CatalogueError, match=message):
        catalogue.load(tree)


def test_one_slug_in_two_files_is_refused(tree: Path) -> None:
    write_rules(tree, "a: {ids: {b-1: '1.1'}, require: {}}")
    write_rules(tree, "a: {ids: {b-1: '1.2'}, require: {}}", name="other")
    with pytest.raises(catalogue.CatalogueError, match="rule a is already in"):
        catalogue.load(tree)


def test_a_value_replaces_what_set_writes_and_nothing_else(tree: Path) -> None:
    write_rules(
        tree,
        "a:\n  ids: {b-1: '1.1'}\n  require: {login_defs: {DAYS: {max: 9}}, shadow: {days: {max: 9}}}\n"
        "  set: {login_defs: {DAYS: 9}}\n  value: {min: 1, max: 9}\n",
    )
    rule = catalogue.load(tree).rules["a"]
    writes = catalogue.tailored(rule, "eks", {"a": 5})
    assert writes == {"login_defs": {"DAYS": 5}, "shadow": {"days": {"max": 9}}}
    for value, message in ((10, r"expected 1\.\.9, found 10"), ("x", "expected a number, found 'x'")):
        with pytest.raises(catalogue.CatalogueError, match=message):
            catalogue.tailored(rule, "eks", {"a": value})


UPLOAD = (
    "a:\n  ids: {b-1: '1.1'}\n  applies_if: {value: a}\n  require: {journald: {Upload: {URL: {matches: '.+'}}}}\n"
    "  set: {journald: {Upload: {URL: null, ServerKeyFile: null}}}\n  value: {keys: [URL, ServerKeyFile]}\n"
)


def test_a_value_that_is_a_mapping_replaces_the_keys_it_names(tree: Path) -> None:
    write_rules(tree, UPLOAD)
    rule = catalogue.load(tree).rules["a"]
    writes = catalogue.tailored(rule, "eks", {"a": {"URL": "https://c"}})
    assert writes["journald"]["Upload"] == {"URL": "https://c", "ServerKeyFile": None}


def test_a_rule_may_wait_for_a_value(tree: Path) -> None:
    write_rules(tree, UPLOAD)
    rule = catalogue.load(tree).rules["a"]
    without = catalogue.Selection("b-1")
    given = catalogue.Selection("b-1", values={"a": {"URL": "https://c"}})
    assert without.conditions(rule) == {"value_missing": "a"}
    assert given.conditions(rule) == {}


def test_a_value_may_add_to_what_is_required() -> None:
    rule = catalogue.Rule(
        "r", "network", "t", "t.yml", {}, require={"p": {"allow": [1], "x": 2}, "q": {}}, value={"extends": "allow"}
    )
    assert catalogue.required(rule, {}) == rule.require
    assert catalogue.required(rule, {"r": [3]}) == {"p": {"allow": [1, 3], "x": 2}, "q": {}}
    for wrong in ({}, [], "3"):
        with pytest.raises(catalogue.CatalogueError, match="r: expected a list to add to allow"):
            catalogue.required(rule, {"r": wrong})


def test_the_version_is_found_in_an_installed_collection(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST.json").write_text('{"collection_info": {"version": "7.8.9"}}')
    assert catalogue.version(tmp_path) == "7.8.9"
    shutil.copy(ROOT / "galaxy.yml", tmp_path)
    assert catalogue.version(ROOT) == yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
