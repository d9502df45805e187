"""``cisdriver bake``: what it hands to the role, and what the role's result means."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cisdriver import account, bake, rundir, runner
from cisdriver.errors import BakeError, FindingsError, InterruptedRunError, UsageError, VerificationError
from cisdriver.settings import Settings
from cisdriver.stages import Tally
from driver_support import check, document, fail, verification

IMAGE = {"id": "ami-0123456789abcdef0", "name": "mine"}


def session(tmp_path: Path, **given: Any) -> Any:
    """As much of a Session as the functions under test look at."""
    run = rundir.create(tmp_path)
    return SimpleNamespace(verb="bake", run=run, settings=Settings(**given), tally=Tally({}), facts={})


def outcome(tmp_path: Path, rc: int = 0, interrupted: bool = False) -> runner.Outcome:
    log = tmp_path / "stdout"
    log.write_text("PLAY\n[ERROR]: the role is gone\n")
    return runner.Outcome(rc, interrupted, log)


def test_what_is_set_is_handed_on_and_nothing_else(tmp_path: Path) -> None:
    now = session(tmp_path, level=2, name="mine", encrypt=False, tag={"team": "a"}, benchmark="al2-3.0.0")
    play = bake._play(now, account.Account("eu-central-1", {"AWS_REGION": "eu-central-1"}))
    assert play.playbook == "cisdriver.amazon_linux.bake"
    expected = {
        "cis_benchmark": "al2-3.0.0",
        "cis_level": 2,
        "image_name": "mine",
        "image_encrypt": False,
        "image_os": "al2",
        "image_run_id": now.run.id,
        "image_run_dir": str(now.run.path),
        "image_region": "eu-central-1",
        "image_base": "ssm",
        "image_session_manager": False,
        "image_keep_failed": False,
        "image_tags": {"team": "a"},
    }
    assert play.extra_vars == expected


def test_every_variable_is_one_that_the_role_knows(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    from cisdriver import collection

    specs = yaml.safe_load((collection.ROOT / "roles/image/meta/argument_specs.yml").read_text())["argument_specs"]
    now = session(
        tmp_path, kubernetes_version="1.33", publish_parameter="/a", kms_key_id="k", instance_type="m6i.large"
    )
    where = account.Account("eu-central-1", variables={"image_ssh_host": "127.0.0.1", "image_ssh_port": 22})
    assert set(bake._play(now, where).extra_vars) <= set(specs["main"]["options"])
    assert set(bake._identity(now.run, where)) <= set(specs["sweep"]["options"])


def test_partitions_and_sources_are_handed_on_where_they_are_set(tmp_path: Path) -> None:
    where = account.Account("eu-central-1")
    given = {"partitions": False, "partitions_size": 30, "ssh_source_cidr": ["10.0.0.0/8", "10.1.2.3"]}
    handed = bake._play(session(tmp_path, **given), where).extra_vars
    assert (handed["image_partitions"], handed["image_partitions_size"]) == (False, 30)
    assert handed["image_ssh_source_cidrs"] == ["10.0.0.0/8", "10.1.2.3/32"]
    assert bake.in_flags("image_partitions=false") == "--partitions=false"


@pytest.mark.parametrize("given", [{}, {"level": 1}, {"level": 2, "partitions": False}])
def test_a_size_without_a_volume_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no second volume"):
        bake._volumes(Settings(**given, partitions_size=50))


@pytest.mark.parametrize("given", [{"level": 2}, {"level": 1, "partitions": True}])
def test_a_size_with_a_volume_is_taken(given: dict[str, Any]) -> None:
    bake._volumes(Settings(**given, partitions_size=50))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "ssm"),
        ({"base": "ami-0123"}, "ami-0123"),
        ({"base": "amazon-eks-*", "base_owner": "amazon"}, {"owner": "amazon", "name": "amazon-eks-*"}),
    ],
)
def test_a_base_has_three_forms(given: dict[str, str], expected: Any) -> None:
    assert bake.base(Settings(**given)) == expected


@pytest.mark.parametrize("given", [{"base": "amazon-eks-*"}, {"base_owner": "self"}])
def test_a_base_that_is_half_named_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--base"):
        bake.base(Settings(**given))


def test_a_bake_without_findings_is_done(tmp_path: Path) -> None:
    now = session(tmp_path)
    now.run.write("audit", document())
    bake._judge(now, outcome(tmp_path), {"status": "done", "image": IMAGE})


@pytest.mark.parametrize(("image", "words"), [(None, "No image is registered"), (IMAGE, "registered nevertheless")])
def test_findings_are_exit_1_and_say_whether_there_is_an_image(tmp_path: Path, image: Any, words: str) -> None:
    now = session(tmp_path)
    now.run.write("audit", document(fail("3.2.2")))
    with pytest.raises(FindingsError, match=f"1 finding beyond(.|\n)*{words}"):
        bake._judge(now, outcome(tmp_path, rc=0 if image else 2), {"status": "findings", "image": image})


@pytest.mark.parametrize(
    ("result", "words"),
    [({"status": "failed", "reason": "the name is taken"}, "the name is taken"), ({}, "the role is gone")],
)
def test_a_bake_that_failed_is_exit_3_with_the_reason(tmp_path: Path, result: dict[str, Any], words: str) -> None:
    with pytest.raises(BakeError, match=words):
        bake._judge(session(tmp_path), outcome(tmp_path, rc=2), result)


def test_a_node_that_would_not_serve_is_exit_6_and_names_the_checks(tmp_path: Path) -> None:
    now = session(tmp_path, keep_failed=True)
    now.run.write("verify", verification(check("forwarding", "fail"), check("units_valid", "error"), check("fstab")))
    now.run.write("provision", {"stage": "verify after the reboot"})
    with pytest.raises(VerificationError) as error:
        bake._judge(now, outcome(tmp_path, rc=2), {"status": "verification_failed", "image": None})
    assert error.value.exit_code == 6
    assert error.value.message.splitlines() == [
        "the bake failed: verify after the reboot: 2 of 3 checks fail; the node would not serve",
        "  forwarding: expected 0, found 1",
        "  units_valid (could not look): cannot run sysctl",
    ]
    assert "No image is registered" in error.value.remedy


def test_a_verification_that_could_not_run_is_exit_6_with_its_reason(tmp_path: Path) -> None:
    result = {"status": "verification_failed", "reason": "verify: Missing sudo password"}
    with pytest.raises(VerificationError, match="the bake failed: verify: Missing sudo password"):
        bake._judge(session(tmp_path), outcome(tmp_path, rc=2), result)


def test_the_roles_variables_are_told_as_flags() -> None:
    assert bake.in_flags("set image_base or image_kubernetes_version") == "set --base or --kubernetes-version"
    assert bake.in_flags("image_other, my_image_base") == "image_other, my_image_base"


def test_an_interrupted_bake_names_the_image_that_was_there_already(tmp_path: Path) -> None:
    stopped = outcome(tmp_path, rc=130, interrupted=True)
    with pytest.raises(InterruptedRunError, match="everything that was started"):
        bake._judge(session(tmp_path), stopped, {})
    with pytest.raises(InterruptedRunError, match=IMAGE["id"]):
        bake._judge(session(tmp_path), stopped, {"status": "done", "image": IMAGE})


def test_the_sandbox_without_moto_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "moto", None)
    with pytest.raises(UsageError, match=r"pip install 'cisdriver\[sandbox\]'"):
        account.sandbox_class()
