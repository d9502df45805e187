"""The API server stand-in: asked by hand, by the official client and by kubernetes.core's modules."""

from __future__ import annotations

import base64
import importlib
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import botocore.auth
import pytest
import urllib3
from ansible.module_utils.testing import patch_module_args
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cisdriver.sandbox.kubernetes import ApiServer, NodeFacts
from cisdriver.sandbox.kubernetes.kinds import KINDS
from kubernetes import client, dynamic
from kubernetes.stream import stream
from kubernetes.watch import Watch

_NOT_RUN = "cisdriver: not run: the sandbox runs no containers\n"
_STRATEGIC = "application/strategic-merge-patch+json"
_MERGE = "application/merge-patch+json"


def _token(cluster: str = "cis", secret: str = "testing", age: timedelta = timedelta(), **more: Any) -> str:
    """As ``aws eks get-token`` makes it. ``more``: ``url``, ``headers``, ``action``."""
    action = more.get("action", "GetCallerIdentity")
    url = f"{more.get('url', 'https://sts.eu-central-1.amazonaws.com')}/?Action={action}&Version=2011-06-15"
    request = AWSRequest("GET", url, headers=more.get("headers", {"x-k8s-aws-id": cluster}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.now(UTC) - age)
        # With the marks that urls escape: a session token is base64.
        SigV4QueryAuth(Credentials("AKIATEST", secret, "a+b/c="), "sts", "eu-central-1", 60).add_auth(request)
    return "k8s-aws-v1." + base64.urlsafe_b64encode(request.url.encode()).decode().rstrip("=")


class Kubernetes:
    """A running server, asked in JSON."""

    def __init__(self, server: ApiServer, directory: Path) -> None:
        self.server, self.token = server, _token()
        self.ca = directory / "ca.pem"
        self.ca.write_text(server.ca_pem)
        self._pool = urllib3.PoolManager(ca_certs=str(self.ca), retries=False)

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any, Any]:
        """Status, body and headers of any request. ``more``: ``token``, ``type``, and parameters of the query."""
        headers = {"Content-Type": more.pop("type", "application/json")}
        if token := more.pop("token", self.token):
            headers["Authorization"] = f"Bearer {token}"
        sent = None if body is None else json.dumps(body).encode()
        reply = self._pool.request(method, f"{self.server.url}{path}?{urlencode(more)}", body=sent, headers=headers)
        text = reply.data.decode()
        return reply.status, json.loads(text) if text[:1] in "{[" else text, reply.headers

    def get(self, path: str, **query: Any) -> Any:
        code, body, _ = self.ask("GET", path, **query)
        assert code == 200, body
        return body

    def make(self, path: str, body: Any) -> Any:
        code, made, _ = self.ask("POST", path, body)
        assert code == 201, made
        return made

    def refused(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, str]:
        code, status, _ = self.ask(method, path, body, **more)
        assert status["kind"] == "Status"
        assert status["code"] == code
        return code, status["message"]

    def pods(self, namespace: str = "work", **query: Any) -> list[Any]:
        found: list[Any] = self.get(f"/api/v1/namespaces/{namespace}/pods", **query)["items"]
        return found

    def events(self, name: str) -> list[str]:
        selector = f"involvedObject.name={name}"
        found = self.get("/api/v1/namespaces/work/events", fieldSelector=selector)["items"]
        return [f"{one['reason']}: {one['message']}" for one in found]

    def configuration(self) -> client.Configuration:
        made = client.Configuration(host=self.server.url)
        made.ssl_ca_cert = str(self.ca)
        made.api_key = {"authorization": f"Bearer {self.token}"}
        return made


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Kubernetes]:
    """A cluster without nodes and add-ons."""
    server = ApiServer("cis", "1.33", "eu-central-1", tmp_path / "kubernetes.jsonl")
    server.start()
    try:
        yield Kubernetes(server, tmp_path)
    finally:
        server.close()


@pytest.fixture
def k8s(bare: Kubernetes) -> Kubernetes:
    """Two nodes in two zones, the add-ons, and the namespace ``work``."""
    for add_on in ("vpc-cni", "coredns", "aws-ebs-csi-driver", "metrics-server"):
        bare.server.add_on(add_on)
    for letter in "ab":
        bare.server.join(NodeFacts(f"node-{letter}", "level-1", f"i-{letter}", f"eu-central-1{letter}"))
    bare.make("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "work"}})
    return bare


def _pod_spec(**more: Any) -> dict[str, Any]:
    return {"containers": [{"name": "main", "image": "busybox:1.37"}], **more}


def _pod(name: str, spec: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **meta}, "spec": spec or _pod_spec()}


def _workload(kind: str, name: str, spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec or _pod_spec()}
    inner = {"selector": {"matchLabels": labels}, "template": template, **more}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": inner}


def _job(name: str, policy: str = "Never", **more: Any) -> dict[str, Any]:
    template = {"spec": _pod_spec(restartPolicy=policy)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **more}}


_PODS = "/api/v1/namespaces/work/pods"
_DEPLOYMENTS = "/apis/apps/v1/namespaces/work/deployments"
_DAEMON_SETS = "/apis/apps/v1/namespaces/work/daemonsets"
_JOBS = "/apis/batch/v1/namespaces/work/jobs"
_CLAIMS = "/api/v1/namespaces/work/persistentvolumeclaims"
_SERVICES = "/api/v1/namespaces/work/services"
_SCALERS = "/apis/autoscaling/v2/namespaces/work/horizontalpodautoscalers"
_BUDGETS = "/apis/policy/v1/namespaces/work/poddisruptionbudgets"


