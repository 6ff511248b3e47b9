"""What the plugin reads from the environment."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from emp_core.config import flag, json_object, number, setting, text, whole

__all__ = ["SIZING_OPTIONS", "OllamaSettings", "base_url"]

SIZING_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "shift")
"""What makes Ollama start a model's process again when it differs from the request before (recorded with 0.33)."""

_PORT = 11434


def base_url(host: str, port: int = _PORT) -> str:
    """The address that a value of ``OLLAMA_HOST`` means: a host, a host and a port, or a URL.

    Ollama's own server reads the same variable as the address to listen on: what means every address there means this
    machine here.

    Raises:
        ValueError: it cannot be read.
    """
    scheme, found, rest = host.strip().partition("://")
    if not found:
        scheme, rest = "http", scheme
    if scheme not in ("http", "https"):
        raise ValueError("expected a host, host:port, or an http:// or https:// address")
    authority, slash, path = rest.partition("/")
    name, told = authority, ""
    if authority.startswith("["):
        name, _, after = authority.partition("]")
        name, told = f"{name}]", after.removeprefix(":")
    elif authority.count(":") > 1:
        name = f"[{authority}]"
    elif ":" in authority:
        name, _, told = authority.partition(":")
    if (told and not told.isdecimal()) or "@" in authority or any(c.isspace() for c in rest):
        raise ValueError("expected a host, host:port, or an http:// or https:// address")
    if name in ("", "0.0.0.0", "[::]"):  # noqa: S104 - an address to connect to is made of it
        name = "127.0.0.1"
    default = {"http": port, "https": 443}[scheme] if found and not told else port
    return f"{scheme}://{name}:{told or default}{slash}{path}".rstrip("/")


def _host(value: str) -> str:
    base_url(value)
    return value


def _sizing(value: str) -> dict[str, Any]:
    options = json_object(value)
    if unknown := sorted(options.keys() - set(SIZING_OPTIONS)):
        raise ValueError(f"expected only {', '.join(SIZING_OPTIONS)}, not {', '.join(unknown)}")
    return options


@frozen
class OllamaSettings:
    """Where Ollama is, and what its models may do. Durations are in seconds, sizes in bytes."""

    host: str = setting(
        "OLLAMA_HOST",
        default="127.0.0.1",
        parse=_host,
        help="Where Ollama is: a host, `host:port`, or an `http://` or `https://` address.",
    )
    port: int = setting(
        "OLLAMA_BASE_PORT",
        default=_PORT,
        parse=whole(1, 65535),
        help="Port of the Ollama server, where `OLLAMA_HOST` names none.",
        aliases=("OLLAMA_PORT",),
    )
    api_key: str | None = setting(
        "OLLAMA_API_KEY",
        default=None,
        parse=text,
        secret=True,
        help="Sent as a bearer token: for servers behind a proxy. Ollama itself asks for none.",
    )
    default_model: str | None = setting(
        "OLLAMA_DEFAULT_MODEL", default=None, parse=text, help="Model of jobs that name none."
    )
    pull: bool = setting(
        "EMP_OLLAMA_PULL", default=False, parse=flag, help="Whether models that are missing are pulled when a job asks."
    )
    keep_alive: str | None = setting(
        "EMP_OLLAMA_KEEP_ALIVE",
        default=None,
        parse=text,
        help="How long a model stays loaded after a job that does not say: `10m`, seconds, `-1` for ever. Ollama's own "
        "default when not set.",
    )
    sizing: Mapping[str, Any] = setting(
        "EMP_OLLAMA_OPTIONS",
        default=dict,
        parse=_sizing,
        help='The options that size a model\'s process, the same for all jobs of this worker: `{"num_ctx": 8192}`.',
    )
    allow_reload: bool = setting(
        "EMP_OLLAMA_ALLOW_RELOAD",
        default=False,
        parse=flag,
        help="Whether a job may have its model loaded again with other sizes than `EMP_OLLAMA_OPTIONS` says.",
    )
    silence_s: float = setting(
        "EMP_OLLAMA_SILENCE_S",
        default=300.0,
        parse=number(1, 86400),
        help="How long an answer that has begun may be silent before its server counts as gone.",
    )
    stall_s: float = setting(
        "EMP_OLLAMA_STALL_S",
        default=60.0,
        parse=number(1, 86400),
        help="How long a server may not answer anything while a job waits for its turn before it counts as gone.",
    )
    max_answer_bytes: int = setting(
        "EMP_OLLAMA_MAX_ANSWER_BYTES", default=64 * 2**20, parse=whole(1024), help="Longest answer that is read."
    )

    @property
    def base_url(self) -> str:
        """The server's address."""
        return base_url(self.host, self.port)
