"""Workloads: their manifests and scripts, what is concluded from what the cluster tells, and what the report says."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import jsonschema
import kubernetes.client
import pytest
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils import eks_api
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils import workload_judge as judge
from ansible_collections.cisdriver.amazon_linux.plugins.modules import eks_access, workload_results
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import workloads
from cisdriver import collection, report, rundir
from cisdriver.sandbox.kubernetes import defaults, kinds, models, tokens, validation

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "workloads"
KNOWN = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))["workloads_known"]
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
OPTIONS: dict[str, Any] = {
    "cluster": "demo",
    "run_id": "20260102T030405Z-a1b2c3",
    "only": [],
    "skip": [],
    "deadlines": {},
    "namespace_prefix": "cisdriver",
    "image": DEFAULTS["workloads_image"],
    "kube_bench_image": DEFAULTS["workloads_kube_bench_image"],
    "kube_bench_benchmark": "eks-1.8.0",
    "egress": {"host": "sts.eu-central-1.amazonaws.com", "port": "443"},
    "used_ports": [32767],
    "now": 0,  # so the time for tries is over: each has its two
}
ABOUT = {"started": "2026-01-02T03:04:05+00:00", "seconds": 61.5}
KUBE_BENCH = json.dumps(
    {
        "Controls": [
            {
                "id": "3",
                "node_type": "node",
                "tests": [
                    {
                        "section": "3.1",
                        "results": [
                            {
                                "test_number": "3.1.1",
                                "test_desc": "Ensure that the kubeconfig file permissions are set to 644 (Automated)",
                                "audit": "/bin/sh -c 'stat -c permissions=%a /var/lib/kubelet/kubeconfig'",
                                "status": "PASS",
                                "actual_value": "permissions=600",
                                "scored": True,
                                "expected_result": "permissions has permissions 600, expected 644 or more restrictive",
                            },
                            {
                                "test_number": "3.2.9",
                                "test_desc": "Ensure that RotateKubeletServerCertificate is set to true (Automated)",
                                "audit": "/bin/ps -fC kubelet",
                                "status": "FAIL",
                                "actual_value": "",
                                "scored": True,
                                "expected_result": "'RotateKubeletServerCertificate' is present",
                            },
                        ],
                    }
                ],
            }
        ],
        "Totals": {"total_pass": 1, "total_fail": 1, "total_warn": 0, "total_info": 0},
    }
)


def node(name: str, group: str = "level-1", ready: str = "True", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {workloads.GROUP_LABEL: group}},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": ready, "message": "kubelet is posting ready status"}],
            "addresses": [{"type": "InternalIP", "address": f"10.0.0.{len(name)}"}],
            "nodeInfo": {"osImage": "Amazon Linux 2023", "kernelVersion": "6.12.1", "kubeletVersion": "v1.34.1"},
        },
    }


def planned(*nodes: dict[str, Any], **more: Any) -> dict[str, dict[str, Any]]:
    """The plan of one group's workloads, by name."""
    found = workloads.groups(nodes or (node("a"), node("bb")))
    return {one["name"]: one for one in workloads.plan(KNOWN, found, {**OPTIONS, **more})}


