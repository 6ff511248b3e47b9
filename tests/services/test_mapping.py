import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from emp_core.config import Settings
from emp_core.errors import ConfigError
from emp_core.services.load import load_mapping, read_mapping
from emp_core.services.parse import MAPPING_MAX_BYTES
from emp_core.services.schema import ServiceEntry, ServiceRoute, ServiceType, WorkerType


def mistakes(document: Any, plugins: Any, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_mapping(json.dumps(document), plugins, environ or {}, source="x.json")
    return caught.value.problems


def test_the_documented_example_loads_unchanged(example: str, make_plugins):
    mapping = read_mapping(example, make_plugins("ComfyUIWebSocketConnector"), {}, source="x.json")
    assert mapping.workers == {"comfyui": WorkerType(("comfyui",), True, (ServiceRoute("comfyui", "comfyui"),))}
    assert mapping.services == {
        "comfyui": ServiceEntry(
            connector="ComfyUIWebSocketConnector",
            type=ServiceType.PM2,
            installer="ComfyUIManagementClient",
            installer_filename="./services/comfyui-management-client.js",
            is_gpu_bound=True,
            service_instances_per_gpu=1,
            ports=(8188,),
            port_increment=1,
            installer_config={
                "repo_url": "https://github.com/stakeordie/ComfyUI.git",
                "branch": "main",
                "custom_nodes_enabled": "true",
            },
        )
    }
    assert mapping.connectors["ComfyUIWebSocketConnector"].description == "Local ComfyUI WebSocket connector"
    assert mapping.notes == (
        (
            "services.comfyui.installer_filename: './services/comfyui-management-client.js' is not loaded: "
            "installers come from plugins"
        ),
        "connectors.ComfyUIWebSocketConnector.path: './redis-direct-worker.js' is not loaded: connectors come from plugins",
    )


def test_the_example_takes_the_environment(example: str, make_plugins):
    environ = {"COMFYUI_BASE_PORT": "9000", "COMFYUI_INSTANCES_PER_GPU": "2", "COMFYUI_BRANCH": "dev$1"}
    entry = read_mapping(example, make_plugins(), environ, source="x.json").services["comfyui"]
    assert entry.ports == (9000,)
    assert entry.service_instances_per_gpu == 2
    assert entry.installer_config["branch"] == "dev$1"


@pytest.mark.parametrize("kind", ["pm2_service", "daemon_service", "external_api", "external_service"])
def test_the_whole_schema_loads(kind: str, make_plugins):
    document = {
        "workers": {
            "studio": {
                "services": ["art", "helper"],
                "is_gpu_bound": False,
                "job_service_required_map": [
                    {"job_service_required": "art", "worker_service": "art"},
                    {"job_service_required": "art-v2", "worker_service": "art"},
                ],
            }
        },
        "services": {
            "art": {
                "connector": "ArtConnector",
                "type": kind,
                "installer": "ArtInstaller",
                "installer_filename": "./art.js",
                "is_gpu_bound": True,
                "service_instances_per_gpu": "2",
                "ports": ["8000", "8100"],
                "port_increment": "10",
                "installer_config": {"models": ["a", "b"], "deep": {"n": 1}},
            },
            "helper": {"connector": "ArtConnector", "type": kind, "is_gpu_bound": False},
        },
        "connectors": {"ArtConnector": {"path": "./art.js", "description": "Art"}},
    }
    mapping = read_mapping(json.dumps(document), make_plugins(), {}, source="x.json")
    assert mapping.workers["studio"].accepts == {"art": ("art", "art-v2")}
    assert mapping.services["art"].ports == (8000, 8100)
    assert mapping.services["art"].options == {"installer_config": {"models": ["a", "b"], "deep": {"n": 1}}}


def test_mistakes_in_five_places_are_told_at_once_each_with_its_path(make_plugins):
    document = {
        "workers": {
            "comfyui": {
                "services": ["comfyui"],
                "is_gpu_bound": "maybe",
                "job_service_required_map": [
                    {"job_service_required": "comfyui", "worker_service": "comfyiu"},
                    {"worker_service": "comfyui"},
                ],
            }
        },
        "services": {
            "comfyui": {
                "connector": "ComfyUIWebSoketConnector",
                "type": "pm2",
                "ports": ["${BASE}", 70000, True],
                "port_increment": "0",
                "installer_config": [],
            }
        },
    }
    assert mistakes(document, make_plugins("ComfyUIWebSocketConnector")) == (
        "workers.comfyui.is_gpu_bound: expected true or false, not 'maybe'",
        "workers.comfyui.job_service_required_map[1].job_service_required: is missing",
        (
            "workers.comfyui.job_service_required_map[0].worker_service: no service is named 'comfyiu'; "
            "did you mean 'comfyui'?"
        ),
        "services.comfyui.ports[0]: the variable BASE is not set; set it, or give it a default: ${BASE:-…}",
        "services.comfyui.type: expected one of pm2_service, daemon_service, external_api, external_service, not 'pm2'",
        "services.comfyui.ports[1]: expected a whole number from 1 to 65535, not 70000",
        "services.comfyui.ports[2]: expected a whole number from 1 to 65535, not true",
        "services.comfyui.port_increment: expected a whole number from 1 to 65535, not '0'",
        "services.comfyui.installer_config: expected an object, not a list",
        (
            "services.comfyui.connector: no installed plugin has the connector 'ComfyUIWebSoketConnector', "
            "and the mapping does not describe it; did you mean 'ComfyUIWebSocketConnector'?"
        ),
    )


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "the whole file: expected an object with workers, services, connectors, not a list"),
        ({"workers": []}, "workers: expected an object, not a list"),
        ({"workers": {"a": None}}, "workers.a: expected an object, not null"),
        ({"workers": {"a": {}}}, "workers.a.services: is missing"),
        ({"workers": {"a": {"services": []}}}, "workers.a.services: names no service"),
        ({"workers": {"a": {"services": "b"}}}, "workers.a.services: expected a list, not a text"),
        ({"workers": {"a": {"services": [1]}}}, "workers.a.services[0]: expected a text, not a number"),
        ({"workers": {"a": {"services": [""]}}}, "workers.a.services[0]: expected a name"),
        ({"workers": {"a": {"services": ["b"]}}}, "workers.a.services[0]: no service is named 'b'"),
        ({"workers": {"a:2": {"services": ["b"]}}}, 'workers["a:2"]: a worker type\'s name cannot hold'),
        ({"workers": {"": {"services": ["b"]}}}, 'workers[""]: a name has 1 to 128 printable characters'),
        ({"services": {"a": {"type": "external_api"}}}, "services.a.connector: is missing"),
        ({"services": {"a": {"connector": "C"}}}, "services.a.type: is missing"),
        ({"services": {"a.b": {"connector": 1}}}, 'services["a.b"].connector: expected a text, not a number'),
        ({"services": {"a": "${X}"}}, "services.a: the variable X is not set"),
        ({"connectors": {"C": "c.js"}}, "connectors.C: expected an object, not a text"),
        ({"connectors": {"C": {"path": 1}}}, "connectors.C.path: expected a text, not a number"),
    ],
)
def test_a_mistake_is_told_with_its_path(document: Any, says: str, make_plugins):
    assert any(problem.startswith(says) for problem in mistakes(document, make_plugins())), says


