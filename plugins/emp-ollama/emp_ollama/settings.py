"""What the plugin reads from the environment."""

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from emp_core.config import flag, number, setting, text, whole, words
from emp_core.errors import ConfigError
from emp_ollama.hosts import DEFAULT_PORT, HostConfig, base_url, read_host, read_hosts
from emp_ollama.sizing import Sizing, read_sizing

__all__ = ["OllamaSettings"]


@frozen
class OllamaSettings:
    """Where Ollama is, and what its models may do. Durations are in seconds, sizes in bytes."""

    host: str = setting(
        "OLLAMA_HOST",
        default="127.0.0.1",
        parse=read_host,
        help="Where Ollama is: a host, `host:port`, or an `http://` or `https://` address.",
    )
    port: int = setting(
        "OLLAMA_BASE_PORT",
        default=DEFAULT_PORT,
        parse=whole(1, 65535),
        help="Port of the Ollama server, where `OLLAMA_HOST` names none.",
        aliases=("OLLAMA_PORT",),
    )
    hosts: tuple[HostConfig, ...] = setting(
        "EMP_OLLAMA_HOSTS",
        default=(),
        parse=read_hosts,
        secret=True,
        help="Several Ollama servers behind one worker, instead of `OLLAMA_HOST`: `gpu1,gpu2:11500`, or a JSON list of objects "
        "with `host`, and if need be `name`, `api_key` or `api_key_env`, `options`, `priority` and `slots`.",
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
    registries: tuple[str, ...] = setting(
        "EMP_OLLAMA_REGISTRIES",
        default=("registry.ollama.ai", "hf.co", "huggingface.co"),
        parse=words,
        help="Where models may be pulled from: the first part of names of three parts. Others name none and come from Ollama's "
        "own.",
    )
    keep_alive: str | None = setting(
        "EMP_OLLAMA_KEEP_ALIVE",
        default=None,
        parse=text,
        help="How long a model stays loaded after a job that does not say: `10m`, seconds, `-1` for ever. Ollama's own "
        "default when not set.",
    )
    options: Mapping[str, Any] = setting(
        "EMP_OLLAMA_OPTIONS",
        default=dict,
        parse=read_sizing,
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

    @property
    def sizing(self) -> Sizing:
        """What models run with."""
        return Sizing(self.options, self.allow_reload)

    def at(self, host: HostConfig, environ: Mapping[str, str]) -> "OllamaSettings":
        """These settings, for one of several servers.

        Raises:
            ConfigError: its key is to be read from a variable that is not set.
        """
        key = host.api_key or self.api_key
        if host.api_key_env:
            key = environ.get(host.api_key_env, "")
            if not key:
                raise ConfigError(f"EMP_OLLAMA_HOSTS reads a key from {host.api_key_env}, which is not set")
        own = self.options if host.options is None else host.options
        return evolve(self, hosts=(), host=host.host, api_key=key, options=own)
