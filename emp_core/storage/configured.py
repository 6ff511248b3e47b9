"""The artifact stores that an operator set up: the default one, and further ones by name."""

import re
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from emp_core.config import Settings
from emp_core.errors import ConfigError

__all__ = ["DEFAULT", "StoreConfig", "configured_stores"]

DEFAULT = "default"
"""The name of the store of ``EMP_STORE``."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.IGNORECASE | re.ASCII)
_CDN = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")
_FIELDS = {"url", "cdn", "env"}


@frozen
class StoreConfig:
    """A store as the settings describe it.

    Attributes:
        url: which store it is.
        cdn: the public address of the store's root; None: addresses are the store's own.
        env: variables that it sees in the place of the process's environment, credentials among them; None: it sees those
            of the environment.
    """

    name: str
    url: str = field(repr=False)
    cdn: str | None = None
    env: Mapping[str, str] | None = field(default=None, repr=False)


def configured_stores(settings: Settings) -> dict[str, StoreConfig]:
    """All stores that the settings describe, by name. ``default`` is among them: what ``EMP_STORE`` names.

    Raises:
        ConfigError: ``EMP_STORES`` or ``EMP_STORE_CDN`` cannot be used; lists every mistake, with no value.
    """
    problems: list[str] = []
    found = {name: _read(name, told, problems) for name, told in settings.stores.items()}
    if settings.store_cdn is not None and not _CDN.fullmatch(settings.store_cdn):
        problems.append("EMP_STORE_CDN: expected a URL such as https://cdn.example.com/art")
    if problems:
        raise ConfigError("the artifact stores cannot be used as they are set", problems=tuple(problems))
    named = found.get(settings.store_url)
    default = StoreConfig(DEFAULT, settings.store_url) if named is None else named
    cdn = default.cdn if settings.store_cdn is None else settings.store_cdn
    return {DEFAULT: StoreConfig(DEFAULT, default.url, cdn, default.env), **found}


def _read(name: str, told: Any, problems: list[str]) -> StoreConfig:
    path = f"EMP_STORES.{name[:40]}"
    if not _NAME.fullmatch(name) or name == DEFAULT:
        problems.append(f"{path}: expected a name of 1 to 32 letters, digits, '-' or '_', other than {DEFAULT!r}")
    entry: Mapping[str, Any] = {"url": told} if isinstance(told, str) else told if isinstance(told, dict) else {}
    url, cdn, env = entry.get("url"), entry.get("cdn"), entry.get("env")
    if not isinstance(url, str) or not url.strip():
        problems.append(f"{path}: expected a URL, or an object with a url")
    if cdn is not None and not (isinstance(cdn, str) and _CDN.fullmatch(cdn)):
        problems.append(f"{path}.cdn: expected a URL such as https://cdn.example.com/art")
    if env is not None and not (isinstance(env, dict) and all(isinstance(value, str) for value in env.values())):
        problems.append(f"{path}.env: expected an object of texts: variables and their values")
    problems += [f"{path}.{key}: unknown; known are {', '.join(sorted(_FIELDS))}" for key in entry.keys() - _FIELDS]
    return StoreConfig(name, str(url), cdn, env)
