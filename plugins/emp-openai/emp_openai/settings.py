"""What the plugin reads from the environment."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from emp_core.config import flag, number, one_of, setting, text, whole
from emp_core.errors import ConfigError

__all__ = ["AccountConfig", "OpenAISettings"]

_DEFAULT_URL = "https://api.openai.com/v1"
_KNOWN = (
    "name",
    "base_url",
    "api_key",
    "api_key_env",
    "organization",
    "project",
    "models",
    "priority",
    "slots",
    "resend",
)


@frozen
class AccountConfig:
    """One key or deployment.

    Attributes:
        name: what people call it.
        base_url: with the version in its path: ``https://api.openai.com/v1``.
        models: the only models that it has; empty: it does not say.
        priority: 1 is preferred.
        slots: jobs at once; None: as many as come.
        resend: whether jobs may be sent again there whose answer broke off; None: what holds for all.
    """

    name: str
    base_url: str
    api_key: str = field(default="", repr=False)
    organization: str = ""
    project: str = ""
    models: tuple[str, ...] = ()
    priority: int = 1
    slots: int | None = None
    resend: bool | None = None


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("expected an http:// or https:// address without credentials and query")
    return value.rstrip("/")


def _accounts(value: str) -> tuple[Mapping[str, Any], ...]:
    try:
        told = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"expected a JSON list of accounts: {error}") from None
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        raise ValueError("expected a JSON list of objects")
    problems = [f"[{index}]{problem}" for index, one in enumerate(told) for problem in _mistakes(one)]
    names = [one.get("name") for one in told]
    problems += [f"two accounts have the name {name!r}" for name in {name for name in names if names.count(name) > 1}]
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(told)


def _mistakes(one: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an account, without its values: one of them is a key."""
    if unknown := sorted(one.keys() - set(_KNOWN)):
        yield f": unknown {', '.join(unknown)}; known are {', '.join(_KNOWN)}"
    name = one.get("name")
    if not isinstance(name, str) or not name.strip():
        yield ".name: expected a text"
    for key in ("base_url", "api_key", "api_key_env", "organization", "project"):
        if not isinstance(one.get(key, ""), str):
            yield f".{key}: expected a text"
    models = one.get("models", [])
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        yield ".models: expected a list of texts"
    for key in ("priority", "slots"):
        count = one.get(key, 1)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            yield f".{key}: expected a whole number of 1 or more"
    if not isinstance(one.get("resend", False), bool):
        yield ".resend: expected true or false"
    try:
        _url(str(one.get("base_url", _DEFAULT_URL)))
    except ValueError as error:
        yield f".base_url: {error}"


def _file(value: str) -> Path:
    return Path(value).expanduser()


@frozen
class OpenAISettings:
    """Where the API is, and who we are there. Durations are in seconds, sizes in bytes."""

    api_key: str | None = setting(
        "OPENAI_API_KEY", default=None, parse=text, secret=True, help="The key. Servers of one's own may need none."
    )
    base_url: str = setting(
        "OPENAI_BASE_URL",
        default=_DEFAULT_URL,
        parse=_url,
        help="Where the API is, with its version: any server that speaks OpenAI's API.",
    )
    organization: str | None = setting(
        "OPENAI_ORG_ID",
        default=None,
        parse=text,
        help="Organization that is charged.",
        aliases=("OPENAI_ORGANIZATION",),
    )
    project: str | None = setting("OPENAI_PROJECT_ID", default=None, parse=text, help="Project that is charged.")
    accounts: tuple[Mapping[str, Any], ...] = setting(
        "EMP_OPENAI_ACCOUNTS",
        default=(),
        parse=_accounts,
        secret=True,
        help="Several keys or deployments, as a JSON list of objects with `name`, `base_url`, `api_key` or `api_key_env`, "
        "`organization`, `project`, `models`, `priority`, `slots` and `resend`; instead of the four above.",
    )
    balancer: str = setting(
        "EMP_OPENAI_BALANCER",
        default="least_loaded",
        parse=one_of("least_loaded", "priority", "round_robin", "fastest"),
        help="How an account is chosen among several.",
    )
    prices: Path | None = setting(
        "EMP_OPENAI_PRICES",
        default=None,
        parse=_file,
        help="JSON file of prices in dollars for a million tokens, by model: `input`, `cached_input`, `output`.",
    )
    resend: bool = setting(
        "EMP_OPENAI_RESEND",
        default=False,
        parse=flag,
        help="Whether a job may be sent again whose answer broke off, though it may be paid for twice: for servers of one's "
        "own. An account's and a job's own `resend` go first.",
    )
    silence_s: float = setting(
        "EMP_OPENAI_SILENCE_S",
        default=600.0,
        parse=number(0.1, 86400),
        help="How long an answer that has begun may be silent before its server counts as gone.",
    )
    poll_s: float = setting(
        "EMP_OPENAI_POLL_S",
        default=2.0,
        parse=number(0.01, 3600),
        help="How often a background response is asked after that cannot be followed.",
    )
    max_answer_bytes: int = setting(
        "EMP_OPENAI_MAX_ANSWER_BYTES", default=256 * 2**20, parse=whole(1024), help="Longest answer that is read."
    )

    def account_configs(self, environ: Mapping[str, str]) -> tuple[AccountConfig, ...]:
        """The accounts, or the one that the plain variables name.

        Raises:
            ConfigError: a key is to be read from a variable that is not set.
        """
        if not self.accounts:
            return (
                AccountConfig("openai", self.base_url, self.api_key or "", self.organization or "", self.project or ""),
            )
        return tuple(self._account(one, environ) for one in self.accounts)

    def _account(self, told: Mapping[str, Any], environ: Mapping[str, str]) -> AccountConfig:
        key = str(told.get("api_key") or "")
        if variable := told.get("api_key_env"):
            key = environ.get(str(variable), "")
            if not key:
                raise ConfigError(f"EMP_OPENAI_ACCOUNTS reads a key from {variable}, which is not set")
        return AccountConfig(
            name=told["name"],
            base_url=str(told.get("base_url", _DEFAULT_URL)).rstrip("/"),
            api_key=key,
            organization=told.get("organization", ""),
            project=told.get("project", ""),
            models=tuple(told.get("models", ())),
            priority=told.get("priority", 1),
            slots=told.get("slots"),
            resend=told.get("resend"),
        )
