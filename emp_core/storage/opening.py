"""From a store's URL to the store."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import SplitResult, unquote, urlsplit

from emp_core.errors import ConfigError
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.local import LocalStore

__all__ = ["StoreOpener", "open_store"]

StoreOpener = Callable[[str, Mapping[str, str]], ArtifactStore]
"""Makes a store of its URL and the environment's variables, where its credentials may be. Does no I/O."""

_NONE: Mapping[str, str] = MappingProxyType({})
_NO_STORES: Mapping[str, StoreOpener] = MappingProxyType({})


def open_store(
    url: str, *, stores: Mapping[str, StoreOpener] = _NO_STORES, environ: Mapping[str, str] = _NONE
) -> ArtifactStore:
    """The store that a URL names. Whoever opens it closes it.

    Args:
        url: ``file:///folder``, a plain path, or a URL of a scheme that a plugin serves.
        stores: what plugins serve, by scheme. The opener is called only when its scheme is asked for.
        environ: handed to the opener.

    Raises:
        ConfigError: the URL cannot be read, or nobody serves its scheme; lists the known ones, never the URL itself,
            which may hold a password.
    """
    if not url.strip():
        raise ConfigError("the artifact store has an empty URL", hint="use a folder, or file:///folder")
    if "://" not in url and not url.startswith("file:"):
        return LocalStore(Path(url))
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(
            f"the artifact store's URL cannot be read: {error}", hint="use file:///folder or scheme://…"
        ) from error
    if parts.scheme == "file":
        return LocalStore(_file_path(parts))
    if parts.scheme not in stores:
        known = ", ".join(sorted({"file", *stores}))
        raise ConfigError(
            f"no artifact store serves the scheme {parts.scheme!r}; known are: {known}",
            hint="install the plugin that brings it, and correct EMP_STORE if the scheme is misspelt",
        )
    return stores[parts.scheme](url, environ)


def _file_path(parts: SplitResult) -> Path:
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise ConfigError("a file URL of an artifact store names no absolute folder", hint="use file:///folder")
    if parts.query or parts.fragment:
        raise ConfigError(
            "a file URL of an artifact store has a query or fragment", hint="write ? as %3F and # as %23 in the path"
        )
    return Path(path)