def pods_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod spec of an object, if it has one."""
    if item["kind"] == "Pod":
        return [item["spec"]]
    return [item["spec"]["template"]["spec"]] if "template" in item.get("spec", {}) else []


def scripts(**options: Any) -> dict[str, str]:
    """Every script, by workload, object and container."""
    return {
        f"{name}/{item['metadata']['name']}/{container['name']}": (
            [*container.get("args", []), container["command"][-1]]
        )[0]
        for name, one in planned(**options).items()
        for item in one["objects"]
        for spec in pods_of(item)
        for container in [*spec.get("initContainers", []), *spec["containers"]]
        if container["command"][:2] == ["sh", "-c"]
    }


# Manifests


def test_every_workload_has_its_templates_and_stands_in_the_docs() -> None:
    names = [one["name"] for one in KNOWN]
    assert sorted(names) == sorted(path.name.removesuffix(".yml.j2") for path in (ROLE / "templates").glob("*.j2"))
    text = (ROOT / "docs" / "workloads.md").read_text(encoding="utf-8")
    assert [name for name in names if f"| `{name}` |" not in text] == []
    assert names[-1] == "drain", "it cordons a node, so it has to be the last"


@pytest.mark.parametrize("name", [one["name"] for one in KNOWN])
def test_objects_are_what_the_api_takes(name: str) -> None:
    one = planned()[name]
    for item in one["objects"]:
        kind = kinds.KINDS[item["kind"]]
        checked = models.check(kind, json.loads(json.dumps(item)))
        defaults.fill(item["kind"], checked)
        validation.check(kind, checked, None)
        assert item["metadata"]["labels"][workloads.RUN] == OPTIONS["run_id"]
        assert item["metadata"]["labels"][workloads.WORKLOAD] == name
        for spec in pods_of(item):
            assert spec["nodeSelector"] == {workloads.GROUP_LABEL: "level-1"}
            labels = item.get("spec", {}).get("template", item)["metadata"]["labels"]
            assert labels[workloads.RUN] == OPTIONS["run_id"]


def test_an_unknown_field_is_caught() -> None:
    item = planned()["dns"]["objects"][0]
    item["spec"]["template"]["spec"]["containers"][0]["comand"] = ["sh"]
    with pytest.raises(Exception, match="comand"):
        models.check(kinds.KINDS["Job"], item)


@pytest.mark.parametrize("name", [one["name"] for one in KNOWN if not one.get("host")])
def test_whoever_does_not_reach_into_the_node_is_restricted(name: str) -> None:
    """Pod Security's level "restricted", as its standard has it."""
    for item in planned()[name]["objects"]:
        for spec in pods_of(item):
            assert not {"hostPID", "hostNetwork", "hostIPC"} & set(spec)
            assert not any("hostPath" in volume for volume in spec.get("volumes", []))
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["runAsUser"] > 0
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
                assert "memory" in container["resources"]["limits"]


def test_namespaces_let_in_what_they_are_for() -> None:
    made = workloads.namespaces(planned().values(), OPTIONS["run_id"], 1000.0)
    levels = {one["metadata"]["name"]: one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] for one in made}
    assert sorted(levels.values()) == ["privileged", "restricted"]
    assert all(name.endswith("-host") == (level == "privileged") for name, level in levels.items())
    longest = max(one["deadline"] for one in KNOWN)
    assert all(int(one["metadata"]["annotations"][workloads.EXPIRES]) > 1000 + longest for one in made)
    assert workloads.namespaces(planned(only=["dns"]).values(), "r", 0.0)[0]["kind"] == "Namespace"


def test_a_group_may_be_called_anything_eks_takes() -> None:
    strange = "Group_With-A_Very-Long_Name-" * 2 + "End_12"
    found = workloads.groups([node("a", strange), node("bb", strange)])
    spaces = {one["namespace"] for one in workloads.plan(KNOWN, found, OPTIONS)}
    assert all(len(name) <= 63 and name == name.lower() and "_" not in name for name in spaces)
    assert workloads.namespace("c", "a_b", "r", False) != workloads.namespace("c", "a-b", "r", False)


def test_images_are_pinned() -> None:
    for one in planned().values():
        for item in one["objects"]:
            for spec in pods_of(item):
                assert all("@sha256:" in container["image"] for container in spec["containers"])


def node_ports(**options: Any) -> list[int]:
    both = workloads.groups([node("a"), node("bb"), node("ccc", "other")])
    plan = workloads.plan(KNOWN, both, {**OPTIONS, "only": ["node_port"], **options})
    return [one["objects"][0]["spec"]["ports"][0]["nodePort"] for one in plan]


def test_a_node_port_is_one_that_nobody_has() -> None:
    assert sorted(node_ports(used_ports=set(range(30000, 32768)) - {30007, 31234})) == [30007, 31234]


def test_two_runs_at_once_choose_other_node_ports() -> None:
    assert node_ports() == node_ports()
    assert not set(node_ports()) & set(node_ports(run_id="another"))


# The plan


def test_only_and_skip_choose() -> None:
    assert list(planned(only=["dns", "egress"], skip=["egress"])) == ["dns"]
    assert planned(deadlines={"dns": 7})["dns"]["deadline"] == 7


@pytest.mark.parametrize("option", ["only", "skip"])
def test_a_name_that_no_workload_has_is_refused(option: str) -> None:
    with pytest.raises(
        workloads.WorkloadsError, match=rf"workloads_{option}: there is no workload dsn; there are: dns, "
    ):
        planned(**{option: ["dsn"]})


