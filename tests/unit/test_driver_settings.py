"""Settings: three sources, one check, and where an error says it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cisdriver import choice, settings
from cisdriver.errors import UsageError


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(flags: dict[str, Any] | None = None, file: str = "", **environ: str) -> settings.Settings:
    if file:
        Path("cisdriver.yml").write_text(file)
    return settings.load(flags or {}, environ)


def test_flags_win_over_variables_and_those_over_the_file() -> None:
    file = "level: 1\nprofile: server\nregion: eu-west-1\nsandbox: true\n"
    found = load({"level": "2", "region": None, "only": ()}, file, CISDRIVER_REGION="us-east-1", CISDRIVER_LEVEL="1")
    assert (found.level, found.profile, found.region, found.sandbox) == (2, "server", "us-east-1", True)


def test_lists_and_mappings_have_a_form_in_each_source() -> None:
    found = load(
        {"tag": ("team=platform",)},
        "only: [3.2, network]\nvalues: {password_expiry_limited: 180}\n",
        CISDRIVER_SKIP="3.2.1, 3.2.2",
    )
    assert found.only == ("3.2", "network")
    assert found.skip == ("3.2.1", "3.2.2")
    assert (found.values, found.tag) == ({"password_expiry_limited": 180}, {"team": "platform"})
    flags = {"values": ("a=90", "b=text", "c={AllowGroups: [wheel]}")}
    assert load(flags).values == {"a": 90, "b": "text", "c": {"AllowGroups": ["wheel"]}}


def test_a_version_may_be_written_as_a_number() -> None:
    assert load(file="kubernetes_version: 1.33\n").kubernetes_version == "1.33"


def test_no_means_no() -> None:
    assert load({"encrypt": False}, "encrypt: true\n").encrypt is False


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("\n# mine\nlevle: 2\n", "cisdriver.yml:3: unknown setting 'levle'; did you mean 'level'?"),
        ("level: 3\n", "cisdriver.yml:1: level: expected 1 or 2, found 3"),
        ("profile: esk\n", "cisdriver.yml:1: profile: expected eks or server, found 'esk'; did you mean 'eks'?"),
        ("region: Frankfurt\n", "expected a region such as eu-central-1, found 'Frankfurt'"),
        ("only:\n  - 3.2\n  - {a: b}\n", "cisdriver.yml:3: only.1: "),
        ("level: 1\nlevel: 2\n", "cisdriver.yml:2: level is already set in line 1"),
        ("level: [\n", "cisdriver.yml:2: not valid YAML"),
        ("- level\n", "expected settings as 'name: value', found a list"),
        ("encrypt: perhaps\n", "cisdriver.yml:1: encrypt: "),
        ("subnet_id: subnet\n", "expected an id such as subnet-0123456789abcdef0"),
        ("nat: two\n", "cisdriver.yml:1: nat: expected one or three or none, found 'two'"),
        ("image:\n  - ami-00000001\n  - ami\n", "cisdriver.yml:3: image.1: expected an AMI id such as"),
        ("subnet_ids: [vpc]\n", "cisdriver.yml:1: subnet_ids.0: expected ids such as subnet-0123456789abcdef0"),
        ("clustr: prod\n", "cisdriver.yml:1: unknown setting 'clustr'; did you mean 'cluster'?"),
    ],
)
def test_an_error_in_the_file_is_told_with_file_and_line(file: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(file=file)
    assert message in str(error.value)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageError) as error:
        load({"region": "x"}, "level: 9\nprofil: eks\n", CISDRIVER_ARCHITECTURE="arm")
    text = error.value.message
    assert text.count("\n") == 3
    for part in ("cisdriver.yml:1: level", "cisdriver.yml:2: unknown", "--region: ", "CISDRIVER_ARCHITECTURE: "):
        assert part in text


def test_a_variable_that_is_nearly_ours_is_refused_and_any_other_ignored() -> None:
    assert load(CISDRIVER_EVENTS="/x", CISDRIVER_ZZZ="1", OTHER_LEVLE="2").level is None
    with pytest.raises(UsageError, match="unknown variable CISDRIVER_LEVLE; did you mean CISDRIVER_LEVEL"):
        load(CISDRIVER_LEVLE="2")


def test_a_settings_file_that_is_named_must_be_there() -> None:
    with pytest.raises(UsageError, match=r"cannot read .*mine\.yml"):
        settings.load({}, {}, Path("mine.yml"))


def test_a_pair_needs_its_equals_sign() -> None:
    with pytest.raises(UsageError, match="--tag: expected key=value, found 'team'"):
        load({"tag": ("team",)})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"benchmark": "al1984-1.0.0"}, "unknown benchmark 'al1984-1.0.0'"),
        ({"only": ("9.9.9",)}, "--only: no rule, id, topic or section '9.9.9' in"),
        ({"skip": ("ip_forwarding_disable",)}, "did you mean 'ip_forwarding_disabled'"),
        ({"tags": ("3.2.x",)}, "--tags: .*'3.2.x'"),
        ({"skip_tags": ("level3",)}, "--skip-tags: .*'level3'"),
        ({"strict": ("3.2.2",)}, "--strict: '3.2.2' is no id or slug of a rule that EKS adapts or excepts"),
        ({"values": ("nonesuch=1",)}, "--value: unknown rule 'nonesuch'"),
        ({"values": ("ip_forwarding_disabled=1",)}, "takes no value"),
    ],
)
def test_names_are_checked_against_the_catalogue(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choice.selections(load(flags))


def test_names_of_either_default_benchmark_are_known_until_the_host_decides() -> None:
    chosen = choice.selections(load({"tags": ("level2", "always"), "only": ("section3",)}))
    assert {selection.benchmark for selection in chosen} == {"al2023-1.0.0", "al2-3.0.0"}


def test_only_what_was_set_becomes_a_variable_of_the_play() -> None:
    assert choice.extra_vars(load()) == {}
    assert choice.extra_vars(load({"level": "2", "only": ("3.2.1",)})) == {"cis_level": 2, "cis_only": ["3.2.1"]}


def test_an_excepted_rule_is_audited_but_not_counted_for_hardening() -> None:
    counts = choice.count(load({"only": ("3.2.1", "3.2.2")}), "al2023-1.0.0")
    assert counts == {"harden": 1, "audit": 2}
    assert choice.count(load({"only": ("3.2.1", "3.2.2"), "profile": "server"}), "al2023-1.0.0")["harden"] == 2
