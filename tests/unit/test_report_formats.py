"""Reports: complete, honest, and safe whatever a node says."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from cisdriver import collection, report, rundir
from cisdriver.report import html, markdown, view
from driver_support import accepted, check, document, evidence, fail, verification

HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(1)> | `x` [a](javascript:alert(1)) \"'&"
ABOUT = {
    "id": "20260102T030405Z-a1b2c3",
    "stages": [{"stage": "harden", "label": "Harden", "seconds": 65.0, "ok": True}],
    "bake": {
        "region": "eu-central-1",
        "image": {"id": "ami-0123456789abcdef0", "name": "hardened"},
        "base": {"id": "ami-0fedcba9876543210", "name": "amazon-eks-node"},
    },
}


class Tags(HTMLParser):
    """Every tag of a page, and that those that open also close."""

    VOID = frozenset({"meta", "input", "br", "hr", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def pages(*changes: dict[str, Any], about: dict[str, Any] = ABOUT) -> tuple[str, str]:
    shown = view.view(document(*changes), about)
    return html.render(shown), markdown.render(shown)


def test_every_recommendation_stands_in_both() -> None:
    page, text = pages()
    for result in document()["results"]:
        assert f">{result['id']}</span>" in page
        assert f"| {result['id']} |" in text


def test_both_name_image_base_scores_and_times() -> None:
    page, text = pages(fail("3.2.1", accepted=accepted()))
    summary = document(fail("3.2.1", accepted=accepted()))["summary"]
    for written in (page, text):
        for part in ("ami-0123456789abcdef0", "ami-0fedcba9876543210", "1 min 05 s", f"{summary['score']:.1f}"):
            assert part in written
        assert f"{summary['score_accepted']:.1f}" in written
    assert "Compliant" in page and "Compliant" in text


def test_with_ids_that_nobody_audited_no_report_says_compliant() -> None:
    incomplete = document(benchmark="al2-3.0.0")
    incomplete["results"][0] |= {"status": "no_rule_yet", "rule": None, "evidence": []}
    incomplete["summary"] = summary = collection.results.summary(incomplete["results"])
    shown = view.view(incomplete, ABOUT)
    page, text = html.render(shown), markdown.render(shown)
    assert "Compliant" not in page + text
    assert f"{summary['counts']['no_rule_yet']} of {summary['total']} recommendations are not audited yet" in text


def test_findings_come_first_with_their_evidence() -> None:
    page, text = pages(fail("3.2.2", evidence=[evidence(source="/etc/sysctl.d/99.conf:3")]))
    for written in (page, text):
        assert "1 finding" in written
        assert "/etc/sysctl.d/99.conf:3" in written
        assert written.index("3.2.2") < written.index("1.1.1.")
    assert "Compliant" not in page


def test_an_accepted_exception_shows_its_reason_and_what_holds_instead() -> None:
    for written in pages(fail("3.2.1", accepted=accepted())):
        assert "cannot carry pods" in written
        assert re.search("[Mm]ust hold instead, and does", written)


def test_an_exception_that_does_not_hold_is_a_finding() -> None:
    assert view.state({"status": "fail", "accepted": accepted(holds=False)}) == "finding"
    for written in pages(fail("3.2.1", accepted=accepted(holds=False))):
        assert "1 finding" in written
        assert "does not count" in written
        assert "expected 1, found 0" in written


def test_ids_without_a_rule_are_counted_and_explained() -> None:
    count = document()["summary"]["counts"]["no_rule_yet"]
    if not count:
        pytest.skip("every id has a rule by now")
    page, text = pages()
    assert f"<b>{count}</b> of " in page
    assert f"{count} recommendations have no rule yet" in text


def test_what_a_node_says_is_never_markup() -> None:
    item = evidence(object=HOSTILE, expected=HOSTILE, found=HOSTILE, source=HOSTILE)
    changed = fail("3.2.2", title=HOSTILE, reason=HOSTILE, evidence=[item])
    changed["accepted"] = {**accepted(holds=False), "why": HOSTILE, "instead": HOSTILE}
    manual = {"id": "3.2.1", "status": "manual", "reason": HOSTILE, "evidence": [item]}
    page, text = pages(changed, manual, about={"id": HOSTILE, "bake": {"image": {"id": HOSTILE, "name": HOSTILE}}})
    tags = Tags(page).tags
    assert [tag for tag, _ in tags].count("script") == 1
    assert not any(tag == "img" for tag, _ in tags)
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    assert not re.search(r"(?<!\\)`x", text)


def test_a_line_break_cannot_leave_a_markdown_cell() -> None:
    assert markdown.text("a\n\n# b | c") == r"a \# b \| c"


def test_the_page_is_one_file_that_asks_nobody() -> None:
    page, _ = pages()
    tags = Tags(page).tags
    assert not any({"src", "href"} & set(attributes) for _, attributes in tags)
    assert "url(" not in page
    assert "@import" not in page
    policy = next(attributes["content"] for tag, attributes in tags if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy
    assert "@media print" in page
    assert "prefers-color-scheme: dark" in page


def test_documents_follow_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = collection.schema("results")
    jsonschema.Draft202012Validator.check_schema(schema)
    for made in (document(), document(fail("3.2.1", accepted=accepted()), fail("3.2.2"), level=2)):
        jsonschema.validate(made, schema)
    broken = document()
    broken["results"][0]["status"] = "passed"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_what_the_collection_makes_follows_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    selection = collection.catalogue.Selection("al2023-1.0.0", only=("3.2.1", "3.2.2"))
    good = {"status": "pass", "reason": "", "evidence": [evidence(ok=True)]}
    bad = {"status": "fail", "reason": "no", "evidence": [evidence()], "instead": good}
    found = {"ip_forwarding_disabled": bad, "send_redirects_disabled": good}
    node = document()["node"]
    made = collection.results.document(selection, found, node, {"name": "cisdriver audit", "version": "1"})
    jsonschema.validate(made, collection.schema("results"))
    assert made["summary"]["exceptions"] == ["3.2.1"]


def test_several_nodes_have_a_report_each(tmp_path: Path) -> None:
    run = rundir.create(tmp_path)
    (run.path / "audit").mkdir()
    for name in ("a", "b"):
        made = document()
        made["node"]["name"] = name
        run.write(f"audit/{name}", made)
    assert report.write(run, {}) == ["report-a.md", "report-a.html", "report-b.md", "report-b.html"]


def test_nothing_to_count_is_no_score() -> None:
    made = document()
    made["summary"] = {**made["summary"], "score": None, "score_accepted": None}
    shown = view.view(made, {})
    assert "nothing counts" in markdown.render(shown)
    assert "None" not in re.sub(r"None\. Every rule", "", html.render(shown))


def test_a_verification_alone_shows_every_check_whole() -> None:
    made = verification(check("forwarding"), check("sudo", "fail"), check("ipv6", "not_applicable"))
    shown = view.view(None, {"id": "r"}, made)
    page, text = html.render(shown), markdown.render(shown)
    Tags(page)
    for written in (page, text):
        assert "Not a node of Kubernetes any more" in written
        assert "1 of 3 checks fails" in written
        for word in (
            "forwarding holds",
            "Without forwarding no pod starts.",
            "no kernel of its own",
            "expected 0, found 1",
        ):
            assert word in written
        assert written.index("sudo holds") < written.index("forwarding holds")
        assert "CIS" not in written.replace("cis", "")
        assert "Every recommendation" not in written
    assert page.count("<details") == 3
    assert page.count("<details open") + page.count('" open>') == 1


def test_beside_an_audit_both_are_shown() -> None:
    shown = view.view(
        document(fail("3.2.2")), ABOUT, verification(check("forwarding"), check("ipv6", "not_applicable"))
    )
    page, text = html.render(shown), markdown.render(shown)
    Tags(page)
    for written in (page, text):
        assert "1 finding" in written
        assert "Still a node of Kubernetes" in written
        assert "1 checks hold, 1 does not apply." in written
        assert "Without forwarding no pod starts." in written
        assert written.index("forwarding holds") < written.index("Every recommendation")


def test_what_a_node_says_of_a_check_is_never_markup() -> None:
    item = evidence(object=HOSTILE, expected=HOSTILE, found=HOSTILE, source=HOSTILE)
    shown = view.view(None, {}, verification(check("sshd", "fail", reason=HOSTILE, evidence=[item])))
    page, text = html.render(shown), markdown.render(shown)
    assert [tag for tag, _ in Tags(page).tags].count("script") == 1
    assert not any(tag == "img" for tag, _ in Tags(page).tags)
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(javascript", text)


def test_a_verification_follows_the_schema_and_is_held_to_it() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = collection.schema("results")
    good = verification(*(check(status, status) for status in ("pass", "fail", "not_applicable", "error")))
    jsonschema.validate(good, schema)
    assert good["summary"]["unaccepted"] == 2
    assert [good[key] for key in ("benchmark", "level", "profile")] == [None, None, None]
    for change in ({"why": ""}, {"rule": "a_rule"}, {"level": 1}, {"status": "manual"}, {"accepted": accepted()}):
        broken = verification(check("forwarding", "fail"))
        broken["results"][0].update(change)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)
    for made, change in (
        (verification(), {"level": 1}),
        (document(), {"benchmark": None}),
        (document(), {"level": None}),
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**made, **change}, schema)
    audit = document()
    audit["results"][0]["why"] = "because"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(audit, schema)


def test_a_run_of_verifications_has_a_report_per_node(tmp_path: Path) -> None:
    run = rundir.create(tmp_path)
    (run.path / "verify").mkdir()
    for name in ("a", "b"):
        run.write(f"verify/{name}", verification())
    assert report.write(run, {}) == ["report-a.md", "report-a.html", "report-b.md", "report-b.html"]
