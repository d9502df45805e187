# Copyright the cisdriver authors. Apache-2.0.
"""A cluster's stacks as CloudFormation takes them, and the document of its deployment.

Runs on the controller, imports nothing of Ansible. ``schemas/deploy.json`` describes the document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.cluster.stacks import administrator
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils.user_data import user_data

VERSION = "1"
#: In a dry run, the value of a parameter that only a stack not yet made would tell.
UNKNOWN = "known-after-apply"
#: Of a stack that stands as it was asked for; one that went back earlier, and has nothing to update, stays in the last.
_GOOD = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
#: What amazon.aws.cloudformation says when it cannot read a stack for which it waits, whatever AWS has answered.
_LOST = "Stack Deleted"
_SIZES = ("MinSize", "MaxSize", "DesiredSize")
_ADMIN_POLICY = "arn:${AWS::Partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

Plan = Mapping[str, Any]
Outputs = Mapping[str, Mapping[str, str]]


class MissingOutputError(ValueError):
    """A stack does not tell what another needs."""


def stack(plan: Plan, key: str, outputs: Outputs | None) -> dict[str, Any]:
    """One stack of the plan: ``{name, key, template, parameters, present}``.

    ``outputs`` are those of the stacks applied so far, by key; None in a dry run, in which ``UNKNOWN`` stands for what
    only a stack not yet made would tell. Otherwise that raises MissingOutputError.
    """
    known = {**{name: one["outputs"] for name, one in plan["stacks"].items()}, **(outputs or {})}
    dry = outputs is None
    name = plan["tags"]["cisdriver:cluster"]
    parameters = dict(plan["parameters"].get(key, {}))
    content = yaml.safe_load(_file("nodes" if key.startswith("nodes-") else key))
    if key == "cluster":
        parameters["SubnetIds"] = _subnets(plan, known, dry)
        add_administrators(content, plan["admins"])
    elif key.startswith("nodes-"):
        group = next(one for one in plan["groups"] if one["key"] == key)
        described = cluster(plan, known, dry)
        text = user_data(group["image"]["os"], described, group["group"], group["image"]["id"])
        parameters.update(group["parameters"], UserData=text)
        parameters.setdefault("SubnetIds", _subnets(plan, known, dry))
        tags = {**plan["tags"], "cisdriver:node-group": group["group"], "Name": f"{name}-{group['group']}"}
        fill_launch_template(content, group["image"]["devices"], tags)
    return {
        "name": f"{name}-{key}",
        "key": key,
        # Through JSON, since Ansible hands in lists and texts of its own types, and those twice without a copy.
        "template": yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, width=200),
        "parameters": parameters,
        "present": key in plan["stacks"],
    }


def apart(plan: Plan, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Node groups that are there and change in size or tags: key to the parameters of an update of that alone.

    EKS takes no update of a node group's launch template together with another one ("Version and ReleaseVersion updates
    cannot be combined with other updates", aws/containers-roadmap#1258), and stack tags are the node group's, too.
    """
    found = {}
    for group in (group for group in plan["groups"] if group["key"] in keys and group["key"] in plan["stacks"]):
        present = plan["stacks"][group["key"]]
        sizes = {name: group["parameters"][name] for name in _SIZES}
        same = all(present["parameters"].get(name) == str(value) for name, value in sizes.items())
        if not same or present["tags"] != plan["tags"]:
            previous: dict[str, Any] = {name: {"use_previous_value": True} for name in present["parameters"]}
            found[group["key"]] = {**previous, **sizes}
    return found


def _subnets(plan: Plan, known: Outputs, dry: bool) -> str:
    return ",".join(plan["subnet_ids"]) or _output(plan, known, "network", "SubnetIds", dry)


def _output(plan: Plan, known: Outputs, key: str, name: str, dry: bool) -> str:
    value = known.get(key, {}).get(name)
    if not value and not dry:
        raise MissingOutputError(
            f"stack {plan['tags']['cisdriver:cluster']}-{key} has no output {name}, so it is not complete. "
            "Deploy again: that waits for it, or makes it anew."
        )
    return value or UNKNOWN


def cluster(plan: Plan, known: Outputs, dry: bool) -> dict[str, str]:
    """What a node has to know of its cluster, from the existing cluster or the outputs of its stack."""
    existing = plan["existing"] or {}
    return {
        "name": plan["tags"]["cisdriver:cluster"],
        "endpoint": existing.get("endpoint") or _output(plan, known, "cluster", "Endpoint", dry),
        "certificate_authority": existing.get("certificate_authority")
        or _output(plan, known, "cluster", "CertificateAuthority", dry),
        "service_cidr": existing.get("service_cidr") or known.get("cluster", {}).get("ServiceCidr", "172.20.0.0/16"),
    }


def stacks(plan: Plan) -> list[dict[str, Any]]:
    """All stacks of a plan, as module stack_changes takes them."""
    made = [stack(plan, key, None) for key in plan["keys"]]
    return [{name: one[name] for name in ("name", "template", "parameters", "present")} for one in made]


