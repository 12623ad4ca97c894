"""Clients of the libraries for object stores."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from dipeo_nb.errors import MissingDependencyError, StorageError

CONNECT_S = 10.0
"""Connect timeout in seconds."""
IDLE_S = 60.0
"""Read timeout in seconds."""
ATTEMPTS = 4
"""Attempts of a call that fails because the server is unreachable, overloaded or broken."""
RETRY_S = 45.0
"""Seconds after which no further attempt starts."""


class Clients(NamedTuple):
    obstore: Any
    """The module."""
    once: Any
    """A store without retries."""
    patient: Any
    """A store that retries failed requests."""
    boto: Any
    """None for stores that are not S3."""


def clients_of(
    scheme: str, bucket: str, region: str, endpoint: str | None, key_id: str | None, secret: SecretStr | None
) -> Clients:
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        raise MissingDependencyError.for_extra("obstore", extra="s3") from error
    config: dict[str, Any] = {}
    boto = None
    if scheme == "s3":
        boto, credentials = _boto_of(region, endpoint, key_id, secret)
        config = {"region": region, "credential_provider": credentials}
        address = str(boto.meta.endpoint_url)
        if not (urlsplit(address).hostname or "").endswith(("amazonaws.com", "amazonaws.com.cn")):
            config["endpoint"] = endpoint = address  # configured here, or in a way known to boto3 only
    client = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=IDLE_S),
        "timeout": timedelta(days=1),  # for a whole answer; the default of 30 s would cut off large ones
        "allow_http": (endpoint or "").startswith("http://"),
    }
    patient = {
        "max_retries": ATTEMPTS - 1,
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        "retry_timeout": timedelta(seconds=RETRY_S),
    }
    make: Any = obstore.store.from_url
    once, again = (
        make(f"{scheme}://{bucket}", client_options=client, retry_config=retry, **config)
        for retry in ({"max_retries": 0}, patient)
    )
    return Clients(obstore, once, again, boto)


def _boto_of(region: str, endpoint: str | None, key_id: str | None, secret: SecretStr | None) -> tuple[Any, Any]:
    try:
        import boto3
        from botocore.config import Config
        from botocore.session import Session
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise MissingDependencyError.for_extra("boto3", extra="s3") from error
    core = Session()
    core.register_component("data_loader", _api_descriptions(core.get_config_variable("data_path")))
    session = boto3.Session(
        botocore_session=core,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret.get_secret_value() if secret is not None else None,
        region_name=region,
    )
    try:
        # Credentials of roles are valid for at least ten more minutes (botocore.credentials).
        credentials = Boto3CredentialProvider(session, ttl=timedelta(minutes=10))
    except ValueError as error:
        raise StorageError(
            "There are no credentials for S3.", hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run: aws configure",
            operation="open", path="", cause="permission",
        ) from error  # fmt: skip
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=IDLE_S,
        max_pool_connections=32,
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return session.client("s3", endpoint_url=endpoint, config=config), credentials


@cache
def _api_descriptions(folders: str | None) -> Any:
    """Return botocore's descriptions of AWS services, loaded once for all stores: loading takes a tenth of a second."""
    from botocore.loaders import create_loader

    return create_loader(folders)
