"""Which Ollama servers there are: their addresses, from the texts of variables."""

import json
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from emp_ollama.sizing import sizing_of

__all__ = ["DEFAULT_PORT", "HostConfig", "base_url", "read_host", "read_hosts"]

DEFAULT_PORT = 11434
_FIELDS: Mapping[str, type] = {
    "name": str,
    "host": str,
    "api_key": str,
    "api_key_env": str,
    "options": dict,
    "priority": int,
    "slots": int,
}
_EXPECTED: Mapping[type, str] = {str: "a text", int: "a whole number of 1 or more", dict: "an object"}


@frozen
class HostConfig:
    """One server of several.

    Attributes:
        name: what people call it; unique.
        host: its address, as `base_url` reads it.
        api_key_env: the variable that holds its key.
        options: the sizing options of models there; None: those of the worker.
        priority: 1 is preferred, then 2, and so on.
        slots: jobs at once there.
    """

    name: str
    host: str
    api_key: str = field(default="", repr=False)
    api_key_env: str = ""
    options: Mapping[str, Any] | None = None
    priority: int = 1
    slots: int = 1


def base_url(host: str, port: int = DEFAULT_PORT) -> str:
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


def read_host(value: str) -> str:
    """A value of ``OLLAMA_HOST``, as it is. Raises ValueError: it is no address."""
    base_url(value)
    return value


def read_hosts(value: str) -> tuple[HostConfig, ...]:
    """Several servers: addresses with commas between them, or a JSON list of objects.

    Raises:
        ValueError: lists every mistake with its place.
    """
    told: list[Any] = [{"host": one.strip()} for one in value.split(",") if one.strip()]
    if value.lstrip().startswith("["):
        try:
            told = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"expected addresses, or a JSON list of servers: {error}") from None
    if problems := [problem for index, one in enumerate(told) for problem in _problems(one, f"[{index}]")]:
        raise ValueError("; ".join(problems))
    hosts = tuple(HostConfig(**{"name": one["host"], **one}) for one in told)
    for what in ([one.name for one in hosts], [base_url(one.host) for one in hosts]):
        if twice := sorted({one for one in what if what.count(one) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice")
    return hosts


def _problems(told: Any, where: str) -> list[str]:
    if not isinstance(told, dict):
        return [f"{where}: expected an object"]
    problems = [f"{where}.{key}: unknown; known are {', '.join(_FIELDS)}" for key in told if key not in _FIELDS]
    problems += [
        f"{where}.{key}: expected {_EXPECTED[kind]}"
        for key, kind in _FIELDS.items()
        if key in told and (type(told[key]) is not kind or told[key] == "" or (kind is int and told[key] < 1))
    ]
    if "host" not in told:
        problems.append(f"{where}.host: missing")
    if problems:
        return problems
    try:
        base_url(told["host"])
        sizing_of(told.get("options", {}))
    except ValueError as error:
        problems.append(f"{where}: {error}")
    return problems
