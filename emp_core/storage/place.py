"""Where in an object store the files of ours lie: a container or bucket, and a prefix within it."""

import re
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from attrs import frozen

from emp_core.errors import ConfigError, UnsafeName
from emp_core.storage.names import safe_key

__all__ = ["Place"]

_CONTAINER = re.compile(r"\$?[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_NAME_MAX = 1024
"""Bytes that Azure and S3 allow for a name."""


@frozen
class Place:
    """A container, and a prefix for all names in it.

    Attributes:
        scheme: of the store's URL.
        prefix: without a slash at its end; empty: the container's root.
    """

    scheme: str
    container: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.container}" + (f"/{self.prefix}" if self.prefix else "")

    @classmethod
    def of(cls, url: str) -> Self:
        """The place that a URL names: ``scheme://container/prefix``.

        Raises:
            ConfigError: it names none. The URL is not repeated, it may hold a password.
        """
        parts = urlsplit(url)
        scheme = parts.scheme
        usage = f"use {scheme}://NAME or {scheme}://NAME/FOLDER"
        if not _CONTAINER.fullmatch(parts.netloc):
            raise ConfigError(
                f"the URL of an {scheme}:// store names no container",
                hint=f"{usage}; a login or a host has no place in it, credentials are variables",
            )
        if parts.query or parts.fragment:
            raise ConfigError(f"the URL of an {scheme}:// store has a query or fragment", hint=usage)
        path = unquote(parts.path).strip("/")
        try:
            return cls(scheme, parts.netloc, safe_key(path) if path else "")
        except UnsafeName as error:
            raise ConfigError(
                f"the folder of an {scheme}:// store cannot be used: {error.message}", hint=usage
            ) from error

    def name(self, key: str) -> str:
        """The object's name for a file's key.

        Raises:
            UnsafeName: the key tries to leave the store, or is too long.
        """
        name = f"{self.prefix}/{safe_key(key)}" if self.prefix else safe_key(key)
        if len(name.encode()) > _NAME_MAX:
            raise UnsafeName(f"the name {name[:200]!r}… is longer than {_NAME_MAX} bytes", hint="use a shorter one")
        return name

    def begins(self, prefix: str) -> str:
        """What the names of objects begin with whose keys begin with ``prefix``."""
        return f"{self.prefix}/{prefix}" if self.prefix else prefix

    def key(self, name: str) -> str:
        """The file's key of an object's name."""
        return name.removeprefix(f"{self.prefix}/") if self.prefix else name

    def url(self, endpoint: str, key: str) -> str:
        """The object's address, where ``endpoint`` is that of all containers."""
        return f"{endpoint}/{self.container}/{quote(self.name(key))}"