# Who may ask


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"cluster": "another"}, "another cluster's token"),
        ({"secret": "wrong"}, "secret"),
        ({"age": timedelta(minutes=16)}, "expired"),
        ({"headers": {}}, "did not sign the x-k8s-aws-id header"),
        ({"url": "https://sts.evil.example"}, "not of STS"),
        ({"action": "GetSessionToken"}, "GetSessionToken"),
        ("k8s-aws-v1.%%%", "base64"),
        ("eyJhbGciOi", "does not begin with"),
        ("", "no bearer token"),
    ],
)
def test_only_a_token_for_this_cluster_is_taken(bare: Kubernetes, made: Any, why: str) -> None:
    token = made if isinstance(made, str) else _token(**made)  # now: tests are collected long before they run
    assert bare.refused("GET", "/api/v1/nodes", token=token) == (401, "Unauthorized")
    assert why in bare.server.requests()[-1]["why"]


@pytest.mark.parametrize(
    "made",
    [
        {"age": timedelta(minutes=14)},
        {"url": "https://sts.amazonaws.com"},
        {"url": "https://sts.cn-north-1.amazonaws.com.cn"},
        {"url": "http://127.0.0.1:5000"},
    ],
)
def test_a_token_is_good_for_fifteen_minutes_and_from_any_sts(bare: Kubernetes, made: dict[str, Any]) -> None:
    code, _, _ = bare.ask("GET", "/api/v1/nodes", token=_token(**made))
    assert code == 200
    assert bare.server.requests()[-1]["user"] == "AKIATEST"


def test_the_certificate_is_of_the_clusters_own_authority(bare: Kubernetes) -> None:
    with pytest.raises(urllib3.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib3.PoolManager(retries=False).request("GET", f"{bare.server.url}/version")


def test_a_connection_that_says_nothing_holds_up_nobody(bare: Kubernetes) -> None:
    host, _, port = bare.server.url.removeprefix("https://").partition(":")
    with socket.create_connection((host, int(port))):
        assert bare.get("/version")["gitVersion"].startswith("v1.33.")


# What there is


def test_every_kind_is_found_by_discovery_and_can_be_listed(k8s: Kubernetes) -> None:
    found = dynamic.DynamicClient(client.ApiClient(k8s.configuration()), cache_file=str(k8s.ca.parent / "cache"))
    for kind, api in (("Pod", "v1"), ("Deployment", "apps/v1"), ("PodDisruptionBudget", "policy/v1")):
        listed = found.resources.get(kind=kind, api_version=api).get()
        assert listed.kind == f"{kind}List"
    assert found.resources.get(short_names=["hpa"]).kind == "HorizontalPodAutoscaler"
    usage = found.resources.get(kind="NodeMetrics", api_version="metrics.k8s.io/v1beta1").get()
    assert [one.metadata.name for one in usage.items] == ["node-a", "node-b"]


def test_metrics_are_served_by_metrics_server_alone(k8s: Kubernetes) -> None:
    k8s.server.remove_add_on("metrics-server")
    groups = [one["name"] for one in k8s.get("/apis")["groups"]]
    assert "apps" in groups and "metrics.k8s.io" not in groups
    code, _ = k8s.refused("GET", "/apis/metrics.k8s.io/v1beta1/nodes")
    assert code == 503


@pytest.mark.parametrize(
    "path", ["/apis/apps/v1/namespaces/work/statefulsets", "/apis/apps/v2", "/api/v1/pods/a/b/c", "/x"]
)
def test_what_is_not_served_is_not_found(k8s: Kubernetes, path: str) -> None:
    assert k8s.refused("GET", path) == (404, "the server could not find the requested resource")


def test_objects_are_made_read_replaced_and_deleted(k8s: Kubernetes) -> None:
    maps = "/api/v1/namespaces/work/configmaps"
    made = k8s.make(
        maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "m-"}, "data": {"a": "1"}}
    )
    name = made["metadata"]["name"]
    assert name.startswith("m-") and made["metadata"]["uid"]
    again = {**made, "metadata": {"name": name}}
    assert k8s.refused("POST", maps, again) == (409, f'configmaps "{name}" already exists')
    code, changed, _ = k8s.ask("PUT", f"{maps}/{name}", {**made, "data": {"b": "2"}})
    assert (code, changed["data"]) == (200, {"b": "2"})
    code, message = k8s.refused("PUT", f"{maps}/{name}", made)
    assert code == 409 and "the object has been modified" in message
    code, status, _ = k8s.ask("DELETE", f"{maps}/{name}")
    assert (code, status["status"], status["details"]["kind"]) == (200, "Success", "configmaps")
    assert k8s.refused("GET", f"{maps}/{name}") == (404, f'configmaps "{name}" not found')


def test_nothing_is_made_in_a_namespace_that_is_not_there(k8s: Kubernetes) -> None:
    assert k8s.refused("POST", "/api/v1/namespaces/nowhere/pods", _pod("p")) == (404, 'namespaces "nowhere" not found')


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({"labelSelector": "app=one"}, ["one"]),
        ({"labelSelector": "app!=one"}, ["three", "two"]),
        ({"labelSelector": "app in (one, two),tier"}, ["two"]),
        ({"labelSelector": "!tier"}, ["one", "three"]),
        ({"labelSelector": "app notin (one)"}, ["three", "two"]),
        ({"fieldSelector": "metadata.name=two"}, ["two"]),
        ({"fieldSelector": "spec.restartPolicy!=Always"}, ["three"]),
        ({"fieldSelector": "status.phase=Succeeded,metadata.namespace=work"}, ["three"]),
    ],
)
def test_lists_are_narrowed_by_labels_and_fields(k8s: Kubernetes, selector: dict[str, str], names: list[str]) -> None:
    k8s.make(_PODS, _pod("one", labels={"app": "one"}))
    k8s.make(_PODS, _pod("two", labels={"app": "two", "tier": ""}))
    k8s.make(_PODS, _pod("three", _pod_spec(restartPolicy="Never")))
    assert [one["metadata"]["name"] for one in k8s.pods(**selector)] == names


