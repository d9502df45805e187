"""Role workloads at the sandbox's API server: every workload's failure is seen with its cause, and nothing is left."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils import eks_api
from ansible_collections.cisdriver.amazon_linux.plugins.modules import eks_access, workload_results, workload_sweep
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import workloads
from cisdriver import collection
from cisdriver.sandbox.kubernetes import ApiServer, NodeFacts

pytestmark = pytest.mark.slow
REGION = "eu-central-1"
ADD_ONS = ("vpc-cni", "kube-proxy", "coredns", "aws-ebs-csi-driver", "metrics-server", "eks-pod-identity-agent")
#: As kube-bench prints it, cut down to two checks.
KUBE_BENCH = {
    "Controls": [
        {
            "tests": [
                {
                    "results": [
                        {
                            "test_number": number,
                            "test_desc": "Ensure something (Automated)",
                            "audit": "ps",
                            "status": status,
                            "actual_value": "x",
                            "scored": True,
                            "expected_result": "y",
                        }
                        for number, status in (("3.1.1", "PASS"), ("3.2.9", "FAIL"))
                    ]
                }
            ]
        }
    ]
}


class Cluster:
    """An API server, and an EKS that knows it: DescribeCluster is all that is asked of it."""

    def __init__(self, directory: Path, groups: dict[str, int]) -> None:
        self.directory = directory
        self.server = ApiServer("demo", "1.34", REGION, directory / "journal.jsonl")
        self.server.start()
        for name in ADD_ONS:
            self.server.add_on(name)
        number = 0
        for group, count in groups.items():
            for _ in range(count):
                number += 1
                name = f"ip-10-1-0-{number}.{REGION}.compute.internal"
                self.server.join(NodeFacts(name, group, f"i-{number:017x}", f"{REGION}a", os_image="Amazon Linux 2023"))
        self._eks = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._eks.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.server.close()
        self._eks.shutdown()
        self._eks.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        about = {
            "name": "demo",
            "arn": f"arn:aws:eks:{REGION}:123456789012:cluster/demo",
            "status": "ACTIVE",
            "endpoint": self.server.url,
            "certificateAuthority": {"data": base64.b64encode(self.server.ca_pem.encode()).decode()},
        }

        class Eks(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"cluster": about}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        return Eks

    def start(self, run: str, verb: str = "workloads", **variables: Any) -> subprocess.Popen[str]:
        """A play in a process group of its own."""
        (self.directory / run).mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_"))}
        env = {
            **kept,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._eks.server_port}",
            "ANSIBLE_CONFIG": str(collection.ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(Path(collection.ROOT).parents[2]),
            "ANSIBLE_VERBOSITY": "3",
            "ANSIBLE_CALLBACKS_ENABLED": f"{collection.NAME}.events",
            "CISDRIVER_EVENTS": str(self.directory / run / "events.jsonl"),
        }
        given = {
            "workloads_cluster": "demo",
            "workloads_region": REGION,
            "workloads_run_dir": str(self.directory / run),
            "workloads_poll": 0.2,
            **variables,
        }
        return subprocess.Popen(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                f"{collection.NAME}.{verb}",
                "-e",
                json.dumps(given),
            ],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, run: str, verb: str = "workloads", **variables: Any) -> tuple[int, str]:
        """Exit code and output."""
        play = self.start(run, verb, **variables)
        out, _ = play.communicate(timeout=300)
        assert "module_args" in out, "arguments of tasks are shown, so a token would be"
        assert "k8s-aws-v1" not in out
        for path in (self.directory / run).rglob("*"):
            assert path.is_dir() or "k8s-aws-v1" not in path.read_text(encoding="utf-8"), path
        return play.returncode, out

    def until(self, holds: Callable[[], bool]) -> None:
        over = time.monotonic() + 120
        while not holds() and time.monotonic() < over:
            time.sleep(0.1)

    def read(self, path: str) -> Any:
        return json.loads((self.directory / path).read_text(encoding="utf-8"))

    def results(self, run: str, group: str) -> dict[str, dict[str, Any]]:
        document = self.read(f"{run}/workloads/{group}.json")
        jsonschema.validate(document, collection.schema("results"))
        return {one["id"]: one for one in document["results"]}

    def cordoned(self) -> list[str]:
        nodes = self.api().get("/api/v1/nodes")["items"]
        marked = [one for one in nodes if "cisdriver/cordoned-by" in one["metadata"].get("labels", {})]
        return [one["metadata"]["name"] for one in nodes if one["spec"].get("unschedulable") or one in marked]

    def api(self, tries: int = 5) -> eks_api.Server:
        authority = self.directory / "ca.pem"
        authority.write_text(self.server.ca_pem, encoding="utf-8")
        session = boto3.session.Session("testing", "testing", region_name=REGION)
        return eks_api.Server(session, REGION, "demo", self.server.url, str(authority), tries)


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    made = Cluster(tmp_path, getattr(request, "param", {"level-1": 2}))
    yield made
    made.close()


#: What is ordered per workload, as (kind, name, outcome, parameters), and what its cause has to say.
FAULTS: dict[str, tuple[tuple[str, str, str, dict[str, Any]], str]] = {
    "dns": (
        ("Job", "dns", "ends", {"exit_code": 1, "log": "cisdriver: fail sts is not resolved"}),
        "sts is not resolved",
    ),
    "pod_to_pod": (
        ("Job", "pod-to-pod-client", "unschedulable", {"message": "0/2 nodes: none fits"}),
        "is not scheduled: 0/2",
    ),
    "service": (
        ("Deployment", "service", "refused", {"status": 403, "verb": "create"}),
        "the API server refuses it: Deployment",
    ),
    "node_port": (
        ("Job", "node-port-client", "ends", {"exit_code": 137, "log": "Killed"}),
        "exit code 137; it said: Killed",
    ),
    "egress": (("Job", "egress", "image_pull_fails", {"message": "no basic auth"}), "ImagePullBackOff"),
    "exec_and_logs": (("Pod", "exec-and-logs", "exec", {"stdout": "cisdriver: fail no route"}), "says: no route"),
    "volume": (
        ("PersistentVolumeClaim", "volume", "pending", {"message": "UnauthorizedOperation"}),
        "UnauthorizedOperation",
    ),
    "daemon_set": (
        ("DaemonSet", "daemon-set", "crash_loop", {"exit_code": 2, "log": "boom"}),
        "exit code 2; it said: boom",
    ),
    "autoscaling": (
        ("HorizontalPodAutoscaler", "autoscaling", "no_metrics", {}),
        "HorizontalPodAutoscaler autoscaling: the HPA",
    ),
    "network_policy": (
        ("Job", "network-policy-stranger", "logs", {"log": "cisdriver: fail holds nobody off"}),
        "holds nobody off",
    ),
    "pod_identity": (("Job", "pod-identity", "logs", {"log": "cisdriver: fail no answer"}), "no answer"),
    "non_root": (("Job", "non-root", "ends", {"exit_code": 1}), "container main of pod non-root"),
    "init_and_sidecar": (
        ("Job", "init-and-sidecar", "hangs", {"log": "waits"}),
        "runs and has proven nothing; it said: waits",
    ),
    "kube_bench": (
        ("Job", "kube-bench", "ends", {"exit_code": 1, "log": "No targets configured"}),
        "No targets configured",
    ),
    "drain": (("Deployment", "drain", "image_pull_fails", {}), "ImagePullBackOff"),
}


def test_every_failure_is_seen_with_its_cause_and_everything_is_removed(cluster: Cluster) -> None:
    for (kind, name, outcome, parameters), _ in FAULTS.values():
        cluster.server.order(kind, name, outcome, **{**parameters, **({"log": "x"} if name == "non-root" else {})})
    code, out = cluster.play("run", workloads_deadlines=dict.fromkeys(FAULTS, 2))
    assert code == 0, out
    found = cluster.results("run", "level-1")
    assert set(found) == set(FAULTS)
    for name, (_, expected) in FAULTS.items():
        assert (found[name]["status"], expected in found[name]["reason"]) == ("fail", True), found[name]
    result = cluster.read("run/workloads-result.json")
    assert (result["status"], result["groups"][0]["summary"]["unaccepted"]) == ("findings", len(FAULTS))
    assert cluster.server.objects() == []
    assert cluster.cordoned() == []
    assert not (cluster.directory / "run/cluster-ca.pem").exists()


@pytest.mark.parametrize("cluster", [{"baseline": 2, "level-1": 2, "single": 1}], indirect=True)
def test_proofs_pass_and_are_read_against_the_baseline(cluster: Cluster) -> None:
    for kind, name in (("Job", "*"), ("DaemonSet", "*"), ("Deployment", "*"), ("Pod", "exec-and-logs")):
        cluster.server.order(kind, name, "logs", log="cisdriver: ok seen")
    cluster.server.order("Job", "kube-bench", "logs", log=f"W1121 a warning\n{json.dumps(KUBE_BENCH)}")
    cluster.server.order("Pod", "exec-and-logs", "exec", stdout="cisdriver: ok exec\n")
    cluster.server.order("HorizontalPodAutoscaler", "autoscaling", "utilization", value=400)
    cluster.server.order("Job", "egress", "ends", exit_code=1, log="cisdriver: fail timed out")
    code, out = cluster.play("run", workloads_baseline="baseline", workloads_skip=["volume"])
    assert code == 0, out
    found = cluster.results("run", "level-1")
    assert {name for name, one in found.items() if one["status"] != "pass"} == {"egress"}
    assert found["egress"]["reason"].endswith("fails it as well, so hardening did not do it)")
    assert "volume" not in found
    assert [one["found"] for one in found["drain"]["evidence"]] == ["ok seen", "ok seen"]
    alone = cluster.results("run", "single")
    assert {name for name, one in alone.items() if one["status"] == "not_applicable"} == {"pod_to_pod", "drain"}
    bench = cluster.read("run/kube-bench/level-1.json")
    jsonschema.validate(bench, collection.schema("results"))
    assert [(one["id"], one["status"]) for one in bench["results"]] == [("3.1.1", "pass"), ("3.2.9", "fail")]
    evicted = [one for one in cluster.server.requests("create") if one["path"].endswith("/eviction")]
    assert len(evicted) == 2, "one pod of each group of two nodes"
    assert cluster.server.objects() == []
    assert cluster.cordoned() == []


def test_a_drain_that_the_budget_puts_off_is_tried_again(cluster: Cluster) -> None:
    """And so is a server that throttles and cuts connections."""
    cluster.server.order("Pod", "drain-*", "refused", status=429, verb="create", times=1)
    cluster.server.order("Deployment", "drain", "refused", status=429, verb="create", times=1)
    cluster.server.order("Pod", "*", "cut", verb="list", times=1)
    cluster.server.order("Deployment", "drain", "logs", log="cisdriver: ok serves")
    code, out = cluster.play("run", workloads_only=["drain"])
    assert code == 0, out
    assert cluster.results("run", "level-1")["drain"]["status"] == "pass"
    evictions = [one for one in cluster.server.requests("create") if one["path"].endswith("/eviction")]
    assert [one["status"] for one in evictions] == [429, 201]
    marks = [one["body"]["metadata"] for one in cluster.server.requests("patch", "Node") if "metadata" in one["body"]]
    expires = float(marks[0]["annotations"]["cisdriver/expires"])
    assert 200 < expires - time.time() < 600
    assert cluster.cordoned() == []


def test_nodes_that_another_verification_drains_are_left_to_it(cluster: Cluster) -> None:
    """It marks them when this one has chosen its workloads already."""
    cluster.server.order("Job", "dns", "hangs")
    cluster.server.order("Deployment", "drain", "logs", log="cisdriver: ok serves")
    play = cluster.start("run", workloads_only=["dns", "drain"], workloads_deadlines={"dns": 6})
    cluster.until(lambda: any(one.startswith("Deployment") for one in cluster.server.objects()))
    api = cluster.api()
    api._call("POST", "/api/v1/namespaces", {}, left("alive", time.time() + 999), {"Content-Type": "application/json"})
    nodes = [one["metadata"]["name"] for one in api.get("/api/v1/nodes")["items"]]
    for name in nodes:
        api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {"cisdriver/cordoned-by": "alive"}}})
    out, _ = play.communicate(timeout=120)
    assert play.returncode == 0, out
    drain = cluster.results("run", "level-1")["drain"]
    assert (drain["status"], drain["reason"]) == (
        "not_applicable",
        "another verification drains the nodes it runs on",
    )
    assert cluster.cordoned() == nodes


def test_what_a_killed_play_leaves_is_removed(cluster: Cluster) -> None:
    cluster.server.order("Job", "dns", "hangs")
    play = cluster.start("run", workloads_only=["dns"])
    cluster.until(lambda: any(one.startswith("Job") for one in cluster.server.objects()))
    os.killpg(play.pid, signal.SIGKILL)
    play.communicate(timeout=60)
    assert any(one.startswith("Job") for one in cluster.server.objects())
    code, out = cluster.play("run", "workloads_clean")
    assert code == 0, out
    assert cluster.server.objects() == []


def test_a_cluster_that_knows_the_caller_not_is_told_so(cluster: Cluster) -> None:
    cluster.server.order("Node", "*", "refused", status=403, verb="list", times=9)
    with pytest.raises(eks_access.AccessError, match=r"403.* no access entry .*`cisdriver deploy --admin ARN`"):
        eks_access.ask(cluster.api(), {"name": "demo", "endpoint": cluster.server.url})


def test_a_kubelet_that_is_cut_off_fails_its_own_pods_with_the_servers_words(cluster: Cluster) -> None:
    """The API server reads logs from kubelet's port 10250; what cannot be read holds up nobody else."""
    api = cluster.api()
    options = {"cluster": "demo", "run_id": "run", "only": ["dns", "egress"], "skip": [], "used_ports": [], "now": 0}
    options |= {"deadlines": {"dns": 1, "egress": 9}, "namespace_prefix": "cisdriver", "image": "busybox:1"}
    options |= {"kube_bench_image": "", "kube_bench_benchmark": "", "egress": {"host": "sts", "port": "443"}}
    known = yaml.safe_load((collection.ROOT / "roles/workloads/vars/main.yml").read_text())["workloads_known"]
    plan = workloads.plan(known, workloads.groups(api.get("/api/v1/nodes")["items"]), options)
    for item in [*workloads.namespaces(plan, "run", time.time()), *(one for it in plan for one in it["objects"])]:
        where = f"/apis/batch/v1/namespaces/{item['metadata']['namespace']}/jobs" if item["kind"] == "Job" else ""
        api._call("POST", where or "/api/v1/namespaces", {}, item, {"Content-Type": "application/json"})
    cluster.server.order("Pod", "dns-*", "refused", status=500, verb="get", times=99)
    watch = workload_results.Watch(api, cluster.api(tries=0), "run", plan)
    watch.run(0.2)
    found = {one["name"]: one["finding"] for one in watch.done}
    assert found["egress"]["status"] == "not_applicable"
    assert found["dns"]["status"] == "fail"
    assert "the log of pod dns-" in found["dns"]["reason"] and "is not read: 500" in found["dns"]["reason"]


