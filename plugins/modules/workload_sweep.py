#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module workload_sweep: take away everything the workloads of a run have left in a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workload_sweep
author: The cisdriver authors
short_description: Remove the workloads of a run
description:
  - Lets pods back onto nodes the run has cordoned, deletes its namespaces and storage classes, and waits until they
    and their volumes are gone. They are known by the label C(cisdriver/run).
  - What another run has left is removed, too, once it is past the moment in its C(cisdriver/expires). A node takes pods
    again also when its run has no namespaces any more.
  - Running it again is harmless. It fails if something is left, after trying all the rest.
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
    description: The run.
    type: str
    required: true
  timeout:
    description: Seconds to wait until all is gone.
    type: int
    default: 300
  poll:
    description: Seconds between two looks.
    type: float
    default: 2
"""

EXAMPLES = r"""
- name: Remove the workloads
  cisdriver.amazon_linux.workload_sweep:
    cluster: demo
    region: eu-central-1
    host: "{{ access.endpoint }}"
    ca_cert: /tmp/demo.pem
    run_id: 20261121-101500
"""

RETURN = r"""
removed:
  description: What was removed, kind to names; C(nodes) are those that take pods again.
  returned: always
  type: dict
  sample: {namespaces: [cisdriver-level-1-0a1b2c]}
left:
  description: What is left, name to reason.
  returned: always
  type: dict
"""

import time
import traceback
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

RUN, EXPIRES, CORDONED = "cisdriver/run", "cisdriver/expires", "cisdriver/cordoned-by"
NAMESPACES, CLASSES = "/api/v1/namespaces", "/apis/storage.k8s.io/v1/storageclasses"
NODES, VOLUMES = "/api/v1/nodes", "/api/v1/persistentvolumes"


class Sweep:
    """One pass: nodes first, for they are others' too."""

    def __init__(self, server: Any, run_id: str, timeout: float, poll: float) -> None:
        self._server, self._poll = server, poll
        self._until = time.monotonic() + timeout
        self._runs = {run_id}
        self.removed: dict[str, list[str]] = {}
        self.left: dict[str, str] = {}

    def run(self) -> None:
        """Raises what the client does when it cannot even look."""
        nodes = self._labelled(NODES, CORDONED)  # before the namespaces, which a run makes before it cordons
        namespaces = self._labelled(NAMESPACES, RUN)
        alive = {one["metadata"]["labels"][RUN] for one in namespaces}
        self._runs |= {one["metadata"]["labels"][RUN] for one in namespaces if _expired(one)}
        for node in nodes:
            run = node["metadata"]["labels"][CORDONED]
            if run in self._runs or run not in alive or _expired(node):
                marks = {"labels": {CORDONED: None}, "annotations": {EXPIRES: None}}
                body = {"metadata": marks, "spec": {"unschedulable": None}}
                self._try("nodes", node, lambda path: self._server.patch(path, body), NODES)  # noqa: B023 - called at once
        ours = [one for one in namespaces if one["metadata"]["labels"][RUN] in self._runs]
        for one in ours:
            self._try("namespaces", one, self._server.delete, NAMESPACES)
        self._wait(set(self.removed.get("namespaces", [])))
        for one in self._labelled(CLASSES, RUN):
            if one["metadata"]["labels"][RUN] in self._runs:
                self._try("storageclasses", one, self._server.delete, CLASSES)

    def _labelled(self, path: str, label: str) -> list[dict[str, Any]]:
        return list(self._server.get(path, labelSelector=label)["items"])

    def _try(self, kind: str, item: dict[str, Any], act: Any, path: str) -> None:
        name = item["metadata"]["name"]
        try:
            act(f"{path}/{name}")
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
            if getattr(error, "status", 0) != 404:
                self.left[f"{kind} {name}"] = eks_api.reason(error)
                return
        self.removed.setdefault(kind, []).append(name)

    def _wait(self, names: set[str]) -> None:
        """Until the namespaces are gone, and their volumes with them: nobody else would delete these from EBS."""
        while True:
            there = [one for one in self._labelled(NAMESPACES, RUN) if one["metadata"]["name"] in names]
            volumes = [
                one
                for one in self._server.get(VOLUMES)["items"]
                if (one["spec"].get("claimRef") or {}).get("namespace") in names
            ]
            if not there and not volumes:
                return
            if time.monotonic() > self._until:
                self.left.update({f"namespaces {one['metadata']['name']}": _stuck(one) for one in there})
                self.left.update({f"persistentvolumes {one['metadata']['name']}": _stuck(one) for one in volumes})
                stuck = {one["metadata"]["name"] for one in there}
                self.removed["namespaces"] = [name for name in self.removed["namespaces"] if name not in stuck]
                return
            time.sleep(self._poll)


def _expired(item: dict[str, Any]) -> bool:
    try:
        return float((item["metadata"].get("annotations") or {}).get(EXPIRES, "inf")) < time.time()
    except ValueError:
        return False


def _stuck(item: dict[str, Any]) -> str:
    """What a namespace says of why it is not gone yet."""
    said = [
        one.get("message", "")
        for one in item.get("status", {}).get("conditions") or []
        if one.get("status") == "True" and one.get("type") != "NamespaceDeletionDiscoveryFailure"
    ]
    return "; ".join(said) or f"it is still {item.get('status', {}).get('phase', 'there')}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "region": {"type": "str", "required": True},
            "host": {"type": "str", "required": True},
            "ca_cert": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 300},
            "poll": {"type": "float", "default": 2},
        }
    )
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("boto3 and kubernetes"), exception=IMPORT_ERROR)
    params = module.params
    session = boto3.session.Session()
    server = eks_api.Server(session, params["region"], params["cluster"], params["host"], params["ca_cert"])
    sweep = Sweep(server, params["run_id"], params["timeout"], params["poll"])
    try:
        sweep.run()
    except (BotoCoreError, ClientError, kubernetes.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        where = f"of run {params['run_id']} may be left in cluster {params['cluster']}"
        msg = f"the workloads {where}: {eks_api.reason(error)}"
        module.fail_json(msg=f"{msg}. {_by_hand(params)}", removed=sweep.removed, left=sweep.left)
    if sweep.left:
        text = "; ".join(f"{name}: {why}" for name, why in sweep.left.items())
        module.fail_json(
            msg=f"Left in cluster {params['cluster']}: {text}. {_by_hand(params)}",
            removed=sweep.removed,
            left=sweep.left,
        )
    module.exit_json(changed=bool(sweep.removed), removed=sweep.removed, left={})


def _by_hand(params: dict[str, Any]) -> str:
    return (
        f"By hand: kubectl delete namespace,storageclass -l {RUN}={params['run_id']};"
        f" kubectl uncordon -l {CORDONED}={params['run_id']}"
    )


if __name__ == "__main__":
    main()
