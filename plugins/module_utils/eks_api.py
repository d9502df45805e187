# Copyright the cisdriver authors. Apache-2.0.
"""A cluster's API server, for whoever may call AWS: token, client, and what its refusals mean. Runs on the controller.

A token is a presigned request to STS that the server sends on, to learn who asks: ``k8s-aws-v1.`` and the URL in base64
without padding. The header ``x-k8s-aws-id``, which is signed, names the cluster; the server takes the token for 15
minutes (kubernetes-sigs/aws-iam-authenticator, "API Authorization from Outside a Cluster").
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Dict, Sequence

import kubernetes.client
import urllib3
from botocore.signers import RequestSigner
from kubernetes.stream import stream

#: Made anew well before the server takes it no more, so that no call is the last of an old one.
RENEW_AFTER = 600.0
_HEADER = "x-k8s-aws-id"
#: Seconds until an address that drops what it is sent counts as out of reach; and for an answer.
TIMEOUT = (10, 30)


def token(session: Any, region: str, cluster: str) -> str:
    """The bearer token for ``cluster``. ``session`` is boto3's. Raises botocore's errors without credentials."""
    sts = session.client("sts", region_name=region)
    signer = RequestSigner(
        sts.meta.service_model.service_id, region, "sts", "v4", session.get_credentials(), session.events
    )
    request = {
        "method": "GET",
        "url": f"{sts.meta.endpoint_url.rstrip('/')}/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {_HEADER: cluster},
        "context": {},
    }
    url = signer.generate_presigned_url(request, region_name=region, expires_in=60, operation_name="")
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


class Server:
    """Calls that answer with what the API server sent, as dicts. They raise ApiException and urllib3's errors."""

    def __init__(self, session: Any, region: str, cluster: str, host: str, ca: str, tries: int = 5) -> None:
        self._token = lambda: token(session, region, cluster)
        self._made = float("-inf")
        configuration = kubernetes.client.Configuration()
        configuration.host, configuration.ssl_ca_cert = host, ca  # of a file: the websocket of exec knows no other
        configuration.api_key = {"authorization": ""}
        configuration.api_key_prefix = {"authorization": "Bearer"}
        configuration.refresh_api_key_hook = self._renew
        # Throttled, or cut off. Whatever goes this way, reading, deleting, merging, may be asked for again.
        configuration.retries = urllib3.Retry(
            total=tries,
            backoff_factor=0.5,
            allowed_methods=None,
            status_forcelist=(429, 500, 502, 503, 504),
            raise_on_status=False,
        )
        self.client = kubernetes.client.ApiClient(configuration)

    def _renew(self, configuration: Any) -> None:
        if time.monotonic() - self._made > RENEW_AFTER:
            configuration.api_key["authorization"] = self._token()
            self._made = time.monotonic()

    def get(self, path: str, **query: Any) -> Dict[str, Any]:
        """The object or list at ``path``."""
        return dict(json.loads(self._call("GET", path, query)))

    def text(self, path: str, **query: Any) -> str:
        return self._call("GET", path, query).decode("utf-8", "replace")

    def delete(self, path: str, **query: Any) -> None:
        self._call("DELETE", path, query)

    def patch(self, path: str, body: Dict[str, Any]) -> None:
        self._call("PATCH", path, {}, body, {"Content-Type": "application/merge-patch+json"})

    def exec(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> str:
        """What a command in a container says, both streams."""
        return str(
            stream(
                kubernetes.client.CoreV1Api(self.client).connect_get_namespaced_pod_exec,
                pod,
                namespace,
                container=container,
                command=list(command),
                stdin=False,
                stdout=True,
                stderr=True,
                tty=False,
                _request_timeout=TIMEOUT[1],
            )
        )

    def _call(self, method: str, path: str, query: Dict[str, Any], body: Any = None, headers: Any = None) -> bytes:
        answer = self.client.call_api(
            *self.client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json, */*", **(headers or {})},
                body=body,
                auth_settings=["BearerToken"],
            ),
            _request_timeout=TIMEOUT,
        )
        data = answer.read()
        if not 200 <= answer.status < 300:
            raise kubernetes.client.ApiException(status=answer.status, reason=answer.reason, body=data.decode())
        return bytes(data)


def reason(error: Exception) -> str:
    """Why a call failed, in the server's own words where it said any."""
    if isinstance(error, kubernetes.client.ApiException):
        try:
            said = json.loads(error.body or "")["message"]
        except (ValueError, KeyError, TypeError):
            said = str(error.body or "").strip() or error.reason
        if error.status == 401:
            said = f"{said}; the credentials are not valid for this cluster (any more)"
        return f"{error.status}: {said}"
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason:
        return str(error.reason)
    return f"{type(error).__name__}: {error}"
