#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module workload_results: wait for workloads, all at once, and tell what each has proven or why it has not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workload_results
author: The cisdriver authors
short_description: Wait for the workloads of a run and judge each
description:
  - Looks at the pods of a run until each of its workloads has proven itself, has failed, or is past its deadline;
    then its cause is read from conditions, states of containers, events and logs.
  - Changes nothing. A workload that fails does not fail the task.
options:
  cluster:
    description: Name of the cluster; the token is made for it, of the AWS credentials of the environment, and renewed.
    type: str
    required: true
  region:
    description: AWS region.
    type: str
    required: true
  host:
    description: URL of the API server.
    type: str
    required: true
  ca_cert:
    description: File of its certificate authority.
    type: path
    required: true
  run_id:
    description: Value of the label C(cisdriver/run) of everything that belongs to it.
    type: str
    required: true
  workloads:
    description: The workloads, as the lookup P(cisdriver.amazon_linux.workloads#lookup) makes them.
    type: list
    elements: dict
    required: true
  answers:
    description: >-
      What M(kubernetes.core.k8s) answered to each object of each workload, in order, and before them to their
      namespaces. Not given, all were taken.
    type: list
    elements: dict
  poll:
    description: Seconds between two looks.
    type: float
    default: 2
"""

EXAMPLES = r"""
- name: Wait for the workloads
  cisdriver.amazon_linux.workload_results:
    cluster: demo
    region: eu-central-1
    host: "{{ access.endpoint }}"
    ca_cert: /tmp/demo.pem
    run_id: 20261121-101500
    workloads: "{{ planned.workloads }}"
    answers: "{{ ordered.result.results }}"
"""

RETURN = r"""
workloads:
  description: The workloads, without their objects, each with its C(finding) and the C(seconds) until it was known.
  returned: always
  type: list
reports:
  description: Logs of kube-bench, by group.
  returned: always
  type: dict
"""

import functools
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

IMPORT_ERROR = ""
try:
    import boto3
    import kubernetes.client
    import urllib3
    from ansible_collections.cisdriver.amazon_linux.plugins.module_utils import eks_api
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.cisdriver.amazon_linux.plugins.module_utils import workload_judge

RUN, GROUP = "cisdriver/run", "cisdriver/group"
METRICS = "metrics.k8s.io"
LOG_BYTES = 1_000_000
#: What a workload's objects are besides pods, and where their conditions and events are asked for.
KINDS = {
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
}


class Watch:
    """Looks again and again, until every workload has its finding."""

    def __init__(self, server: Any, kubelets: Any, run_id: str, workloads: list[dict[str, Any]]) -> None:
        """``kubelets`` reaches the same server, for what it asks kubelets: one that is cut off must not hold all up."""
        self._server, self._kubelets, self._run_id = server, kubelets, run_id
        self._open = list(workloads)
        self._logs: dict[tuple[str, str], str] = {}
        self._final: set[tuple[str, str]] = set()  # whose log was read after its pod had ended
        self._said: dict[int, str] = {}
        self._started = time.monotonic()
        self.done: list[dict[str, Any]] = []
        self.reports: dict[str, str] = {}

    def run(self, poll: float) -> None:
        while self._open:
            failure = self._look()
            if failure:
                self._settle(functools.partial(self._error, failure))
            if self._open:
                time.sleep(poll)

    def _look(self) -> str:
        """One look at all that is open; why it could not look, or nothing."""
        try:
            pods = self._pods()
            views = {id(one): self._view(one, pods) for one in self._open}
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(self._read, [(one, views[id(one)], False) for one in self._open]))
            for one in self._open:
                self._exec(one, views[id(one)])
            self._settle(lambda one: self._judge(one, views[id(one)]))
        except (BotoCoreError, ClientError, kubernetes.client.ApiException) as error:
            return eks_api.reason(error)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return eks_api.reason(error)
        return ""

    def _pods(self) -> list[dict[str, Any]]:
        return list(self._server.get("/api/v1/pods", labelSelector=f"{RUN}={self._run_id}")["items"])

    def _view(self, one: dict[str, Any], pods: list[dict[str, Any]]) -> dict[str, Any]:
        own = [pod for pod in pods if _belongs(pod, one)]
        said = self._said.get(id(one))
        return {"pods": own, "logs": {}, "unread": {}, "objects": [], "events": [], "exec": said, "metrics": True}

    def _read(self, task: tuple[dict[str, Any], dict[str, Any], bool]) -> None:
        """Put the logs of those that are to prove, or of all its pods, into a view.

        The last line is what counts, so a log is read again until the pod has ended.
        """
        one, view, everyone = task
        for pod in view["pods"]:
            if not everyone and not workload_judge.proves(pod):
                continue
            name, key = pod["metadata"]["name"], (one["namespace"], pod["metadata"]["name"])
            ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
            try:
                if key not in self._final:
                    self._logs[key] = self._log(one["namespace"], pod) or self._logs.get(key, "")
                    if ended:
                        self._final.add(key)
            except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
                view["unread"][name] = eks_api.reason(error)
            view["logs"][name] = self._logs.get(key, "")

    def _log(self, namespace: str, pod: dict[str, Any]) -> str:
        """Of the container that matters: one that broke, else the main one; its last life's, if it has none now.

        Where the main one ended well, that a sidecar did not end of itself is nothing.
        """
        container, previous = pod["spec"]["containers"][0]["name"], False
        found = list(workload_judge.containers(pod))
        if any(name == container and (state.get("terminated") or {}).get("exitCode") == 0 for name, state, _ in found):
            found = []
        for name, state, restarts in found:
            if (state.get("terminated") or {}).get("exitCode") or (state.get("waiting") and restarts):
                container, previous = name, bool(state.get("waiting"))
                break
        query = {"container": container, "limitBytes": LOG_BYTES, **({"previous": "true"} if previous else {})}
        try:
            path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/log"
            return str(self._kubelets.text(path, **query))
        except kubernetes.client.ApiException as error:
            if error.status in (400, 404):  # it has not started, or is gone already
                return ""
            raise

    def _exec(self, one: dict[str, Any], view: dict[str, Any]) -> None:
        """The command of a workload that has one, once its pod runs."""
        proving = filter(workload_judge.proves, view["pods"])
        running = [pod for pod in proving if pod.get("status", {}).get("phase") == "Running"]
        if not one["exec"] or view["exec"] is not None or not running:
            return
        pod = running[0]
        try:
            said = self._kubelets.exec(
                one["namespace"], pod["metadata"]["name"], pod["spec"]["containers"][0]["name"], one["exec"]
            )
        except kubernetes.client.ApiException as error:
            if time.monotonic() - self._started <= one["deadline"]:
                return
            said = f"cisdriver: fail it is not run: {eks_api.reason(error)}"
        self._said[id(one)] = view["exec"] = said

    def _judge(self, one: dict[str, Any], view: dict[str, Any]) -> Any:
        if one["scales"]:
            view["objects"] = self._objects(one)
            # Whatever is registered is listed, also a metrics-server that does not answer.
            view["metrics"] = METRICS in [group["name"] for group in self._server.get("/apis")["groups"]]
        finding = workload_judge.judge(one, view)
        if finding is None and time.monotonic() - self._started > one["deadline"]:
            self._read((one, view, True))
            view["objects"] = self._objects(one)
            view["events"] = self._server.get(f"/api/v1/namespaces/{one['namespace']}/events")["items"]
            finding = workload_judge.overdue(one, view, one["deadline"])
        if finding and one["name"] == "kube_bench":
            self.reports[one["group"]] = "\n".join(view["logs"].values())
        return finding

    def _objects(self, one: dict[str, Any]) -> list[dict[str, Any]]:
        """Those of its kinds that bear its label; a list's items do not name their kind."""
        query = {"labelSelector": f"{workload_judge.WORKLOAD}={one['name']}"}
        return [
            {**item, "kind": kind}
            for kind, path in KINDS.items()
            for item in self._server.get(path.format(one["namespace"]), **query)["items"]
        ]

    def _error(self, failure: str, one: dict[str, Any]) -> Any:
        """A look that failed is tried again until the deadline, unless the caller is not let in any more."""
        over = time.monotonic() - self._started > one["deadline"]
        if not over and not failure.startswith(("401", "403")):
            return None
        return {"status": "error", "reason": f"the API server does not tell: {failure}", "evidence": []}

    def _settle(self, finding_of: Any) -> None:
        still = []
        for one in self._open:
            finding = finding_of(one)
            if finding:
                seconds = round(time.monotonic() - self._started, 1)
                self.done.append({**one, "finding": finding, "seconds": seconds})
            else:
                still.append(one)
        self._open = still


def _belongs(pod: dict[str, Any], one: dict[str, Any]) -> bool:
    metadata = pod["metadata"]
    return (metadata["namespace"], metadata["labels"].get(workload_judge.WORKLOAD)) == (one["namespace"], one["name"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "region": {"type": "str", "required": True},
            "host": {"type": "str", "required": True},
            "ca_cert": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "workloads": {"type": "list", "elements": "dict", "required": True},
            "answers": {"type": "list", "elements": "dict"},
            "poll": {"type": "float", "default": 2},
        },
        supports_check_mode=True,
    )
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("boto3 and kubernetes"), exception=IMPORT_ERROR)
    params = module.params
    workloads = params["workloads"]
    if params["answers"] is not None:
        refusals = workload_judge.refusals(workloads, params["answers"])
        workloads = [{**one, "refused": refused} for one, refused in zip(workloads, refusals, strict=True)]
    workloads = [{key: value for key, value in one.items() if key != "objects"} for one in workloads]
    where = (boto3.session.Session(), params["region"], params["cluster"], params["host"], params["ca_cert"])
    server, kubelets = eks_api.Server(*where), eks_api.Server(*where, tries=0)
    watch = Watch(server, kubelets, params["run_id"], [one for one in workloads if not one["finding"]])
    watch.run(params["poll"])
    known = {(one["group"], one["name"]): one for one in watch.done}
    done = [known.get((one["group"], one["name"]), {**one, "seconds": 0.0}) for one in workloads]
    module.exit_json(changed=False, workloads=done, reports=watch.reports)


if __name__ == "__main__":
    main()
