"""What HUB_REDIS_URL may say."""

from pathlib import Path

import pytest
from attrs import evolve

from emp_core.config import Settings
from emp_core.errors import ConfigError
from emp_core.queue.addresses import hash_tag, parse_address, shown_url
from emp_core.queue.connection import Limits, connect


@pytest.mark.parametrize(
    ("url", "nodes", "options"),
    [
        ("redis://", [("localhost", 6379)], {"db": 0}),
        ("redis://hub:7000/3", [("hub", 7000)], {"db": 3}),
        ("redis://hub?db=4", [("hub", 6379)], {"db": 4}),
        ("redis://u:p%40ss@hub", [("hub", 6379)], {"db": 0, "username": "u", "password": "p@ss"}),
        ("redis://:secret@[::1]:7000", [("::1", 7000)], {"db": 0, "password": "secret"}),
        ("unix:///run/a%20b.sock?db=1", [], {"db": 1, "path": "/run/a b.sock"}),
    ],
)
def test_one_server(url: str, nodes: list[tuple[str, int]], options: dict[str, object]):
    address = parse_address(url)
    assert (address.kind, list(address.nodes), address.options, address.tls) == ("direct", nodes, options, False)


def test_sentinels():
    address = parse_address("redis+sentinel://u:pw@a:1,b,[::1]:3/my%20hub/2?sentinel_password=other")
    assert (address.kind, address.service, address.tls) == ("sentinel", "my hub", False)
    assert address.nodes == (("a", 1), ("b", 26379), ("::1", 3))
    assert address.options == {"username": "u", "password": "pw", "db": 2}
    assert address.sentinel_options == {"password": "other"}
    assert parse_address("redis+sentinel://a").service == "mymaster"


def test_a_cluster():
    address = parse_address("rediss+cluster://u:pw@a:1,b")
    assert (address.kind, address.tls) == ("cluster", True)
    assert address.nodes == (("a", 1), ("b", 6379))
    assert address.options == {"username": "u", "password": "pw", "db": 0}


def test_certificates_go_to_the_sentinels_as_well(tmp_path: Path):
    (ca := tmp_path / "ca.pem").touch()
    address = parse_address(f"rediss+sentinel://a?ssl_ca_certs={ca}&ssl_check_hostname=no")
    assert address.options == {"ssl_ca_certs": str(ca), "ssl_check_hostname": False, "db": 0}
    assert address.sentinel_options == {"ssl_ca_certs": str(ca), "ssl_check_hostname": False}


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://hub", "'http' is not known"),
        ("redis://hub:many", "port"),
        ("redis://hub:70000", "port"),
        ("redis://a,b", "one host"),
        ("redis://hub/first", "'first'"),
        ("redis://hub?protocol=3", "protocol: unknown"),
        ("redis://hub?ssl_ca_certs=/nowhere/ca.pem", "no file /nowhere/ca.pem"),
        ("rediss://hub?ssl_cert_reqs=maybe", "none, optional or required"),
        ("unix://", "path"),
        ("redis+sentinel:///hub", "a host is missing"),
        ("redis+cluster://a,", "a host is missing"),
        ("redis+cluster://a/1", "database 0"),
        ("redis+cluster://a?db=1", "database 0"),
    ],
)
def test_what_cannot_be_used_is_told_without_the_password(url: str, problem: str):
    with pytest.raises(ConfigError) as refused:
        parse_address(url.replace("://", "://user:hunter2@") if "hub" in url else url)
    assert problem in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_every_mistake_is_told_at_once():
    with pytest.raises(ConfigError) as refused:
        parse_address("redis://hub?colour=red&ssl_keyfile=/nowhere")
    assert len(refused.value.problems) == 2


def test_a_url_is_shown_without_its_secrets():
    assert shown_url("redis+sentinel://u:pw@a:1,b:2/hub/0?sentinel_password=x") == "redis+sentinel://a:1,b:2/hub/0"
    assert "pw" not in repr(parse_address("redis://u:pw@hub"))


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis+cluster", "unix"])
@pytest.mark.parametrize("login", ["w:TOP{}SECRET", "w:TOPS@EC{}RET", ":TOP{}SECRET", "w:1{}SECRET", "TOP{}SECRET:x"])
@pytest.mark.parametrize("sign", ["#", "?", "/", "%23{}/"])
def test_a_password_that_is_not_percent_encoded_is_refused_and_told_nowhere(scheme: str, login: str, sign: str):
    url = f"{scheme}://{login.format(sign)}@hub:6379/0"
    with pytest.raises(ConfigError) as refused:
        parse_address(url)
    said = f"{refused.value} {refused.value.as_dict()} {shown_url(url)}"
    assert not any(part in said for part in ("TOP", "SEC", "RET", "w:"))
    assert "write / as %2F, ? as %3F, # as %23" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "worker:TOPSECRET@host",
        "worker:TOPSECRET@host:6379/0?db=1",
        "redis:worker:TOPSECRET@host",
        "//worker:TOPSECRET℀@host",
        "//[worker:TOPSECRET@host",
        "w:TOPSECRET@host/redis://hub",
        "redis://worker:TOPSECRET",
        "redis+sentinel://worker:TOP,SECRET/hub",
        "redis://:TOPSECRET",
        "redis://hub/0?sentinel_password=pa@TOPSECRET",
        "redis:///TOPSECRET@hub",
        "http://w:TOPSECRET#b@host",
    ],
)
def test_what_looks_like_an_address_with_a_password_is_refused_without_it(url: str):
    with pytest.raises(ConfigError) as refused:
        parse_address(url)
    assert "HUB_REDIS_URL=" in str(refused.value)
    assert not any(part in f"{refused.value} {shown_url(url)}" for part in ("TOP", "SECRET"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://hub:6379/0", "redis://hub:6379/0"),
        ("redis://[::1]:6379", "redis://[::1]:6379"),
        ("redis://u:p%23@hub:", "redis://hub:"),
        ("unix:///run/me@here/redis.sock?db=1", "unix:///run/me@here/redis.sock"),
        ("file:///home/me@here/artifacts", "file:///home/me@here/artifacts"),
        ("made-up://key:geheim/x@bucket/prefix", "made-up://(hidden)"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("hub:6379", "hub:6379"),
        ("", ""),
    ],
)
def test_an_address_is_shown_as_far_as_it_holds_no_secret(url: str, shown: str):
    assert shown_url(url) == shown


def test_an_at_sign_is_a_sign_like_any_other_in_the_path_of_a_socket():
    assert parse_address("unix:///run/me@here/redis.sock").options["path"] == "/run/me@here/redis.sock"


@pytest.mark.parametrize(
    ("namespace", "tag"),
    [("{emp}:", "emp"), ("a:{b}{c}", "b"), ("", None), ("emp:", None), ("{}:", None), ("{emp", None), ("}{a}", "a")],
)
def test_the_hash_tag_of_a_namespace(namespace: str, tag: str | None):
    assert hash_tag(namespace) == tag


async def test_a_cluster_without_a_hash_tag_is_refused():
    settings = Settings(namespace="emp:")
    with pytest.raises(ConfigError, match="no hash tag"):
        connect("redis+cluster://a", settings)
    await connect("redis+cluster://a", evolve(settings, namespace="{emp}:")).aclose()


@pytest.mark.parametrize("lease_s", [0.5, 1, 3, 15, 3600])
def test_blocks_are_shorter_than_replies_and_those_than_the_lease(lease_s: float):
    limits = Limits.of(lease_s)
    assert 0 < limits.block_s < limits.block_reply_s < lease_s
    assert 0 < limits.reply_s < lease_s
