"""Which URLs from outside may be asked."""

import socket
from typing import Any

import httpx
import pytest

from emp_core.errors import AddressRefused, ConfigError
from emp_core.network.guard import Guard

PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104 - refused
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
]
PRIVATE_6 = [
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:a9fe:a9fe",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "2606:4700::5efe:127.0.0.1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "[2606:4700:4700::1111]", "[64:ff9b::8.8.8.8]", "[2002:808:808::1]"]
ODD = [
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.0x1",
    "127.0.0.01",
    "1.2.3.4.5",
    "0x7f.1.",
]


def resolving(monkeypatch: pytest.MonkeyPatch, **hosts: list[str]) -> list[str]:
    """Have names lead to these addresses; gives a list that fills with the names that were asked for."""
    asked: list[str] = []

    async def getaddrinfo(host: Any, port: Any, **_: Any) -> list[Any]:
        asked.append(host)
        if host.replace(".", "_") not in hosts:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(0, 0, 0, "", (address, port)) for address in hosts[host.replace(".", "_")]]

    monkeypatch.setattr("anyio.getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("host", [*PRIVATE, *(f"[{one}]" for one in PRIVATE_6)])
async def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(AddressRefused, match="EMP_PRIVATE_HOSTS"):
        Guard().check_url(f"http://{host}/latest/meta-data")
    with pytest.raises(AddressRefused):
        await Guard().addresses(f"https://{host}:8080/")


@pytest.mark.parametrize("host", PUBLIC)
async def test_public_addresses_may_be_asked_as_they_are(host: str) -> None:
    assert await Guard().addresses(f"https://{host}/cat.png") == (host.strip("[]"),) or host.startswith("[64:")


@pytest.mark.parametrize("host", ODD)
def test_odd_spellings_of_addresses_are_refused_and_not_resolved(host: str) -> None:
    with pytest.raises(AddressRefused, match=r"unusual way|Invalid IPv4"):
        Guard(["*"]).check_url(f"http://{host}/")


@pytest.mark.parametrize(
    "host",
    [
        "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "a b",
        "",
        "-.-",
        "a..b",
    ],
)
def test_hosts_that_are_no_names_are_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        Guard().check_url(f"http://{host}/")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "files.localhost"])
async def test_localhost_is_refused_by_any_of_its_names(host: str) -> None:
    with pytest.raises(AddressRefused, match="not in the public internet"):
        Guard().check_url(f"http://{host}:8188/")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.com/a", "gopher://example.com/", "//example.com/", "cat.png"]
)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(AddressRefused, match="no http or https"):
        Guard(["*"]).check_url(url)


@pytest.mark.parametrize("sign", ["#", "?", "/"])
def test_a_password_that_makes_a_url_unreadable_is_not_repeated(sign: str) -> None:
    with pytest.raises(AddressRefused) as caught:
        Guard().check_url(f"http://worker:geheim{sign}b@example.com/x")
    assert str(caught.value) == "a URL cannot be read: Invalid port"


def test_a_login_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(AddressRefused) as caught:
        Guard().check_url("https://me:hunter2@example.com/cat.png?sig=s3cret")
    assert "login" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("port", [0, 1, 22, 25, 53, 135, 1023])
def test_ports_of_other_services_are_refused(port: int) -> None:
    with pytest.raises(AddressRefused, match="another kind of service"):
        Guard(["*", "example.com"]).check_url(f"http://example.com:{port}/")


@pytest.mark.parametrize("port", [80, 443, 1024, 8080, 8443, 9000, 65535])
def test_ports_of_web_servers_are_not(port: int) -> None:
    assert Guard().check_url(f"http://example.com:{port}/").host == "example.com"


async def test_a_name_that_leads_into_the_private_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, inside_example=["10.0.0.7", "::1", "fe80::1%eth0"])
    with pytest.raises(AddressRefused, match=r"inside\.example is not in the public internet"):
        await Guard().addresses("https://inside.example/cat.png")


async def test_of_a_name_with_both_kinds_of_addresses_the_public_ones_may_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, both_example=["10.0.0.7", "8.8.8.8", "8.8.8.8", "::1"])
    assert await Guard().addresses("https://both.example/") == ("8.8.8.8",)


async def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, host_example=["8.8.8.8"])
    await Guard(["10.0.0.0/8", "other.example"]).addresses("https://host.example/")
    assert asked == ["host.example"]


async def test_a_name_that_does_not_resolve_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch)
    with pytest.raises(OSError, match="no such name"):
        await Guard().addresses("https://nowhere.example/")


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("10.0.0.0/8", "http://10.1.2.3:8080/", True),
        ("10.0.0.0/8", "http://11.0.0.1.nip.example/", True),
        ("10.0.0.0/8", "http://192.168.0.1/", False),
        ("10.0.0.7", "http://10.0.0.7/", True),
        ("10.0.0.7", "http://10.0.0.8/", False),
        ("127.0.0.1:9000", "http://127.0.0.1:9000/", True),
        ("127.0.0.1:9000", "http://localhost:9000/", True),
        ("127.0.0.1:9000", "http://127.0.0.1:6379/", False),
        ("127.0.0.1:81", "http://127.0.0.1:81/", True),
        ("127.0.0.1", "http://127.0.0.1:81/", False),
        ("localhost", "http://localhost:9000/", True),
        ("localhost", "http://127.0.0.1:9000/", False),
        ("[fd00::/8]:80", "http://[fd00::7]/", True),
        ("fd00::/8", "http://[fd00::7]:8080/", True),
        ("[fd00::7]:80", "http://[fd00::7]:8080/", False),
        ("*", "http://192.168.0.1:3000/", True),
        ("*.internal:9000", "http://localhost:9000/", False),
    ],
)
def test_an_entry_allows_what_it_names_and_nothing_else(entry: str, url: str, allowed: bool) -> None:
    guard = Guard([entry])
    if allowed:
        assert guard.check_url(url) == httpx.URL(url)
    else:
        with pytest.raises(AddressRefused):
            guard.check_url(url)


@pytest.mark.parametrize(
    ("entry", "host", "allowed"),
    [
        ("minio.internal", "minio.internal", True),
        ("minio.internal", "MINIO.internal.", True),
        ("minio.internal:9000", "minio.internal", False),
        ("minio.internal", "evil-minio.internal", False),
        ("*.internal", "minio.internal", True),
        ("*.internal", "internal", False),
        ("10.0.0.0/24", "minio.internal", True),
        ("10.0.1.0/24", "minio.internal", False),
    ],
)
async def test_a_name_is_allowed_by_itself_or_by_its_address(
    monkeypatch: pytest.MonkeyPatch, entry: str, host: str, allowed: bool
) -> None:
    address = ["10.0.0.7"]
    resolving(monkeypatch, minio_internal=address, **{"evil-minio_internal": address, "internal": address})
    guard = Guard([entry])
    if allowed:
        assert await guard.addresses(f"http://{host}/") == ("10.0.0.7",)
    else:
        with pytest.raises(AddressRefused):
            await guard.addresses(f"http://{host}/")


def test_entries_that_cannot_be_read_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Guard(["10.0.0.0/33", "a b", "10.0.0.1:99999", "host:x", "10.0.0.7/8", "*a", "ok.example"])
    assert len(caught.value.problems) == 6