def test_a_field_that_none_is_selected_by_is_refused(k8s: Kubernetes) -> None:
    assert k8s.refused("GET", _PODS, fieldSelector="spec.color=red") == (400, 'field label not supported: "spec.color"')


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (_pod("p", _pod_spec(colour="red")), 400, 'strict decoding error: unknown field "spec.colour"'),
        (
            _pod("p", _pod_spec(hostPID="yes")),
            400,
            "cannot unmarshal string into Go struct field spec.hostPID of type bool",
        ),
        (_pod("p", {"containers": {}}), 400, "spec.containers of type []V1Container"),
        (_pod("p", {"containers": [{"image": "x"}]}), 422, "spec.containers[0].name: Required value"),
        (_pod("p", {"containers": [{"name": "main"}]}), 422, "spec.containers[0].image: Required value"),
        (_pod("p", {"containers": []}), 422, "spec.containers: Required value"),
        (_pod("P_1"), 422, 'metadata.name: Invalid value: "P_1"'),
        (_pod("p", _pod_spec(restartPolicy="Maybe")), 422, 'Unsupported value: "Maybe": supported values: "Always"'),
        (_pod("p", labels={"a": "b c"}), 422, 'metadata.labels: Invalid value: "b c"'),
        (_pod("p", namespace="other"), 400, "does not match the namespace sent on the request"),
        (_pod("p", _pod_spec(serviceAccountName="nobody")), 403, 'serviceaccount "nobody" not found'),
        ({**_pod("p"), "kind": "Job"}, 400, "does not match the expected ones (v1, Pod)"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(k8s: Kubernetes, body: Any, code: int, message: str) -> None:
    found, text = k8s.refused("POST", _PODS, body)
    assert (found, message in text) == (code, True), text
    assert k8s.pods() == []


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (_DEPLOYMENTS, _workload("Deployment", "d", selector={"matchLabels": {"x": "y"}}), "`selector` does not match"),
        (
            _DAEMON_SETS,
            _workload("DaemonSet", "d", _pod_spec(restartPolicy="Never")),
            "spec.template.spec.restartPolicy",
        ),
        (_JOBS, _job("j", "Always"), 'Required value: valid values: "OnFailure", "Never"'),
        (
            _SERVICES,
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "s"},
                "spec": {"type": "NodePort", "ports": []},
            },
            "spec.ports: Required value",
        ),
        (
            _CLAIMS,
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {}},
            "spec.accessModes: Required value",
        ),
    ],
)
def test_what_fits_the_types_may_be_invalid_all_the_same(k8s: Kubernetes, path: str, body: Any, message: str) -> None:
    code, text = k8s.refused("POST", path, body)
    assert (code, message in text) == (422, True), text


def test_fields_with_names_that_python_keeps_for_itself(k8s: Kubernetes) -> None:
    probe = {"exec": {"command": ["true"]}}
    made = k8s.make(_PODS, _pod("p", {"containers": [{"name": "a", "image": "b", "readinessProbe": probe}]}))
    assert made["spec"]["containers"][0]["readinessProbe"]["exec"] == {"command": ["true"]}
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
    spec = {"podSelector": {}, "ingress": [{"from": [block], "ports": [{"port": 80}]}]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec": spec}
    made = k8s.make("/apis/networking.k8s.io/v1/namespaces/work/networkpolicies", policy)
    assert made["spec"]["ingress"][0]["from"] == [block]
    assert made["spec"]["policyTypes"] == ["Ingress"]


def test_a_secret_is_base64(k8s: Kubernetes) -> None:
    secrets = "/api/v1/namespaces/work/secrets"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    assert k8s.refused("POST", secrets, {**secret, "data": {"a": "%"}})[0] == 400
    assert k8s.make(secrets, {**secret, "stringData": {"a": "b"}})["data"] == {"a": "Yg=="}


def test_a_dry_run_checks_and_makes_nothing(k8s: Kubernetes) -> None:
    code, made, _ = k8s.ask("POST", _DEPLOYMENTS, _workload("Deployment", "d"), dryRun="All")
    assert (code, made["spec"]["replicas"]) == (201, 1)
    assert k8s.refused("POST", _DEPLOYMENTS, _workload("Deployment", "d", colour=1), dryRun="All")[0] == 400
    k8s.make(_PODS, _pod("p"))
    k8s.ask("DELETE", f"{_PODS}/p", dryRun="All")
    assert [one["metadata"]["name"] for one in k8s.pods()] == ["p"]


def test_patches_of_each_kind(k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "d"))
    side = {"name": "side", "image": "busybox:1.37"}
    inner = {"spec": {"template": {"spec": {"containers": [side]}}}}

    def containers(patch: Any, kind: str, **query: str) -> list[str]:
        code, one, _ = k8s.ask("PATCH", f"{_DEPLOYMENTS}/d", patch, type=kind, **query)
        assert code == 200, one
        return [found["name"] for found in one["spec"]["template"]["spec"]["containers"]]

    assert containers(inner, _STRATEGIC) == ["main", "side"]
    assert containers(inner, _MERGE) == ["side"]
    add = [{"op": "add", "path": "/spec/template/spec/containers/0", "value": {**side, "name": "first"}}]
    assert containers(add, "application/json-patch+json") == ["first", "side"]
    gone = {"spec": {"template": {"spec": {"containers": [{"name": "first", "$patch": "delete"}]}}}}
    assert containers(gone, _STRATEGIC) == ["side"]
    side["name"] = {"a": "dict"}
    code, message = k8s.refused("PATCH", f"{_DEPLOYMENTS}/d", inner, type=_STRATEGIC)
    assert code == 400 and "does not contain declared merge key: name" in message
    code, message = k8s.refused("PATCH", f"{_DEPLOYMENTS}/d", inner, type="application/json")
    assert code == 415 and _STRATEGIC in message
    assert k8s.get(f"{_DEPLOYMENTS}/d")["metadata"]["generation"] == 5


