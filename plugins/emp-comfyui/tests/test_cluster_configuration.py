"""Which servers a cluster has, and what is said about a description that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest
from emp_comfyui.cluster.configuration import ClusterConfiguration
from emp_comfyui.cluster.server import ComfyUIServer

from emp_core.errors import ConfigError

ONE: dict[str, Any] = {"name": "server1", "ip": "192.168.1.187"}
TWO: dict[str, Any] = {"name": "server2", "ip": "192.168.1.188"}
SEED = """[
  {"name": "server1", "ip": "192.168.1.187", "port": 8188, "dir_local": "U:/", "dir_remote": "/home/kmmuser/ComfyUI/",
   "priority": 1, "enabled": true},
  {"name": "server2", "ip": "192.168.1.188", "port": 8188, "dir_local": "U:/", "dir_remote": "/home/kmmuser/ComfyUI/",
   "priority": 2, "enabled": true}
]"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "changes.json"


@pytest.fixture
def environ(file: Path) -> dict[str, str]:
    return {"EMP_COMFYUI_SERVERS_FILE": str(file)}


def described(environ: dict[str, str], *entries: Any) -> ClusterConfiguration:
    return ClusterConfiguration.from_env({**environ, "NUKE_COMFYUI_SERVERS": json.dumps(list(entries))})


def problems(environ: dict[str, str], **variables: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        ClusterConfiguration.from_env({**environ, **variables})
    return refused.value.problems


def test_the_json_array_is_read_as_it_stands_in_the_plan(environ: dict[str, str]) -> None:
    servers = ClusterConfiguration.from_env({**environ, "NUKE_COMFYUI_SERVERS": SEED}).servers()
    assert servers == (
        ComfyUIServer("server1", "192.168.1.187", 8188, "U:/", "/home/kmmuser/ComfyUI/", 1, True),
        ComfyUIServer("server2", "192.168.1.188", 8188, "U:/", "/home/kmmuser/ComfyUI/", 2, True),
    )


def test_numbered_variables_describe_servers_too_and_gaps_are_no_mistake(environ: dict[str, str]) -> None:
    numbered = {
        "NUKE_COMFYUI_IP_1": "192.168.1.187",
        "NUKE_COMFYUI_PORT_1": "8189",
        "NUKE_COMFYUI_DIR_LOCAL_1": "U:/",
        "NUKE_COMFYUI_DIR_REMOTE_1": "/home/kmmuser/ComfyUI/",
        "NUKE_COMFYUI_IP_10": "render10",
        "NUKE_COMFYUI_NAME_10": "big",
        "NUKE_COMFYUI_PRIORITY_10": "2",
        "NUKE_COMFYUI_IP_3": "192.168.1.189",
        "NUKE_COMFYUI_ENABLED_3": "no",
    }
    servers = ClusterConfiguration.from_env({**environ, **numbered}).servers()
    assert servers == (
        ComfyUIServer("server1", "192.168.1.187", 8189, "U:/", "/home/kmmuser/ComfyUI/"),
        ComfyUIServer("server3", "192.168.1.189", enabled=False),
        ComfyUIServer("big", "render10", priority=2),
    )


def test_the_plain_variables_are_the_fallback_and_the_workers_own_server_the_last(environ: dict[str, str]) -> None:
    worker = {**environ, "COMFYUI_HOST": "::1", "COMFYUI_PORT": "8190", "EMP_COMFYUI_TLS": "yes"}
    [own] = ClusterConfiguration.from_env(worker).servers()
    assert own.url == "https://[::1]:8190"
    plain = {**worker, "NUKE_COMFYUI_IP": "10.0.0.7", "NUKE_COMFYUI_DIR_LOCAL": "U:/", "NUKE_COMFYUI_DIR_REMOTE": "/c"}
    assert ClusterConfiguration.from_env(plain).servers() == (ComfyUIServer("comfyui", "10.0.0.7", 8188, "U:/", "/c"),)
    numbered = {**plain, "NUKE_COMFYUI_IP_2": "10.0.0.8"}
    assert [one.ip for one in ClusterConfiguration.from_env(numbered).servers()] == ["10.0.0.8"]
    whole = {**numbered, "NUKE_COMFYUI_SERVERS": json.dumps([ONE])}
    assert [one.name for one in ClusterConfiguration.from_env(whole).servers()] == ["server1"]


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"COMFYUI_HOST": "x"}, False),
        ({"NUKE_COMFYUI_IP": "x"}, True),
        ({"NUKE_COMFYUI_IP_1": "x"}, True),
        ({"NUKE_COMFYUI_SERVERS": "[]"}, True),
        ({"NUKE_COMFYUI_SERVERS": "broken"}, True),
    ],
    ids=str,
)
def test_any_word_of_a_cluster_makes_it_one(environ: dict[str, str], variables: dict[str, str], several: bool) -> None:
    assert ClusterConfiguration.describes_several({**environ, **variables}) is several


