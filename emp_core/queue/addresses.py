"""What HUB_REDIS_URL says: one server, a service that sentinels watch, or the nodes of a cluster."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from attrs import field, frozen

from emp_core.errors import ConfigError

__all__ = ["Address", "Node", "hash_tag", "parse_address", "shown_url"]

Node = tuple[str, int]
"""Host and port."""

_REDIS_PORT = 6379
_SENTINEL_PORT = 26379
_HINT = (
    "write it as redis://[user:password@]host:port/db, rediss://… (TLS), unix:///path, "
    "redis+sentinel://[user:password@]host:port,host:port/service/db or redis+cluster://[user:password@]host:port,host:port"
)


@frozen
class Address:
    """Where Redis is.

    Attributes:
        kind: ``direct``, ``sentinel`` or ``cluster``.
        nodes: the server itself, the sentinels, or some of the cluster's nodes; empty for a Unix socket.
        tls: whether connections are encrypted.
        options: how connections to the data are made, as redis-py calls it: credentials, database, certificates.
        service: what the sentinels call the data's master.
        sentinel_options: how connections to the sentinels are made.
    """

    kind: str
    nodes: tuple[Node, ...]
    tls: bool
    options: Mapping[str, Any] = field(repr=False)
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(factory=dict, repr=False)


_HOSTS = re.compile(r"[^/?#]*")


def shown_url(url: str) -> str:
    """The URL without user, password and query: fit for logs."""
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def hash_tag(namespace: str) -> str | None:
    """The part of a key's name that alone decides about its slot; None when there is none (cluster specification)."""
    _, opened, rest = namespace.partition("{")
    tag, closed, _ = rest.partition("}")
    return tag if opened and closed and tag else None


def parse_address(url: str) -> Address:
    """Read a URL.

    Raises:
        ConfigError: it cannot be used; tells every mistake.
    """
    problems: list[str] = []
    try:
        address = _parse(url, problems)
    except ValueError as error:
        problems.append(str(error))
        address = None
    if problems or address is None:
        raise ConfigError(f"HUB_REDIS_URL={shown_url(url)!r} cannot be used", problems=tuple(problems), hint=_HINT)
    return address


def _parse(url: str, problems: list[str]) -> Address | None:
    parts = _split(url)
    options = _options(parts.query, problems)
    sentinel = {name[9:]: options.pop(name) for name in list(options) if name.startswith("sentinel_")}
    certificates = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if certificates and not parts.scheme.startswith("rediss"):
        problems.append(f"{', '.join(certificates)}: only rediss:// has certificates")
    options |= _credentials(parts)
    match parts.scheme:
        case "unix":
            return Address("direct", (), tls=False, options={**options, "path": _unix_path(parts)})
        case "redis" | "rediss":
            nodes = _nodes(parts, _REDIS_PORT, default="localhost")
            if len(nodes) > 1:
                problems.append("one host is expected; several are for redis+sentinel:// and redis+cluster://")
            options.setdefault("db", _database(parts.path.strip("/")))
            return Address("direct", nodes, tls=parts.scheme == "rediss", options=options)
        case "redis+sentinel" | "rediss+sentinel":
            service, _, database = parts.path.strip("/").partition("/")
            options.setdefault("db", _database(database))
            return Address(
                "sentinel",
                _nodes(parts, _SENTINEL_PORT),
                tls=parts.scheme == "rediss+sentinel",
                options=options,
                service=unquote(service) or "mymaster",
                sentinel_options={**certificates, **sentinel},
            )
        case "redis+cluster" | "rediss+cluster":
            if _database(parts.path.strip("/")) or options.pop("db", 0):
                problems.append("a cluster has database 0 only")
            return Address(
                "cluster",
                _nodes(parts, _REDIS_PORT),
                tls=parts.scheme == "rediss+cluster",
                options={**options, "db": 0},
            )
    problems.append(f"the scheme {parts.scheme!r} is not known")
    return None


def _split(url: str) -> SplitResult:
    """The URL's parts. The library's own split takes one host; some versions refuse an IPv6 address among several."""
    scheme, colon, rest = url.partition("://")
    hosts = _HOSTS.match(rest)
    if not colon or hosts is None:
        return urlsplit(url)
    return urlsplit(f"{scheme}://hosts{rest[hosts.end() :]}")._replace(netloc=hosts[0])


def _credentials(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}


def _nodes(parts: SplitResult, port: int, *, default: str = "") -> tuple[Node, ...]:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return tuple(_node(host.strip(), port, default) for host in hosts)


def _node(text: str, port: int, default: str) -> Node:
    host, colon, number = text.rpartition(":")
    if not colon or "]" in number:  # no port; an IPv6 address stands in brackets
        host, number = text, ""
    host = unquote(host.strip("[]")) or default
    if not host:
        raise ValueError("a host is missing")
    if number and not (number.isdecimal() and 0 < int(number) < 65536):
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    return host, int(number) if number else port


def _database(text: str) -> int:
    if not text.isdecimal():
        if text:
            raise ValueError(f"the database is a number, not {text!r}")
        return 0
    return int(text)


def _unix_path(parts: SplitResult) -> str:
    if not parts.path:
        raise ValueError("the socket's path is missing")
    return unquote(parts.path)


def _options(query: str, problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, [value, *_] in parse_qs(query, keep_blank_values=True).items():
        if name not in _OPTIONS:
            problems.append(f"{name}: unknown; known are {', '.join(_OPTIONS)}")
            continue
        try:
            found[name] = _OPTIONS[name](value)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    return found


def _file(value: str) -> str:
    if not Path(value).is_file():
        raise ValueError(f"there is no file {value}")
    return value


def _yes_or_no(value: str) -> bool:
    match value.lower():
        case "1" | "true" | "yes":
            return True
        case "0" | "false" | "no":
            return False
    raise ValueError("expected true or false")


def _requirement(value: str) -> str:
    if value not in ("none", "optional", "required"):
        raise ValueError("expected none, optional or required")
    return value


_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "db": _database,
    "client_name": str,
    "ssl_ca_certs": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_password": str,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": _yes_or_no,
    "sentinel_username": str,
    "sentinel_password": str,
}
"""What may stand in the URL's query → its parser. The rest of redis-py's options would undo what keeps links honest."""