def test_what_is_applied_goes_when_it_is_applied_no_more(k8s: Kubernetes) -> None:
    path = "/api/v1/namespaces/work/configmaps/c"
    one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}
    kind = "application/apply-patch+yaml"
    assert k8s.ask("PATCH", path, one, type=kind, fieldManager="me")[0] == 201
    k8s.ask("PATCH", path, {"data": {"c": "3"}}, type=_MERGE)
    code, again, _ = k8s.ask("PATCH", path, {**one, "data": {"a": "1"}}, type=kind, fieldManager="me")
    assert (code, again["data"]) == (200, {"a": "1", "c": "3"})
    assert k8s.refused("PATCH", path, one, type=kind)[0] == 422


def test_a_collection_is_deleted_by_its_labels(k8s: Kubernetes) -> None:
    for name in ("one", "two"):
        k8s.make(_PODS, _pod(name, labels={"app": name}))
    k8s.ask("DELETE", _PODS, labelSelector="app=one")
    assert [one["metadata"]["name"] for one in k8s.pods()] == ["two"]


def test_a_watch_tells_what_happens(k8s: Kubernetes) -> None:
    core = client.CoreV1Api(client.ApiClient(k8s.configuration()))
    version = k8s.get(_PODS)["metadata"]["resourceVersion"]
    k8s.make(_PODS, _pod("p", _pod_spec(restartPolicy="Never")))
    k8s.ask("DELETE", f"{_PODS}/p")
    events = Watch().stream(core.list_namespaced_pod, "work", resource_version=version, timeout_seconds=1)
    seen = [(one["type"], one["object"].status.phase) for one in events]
    assert seen[0] == ("ADDED", "Pending")
    assert seen[-1] == ("DELETED", "Succeeded")


# Workloads


def test_a_deployment_is_spread_ready_and_gone_with_its_pods(k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", replicas=2))
    apps = client.AppsV1Api(client.ApiClient(k8s.configuration()))
    status = apps.read_namespaced_deployment("web", "work").status
    assert (status.ready_replicas, status.available_replicas, status.unavailable_replicas) == (2, 2, None)
    assert {one.type: one.status for one in status.conditions} == {"Available": "True", "Progressing": "True"}
    assert sorted(one["spec"]["nodeName"] for one in k8s.pods()) == ["node-a", "node-b"]
    apps.delete_namespaced_deployment("web", "work", propagation_policy="Foreground")
    assert k8s.server.objects() == ["Namespace work"]


def test_orphans_are_left(k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web"))
    k8s.ask("DELETE", f"{_DEPLOYMENTS}/web", propagationPolicy="Orphan")
    assert len(k8s.pods()) == 1


def test_a_bad_image_leaves_the_old_pods_at_work(k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web"))
    old = k8s.pods()[0]["metadata"]["name"]
    k8s.server.order("Deployment", "web", "image_pull_fails", message="not found")
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nowhere:1"}]}}}}
    k8s.ask("PATCH", f"{_DEPLOYMENTS}/web", image, type=_STRATEGIC)
    states = {one["metadata"]["name"]: one["status"]["phase"] for one in k8s.pods()}
    assert old in states and sorted(states.values()) == ["Pending", "Running"]


def test_an_update_replaces_the_pods(k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", replicas=2))
    old = {one["metadata"]["uid"] for one in k8s.pods()}
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "busybox:2"}]}}}}
    k8s.ask("PATCH", f"{_DEPLOYMENTS}/web", image, type=_STRATEGIC)
    new = {one["metadata"]["uid"] for one in k8s.pods()}
    assert len(new) == 2 and not old & new
    status = k8s.get(f"{_DEPLOYMENTS}/web")["status"]
    assert (status["updatedReplicas"], status["observedGeneration"]) == (2, 2)


