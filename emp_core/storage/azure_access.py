"""How an Azure storage account is reached: its address, and what proves that we may."""

import re
from collections.abc import Mapping
from typing import Self

from attrs import field, frozen

from emp_core.config import load_settings, setting, text
from emp_core.errors import ConfigError

__all__ = ["EMULATOR", "AzureAccess", "AzureSettings", "is_account_name"]

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_PUBLIC_CLOUD = "core.windows.net"
EMULATOR = {
    "AccountName": "devstoreaccount1",
    "AccountKey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "BlobEndpoint": "http://127.0.0.1:10000/devstoreaccount1",
}
"""The account of Microsoft's emulators, which everybody knows, as a connection string names it."""


@frozen
class AzureSettings:
    """What says how the account of ``azure://`` stores is reached. The names are those of Azure's own tools."""

    connection_string: str | None = setting(
        "AZURE_STORAGE_CONNECTION_STRING",
        default=None,
        parse=text,
        secret=True,
        help="All that is needed to reach the account, in one; the others are not read then.",
    )
    account: str | None = setting(
        "AZURE_STORAGE_ACCOUNT",
        default=None,
        parse=text,
        aliases=("AZURE_STORAGE_ACCOUNT_NAME",),
        help="Name of the account.",
    )
    key: str | None = setting(
        "AZURE_STORAGE_KEY",
        default=None,
        parse=text,
        secret=True,
        aliases=("AZURE_STORAGE_ACCOUNT_KEY",),
        help="Key of the account.",
    )
    sas_token: str | None = setting(
        "AZURE_STORAGE_SAS_TOKEN",
        default=None,
        parse=text,
        secret=True,
        help="A shared access signature, in the place of the key.",
    )
    endpoint: str | None = setting(
        "AZURE_STORAGE_SERVICE_ENDPOINT",
        default=None,
        parse=text,
        help="Address of the account's blobs, where it is not `https://ACCOUNT.blob.core.windows.net`.",
    )


@frozen
class AzureAccess:
    """The account, and one proof that we may use it: its key, a shared access signature, or neither for the identity that
    Azure gives to the machine.

    Attributes:
        endpoint: the address of the account's blobs, without a slash at its end.
        account: its name.
    """

    endpoint: str
    account: str
    key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)

    @property
    def how(self) -> str:
        """What the proof is, in words."""
        if self.key is not None:
            return "the account key"
        return "the shared access signature" if self.sas_token is not None else "the machine's identity"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """As the variables of `AzureSettings` say.

        Raises:
            ConfigError: they do not say which account, or cannot be read.
        """
        settings = load_settings(AzureSettings, environ)
        if settings.connection_string is not None:
            return cls.from_connection_string(settings.connection_string)
        if settings.account is None:
            raise ConfigError(
                "an azure:// store does not know its account",
                hint="set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or "
                "AZURE_STORAGE_SAS_TOKEN, or alone for the machine's identity",
            )
        sas = None if settings.key is not None else settings.sas_token
        return cls.of(settings.account, settings.key, sas, settings.endpoint)

    @classmethod
    def from_connection_string(cls, connection_string: str) -> Self:
        """As a connection string says: ``Name=value`` pairs, separated by semicolons.

        Raises:
            ConfigError: it cannot be read. It is not repeated.
        """
        pairs = dict(part.strip().split("=", 1) for part in connection_string.split(";") if "=" in part)
        if pairs.get("UseDevelopmentStorage", "").lower() == "true":
            pairs = EMULATOR
        endpoint = pairs.get("BlobEndpoint")
        account = pairs.get("AccountName") or _account_in(endpoint)
        key, sas = pairs.get("AccountKey"), pairs.get("SharedAccessSignature")
        if account is None or (key is None and sas is None):
            raise ConfigError(
                "AZURE_STORAGE_CONNECTION_STRING names no account, or nothing that proves that we may use it",
                hint="copy it whole from the account's page 'Access keys'",
            )
        if endpoint is None:
            scheme = pairs.get("DefaultEndpointsProtocol", "https")
            endpoint = f"{scheme}://{account}.blob.{pairs.get('EndpointSuffix', _PUBLIC_CLOUD)}"
        return cls.of(account, key, None if key is not None else sas, endpoint)

    @classmethod
    def of(
        cls, account: str, key: str | None = None, sas_token: str | None = None, endpoint: str | None = None
    ) -> Self:
        """By the account's name.

        Raises:
            ConfigError: the name or the endpoint cannot be one.
        """
        if not is_account_name(account):
            raise ConfigError(
                f"{account[:50]!r} is no name of an Azure storage account",
                hint="it has 3 to 24 small letters and digits",
            )
        endpoint = f"https://{account}.blob.{_PUBLIC_CLOUD}" if endpoint is None else endpoint.rstrip("/")
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", endpoint):
            raise ConfigError(
                "the endpoint of an Azure storage account cannot be read",
                hint=f"use https://ACCOUNT.blob.{_PUBLIC_CLOUD}, without login and query",
            )
        sas = sas_token.lstrip("?") if sas_token is not None else None
        return cls(endpoint, account, key, sas)


def is_account_name(name: str) -> bool:
    """Whether a text can be the name of a storage account."""
    return _ACCOUNT.fullmatch(name) is not None


def _account_in(endpoint: str | None) -> str | None:
    found = re.match(r"https?://([a-z0-9]{3,24})\.", endpoint or "")
    return found[1] if found else None
