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


_HIDDEN = "(hidden)"
_PATHS_ALONE = ("file", "unix")


def shown_url(url: str) -> str:
    """The URL of a Redis or of a store without user, password and query: fit for logs.

    Any text may be given. What may be a part of a password that was not percent-encoded is hidden, too.
    """
    scheme, colon, rest = url.partition("://")
    if not colon or "@" in scheme:
        return _HIDDEN if "@" in url else _before("?#", url)
    if _is_login_torn(scheme, rest):
        return f"{scheme}://{_HIDDEN}"
    netloc = _before("/?#", rest)
    hosts = netloc.rpartition("@")[2]
    # Without an @, what is no port may be the password of a login whose host was forgotten.
    has_ports = all(not port or _is_port(port) for _, port in map(_host_and_port, hosts.split(",")))
    return f"{scheme}://{hosts if has_ports else _HIDDEN}{_before('?#', rest[len(netloc) :])}"


def _is_login_torn(scheme: str, rest: str) -> bool:
    """Whether an @ comes too late to end the login: a password before it has a ``/``, ``?`` or ``#`` of its own."""
    # In the path of a socket or a folder an @ is a sign like any other.
    is_path = scheme in _PATHS_ALONE and rest.startswith("/")
    return "@" in rest[len(_before("?#" if is_path else "/?#", rest)) :]


def _before(signs: str, text: str) -> str:
    """The text up to the first of the signs."""
    return re.split(f"[{signs}]", text, maxsplit=1)[0]


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
    scheme, colon, rest = url.partition("://")
    if not colon or "@" in scheme:
        raise ValueError("it does not begin with a scheme such as redis://")
    if _is_login_torn(scheme.lower(), rest):
        raise ValueError(
            "an @ stands after a /, ? or #: within user, password and query write / as %2F, ? as %3F, # as %23 and @ as %40"
        )
    parts = _split(scheme, rest)
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
    problems.append(f"the scheme {scheme!r} is not known")
    return None


def _split(scheme: str, rest: str) -> SplitResult:
    """The URL's parts. The library's own split takes one host; some versions refuse an IPv6 address among several."""
    netloc = _before("/?#", rest)
    return urlsplit(f"{scheme}://hosts{rest[len(netloc) :]}")._replace(netloc=netloc)


def _credentials(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}


def _nodes(parts: SplitResult, port: int, *, default: str = "") -> tuple[Node, ...]:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return tuple(_node(host.strip(), port, default) for host in hosts)


def _node(text: str, port: int, default: str) -> Node:
    host, number = _host_and_port(text)
    host = unquote(host.strip("[]")) or default
    if not host:
        raise ValueError("a host is missing")
    if number and not _is_port(number):
        # Not repeated: it is a password where the host was forgotten.
        raise ValueError(f"what follows {host}: is no port from 1 to 65535")
    return host, int(number) if number else port


def _host_and_port(text: str) -> tuple[str, str]:
    host, colon, number = text.rpartition(":")
    if not colon or "]" in number:  # an IPv6 address stands in brackets
        return text, ""
    return host, number


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536


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