def test_a_scale_is_read_and_set(k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web"))
    apps = client.AppsV1Api(client.ApiClient(k8s.configuration()))
    apps.patch_namespaced_deployment_scale("web", "work", {"spec": {"replicas": 3}})
    assert apps.read_namespaced_deployment_scale("web", "work").status.replicas == 3
    assert len(k8s.pods()) == 3


def test_a_daemon_set_has_a_pod_on_every_node_that_it_may_use(k8s: Kubernetes) -> None:
    k8s.ask("PATCH", "/api/v1/nodes/node-a", {"spec": {"unschedulable": True}}, type=_MERGE)
    k8s.make(_DAEMON_SETS, _workload("DaemonSet", "agent"))
    assert k8s.get(f"{_DAEMON_SETS}/agent")["status"]["numberReady"] == 2
    taint = [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]
    k8s.server.join(NodeFacts("node-c", "level-2", "i-c", "eu-central-1a", taints=taint))
    assert k8s.get(f"{_DAEMON_SETS}/agent")["status"]["desiredNumberScheduled"] == 2
    k8s.server.leave("node-b")
    assert [one["spec"]["nodeName"] for one in k8s.pods()] == ["node-a"]


def test_a_job_completes_and_says_that_nothing_ran(k8s: Kubernetes) -> None:
    k8s.make(_JOBS, _job("proof", ttlSecondsAfterFinished=3600))
    status = k8s.get(f"{_JOBS}/proof")["status"]
    assert (status["succeeded"], status["conditions"][-1]["type"]) == (1, "Complete")
    pod = k8s.pods(labelSelector="job-name=proof")[0]
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert k8s.get(f"{_PODS}/{pod['metadata']['name']}/log") == _NOT_RUN
    k8s.ask("PATCH", f"{_JOBS}/proof", {"spec": {"ttlSecondsAfterFinished": 0}}, type=_MERGE)
    assert k8s.server.objects() == ["Namespace work"]


def test_a_job_that_fails_is_tried_until_its_limit(k8s: Kubernetes) -> None:
    k8s.server.order("Job", "work/pro*", "ends", exit_code=3, log="cisdriver: fail no route\n")
    k8s.server.order("Job", "other/*", "hangs")
    k8s.make(_JOBS, _job("proof", backoffLimit=1))
    status = k8s.get(f"{_JOBS}/proof")["status"]
    assert (status["failed"], status["conditions"][-1]["reason"]) == (2, "BackoffLimitExceeded")
    pod = k8s.pods()[0]
    assert pod["status"]["phase"] == "Failed"
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert k8s.get(f"{_PODS}/{pod['metadata']['name']}/log", tailLines=1) == "cisdriver: fail no route\n"


def test_a_job_that_hangs_meets_its_deadline(k8s: Kubernetes) -> None:
    k8s.server.order("Job", "proof", "hangs")
    k8s.make(_JOBS, _job("proof"))
    assert k8s.get(f"{_JOBS}/proof")["status"]["active"] == 1
    k8s.ask("PATCH", f"{_JOBS}/proof", {"spec": {"activeDeadlineSeconds": 0}}, type=_MERGE)
    assert k8s.get(f"{_JOBS}/proof")["status"]["conditions"][-1]["reason"] == "DeadlineExceeded"


def test_a_crash_loop_shows_state_log_and_event(k8s: Kubernetes) -> None:
    k8s.server.order("Pod", "p", "crash_loop", log="segfault", exit_code=139)
    k8s.make(_PODS, _pod("p"))
    status = k8s.get(f"{_PODS}/p")["status"]["containerStatuses"][0]
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert (status["lastState"]["terminated"]["exitCode"], status["restartCount"]) == (139, 5)
    assert k8s.get(f"{_PODS}/p/log", previous="true") == "segfault\n"
    assert any(one.startswith("BackOff") for one in k8s.events("p"))


def test_an_image_that_cannot_be_pulled(k8s: Kubernetes) -> None:
    k8s.server.order("Pod", "p", "image_pull_fails", message="i/o timeout")
    k8s.make(_PODS, _pod("p"))
    waiting = k8s.get(f"{_PODS}/p")["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "ImagePullBackOff" and "i/o timeout" in waiting["message"]
    assert k8s.refused("GET", f"{_PODS}/p/log") == (
        400,
        'container "main" in pod "p" is trying and failing to pull image',
    )


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, "2 node(s) didn't match Pod's node affinity/selector"),
        ({"containers": [{"name": "a", "image": "b", "resources": {"requests": {"cpu": 64}}}]}, "2 Insufficient cpu"),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]}, 'claim "none" not found'),
    ],
)
def test_a_pod_that_fits_nowhere_says_why(k8s: Kubernetes, more: dict[str, Any], why: str) -> None:
    k8s.make(_PODS, _pod("p", _pod_spec(**more)))
    pod = k8s.get(f"{_PODS}/p")
    assert pod["status"]["phase"] == "Pending" and "nodeName" not in pod["spec"]
    assert why in pod["status"]["conditions"][0]["message"]
    assert any(why in one for one in k8s.events("p"))


def test_affinity_ports_and_spread_decide_the_node(k8s: Kubernetes) -> None:
    term = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", _pod_spec(affinity=apart), replicas=3))
    assert sorted(one["status"]["phase"] for one in k8s.pods()) == ["Pending", "Running", "Running"]
    port = {"containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 80, "hostPort": 80}]}]}
    for name in ("one", "two", "three"):
        k8s.make(_PODS, _pod(name, port))
    assert "didn't have free ports" in k8s.get(f"{_PODS}/three")["status"]["conditions"][0]["message"]


def test_what_a_pod_mounts_must_be_there(k8s: Kubernetes) -> None:
    volume = {"name": "v", "configMap": {"name": "settings"}}
    k8s.make(_PODS, _pod("p", _pod_spec(volumes=[volume])))
    assert any('configmap "settings" not found' in one for one in k8s.events("p"))
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    k8s.make("/api/v1/namespaces/work/configmaps", made)
    assert k8s.get(f"{_PODS}/p")["status"]["phase"] == "Running"


def test_init_containers_and_sidecars_have_a_state(k8s: Kubernetes) -> None:
    first = {"name": "first", "image": "b"}
    side = {"name": "side", "image": "b", "restartPolicy": "Always"}
    k8s.make(_PODS, _pod("p", _pod_spec(initContainers=[first, side])))
    states = [one["state"] for one in k8s.get(f"{_PODS}/p")["status"]["initContainerStatuses"]]
    assert states[0]["terminated"]["exitCode"] == 0 and "running" in states[1]
    assert k8s.get(f"{_PODS}/p/log", container="side") == _NOT_RUN


def test_an_init_container_that_fails_keeps_the_pod_from_starting(k8s: Kubernetes) -> None:
    k8s.server.order("Pod", "p", "ends", exit_code=1, log="no such host", container="first")
    k8s.make(_PODS, _pod("p", _pod_spec(initContainers=[{"name": "first", "image": "b"}])))
    status = k8s.get(f"{_PODS}/p")["status"]
    assert status["phase"] == "Pending"
    assert status["initContainerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    assert k8s.get(f"{_PODS}/p/log", container="first") == "no such host\n"


# Services, volumes, scaling, disruption


def test_a_service_has_addresses_ports_and_endpoints(k8s: Kubernetes) -> None:
    container = {"name": "a", "image": "b", "ports": [{"containerPort": 8080, "name": "web"}]}
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", {"containers": [container]}, replicas=2))
    spec = {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}]}
    made = k8s.make(_SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    assert made["spec"]["clusterIP"].startswith("172.20.") and made["spec"]["ports"][0]["nodePort"] >= 30000
    slices = "/apis/discovery.k8s.io/v1/namespaces/work/endpointslices"
    found = k8s.get(slices, labelSelector="kubernetes.io/service-name=web")["items"][0]
    assert found["ports"][0]["port"] == 8080
    addresses = {one["addresses"][0] for one in found["endpoints"] if one["conditions"]["ready"]}
    assert addresses == {one["status"]["podIP"] for one in k8s.pods()}
    code, same, _ = k8s.ask("PATCH", f"{_SERVICES}/web", {"spec": {"ports": [{"port": 80}]}}, type=_MERGE)
    assert (code, same["spec"]["ports"][0]["nodePort"]) == (200, made["spec"]["ports"][0]["nodePort"])


def _claim(storage_class: str = "gp2") -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec["storageClassName"] = storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}


