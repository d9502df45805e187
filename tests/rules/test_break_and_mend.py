"""Per rule: broken alone, the audit sees that one and no other; hardened again, it passes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

from . import breaking, killers
from .conftest import SELECTION, Hardened, breaks_alone, not_met

RULES = {
    entry.rule.slug: entry.rule
    for entry in catalogue.load().select(SELECTION)
    if entry.rule and entry.rule.manual is None
}
BREAKABLE = sorted(
    (slug for slug, rule in RULES.items() if rule.verdict("eks") != "except" and slug not in breaking.ELSEWHERE),
    key=lambda slug: breaking.takes_a_package_away(RULES[slug].require),
)

pytestmark = pytest.mark.node

#: Where the audit of a stock node differs from CIS's own kit on a real one, and why.
DIFFERENCES = {
    "1.1.2.1": "the kit wants an fstab line; systemd's tmp.mount makes /tmp a mount of its own at every boot",
    "4.2.6": "the kit wants UsePAM in sshd_config itself; the image states it in sshd_config.d/50-redhat.conf",
    "5.1.2.1.3": "the kit enables the upload of the journal, though nobody names a collector it could send to",
    "5.2.4.5": "the kit's own rules files were too open; those of a stock node are not",
}


def test_hardening_leaves_only_accepted_findings(hardened: Hardened) -> None:
    left = not_met(hardened.hardened)
    assert left == set(), {slug: hardened.hardened[slug]["reason"] for slug in left}


def test_the_stock_node_was_found_wanting_and_no_probe_erred(hardened: Hardened) -> None:
    errors = {slug for slug, finding in hardened.stock.items() if finding["status"] == "error"}
    assert errors == set()
    assert len(not_met(hardened.stock)) > 30


def test_at_most_fourteen_fails_are_accepted_each_with_its_reason(hardened: Hardened) -> None:
    failed = {slug for slug, finding in hardened.hardened.items() if finding["status"] == "fail"}
    ids = {
        entry.recommendation.id
        for entry in catalogue.load().select(SELECTION)
        if entry.rule and entry.rule.slug in failed
    }
    assert len(ids) <= 14, sorted(ids)
    for slug in failed:
        assert RULES[slug].eks["why"], slug


def test_a_stock_node_is_judged_as_the_kit_of_cis_judged_one(hardened: Hardened) -> None:
    """The verdicts are public: CIS's Build Kit at level 2 on an EKS-optimized AL2023 AMI of 2025."""
    kit = yaml.safe_load(Path(__file__).with_name("stock-verdicts-al2023.yml").read_text())
    by_id = {entry.recommendation.id: entry.rule for entry in catalogue.load().select(SELECTION) if entry.rule}
    decided = {id_: verdict for id_, verdict in kit.items() if verdict in ("passed", "remediated")}
    assert len(decided) == 160 and len(DIFFERENCES) <= 5
    differing = {
        id_
        for id_, verdict in decided.items()
        if (hardened.stock[by_id[id_].slug]["status"] in ("pass", "not_applicable")) != (verdict == "passed")
    }
    assert differing == set(DIFFERENCES)


@pytest.mark.parametrize("name", killers.KILLERS)
def test_the_node_does_not_have_what_kills_nodes_elsewhere(hardened: Hardened, name: str) -> None:
    found = hardened.node.exec(killers.KILLERS[name].alive)
    assert found.returncode == 0, (killers.KILLERS[name].breaks, found.stdout, found.stderr)


def test_no_package_of_the_image_was_updated_or_taken(hardened: Hardened) -> None:
    """Another containerd, kernel or driver than EKS tested is a node that may not join."""
    assert hardened.packages <= hardened.installed()


@pytest.mark.parametrize("slug", [slug for slug, rule in RULES.items() if rule.verdict("eks") == "except"])
def test_an_exception_falls_with_what_it_rests_on(hardened: Hardened, slug: str) -> None:
    breaks_alone(hardened, slug, breaking.INSTEAD[slug])


@pytest.mark.parametrize("slug", BREAKABLE)
def test_broken_alone_it_fails_alone(hardened: Hardened, slug: str) -> None:
    if hardened.hardened[slug]["status"] == "not_applicable":
        pytest.fail(f"{slug} does not apply here ({hardened.hardened[slug]['reason']}): list it in ELSEWHERE")
    breaks_alone(hardened, slug, breaking.how(slug, RULES[slug].require))


@pytest.mark.parametrize("slug", breaking.ELSEWHERE)
def test_what_is_proved_elsewhere_does_not_apply_here(hardened: Hardened, slug: str) -> None:
    assert hardened.hardened[slug]["status"] == "not_applicable"


def test_hardening_mends_what_was_broken(hardened: Hardened) -> None:
    """Runs last: all that the tests above left broken is mended by one run, and the next changes nothing."""
    hardened.harden()
    now = hardened.audit()
    assert not_met(now) == not_met(hardened.hardened), {s: now[s]["reason"] for s in not_met(now)}
    assert re.search(r"changed=0\s", hardened.harden())
    assert hardened.node.exec("sshd -t && visudo -c && systemctl is-active sshd").returncode == 0
