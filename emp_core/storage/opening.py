"""From a store's URL to the store."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from urllib.parse import SplitResult, unquote, urlsplit

from emp_core.errors import ConfigError
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.local import LocalStore

__all__ = ["NO_STORES", "StoreOpener", "open_store"]

StoreOpener = Callable[[str, Mapping[str, str]], ArtifactStore]
"""Makes a store of its URL and the environment's variables, where its credentials may be. Does no I/O."""

_NONE: Mapping[str, str] = MappingProxyType({})
NO_STORES: Mapping[str, StoreOpener] = MappingProxyType({})
"""What plugins serve where there are none."""


def open_store(
    url: str, *, stores: Mapping[str, StoreOpener] = NO_STORES, environ: Mapping[str, str] = _NONE
) -> ArtifactStore:
    """The store that a URL names. Whoever opens it closes it.

    Args:
        url: ``file:///folder``, a plain path, ``azure://container/prefix``, ``s3://bucket/prefix``, or a URL of a scheme
            that a plugin serves.
        stores: what plugins serve, by scheme. The opener is called only when its scheme is asked for.
        environ: variables that say how the store is reached, credentials among them.

    Raises:
        ConfigError: the URL or the variables cannot be used, or nobody serves the scheme; lists the known ones, never the
            URL itself, which may hold a password.
    """
    if not url.strip():
        raise ConfigError("the artifact store has an empty URL", hint="use a folder, or file:///folder")
    if "://" not in url and not url.startswith("file:"):
        return LocalStore(Path(url))
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may hold the login
        raise ConfigError("the artifact store's URL cannot be read", hint="use file:///folder or scheme://…") from None
    if parts.scheme == "file":
        return LocalStore(_file_path(parts))
    opener = stores.get(parts.scheme) or _OWN.get(parts.scheme)
    if opener is None:
        known = ", ".join(sorted({"file", *_OWN, *stores}))
        raise ConfigError(
            f"no artifact store serves the scheme {parts.scheme!r}; known are: {known}",
            hint="install the plugin that brings it, and correct EMP_STORE if the scheme is misspelt",
        )
    return opener(url, environ)


def _open_azure(url: str, environ: Mapping[str, str]) -> ArtifactStore:
    from emp_core.storage.azure import AzureStore  # 45 MB and a third of a second, for those who use it

    return AzureStore.from_url(url, environ)


def _open_s3(url: str, environ: Mapping[str, str]) -> ArtifactStore:
    if find_spec("obstore") is None:
        raise ConfigError("s3:// stores need the package obstore", hint="pip install 'emp-core[s3]'")
    from emp_core.storage.s3 import S3Store

    return S3Store.from_url(url, environ)


_OWN: Mapping[str, StoreOpener] = MappingProxyType({"azure": _open_azure, "s3": _open_s3})


def _file_path(parts: SplitResult) -> Path:
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise ConfigError("a file URL of an artifact store names no absolute folder", hint="use file:///folder")
    if parts.query or parts.fragment:
        raise ConfigError(
            "a file URL of an artifact store has a query or fragment", hint="write ? as %3F and # as %23 in the path"
        )
    return Path(path)