def test_a_group_of_one_node_is_not_asked_for_two() -> None:
    one = planned(node("a"))
    assert {name for name, it in one.items() if it["finding"]} == {"pod_to_pod", "drain"}
    assert one["drain"]["finding"]["status"] == "not_applicable"
    assert "takes 2 nodes that are Ready, and the group has 1" in one["drain"]["finding"]["reason"]
    assert one["daemon_set"]["proofs"] == 1


def test_a_node_that_is_not_ready_is_no_reason_to_leave_anything_out() -> None:
    one = planned(node("a"), node("bb", ready="Unknown"))
    failing = {name: it["finding"]["status"] for name, it in one.items() if it["finding"]}
    assert failing == dict.fromkeys(("pod_to_pod", "daemon_set", "drain"), "fail")
    assert (
        one["drain"]["finding"]["reason"] == "not every node of the group is Ready: bb: kubelet is posting ready status"
    )
    three = planned(node("a"), node("bb"), node("ccc", ready="False"))
    assert {name for name, it in three.items() if it["finding"]} == {"daemon_set"}


def test_a_cordoned_node_is_nobodys_fault() -> None:
    marked = node("ccc")
    marked["metadata"]["labels"][workloads.CORDONED] = "another"
    one = planned(node("a"), node("bb", unschedulable=True), marked)
    assert {name: it["finding"]["status"] for name, it in one.items() if it["finding"]} == dict.fromkeys(
        ("pod_to_pod", "drain"), "not_applicable"
    )
    assert one["drain"]["finding"]["reason"].endswith("has 1; bb: it is cordoned; ccc: run another drains it")


def test_a_group_without_a_ready_node_fails_with_what_its_nodes_say() -> None:
    one = planned(node("a", ready="False"), node("bb", unschedulable=True))
    assert {it["finding"]["status"] for it in one.values()} == {"fail"}
    reason = one["dns"]["finding"]["reason"]
    assert "a: kubelet is posting" in reason
    assert "bb: it is cordoned" in reason
    assert workloads.namespaces(one.values(), "r", 0.0) == []


def test_a_group_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(workloads.WorkloadsError, match=r"nodegroup=other; there are: level-1\."):
        workloads.groups([node("a")], ["other"])
    with pytest.raises(workloads.WorkloadsError, match="there are: none"):
        workloads.groups([])


# Scripts


def test_scripts_are_shell_and_kubernetes_leaves_them_alone() -> None:
    for name, text in scripts().items():
        checked = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, f"{name}: {checked.stderr}"
        assert "$$" not in text, f"{name}: Kubernetes makes $ of $$"
        assert "$(NODE)" not in text, f"{name}: Kubernetes expands $(NODE)"


FAKES = {"sleep": "exit 0", "nslookup": 'printf "Server: 1\\n\\nName: x\\nAddress: 10.0.0.1\\n"', "nc": "exit 0"}


def said(script: str, directory: Path, options: dict[str, Any] | None = None, **programs: str) -> str:
    """The last line of a script among programs that do as they are told."""
    for name, body in {**FAKES, **programs}.items():
        path = directory / name
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
    env = {"PATH": f"{directory}:/usr/bin:/bin", "NODE": "node-a"}
    text = scripts(**(options or {}))[script]
    done = subprocess.run(["sh", "-c", text], env=env, text=True, capture_output=True, timeout=30, check=False)
    return done.stdout.strip().splitlines()[-1]


UNREACHABLE = 'echo "wget: can\'t connect to remote host: Connection refused" >&2; exit 1'
PORT = node_ports()[0]
NOBODY = 'echo "** server can\'t find x: NXDOMAIN"; exit 0'


