"""Stock nodes whose results are no plain pictures: text, audio, video, animations, latents, 3D."""

from emp_comfyui.testing.node_class import Input, NodeCall, NodeClass, Result


async def _value(call: NodeCall) -> tuple[object]:
    return (call["value"],)


async def _concatenate(call: NodeCall) -> tuple[str]:
    return (str(call["delimiter"]).join((call["string_a"], call["string_b"])),)


async def _preview_any(call: NodeCall) -> Result:
    return Result(ui={"text": [str(call["source"])]})


_PRIMITIVE = {"category": "utils/primitive", "python_module": "comfy_extras.nodes_primitive"}
_MODERN = {"output_tooltips": [None], "deprecated": False, "experimental": False, "api_node": False}
_WIDE = 9223372036854775807

CLASSES = (
    NodeClass(
        "PrimitiveInt",
        _value,
        inputs={"value": Input("INT", {"min": -_WIDE, "max": _WIDE, "control_after_generate": True})},
        outputs=("INT",),
        more={"display_name": "Int", **_PRIMITIVE, **_MODERN},
    ),
    NodeClass(
        "PrimitiveFloat",
        _value,
        inputs={"value": Input("FLOAT", {"min": -_WIDE, "max": _WIDE})},
        outputs=("FLOAT",),
        more={"display_name": "Float", **_PRIMITIVE, **_MODERN},
    ),
    NodeClass(
        "PrimitiveString",
        _value,
        inputs={"value": Input("STRING", {"multiline": False})},
        outputs=("STRING",),
        more={"display_name": "String", **_PRIMITIVE, **_MODERN},
    ),
    NodeClass(
        "StringConcatenate",
        _concatenate,
        inputs={
            "string_a": Input("STRING", {"multiline": True}),
            "string_b": Input("STRING", {"multiline": True}),
            "delimiter": Input("STRING", {"default": "", "multiline": False}),
        },
        outputs=("STRING",),
        more={
            "display_name": "Concatenate",
            "category": "utils/string",
            "python_module": "comfy_extras.nodes_string",
            **_MODERN,
        },
    ),
    NodeClass(
        "PreviewAny",
        _preview_any,
        inputs={"source": Input("*", {})},
        output_node=True,
        more={
            "display_name": "Preview Any",
            "category": "utils",
            "python_module": "comfy_extras.nodes_preview_any",
        },
    ),
)
