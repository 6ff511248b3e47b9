import json
import subprocess
import sys
from typing import Any

import pytest

from emp_core.errors import ConfigError
from emp_core.plugins.manager import load_plugins
from emp_core.services.load import read_mapping
from emp_core.services.resolve import resolve_workers


def resolve(workers: str, plugins: Any, own: Any = None, environ: dict[str, str] | None = None):
    mapping = read_mapping(json.dumps(own or {}), plugins, environ or {}, source="x.json")
    return resolve_workers(tuple(workers.split(",")) if workers else (), mapping, plugins, environ or {})


def refusal(workers: str, plugins: Any, own: Any = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolve(workers, plugins, own)
    return caught.value


@pytest.fixture
def comfyui(make_plugins, example_part):
    return make_plugins("ComfyUIWebSocketConnector", parts={"comfyui": example_part})


def test_a_worker_type_gives_its_services_with_their_connectors(comfyui):
    [plan] = resolve("comfyui", comfyui, environ={"COMFYUI_HOST": "gpu-1"})
    assert (plan.worker_type, plan.index, plan.is_gpu_bound) == ("comfyui", 0, True)
    [binding] = plan.services
    assert (binding.service, binding.accepts, binding.connector) == (
        "comfyui",
        ("comfyui",),
        "ComfyUIWebSocketConnector",
    )
    assert binding.config.name == "comfyui"
    assert binding.config.environ == {"COMFYUI_HOST": "gpu-1"}
    assert binding.config.options["installer_config"]["branch"] == "main"


def test_a_count_gives_that_many_workers(comfyui):
    plans = resolve("comfyui:2,comfyui", comfyui)
    assert [(plan.worker_type, plan.index) for plan in plans] == [("comfyui", 0), ("comfyui", 1), ("comfyui", 2)]


def test_services_without_jobs_of_their_own_are_not_bound(make_plugins):
    service = {"connector": "C", "type": "external_api"}
    own = {
        "workers": {
            "w": {
                "services": ["helper", "a"],
                "job_service_required_map": [
                    {"job_service_required": "x", "worker_service": "a"},
                    {"job_service_required": "y", "worker_service": "a"},
                ],
            },
            "plain": {"services": ["a", "helper"]},
        },
        "services": {"a": service, "helper": service},
    }
    [plan] = resolve("w", make_plugins("C"), own)
    assert [(one.service, one.accepts) for one in plan.services] == [("a", ("x", "y"))]
    [plan] = resolve("plain", make_plugins("C"), own)
    assert [(one.service, one.accepts) for one in plan.services] == [("a", ("a",)), ("helper", ("helper",))]


def test_a_worker_type_that_takes_no_jobs_is_refused(make_plugins):
    own = {
        "workers": {"w": {"services": ["a"], "job_service_required_map": []}},
        "services": {"a": {"connector": "C", "type": "external_api"}},
    }
    assert "takes no jobs" in str(refusal("w", make_plugins("C"), own))


def test_empty_workers_list_what_exists(comfyui, make_plugins):
    error = refusal("", comfyui)
    assert "WORKERS is empty" in error.message
    assert "comfyui" in error.message
    assert error.hint == "set WORKERS, for example WORKERS=comfyui"
    assert error.exit_code == 2
    assert "none" in refusal("", make_plugins()).message


def test_an_unknown_name_lists_the_known_ones_and_the_package_that_may_be_missing(comfyui):
    error = refusal("ollama,comfyiu", comfyui)
    assert "worker types here are: comfyui" in error.message
    assert error.problems == (
        "'ollama': no worker type of this name; a package may be missing: pip install emp-ollama",
        (
            "'comfyiu': no worker type of this name; did you mean 'comfyui'? if not, a package may be missing: "
            "pip install emp-comfyiu"
        ),
    )


@pytest.mark.parametrize("item", ["comfyui:", "comfyui:0", "comfyui:-1", "comfyui:two", "comfyui:257", "comfyui:²"])
def test_a_count_that_makes_no_sense_is_refused(comfyui, item: str):
    assert f"{item!r}: expected a whole number from 1 to 256" in str(refusal(item, comfyui))


@pytest.mark.parametrize("item", ["a; rm -rf /", "../x", "a b", "-x"])
def test_no_package_is_suggested_for_a_name_that_cannot_be_one(comfyui, item: str):
    assert "pip install" not in str(refusal(item, comfyui))


def test_a_connector_that_only_the_file_describes_names_the_package_that_may_be_missing(example, make_plugins):
    plugins = make_plugins()
    mapping = read_mapping(example, plugins, {}, source="x")
    with pytest.raises(ConfigError) as caught:
        resolve_workers(("comfyui",), mapping, plugins, {})
    assert caught.value.problems == (
        (
            "'comfyui': no installed plugin has the connector 'ComfyUIWebSocketConnector' of the service 'comfyui'; "
            "a package may be missing: pip install emp-comfyui"
        ),
    )


def test_a_worker_type_of_an_offline_plugin_is_planned_so_that_the_others_run(make_plugins, example):
    plugins = make_plugins(offline=["comfyui"])
    [plan] = resolve("comfyui", plugins)
    assert [(one.service, one.accepts, one.connector) for one in plan.services] == [
        ("comfyui", ("comfyui",), "comfyui")
    ]
    mapping = read_mapping(example, plugins, {}, source="x")
    [plan] = resolve_workers(("comfyui",), mapping, plugins, {})
    assert plan.services[0].connector == "ComfyUIWebSocketConnector"


def test_an_unknown_name_near_an_offline_plugin_says_why_it_is_offline(make_plugins):
    assert "the plugin comfyui is offline: ImportError: no torch" in str(
        refusal("comfyui-remote", make_plugins(offline=["comfyui"]))
    )


def test_a_plugins_mistake_is_told_to_who_asks_for_the_entry(make_plugins):
    part = {
        "workers": {"api": {"services": ["api"]}, "broken": {"services": ["nowhere"]}},
        "services": {"api": {"connector": "C", "type": "external_api", "key": "${UNSET_KEY}"}},
    }
    plugins = make_plugins("C", parts={"mine": part})
    assert "services.api.key: the variable UNSET_KEY is not set" in refusal("api", plugins).problems[0]
    assert "workers.broken.services[0]: no service is named 'nowhere'" in refusal("broken", plugins).problems[0]


def test_the_installed_plugins_serve_echo_without_a_file():
    plugins = load_plugins()
    [plan] = resolve("echo", plugins)
    assert plugins.connector_class(plan.services[0].connector).__name__ == "EchoConnector"
    assert "environ" not in repr(plan)


def test_resolving_imports_only_the_connectors_that_are_asked_for():
    program = """
import sys
from emp_core.config import Settings
from emp_core.plugins.manager import load_plugins
from emp_core.services.resolve import load_mapping, resolve_workers
plugins = load_plugins()
[plan] = resolve_workers(("echo",), load_mapping(Settings(), plugins, {}, search=()), plugins, {})
assert "emp_core.connectors.echo" not in sys.modules
plugins.connector_class(plan.services[0].connector)
assert "emp_core.connectors.echo" in sys.modules
assert "emp_comfyui.connector" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
