"""Which IP addresses are public, whatever they are wrapped in."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["IPAddress", "is_public", "literal_address"]

IPAddress = IPv4Address | IPv6Address

_NOT_PUBLIC_4 = (
    IPv4Network("192.0.0.0/24"),  # protocols' own (RFC 6890); some Pythons know a part of it alone
    IPv4Network("192.88.99.0/24"),  # relays from 6to4 (RFC 7526)
    IPv4Network("168.63.129.16/32"),  # public by its number, but the host's own services for every machine on Azure
)
_GLOBAL_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = (
    IPv6Network("2001::/23"),  # protocols' own, Teredo among them (RFC 2928)
    IPv6Network("2001:db8::/32"),  # documentation (RFC 3849)
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
)
_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def is_public(address: IPAddress) -> bool:
    """Whether an address belongs to the public internet: to one host, and to nobody's private network.

    Not public: private, loopback, link-local, carriers' (100.64.0.0/10), unspecified, multicast and reserved addresses
    (IANA's special-purpose registries), and IPv6 addresses that stand for such an IPv4 address.
    """
    if isinstance(address, IPv4Address):
        special = address.is_multicast or address.is_reserved or any(address in net for net in _NOT_PUBLIC_4)
        return address.is_global and not special
    if address.scope_id is not None or not all(is_public(inner) for inner in _embedded(address)):
        return False
    if address in _NAT64:
        return True
    return address in _GLOBAL_6 and not any(address in net for net in _NOT_PUBLIC_6)


def literal_address(host: str) -> IPAddress | None:
    """The address that a host of a URL is, written the one usual way; None: it is a name.

    Raises:
        ValueError: it is an address in a spelling that some programs read one way and some another (``127.1``,
            ``0x7f.0.0.1``, ``2130706433``, ``0177.0.0.1``, ``fe80::1%eth0``).
    """
    last = host.rstrip(".").rpartition(".")[2].lower()
    # As browsers tell addresses from names: by the last label.
    if ":" not in host and not last.isdigit() and not last.startswith("0x"):
        return None
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError("an address with a zone")
    return address


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that a router or a system may send packets for this address to."""
    number = int(address)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address in _NAT64:
        yield IPv4Address(number & 0xFFFF_FFFF)
    if address in _SIX_TO_FOUR:
        yield IPv4Address(number >> 80 & 0xFFFF_FFFF)
    if number >> 32 & 0xFFFF_FFFF in _ISATAP:  # RFC 5214
        yield IPv4Address(number & 0xFFFF_FFFF)