@pytest.mark.parametrize(
    ("script", "programs", "expected"),
    [
        ("dns/dns/dns", {}, "ok resolved kubernetes.default and sts.eu-central-1.amazonaws.com (on node-a)"),
        # busybox's nslookup may end well though it found nothing.
        (
            "dns/dns/dns",
            {"nslookup": NOBODY},
            "fail kubernetes.default is not resolved: ** server can't find x: NXDOMAIN",
        ),
        ("egress/egress/egress", {}, "ok reached sts.eu-central-1.amazonaws.com:443"),
        (
            "egress/egress/egress",
            {"nc": "echo timed out; exit 1"},
            "sts.eu-central-1.amazonaws.com:443 is not reached: timed out",
        ),
        (
            "pod_to_pod/pod-to-pod-client/client",
            {"wget": UNREACHABLE},
            "fail the pod on the other node does not answer",
        ),
        ("pod_to_pod/pod-to-pod-client/client", {"wget": "echo node-a"}, "fail both pods are on one node"),
        ("pod_to_pod/pod-to-pod-client/client", {"wget": "echo node-b"}, "of 1048576 bytes 7 came from node-b"),
        (
            "pod_to_pod/pod-to-pod-client/client",
            {"wget": 'case "$*" in *megabyte) head -c 1048576 /dev/zero ;; *) echo node-b ;; esac'},
            "ok a megabyte from the pod on node-b (on node-a)",
        ),
        ("service/service-client/client", {"wget": "echo node-b"}, "ok ten answers from pods on node-b"),
        (
            "service/service-client/client",
            {"wget": UNREACHABLE},
            "fail the Service does not answer: wget: can't connect",
        ),
        (
            "node_port/node-port-client/client",
            {"wget": UNREACHABLE},
            f"fail port {PORT} of node 10.0.0.1 does not answer",
        ),
        ("node_port/node-port-client/client", {"wget": "echo node-b"}, f"ok port {PORT} of 10.0.0.1 10.0.0.2"),
        ("network_policy/network-policy-friend/client", {"wget": UNREACHABLE}, "fail the policy lets this pod in"),
        (
            "network_policy/network-policy-stranger/client",
            {"wget": "echo x"},
            "holds nobody off: the policy agent of the VPC CNI",
        ),
        (
            "network_policy/network-policy-stranger/client",
            {"wget": 'case "$*" in *guarded*) exit 1 ;; *) echo x ;; esac'},
            "ok the stranger is held off, at try 3",
        ),
        (
            "network_policy/network-policy-stranger/client",
            {"wget": UNREACHABLE},
            "fail a server without a policy does not answer",
        ),
        (
            "pod_identity/pod-identity/main",
            {"wget": 'echo "wget: server returned error: HTTP/1.1 400 Bad Request" >&2; exit 1'},
            "ok the agent answers; this pod has no association",
        ),
        (
            "pod_identity/pod-identity/main",
            {"wget": UNREACHABLE},
            "fail the Pod Identity agent does not answer at 169.254.170.23",
        ),
    ],
)
def test_a_script_says_what_it_saw(script: str, programs: dict[str, Any], expected: str, tmp_path: Path) -> None:
    line = said(script, tmp_path, **programs)
    assert line.startswith(("cisdriver: ok ", "cisdriver: fail "))
    assert expected in line


@pytest.mark.parametrize(
    ("clock", "expected"), [("1000 1020 1200", "ok reached"), ("1000 1150 1200", "is not reached")]
)
def test_tries_go_on_until_shortly_before_the_deadline(clock: str, expected: str, tmp_path: Path) -> None:
    """The fourth try succeeds; egress has 180 seconds, the last 30 of which are for its words."""
    (tmp_path / "clock").write_text(clock.replace(" ", "\n") + "\n", encoding="utf-8")
    count = f"echo x >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -ge 4 ]"
    tick = f"head -n 1 {tmp_path}/clock; sed -i 1d {tmp_path}/clock"
    assert expected in said("egress/egress/egress", tmp_path, {"now": 1000.7}, nc=count, date=tick)


# Judging