def test_a_name_is_made_of_the_address_where_none_is_given(environ: dict[str, str]) -> None:
    [server] = described(environ, {"ip": "10.0.0.7"}).servers()
    assert server.name == "10.0.0.7:8188"


def test_every_mistake_is_listed_with_its_place(environ: dict[str, str]) -> None:
    entries = [
        {"name": "a", "ip": "10.0.0.1", "port": "8188", "prority": 1},
        {"name": "b", "port": 0, "enabled": 1},
        "c",
        {"name": "", "ip": "http://10.0.0.1", "priority": 0, "dir_local": None},
    ]
    assert problems(environ, NUKE_COMFYUI_SERVERS=json.dumps(entries)) == (
        (
            "NUKE_COMFYUI_SERVERS[0].prority: unknown; known are name, ip, port, dir_local, dir_remote, priority, enabled, "
            "tls, base_path, slots"
        ),
        "NUKE_COMFYUI_SERVERS[0].port: expected a whole number, not '8188'",
        "NUKE_COMFYUI_SERVERS[1].ip: missing",
        "NUKE_COMFYUI_SERVERS[1].port: expected 1 to 65535, not 0",
        "NUKE_COMFYUI_SERVERS[1].enabled: expected true or false, not 1",
        "NUKE_COMFYUI_SERVERS[2]: expected an object, not 'c'",
        "NUKE_COMFYUI_SERVERS[3].name: is empty",
        "NUKE_COMFYUI_SERVERS[3].ip: expected an IP address or a host name, not 'http://10.0.0.1'",
        "NUKE_COMFYUI_SERVERS[3].priority: expected 1 to 1000000, not 0",
        "NUKE_COMFYUI_SERVERS[3].dir_local: expected a text, not null",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{", "NUKE_COMFYUI_SERVERS: this is no JSON: "),
        ('{"name": "a"}', "NUKE_COMFYUI_SERVERS: expected a JSON array of servers"),
        ("[]", "NUKE_COMFYUI_SERVERS: the array is empty"),
    ],
)
def test_what_is_no_array_of_servers_says_so(environ: dict[str, str], text: str, said: str) -> None:
    [problem] = problems(environ, NUKE_COMFYUI_SERVERS=text)
    assert problem.startswith(said)


def test_names_and_addresses_are_unique(environ: dict[str, str]) -> None:
    entries = [ONE, {**TWO, "name": "server1"}, {**ONE, "name": "again"}]
    assert problems(environ, NUKE_COMFYUI_SERVERS=json.dumps(entries)) == (
        "2 servers have the name 'server1'",
        "2 servers have the address http://192.168.1.187:8188",
    )


def test_numbered_mistakes_name_their_variables(environ: dict[str, str]) -> None:
    wrong = {
        "NUKE_COMFYUI_IP_1": "a",
        "NUKE_COMFYUI_PORT_1": "http",
        "NUKE_COMFYUI_ENABLED_1": "perhaps",
        "NUKE_COMFYUI_PORT_2": "8188",
        "NUKE_COMFYUI_IP_3": "c",
        "NUKE_COMFYUI_PORT_3": "99999",
    }
    assert set(problems(environ, **wrong)) == {
        "NUKE_COMFYUI_PORT_1: expected a whole number, not 'http'",
        "NUKE_COMFYUI_ENABLED_1: expected true or false, not 'perhaps'",
        "NUKE_COMFYUI_IP_2: missing, though there is NUKE_COMFYUI_PORT_2",
        "NUKE_COMFYUI_*_3.port: expected 1 to 65535, not 99999",
    }


