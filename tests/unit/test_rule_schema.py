"""schemas/rule.json guards every rule, and what hardening writes for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import registry
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "schemas/rule.json").read_text())
RULE = jsonschema.Draft202012Validator(SCHEMA)
SETTINGS = SCHEMA["$defs"]["settings"]["properties"]


def written() -> Iterator[Any]:
    for path in sorted(ROOT.glob("roles/*/rules/*.yml")):
        for slug, body in yaml.safe_load(path.read_text()).items():
            yield pytest.param(body, id=f"{path.parent.parent.name}/{path.stem}:{slug}")


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("body", list(written()))
def test_every_rule_is_as_the_schema_has_it(body: dict[str, Any]) -> None:
    assert [f"{error.json_path}: {error.message}" for error in RULE.iter_errors(body)] == []


def test_every_kind_has_a_probe_and_every_setting_a_module() -> None:
    assert set(SCHEMA["$defs"]["predicates"]["properties"]) == set(registry.KINDS)
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}
    assert set(SETTINGS) == set(registry.KINDS) & modules


@pytest.mark.parametrize("profile", catalogue.PROFILES)
def test_what_is_written_names_values_and_not_bounds(profile: str) -> None:
    for rule in catalogue.load().rules.values():
        for kind, want in rule.writes(profile).items():
            if kind in SETTINGS:
                validator = jsonschema.Draft202012Validator({**SETTINGS[kind], "$defs": SCHEMA["$defs"]})
                assert [error.message for error in validator.iter_errors(want)] == [], (rule.slug, kind)


#: A value that a site may choose, for rules whose bounds do not give one.
CHOSEN = {
    "motd_configured": "Ours.",
    "local_login_banner_configured": "Ours.",
    "remote_login_banner_configured": "Ours.",
    "password_strength_required": "enabled minlen=20 minclass=4 retry=2 enforce_for_root",
    "failed_logins_locked_out": "deny=5 unlock_time=0",
    "password_reuse_limited": "remember=24",
    "sshd_max_startups_configured": "5:30:60",
    "su_access_restricted": "nobodys",
    "sudo_log_file_configured": "/var/log/elevated.log",
    "nftables_default_deny": {"tcp": [443]},
    "sshd_access_limited": {"AllowGroups": ["ops"]},
    "journald_rotation_configured": {"SystemMaxUse": "2G"},
    "journal_upload_configured": {"URL": "https://logs.example.com"},
    "rsyslog_sends_to_remote_host": {"host": "logs.example.com"},
}


def choice(rule: catalogue.Rule) -> Any:
    bounds = rule.value or {}
    return CHOSEN.get(rule.slug, bounds.get("max", bounds.get("min", bounds.get("in", [None])[0])))


@pytest.mark.parametrize(
    "rule", [one for one in catalogue.load().rules.values() if one.set and one.value], ids=lambda rule: rule.slug
)
def test_a_sites_value_takes_the_place_of_ours_and_of_nothing_else(rule: catalogue.Rule) -> None:
    for profile in catalogue.PROFILES:
        ours, theirs = rule.writes(profile), catalogue.tailored(rule, profile, {rule.slug: choice(rule)})
        assert set(ours) == set(theirs)
        for kind, want in theirs.items():
            if kind in SETTINGS:
                validator = jsonschema.Draft202012Validator({**SETTINGS[kind], "$defs": SCHEMA["$defs"]})
                assert [error.message for error in validator.iter_errors(want)] == [], (rule.slug, kind)
            assert type(want) is type(ours[kind])


GOOD: dict[str, Any] = {"ids": {"al2023-1.0.0": "1.1.1"}, "require": {"package": {"absent": ["cups"]}}}


@pytest.mark.parametrize(
    "more",
    [
        {"levle": 1},
        {"ids": {"al2023": "1.1"}},
        {"ids": {"al2023-1.0.0": 1.1}},
        {"ids": {}},
        {"require": {}},
        {"require": {"sysctl": {"net.ipv4.ip_forward": {"mni": 1}}}},
        {"require": {"packages": {"absent": ["cups"]}}},
        {"require": {"package": {"absent": []}}},
        {"require": {"service": {"or_package_absent": "cups"}}},
        {"require": {"service": {"masked": ["cups"]}}},
        {"require": {"mount_option": {"/tmp": ["noexecute"]}}},
        {"require": {"mount_option": {"tmp": ["noexec"]}}},
        {"require": {"kernel_module": {"disabled": ["Squash FS"]}}},
        {"eks": {"verdict": "except"}},
        {"eks": {"verdict": "waive", "why": "A sentence long enough to count."}},
        {"manual": "A person has to look at this."},
        {"collect": {"package": {"absent": ["cups"]}}},
        {"value": {"min": 1}},
        {"applies_if": {"packages": "cups"}},
    ],
    ids=str,
)
def test_what_is_wrong_is_refused(more: dict[str, Any]) -> None:
    assert RULE.is_valid(GOOD)
    assert not RULE.is_valid({**GOOD, **more})
