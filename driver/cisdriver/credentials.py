"""Whether this machine has AWS credentials and a region, asked without waiting."""

from __future__ import annotations

from typing import Any

from cisdriver.errors import UsageError

#: Seconds to wait for the instance metadata service, which answers at once where there is one.
_METADATA_SECONDS = 0.4

_REMEDY = """Two ways on:
  with an AWS account:  aws configure, aws sso login, or AWS_PROFILE / AWS_ACCESS_KEY_ID in the environment
  without one:          the same command with --sandbox works in an embedded AWS on this machine"""


def require(region: str | None) -> str:
    """The region to work in. Raises UsageError without credentials, or without a region; never asks AWS itself."""
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session()
    try:
        _hurry(session)
        found = session.get_credentials()
        chosen = region or session.get_config_variable("region")
    except botocore.exceptions.BotoCoreError as error:
        raise UsageError(f"the AWS credentials cannot be read: {error}", _REMEDY) from error
    if found is None:
        raise UsageError("no AWS credentials found", _REMEDY)
    if not chosen:
        raise UsageError("no AWS region is set", "Name one with --region, or set AWS_REGION.")
    return str(chosen)


def _hurry(session: Any) -> None:
    """Ask the metadata service once and briefly: botocore's own setting knows whole seconds only, twice over."""
    from botocore.credentials import InstanceMetadataProvider
    from botocore.utils import InstanceMetadataFetcher

    names = ("ec2_metadata_service_endpoint", "ec2_metadata_service_endpoint_mode", "ec2_metadata_v1_disabled")
    config = {name: session.get_config_variable(name) for name in names}
    fetcher = InstanceMetadataFetcher(_METADATA_SECONDS, 1, user_agent=session.user_agent(), config=config)
    resolver = session.get_component("credential_provider")
    place = [provider.METHOD for provider in resolver.providers].index(InstanceMetadataProvider.METHOD)
    resolver.providers[place] = InstanceMetadataProvider(fetcher)