def pod(
    name: str = "dns-x", phase: str = "Running", state: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    status = {
        "phase": phase,
        "containerStatuses": [{"name": "main", "state": state or {"running": {}}, "restartCount": 0}],
    }
    status.update(more.pop("status", {}))
    labels = {} if more.pop("server", False) else {judge.PROOF: "true"}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": "node-a", **more}, "status": status}


def view(*pods: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "pods": list(pods),
        "logs": {},
        "unread": {},
        "objects": [],
        "events": [],
        "exec": None,
        "metrics": True,
        **more,
    }


WORKLOAD = {"name": "dns", "proofs": 1, "exec": [], "scales": False, "refused": [], "not_on": ""}
ENDED = {"terminated": {"exitCode": 0, "reason": "Completed"}}
NOT_RUN = "cisdriver: not run: the sandbox runs no containers\n"


def status_of(workload: dict[str, Any], **logs: str) -> str | None:
    found = judge.judge(workload, view(*(pod(name) for name in logs), logs=logs))
    return found and found["status"]


def test_the_last_line_of_the_proof_counts() -> None:
    assert status_of(WORKLOAD, a="cisdriver: fail early\ncisdriver: ok late\n") == "pass"
    assert status_of(WORKLOAD, a="cisdriver: ok early\nnoise\ncisdriver: fail late\n") == "fail"
    assert status_of(WORKLOAD, a=NOT_RUN) == "not_applicable"
    assert status_of(WORKLOAD, a="he said cisdriver: ok\n") is None


def test_every_proof_is_waited_for_and_one_fail_is_enough() -> None:
    two = {**WORKLOAD, "proofs": 2}
    assert status_of(two, a="cisdriver: ok x") is None
    assert status_of(two, a="cisdriver: ok x", b="cisdriver: ok y") == "pass"
    assert status_of(two, a="cisdriver: fail x") == "fail"


def test_a_pod_that_goes_or_is_on_the_drained_node_proves_nothing() -> None:
    going = pod("a")
    going["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert judge.judge(WORKLOAD, view(going, logs={"a": "cisdriver: ok x"})) is None
    assert status_of({**WORKLOAD, "not_on": "node-a"}, a="cisdriver: ok x") is None


def test_what_the_server_refused_is_a_fail() -> None:
    item = {"kind": "Job", "metadata": {"name": "dns"}}
    answers = [{"error": {"msg": 'Failed to create object: {"kind": "Status", "message": "jobs is forbidden"}'}}]
    refused = judge.refusals([{"objects": [item]}, {"objects": [item]}, {"objects": []}], answers)
    assert refused == [["Job dns: jobs is forbidden"], ["Job dns: it was not sent"], []]
    assert judge.refusals([{"objects": [item]}], [{"result": "namespace"}, *answers]) == refused[:1]
    found = judge.judge({**WORKLOAD, "refused": refused[0]}, view())
    assert found == {
        "status": "fail",
        "reason": "the API server refuses it: Job dns: jobs is forbidden",
        "evidence": [],
    }


def test_a_command_is_judged_too() -> None:
    workload = {**WORKLOAD, "exec": ["sh"]}
    logs = {"dns-x": "cisdriver: ok logged"}
    assert judge.judge(workload, view(pod(), logs=logs)) is None
    passed = judge.judge(workload, view(pod(), logs=logs, exec="cisdriver: ok exec\n"))
    assert passed and [one["object"] for one in passed["evidence"]] == ["pod dns-x", "command in pod dns-x"]
    broken = judge.judge(workload, view(pod(), logs=logs, exec="OCI runtime exec failed\n"))
    assert broken and "says: OCI runtime exec failed" in broken["reason"]


def test_a_command_whose_pod_has_gone_proves_nothing() -> None:
    workload = {**WORKLOAD, "exec": ["sh"]}
    assert judge.judge(workload, view(exec="cisdriver: ok exec\n")) is None
    assert judge.judge(workload, view(pod(server=True), exec="cisdriver: ok exec\n")) is None


def test_where_no_metrics_are_served_nothing_can_scale() -> None:
    workload = {**WORKLOAD, "scales": True}
    found = judge.judge(workload, view(pod(), metrics=False))
    assert found and found["status"] == "not_applicable"
    assert "no metrics.k8s.io" in found["reason"]
    refused = judge.judge({**workload, "refused": ["x"]}, view(metrics=False))
    assert refused and refused["status"] == "fail"


def test_a_job_that_ends_without_a_word_fails_with_its_last_words() -> None:
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    found = judge.judge(WORKLOAD, view(pod(phase="Failed", state=state), logs={"dns-x": "one\ntwo\nthree\nfour\n"}))
    assert found and found["status"] == "fail"
    assert "container main of pod dns-x on node-a ended with exit code 137 (OOMKilled)" in found["reason"]
    assert "it said: two / three / four" in found["reason"]
    silent = judge.judge(WORKLOAD, view(pod(phase="Succeeded", state=ENDED)))
    assert silent and "exit code 0; it said nothing" in silent["reason"]


def test_a_log_that_is_not_read_is_no_proof_of_anything() -> None:
    """kubelet's port is cut off: the pod may well have said ok."""
    seen = view(pod(phase="Succeeded", state=ENDED), unread={"dns-x": "500: dial tcp 10.0.0.1:10250: i/o timeout"})
    assert judge.judge(WORKLOAD, seen) is None
    reason = judge.overdue(WORKLOAD, seen, 30)["reason"]
    assert "the log of pod dns-x on node-a is not read: 500: dial tcp 10.0.0.1:10250: i/o timeout" in reason


def test_without_containers_metrics_are_looked_for_all_the_same() -> None:
    workload = {**WORKLOAD, "proofs": 2, "scales": True}
    conditions = [{"type": "ScalingActive", "status": "True"}]
    scaler = {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "autoscaling"},
        "status": {"conditions": conditions},
    }
    logs = {"dns-x": NOT_RUN}
    assert judge.judge(workload, view(pod(), logs=logs)) is None
    idle = judge.judge(workload, view(pod(), logs=logs, objects=[scaler]))
    assert idle and idle["status"] == "not_applicable"
    assert judge.judge(workload, view(pod(), logs={"dns-x": "cisdriver: ok burns"}, objects=[scaler])) is None


class Looks:
    """An API server that shows another pod at each look; of a log there is what had been written by then."""

    def __init__(self, *looks: tuple[dict[str, Any], str | int]) -> None:
        self._looks = list(looks)
        self.containers: list[str] = []
        self.ran: list[str] = []

    def get(self, path: str, **_: Any) -> dict[str, Any]:
        if path == "/apis":
            return {"groups": [{"name": "apps"}]}
        item, self._log = self._looks[0]
        self._looks = self._looks[1:] or self._looks
        item["metadata"] |= {"namespace": "n", "labels": {**item["metadata"]["labels"], judge.WORKLOAD: "dns"}}
        item["spec"].setdefault("containers", [{"name": "main"}])
        return {"items": [item] if path == "/api/v1/pods" else []}

    def text(self, _: str, container: str, **__: Any) -> str:
        self.containers.append(container)
        if isinstance(self._log, int):
            raise kubernetes.client.ApiException(status=self._log)
        return self._log

    def exec(self, _: str, name: str, *__: Any) -> str:
        self.ran.append(name)
        return "cisdriver: ok exec"


def watched(server: Looks, **more: Any) -> dict[str, Any]:
    one = {**WORKLOAD, "group": "g", "namespace": "n", "deadline": 5, **more}
    watch = workload_results.Watch(server, server, "r", [one])
    watch.run(0)
    return dict(watch.done[0]["finding"])


PENDING = {"waiting": {"reason": "ContainerCreating"}}


def test_a_log_is_read_until_its_pod_has_ended() -> None:
    looks: list[tuple[dict[str, Any], str | int]] = [
        (pod(phase="Pending", state=PENDING), 400),
        (pod(), "trying\n"),
        (pod(phase="Succeeded", state=ENDED), "trying\ncisdriver: ok seen\n"),
    ]
    assert watched(Looks(*looks))["status"] == "pass"
    assert watched(Looks(*looks[::2]))["status"] == "pass"


def test_a_log_that_was_read_stays_when_its_pod_goes() -> None:
    two = {"proofs": 2, "deadline": 0.05}
    server = Looks((pod(), "cisdriver: ok seen"), (pod(phase="Succeeded", state=ENDED), 404))
    assert "1 of 2 pods have proven it" in watched(server, **two)["reason"]


def test_a_sidecar_that_is_killed_at_its_end_hides_no_proof() -> None:
    killed = {"name": "sidecar", "state": {"terminated": {"exitCode": 137}}, "restartCount": 0}
    both = pod(phase="Succeeded", state=ENDED, status={"initContainerStatuses": [killed]})
    server = Looks((both, "cisdriver: ok seen"))
    assert watched(server)["status"] == "pass"
    assert server.containers == ["main"]
    killed["state"] = {"terminated": {"exitCode": 1}}
    server = Looks((pod(phase="Failed", state=PENDING, status={"initContainerStatuses": [killed]}), "boom"))
    assert watched(server)["status"] == "fail"
    assert server.containers == ["sidecar"]


def test_a_command_runs_in_a_pod_that_is_to_prove() -> None:
    server = Looks((pod("server", server=True), ""), (pod("prover"), "cisdriver: ok logged"))
    assert watched(server, exec=["sh"])["status"] == "pass"
    assert server.ran == ["prover"]


def test_metrics_that_no_server_registered_are_not_waited_for() -> None:
    assert watched(Looks((pod(), "")), scales=True)["status"] == "not_applicable"


def test_kube_bench_proves_by_its_report() -> None:
    told = judge.word(f"W1121 kubelet is not there\n{KUBE_BENCH}\n")
    assert told == ("ok", "judged 2 checks: 1 PASS, 1 FAIL, 0 WARN, 0 INFO")
    assert judge.word(KUBE_BENCH[:200]).verdict == ""


UNSCHEDULED = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/4 nodes are available"}]}
LOOP = {
    "containerStatuses": [
        {
            "name": "main",
            "restartCount": 5,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}},
        }
    ]
}
PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (view(), "no pod of it was made, and nothing says why"),
        (
            view(pod(phase="Pending", status=UNSCHEDULED)),
            "pod dns-x on node-a is not scheduled: 0/4 nodes are available",
        ),
        (
            view(pod(phase="Pending", state=PULL)),
            "waits: ImagePullBackOff: Back-off pulling image: Failed: no such host",
        ),
        (view(pod(status=LOOP), logs={"dns-x": "boom"}), "exit code 2; it said: boom; it was started again 5 times"),
        (view(pod(status=LOOP, server=True), logs={"dns-x": "boom"}), "exit code 2; it said: boom; it was started"),
        (
            view(pod(phase="Pending", status={"containerStatuses": []})),
            "pod dns-x on node-a is Pending: Failed: no such host",
        ),
        (view(pod(), logs={"dns-x": "trying"}), "pod dns-x on node-a runs and has proven nothing; it said: trying"),
        (
            view(objects=[{"kind": "PersistentVolumeClaim", "metadata": {"name": "dns-x"}}]),
            "PersistentVolumeClaim dns-x: Failed: no such host",
        ),
    ],
)
def test_a_deadline_names_its_cause(seen: dict[str, Any], expected: str) -> None:
    seen["events"] = [
        {"involvedObject": {"name": "dns-x"}, "type": kind, "reason": "Failed", "message": text, "lastTimestamp": time}
        for kind, text, time in (("Warning", "older", "1"), ("Warning", "no such host", "2"), ("Normal", "well", "3"))
    ]
    found = judge.overdue(WORKLOAD, seen, 30)
    assert found["status"] == "fail"
    assert found["reason"].startswith("nothing is proven after 30 s: ")
    assert expected in found["reason"]


