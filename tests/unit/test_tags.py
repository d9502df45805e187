"""--tags and --skip-tags, one rule at a time, in a batch of many."""

from __future__ import annotations

import pytest
from ansible_collections.cisdriver.amazon_linux.plugins.filter.rule_tags import rule_tags
from ansible_collections.cisdriver.amazon_linux.plugins.lookup import rules as lookup
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

TOPIC = "network/kernel_parameters"
SELECTION = catalogue.Selection("al2023-1.0.0")


def batch(run: list[str], skip: list[str], selection: catalogue.Selection = SELECTION) -> dict[str, str]:
    """State per id of the topic's batch."""
    names = catalogue.load()
    topic = names.topic(TOPIC)
    entries = [entry for entry in names.entries(selection.benchmark) if entry.rule in topic]
    chosen = {entry.recommendation.id for entry in names.select(selection)}
    items = lookup.batch(entries, chosen, selection, "sysctl", (run, skip))
    return {item["id"]: item["state"] for item in items}


def test_without_tags_all_that_is_selected_is_written() -> None:
    states = batch(["all"], [])
    assert set(states.values()) == {"present"}
    assert "3.2.2" in states
    assert "3.2.1" not in states  # excepted on an EKS node


@pytest.mark.parametrize("tag", ["3.2.2", "send_redirects_disabled"])
def test_a_tag_runs_one_rule_and_keeps_the_others(tag: str) -> None:
    states = batch([tag], [])
    assert states.pop("3.2.2") == "present"
    assert set(states.values()) == {"keep"}


@pytest.mark.parametrize("tag", ["3.2.2", "send_redirects_disabled"])
def test_a_skipped_tag_keeps_one_rule_and_runs_the_others(tag: str) -> None:
    states = batch(["all"], [tag])
    assert states.pop("3.2.2") == "keep"
    assert set(states.values()) == {"present"}


def test_a_rule_that_is_deselected_is_neither_written_nor_kept() -> None:
    states = batch(["all"], [], catalogue.Selection("al2023-1.0.0", skip=("3.2.2",)))
    assert "3.2.2" not in states and states


def test_a_level_tag_follows_the_benchmark_of_the_host() -> None:
    levels = {entry.recommendation.id: entry.recommendation.level for entry in catalogue.load().entries("al2023-1.0.0")}
    for id_, state in batch(["level2"], [], catalogue.Selection("al2023-1.0.0", level=2)).items():
        assert state == ("present" if levels[id_] == 2 else "keep")


def test_the_tags_of_a_topic_hold_every_name_less_what_is_skipped() -> None:
    tags = rule_tags(TOPIC)
    assert {"3.2.2", "send_redirects_disabled", "kernel_parameters", "network", "section3", "level1"} <= set(tags)
    assert set(tags) - set(rule_tags(TOPIC, ["3.2.2"])) == {"3.2.2"}
    assert not any("," in tag for tag in tags)
