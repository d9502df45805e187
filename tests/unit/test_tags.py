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
    items = lookup.batch(topic, entries, chosen, selection, "sysctl", (run, skip))
    return {item["id"]: item["state"] for item in items}


def test_without_tags_all_that_is_selected_is_written() -> None:
    states = batch(["all"], [])
    assert states.pop("3.2.1") == "absent"  # excepted on an EKS node
    assert set(states.values()) == {"present"}
    assert "3.2.2" in states


@pytest.mark.parametrize("tag", ["3.2.2", "send_redirects_disabled"])
def test_a_tag_runs_one_rule_and_keeps_the_others(tag: str) -> None:
    states = batch([tag], [])
    assert states.pop("3.2.2") == "present"
    assert set(states.values()) == {"keep"}


@pytest.mark.parametrize("tag", ["3.2.2", "send_redirects_disabled"])
def test_a_skipped_tag_keeps_one_rule_and_runs_the_others(tag: str) -> None:
    states = batch(["all"], [tag])
    assert states.pop("3.2.2") == "keep"
    assert set(states.values()) == {"present", "absent"}


def test_a_rule_that_is_deselected_is_taken_back() -> None:
    states = batch(["all"], [], catalogue.Selection("al2023-1.0.0", skip=("3.2.2",)))
    assert states["3.2.2"] == "absent"


def test_a_rule_that_is_deselected_but_outside_of_the_tags_stays() -> None:
    states = batch(["3.3.1"], [], catalogue.Selection("al2023-1.0.0", skip=("3.2.2",)))
    assert states["3.2.2"] == "keep"


@pytest.mark.parametrize("name", ["3.2.1", "ip_forwarding_disabled"])
def test_strict_applies_what_eks_would_except(name: str) -> None:
    assert batch(["all"], [], catalogue.Selection("al2023-1.0.0", strict=(name,)))["3.2.1"] == "present"


def test_what_is_strict_is_not_accepted_by_the_audit_either() -> None:
    selection = catalogue.Selection("al2023-1.0.0", only=("3.2.1",), strict=("3.2.1",))
    entry = lookup.audit_plan(selection, catalogue.load().select(selection))["entries"][0]
    assert entry["rule"] == "ip_forwarding_disabled" and "instead" not in entry


def test_a_level_tag_follows_the_benchmark_of_the_host() -> None:
    levels = {entry.recommendation.id: entry.recommendation.level for entry in catalogue.load().entries("al2023-1.0.0")}
    for id_, state in batch(["level2"], [], catalogue.Selection("al2023-1.0.0", level=2)).items():
        assert state in (("present", "absent") if levels[id_] == 2 else ("keep",))


def test_the_tags_of_a_topic_hold_every_name_less_what_is_skipped() -> None:
    tags = rule_tags(TOPIC)
    assert {"3.2.2", "send_redirects_disabled", "kernel_parameters", "network", "section3", "level1"} <= set(tags)
    assert set(tags) - set(rule_tags(TOPIC, ["3.2.2"])) == {"3.2.2"}
    assert not any("," in tag for tag in tags)
