#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module eks_access: how a cluster's API server is reached, and that it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: eks_access
author: The cisdriver authors
short_description: Find the API server of an EKS cluster, and ask it for its version
description:
  - Asks EKS for endpoint and certificate authority, keeps the latter in a file, and calls the server with a token
    made of the AWS credentials of the environment. Neither the AWS CLI nor a kubeconfig takes part.
  - Fails with the way out when there is no such cluster, when its endpoint is private and not reached from here, and
    when it knows the caller not.
options:
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  region:
    description: AWS region.
    type: str
    required: true
  ca_file:
    description: Where the certificate authority is written.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Find the cluster
  cisdriver.amazon_linux.eks_access:
    cluster: demo
    region: eu-central-1
    ca_file: /tmp/demo.pem
  register: access
"""

RETURN = r"""
endpoint:
  description: URL of the API server.
  returned: always
  type: str
version:
  description: Version of Kubernetes the server says it has.
  returned: always
  type: str
arn:
  description: ARN of the cluster.
  returned: always
  type: str
dns_suffix:
  description: What the names of AWS's endpoints end with in this partition.
  returned: always
  type: str
"""

import base64
import contextlib
import os
import tempfile
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


class AccessError(Exception):
    """Why the cluster is not reached, and the way out."""


def describe(session: Any, region: str, name: str) -> dict[str, Any]:
    """The cluster, as EKS describes it. Raises AccessError."""
    eks = session.client("eks", region_name=region)
    try:
        cluster: dict[str, Any] = eks.describe_cluster(name=name)["cluster"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        there = ", ".join(one for page in eks.get_paginator("list_clusters").paginate() for one in page["clusters"])
        raise AccessError(
            f"{region} has no cluster {name}; it has: {there or 'none'}. `cisdriver deploy` makes one."
        ) from error
    if cluster["status"] not in ("ACTIVE", "UPDATING"):
        raise AccessError(
            f"cluster {name} in {region} is {cluster['status']}, and ACTIVE is expected. Wait until it is."
        )
    return cluster


def ask(server: Any, cluster: dict[str, Any]) -> str:
    """The version of Kubernetes. Raises AccessError."""
    try:
        # A path that takes a known caller, unlike /version, which some clusters show to anybody.
        server.get("/api/v1/nodes", limit=1)
        return str(server.get("/version")["gitVersion"])
    except kubernetes.client.ApiException as error:
        raise AccessError(_unknown(error, cluster)) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise AccessError(_unreached(error, cluster)) from error


def _unknown(error: Any, cluster: dict[str, Any]) -> str:
    told = f"the API server of cluster {cluster['name']} answers {eks_api.reason(error)}"
    if error.status not in (401, 403):
        return f"{told}. Try again in a minute."
    return (
        f"{told}. Whoever runs this (`aws sts get-caller-identity`) has no access entry that lets it administer the"
        " cluster: `cisdriver deploy --admin ARN` makes one, or an administrator with `aws eks create-access-entry` and"
        " `aws eks associate-access-policy` (AmazonEKSClusterAdminPolicy). A new entry takes effect within a minute."
    )


def _unreached(error: Exception, cluster: dict[str, Any]) -> str:
    network = cluster.get("resourcesVpcConfig", {})
    told = (
        f"the API server of cluster {cluster['name']} is not reached at {cluster['endpoint']}: {eks_api.reason(error)}."
    )
    if not network.get("endpointPublicAccess", True):
        return (
            f"{told} Its endpoint is private, so it answers only inside VPC {network.get('vpcId', '')} and what is"
            " connected with it. Run cisdriver there (an instance of a private subnet, CI in the VPC, a VPN), or open"
            " it to your address: `cisdriver deploy --public-access-cidr ADDRESS/32`."
        )
    allowed = ", ".join(network.get("publicAccessCidrs", []))
    return (
        f"{told} Its public endpoint is open to {allowed}: is your address among them? `cisdriver deploy"
        " --public-access-cidr ADDRESS/32` adds one; a proxy is taken from HTTPS_PROXY."
    )


def suffix(session: Any, arn: str) -> str:
    """As botocore's own list of partitions has it."""
    partitions = session._session.get_component("data_loader").load_data("partitions")["partitions"]
    return str(next(one["outputs"]["dnsSuffix"] for one in partitions if one["id"] == arn.split(":")[1]))


def write(path: str, data: bytes) -> bool:
    """Write atomically; whether it changed."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if file.read() == data:
            return False
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "required": True},
            "region": {"type": "str", "required": True},
            "ca_file": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("boto3 and kubernetes"), exception=IMPORT_ERROR)
    name, region, ca_file = (module.params[key] for key in ("cluster", "region", "ca_file"))
    try:
        session = boto3.session.Session()
        cluster = describe(session, region, name)
        changed = write(ca_file, base64.b64decode(cluster["certificateAuthority"]["data"]))
        server = eks_api.Server(session, region, name, cluster["endpoint"], ca_file, tries=1)
        version = ask(server, cluster)
    except AccessError as error:
        module.fail_json(msg=str(error))
    except (BotoCoreError, ClientError) as error:
        module.fail_json(msg=f"AWS says of cluster {name} in {region}: {error}")
    module.exit_json(
        changed=changed,
        endpoint=cluster["endpoint"],
        version=version,
        arn=cluster["arn"],
        dns_suffix=suffix(session, cluster["arn"]),
    )


if __name__ == "__main__":
    main()
