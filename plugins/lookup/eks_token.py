# Copyright the cisdriver authors. Apache-2.0.
"""Lookup eks_token: a bearer token for a cluster's API server, made anew by each task."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: eks_token
author: The cisdriver authors
short_description: A token for the API server of an EKS cluster
description:
  - Made of the AWS credentials of the environment, without the AWS CLI. The server takes it for 15 minutes; used in a
    task's arguments, each task has one of its own.
options:
  _terms:
    description: Name of the cluster.
    required: true
  region:
    description: AWS region.
    type: str
    required: true
"""

EXAMPLES = r"""
- kubernetes.core.k8s_info:
    kind: Node
    host: "{{ access.endpoint }}"
    ca_cert: /tmp/demo.pem
    api_key: "{{ lookup('cisdriver.amazon_linux.eks_token', 'demo', region='eu-central-1') }}"
"""

RETURN = r"""
_raw:
  description: The token.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    """Ansible's entry point."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            import boto3
            from ansible_collections.cisdriver.amazon_linux.plugins.module_utils import eks_api
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise AnsibleError(f"eks_token needs boto3 and kubernetes: {error}") from error
        try:
            session, region = boto3.session.Session(), self.get_option("region")
            return [eks_api.token(session, region, term) for term in terms]
        except (BotoCoreError, ClientError) as error:
            raise AnsibleError(f"no token for cluster {', '.join(terms)}: {error}") from error