# Results


def done(**findings: tuple[str, str]) -> list[dict[str, Any]]:
    """Workloads of two groups with their findings: ``dns=("fail", "pass")`` is (level-1, baseline)."""
    made = []
    for place, group in enumerate(("level-1", "baseline")):
        for name, statuses in findings.items():
            status = statuses[place]
            reason = "" if status == "pass" else f"{name} of {group}"
            finding = {"status": status, "reason": reason, "evidence": []}
            made.append({"name": name, "group": group, "title": "T", "why": "W", "finding": finding})
    return made


FOUND = workloads.groups([node("a"), node("bb", "baseline")])


def test_documents_are_verifications_and_a_fail_is_read_against_the_baseline() -> None:
    made = workloads.documents(done(dns=("fail", "fail"), egress=("fail", "pass")), FOUND, ABOUT, "baseline")
    for document in made.values():
        jsonschema.validate(document, collection.schema("results"))
    both, alone = made["level-1"]["results"]
    assert (
        both["reason"]
        == "dns of level-1 (the baseline, which is not hardened, fails it as well, so hardening did not do it)"
    )
    assert alone["reason"].endswith("(the baseline, which is not hardened, passes it)")
    assert made["baseline"]["results"][0]["reason"] == "dns of baseline"
    assert made["level-1"]["summary"]["unaccepted"] == 2
    plain = workloads.documents(done(dns=("fail", "fail")), FOUND, ABOUT, "")
    assert plain["level-1"]["results"][0]["reason"] == "dns of level-1"