def left(run: str, expires: float) -> dict[str, Any]:
    metadata = {
        "name": f"cisdriver-{run}",
        "labels": {"cisdriver/run": run},
        "annotations": {"cisdriver/expires": str(expires)},
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


@pytest.mark.parametrize("cluster", [{"level-1": 4}], indirect=True)
def test_a_sweep_takes_its_own_and_what_is_nobodys_any_more(cluster: Cluster) -> None:
    api = cluster.api()
    for run, expires in (("mine", time.time() + 999), ("dead", time.time() - 1), ("alive", time.time() + 999)):
        api._call("POST", "/api/v1/namespaces", {}, left(run, expires), {"Content-Type": "application/json"})
    nodes = [one["metadata"]["name"] for one in api.get("/api/v1/nodes")["items"]]
    # Of a run that is swept, of one that lives, of one whose drain took longer than it may, of one without namespaces.
    for name, run, expires in zip(nodes, ("dead", "alive", "alive", "gone"), (0, 999, -1, 999), strict=True):
        marks = {"cisdriver/expires": str(int(time.time() + expires))} if expires else {}
        metadata = {"labels": {"cisdriver/cordoned-by": run}, "annotations": marks}
        api.patch(f"/api/v1/nodes/{name}", {"metadata": metadata, "spec": {"unschedulable": True}})
    sweep = workload_sweep.Sweep(api, "mine", timeout=10, poll=0.1)
    sweep.run()
    assert sweep.left == {}
    removed = {"nodes": [nodes[0], *nodes[2:]], "namespaces": ["cisdriver-dead", "cisdriver-mine"]}
    assert sweep.removed == removed
    assert cluster.cordoned() == [nodes[1]]
    annotations = [one["metadata"].get("annotations", {}) for one in api.get("/api/v1/nodes")["items"]]
    assert ["cisdriver/expires" in one for one in annotations] == [False, True, False, False]
    assert [one for one in cluster.server.objects() if one.startswith("Namespace")] == ["Namespace cisdriver-alive"]


def test_a_sweep_names_what_it_cannot_remove(cluster: Cluster) -> None:
    api = cluster.api()
    api._call("POST", "/api/v1/namespaces", {}, left("mine", 0), {"Content-Type": "application/json"})
    cluster.server.order("Namespace", "cisdriver-mine", "refused", status=403, verb="delete", times=9)
    sweep = workload_sweep.Sweep(api, "mine", timeout=0.3, poll=0.1)
    sweep.run()
    assert "403" in sweep.left["namespaces cisdriver-mine"]
