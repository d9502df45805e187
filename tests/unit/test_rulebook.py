"""docs/rules, docs/exceptions.md and docs/verify.md are what rules and checks say."""

from __future__ import annotations

from pathlib import Path

import pytest
from cisdriver import checks, collection, rulebook

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", list(rulebook.pages()))
def test_a_page_is_what_the_rules_say(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    assert text == rulebook.pages()[name], "python -m cisdriver.rulebook docs"


def test_no_page_is_left_over() -> None:
    written = {f"rules/{path.name}" for path in (DOCS / "rules").iterdir()} | {"exceptions.md", "verify.md"}
    assert written == set(rulebook.pages())


def test_every_recommendation_stands_once_with_its_way_out() -> None:
    text = "".join(rulebook.pages().values())
    for entry in collection.load().entries(rulebook.BENCHMARK):
        id_ = entry.recommendation.id
        assert text.count(f"\n## {id_} ") == 1, id_
        assert f"`--skip {id_}`" in text, id_


def test_every_check_stands_with_what_it_is_good_for() -> None:
    text = rulebook.pages()["verify.md"]
    for check in checks.known():
        assert text.count(f"| `{check.name}` | {check.title} | {check.why} |") == 1, check.name


def test_each_exception_stands_with_its_reason() -> None:
    text = rulebook.pages()["exceptions.md"]
    for entry in collection.load().entries(rulebook.BENCHMARK):
        if entry.rule and entry.rule.eks:
            assert f"| {entry.recommendation.id} |" in text
            assert " ".join(entry.rule.eks["why"].split()) in text
