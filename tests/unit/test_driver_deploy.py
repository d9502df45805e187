"""``deploy``, ``destroy`` and ``verify --cluster``: what they hand to the roles, and what the results mean."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from cisdriver import (
    account,
    aws_errors,
    collection,
    deploy,
    destroy,
    earlier,
    processes,
    progress,
    rundir,
    screens,
    workloads,
)
from cisdriver.errors import DeployError, InterruptedRunError, UsageError, VerificationError
from cisdriver.session import Session
from driver_plays import (
    COST,
    IMAGE,
    REGION,
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
from driver_support import check, document, verification


def baked(tmp_path: Path, about: dict[str, Any] | None = None, **more: Any) -> rundir.RunDir:
    """A finished bake in the run directory."""
    run = rundir.create(tmp_path / ".cisdriver")
    run.write("bake", bake_json(**more))
    run.write("audit", document(level=2))
    run.write("run", {"verb": "bake", "settings": {}, **(about or {})})
    return run


def shown(run: rundir.RunDir) -> str:
    """The last screen, without its colours."""
    return click.unstyle(screens.summary(run))


def test_the_newest_bake_of_the_region_is_deployed(tmp_path: Path, plays: Plays) -> None:
    baked(tmp_path)
    baked(tmp_path, region="us-east-1", image={"id": "ami-other"})
    baked(tmp_path, status="failed", image=None)
    plays.writes("deploy", {"deploy": deploy_json()})
    deploy.deploy(settings(tmp_path, nat="three", node_count=3, tag={"team": "a"}), as_json=True, dry_run=False)
    handed = dict(plays.asked_for("deploy"))
    assert handed.pop("cluster_run_id") == latest(tmp_path).name
    assert handed.pop("cluster_run_dir") == str(latest(tmp_path))
    assert handed == {
        "cluster_name": "cisdriver",
        "cluster_region": REGION,
        "cluster_images": [{"group": "al2023-level-2", "id": IMAGE["id"], "baseline": False}],
        "cluster_dry_run": False,
        "cluster_nat": "three",
        "cluster_nodes": {"min": 3, "max": 3, "desired": 3},
        "cluster_tags": {"team": "a"},
    }
    summed = json.loads((latest(tmp_path) / "run.json").read_text())
    assert (summed["status"], summed["deploy"]["cluster"]["name"]) == ("done", "cisdriver")


def test_images_may_be_named_with_their_groups_and_a_baseline_beside_them(tmp_path: Path, plays: Plays) -> None:
    plays.writes("deploy", {"deploy": deploy_json("dry_run")})
    baked(tmp_path, image={"id": "ami-00000002"})
    given = settings(tmp_path, image=["blue=ami-00000001", "ami-00000002"], baseline=True)
    deploy.deploy(given, as_json=True, dry_run=True)
    assert plays.asked_for("deploy")["cluster_images"] == [
        {"group": "blue", "id": "ami-00000001", "baseline": False},
        {"group": "al2023-level-2", "id": "ami-00000002", "baseline": False},
        {"group": "baseline", "id": "", "baseline": True},
    ]
    assert plays.asked_for("deploy")["cluster_dry_run"] is True


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no image is named, and no bake for eu-central-1"),
        ({"image": ["a=ami-00000001", "a=ami-00000002"]}, "two images are for group a"),
        ({"image": ["ami-00000001"]}, "no bake of ami-00000001 is in .*/runs, so its node group needs a name"),
        ({"image": ["baseline=ami-00000001"]}, "the group of --baseline"),
        ({"vpc_id": "vpc-00000001"}, "--vpc-id is given without --subnet-ids"),
        ({"subnet_ids": ["subnet-00000001"]}, "--subnet-ids is given without --vpc-id"),
        ({"vpc_id": "vpc-00000001", "subnet_ids": ["subnet-00000001"], "nat": "one"}, "--nat is for a network that"),
        ({"vpc_id": "vpc-00000001", "existing": True}, "--existing takes the network .* and --vpc-id names one"),
        ({"nat": "one", "existing": True}, "--existing takes the network .* and --nat names one"),
    ],
)
def test_what_cannot_be_deployed_is_refused_before_anything_starts(
    tmp_path: Path, plays: Plays, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        deploy.deploy(settings(tmp_path, **given), as_json=True, dry_run=False)
    assert not plays.asked
    assert not (tmp_path / ".cisdriver").exists()


def at(tmp_path: Path, verb: str, about: dict[str, Any] | None = None, **documents: Any) -> rundir.RunDir:
    """An earlier run that was about a cluster; each is newer than those before."""
    base = tmp_path / ".cisdriver" / "runs"
    run = rundir.RunDir(base / f"{len(list(base.glob('*'))):04}")
    run.path.mkdir(parents=True)
    run.write("run", {"verb": verb, "region": REGION, "settings": {}, **(about or {})})
    for name, found in documents.items():
        run.write(name, found)
    return run


def tried(verb: str, tmp_path: Path, **given: Any) -> Session:
    """Deploy or destroy."""
    if verb == "deploy":
        return deploy.deploy(settings(tmp_path, image=["a=ami-00000001"], **given), as_json=True, dry_run=False)
    return destroy.destroy(settings(tmp_path, **given), as_json=True, yes=True, images=True)


@pytest.mark.parametrize("before", ["deploy", "destroy", "run", "verify"])
@pytest.mark.parametrize("verb", ["deploy", "destroy"])
def test_while_another_driver_is_at_the_cluster_it_is_refused(
    tmp_path: Path, plays: Plays, verb: str, before: str
) -> None:
    run = at(tmp_path, before)
    with rundir.held(run), pytest.raises(UsageError, match=f"is at work on run {run.id}"):
        tried(verb, tmp_path)
    assert not plays.asked
    assert len(list(run.path.parent.iterdir())) == 1


def test_one_that_began_at_the_same_time_is_seen(tmp_path: Path) -> None:
    first, second = at(tmp_path, "deploy"), at(tmp_path, "destroy")
    now: Any = SimpleNamespace(settings=settings(tmp_path), run=second)
    with rundir.held(first), rundir.held(second), pytest.raises(UsageError, match=f"run {first.id}"):
        earlier.settle(now, REGION)


OTHERS = [
    {"settings": {"cluster": "other"}},
    {"settings": {"sandbox": True}},
    {"region": "us-east-1"},
    {"verb": "bake"},
]


@pytest.mark.parametrize("about", OTHERS)
def test_who_is_at_another_cluster_is_no_hindrance(tmp_path: Path, plays: Plays, about: dict[str, Any]) -> None:
    plays.writes("deploy", {"deploy": deploy_json()})
    with rundir.held(at(tmp_path, "deploy", about)):
        tried("deploy", tmp_path)
    assert plays.idents() == ["deploy"]


@pytest.mark.parametrize("verb", ["deploy", "destroy"])
def test_what_outlived_a_killed_driver_is_ended_first_and_that_of_another_cluster_is_not(
    tmp_path: Path, plays: Plays, verb: str
) -> None:
    left = orphan(tmp_path, at(tmp_path, "deploy", {"status": "running"}).path)
    other = orphan(tmp_path, at(tmp_path, "deploy", {"settings": {"cluster": "other"}}).path)
    seen = []

    def look(run_dir: Path, _variables: Any) -> int:
        seen.append((left in processes.running(), other in processes.running()))
        found = {"deploy": deploy_json(), "destroy": destroy_json("planned", stacks=[])}
        (run_dir / f"{verb}.json").write_text(json.dumps(found[verb]))
        return 0

    plays.answers |= {"deploy": look, "plan": look}
    try:
        now = tried(verb, tmp_path)
    finally:
        os.kill(other, signal.SIGKILL)
    assert seen == [(False, True)]
    assert now.tracker.stages[0].label == "Stop what the killed run left"


def test_a_dry_run_ends_nothing(tmp_path: Path, plays: Plays) -> None:
    left = orphan(tmp_path, at(tmp_path, "deploy").path)
    plays.writes("deploy", {"deploy": deploy_json("dry_run")})
    try:
        deploy.deploy(settings(tmp_path, image=["a=ami-00000001"]), as_json=True, dry_run=True)
        assert left in processes.running()
    finally:
        os.kill(left, signal.SIGKILL)


def group(name: str, image: str, baseline: bool = False) -> dict[str, Any]:
    return {"name": name, "image": {"id": image}, "baseline": baseline, "desired": 2}


def test_destroying_images_knows_those_whose_stacks_are_gone(tmp_path: Path, plays: Plays) -> None:
    """By the newest deployment, and by the plan of a destroy that was killed: nothing else names them any more."""
    groups = [group("a", "ami-a"), group("baseline", "ami-of-eks", baseline=True)]
    at(tmp_path, "deploy", deploy=deploy_json(node_groups=[group("a", "ami-of-the-destroyed")]))
    at(tmp_path, "destroy", destroy=destroy_json("done"))
    at(tmp_path, "deploy", deploy=deploy_json(node_groups=[group("a", "ami-before-the-update")]))
    at(tmp_path, "run", deploy=deploy_json(node_groups=groups))
    at(tmp_path, "deploy", deploy=deploy_json("failed", node_groups=[group("a", "ami-that-failed")]))
    at(tmp_path, "deploy", {"region": "us-east-1"}, deploy=deploy_json(node_groups=[group("a", "ami-elsewhere")]))
    killed = [{"id": "ami-b", "name": "b", "snapshots": []}]
    plays.writes("plan", {"destroy": destroy_json("planned", images=killed)})
    plays.is_killed("destroy")
    with pytest.raises(Killed):
        tried("destroy", tmp_path)
    assert plays.asked_for("plan")["cluster_destroy_image_ids"] == ["ami-a"]
    forget_the_end(latest(tmp_path))
    here = account.Account(REGION)
    assert earlier.images(settings(tmp_path), here) == ["ami-a", "ami-b"]
    rundir.RunDir(latest(tmp_path)).write("destroy", destroy_json("done"))
    assert earlier.images(settings(tmp_path), here) == []


def test_without_images_none_is_handed_on(tmp_path: Path, plays: Plays) -> None:
    at(tmp_path, "deploy", deploy=deploy_json())
    plays.writes("plan", {"destroy": destroy_json("planned")})
    plays.writes("destroy", {"destroy": destroy_json("done")})
    destroy.destroy(settings(tmp_path), as_json=True, yes=True, images=False)
    assert plays.idents() == ["plan", "destroy"]
    assert not any("cluster_destroy_image_ids" in play.extra_vars for play in plays.asked)


def test_the_node_groups_that_were_deployed_are_verified_and_no_others(tmp_path: Path, plays: Plays) -> None:
    stacks = [
        {"name": f"cisdriver-{name}", "status": status, "changed": False}
        for name, status in {
            "network": "CREATE_COMPLETE",
            "nodes-new": "CREATE_COMPLETE",
            "nodes-of-before": "UPDATE_ROLLBACK_COMPLETE",
            "nodes-never-made": "ROLLBACK_COMPLETE",
        }.items()
    ]
    at(tmp_path, "deploy", deploy=deploy_json(stacks=stacks, node_groups=[group("new", "ami-a")]))
    at(tmp_path, "deploy", deploy=deploy_json("dry_run", node_groups=[group("planned", "ami-a")]))
    (at(tmp_path, "deploy").path / "deploy.json").write_text('{"status": "do')
    plays.writes("workloads", workloads_json(check("dns")))
    workloads.verify(settings(tmp_path), as_json=True)
    assert plays.asked_for("workloads")["workloads_groups"] == ["new", "of-before"]
    workloads.verify(settings(tmp_path, baseline=True), as_json=True)
    assert plays.asked_for("workloads")["workloads_groups"] == ["baseline", "new", "of-before"]
    workloads.verify(settings(tmp_path, cluster="other"), as_json=True)
    assert "workloads_groups" not in plays.asked_for("workloads")
    at(tmp_path, "destroy", destroy=destroy_json("done"))
    assert earlier.deployment(settings(tmp_path), account.Account(REGION)) == {}


def test_a_deployment_of_a_sandbox_that_has_ended_tells_nothing(tmp_path: Path) -> None:
    at(tmp_path, "deploy", {"settings": {"sandbox": True}, "sandbox": "http://127.0.0.1:1"}, deploy=deploy_json())
    given = settings(tmp_path, sandbox=True)
    assert earlier.deployment(given, account.Account(REGION, url="http://127.0.0.1:1"))["status"] == "done"
    assert earlier.deployment(given, account.Account(REGION, url="http://127.0.0.1:2")) == {}


def test_workloads_may_come_from_another_registry(tmp_path: Path, plays: Plays) -> None:
    plays.writes("workloads", workloads_json(check("dns")))
    workloads.verify(settings(tmp_path, workload_image="ecr/busybox:1", kube_bench_image="ecr/kb:1"), as_json=True)
    handed = plays.asked_for("workloads")
    assert (handed["workloads_image"], handed["workloads_kube_bench_image"]) == ("ecr/busybox:1", "ecr/kb:1")


def test_the_sandbox_deploys_only_what_was_baked_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_it = {"sandbox": "http://127.0.0.1:1", "settings": {"sandbox": True}}
    baked(tmp_path, in_it, image={"id": "ami-kept"})
    baked(tmp_path, {"settings": {"sandbox": True}}, image={"id": "ami-of-a-bake-whose-sandbox-ended"})
    baked(tmp_path, image={"id": "ami-of-aws"})
    given = settings(tmp_path, sandbox=True)
    monkeypatch.setattr(account, "sandbox_class", lambda: sandbox("http://127.0.0.1:1"))
    assert deploy.chosen(given, REGION)[0]["id"] == "ami-kept"
    assert deploy.chosen(settings(tmp_path), REGION)[0]["id"] == "ami-of-aws"
    for url in ("", "http://127.0.0.1:2"):
        monkeypatch.setattr(account, "sandbox_class", lambda url=url: sandbox(url))
        with pytest.raises(
            UsageError, match=r"no image to deploy in the sandbox(.|\n)*cisdriver run --level 1 --sandb"
        ):
            deploy.chosen(given, REGION)


def test_every_variable_is_one_that_the_roles_know(tmp_path: Path, plays: Plays) -> None:
    yaml = pytest.importorskip("yaml")
    plays.writes("deploy", {"deploy": deploy_json()})
    plays.writes("plan", {"destroy": destroy_json("planned")})
    plays.writes("destroy", {"destroy": destroy_json("done")})
    plays.writes("workloads", workloads_json(check("dns")))
    given = settings(
        tmp_path,
        image=["a=ami-00000001"],
        baseline=True,
        existing=True,
        kubernetes_version="1.33",
        public_access_cidr=["203.0.113.0/24"],
        admin=["arn:aws:iam::123456789012:role/Admin"],
        node_type=["m6i.large"],
        node_count=2,
        tag={"a": "b"},
        workload_image="a/busybox:1",
        kube_bench_image="a/kube-bench:1",
    )
    deploy.deploy(given, as_json=True, dry_run=False)
    network = {"vpc_id": "vpc-00000001", "subnet_ids": ["subnet-00000001"], "image": ["a=ami-00000001"]}
    deploy.deploy(settings(tmp_path, **network), as_json=True, dry_run=False)
    deploy.deploy(settings(tmp_path, image=["a=ami-00000001"], nat="none"), as_json=True, dry_run=False)
    destroy.destroy(settings(tmp_path), as_json=True, yes=True, images=True)
    workloads.verify(given, as_json=True)
    for play in plays.asked:
        role, entry = {
            "deploy": ("cluster", "main"),
            "plan": ("cluster", "destroy"),
            "destroy": ("cluster", "destroy"),
            "workloads": ("workloads", "main"),
            "clean": ("workloads", "clean"),
        }[play.ident]
        specs = yaml.safe_load((collection.ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())
        assert set(play.extra_vars) <= set(specs["argument_specs"][entry]["options"]), play.ident


#: AWS's words, a part of ours, and a part of the way out.
REFUSALS = (
    ("(ThrottlingException) when calling DescribeStacks: Rate exceeded", "no more requests", "Wait"),
    ("(ExpiredToken) The security token included in the request is expired", "have expired", "Sign in again"),
    ("stack c-network: NatEip1: The maximum number of addresses has been reached.", "a quota", "Service Quotas"),
    ("VcpuLimitExceeded - You have requested more vCPU capacity than your limit", "a quota", "Service Quotas"),
    ("Performing this operation would exceed the limit of 5 NAT gateways", "a quota", "Service Quotas"),
    ("You've reached your quota for maximum Fleet Requests for this account.", "a quota", "Service Quotas"),
    ("InvalidParameterException: unsupported Kubernetes version 1.24", "not offer this version", "--kubernetes-v"),
    ("EKS does not support creating control plane instances in us-east-1e", "two or more zones", "--subnet-ids"),
    ("Subnets specified must be in at least two different AZs", "two or more zones", "--subnet-ids"),
    ("does not currently have sufficient capacity to support the cluster", "two or more zones", "--subnet-ids"),
    ("We currently do not have sufficient m6i.large capacity in the zone", "no such instance", "--node-type"),
    ("NodeCreationFailure: Instances failed to join the kubernetes cluster", "did not join", "journalctl"),
    ("User: a is not authorized to perform: eks:CreateCluster", "lacks a permission", "permissions.md"),
    ("(InvalidClientTokenId): The security token is invalid.", "does not accept these", "get-caller-identity"),
)


@pytest.mark.parametrize(("reason", "name", "way_out"), REFUSALS)
def test_what_aws_refuses_is_one_clear_message_with_the_way_out(
    tmp_path: Path, plays: Plays, reason: str, name: str, way_out: str
) -> None:
    plays.writes("deploy", {"deploy": deploy_json("failed", reason=reason)}, rc=2)
    with pytest.raises(DeployError) as error:
        deploy.deploy(settings(tmp_path, image=["a=ami-00000001"]), as_json=True, dry_run=False)
    assert error.value.message.startswith("the deployment failed: ")
    assert name in error.value.message.split(": ")[1]
    assert reason in error.value.message
    assert way_out in error.value.remedy
    assert "{again}" not in error.value.remedy


def test_an_unknown_refusal_stands_in_awss_own_words() -> None:
    assert aws_errors.explain("something new", "again") == ("something new", "")


def test_a_role_that_wrote_no_result_fails_with_the_task_that_did(tmp_path: Path, plays: Plays) -> None:
    plays.fails("deploy", "cluster_nat is wrong")
    with pytest.raises(DeployError, match="localhost: Look: --nat is wrong") as error:
        deploy.deploy(settings(tmp_path, image=["a=ami-00000001"]), as_json=True, dry_run=False)
    assert error.value.exit_code == 4
    assert "goes on where it stopped" in error.value.remedy


def test_a_dry_run_prints_what_would_change_and_what_it_costs(tmp_path: Path, plays: Plays) -> None:
    changes = [
        {
            "stack": "cisdriver-network",
            "action": "Add",
            "resource": "Vpc",
            "type": "AWS::EC2::VPC",
            "replacement": None,
        },
        {"stack": "cisdriver-nodes-a", "action": "Modify", "resource": "Template"}
        | {"type": "AWS::EC2::LaunchTemplate", "replacement": "True"},
    ]
    plays.writes("deploy", {"deploy": deploy_json("dry_run", changes=changes)})
    now = deploy.deploy(settings(tmp_path, image=["a=ami-00000001"]), as_json=True, dry_run=True)
    text = shown(now.run)
    for part in ("cisdriver-network", "+ AWS::EC2::VPC", "~ AWS::EC2::LaunchTemplate", "is replaced"):
        assert part in text
    for part in ("about 0.30 USD per hour", "2 x m6i.large", "0.2000", "on demand"):
        assert part in text
    assert "sandbox" not in text


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (None, "Cost: not known"),
        ({"currency": "USD", "per_hour": None, "lines": [], "note": "no answer"}, "Cost: not known: no answer"),
        ({**COST, "per_hour": None, "lines": [{"what": "NAT", "count": 1, "per_hour": None}]}, "1 x NAT"),
    ],
)
def test_without_prices_it_says_so(tmp_path: Path, plays: Plays, cost: Any, words: str) -> None:
    plays.writes("deploy", {"deploy": deploy_json("dry_run", cost=cost)})
    now = deploy.deploy(settings(tmp_path, image=["a=ami-00000001"]), as_json=True, dry_run=True)
    assert words in shown(now.run)
    assert "Nothing would change." in shown(now.run)


def test_a_deployment_in_the_sandbox_says_what_that_does_not_show(tmp_path: Path) -> None:
    run = rundir.create(tmp_path)
    about = {"verb": "deploy", "seconds": 3, "deploy": deploy_json(), "settings": {"sandbox": True}}
    run.write("run", about)
    text = shown(run)
    for part in ("Kubernetes 1.33  https://k", "al2023-level-1", "2 x ami-0123456789abcdef0", "2 of 2 stacks changed"):
        assert part in text
    assert "What the sandbox cannot show" in text
    assert "quotas" in text
    run.write("run", {**about, "settings": {}})
    assert "sandbox" not in shown(run)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "screen", lambda _as_json, _verbose: progress.LineScreen())


def test_destroying_shows_what_there_is_asks_and_deletes(
    tmp_path: Path, plays: Plays, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch)
    questions: list[str] = []
    monkeypatch.setattr(Session, "ask", lambda _self, question: not questions.append(question))
    image = {"id": "ami-1", "name": "mine", "snapshots": ["snap-1"]}
    other = {"kind": "volume", "id": "vol-1", "what": "of a claim"}
    older = {"kind": "volume", "id": "vol-0", "what": "made before it"}
    plays.writes("plan", {"destroy": destroy_json("planned", images=[image], others=[other], kept=[older])})
    plays.writes("destroy", {"destroy": destroy_json("done")})
    destroy.destroy(settings(tmp_path), as_json=False, yes=False, images=True)
    assert questions == ["Delete all of this?"]
    assert plays.idents() == ["plan", "destroy"]
    assert [play.extra_vars["cluster_destroy_plan"] for play in plays.asked] == [True, False]
    assert all(play.extra_vars["cluster_destroy_images"] for play in plays.asked)
    text = capsys.readouterr().out
    for part in (
        "This carries its name, is older, and stays:\n  volume              vol-0  made before it",
        "stack               cisdriver-network",
        "image               ami-1  mine, with snap-1",
        "volume              vol-1  of a claim",
    ):
        assert part in text


def test_what_was_destroyed_is_counted(tmp_path: Path, plays: Plays) -> None:
    image = {"id": "ami-1", "name": "mine", "snapshots": []}
    plays.writes("plan", {"destroy": destroy_json("planned")})
    plays.writes("destroy", {"destroy": destroy_json("done", images=[image, image])})
    now = destroy.destroy(settings(tmp_path), as_json=True, yes=True, images=True)
    assert "cisdriver is gone: 1 stack, 2 images deleted" in shown(now.run)


def test_no_is_an_answer(tmp_path: Path, plays: Plays, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setattr("click.confirm", lambda _question: False)
    plays.writes("plan", {"destroy": destroy_json("planned")})
    with pytest.raises(InterruptedRunError, match="the answer was no"):
        destroy.destroy(settings(tmp_path), as_json=False, yes=False, images=False)
    assert plays.idents() == ["plan"]


@pytest.mark.parametrize("as_json", [True, False])
def test_where_nobody_can_be_asked_nothing_is_looked_at(tmp_path: Path, plays: Plays, as_json: bool) -> None:
    with pytest.raises(UsageError, match=r"no terminal to ask on(.|\n)*--yes"):
        destroy.destroy(settings(tmp_path), as_json=as_json, yes=False, images=False)
    assert not plays.asked


def test_destroying_nothing_is_done_at_once(tmp_path: Path, plays: Plays, capsys: pytest.CaptureFixture[str]) -> None:
    plays.writes("plan", {"destroy": destroy_json("planned", stacks=[])})
    destroy.destroy(settings(tmp_path), as_json=False, yes=True, images=False)
    assert plays.idents() == ["plan"]
    assert "Nothing of cluster cisdriver is in eu-central-1." in capsys.readouterr().out


def test_what_is_not_ours_is_not_destroyed(tmp_path: Path, plays: Plays) -> None:
    plays.writes("plan", {"destroy": destroy_json("refused", reason="stack x carries no tag of ours")}, rc=2)
    with pytest.raises(DeployError, match="carries no tag of ours"):
        destroy.destroy(settings(tmp_path), as_json=True, yes=True, images=False)
    assert plays.idents() == ["plan"]


def test_a_plan_is_not_taken_for_the_deed(tmp_path: Path, plays: Plays) -> None:
    """The second play ends before it writes anything: the plan's file must not stand for it."""
    plays.writes("plan", {"destroy": destroy_json("planned")})
    plays.fails("destroy", "no")
    with pytest.raises(DeployError, match="localhost: Look: no"):
        destroy.destroy(settings(tmp_path), as_json=True, yes=True, images=False)