def bench() -> dict[str, Any]:
    return workloads.kube_bench({"level-1": KUBE_BENCH, "baseline": "x"}, FOUND, ABOUT, "eks-1.8.0", "v0.16.0")


def test_kube_bench_is_read_into_the_one_shape() -> None:
    made = bench()
    assert list(made) == ["level-1"]
    jsonschema.validate(made["level-1"], collection.schema("results"))
    good, bad = made["level-1"]["results"]
    assert (good["id"], good["status"], good["reason"], good["assessment"]) == ("3.1.1", "pass", "", "automated")
    assert good["title"] == "Ensure that the kubeconfig file permissions are set to 644"
    assert (bad["status"], bad["reason"]) == ("fail", "expected: 'RotateKubeletServerCertificate' is present")


@pytest.mark.parametrize(("key", "value"), [("level", 1), ("rule", "x"), ("status", "no_rule_yet"), ("why", "x")])
def test_the_schema_keeps_kube_bench_apart_from_our_audits(key: str, value: Any) -> None:
    made = bench()["level-1"]
    made["results"][0][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, collection.schema("results"))


# The report


@pytest.fixture
def run(tmp_path: Path) -> rundir.RunDir:
    found = rundir.RunDir(tmp_path / "20260102T030405Z-a1b2c3")
    for name in ("workloads", "kube-bench"):
        (found.path / name).mkdir(parents=True)
    findings = done(dns=("fail", "pass"), egress=("fail", "fail"), volume=("pass", "pass"))
    findings[0]["finding"]["reason"] = "<script>alert(1)</script> | x"
    for group, document in workloads.documents(findings, FOUND, ABOUT, "baseline").items():
        found.write(f"workloads/{group}", document)
    for group, document in bench().items():
        found.write(f"kube-bench/{group}", document)
    found.write("workloads-result", {"cluster": "demo", "kubernetes": "v1.34.1", "baseline": "baseline"})
    return found


