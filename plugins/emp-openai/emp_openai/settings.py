"""What the plugin reads from the environment."""

import ipaddress
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from emp_core.config import number, one_of, setting, text, whole
from emp_core.errors import ConfigError

__all__ = ["AccountConfig", "OpenAISettings"]

_KNOWN = ("name", "base_url", "api_key", "api_key_env", "organization", "project", "models", "priority", "slots")


@frozen
class AccountConfig:
    """One key or deployment.

    Attributes:
        name: what people call it.
        base_url: with the version in its path: ``https://api.openai.com/v1``.
        models: the only models that it has; empty: it does not say.
        priority: 1 is preferred.
        slots: jobs at once.
    """

    name: str
    base_url: str
    api_key: str = field(default="", repr=False)
    organization: str = ""
    project: str = ""
    models: tuple[str, ...] = ()
    priority: int = 1
    slots: int = 8

    @property
    def is_ours(self) -> bool:
        """Whether it is a server on this machine or in a private network: its answers cost nothing by the piece."""
        host = urlsplit(self.base_url).hostname or ""
        if host == "localhost" or host.endswith((".local", ".internal", ".localhost")):
            return True
        try:
            return ipaddress.ip_address(host).is_private
        except ValueError:
            return False


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
    problems = []
    for index, one in enumerate(told):
        if unknown := sorted(one.keys() - set(_KNOWN)):
            problems.append(f"[{index}]: unknown {', '.join(unknown)}; known are {', '.join(_KNOWN)}")
        if not isinstance(one.get("name"), str) or not one["name"]:
            problems.append(f"[{index}].name: expected a text")
        if not isinstance(one.get("models", []), list):
            problems.append(f"[{index}].models: expected a list")
        for name in ("priority", "slots"):
            if not isinstance(one.get(name, 1), int) or one.get(name, 1) < 1:
                problems.append(f"[{index}].{name}: expected a whole number of 1 or more")
        try:
            _url(str(one.get("base_url", "https://api.openai.com/v1")))
        except ValueError as error:
            problems.append(f"[{index}].base_url: {error}")
    names = [one.get("name") for one in told]
    problems += [f"two accounts have the name {name!r}" for name in {name for name in names if names.count(name) > 1}]
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(told)


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
        default="https://api.openai.com/v1",
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
        "`organization`, `project`, `models`, `priority` and `slots`; instead of the four above.",
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
    resend: str = setting(
        "EMP_OPENAI_RESEND",
        default="auto",
        parse=one_of("auto", "always", "never"),
        help="Whether a job is sent again whose answer broke off; `auto`: to servers on this machine or in private "
        "networks. A job's own `resend` goes first.",
    )
    silence_s: float = setting(
        "EMP_OPENAI_SILENCE_S",
        default=600.0,
        parse=number(0.1, 86400),
        help="How long an answer may be silent before its server counts as gone.",
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
            base_url=str(told.get("base_url", "https://api.openai.com/v1")).rstrip("/"),
            api_key=key,
            organization=str(told.get("organization") or ""),
            project=str(told.get("project") or ""),
            models=tuple(map(str, told.get("models", ()))),
            priority=told.get("priority", 1),
            slots=told.get("slots", 8),
        )
