"""Stock nodes that make, load and save pictures."""

import hashlib
from collections.abc import Mapping
from typing import Any

import attrs

from emp_comfyui.testing import image_headers, pictures, png
from emp_comfyui.testing.node_class import Batch, Input, NodeCall, NodeClass, NodeFailure, Result, Site, image_files
from emp_comfyui.testing.pictures import Picture

SIDE = 16384
SAVED_WITH = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
IMAGE = Input("IMAGE")
IMAGE_OUT = ("IMAGE",)


def side(minimum: int = 1) -> Input:
    """A width or height in pixels."""
    return Input("INT", {"default": 512, "min": minimum, "max": SIDE, "step": 1})


@attrs.frozen
class Mask:
    """The value of a MASK: one byte per pixel."""

    width: int
    height: int
    levels: bytes = attrs.field(repr=False)


async def _empty_image(call: NodeCall) -> tuple[Batch]:
    colour = int(call["color"])
    one = pictures.solid(call["width"], call["height"], (colour >> 16, (colour >> 8) & 255, colour & 255))
    return ((one,) * int(call["batch_size"]),)


async def _load_image(call: NodeCall) -> tuple[Batch, Mask]:
    picture = _read_picture(call)
    # ComfyUI's mask is what is transparent; without an alpha plane it is 64 x 64 of nothing.
    mask = Mask(64, 64, bytes(64 * 64))
    if picture.alpha is not None:
        mask = Mask(picture.width, picture.height, bytes(255 - level for level in picture.alpha))
    return (picture,), mask


async def _load_image_mask(call: NodeCall) -> tuple[Mask]:
    picture = _read_picture(call)
    plane = {"red": 0, "green": 1, "blue": 2}.get(call["channel"])
    if plane is not None:
        return (Mask(picture.width, picture.height, picture.rgb[plane::3]),)
    alpha = picture.alpha or b"\xff" * (picture.width * picture.height)
    return (Mask(picture.width, picture.height, bytes(255 - level for level in alpha)),)


def _read_picture(call: NodeCall) -> Picture:
    """The picture in a file. Kinds that only their header is read of become a painting of the same size."""
    path = call.site.folders.annotated(call["image"])
    if path is None:
        raise FileNotFoundError(f"[Errno 2] No such file or directory: '{call['image']}'")
    data = path.read_bytes()
    try:
        return pictures.from_png(data)
    except png.NotAPng:
        measured = image_headers.measure(data)
    if measured is None:
        raise NodeFailure(f"cannot identify image file '{path.name}'", "PIL.UnidentifiedImageError")
    return pictures.plasma(*measured, hashlib.sha256(data).hexdigest())


def _is_there(inputs: Mapping[str, Any], site: Site) -> Mapping[str, str]:
    name = inputs.get("image")
    if isinstance(name, str) and site.folders.annotated(name) is None:
        return {"image": f"Invalid image file: {name}"}
    return {}


def file_fingerprint(inputs: Mapping[str, Any], site: Site) -> str:
    """A digest of the file that ``image`` or ``audio`` names, so that changed bytes are noticed."""
    path = site.folders.annotated(inputs.get("image", inputs.get("audio")))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else "missing"


async def _save_image(call: NodeCall) -> Result:
    return _saved(call, call["images"], str(call["filename_prefix"]), "output")


async def _preview_image(call: NodeCall) -> Result:
    return _saved(call, call["images"], call.temp_prefix(), "temp")


async def _preview_mask(call: NodeCall) -> Result:
    mask: Mask = call["mask"]
    picture = pictures.grey(mask.width, mask.height, mask.levels)
    return _saved(call, (picture,), call.temp_prefix(), "temp")


def _saved(call: NodeCall, batch: Batch, prefix: str, kind: str) -> Result:
    texts = call.png_texts()
    prefix = prefix.replace("%width%", str(batch[0].width)).replace("%height%", str(batch[0].height))
    return Result(ui={"images": [call.save(prefix, "png", each.as_png(texts), kind=kind) for each in batch]})


async def _save_over_socket(call: NodeCall) -> None:
    batch: Batch = call["images"]
    for number, each in enumerate(batch):
        await call.step(number, len(batch), (each.as_png(), "image/png"))


async def _solid_mask(call: NodeCall) -> tuple[Mask]:
    width, height = int(call["width"]), int(call["height"])
    return (Mask(width, height, bytes([round(255 * call["value"])]) * (width * height)),)


_LOADED = Input((), {"image_upload": True}, image_files)


def about(display_name: str, category: str, module: str = "nodes", **others: object) -> dict[str, object]:
    """What ``/object_info`` says of a class beside its inputs and outputs."""
    return {"display_name": display_name, "category": category, "python_module": module, **others}


CLASSES = (
    NodeClass(
        "EmptyImage",
        _empty_image,
        inputs={
            "width": side(),
            "height": side(),
            "batch_size": Input("INT", {"default": 1, "min": 1, "max": 4096}),
            "color": Input("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
        },
        outputs=IMAGE_OUT,
        more=about("EmptyImage", "image"),
    ),
    NodeClass(
        "LoadImage",
        _load_image,
        inputs={"image": _LOADED},
        outputs=("IMAGE", "MASK"),
        validate=_is_there,
        validates=frozenset({"image"}),
        fingerprint=file_fingerprint,
        more=about("Load Image", "image"),
    ),
    NodeClass(
        "LoadImageMask",
        _load_image_mask,
        inputs={"image": _LOADED, "channel": Input(("alpha", "red", "green", "blue"))},
        outputs=("MASK",),
        validate=_is_there,
        validates=frozenset({"image"}),
        fingerprint=file_fingerprint,
        more=about("Load Image (as Mask)", "mask"),
    ),
    NodeClass(
        "SaveImage",
        _save_image,
        inputs={"images": Input("IMAGE", {}), "filename_prefix": Input("STRING", {"default": "ComfyUI"})},
        output_node=True,
        more=about("Save Image", "image", hidden=SAVED_WITH),
    ),
    NodeClass(
        "PreviewImage",
        _preview_image,
        inputs={"images": IMAGE},
        output_node=True,
        more=about("Preview Image", "image", hidden=SAVED_WITH),
    ),
    NodeClass(
        "MaskPreview",
        _preview_mask,
        inputs={"mask": Input("MASK")},
        output_node=True,
        more=about("Preview Mask", "mask", "comfy_extras.nodes_mask", hidden=SAVED_WITH),
    ),
    NodeClass(
        "SaveImageWebsocket",
        _save_over_socket,
        inputs={"images": IMAGE},
        output_node=True,
        never_cached=True,
        more=about("SaveImageWebsocket", "api/image", "custom_nodes.websocket_image_save"),
    ),
    NodeClass(
        "SolidMask",
        _solid_mask,
        inputs={
            "value": Input("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            "width": side(),
            "height": side(),
        },
        outputs=("MASK",),
        more=about("SolidMask", "mask", "comfy_extras.nodes_mask"),
    ),
)