_USER = _pod_spec(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])


def test_a_claim_waits_for_its_pod_is_bound_in_its_zone_and_kept_while_used(k8s: Kubernetes) -> None:
    k8s.make(_CLAIMS, _claim())
    assert k8s.get(f"{_CLAIMS}/data")["status"]["phase"] == "Pending"
    assert any(one.startswith("WaitForFirstConsumer") for one in k8s.events("data"))
    k8s.make(_PODS, _pod("p", {**_USER, "nodeSelector": {"kubernetes.io/hostname": "node-b"}}))
    claim = k8s.get(f"{_CLAIMS}/data")
    volume = k8s.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
    assert (claim["status"]["phase"], volume["metadata"]["labels"]["topology.kubernetes.io/zone"]) == (
        "Bound",
        "eu-central-1b",
    )
    k8s.ask("DELETE", f"{_CLAIMS}/data")
    assert "deletionTimestamp" in k8s.get(f"{_CLAIMS}/data")["metadata"]
    k8s.ask("DELETE", f"{_PODS}/p")
    assert k8s.server.objects() == ["Namespace work"]


@pytest.mark.parametrize("cause", ["order", "driver", "class"])
def test_a_claim_that_cannot_be_met_stays_pending_with_a_cause(k8s: Kubernetes, cause: str) -> None:
    words = {"order": "quota exceeded", "driver": "external provisioner", "class": '"none" not found'}[cause]
    if cause == "order":
        k8s.server.order("PersistentVolumeClaim", "data", "pending", message="quota exceeded")
    if cause == "driver":
        k8s.server.remove_add_on("aws-ebs-csi-driver")
    k8s.make(_CLAIMS, _claim("none" if cause == "class" else "gp2"))
    k8s.make(_PODS, _pod("p", _USER))
    assert k8s.get(f"{_CLAIMS}/data")["status"]["phase"] == "Pending"
    assert k8s.get(f"{_PODS}/p")["status"]["phase"] == "Pending"
    assert any(words in one for one in k8s.events("data"))


def _scaler(name: str = "web") -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    usage = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 4}
    spec["metrics"] = [{"type": "Resource", "resource": usage}]
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}


_BUSY = {"containers": [{"name": "a", "image": "b", "resources": {"requests": {"cpu": "100m"}}}]}


