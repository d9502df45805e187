# Copyright the cisdriver authors. Apache-2.0.
"""Workloads that prove a node group: their objects before, their results after. Imports nothing of Ansible.

``known`` is the list of roles/workloads/vars/main.yml, whose templates are in roles/workloads/templates.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils import workload_judge
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import catalogue, results

GROUP_LABEL = "eks.amazonaws.com/nodegroup"
RUN, GROUP, WORKLOAD, EXPIRES = "cisdriver/run", "cisdriver/group", workload_judge.WORKLOAD, "cisdriver/expires"
CORDONED = "cisdriver/cordoned-by"
TEMPLATES = Path(__file__).resolve().parents[2] / "roles" / "workloads" / "templates"
#: Names of kube-bench's states in ours. WARN is what it leaves to a person, INFO what it was told to skip.
_STATES = {"PASS": "pass", "FAIL": "fail", "WARN": "manual", "INFO": "not_applicable"}
#: Seconds after the last deadline, after which whoever finds what a run left may remove it.
_GRACE = 900
#: Seconds before its deadline when a script tries for the last time, which takes one up to a quarter of a minute.
_LAST_WORDS = 30


class WorkloadsError(Exception):
    """What was asked for cannot be: names object, expected, found."""


def groups(nodes: Iterable[Mapping[str, Any]], wanted: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """The node groups of a cluster by name: ``{ready, addresses, unready, cordoned, os, kernel, kubelet}``.

    ``nodes`` are the API's. Raises WorkloadsError for a wanted group without nodes, and for a cluster without any.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        if name := node["metadata"].get("labels", {}).get(GROUP_LABEL):
            found.setdefault(name, []).append(node)
    wanted = list(wanted)
    if missing := sorted(set(wanted) - set(found)) or ([] if found else ["any"]):
        there = ", ".join(sorted(found)) or "none"
        raise WorkloadsError(
            f"no node carries the label {GROUP_LABEL}={', '.join(missing)}; there are: {there}."
            " `kubectl get nodes -L eks.amazonaws.com/nodegroup` shows them; `cisdriver deploy` makes groups."
        )
    return {name: _group(members) for name, members in sorted(found.items()) if not wanted or name in wanted}


def _group(nodes: list[Mapping[str, Any]]) -> dict[str, Any]:
    ready, unready, cordoned = [], {}, {}
    for node in nodes:
        name = node["metadata"]["name"]
        condition = next((one for one in node["status"].get("conditions", []) if one["type"] == "Ready"), {})
        if condition.get("status") != "True":
            unready[name] = condition.get("message") or "it has no condition Ready"
        elif by := node["metadata"]["labels"].get(CORDONED):
            cordoned[name] = f"run {by} drains it"
        elif node["spec"].get("unschedulable"):
            cordoned[name] = "it is cordoned"
        else:
            ready.append(node)
    info = nodes[0]["status"]["nodeInfo"]
    return {
        "ready": sorted(node["metadata"]["name"] for node in ready),
        "addresses": [
            one["address"] for node in ready for one in node["status"]["addresses"] if one["type"] == "InternalIP"
        ],
        "unready": unready,
        "cordoned": cordoned,
        "os": info["osImage"],
        "kernel": info["kernelVersion"],
        "kubelet": info["kubeletVersion"],
    }


