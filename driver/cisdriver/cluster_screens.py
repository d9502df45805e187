"""What stands on the screen of a cluster: what would change and cost, what was deployed, how its workloads went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

_MARKS = {"Add": ("+", "green"), "Modify": ("~", "yellow"), "Remove": ("-", "red")}
#: What ``--sandbox`` leaves open, for whoever might take its success for more.
LIMITS = {
    "deploy": (
        "whether your account has the rights, the quotas and the capacity for this cluster",
        "whether EKS takes the templates as the sandbox does, and how long it needs: 15 to 25 minutes are usual",
        "whether kubelet of these images joins: the sandbox reads the user data, and no control plane answers a node",
    ),
    "cost": ("what it costs: the prices are samples",),
    "verify": (
        "whether anything runs: the sandbox runs no containers, so every proof that needs one says not_applicable",
        "networks, volumes, metrics and policies of the cluster: nothing carries them here",
    ),
}


def deployed(result: Mapping[str, Any]) -> list[str]:
    """Lines about deploy.json."""
    cluster, groups = result.get("cluster") or {}, result.get("node_groups") or []
    if result.get("status") == "dry_run":
        return ["", *_changes(result.get("changes") or []), "", *cost(result.get("cost"))]
    if result.get("status") != "done" or not cluster:
        return []
    changed = [stack["name"] for stack in result.get("stacks") or [] if stack.get("changed")]
    lines = ["", f"{click.style(cluster['name'], bold=True)}  Kubernetes {cluster['version']}  {cluster['endpoint']}"]
    for group in groups:
        image = group.get("image") or {}
        unhardened = "  not hardened: the baseline" if group.get("baseline") else ""
        lines.append(f"  {group['name']:<20}{group['desired']} x {image.get('id', '')}{unhardened}")
    lines.append(f"  {len(changed)} of {len(result['stacks'])} stacks changed" if changed else "  nothing changed")
    return lines


def _changes(changes: list[dict[str, Any]]) -> list[str]:
    if not changes:
        return ["Nothing would change."]
    lines = ["What deploying would change"]
    for stack in dict.fromkeys(change["stack"] for change in changes):
        lines.append(f"  {stack}")
        for change in (change for change in changes if change["stack"] == stack):
            mark, colour = _MARKS.get(change["action"], ("?", "yellow"))
            replaced = "  is replaced" if change.get("replacement") in (True, "True") else ""
            lines.append(f"    {click.style(mark, fg=colour)} {change['type']:<40} {change['resource']}{replaced}")
    return lines


def cost(found: Mapping[str, Any] | None) -> list[str]:
    """Lines about what a cluster costs by the hour; without prices, that there are none."""
    found = found or {"per_hour": None, "lines": [], "note": ""}
    known = found["per_hour"] is not None
    total = f"about {found['per_hour']:.2f} {found['currency']} per hour while it stands" if known else "not known"
    lines = [f"Cost: {total}{': ' if found['note'] else ''}{found['note']}"]
    for line in found["lines"]:
        what, price = f"{line['count']} x {line['what']}", line["per_hour"]
        lines.append(f"  {what:<52}{'?' if price is None else f'{price:.4f}':>10}")
    return lines


def destroyed(result: Mapping[str, Any]) -> list[str]:
    """Lines about a destroy.json that is done."""
    if result.get("status") != "done":
        return []
    names = {"stacks": "stack", "images": "image", "others": "other resource"}
    counts = [
        f"{len(result[kind])} {name}{'s' if len(result[kind]) > 1 else ''}"
        for kind, name in names.items()
        if result[kind]
    ]
    return ["", f"{result['cluster']} is gone: {', '.join(counts)} deleted"]


def is_something(planned: Mapping[str, Any]) -> bool:
    """Whether there is anything to destroy."""
    return any(planned.get(kind) for kind in ("stacks", "images", "others"))


def plan(planned: Mapping[str, Any], cluster: str, region: str) -> str:
    """What destroying would delete."""
    if not is_something(planned):
        return f"Nothing of cluster {cluster} is in {region}."
    lines = [f"Of cluster {cluster} in {region} this is deleted, for good:"]
    lines += [_kind("stack", stack["name"], "") for stack in planned["stacks"]]
    for image in planned["images"]:
        snapshots = f", with {', '.join(image['snapshots'])}" if image["snapshots"] else ""
        lines.append(_kind("image", image["id"], f"{image['name']}{snapshots}"))
    lines += [_kind(other["kind"].replace("_", " "), other["id"], other["what"]) for other in planned["others"]]
    kept = [_kind(other["kind"], other["id"], other["what"]) for other in planned.get("kept", [])]
    if kept:
        lines += ["This carries its name, is older, and stays:", *kept]
    return "\n".join(lines)


def _kind(kind: str, identity: str, about: str) -> str:
    return f"  {kind:<20}{identity}  {about}".rstrip()


def workloads(documents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines about the results documents of the workloads, by node group."""
    lines = []
    for group, document in documents.items():
        counts = document["summary"]["counts"]
        broken = counts["fail"] + counts["error"]
        words = f"{broken} workload{'s fail' if broken > 1 else ' fails'}"
        verdict = click.style(words, fg="red") if broken else _proved(counts)
        tally = f"{counts['pass']} pass, {counts['fail']} fail, {counts['error']} could not look"
        lines += ["", f"{group}: {verdict}", f"  {tally}, {counts['not_applicable']} not applicable"]
    return lines


def _proved(counts: Mapping[str, int]) -> str:
    if not counts["pass"]:
        return click.style("no workload has proved anything", fg="yellow")
    return click.style("the workloads run", fg="green")


def limits(about: Mapping[str, Any]) -> list[str]:
    """What the sandbox could not show of this run."""
    if not (about.get("settings") or {}).get("sandbox"):
        return []
    result = about.get("deploy") or {}
    told = {
        "deploy": result.get("status") in ("done", "dry_run"),
        "cost": bool(result.get("cost")),
        "verify": bool(about.get("workloads")),
    }
    found = [line for part, shown in told.items() if shown for line in LIMITS[part]]
    return ["", "What the sandbox cannot show", *(f"  {line}" for line in found)] if found else []
