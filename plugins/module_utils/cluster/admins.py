# Copyright the cisdriver authors. Apache-2.0.
"""Who cannot be named as an administrator of a cluster: whoever has an access entry by other ways."""

from __future__ import annotations

from typing import Any

from .stacks import RefusedError, Stack, administrator, made, resources


def check_maker(admins: list[str], caller: str, stacks: dict[str, Stack]) -> None:
    """Whoever makes the cluster has an access entry by that, and EKS takes no second one for it.

    A session of a role is ``arn:P:sts::A:assumed-role/NAME/SESSION``, which tells no path.
    """
    account, _, rest = caller.split(":", 4)[4].partition(":")
    kind, _, name = rest.partition("/")
    own = ("role", name.partition("/")[0]) if kind == "assumed-role" else (kind, name.rpartition("/")[2])
    for arn in admins:
        other, _, resource = arn.split(":", 4)[4].partition(":")
        named = (resource.partition("/")[0], resource.rpartition("/")[2])
        if not made("cluster", stacks) and (account, *own) == (other, *named):
            raise RefusedError(f"{arn} makes the cluster, and so administers it: leave it out of cluster_admins.")


def check_there(clients: Any, settings: dict[str, Any], stacks: dict[str, Stack]) -> None:
    """EKS makes no second access entry for whoever has one: who made the cluster, or who was let in by others."""
    if not settings["admins"] or not made("cluster", stacks):
        return
    pages = clients("eks").get_paginator("list_access_entries").paginate(clusterName=settings["name"])
    there = {arn for page in pages for arn in page["accessEntries"]}
    ours = resources(clients("cloudformation"), stacks["cluster"]) if there & set(settings["admins"]) else {}
    for arn in settings["admins"]:
        if arn in there and administrator(arn) not in ours:
            raise RefusedError(
                f"{arn} has an access entry in the cluster {settings['name']} already, which cisdriver did not make: "
                "leave it out of cluster_admins."
            )
