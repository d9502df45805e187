"""``verify --cluster``: workloads that prove that the nodes of a cluster carry work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

from cisdriver import account, aws_errors, collection, deploy, earlier, nodes
from cisdriver.account import Account
from cisdriver.errors import InterruptedRunError, UsageError, VerificationError
from cisdriver.runner import Outcome, Play
from cisdriver.session import Session, session
from cisdriver.settings import Settings

#: Where the run has the results documents of this stage, one per node group, and its own JSON.
STAGE, RESULT = "workloads", "workloads-result"
_VARIABLES = {
    "workloads_cluster": "cluster",
    "workloads_region": "region",
    "workloads_baseline": "baseline",
    "workloads_image": "workload_image",
    "workloads_kube_bench_image": "kube_bench_image",
}
#: A stack in any other state has no node group, or one that is on its way.
_STANDS = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")


def verify(settings: Settings, as_json: bool) -> Session:
    """Run the workloads on a cluster. Raises VerificationError when one fails, or could not be run."""
    if settings.host or settings.inventory:
        raise UsageError(
            "--cluster runs workloads on a cluster, and --host and --inventory name machines", "Leave out one of them."
        )
    region = account.region(settings)
    if settings.sandbox and not account.kept_url(settings):
        raise UsageError(
            f"no sandbox is kept in {account.keep(settings)}, so there is no cluster",
            "`cisdriver run --level 1 --sandbox` makes one.",
        )
    with (
        session("verify", settings, {}, as_json, {"region": region}) as now,
        account.opened(now, region, kept=True, failure=VerificationError) as where,
    ):
        work(now, where)
    return now


def work(now: Session, where: Account) -> None:
    """Run the workloads within a session. Raises what they ended with."""
    from cisdriver import report

    now.run.forget(RESULT)
    for directory in (STAGE, "kube-bench"):  # of an attempt that did not end; there is none the first time
        shutil.rmtree(now.run.path / directory, ignore_errors=True)
    outcome = now.play(_play(now, where))
    if outcome.interrupted:
        _clean(now, where)
    result = now.run.read(RESULT) or {}
    if now.run.results(STAGE):
        now.facts["reports"] = report.write(now.run, now.about())
    _judge(now, outcome, result)


def _play(now: Session, where: Account) -> Play:
    settings = now.settings
    return Play(
        playbook=f"{collection.NAME}.workloads",
        ident="workloads",
        extra_vars={
            **_identity(now, where),
            **dict(_set(now, where)),
        },
        env=where.env,
        drop_env=where.drop_env,
        verbose=settings.verbose,
    )


def _set(now: Session, where: Account) -> Iterator[tuple[str, Any]]:
    """The role's variables for what was set or deployed, and only for that: the defaults are the role's own."""
    settings = now.settings
    if settings.baseline:
        yield "workloads_baseline", deploy.BASELINE
    for variable in ("workloads_image", "workloads_kube_bench_image"):
        if value := getattr(settings, _VARIABLES[variable]):
            yield variable, value
    found = groups(earlier.deployment(settings, where), settings)
    if found:
        yield "workloads_groups", found


def groups(deployed: dict[str, Any], settings: Settings) -> list[str]:
    """Our node groups by deploy.json, also those of deployments before; none without one, which means all there are.

    Named, they are missed when they have no nodes, and those of others on the same cluster are left alone.
    """
    if not deployed:
        return []
    prefix = f"{settings.cluster}-nodes-"
    stand = (one["name"] for one in deployed["stacks"] if one["status"] in _STANDS)
    found = {name.removeprefix(prefix) for name in stand if name.startswith(prefix)}
    found |= {group["name"] for group in deployed["node_groups"]} | ({deploy.BASELINE} if settings.baseline else set())
    return sorted(found)


def _identity(now: Session, where: Account) -> dict[str, Any]:
    return {
        "workloads_cluster": now.settings.cluster,
        "workloads_region": where.region,
        "workloads_run_id": now.run.id,
        "workloads_run_dir": str(now.run.path),
    }


def _clean(now: Session, where: Account) -> None:
    """Remove the workloads of a play that was stopped. Raises VerificationError for what is left."""
    outcome = now.play(
        Play(
            playbook=f"{collection.NAME}.workloads_clean",
            ident="clean",
            extra_vars=_identity(now, where),
            env=where.env,
            drop_env=where.drop_env,
        )
    )
    if outcome.rc:
        raise VerificationError(
            f"not every workload could be removed: {nodes.reason(outcome)}",
            "The next verification of this cluster begins by removing them.",
        )


def _judge(now: Session, outcome: Outcome, result: dict[str, Any]) -> None:
    """Raise what the workloads ended with."""
    again = f"`cisdriver {'run' if now.verb == 'run' else 'verify --cluster'}`"
    if outcome.interrupted:
        raise InterruptedRunError("interrupted; the workloads are removed", f"{again} again orders them anew.")
    found = now.run.results(STAGE)
    said = [f"{group}: {lines}" for group, document in found.items() if (lines := _broken(document))]
    remedy = f"The report has each with its evidence, and {now.run.path / STAGE} too." if said else ""
    if outcome.rc or result.get("status") not in ("done", "findings"):
        reason = nodes.in_flags(str(result.get("reason") or nodes.reason(outcome)), _VARIABLES)
        message, way_out = aws_errors.explain(reason, again)
        said.append(f"the cluster could not be verified: {message}")
        remedy = "\n".join(filter(None, (way_out, remedy, f"Ansible's own output is in {outcome.log}.")))
    if said:
        raise VerificationError("\n".join(said), remedy)


def _broken(document: dict[str, Any]) -> str:
    return nodes.broken_checks(document, what="workloads", verdict="")
