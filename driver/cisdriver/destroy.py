"""The verb ``destroy``: take away a cluster and everything that was deployed with it."""

from __future__ import annotations

import sys
from typing import Any

from cisdriver import account, cluster_screens, collection, deploy, earlier
from cisdriver.account import Account
from cisdriver.errors import DeployError, InterruptedRunError, UsageError
from cisdriver.runner import Outcome, Play
from cisdriver.session import Session, session
from cisdriver.settings import Settings

_AGAIN = "`cisdriver destroy`"


def destroy(settings: Settings, as_json: bool, yes: bool, images: bool) -> Session:
    """Show what there is, ask, and delete it. Raises UsageError where nobody can be asked, then DeployError."""
    if not yes and (as_json or not (sys.stdin.isatty() and sys.stdout.isatty())):
        raise UsageError("destroy asks before it deletes, and there is no terminal to ask on", "Add --yes to mean it.")
    region = account.region(settings)
    earlier.refuse_live(settings, region)
    with session("destroy", settings, {}, as_json, {"region": region}) as now:
        earlier.settle(now, region)
        if settings.sandbox and not account.kept_url(settings):
            now.note(f"No sandbox is kept in {account.keep(settings)}: there is nothing to destroy.")
            return now
        with account.opened(now, region, kept=True, failure=DeployError) as where:
            _ask_and_delete(now, where, yes, images)
        if settings.sandbox:
            with now.stage("sandbox_end"):
                account.sandbox_class().end(account.keep(settings))
    return now


def _ask_and_delete(now: Session, where: Account, yes: bool, images: bool) -> None:
    planned = _play(now, where, images, plan=True)
    now.note(cluster_screens.plan(planned, now.settings.cluster, where.region))
    if not cluster_screens.is_something(planned):
        return
    if not yes and not now.ask("Delete all of this?"):
        raise InterruptedRunError("the answer was no", "Nothing was deleted.")
    now.stop_if_interrupted()
    now.facts["planned"] = planned  # what a killed run leaves is known by this, once its stack is gone
    now.save()
    now.facts["destroy"] = _play(now, where, images, plan=False)


def _play(now: Session, where: Account, images: bool, plan: bool) -> dict[str, Any]:
    """Run the playbook; returns destroy.json. Raises what it ended with."""
    now.run.forget("destroy")
    known = earlier.images(now.settings, where) if images else []
    outcome = now.play(
        Play(
            playbook=f"{collection.NAME}.destroy",
            ident="plan" if plan else "destroy",
            extra_vars={
                "cluster_name": now.settings.cluster,
                "cluster_region": where.region,
                "cluster_run_dir": str(now.run.path),
                "cluster_destroy_images": images,
                **({"cluster_destroy_image_ids": known} if known else {}),
                "cluster_destroy_plan": plan,
            },
            env=where.env,
            drop_env=where.drop_env,
            verbose=now.settings.verbose,
        ),
        whole="look" if plan else "",
    )
    result: dict[str, Any] = now.run.read("destroy") or {}
    _judge(now, outcome, result, plan)
    return result


def _judge(now: Session, outcome: Outcome, result: dict[str, Any], plan: bool) -> None:
    if outcome.interrupted:
        if plan:
            raise InterruptedRunError("interrupted", "Nothing was deleted.")
        raise InterruptedRunError(
            "interrupted; AWS goes on with the stack it is at", f"{_AGAIN} again deletes the rest."
        )
    if outcome.rc or result.get("status") != ("planned" if plan else "done"):
        now.facts["destroy"] = result
        raise deploy.failed(outcome, result, "the cluster could not be destroyed", _AGAIN)