def test_a_cluster_with_nothing_enabled_is_a_mistake(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="none of the servers of NUKE_COMFYUI_SERVERS is enabled"):
        described(environ, {**ONE, "enabled": False}, {**TWO, "enabled": False})


def test_changes_go_over_what_the_environment_says(environ: dict[str, str]) -> None:
    configuration = described(environ, ONE, TWO)
    changes = configuration.changes
    changes.change("server1", enabled=False)
    changes.change("server2", priority=3)
    changes.change("server3", ip="10.0.0.9", port=8189)
    assert configuration.servers() == (
        ComfyUIServer("server1", "192.168.1.187", enabled=False),
        ComfyUIServer("server2", "192.168.1.188", priority=3),
        ComfyUIServer("server3", "10.0.0.9", 8189),
    )
    changes.remove("server2", described=True)
    changes.remove("server3", described=False)
    changes.change("server1", enabled=True)
    assert configuration.servers() == (ComfyUIServer("server1", "192.168.1.187"),)
    changes.change("server2", priority=1)
    assert [one.name for one in configuration.servers()] == ["server1", "server2"], "it was put back"
    assert changes.reset()
    assert not changes.reset()
    assert len(configuration.servers()) == 2


def test_changes_alone_make_a_cluster(environ: dict[str, str]) -> None:
    ClusterConfiguration.from_env(environ).changes.change("second", ip="10.0.0.9")
    assert ClusterConfiguration.describes_several(environ)
    assert [one.name for one in ClusterConfiguration.from_env(environ).servers()] == ["comfyui", "second"]


def test_a_change_of_a_server_that_is_gone_from_the_description_is_nothing(environ: dict[str, str]) -> None:
    described(environ, ONE, TWO).changes.change("server2", enabled=False)
    assert [one.name for one in described(environ, ONE).servers()] == ["server1"]


def test_the_stamp_tells_when_the_file_was_written(environ: dict[str, str]) -> None:
    changes = described(environ, ONE).changes
    stamps = [changes.stamp]
    for priority in (2, 3):
        changes.change("server1", priority=priority)
        stamps.append(changes.stamp)
    assert stamps[0] is None
    assert len(set(stamps)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "this is no JSON"),
        ('[{"enabled": false}]', "[0]: expected an object with a name"),
        ('[{"name": "server1", "port": "x"}]', "[0].port: expected a whole number, not 'x'"),
        ('[{"name": "n", "ip": "192.168.1.187"}]', "2 servers have the address"),
        ("[" + " " * 2**20 + "]", "longer than"),
    ],
)
def test_changes_that_cannot_be_used_say_where(environ: dict[str, str], file: Path, text: str, said: str) -> None:
    configuration = described(environ, ONE)
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        configuration.servers()
    assert any(said in problem for problem in refused.value.problems)


def test_a_file_that_cannot_be_read_is_not_overwritten(environ: dict[str, str], file: Path) -> None:
    configuration = described(environ, ONE)
    file.write_text("{ by hand")
    with pytest.raises(ConfigError, match="cannot be changed"):
        configuration.changes.change("server1", enabled=False)
    assert file.read_text() == "{ by hand"


def test_a_file_that_cannot_be_written_says_so(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    environ["EMP_COMFYUI_SERVERS_FILE"] = str(tmp_path / "plain" / "changes.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        described(environ, ONE).changes.change("server1", enabled=False)


def test_a_server_shows_as_the_entry_that_makes_it(environ: dict[str, str]) -> None:
    full = {
        **ONE,
        "dir_local": "U:/",
        "dir_remote": "/c",
        "tls": True,
        "base_path": "/comfy",
        "slots": 2,
        "priority": 4,
    }
    [server] = described(environ, full).servers()
    assert described(environ, server.as_dict()).servers() == (server,)
    assert server.url == "https://192.168.1.187:8188/comfy"