def plan(
    known: Iterable[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every workload of every group, in order, with its objects, as ``workload_judge`` and the modules take it.

    ``options`` are the role's variables without their prefix, ``used_ports`` (of NodePorts), and ``now``, seconds since
    the epoch, from which deadlines count. One that cannot be tried has ``finding`` instead of objects. Raises
    WorkloadsError for a name in ``only``, ``skip`` or ``deadlines`` that none has.
    """
    chosen = _chosen(list(known), options)
    ports = _free_ports(options["used_ports"], options["run_id"])
    made = []
    for group, about in found.items():
        for one in chosen:
            host = bool(one.get("host"))
            base = {
                "name": one["name"],
                "group": group,
                "namespace": namespace(options["namespace_prefix"], group, options["run_id"], host),
                "title": one["title"],
                "why": one["why"],
                "deadline": int(options["deadlines"].get(one["name"], one["deadline"])),
                "proofs": len(about["ready"]) if one.get("proofs") == "nodes" else one.get("proofs", 1),
                "exec": one.get("exec", []),
                "scales": bool(one.get("scales")),
                "not_on": "",
                "refused": [],
                "finding": _preset(one, about),
                "objects": [],
            }
            if not base["finding"]:
                base["objects"] = _objects(base, host, {**options, "addresses": about["addresses"], "ports": ports})
            made.append(base)
    return made


def _chosen(known: list[Mapping[str, Any]], options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    names = [one["name"] for one in known]
    for option in ("only", "skip", "deadlines"):
        if strange := sorted(set(options[option]) - set(names)):
            raise WorkloadsError(
                f"workloads_{option}: there is no workload {', '.join(strange)}; there are: {', '.join(names)}"
            )
    chosen = [one for one in known if one["name"] in (options["only"] or names) and one["name"] not in options["skip"]]
    if not chosen:
        raise WorkloadsError("workloads_only and workloads_skip leave no workload over")
    return chosen


def _preset(one: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The finding of what cannot be tried. A node that is not Ready fails what is about every node, or takes more."""
    broken, idle = _listed(about["unready"]), _listed({**about["unready"], **about["cordoned"]})
    few = len(about["ready"]) < one.get("nodes", 1)
    if not about["ready"]:
        return {"status": "fail", "reason": f"the group has no node to run on: {idle}", "evidence": []}
    if broken and (few or one.get("proofs") == "nodes"):
        return {"status": "fail", "reason": f"not every node of the group is Ready: {broken}", "evidence": []}
    if few:
        reason = f"it takes {one['nodes']} nodes that are Ready, and the group has {len(about['ready'])}"
        return {"status": "not_applicable", "reason": f"{reason}{'; ' + idle if idle else ''}", "evidence": []}
    return None


def _listed(nodes: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in sorted(nodes.items()))


def _free_ports(used: Iterable[int], run_id: str) -> Any:
    """NodePorts of the default range that nobody has, from one on that the run's id names: another may choose, too."""
    free = sorted(set(range(30000, 32768)) - set(used))
    start = int(hashlib.sha256(run_id.encode()).hexdigest(), 16) % len(free)
    return iter(free[start:] + free[:start])


def namespace(prefix: str, group: str, run_id: str, host: bool) -> str:
    """One of a group and run; at most 63 characters, whatever the group is called."""
    slug = re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-")[:30].rstrip("-")
    digest = hashlib.sha256(f"{run_id}/{group}".encode()).hexdigest()[:6]
    return f"{prefix}-{slug}-{digest}{'-host' if host else ''}"


def _objects(workload: Mapping[str, Any], host: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True
    )  # no HTML, so nothing is escaped
    source = (TEMPLATES / "helpers.sh").read_text(encoding="utf-8")
    limit = workload["deadline"]
    last_try = int(float(options["now"]) + limit - min(_LAST_WORDS, limit // 3))
    values = {
        **options,
        "namespace": workload["namespace"],
        "helpers": f"last_try={last_try}\n"
        + "".join(line for line in source.splitlines(keepends=True) if not line.startswith("#")),
        "node_port": next(options["ports"]) if workload["name"] == "node_port" else 0,
    }
    text = environment.get_template(f"{workload['name']}.yml.j2").render(values)
    return [_settled(item, workload, host, options) for item in yaml.safe_load_all(text)]


def labels(workload: Mapping[str, Any], run_id: str) -> dict[str, str]:
    group = workload["group"].strip("-_")  # all other characters of a group's name may stand in a label
    return {"app.kubernetes.io/managed-by": "cisdriver", RUN: run_id, GROUP: group, WORKLOAD: workload["name"]}


def _settled(
    item: dict[str, Any], workload: Mapping[str, Any], host: bool, options: Mapping[str, Any]
) -> dict[str, Any]:
    """An object of a template with all that every workload has alike: labels, namespace, place, limits."""
    ours = labels(workload, options["run_id"])
    item["metadata"]["labels"] = {**ours, **item["metadata"].get("labels", {})}
    if item["kind"] != "StorageClass":
        item["metadata"]["namespace"] = workload["namespace"]
    if item["kind"] == "Pod":
        item["metadata"]["labels"][workload_judge.PROOF] = "true"
        _place(item["spec"], workload["group"], host)
    elif "template" in item.get("spec", {}):
        template = item["spec"]["template"]
        more = {}
        if item["kind"] == "Job":
            # The play removes it; should that not be, it ends by itself, after whoever judges has looked.
            item["spec"].update(backoffLimit=0, activeDeadlineSeconds=workload["deadline"] + _GRACE)
            template["spec"]["restartPolicy"] = "Never"
            more = {workload_judge.PROOF: "true"}
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = {**ours, **more, **metadata.get("labels", {})}
        _place(template["spec"], workload["group"], host)
    return item


def _place(spec: dict[str, Any], group: str, host: bool) -> None:
    """A pod's place, limits and, but for those that reach into the node, what level "restricted" asks for."""
    spec["nodeSelector"] = {GROUP_LABEL: group}
    spec.setdefault("automountServiceAccountToken", False)
    spec.setdefault("terminationGracePeriodSeconds", 2)
    secure = {"seccompProfile": {"type": "RuntimeDefault"}}
    if not host:
        secure |= {"runAsNonRoot": True, "runAsUser": 65534, "runAsGroup": 65534}
    spec["securityContext"] = {**secure, **spec.get("securityContext", {})}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        node = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
        container["env"] = [node, *container.get("env", [])]
        container.setdefault("resources", {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}})
        if not host:
            container.setdefault(
                "securityContext", {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            )


def namespaces(planned: Iterable[Mapping[str, Any]], run_id: str, now: float) -> list[dict[str, Any]]:
    """The namespaces of a plan, each with what Pod Security lets into it, and when it is nobody's any more."""
    planned = [one for one in planned if one["objects"]]
    longest = max((one["deadline"] for one in planned), default=0)
    made: dict[str, dict[str, Any]] = {}
    for one in planned:
        name = one["namespace"]
        level = "privileged" if name.endswith("-host") else "restricted"
        own = {key: value for key, value in labels(one, run_id).items() if key != WORKLOAD}
        own |= {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn")}
        made[name] = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": own, "annotations": {EXPIRES: str(int(now + 2 * longest + _GRACE))}},
        }
    return list(made.values())


def documents(
    planned: Iterable[Mapping[str, Any]],
    found: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    baseline: str,
) -> dict[str, dict[str, Any]]:
    """A results document per group. ``planned`` has every ``finding``; ``about`` is ``{started, seconds}``."""
    checks: dict[str, dict[str, dict[str, Any]]] = {}
    for one in planned:
        check = {key: one[key] for key in ("name", "title", "why")} | one["finding"]
        checks.setdefault(one["group"], {})[one["name"]] = check
    told = {
        group: [
            _compared(check, group, baseline, checks.get(baseline, {}).get(name)) for name, check in members.items()
        ]
        for group, members in checks.items()
    }
    source = {"name": "cisdriver workloads", "version": catalogue.version()}
    return {group: results.verification(one, _node(group, found, about), source) for group, one in told.items()}


def _node(name: str, found: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "os": found[name]["os"], "kernel": found[name]["kernel"], **about}


def _compared(check: dict[str, Any], group: str, baseline: str, other: Mapping[str, Any] | None) -> dict[str, Any]:
    """A fail says whether the unhardened nodes fail, too: then hardening did not do it."""
    if check["status"] != "fail" or not other or group == baseline:
        return check
    same = {
        "fail": "the baseline, which is not hardened, fails it as well, so hardening did not do it",
        "pass": "the baseline, which is not hardened, passes it",
    }.get(other["status"], "the baseline does not tell")
    return {**check, "reason": f"{check['reason']} ({same})"}


def kube_bench(
    logs: Mapping[str, str],
    found: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    benchmark: str,
    version: str,
) -> dict[str, dict[str, Any]]:
    """kube-bench's reports as results documents, by group: no rule of ours, no level, for it tells none."""
    made = {}
    for group, log in logs.items():
        checked = [_checked(check) for check in workload_judge.kube_bench(log)]
        if checked:
            made[group] = {
                "version": results.VERSION,
                "source": {"name": "kube-bench", "version": version},
                "benchmark": benchmark,
                "level": None,
                "profile": None,
                "node": _node(group, found, about),
                "summary": results.summary(checked),
                "results": checked,
            }
    return made


def _checked(check: Mapping[str, Any]) -> dict[str, Any]:
    """``test_desc`` ends with "(Automated)" or "(Manual)"; a check that is not ``scored`` is for a person."""
    status = _STATES[check["status"]]
    title = re.sub(r" \((Automated|Manual)\)$", "", check["test_desc"])
    reason = check.get("reason") or ("" if status == "pass" else f"expected: {check['expected_result']}")
    evidence = {
        "object": check.get("audit") or check["test_number"],
        "expected": check["expected_result"],
        "found": check["actual_value"],
        "ok": status == "pass",
    }
    return {
        "id": check["test_number"],
        "title": title,
        "level": None,
        "assessment": "automated" if check["scored"] else "manual",
        "rule": None,
        "status": status,
        "reason": "" if status == "pass" else " ".join(reason.split()),
        "evidence": [evidence] if evidence["expected"] or evidence["found"] else [],
        "accepted": None,
    }