def test_what_jobs_require_goes_to_one_service_of_a_worker(make_plugins):
    service = {"connector": "C", "type": "external_api"}
    routes = [{"job_service_required": "x", "worker_service": name} for name in ("a", "a", "b")]
    document = {
        "workers": {"w": {"services": ["a", "b"], "job_service_required_map": routes}},
        "services": {"a": service, "b": service},
    }
    [problem] = mistakes(document, make_plugins("C"))
    assert problem.startswith("workers.w.job_service_required_map[2].job_service_required: 'x' goes to 'a' already")


def test_a_key_that_is_given_twice_is_a_mistake(make_plugins):
    text = '{"services": {"a": {"type": "external_api", "connector": "C", "connector": "D"}}, "services": {}}'
    with pytest.raises(ConfigError) as caught:
        read_mapping(text, make_plugins("C", "D"), {}, source="x.json")
    assert caught.value.problems == ("services: is given twice",)
    text = '{"services": {"a": {"type": "external_api", "connector": "C", "connector": "D"}}}'
    with pytest.raises(ConfigError) as caught:
        read_mapping(text, make_plugins("C", "D"), {}, source="x.json")
    assert caught.value.problems == ("services.a.connector: is given twice",)


def test_unknown_keys_are_harmless_and_noted_and_those_of_a_service_reach_its_connector(make_plugins):
    document = {
        "$schema": "x",
        "worker": {},
        "services": {"a": {"connector": "C", "type": "external_api", "base_url": "${URL}", "port": 1}},
    }
    mapping = read_mapping(json.dumps(document), make_plugins("C"), {"URL": "http://a"}, source="x.json")
    assert mapping.services["a"].options == {"base_url": "http://a", "port": 1}
    assert mapping.notes == (
        "$schema: not read",
        "worker: not read; did you mean workers?",
        "services.a.base_url: handed on to the connector",
        "services.a.port: handed on to the connector; did you mean ports?",
    )