def add_administrators(template: dict[str, Any], arns: Sequence[str]) -> None:
    """An access entry per ARN."""
    for arn in arns:
        scope = {"PolicyArn": {"Fn::Sub": _ADMIN_POLICY}, "AccessScope": {"Type": "cluster"}}
        template["Resources"][administrator(arn)] = {
            "Type": "AWS::EKS::AccessEntry",
            "Properties": {"ClusterName": {"Ref": "Cluster"}, "PrincipalArn": arn, "AccessPolicies": [scope]},
        }


def fill_launch_template(template: dict[str, Any], devices: list[dict[str, Any]], tags: Mapping[str, str]) -> None:
    """The image's volumes, and the tags of what is started."""
    data = template["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    data["BlockDeviceMappings"] = devices
    for one in data["TagSpecifications"]:
        one["Tags"] = [{"Key": key, "Value": str(tags[key])} for key in sorted(tags)]


def document(
    about: Mapping[str, Any], plan: Plan | None, now: Mapping[str, Any], failure: Mapping[str, Any]
) -> dict[str, Any]:
    """The document ``deploy.json``.

    ``about`` is {run_id, region, seconds, dry_run, changes, cost}; ``plan`` is None where none was made. ``now`` is
    what cluster_stacks returned, without ``stacks`` where it could not look; ``failure`` is what the task that failed
    returned, empty when none did.
    """
    status, why = "dry_run" if about["dry_run"] else "done", ""
    if failure:
        status, why = "refused" if failure.get("refused") else "failed", reason(failure, now.get("failures", {}))
    elif not about["dry_run"]:
        why = _unfinished(plan, now)
        status = "failed" if why else "done"
    stacks = now.get("stacks")
    return {
        "version": VERSION,
        "stage": "deploy",
        "status": status,
        "reason": why,
        "run_id": about["run_id"],
        "region": about["region"],
        "partition": plan["partition"] if plan else None,
        "cluster": _cluster(plan, stacks or []) if plan else None,
        "stacks": _stacks(plan["stacks"] if plan else {}, stacks),
        "node_groups": [_node_group(group, stacks or []) for group in plan["groups"]] if plan else [],
        "changes": list(about["changes"]),
        "cost": about["cost"],
        "seconds": about["seconds"],
    }


def reason(failure: Mapping[str, Any], failures: Mapping[str, str]) -> str:
    """Why a task failed: for stacks, what became of each; else its message.

    ``failures`` has a sentence for each stack whose last operation failed, whenever that was.
    """
    told = []
    for item in failure.get("results", []):
        if item.get("failed"):
            key = item.get("cluster_applied") or item.get("cluster_job", {}).get("cluster_applied")
            # Without output no operation was begun: the message is of a request that AWS refused.
            told.append(failures.get(key, _words(key, item)) if "output" in item else str(item.get("msg", "")))
    return "; ".join(told) or str(failure.get("msg", ""))


def _words(key: str, item: Mapping[str, Any]) -> str:
    if item["output"] != _LOST:
        return str(item["output"])
    return (
        f"stack {key}: AWS did not tell to the end what became of it (credentials that expired, too many requests, or "
        "somebody has deleted it). CloudFormation goes on by itself; deploy again, which waits for it"
    )


def _unfinished(plan: Plan | None, now: Mapping[str, Any]) -> str:
    """Which planned stacks are not as they should be, though no task failed; else nothing."""
    if plan is None or "stacks" not in now:
        return f"the stacks could not be looked at: {now.get('msg', 'no reason was given')}"
    found = {one["key"]: one["status"] for one in now["stacks"]}
    wrong = [f"{key} ({found.get(key, 'not there')})" for key in plan["keys"] if found.get(key) not in _GOOD]
    return f"not complete: {', '.join(wrong)}. Deploy again, which goes on from there" if wrong else ""


def _cluster(plan: Plan, now: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    made = _outputs(now, "cluster")
    existing = plan["existing"] or {}
    return {
        "name": plan["tags"]["cisdriver:cluster"],
        "arn": existing.get("arn") or made.get("Arn"),
        "version": plan["kubernetes_version"],
        "endpoint": existing.get("endpoint") or made.get("Endpoint"),
        "existing": bool(existing),
    }


def _stacks(before: Mapping[str, Any], now: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Each with whether it was made or updated; a stack that could not be read is as it was before."""
    found = list(before.values()) if now is None else now
    return [
        {
            "name": one["name"],
            "status": one["status"],
            "changed": before.get(one["key"], {}).get("updated") != one["updated"],
        }
        for one in found
    ]


def _node_group(group: Mapping[str, Any], now: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    made: Mapping[str, Any] = next(
        (one for one in now if one["key"] == group["key"]), {"outputs": {}, "parameters": {}}
    )
    version = made["outputs"].get("LaunchTemplateVersion")
    return {
        "name": group["group"],
        "image": {key: group["image"][key] for key in ("id", "name", "level", "benchmark", "os")},
        "baseline": group["baseline"],
        # After a roll-back it runs what it did before.
        "deployed": bool(version) and made["parameters"].get("ImageId") == group["image"]["id"],
        "launch_template_version": version,
        "desired": group["parameters"]["DesiredSize"],
    }


def _outputs(now: Sequence[Mapping[str, Any]], key: str) -> Mapping[str, str]:
    return next((one["outputs"] for one in now if one["key"] == key), {})


def _file(name: str) -> str:
    return (catalogue.ROOT / "roles" / "cluster" / "files" / f"{name}.yml").read_text(encoding="utf-8")
