"""How a bucket is reached: its service's address, and what proves that we may."""

import re
from collections.abc import Mapping
from typing import Self

from attrs import field, frozen

from emp_core.config import load_settings, setting, text
from emp_core.errors import ConfigError

__all__ = ["S3Access", "S3Settings"]


@frozen
class S3Settings:
    """What says how the buckets of ``s3://`` stores are reached. The names are those of AWS's own tools."""

    access_key_id: str | None = setting(
        "AWS_ACCESS_KEY_ID",
        default=None,
        parse=text,
        help="Access key; not set: the role that AWS gives to the machine.",
    )
    secret_access_key: str | None = setting(
        "AWS_SECRET_ACCESS_KEY", default=None, parse=text, secret=True, help="Secret that belongs to the access key."
    )
    session_token: str | None = setting(
        "AWS_SESSION_TOKEN", default=None, parse=text, secret=True, help="Token of a temporary access key."
    )
    region: str = setting(
        "AWS_REGION",
        default="us-east-1",
        parse=text,
        aliases=("AWS_DEFAULT_REGION",),
        help="Region of the bucket.",
    )
    endpoint: str | None = setting(
        "AWS_ENDPOINT_URL_S3",
        default=None,
        parse=text,
        aliases=("AWS_ENDPOINT_URL",),
        help="Address of a service that is not AWS: MinIO and others.",
    )


@frozen
class S3Access:
    """The service, and one proof that we may use it.

    Attributes:
        endpoint: the service's address, without a slash at its end; buckets are named in the path.
        access_key_id: None: the role that AWS gives to the machine.
    """

    endpoint: str
    region: str
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def how(self) -> str:
        """What the proof is, in words."""
        return "the machine's role" if self.access_key_id is None else f"the access key {self.access_key_id}"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """As the variables of `S3Settings` say.

        Raises:
            ConfigError: they cannot be used.
        """
        settings = load_settings(S3Settings, environ)
        if (settings.access_key_id is None) != (settings.secret_access_key is None):
            raise ConfigError(
                "an s3:// store has half of an access key",
                hint="set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or none for the machine's role",
            )
        if not re.fullmatch(r"[a-z0-9-]{1,40}", settings.region):
            raise ConfigError(f"AWS_REGION={settings.region[:50]!r} is no region", hint="use one such as eu-central-1")
        endpoint = settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", endpoint):
            raise ConfigError(
                "the endpoint of an s3:// store cannot be read", hint="use https://HOST:PORT, without login and query"
            )
        return cls(
            endpoint.rstrip("/"),
            settings.region,
            settings.access_key_id,
            settings.secret_access_key,
            settings.session_token,
        )
