"""The verb ``deploy``: a cluster with a node group per image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cisdriver import account, aws_errors, bake, collection, earlier, nodes, rundir
from cisdriver.account import Account
from cisdriver.errors import DeployError, InterruptedRunError, UsageError
from cisdriver.rundir import RunDir
from cisdriver.runner import Outcome, Play
from cisdriver.session import Session, session
from cisdriver.settings import Settings

BASELINE = "baseline"
_VARIABLES = {
    "cluster_name": "cluster",
    "cluster_region": "region",
    "cluster_images": "image",
    "cluster_kubernetes_version": "kubernetes_version",
    "cluster_nat": "nat",
    "cluster_vpc_id": "vpc_id",
    "cluster_subnet_ids": "subnet_ids",
    "cluster_existing": "existing",
    "cluster_public_access_cidrs": "public_access_cidr",
    "cluster_admins": "admin",
    "cluster_instance_types": "node_type",
    "cluster_nodes": "node_count",
    "cluster_tags": "tag",
}
#: Those that the driver works out, and does not hand on as they are.
_MADE = {"cluster_region", "cluster_images", "cluster_nodes"}


def deploy(settings: Settings, as_json: bool, dry_run: bool) -> Session:
    """Deploy the images as node groups of a cluster. Raises UsageError before anything starts, then DeployError."""
    check(settings)
    region = account.region(settings)
    images = chosen(settings, region)
    earlier.refuse_live(settings, region)
    with session("deploy", settings, {}, as_json, {"region": region}) as now:
        if not dry_run:
            earlier.settle(now, region)
        with account.opened(now, region, kept=True, failure=DeployError) as where:
            now.facts["sandbox"] = where.url
            work(now, where, images, dry_run)
    return now


def check(settings: Settings) -> None:
    """Raise UsageError for settings that contradict each other."""
    if settings.existing and (settings.vpc_id or settings.nat):
        flag = "--vpc-id" if settings.vpc_id else "--nat"
        raise UsageError(
            f"--existing takes the network of the cluster that exists, and {flag} names one", "Leave it out."
        )
    if bool(settings.vpc_id) != bool(settings.subnet_ids) and not settings.existing:
        there, missing = ("--vpc-id", "--subnet-ids") if settings.vpc_id else ("--subnet-ids", "--vpc-id")
        raise UsageError(f"{there} is given without {missing}", "Give both, or neither for a network of its own.")
    if settings.vpc_id and settings.nat:
        raise UsageError(
            "--nat is for a network that is made, and --vpc-id names one that exists", "Leave out one of them."
        )
    named(settings)


def named(settings: Settings) -> list[dict[str, Any]]:
    """``--image`` as role cluster takes it. Raises UsageError for two of one group, or one of none."""
    found = []
    for one in settings.image:
        group, _, id_ = one.rpartition("=")
        found.append({"group": group or _group_of(settings, id_), "id": id_, "baseline": False})
    groups = [image["group"] for image in found]
    twice = next((group for group in groups if groups.count(group) > 1), None)
    if twice:
        raise UsageError(
            f"--image: two images are for group {twice}", "A node group has one image; GROUP=AMI names another group."
        )
    if BASELINE in groups:
        raise UsageError(f"--image: {BASELINE} is the group of --baseline", "Name this one otherwise.")
    return found


def _group_of(settings: Settings, image: str) -> str:
    """The node group for an image that is named alone, by the bake that made it."""
    for run, _ in rundir.newest_first(settings.run_dir):
        result = run.read("bake") or {}
        if (result.get("image") or {}).get("id") == image:
            return str(image_of(run, result)["group"])
    raise UsageError(
        f"--image: no bake of {image} is in {settings.run_dir / 'runs'}, so its node group needs a name",
        f"Write --image al2023-level-1={image}, or whatever the group is to be called.",
    )


def chosen(settings: Settings, region: str) -> list[dict[str, Any]]:
    """The images to deploy: those that are named, or that of the newest bake for this account and region.

    Raises UsageError where there is none.
    """
    if settings.image:
        return named(settings)
    url = account.kept_url(settings) if settings.sandbox else ""
    for run, about in rundir.newest_first(settings.run_dir):
        in_sandbox = bool((about.get("settings") or {}).get("sandbox"))
        here = bool(url) and about.get("sandbox") == url if settings.sandbox else not in_sandbox
        result = run.read("bake") if here else None
        if result and bake.finished(result) and result["region"] == region:
            return [image_of(run, result)]
    if settings.sandbox:
        raise UsageError(
            f"there is no image to deploy in the sandbox of {account.keep(settings)}",
            "`cisdriver run --level 1 --sandbox` bakes one there, deploys it and verifies the cluster;"
            " the sandbox of `cisdriver bake` ends with it.",
        )
    raise UsageError(
        f"no image is named, and no bake for {region} is in {settings.run_dir / 'runs'}",
        "Name one with --image ami-..., or make one with `cisdriver bake`.",
    )


def image_of(run: RunDir, result: dict[str, Any]) -> dict[str, Any]:
    """The image of a bake, in the node group that is named by what its audit was about: ``al2023-level-1``.

    Raises UsageError for a bake without an audit.
    """
    audit = run.read("audit")
    if audit is None:
        raise UsageError(
            f"run {run.id} has no audit.json, which would tell how the node group of {result['image']['id']} is called",
            f"Name it: --image GROUP={result['image']['id']}",
        )
    group = f"{audit['benchmark'].partition('-')[0]}-level-{audit['level']}"
    return {"group": group, "id": result["image"]["id"], "baseline": False}


def work(now: Session, where: Account, wanted: list[dict[str, Any]], dry_run: bool = False) -> None:
    """Deploy within a session. Raises what the deployment ended with."""
    now.run.forget("deploy")
    outcome = now.play(_play(now, where, wanted, dry_run))
    result = now.run.read("deploy") or {}
    now.facts["deploy"] = result
    _judge(now, outcome, result)


def _play(now: Session, where: Account, wanted: list[dict[str, Any]], dry_run: bool) -> Play:
    settings = now.settings
    baseline = [{"group": BASELINE, "id": "", "baseline": True}] if settings.baseline else []
    return Play(
        playbook=f"{collection.NAME}.deploy",
        ident="deploy",
        extra_vars={
            **dict(_set(settings)),
            "cluster_region": where.region,
            "cluster_run_id": now.run.id,
            "cluster_run_dir": str(now.run.path),
            "cluster_images": wanted + baseline,
            "cluster_dry_run": dry_run,
        },
        env=where.env,
        drop_env=where.drop_env,
        verbose=settings.verbose,
    )


def _set(settings: Settings) -> Iterator[tuple[str, Any]]:
    """The role's variables for what was set, and only for that: the defaults are the role's own."""
    for variable in _VARIABLES.keys() - _MADE:
        value = getattr(settings, _VARIABLES[variable])
        if value not in (None, (), {}, False):
            yield variable, list(value) if isinstance(value, tuple) else value
    if settings.node_count:
        yield "cluster_nodes", dict.fromkeys(("min", "max", "desired"), settings.node_count)


def _judge(now: Session, outcome: Outcome, result: dict[str, Any]) -> None:
    """Raise what the deployment ended with."""
    again = f"`cisdriver {now.verb}`"
    if outcome.interrupted:
        raise InterruptedRunError(
            "interrupted; AWS goes on with the stack it is at",
            f"{again} again waits for that and goes on; `cisdriver destroy` takes everything away.",
        )
    if outcome.rc or result.get("status") not in ("done", "dry_run"):
        refused = result.get("status") == "refused"
        raise failed(outcome, result, f"the deployment {'was refused' if refused else 'failed'}", again)


def failed(outcome: Outcome, result: dict[str, Any], what: str, again: str) -> DeployError:
    """The error of a role that failed: its reason, in plain words where they are known, and the way out."""
    reason = nodes.in_flags(str(result.get("reason") or nodes.reason(outcome)), _VARIABLES)
    message, remedy = aws_errors.explain(reason, again)
    on = remedy or f"When that is mended, {again} goes on where it stopped."
    return DeployError(f"{what}: {message}", f"{on}\nAnsible's own output is in {outcome.log}.")
