"""``cisdriver run``: stages in a row, and going on where a run was stopped, killed or failed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cisdriver import account, processes, rundir, screens
from cisdriver import run as running
from cisdriver.errors import BakeError, DeployError, FindingsError, InterruptedRunError, UsageError, VerificationError
from cisdriver.session import Session
from driver_plays import (
    IMAGE,
    LAST_WORDS,
    Killed,
    Plays,
    bake_json,
    deploy_json,
    destroy_json,
    forget_the_end,
    latest,
    orphan,
    sandbox,
    settings,
    workloads_json,
)
from driver_support import check, document, fail, verification

GROUP = "workloads/al2023-level-1"
#: Settings that a run can be verified with.
GIVEN: dict[str, Any] = {"level": 1, "public_access_cidr": ["203.0.113.7/32"]}


@pytest.fixture
def good(plays: Plays) -> Plays:
    """Plays that end well."""
    plays.writes("bake", {"bake": bake_json(), "audit": document(), "verify": verification()})
    plays.writes("deploy", {"deploy": deploy_json()})
    plays.writes("workloads", workloads_json(check("dns")))
    return plays


def run(tmp_path: Path, fresh: bool = False, **given: Any) -> Session:
    return running.run(settings(tmp_path, **{**GIVEN, **given}), as_json=True, fresh=fresh)


def record(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((latest(tmp_path) / "run.json").read_text())
    return found


def notes(tmp_path: Path) -> list[str]:
    lines = (latest(tmp_path) / "events.jsonl").read_text().splitlines()
    return [event["text"] for event in map(json.loads, lines) if event["event"] == "note"]


def test_a_run_is_bake_deploy_and_verify_in_one_directory(tmp_path: Path, good: Plays) -> None:
    run(tmp_path)
    assert good.idents() == ["bake", "deploy", "workloads"]
    assert good.asked_for("deploy")["cluster_images"] == [
        {"group": "al2023-level-1", "id": IMAGE["id"], "baseline": False}
    ]
    directories = {str(play.extra_vars[key]) for play in good.asked for key in play.extra_vars if "run_dir" in key}
    assert directories == {str(latest(tmp_path))}
    found = record(tmp_path)
    assert (found["status"], found["exit_code"], found["pid"]) == ("done", 0, os.getpid())
    assert (found["region"], found["settings"]) == ("eu-central-1", GIVEN)
    for part in ("al2023-level-1", "the workloads run", "with accepted exceptions"):
        assert part in screens.summary(rundir.RunDir(latest(tmp_path)))


def test_a_run_that_is_done_is_not_continued(tmp_path: Path, good: Plays) -> None:
    first = run(tmp_path).run
    assert run(tmp_path).run != first
    assert good.idents() == ["bake", "deploy", "workloads"] * 2


def test_its_record_says_from_the_start_that_it_runs(tmp_path: Path, good: Plays) -> None:
    def look(run_dir: Path, _variables: Any) -> int:
        found = json.loads((run_dir / "run.json").read_text())
        assert (found["status"], found["exit_code"], found["pid"]) == ("running", None, os.getpid())
        assert found["settings"] == GIVEN
        return 2

    good.answers["bake"] = look
    with pytest.raises(BakeError):
        run(tmp_path)


@pytest.mark.parametrize(
    ("stage", "again"),
    [
        ("bake", ["sweep", "bake", "deploy", "workloads"]),
        ("deploy", ["deploy", "workloads"]),
        ("workloads", ["workloads"]),
    ],
)
def test_a_killed_run_goes_on_with_the_first_stage_that_is_not_done(
    tmp_path: Path, good: Plays, stage: str, again: list[str]
) -> None:
    answer = good.answers[stage]
    good.is_killed(stage)
    with pytest.raises(Killed):
        run(tmp_path)
    first = latest(tmp_path)
    forget_the_end(first)
    good.asked.clear()
    good.answers[stage] = answer
    run(tmp_path)
    assert good.idents() == again
    assert latest(tmp_path) == first
    found = record(tmp_path)
    assert (found["status"], found["id"]) == ("done", first.name)
    assert (found["bake"]["image"], found["deploy"]["status"]) == (IMAGE, "done")
    [note] = notes(tmp_path)
    assert note.startswith(f"Continue run {first.name} of these settings:")
    assert f"next is {'verify' if stage == 'workloads' else stage}" in note
    assert (f"the bake of {IMAGE['id']}" in note) == (stage != "bake")


@pytest.mark.parametrize("text", [json.dumps(bake_json("failed", image=None)), '{"status": "do', ""])
def test_a_stage_is_done_by_its_own_json_alone(tmp_path: Path, good: Plays, text: str) -> None:
    """Neither by run.json, nor by files of other stages, nor by a JSON that says anything but done."""
    good.writes("deploy", {"deploy": deploy_json("failed", reason="a quota")}, rc=2)
    with pytest.raises(DeployError):
        run(tmp_path)
    good.asked.clear()
    (latest(tmp_path) / "bake.json").write_text(text)
    (latest(tmp_path) / "workloads").mkdir()
    (latest(tmp_path) / f"{GROUP}.json").write_text("{}")
    good.writes("deploy", {"deploy": deploy_json()})
    run(tmp_path)
    told = text.startswith('{"stage"')  # a bake that says that it failed has swept up itself
    assert good.idents() == [*([] if told else ["sweep"]), "bake", "deploy", "workloads"]


def test_what_a_half_done_bake_left_is_swept_by_its_run_id_and_its_files_are_not_read(
    tmp_path: Path, good: Plays
) -> None:
    answer = good.answers["bake"]

    def half(run_dir: Path, _variables: Any) -> int:
        (run_dir / "provision.json").write_text('{"stage": "gate"}')
        (run_dir / "audit.json").write_text(json.dumps(document(fail("3.2.2"))))
        raise Killed

    good.answers["bake"] = half
    with pytest.raises(Killed):
        run(tmp_path)
    forget_the_end(latest(tmp_path))

    def swept(run_dir: Path, variables: Any) -> int:
        assert variables["image_run_id"] == run_dir.name
        assert variables["image_sweep_finished"] is True
        assert (run_dir / "provision.json").exists()
        return 0

    def fresh(run_dir: Path, variables: Any) -> int:
        assert not (run_dir / "provision.json").exists()
        return answer(run_dir, variables)

    good.answers |= {"sweep": swept, "bake": fresh}
    run(tmp_path)
    assert (latest(tmp_path) / "attempts" / "1" / "provision.json").exists()
    assert record(tmp_path)["results"][0]["unaccepted"] == 0


def test_a_sweep_that_fails_stops_the_run_with_the_tag(tmp_path: Path, good: Plays) -> None:
    good.is_killed("bake")
    with pytest.raises(Killed):
        run(tmp_path)
    forget_the_end(latest(tmp_path))
    good.fails("sweep", "no")
    with pytest.raises(BakeError, match="not everything could be deleted") as error:
        run(tmp_path)
    assert f"cisdriver:run-id={latest(tmp_path).name}" in error.value.remedy


def test_a_failed_stage_ends_the_run_and_is_tried_again(tmp_path: Path, good: Plays) -> None:
    good.writes("workloads", workloads_json(check("dns", "fail")))
    with pytest.raises(VerificationError, match="al2023-level-1: 1 of 1 workloads fails"):
        run(tmp_path)
    assert (record(tmp_path)["status"], record(tmp_path)["exit_code"]) == ("failed", 6)
    good.asked.clear()
    good.writes("workloads", workloads_json(check("dns"), group="other"))
    run(tmp_path)
    assert good.idents() == ["workloads"]
    assert [one["group"] for one in record(tmp_path)["workloads"]] == ["other"]  # what failed before is gone


def test_an_interrupted_run_is_continued(tmp_path: Path, good: Plays) -> None:
    def interrupted(_run_dir: Path, _variables: Any) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 130

    good.answers["deploy"] = interrupted
    with pytest.raises(InterruptedRunError, match="AWS goes on") as error:
        run(tmp_path)
    assert "`cisdriver run` again" in error.value.remedy
    good.writes("deploy", {"deploy": deploy_json()})
    good.asked.clear()
    run(tmp_path)
    assert good.idents() == ["deploy", "workloads"]


def test_fresh_starts_anew_and_sweeps_what_is_given_up(tmp_path: Path, good: Plays) -> None:
    answer = good.answers["bake"]
    good.is_killed("bake")
    with pytest.raises(Killed):
        run(tmp_path)
    first = latest(tmp_path)
    forget_the_end(first)
    good.answers["bake"] = answer
    good.asked.clear()
    run(tmp_path, fresh=True)
    assert latest(tmp_path) != first
    assert good.idents() == ["sweep", "bake", "deploy", "workloads"]
    assert good.asked_for("sweep")["image_run_id"] == first.name
    assert good.asked_for("bake")["image_run_id"] == latest(tmp_path).name
    assert notes(tmp_path) == [f"Start anew; run {first.name} is given up."]


@pytest.mark.parametrize("given", [{"level": 2}, {"region": "us-east-1"}, {"cluster": "other"}])
def test_other_settings_are_another_run(tmp_path: Path, good: Plays, given: dict[str, Any]) -> None:
    answer = good.answers["bake"]
    good.is_killed("bake")
    with pytest.raises(Killed):
        run(tmp_path)
    first = latest(tmp_path)
    forget_the_end(first)
    good.answers["bake"] = answer
    other = running.unfinished(settings(tmp_path, **{**GIVEN, **given}), given.get("region", "eu-central-1"))
    assert other == (None, f"Run {first.name} of other settings is unfinished; the same settings would continue it.")
    assert running.unfinished(settings(tmp_path, **GIVEN, verbose=2), "eu-central-1")[0] == rundir.RunDir(first)


def test_a_run_whose_cluster_was_destroyed_is_not_continued(tmp_path: Path, good: Plays) -> None:
    good.is_killed("workloads")
    with pytest.raises(Killed):
        run(tmp_path)
    forget_the_end(latest(tmp_path))
    time.sleep(1.1)  # runs are sorted by the second they began in
    gone = rundir.create(tmp_path / ".cisdriver")
    gone.write("destroy", destroy_json("done"))
    gone.write("run", {"verb": "destroy", "settings": {}, "region": "us-east-1"})
    assert running.unfinished(settings(tmp_path, **GIVEN), "eu-central-1")[0] is not None
    gone.write("run", {"verb": "destroy", "settings": {}, "region": "eu-central-1"})
    assert running.unfinished(settings(tmp_path, **GIVEN), "eu-central-1") == (None, "")
    gone.write("destroy", destroy_json("failed"))
    assert running.unfinished(settings(tmp_path, **GIVEN), "eu-central-1")[0] is not None


def test_a_run_whose_sandbox_has_ended_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rundir.create(tmp_path / ".cisdriver")
    about = {"verb": "run", "status": "running", "region": "eu-central-1", "sandbox": "http://127.0.0.1:1"}
    first.write("run", {**about, "settings": {"level": 1, "sandbox": True}})
    given = settings(tmp_path, level=1, sandbox=True)
    monkeypatch.setattr(account, "sandbox_class", lambda: sandbox("http://127.0.0.1:1"))
    assert running.unfinished(given, "eu-central-1") == (first, "")
    for url in ("", "http://127.0.0.1:2"):
        monkeypatch.setattr(account, "sandbox_class", lambda url=url: sandbox(url))
        found, note = running.unfinished(given, "eu-central-1")
        assert found is None
        assert "its sandbox has ended" in note


def _hold(path: Path, ready: Any) -> None:
    with rundir.held(rundir.RunDir(path)):
        ready.set()
        time.sleep(60)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_that_another_driver_is_at_is_refused(tmp_path: Path, good: Plays, fresh: bool) -> None:
    good.is_killed("deploy")
    with pytest.raises(Killed):
        run(tmp_path)
    forget_the_end(latest(tmp_path))
    first = latest(tmp_path)
    forked = multiprocessing.get_context("fork")
    ready = forked.Event()
    other = forked.Process(target=_hold, args=(first, ready))
    other.start()
    try:
        assert ready.wait(10)
        good.asked.clear()
        with pytest.raises(UsageError, match=f"process .* is at work on run {first.name}"):
            run(tmp_path, fresh=fresh)
        assert not good.asked
    finally:
        other.kill()
        other.join()
    with rundir.held(rundir.RunDir(first)):
        pass  # a killed process holds nothing


def test_what_outlived_a_killed_driver_is_ended_before_anything_else(tmp_path: Path, good: Plays) -> None:
    answer = good.answers["deploy"]
    good.is_killed("deploy")
    with pytest.raises(Killed):
        run(tmp_path)
    forget_the_end(latest(tmp_path))
    env = {**os.environ, "CISDRIVER_EVENTS": str(latest(tmp_path) / "events.jsonl")}
    bystander = subprocess.Popen(["sleep", "60"], env=env)  # one of ours is not an orphan
    try:
        left = orphan(tmp_path, latest(tmp_path))
        assert left in processes.running()

        def after(run_dir: Path, variables: Any) -> int:
            assert left not in processes.running()
            assert bystander.poll() is None
            return answer(run_dir, variables)

        good.answers["deploy"] = after
        run(tmp_path)
        stages = {stage["label"]: stage["ok"] for stage in record(tmp_path)["stages"]}
        assert stages["Stop what the killed run left"] is True
        assert LAST_WORDS in (latest(tmp_path) / "events.jsonl").read_text()
    finally:
        bystander.kill()
        bystander.wait()


def test_an_image_with_findings_that_is_kept_is_deployed_and_the_run_ends_with_1(tmp_path: Path, good: Plays) -> None:
    good.writes("bake", {"bake": bake_json("findings"), "audit": document(fail("3.2.2"))}, rc=0)
    with pytest.raises(FindingsError, match="1 finding beyond"):
        run(tmp_path, keep_failed=True)
    assert good.idents() == ["bake", "deploy", "workloads"]
    assert record(tmp_path)["status"] == "findings"


def test_findings_without_an_image_end_the_run(tmp_path: Path, good: Plays) -> None:
    good.writes("bake", {"bake": bake_json("findings", image=None), "audit": document(fail("3.2.2"))}, rc=2)
    with pytest.raises(FindingsError, match="1 finding beyond"):
        run(tmp_path)
    assert good.idents() == ["bake"]


def test_the_times_of_stages_done_before_still_count(tmp_path: Path, good: Plays) -> None:
    good.is_killed("deploy")
    with pytest.raises(Killed):
        run(tmp_path)
    forget_the_end(latest(tmp_path))
    with (latest(tmp_path) / "events.jsonl").open("a") as file:
        end = {"v": 1, "event": "stage_end", "stage": "build", "label": "Build", "seconds": 70.0, "ok": True}
        file.write(json.dumps(end) + "\n")
    good.writes("deploy", {"deploy": deploy_json()})
    run(tmp_path)
    assert record(tmp_path)["stages"][0] == {"stage": "build", "label": "Build", "seconds": 70.0, "ok": True}
    assert 70 <= record(tmp_path)["seconds"] < 90


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, r"verify could not reach the cluster(.|\n)*--public-access-cidr(.|\n)*--vpc-id"),
        ({**GIVEN, "nat": "none"}, r"verify could not run its workloads(.|\n)*--workload-image and --kube-bench-image"),
        ({**GIVEN, "nat": "none", "workload_image": "a/busybox:1"}, "verify could not run its workloads"),
    ],
)
def test_what_could_not_be_verified_is_refused_before_the_bake(
    tmp_path: Path, good: Plays, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        running.run(settings(tmp_path, **given), as_json=True, fresh=False)
    assert not good.asked
    assert not (tmp_path / ".cisdriver").exists()


@pytest.mark.parametrize(
    "given",
    [
        {"existing": True},
        {"vpc_id": "vpc-00000001", "subnet_ids": ["subnet-00000001"]},
        {"sandbox": True, "nat": "none"},
        {**GIVEN, "nat": "none", "workload_image": "a/busybox:1", "kube_bench_image": "a/kube-bench:1"},
    ],
)
def test_what_may_be_reached_is_not_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    running.check(settings(tmp_path, **given))


def test_another_image_cannot_be_named(tmp_path: Path, good: Plays) -> None:
    with pytest.raises(UsageError, match="run deploys the image that it bakes"):
        run(tmp_path, image=["ami-00000001"])
    assert not good.asked


def test_the_end_of_a_continued_run_is_printed(tmp_path: Path, good: Plays, capsys: pytest.CaptureFixture[str]) -> None:
    good.is_killed("workloads")
    with pytest.raises(Killed):
        run(tmp_path)
    forget_the_end(latest(tmp_path))
    good.writes("workloads", workloads_json(check("dns")))
    capsys.readouterr()
    given = settings(tmp_path, **GIVEN)
    with screens.ended(False, given.run_dir):
        running.run(given, as_json=False, fresh=False)
    out = capsys.readouterr().out
    assert "Continue run" in out
    assert "the workloads run" in out
