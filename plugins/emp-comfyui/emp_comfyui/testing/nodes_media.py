"""Stock nodes whose results are no plain pictures: text, audio, video, animations, latents, 3D."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from emp_comfyui.testing import audio, png, sample_files, video, webp
from emp_comfyui.testing.node_class import Batch, Input, NodeCall, NodeClass, Result, RunNode, Site
from emp_comfyui.testing.nodes_images import SAVED_WITH, file_fingerprint

if TYPE_CHECKING:
    from emp_comfyui.testing.nodes_sampling import Latent


@attrs.frozen
class Sound:
    """The value of an AUDIO: silence."""

    seconds: float
    rate: int
    channels: int


@attrs.frozen
class Clip:
    """The value of a VIDEO."""

    frames: Batch = attrs.field(repr=False)
    fps: float


async def _value(call: NodeCall) -> tuple[object]:
    return (call["value"],)


async def _concatenate(call: NodeCall) -> tuple[str]:
    return (str(call["delimiter"]).join((call["string_a"], call["string_b"])),)


async def _preview_any(call: NodeCall) -> Result:
    return Result(ui={"text": [str(call["source"])]})


async def _empty_audio(call: NodeCall) -> tuple[Sound]:
    return (Sound(float(call["duration"]), int(call["sample_rate"]), int(call["channels"])),)


async def _load_audio(call: NodeCall) -> tuple[Sound]:
    path = call.site.folders.annotated(call["audio"])
    if path is None:
        raise FileNotFoundError(f"[Errno 2] No such file or directory: '{call['audio']}'")
    return (Sound(max(0.1, path.stat().st_size / 16_000), 44100, 2),)


async def _save_flac(call: NodeCall) -> Result:
    return _saved_audio(call, "flac", str(call["filename_prefix"]), "output")


async def _save_mp3(call: NodeCall) -> Result:
    return _saved_audio(call, "mp3", str(call["filename_prefix"]), "output")


async def _save_opus(call: NodeCall) -> Result:
    return _saved_audio(call, "opus", str(call["filename_prefix"]), "output")


async def _preview_audio(call: NodeCall) -> Result:
    return _saved_audio(call, "flac", call.temp_prefix(), "temp")


def _saved_audio(call: NodeCall, extension: str, prefix: str, kind: str) -> Result:
    sound: Sound = call["audio"]
    texts = call.png_texts()
    match extension:
        case "flac":
            data = audio.flac(sound.seconds, sound.rate, sound.channels, texts)
        case "mp3":
            data = audio.mp3(sound.seconds, texts)
        case _:
            data = audio.opus(sound.seconds, texts)
    return Result(ui={"audio": [call.save(prefix, extension, data, kind=kind)]})


async def _create_video(call: NodeCall) -> tuple[Clip]:
    return (Clip(call["images"], float(call["fps"])),)


async def _save_video(call: NodeCall) -> Result:
    clip: Clip = call["video"]
    return _animated(call, "mp4", video.mp4(clip.frames, clip.fps))


async def _save_webm(call: NodeCall) -> Result:
    return _animated(call, "webm", video.webm(call["images"], float(call["fps"])))


async def _save_webp(call: NodeCall) -> Result:
    return _animated(call, "webp", webp.encode_animation(call["images"], float(call["fps"])))


async def _save_apng(call: NodeCall) -> Result:
    frames = [each.raster() for each in call["images"]]
    return _animated(call, "png", png.encode_animation(frames, float(call["fps"]), call.png_texts()))


def _animated(call: NodeCall, extension: str, data: bytes) -> Result:
    reference = call.save(str(call["filename_prefix"]), extension, data)
    return Result(ui={"images": [reference], "animated": [True]})


async def _save_latent(call: NodeCall) -> Result:
    latent: Latent = call["samples"]
    data = sample_files.latent_file(latent.width, latent.height, latent.count, json.dumps(call.prompt))
    return Result(ui={"latents": [call.save(str(call["filename_prefix"]), "latent", data)]})


async def _preview_3d(call: NodeCall) -> Result:
    return Result(ui={"result": [call["model_file"], None]})


def _audio_files(site: Site) -> list[str]:
    kinds = {".flac", ".mp3", ".opus", ".wav", ".ogg"}
    return sorted(path.name for path in Path(site.folders.path("input")).iterdir() if path.suffix in kinds)


def _is_there(inputs: Mapping[str, Any], site: Site) -> Mapping[str, str]:
    """LoadAudio takes what is there, listed or not, as LoadImage does."""
    name = inputs.get("audio")
    return {"audio": f"Invalid audio file: {name}"} if site.folders.annotated(name) is None else {}


_AUDIO = {"category": "audio", "python_module": "comfy_extras.nodes_audio"}
_VIDEO = {"category": "image/video", "python_module": "comfy_extras.nodes_video"}
_SAVED = {"hidden": SAVED_WITH}
_MODERN_SAVED = {
    "hidden": {"prompt": ["PROMPT"], "extra_pnginfo": ["EXTRA_PNGINFO"]},
    "output_tooltips": [],
    "deprecated": False,
    "experimental": False,
    "api_node": False,
}


def _prefix(default: str) -> Input:
    return Input("STRING", {"default": default})


def _saves_audio(name: str, title: str, run: RunNode, qualities: tuple[str, ...] = ()) -> NodeClass:
    inputs = {"audio": Input("AUDIO"), "filename_prefix": _prefix("audio/ComfyUI")}
    if qualities:
        inputs["quality"] = Input(qualities, {"default": "128k"})
    return NodeClass(name, run, inputs=inputs, output_node=True, more={"display_name": title, **_AUDIO, **_SAVED})


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
    NodeClass(
        "EmptyAudio",
        _empty_audio,
        inputs={
            "duration": Input("FLOAT", {"default": 60.0, "min": 0.0, "max": 2**64 - 1, "step": 0.01}),
            "sample_rate": Input("INT", {"default": 44100, "min": 1, "max": 192000}),
            "channels": Input("INT", {"default": 2, "min": 1, "max": 2}),
        },
        outputs=("AUDIO",),
        more={"display_name": "Empty Audio", **_AUDIO},
    ),
    NodeClass(
        "LoadAudio",
        _load_audio,
        inputs={"audio": Input((), {"audio_upload": True}, _audio_files)},
        outputs=("AUDIO",),
        validate=_is_there,
        validates=frozenset({"audio"}),
        fingerprint=file_fingerprint,
        more={"display_name": "Load Audio", **_AUDIO},
    ),
    _saves_audio("SaveAudio", "Save Audio (FLAC)", _save_flac),
    _saves_audio("SaveAudioMP3", "Save Audio (MP3)", _save_mp3, ("V0", "128k", "320k")),
    _saves_audio("SaveAudioOpus", "Save Audio (Opus)", _save_opus, ("64k", "96k", "128k", "192k", "320k")),
    NodeClass(
        "PreviewAudio",
        _preview_audio,
        inputs={"audio": Input("AUDIO")},
        output_node=True,
        more={"display_name": "Preview Audio", **_AUDIO, **_SAVED},
    ),
    NodeClass(
        "CreateVideo",
        _create_video,
        inputs={
            "images": Input("IMAGE"),
            "fps": Input("FLOAT", {"default": 30.0, "min": 1.0, "max": 120.0, "step": 1.0}),
        },
        optional={"audio": Input("AUDIO")},
        outputs=("VIDEO",),
        more={"display_name": "Create Video", **_VIDEO},
    ),
    NodeClass(
        "SaveVideo",
        _save_video,
        inputs={
            "video": Input("VIDEO", {}),
            "filename_prefix": Input("STRING", {"default": "video/ComfyUI", "multiline": False}),
            "format": Input("COMBO", {"default": "auto", "multiselect": False, "options": ["auto", "mp4"]}),
            "codec": Input("COMBO", {"default": "auto", "multiselect": False, "options": ["auto", "h264"]}),
        },
        output_node=True,
        more={"display_name": "Save Video", **_VIDEO, **_MODERN_SAVED},
    ),
    NodeClass(
        "SaveWEBM",
        _save_webm,
        inputs={
            "images": Input("IMAGE", {}),
            "filename_prefix": Input("STRING", {"default": "ComfyUI", "multiline": False}),
            "codec": Input("COMBO", {"multiselect": False, "options": ["vp9", "av1"]}),
            "fps": Input("FLOAT", {"default": 24.0, "min": 0.01, "max": 1000.0, "step": 0.01}),
            "crf": Input("FLOAT", {"default": 32.0, "min": 0, "max": 63.0, "step": 1}),
        },
        output_node=True,
        more={"display_name": None, **_VIDEO, **_MODERN_SAVED, "experimental": True},
    ),
    NodeClass(
        "SaveAnimatedWEBP",
        _save_webp,
        inputs={
            "images": Input("IMAGE"),
            "filename_prefix": _prefix("ComfyUI"),
            "fps": Input("FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01}),
            "lossless": Input("BOOLEAN", {"default": True}),
            "quality": Input("INT", {"default": 80, "min": 0, "max": 100}),
            "method": Input(("default", "fastest", "slowest")),
        },
        output_node=True,
        more={"category": "image/animation", "python_module": "comfy_extras.nodes_images", **_SAVED},
    ),
    NodeClass(
        "SaveAnimatedPNG",
        _save_apng,
        inputs={
            "images": Input("IMAGE"),
            "filename_prefix": _prefix("ComfyUI"),
            "fps": Input("FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01}),
            "compress_level": Input("INT", {"default": 4, "min": 0, "max": 9}),
        },
        output_node=True,
        more={"category": "image/animation", "python_module": "comfy_extras.nodes_images", **_SAVED},
    ),
    NodeClass(
        "SaveLatent",
        _save_latent,
        inputs={"samples": Input("LATENT"), "filename_prefix": _prefix("latents/ComfyUI")},
        output_node=True,
        more={"category": "_for_testing", **_SAVED},
    ),
    NodeClass(
        "Preview3D",
        _preview_3d,
        inputs={"model_file": Input("STRING", {"default": "", "multiline": False})},
        optional={"camera_info": Input("LOAD3D_CAMERA")},
        output_node=True,
        more={"display_name": "Preview 3D", "category": "3d", "python_module": "comfy_extras.nodes_load_3d"},
    ),
)