def test_values_of_options_are_in_no_repr(make_plugins):
    service = {"connector": "C", "type": "external_api", "api_key": "${KEY}", "installer_config": {"token": "${KEY}"}}
    mapping = read_mapping(json.dumps({"services": {"a": service}}), make_plugins("C"), {"KEY": "hush"}, source="x")
    assert "hush" not in repr(mapping)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{\n  'workers': 1}", "is not JSON: .* at line 2, column 3"),
        (b'{"workers": {}', "is not JSON: .* at line 1, column 15"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"a": "\xff"}', "is not UTF-8: .* at byte 7"),
        (b'{"a": NaN}', "NaN is no JSON value"),
        (b"[" * 100_000, "is nested too deep"),
        (b'{"a": 1' + b"0" * 10_000 + b"}", "is not JSON"),
        (b" " * (MAPPING_MAX_BYTES + 1), "is larger than 1,048,576 bytes"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(text: bytes, says: str, make_plugins):
    with pytest.raises(ConfigError, match=says):
        read_mapping(text, make_plugins(), {}, source="x.json")


def test_a_byte_order_mark_does_no_harm(example: str, make_plugins):
    assert read_mapping(b"\xef\xbb\xbf" + example.encode(), make_plugins(), {}, source="x").workers


def test_without_a_file_the_plugins_parts_are_the_mapping(tmp_path: Path, example_part, make_plugins):
    plugins = make_plugins("ComfyUIWebSocketConnector", parts={"comfyui": example_part})
    mapping = load_mapping(Settings(), plugins, {}, search=(tmp_path / "none.json",))
    assert mapping.source == "plugins"
    assert mapping.services["comfyui"].ports == (8188,)
    assert mapping.notes == ()


def test_the_file_overrides_the_plugins_entry_by_entry(tmp_path: Path, example_part, make_plugins):
    path = tmp_path / "mapping.json"
    own = {"connector": "ComfyUIWebSocketConnector", "type": "external_service"}
    path.write_text(json.dumps({"services": {"comfyui": own}}))
    plugins = make_plugins("ComfyUIWebSocketConnector", parts={"comfyui": example_part})
    mapping = load_mapping(Settings(service_mapping=path), plugins, {})
    assert mapping.source == str(path)
    assert mapping.services["comfyui"].type is ServiceType.EXTERNAL
    assert mapping.services["comfyui"].installer is None
    assert "comfyui" in mapping.workers


def test_the_file_is_looked_for_in_the_named_place_then_in_order(tmp_path: Path, make_plugins):
    paths = [tmp_path / name for name in ("named.json", "first.json", "second.json")]
    for path in paths:
        path.write_text("{}")
    plugins = make_plugins()
    named, first, second = paths
    assert load_mapping(Settings(service_mapping=named), plugins, {}, search=(first, second)).source == str(named)
    assert load_mapping(Settings(), plugins, {}, search=(first, second)).source == str(first)
    first.unlink()
    assert load_mapping(Settings(), plugins, {}, search=(first, second)).source == str(second)


def test_a_named_file_that_is_not_there_or_not_readable_is_told(tmp_path: Path, make_plugins):
    with pytest.raises(ConfigError, match=r"none\.json does not exist .*EMP_SERVICE_MAPPING"):
        load_mapping(Settings(service_mapping=tmp_path / "none.json"), make_plugins(), {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_mapping(Settings(service_mapping=tmp_path), make_plugins(), {})


def test_a_mistake_of_a_plugin_is_kept_for_who_needs_its_entry(make_plugins):
    part = {
        "services": {
            "good": {"connector": "C", "type": "external_api"},
            "bad": {"connector": "C", "type": "external_api", "key": "${UNSET_KEY}"},
        }
    }
    mapping = read_mapping("{}", make_plugins("C", parts={"mine": part}), {}, source="x")
    assert set(mapping.services) == {"good"}
    [text] = mapping.unusable["services.bad"]
    assert text.startswith("services.bad.key: the variable UNSET_KEY is not set")
    assert text.endswith("(of the plugin mine)")


def test_the_users_entry_replaces_a_plugins_entry_with_mistakes(make_plugins):
    part = {"services": {"bad": {"connector": "C", "type": "nonsense"}}}
    own = json.dumps({"services": {"bad": {"connector": "C", "type": "external_api"}}})
    mapping = read_mapping(own, make_plugins("C", parts={"mine": part}), {}, source="x")
    assert set(mapping.services) == {"bad"}
    assert mapping.unusable == {}
