"""Test nodes, named ``Probe…``: slow ones, failing ones, ones that expand, block, list, wait side by side."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from emp_comfyui.testing import jpeg, pictures
from emp_comfyui.testing.node_class import (
    Batch,
    Blocked,
    Input,
    NodeCall,
    NodeClass,
    NodeFailure,
    Result,
    Site,
    out_of_memory,
)

_FAILURES: dict[str, Callable[[str], Exception]] = {
    "ValueError": ValueError,
    "RuntimeError": RuntimeError,
    "KeyError": KeyError,
    "OutOfMemory": out_of_memory,
}
_PROBE_SIDE = 64


async def _slow(call: NodeCall) -> tuple[Batch]:
    steps, seconds, kind = int(call["steps"]), float(call["seconds_per_step"]), call["preview"]
    picture = pictures.plasma(_PROBE_SIDE, _PROBE_SIDE, str(call["seed"]))
    for step in range(1, steps + 1):
        if step == call["fail_at_step"]:
            await call.sleep(seconds)
            raise RuntimeError(f"probe failure at step {step}")
        if not call["report_progress"]:
            await call.sleep(seconds)
            continue
        preview = None
        if kind != "none":
            preview = (picture.as_png(), "image/png") if kind == "png" else (jpeg.encode(picture), "image/jpeg")
        await call.step(step, steps, preview, seconds)
    return (call.inputs.get("image") or (picture,),)


async def _raise(call: NodeCall) -> tuple[Batch]:
    raise _FAILURES.get(call["kind"], NodeFailure)(str(call["message"]))


async def _block(call: NodeCall) -> tuple[Blocked]:
    return (Blocked(str(call["message"]) or None),)


async def _always(call: NodeCall) -> tuple[Batch]:
    level = round(255 * call["value"])
    return ((pictures.solid(32, 32, (level, level, level)),),)


async def _beside(call: NodeCall) -> tuple[Batch]:
    steps = int(call["steps"])
    for step in range(1, steps + 1):
        await call.step(step, steps, None, float(call["seconds"]) / steps)
    if call["fail"]:
        raise RuntimeError("probe async failure")
    return await _always(call)


async def _expand(call: NodeCall) -> Result:
    slow = {
        "steps": call["steps"],
        "seconds_per_step": 0.1,
        "report_progress": True,
        "preview": "none",
        "fail_at_step": 0,
        "seed": 0,
        "image": call["image"],
    }
    graph: Mapping[str, Mapping[str, Any]] = {
        "1": {"class_type": "ProbeSlow", "inputs": slow},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    return Result(outputs=(["2", 0],), expand=graph)


async def _list(call: NodeCall) -> tuple[list[Batch]]:
    return ([(pictures.solid(32, 32, (40 * number % 256, 90, 160)),) for number in range(call["count"])],)


async def _text(call: NodeCall) -> tuple[Batch]:
    call.progress_text(str(call["text"]))
    call.progress_text(f"{call['text']} (to its client)", to_everybody=False)
    return (call["image"],)


async def _ui(call: NodeCall) -> Result:
    text = str(call["text"])
    clip = {"filename": "clip_00001.mp4", "subfolder": "", "type": "output", "format": "video/h264-mp4"}
    shapes: dict[str, dict[str, Any]] = {
        "text": {"text": [text]},
        "several": {
            "string": [text],
            "gifs": [{**clip, "frame_rate": 8.0, "workflow": "clip_00001.png"}],
            "custom_object": [{"a": 1, "nested": {"b": [1, 2, 3]}}],
        },
        "empty_list": {"images": []},
        "empty_ui": {},
        "numbers": {"value": [1, 2.5, True, None]},
    }
    return Result(ui=shapes[call["shape"]])


async def _picky(call: NodeCall) -> tuple[Batch]:
    del call
    return ((pictures.solid(32, 32, (0, 0, 0)),),)


def _is_even(inputs: Mapping[str, Any], site: Site) -> Mapping[str, str]:
    del site
    value = inputs.get("value")
    return {"value": f"{value} is odd, an even number is needed"} if isinstance(value, int) and value % 2 else {}


def _probe(
    name: str,
    run: Callable[[NodeCall], Awaitable[Any]],
    inputs: Mapping[str, Input],
    outputs: tuple[str, ...] = ("IMAGE",),
    **more: Any,
) -> NodeClass:
    about = {"python_module": "custom_nodes.comfy_test_nodes", "category": "probe"}
    return NodeClass(name, run, inputs=inputs, outputs=outputs, more=about, **more)


_IMAGE = Input("IMAGE")
_NUMBER = Input("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0})
_COUNT = {"default": 3, "min": 0, "max": 32}

CLASSES = (
    _probe(
        "ProbeSlow",
        _slow,
        {
            "steps": Input("INT", {"default": 10, "min": 1, "max": 1000}),
            "seconds_per_step": Input("FLOAT", {"default": 0.1, "min": 0.0, "max": 60.0}),
            "report_progress": Input("BOOLEAN", {"default": True}),
            "preview": Input(("none", "jpeg", "png")),
            "fail_at_step": Input("INT", {"default": 0, "min": 0, "max": 1000}),
            "seed": Input("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
        },
        optional={"image": _IMAGE},
    ),
    _probe(
        "ProbeRaise",
        _raise,
        {
            "image": _IMAGE,
            "message": Input("STRING", {"default": "boom"}),
            "kind": Input(("ValueError", "RuntimeError", "KeyError", "OutOfMemory")),
        },
    ),
    _probe("ProbeBlock", _block, {"image": _IMAGE, "message": Input("STRING", {"default": ""})}),
    _probe("ProbeAlways", _always, {"value": _NUMBER}, never_cached=True),
    _probe(
        "ProbeAsync",
        _beside,
        {
            "seconds": Input("FLOAT", {"default": 0.5, "min": 0.0, "max": 60.0}),
            "steps": Input("INT", {"default": 3, "min": 1, "max": 1000}),
            "value": _NUMBER,
            "fail": Input("BOOLEAN", {"default": False}),
        },
        asynchronous=True,
    ),
    _probe("ProbeExpand", _expand, {"image": _IMAGE, "steps": Input("INT", {"default": 2, "min": 1, "max": 100})}),
    _probe("ProbeList", _list, {"count": Input("INT", _COUNT)}, lists=(True,)),
    _probe("ProbeText", _text, {"image": _IMAGE, "text": Input("STRING", {"default": ""})}),
    _probe(
        "ProbeUi",
        _ui,
        {
            "text": Input("STRING", {"default": ""}),
            "shape": Input(("text", "several", "empty_list", "empty_ui", "numbers")),
        },
        (),
        output_node=True,
    ),
    _probe(
        "ProbeValidate",
        _picky,
        {"value": Input("INT", {"default": 2})},
        validate=_is_even,
        validates=frozenset({"value"}),
    ),
)
