"""The connector's parts by themselves: payloads, progress, messages, settings, what the plugin registers."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from emp_comfyui import plugin
from emp_comfyui.client import ComfyUIClient
from emp_comfyui.cluster.settings import ClusterSettings
from emp_comfyui.connector import ComfyUIWebSocketConnector
from emp_comfyui.errors import clean, node_failure, refusal
from emp_comfyui.frames import Message, Picture, ProgressText, decode
from emp_comfyui.history import HistoryEntry, QueueView
from emp_comfyui.outputs import media_type_of
from emp_comfyui.progress import ProgressTracker
from emp_comfyui.settings import ComfyUIRemoteSettings, ComfyUISettings
from emp_comfyui.testing import FakeComfyUI, Faults, HttpFault
from emp_comfyui.workflow import Workflow
from hypothesis import given, settings
from hypothesis import strategies as st

from emp_core.config import load_settings
from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.websocket import MessageType
from emp_core.errors import (
    ConfigError,
    InvalidJob,
    JobFailed,
    MissingModel,
    OutOfMemory,
    ServiceBroken,
    ServiceUnavailable,
)

from .rig import image, one_image, rigged

EDITOR = {"last_node_id": 3, "nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4}


@pytest.mark.parametrize(
    "payload",
    [
        one_image(),
        {"prompt": one_image()},
        {"workflow": one_image()},
        {"prompt": one_image(), "client_id": "x", "number": 1},
    ],
)
def test_a_workflow_is_taken_bare_or_wrapped(payload: Any):
    assert Workflow.from_payload(payload).graph == one_image()


def test_a_node_may_be_called_like_a_key_of_the_wrapped_form():
    graph = {"prompt": image(), "workflow": image()}
    assert Workflow.from_payload(graph).graph == graph


@pytest.mark.parametrize("payload", [EDITOR, {"workflow": EDITOR}, {"prompt": EDITOR}])
def test_a_workflow_in_the_editors_format_says_how_to_export_it(payload: Any):
    with pytest.raises(InvalidJob, match=r"Save \(API Format\)"):
        Workflow.from_payload(payload)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (None, "not null"),
        ([], "not a list"),
        ("text", "not a text"),
        ({}, "holds no workflow"),
        ({"prompt": one_image(), "workflow": one_image()}, "both"),
        ({"prompt": {}}, "no nodes"),
        ({"prompt": "x"}, "not a text"),
        ({"prompt": one_image(), "extra_data": 1}, "extra_data"),
        ({"prompt": one_image(), "temp_outputs": "yes"}, "temp_outputs"),
        ({"prompt": one_image(), "tmp_outputs": True}, "tmp_outputs: unknown"),
        ({"prompt": one_image(), "partial_execution_targets": "3"}, "partial_execution_targets"),
        ({"1": image(), "2": {"inputs": {}}, "3": 5}, "payload.2: the node has no class_type; payload.3"),
        ({"1": {"class_type": "EmptyImage"}}, "no inputs"),
    ],
)
def test_a_payload_that_is_no_workflow_is_refused_with_the_place_of_the_mistake(payload: Any, said: str):
    with pytest.raises(InvalidJob) as caught:
        Workflow.from_payload(payload)
    assert said in caught.value.message


def test_what_a_server_says_is_shown_without_folders_and_tensors():
    assert clean("cannot read /home/me/ComfyUI/models/a.bin\nmore") == "cannot read …/a.bin"
    assert clean(r"cannot read C:\Users\me\models\a.bin") == "cannot read …/a.bin"
    assert clean("bad tensor([[1.0, 2.0]])") == "bad"
    assert clean("\n\n1/2 of it, and/or more\n") == "1/2 of it, and/or more"
    assert clean(None) == ""


@pytest.mark.parametrize(
    ("exception", "expected"),
    [
        ("torch.OutOfMemoryError", OutOfMemory),
        ("torch.cuda.OutOfMemoryError", OutOfMemory),
        ("MemoryError", OutOfMemory),
        ("torch.AcceleratorError", ServiceBroken),
        ("RuntimeError", JobFailed),
        ("", JobFailed),
    ],
)
def test_a_failure_is_judged_by_the_type_of_its_exception(exception: str, expected: type[Exception]):
    error = {"exception_type": exception, "exception_message": "CUDA out of memory", "node_id": "3"}
    assert type(node_failure(error, Workflow(one_image()))) is expected
    assert type(node_failure({}, Workflow(one_image()))) is JobFailed


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"error": "no prompt", "node_errors": []}, {"error": {}, "node_errors": {"1": 5}}]
)
def test_a_refusal_in_an_unknown_shape_is_still_a_refusal(answer: Any):
    assert type(refusal(answer, Workflow(one_image()))) is InvalidJob


def test_missing_models_count_only_when_nothing_else_is_wrong():
    model = {"type": "value_not_in_list", "extra_info": {"input_name": "lora", "received_value": "sub/x.safetensors"}}
    other = {"type": "required_input_missing", "extra_info": {"input_name": "clip"}}
    for reasons, expected in (([model], MissingModel), ([model, other], InvalidJob)):
        answer = {"error": {}, "node_errors": {"1": {"errors": reasons, "class_type": "LoraLoader"}}}
        assert type(refusal(answer, Workflow(one_image()))) is expected


def test_frames_that_are_not_understood_are_skipped():
    for frame in (
        "",
        "no json",
        "[1]",
        '{"type": 5}',
        b"",
        b"\0\0\0\1",
        b"\0\0\0\x09" + b"x" * 20,
        b"\0\0\0\4\xff\xff\xff\xffx",
    ):
        assert decode(frame) is None
    assert decode('{"type": "crystools.monitor", "data": null}') == Message("crystools.monitor", {})
    assert decode(b"\0\0\0\3\0\0\0\0012hi") == ProgressText("2", "hi")
    png = b"\x89PNG\r\n\x1a\n...."
    assert decode(b"\0\0\0\1\0\0\0\2" + png) == Picture(png, "image/png")
    told = json.dumps({"node_id": "7", "prompt_id": "p"}).encode()
    assert decode(b"\0\0\0\4" + len(told).to_bytes(4, "big") + told + png) == Picture(png, "image/png", "7", "p")


def test_the_last_frame_of_every_prompt_is_its_completion():
    connector = ComfyUIWebSocketConnector(ServiceConfig("comfyui"))
    said = {
        MessageType.COMPLETE: {"type": "executing", "data": {"node": None}},
        MessageType.PROGRESS: {"type": "executing", "data": {"node": "1"}},
        MessageType.CONNECTION: {"type": "status", "data": {}},
        MessageType.SUBMIT: {"type": "execution_start", "data": {}},
        MessageType.ERROR: {"type": "execution_error", "data": {}},
        MessageType.UNKNOWN: {"type": "something"},
    }
    for expected, message in said.items():
        assert connector.classify_message(message) is expected
    assert connector.classify_message(None) is MessageType.UNKNOWN


NODES = st.sampled_from(["1", "2", "3", "2.0.0.1", "unknown"])
ODD = st.one_of(st.integers(-5, 50), st.floats(), st.none(), st.booleans(), st.text(max_size=2))
STATE = st.fixed_dictionaries({"value": ODD, "max": ODD, "state": st.sampled_from(["running", "finished", "error"])})
EVENTS = st.one_of(
    st.tuples(st.just("executing"), NODES),
    st.tuples(st.just("executed"), NODES),
    st.tuples(st.just("cached"), st.lists(NODES)),
    st.tuples(st.just("step"), NODES, ODD, ODD),
    st.tuples(st.just("states"), st.dictionaries(NODES, STATE)),
)


@settings(deadline=None)
@given(st.lists(EVENTS))
def test_progress_never_falls_and_never_goes_beyond_the_end(events: list[Any]):
    tracker = ProgressTracker(Workflow(one_image()))
    seen = [tracker.fraction]
    for kind, *told in events:
        match kind:
            case "executing":
                tracker.node_executing(*told)
            case "executed":
                tracker.node_executed(*told)
            case "cached":
                tracker.nodes_cached(*told)
            case "step":
                tracker.node_step(*told)
            case "states":
                tracker.node_states(*told)
        assert tracker.message != ""
        seen.append(tracker.fraction)
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= 1


KEYS = st.sampled_from(["outputs", "status", "messages", "prompt", "queue_running", "queue_pending", "execution_error"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@settings(deadline=None)
@given(JSON)
def test_answers_of_any_shape_are_read_without_breaking(answer: Any):
    QueueView.read(answer).find("p")
    HistoryEntry.read("p", answer)


def test_a_part_of_the_jobs_is_not_taken_for_all_of_them():
    jobs = [{"id": "a", "status": "pending", "priority": 1}]
    assert QueueView.read_jobs({"jobs": jobs, "pagination": {"has_more": True}}) is None
    whole = QueueView.read_jobs({"jobs": jobs, "pagination": {"has_more": False}})
    assert whole is not None
    assert whole.find("a") is not None


async def test_a_queue_that_is_none_is_not_an_empty_one(tmp_path: Path):
    none = HttpFault("/queue", "status", method="GET", status=200, body="null")
    async with FakeComfyUI(faults=Faults(http=[none])) as server, rigged(server.url, tmp_path) as rig:
        with pytest.raises(ServiceUnavailable, match="answers GET /queue as no ComfyUI server does"):
            await rig.connector.comfyui.queue()
        assert (await rig.connector.comfyui.queue()).waiting == ()


async def test_a_long_queue_is_read_to_its_end(tmp_path: Path):
    told = json.dumps({"queue_running": [], "queue_pending": [[3, "a", {"1": "x" * 65 * 2**20}]]})
    long = HttpFault("/queue", "status", method="GET", status=200, body=told)
    async with FakeComfyUI(faults=Faults(http=[long])) as server, rigged(server.url, tmp_path) as rig:
        assert (await rig.connector.comfyui.queue()).find("a") is not None


def test_the_media_type_goes_by_the_name_first():
    assert media_type_of("a.png", "application/octet-stream") == "image/png"
    assert media_type_of("a.GLB", None) == "model/gltf-binary"
    assert media_type_of("a.strange", "video/mp4; x=1") == "video/mp4"
    assert media_type_of("a", None) == "application/octet-stream"


def test_the_port_falls_back_to_the_base_port():
    def url(**environ: str) -> str:
        return load_settings(ComfyUISettings, environ).base_url

    assert url() == "http://127.0.0.1:8188"
    assert url(COMFYUI_BASE_PORT="9000") == "http://127.0.0.1:9000"
    assert url(COMFYUI_BASE_PORT="9000", COMFYUI_PORT="9001", COMFYUI_HOST="gpu") == "http://gpu:9001"
    assert url(EMP_COMFYUI_TLS="yes", EMP_COMFYUI_BASE_PATH="/comfy/", COMFYUI_HOST="::1") == "https://[::1]:8188/comfy"
    with pytest.raises(ConfigError, match="COMFYUI_PORT"):
        url(COMFYUI_PORT="many")


def test_the_plugin_is_cheap_to_import_and_names_a_class_that_is_there():
    registration, _remote = plugin.emp_register_connectors()
    module, _, name = registration.target.partition(":")
    assert getattr(importlib.import_module(module), name) is ComfyUIWebSocketConnector
    mapping = plugin.emp_service_mapping()
    assert mapping["services"]["comfyui"]["connector"] == registration.name == "ComfyUIWebSocketConnector"
    assert plugin.emp_settings() == (ComfyUISettings, ComfyUIRemoteSettings, ClusterSettings)
    assert ComfyUIClient.__module__ in sys.modules


async def test_health_is_good_while_prompts_run_and_tells_why_it_is_not(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        assert (await rig.connector.check_health()).ok
        server.fail(HttpFault("/prompt", "status", method="GET", status=502))
        health = await rig.connector.check_health()
        assert not health.ok
        assert "502" in (health.reason or "")


async def test_the_service_tells_its_version_devices_and_models(tmp_path: Path):
    async with FakeComfyUI(version="0.3.64") as server, rigged(server.url, tmp_path) as rig:
        info = await rig.connector.get_service_info()
    assert info.version == "0.3.64"
    assert info.details["devices"]
    assert info.models is not None
    assert "sd_xl_base_1.0.safetensors" in info.models