def test_destroying_in_the_sandbox_ends_it_and_without_one_is_done(
    tmp_path: Path, plays: Plays, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(account, "sandbox_class", lambda: sandbox(""))
    destroy.destroy(settings(tmp_path, sandbox=True), as_json=False, yes=True, images=False)
    assert not plays.asked
    assert "there is nothing to destroy" in capsys.readouterr().out


def test_workloads_that_fail_are_exit_6_and_named_by_group(tmp_path: Path, plays: Plays) -> None:
    good = workloads_json(check("dns"), check("service"), group="al2023-level-2")
    plays.writes("workloads", good | workloads_json(check("dns", "fail", reason="no answer"), check("service")))
    with pytest.raises(VerificationError) as error:
        workloads.verify(settings(tmp_path, baseline=True), as_json=True)
    assert error.value.exit_code == 6
    assert error.value.message == "al2023-level-1: 1 of 2 workloads fails\n  dns: no answer"
    assert plays.asked_for("workloads")["workloads_baseline"] == "baseline"
    summed = json.loads((latest(tmp_path) / "run.json").read_text())
    assert [one["group"] for one in summed["workloads"]] == ["al2023-level-1", "al2023-level-2"]


def test_workloads_that_stay_behind_fail_beside_those_that_fail(tmp_path: Path, plays: Plays) -> None:
    written = workloads_json(check("dns", "fail"))
    written["workloads-result"] |= {"status": "failed", "reason": "namespace cisdriver-dns is not gone"}
    plays.writes("workloads", written, rc=2)
    with pytest.raises(VerificationError, match=r"1 of 1 workloads fails(.|\n)*cisdriver-dns is not gone"):
        workloads.verify(settings(tmp_path), as_json=True)


def test_a_verification_that_is_stopped_removes_its_workloads(tmp_path: Path, plays: Plays) -> None:
    def stopped(_run_dir: Path, _variables: Any) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 130

    plays.answers["workloads"] = stopped
    with pytest.raises(InterruptedRunError, match="the workloads are removed"):
        workloads.verify(settings(tmp_path), as_json=True)
    assert plays.idents() == ["workloads", "clean"]
    assert plays.asked[1].playbook == "cisdriver.amazon_linux.workloads_clean"
    plays.fails("clean", "no answer")
    with pytest.raises(VerificationError, match="not every workload could be removed: localhost: Look: no answer"):
        workloads.verify(settings(tmp_path), as_json=True)


def test_a_cluster_that_is_not_reached_is_exit_6_with_the_reason(tmp_path: Path, plays: Plays) -> None:
    plays.fails("workloads", "workloads_cluster x is not reached")
    with pytest.raises(VerificationError, match="could not be verified: localhost: Look: --cluster x is not reached"):
        workloads.verify(settings(tmp_path), as_json=True)


def test_a_cluster_needs_no_machines_and_the_sandbox_a_cluster(
    tmp_path: Path, plays: Plays, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="--cluster runs workloads"):
        workloads.verify(settings(tmp_path, host=["a"]), as_json=True)
    monkeypatch.setattr(account, "sandbox_class", lambda: sandbox(""))
    with pytest.raises(UsageError, match=r"no sandbox is kept in .*/\.cisdriver/sandbox"):
        workloads.verify(settings(tmp_path, sandbox=True), as_json=True)
    assert not plays.asked


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ([check("dns"), check("pods", "not_applicable")], "al2023-level-1: the workloads run"),
        ([check("dns", "not_applicable")], "al2023-level-1: no workload has proved anything"),
        ([check("dns", "error")], "al2023-level-1: 1 workload fails"),
    ],
)
def test_the_last_screen_of_workloads(tmp_path: Path, checks: list[Any], words: str) -> None:
    run = rundir.create(tmp_path)
    (run.path / "workloads").mkdir()
    run.write("workloads/al2023-level-1", verification(*checks))
    run.write("run", {"verb": "verify", "seconds": 3, "workloads": [{}], "settings": {"sandbox": True}})
    text = shown(run)
    assert words in text
    assert "the sandbox runs no containers" in text