def test_the_report_has_a_column_per_group(run: rundir.RunDir) -> None:
    assert report.write(run, {}) == ["report.md", "report.html"]
    text = (run.path / "report.md").read_text(encoding="utf-8")
    assert "# demo" in text
    assert "**Not every workload runs**: 2 workloads fail on 1 hardened node group." in text
    assert "| | baseline (not hardened) | level-1 |\n| --- | --- | --- |\n| dns T | Holds | Fails |\n" in text
    assert "## kube-bench v0.16.0, eks-1.8.0" in text
    assert "| 3.2.9 Ensure that RotateKubeletServerCertificate is set to true | Finding |" in text
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Workloads on a cluster" in page
    assert "<script>alert" not in page and "<script>alert" not in text
    assert page.count("Hardened nodes alone") == 1
    assert page.count('<tr class="broken">\n<th') == 3


def test_a_report_of_workloads_that_proved_nothing_does_not_say_that_work_runs(run: rundir.RunDir) -> None:
    for group, document in workloads.documents(done(dns=("not_applicable",) * 2), FOUND, ABOUT, "").items():
        run.write(f"workloads/{group}", document)
    run.write("workloads-result", {"cluster": "demo", "kubernetes": None, "baseline": None})
    report.write(run, {})
    text = (run.path / "report.md").read_text(encoding="utf-8")
    assert "**Nothing is proven**: No workload has proven anything on 2 hardened node groups." in text


# Access


def session() -> Any:
    return boto3.session.Session("AKIDTEST", "testing", region_name="eu-central-1")


def test_a_token_is_a_presigned_question_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    token = eks_api.token(session(), "eu-central-1", "demo")
    encoded = token.removeprefix("k8s-aws-v1.")
    url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    parts, query = urlsplit(url), parse_qs(urlsplit(url).query)
    assert parts.netloc == "sts.eu-central-1.amazonaws.com"
    assert query["X-Amz-SignedHeaders"] == ["host;x-k8s-aws-id"]
    assert tokens.user_of(f"Bearer {token}", "demo", "testing") == "AKIDTEST"
    with pytest.raises(Exception, match="Unauthorized"):
        tokens.user_of(f"Bearer {token}", "another", "testing")


@pytest.mark.parametrize(
    ("public", "expected"),
    [
        (False, "Its endpoint is private, so it answers only inside VPC vpc-1"),
        (True, r"Its public endpoint is open to 10.0.0.0/8: is your address among them\?"),
    ],
)
def test_an_endpoint_out_of_reach_names_the_ways_out(public: bool, expected: str, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("", encoding="utf-8")
    network = {"endpointPublicAccess": public, "vpcId": "vpc-1", "publicAccessCidrs": ["10.0.0.0/8"]}
    cluster = {"name": "demo", "endpoint": "https://127.0.0.1:1", "resourcesVpcConfig": network}
    server = eks_api.Server(session(), "eu-central-1", "demo", cluster["endpoint"], "", tries=0)
    with pytest.raises(eks_access.AccessError, match=expected) as caught:
        eks_access.ask(server, cluster)
    assert "--public-access-cidr" in str(caught.value)
    assert "https://127.0.0.1:1" in str(caught.value)


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        ("arn:aws:eks:x", "amazonaws.com"),
        ("arn:aws-cn:eks:x", "amazonaws.com.cn"),
        ("arn:aws-us-gov:eks:x", "amazonaws.com"),
    ],
)
def test_every_partition_has_names_of_its_own(arn: str, expected: str) -> None:
    assert eks_access.suffix(session(), arn) == expected
