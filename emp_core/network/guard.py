"""`Guard`: whether an address that came from outside may be connected to."""

import re
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import anyio
import httpx
from attrs import frozen

from emp_core.errors import AddressRefused, ConfigError
from emp_core.network.addresses import IPAddress, is_public, literal_address

__all__ = ["Guard"]

_PORTS = {"http": 80, "https": 443}
_FIRST_FREE_PORT = 1024
_NAME = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII
)
_ADDRESSES_TRIED = 6
_HINT = "the worker's operator can allow it by EMP_PRIVATE_HOSTS"


@frozen
class _Allowed:
    """One entry of what the operator allows: a network or a name, with a port or for all ports."""

    network: IPv4Network | IPv6Network | None = None
    name: str = ""
    port: int | None = None

    def is_named(self, host: str) -> bool:
        """Whether it stands for this host as it is written in a URL."""
        return host.endswith(self.name[1:]) if self.name.startswith("*") else bool(self.name) and host == self.name

    def holds(self, address: IPAddress) -> bool:
        return self.network is not None and address.version == self.network.version and address in self.network


class Guard:
    """Tells which URLs from outside may be asked: those of public hosts, and those that the operator allows.

    The check is on the address that is connected to, so that a name cannot be resolved to one address for the check and to
    another for the connection: connect to what `addresses` gives, or use `guarded_client`, which does.

    Args:
        allow: what may be reached though it is private: addresses (``10.0.0.7``), networks (``10.0.0.0/8``), names
            (``minio.internal``, ``*.internal``), each with ``:port`` or for all ports; ``*`` allows everything.

    Raises:
        ConfigError: entries that cannot be read; lists all of them.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self.allow = tuple(allow)
        problems: list[str] = []
        self._allowed: list[_Allowed] = []
        for entry in self.allow:
            try:
                self._allowed.append(_read(entry.strip().lower()))
            except ValueError as error:
                problems.append(f"{entry!r}: {error}")
        if problems:
            raise ConfigError("EMP_PRIVATE_HOSTS has entries that cannot be read", problems=tuple(problems))

    def __repr__(self) -> str:
        return f"Guard({list(self.allow)!r})"

    def check_url(self, url: httpx.URL | str) -> httpx.URL:
        """Look at a URL without asking anybody: what it says of itself may be refused already.

        Raises:
            AddressRefused: it is no http or https URL, carries a login, names a private address or ``localhost``, spells
                an address in an unusual way, or has a port of another service.
        """
        url = _parsed(url)
        if url.scheme not in _PORTS:
            raise AddressRefused(f"{_shown(url)} is no http or https URL")
        if url.userinfo:
            raise AddressRefused(
                f"the URL of {url.host} carries a login",
                hint="URLs are kept and shown with the job: use a signed URL that ends, or put the file into the store",
            )
        host, port = _host(url), _port(url)
        if known := _known_addresses(url, host):
            self._permitted(known, host, port)
        elif not _NAME.fullmatch(host):
            raise AddressRefused(f"{_shown(url)} names no host")
        if port < _FIRST_FREE_PORT and port not in _PORTS.values() and not self._names_port(known, host, port):
            raise AddressRefused(f"port {port} of {host} belongs to another kind of service", hint=_HINT)
        return url

    async def addresses(self, url: httpx.URL | str) -> tuple[str, ...]:
        """Look at a URL, resolve its host once, and give the addresses of it that may be connected to, at most six.

        Raises:
            AddressRefused: as `check_url`; or the host has private addresses alone.
            OSError: its name cannot be resolved.
        """
        url = self.check_url(url)
        host, port = _host(url), _port(url)
        found = _known_addresses(url, host)
        if not found:
            told = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = tuple(ip_address(text) for text in dict.fromkeys(str(entry[4][0]) for entry in told))
        return tuple(map(str, self._permitted(found, host, port)[:_ADDRESSES_TRIED]))

    def _permitted(self, addresses: Sequence[IPAddress], host: str, port: int) -> list[IPAddress]:
        """Those of a host's addresses that may be connected to. Raises AddressRefused when none may."""
        permitted = [address for address in addresses if is_public(address) or self._allows(address, host, port)]
        if not permitted:
            raise AddressRefused(
                f"{host} is not in the public internet, and may not be asked for",
                hint=_HINT,
                details={"reason": "private_address", "host": host},
            )
        return permitted

    def _allows(self, address: IPAddress, host: str, port: int) -> bool:
        entries = (entry for entry in self._allowed if entry.port in (None, port))
        return any(entry.is_named(host) or entry.holds(address) for entry in entries)

    def _names_port(self, addresses: Sequence[IPAddress], host: str, port: int) -> bool:
        entries = [entry for entry in self._allowed if entry.port == port]
        return any(entry.is_named(host) or any(map(entry.holds, addresses)) for entry in entries)


def _read(entry: str) -> _Allowed:
    """An entry of what is allowed. Raises ValueError with what was expected."""
    if entry == "*":
        return _Allowed(name="*")
    host, port = entry, None
    bracketed = re.fullmatch(r"\[(.*)\](?::(\d+))?", entry)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    if port is not None and not (port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError("expected a port from 1 to 65535 after the colon")
    number = None if port is None else int(port)
    try:
        return _Allowed(network=ip_network(host), port=number)
    except ValueError as error:
        if re.fullmatch(r"[\d./]+|.*:.*", host):
            raise ValueError(f"expected an address or a network: {error}") from None
    name = host.rstrip(".")
    if not _NAME.fullmatch(name.removeprefix("*.")):
        raise ValueError("expected a name, an address or a network, with or without a port")
    return _Allowed(name=name, port=number)


def _parsed(url: httpx.URL | str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        # What follows the colon repeats a part of the URL, where that of a password may stand.
        raise AddressRefused(f"a URL cannot be read: {str(error).partition(':')[0]}") from None


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii").lower().removesuffix(".")


def _port(url: httpx.URL) -> int:
    return _PORTS.get(url.scheme, 0) if url.port is None else url.port


def _known_addresses(url: httpx.URL, host: str) -> tuple[IPAddress, ...]:
    """The addresses of a host that nobody has to be asked for; none: it is a name."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761
        return (IPv4Address("127.0.0.1"), IPv6Address("::1"))
    try:
        literal = literal_address(host)
    except ValueError:
        raise AddressRefused(
            f"{_shown(url)} spells an address in an unusual way", hint="write it as 203.0.113.7 or [2001:db8::7]"
        ) from None
    return () if literal is None else (literal,)


def _shown(url: httpx.URL) -> str:
    """A URL for messages: without login, query and fragment, which may hold secrets."""
    port = "" if url.port is None else f":{url.port}"
    return f"{url.scheme}://{url.host}{port}{url.path}"[:300]