def test_an_autoscaler_scales_by_the_utilization_that_is_ordered(k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", _BUSY))
    k8s.make(_SCALERS, _scaler())
    status = k8s.get(f"{_SCALERS}/web")["status"]
    assert status["currentMetrics"][0]["resource"]["current"]["averageUtilization"] == 0
    k8s.server.order("HorizontalPodAutoscaler", "web", "utilization", value=90)
    scaled = k8s.get(f"{_SCALERS}/web")["status"]
    assert (scaled["desiredReplicas"], len(k8s.pods())) == (4, 4)


@pytest.mark.parametrize("cause", ["order", "server", "request"])
def test_an_autoscaler_without_figures_says_why(k8s: Kubernetes, cause: str) -> None:
    words = {"order": "no metrics returned", "server": "could not find", "request": "missing request for cpu"}[cause]
    if cause == "order":
        k8s.server.order("HorizontalPodAutoscaler", "*", "no_metrics")
    if cause == "server":
        k8s.server.remove_add_on("metrics-server")
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", None if cause == "request" else _BUSY))
    k8s.make(_SCALERS, _scaler())
    active = next(one for one in k8s.get(f"{_SCALERS}/web")["status"]["conditions"] if one["type"] == "ScalingActive")
    assert (active["status"], active["reason"]) == ("False", "FailedGetResourceMetric")
    assert words in active["message"]


def test_an_eviction_honours_the_budget_and_the_pod_comes_back_elsewhere(k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", replicas=2))
    spec = {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 2}
    k8s.make(
        _BUDGETS, {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": spec}
    )
    k8s.ask("PATCH", "/api/v1/nodes/node-a", {"spec": {"unschedulable": True}}, type=_MERGE)
    name = next(one["metadata"]["name"] for one in k8s.pods() if one["spec"]["nodeName"] == "node-a")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "work"}}
    code, status, headers = k8s.ask("POST", f"{_PODS}/{name}/eviction", eviction)
    assert (code, "Retry-After" in headers) == (429, False)
    assert status["details"]["causes"][0]["message"].endswith("needs 2 healthy pods and has 2 currently")
    k8s.ask("PATCH", f"{_BUDGETS}/web", {"spec": {"minAvailable": 1}}, type=_MERGE)
    assert k8s.ask("POST", f"{_PODS}/{name}/eviction", eviction)[0] == 201
    assert {one["spec"]["nodeName"] for one in k8s.pods()} == {"node-b"}


def test_what_is_shown_fits_the_clients_models(k8s: Kubernetes) -> None:
    k8s.server.order("Job", "bad", "ends", exit_code=2)
    k8s.server.order("Pod", "loops", "crash_loop")
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", _BUSY, replicas=2))
    k8s.make(_DAEMON_SETS, _workload("DaemonSet", "agent"))
    k8s.make(_SCALERS, _scaler())
    k8s.make(_CLAIMS, _claim())
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}}
    k8s.make(_BUDGETS, budget | {"spec": {"selector": {}, "maxUnavailable": "50%"}})
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    k8s.make(_SERVICES, service | {"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
    for pod in (_pod("user", _USER), _pod("loops"), _pod("waits", _pod_spec(nodeSelector={"disk": "ssd"}))):
        k8s.make(_PODS, pod)
    for job in (_job("good"), _job("bad", "OnFailure")):
        k8s.make(_JOBS, job)
    seen = 0
    for kind in KINDS.values():
        prefix = f"/apis/{kind.api_version}" if kind.group else "/api/v1"
        for one in k8s.get(f"{prefix}/{kind.plural}")["items"]:
            getattr(client.models, kind.model).model_validate(one)
            seen += 1
    assert seen > 60


def test_a_namespace_takes_all_with_it(k8s: Kubernetes) -> None:
    k8s.make(_CLAIMS, _claim())
    k8s.make(_PODS, _pod("p", _USER))
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web"))
    code, gone, _ = k8s.ask("DELETE", "/api/v1/namespaces/work")
    assert (code, gone["status"]["phase"]) == (200, "Terminating")
    assert k8s.refused("GET", "/api/v1/namespaces/work")[0] == 404
    assert k8s.server.objects() == []
    assert k8s.refused("DELETE", "/api/v1/namespaces/kube-system")[0] == 403


def test_a_finalizer_holds_an_object_and_its_namespace(k8s: Kubernetes) -> None:
    maps = "/api/v1/namespaces/work/configmaps"
    meta = {"name": "c", "finalizers": ["example.com/hold"]}
    k8s.make(maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    k8s.ask("DELETE", "/api/v1/namespaces/work")
    assert k8s.get("/api/v1/namespaces/work")["status"]["phase"] == "Terminating"
    code, message = k8s.refused("POST", _PODS, _pod("p"))
    assert code == 403 and "because it is being terminated" in message
    k8s.ask("PATCH", f"{maps}/c", {"metadata": {"finalizers": None}}, type=_MERGE)
    assert k8s.server.objects() == []


# Nodes and add-ons


def test_a_node_without_a_network_is_not_ready_and_takes_no_pods(bare: Kubernetes) -> None:
    bare.server.join(NodeFacts("node-a", "level-1", "i-0a", "eu-central-1a", labels={"cisdriver/level": "1"}))
    node = bare.get("/api/v1/nodes/node-a")
    assert node["spec"]["providerID"] == "aws:///eu-central-1a/i-0a"
    assert node["metadata"]["labels"]["eks.amazonaws.com/nodegroup"] == "level-1"
    assert node["metadata"]["labels"]["cisdriver/level"] == "1"
    assert "cni plugin not initialized" in node["status"]["conditions"][-1]["message"]
    bare.server.add_on("coredns")
    assert not bare.server.add_on_ready("coredns")
    bare.server.add_on("vpc-cni")
    assert bare.server.ready_nodes("level-1") == ["node-a"]
    assert bare.server.add_on_ready("coredns")


def test_a_node_can_be_ordered_to_be_ill(k8s: Kubernetes) -> None:
    k8s.server.order("Node", "node-b", "not_ready", message="PLEG is not healthy")
    assert k8s.server.ready_nodes("level-1") == ["node-a"]
    assert k8s.get("/api/v1/nodes/node-b")["status"]["conditions"][-1]["message"] == "PLEG is not healthy"


def test_pods_of_a_node_that_leaves_are_made_elsewhere(k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", replicas=2))
    k8s.server.leave("node-a")
    assert [one["spec"]["nodeName"] for one in k8s.pods()] == ["node-b", "node-b"]


def test_an_add_on_that_is_not_known_is_refused(bare: Kubernetes) -> None:
    with pytest.raises(ValueError, match="the sandbox knows vpc-cni"):
        bare.server.add_on("adot")


# Logs and commands


def test_a_command_says_what_is_ordered_and_ends_with_its_code(k8s: Kubernetes) -> None:
    k8s.make(_PODS, _pod("p"))
    core = client.CoreV1Api(client.ApiClient(k8s.configuration()))

    def run() -> tuple[str, str, int]:
        options = {"stdout": True, "stderr": True, "stdin": False, "tty": False, "_preload_content": False}
        found = stream(core.connect_get_namespaced_pod_exec, "p", "work", command=["id"], **options)
        found.run_forever(timeout=10)
        return found.read_stdout(), found.read_stderr(), found.returncode

    assert run() == (_NOT_RUN, "", 0)
    k8s.server.order("Pod", "p", "exec", stdout="x" * 100_000, stderr="oh", exit_code=2)
    assert run() == ("x" * 100_000, "oh", 2)
    line = k8s.server.requests()[-1]
    assert (line["status"], line["path"]) == (101, f"{_PODS}/p/exec")


def test_a_command_needs_a_running_container_and_a_websocket(k8s: Kubernetes) -> None:
    k8s.make(_PODS, _pod("done", _pod_spec(restartPolicy="Never")))
    k8s.make(_PODS, _pod("p"))
    assert "completed pod" in k8s.refused("GET", f"{_PODS}/done/exec", command="id")[1]
    assert k8s.refused("GET", f"{_PODS}/p/exec", command="id")[0] == 400
    assert k8s.refused("GET", f"{_PODS}/p/exec")[1].startswith("you must specify at least 1 command")


def test_the_log_of_one_of_several_containers_is_asked_for_by_name(k8s: Kubernetes) -> None:
    two = [{"name": name, "image": "b"} for name in ("one", "two")]
    k8s.make(_PODS, _pod("p", {"containers": two}))
    k8s.server.order("Pod", "p", "logs", log="1\n2\n3\n", container="two")
    code, message = k8s.refused("GET", f"{_PODS}/p/log")
    assert (code, message) == (400, "a container name must be specified for pod p, choose one of: [one two]")
    assert k8s.get(f"{_PODS}/p/log", container="one") == _NOT_RUN
    assert k8s.get(f"{_PODS}/p/log", container="two", tailLines=2) == "2\n3\n"
    assert k8s.refused("GET", f"{_PODS}/p/log", container="three")[0] == 400


# Faults and the journal


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_refusal_that_is_ordered_comes_so_often_and_no_more(k8s: Kubernetes, status: int) -> None:
    k8s.server.order("Pod", "*", "refused", status=status, verb="create", times=1, retry_after=7)
    code, body, headers = k8s.ask("POST", _PODS, _pod("p"))
    assert (code, headers["Retry-After"], body["details"]["retryAfterSeconds"]) == (status, "7", 7)
    assert k8s.pods() == []
    k8s.make(_PODS, _pod("p"))


def test_a_connection_can_be_cut(k8s: Kubernetes) -> None:
    k8s.server.order("Pod", "p", "cut", verb="get")
    k8s.make(_PODS, _pod("p"))
    with pytest.raises(urllib3.exceptions.ProtocolError):
        k8s.ask("GET", f"{_PODS}/p")
    assert k8s.server.requests()[-1]["status"] == 0
    assert k8s.get(f"{_PODS}/p")["metadata"]["name"] == "p"


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (("Pod", "p", "vanishes", {}), "no outcome 'vanishes'; there are unschedulable"),
        (("Node", "n", "ends", {}), "ends is for DaemonSet, Deployment, Job"),
        (("Pod", "p", "ends", {"code": 1}), "ends has no parameter code; it has log, exit_code"),
        (("Pod", "p", "refused", {"status": 418}), "status 418"),
    ],
)
def test_an_order_that_means_nothing_is_refused(bare: Kubernetes, order: Any, message: str) -> None:
    kind, name, outcome, parameters = order
    with pytest.raises(ValueError, match=message):
        bare.server.order(kind, name, outcome, **parameters)


def test_orders_journal_and_objects_are_there_by_http(k8s: Kubernetes) -> None:
    order = {"kind": "Job", "name": "j", "outcome": "ends", "exit_code": 1}
    assert k8s.ask("POST", "/_sandbox/orders", order, token="")[1][0]["parameters"]["exit_code"] == 1
    code, reply, _ = k8s.ask("POST", "/_sandbox/orders", {"kind": "Job"}, token="")
    assert code == 400 and "kind, name, outcome" in reply["error"]
    k8s.make(_PODS, _pod("p"))
    line = k8s.ask("GET", "/_sandbox/requests", token="")[1][-1]
    assert {key: line[key] for key in ("verb", "kind", "namespace", "name", "status", "user")} == {
        "verb": "create",
        "kind": "Pod",
        "namespace": "work",
        "name": "p",
        "status": 201,
        "user": "AKIATEST",
    }
    assert line["body"]["spec"]["containers"][0]["image"] == "busybox:1.37"
    assert k8s.server.control("objects") == ["Namespace work", "Pod work/p"]


# kubernetes.core


class Modules:
    """kubernetes.core's modules, run in this process against the server."""

    def __init__(self, k8s: Kubernetes, capsys: pytest.CaptureFixture[str]) -> None:
        self._access = {"host": k8s.server.url, "ca_cert": str(k8s.ca), "api_key": k8s.token}
        self._capsys = capsys

    def run(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        module = importlib.import_module(f"ansible_collections.kubernetes.core.plugins.modules.{name}")
        with patch_module_args({**self._access, **arguments}), pytest.raises(SystemExit):
            module.main()
        reply: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return reply


@pytest.fixture
def modules(k8s: Kubernetes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Modules:
    # Discovery is cached in the temporary directory by the server's address, which another test may have had.
    monkeypatch.setattr("tempfile.tempdir", str(k8s.ca.parent))
    return Modules(k8s, capsys)


def test_the_module_k8s_makes_waits_changes_nothing_twice_and_deletes(modules: Modules) -> None:
    web = _workload("Deployment", "web", replicas=2)
    ask = {"namespace": "work", "wait": True, "wait_timeout": 5, "wait_sleep": 1}
    made = modules.run("k8s", definition=web, **ask)
    assert made["changed"] and made["result"]["status"]["availableReplicas"] == 2
    for apply in (False, True):
        modules.run("k8s", definition=web, apply=apply, **ask)
        assert modules.run("k8s", definition=web, apply=apply, **ask)["changed"] is False
    changed = modules.run("k8s", definition={**web, "spec": {**web["spec"], "replicas": 3}}, **ask)
    assert changed["method"] == "update" and changed["result"]["status"]["replicas"] == 3
    assert modules.run("k8s", definition=web, _ansible_check_mode=True, **ask)["changed"]
    assert modules.run("k8s", definition=web, state="absent", **ask)["changed"]
    assert modules.run("k8s_info", kind="Pod", namespace="work")["resources"] == []


def test_the_modules_say_what_the_server_refuses(modules: Modules, k8s: Kubernetes) -> None:
    failed = modules.run("k8s", definition=_pod("p", _pod_spec(colour="red")), namespace="work")
    assert 'unknown field \\"spec.colour\\"' in failed["msg"]
    k8s.server.order("Pod", "*", "refused", status=403)
    assert "is forbidden" in modules.run("k8s_info", kind="Pod", name="p", namespace="work")["msg"]


def test_the_modules_for_logs_and_commands(modules: Modules, k8s: Kubernetes) -> None:
    k8s.make(_PODS, _pod("p"))
    assert modules.run("k8s_log", name="p", namespace="work")["log"] == _NOT_RUN
    k8s.server.order("Pod", "p", "exec", stdout="uid=0\n", exit_code=4)
    ran = modules.run("k8s_exec", pod="p", namespace="work", command="id")
    assert (ran["stdout"], ran["rc"]) == ("uid=0\n", 4)


def test_the_module_k8s_drain_empties_a_node(modules: Modules, k8s: Kubernetes) -> None:
    k8s.make(_DEPLOYMENTS, _workload("Deployment", "web", replicas=2))
    options = {"wait_timeout": 5, "wait_sleep": 1, "ignore_daemonsets": True}
    drained = modules.run("k8s_drain", name="node-a", state="drain", delete_options=options)
    assert drained["changed"] and "deleted from node" in drained["result"]
    left = [one for one in k8s.pods("work") if one["spec"]["nodeName"] == "node-a"]
    assert left == [] and len(k8s.pods()) == 2
    assert modules.run("k8s_drain", name="node-a", state="uncordon")["changed"]
