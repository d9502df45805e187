"""Tokens of ``aws eks get-token``: a presigned GetCallerIdentity, checked as aws-iam-authenticator's verifier does.

It asks STS, which knows the secret; here the secret is the sandbox's, and the signature is computed again.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from .errors import ApiError

_PREFIX = "k8s-aws-v1."
_HEADER = "x-k8s-aws-id"
_LIFETIME = timedelta(minutes=15)
#: STS's own names, and the sandbox's endpoint, to which AWS_ENDPOINT_URL sends presigned URLs too.
_HOST = re.compile(r"^(sts(-fips)?(\.[a-z0-9-]+)?\.amazonaws\.com(\.cn)?|127\.0\.0\.1|localhost)$")
_PARAMETERS = {
    "action",
    "version",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
}


def user_of(authorization: str, cluster: str, secret_key: str) -> str:
    """The access key id behind an Authorization header.

    Raises ApiError 401, whose ``why`` says what the client is not told.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise _refused("the request has no bearer token")
    if not token.startswith(_PREFIX):
        raise _refused(f"the token does not begin with {_PREFIX}")
    encoded = token.removeprefix(_PREFIX)
    try:
        url = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise _refused(f"the token is not base64 of a URL: {error}") from error
    parameters = _parameters(url)
    _check_age(parameters)
    _check_signature(url, parameters, cluster, secret_key)
    return parameters["x-amz-credential"].partition("/")[0]


def _parameters(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if not _HOST.match(parts.hostname or "") or parts.path not in ("", "/"):
        raise _refused(f"the presigned URL is of {parts.hostname}{parts.path}, not of STS")
    many = {key.lower(): values for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    wrong = [key for key, values in many.items() if key not in _PARAMETERS or len(values) != 1]
    if wrong:
        raise _refused(f"query parameter {wrong[0]} is not one of a presigned GetCallerIdentity, or not one value")
    found = {key: values[0] for key, values in many.items()}
    if found.get("action") != "GetCallerIdentity":
        raise _refused(f"the presigned action is {found.get('action')}, not GetCallerIdentity")
    missing = {"x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signature", "x-amz-signedheaders"} - set(found)
    if missing:
        raise _refused(f"the presigned URL lacks {', '.join(sorted(missing))}")
    if _HEADER not in found["x-amz-signedheaders"].lower().split(";"):
        raise _refused(f"client did not sign the {_HEADER} header in the pre-signed URL")
    return found


def _check_age(parameters: dict[str, str]) -> None:
    expires = parameters["x-amz-expires"]
    if not expires.isdecimal() or int(expires) > _LIFETIME.total_seconds():
        raise _refused(f"X-Amz-Expires is {expires}, expected 0 to {_LIFETIME.total_seconds():.0f} seconds")
    try:
        signed = datetime.strptime(parameters["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise _refused(f"X-Amz-Date cannot be read: {error}") from error
    if datetime.now(UTC) > signed + _LIFETIME:
        raise _refused(f"the token of {signed} has expired: it is good for 15 minutes")


def _check_signature(url: str, parameters: dict[str, str], cluster: str, secret_key: str) -> None:
    """Sign again, with our name in the header: a token made for another cluster has another signature."""
    scope = parameters["x-amz-credential"].split("/")
    if len(scope) != 5 or scope[3] != "sts":
        raise _refused(f"X-Amz-Credential is {parameters['x-amz-credential']}, expected one for sts")
    parts = urlsplit(url)
    kept = {key: values[0] for key, values in parse_qs(parts.query).items() if key.lower() != "x-amz-signature"}
    unsigned = f"{parts.scheme}://{parts.netloc}/?{urlencode(kept)}"
    request = AWSRequest("GET", unsigned, headers={_HEADER: cluster})
    request.context["timestamp"] = parameters["x-amz-date"]
    auth = SigV4QueryAuth(Credentials(scope[0], secret_key), "sts", scope[2])
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    if not hmac.compare_digest(expected, parameters["x-amz-signature"]):
        text = f"the signature is not that of {scope[0]} for {_HEADER}: {cluster}: another cluster's token or secret"
        raise _refused(text)


def _refused(why: str) -> ApiError:
    return ApiError(401, "Unauthorized", why=why)
