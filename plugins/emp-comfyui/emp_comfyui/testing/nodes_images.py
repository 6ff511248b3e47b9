"""Stock nodes that make, load, change and save pictures."""

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


async def _invert(call: NodeCall) -> tuple[Batch]:
    return (tuple(pictures.inverted(each) for each in call["image"]),)


async def _scale(call: NodeCall) -> tuple[Batch]:
    return (tuple(_fitted(each, call["width"], call["height"], call["crop"]) for each in call["image"]),)


def _fitted(picture: Picture, width: int, height: int, crop: str) -> Picture:
    # A side of 0 follows the other one, keeping the proportions.
    if not width and not height:
        return picture
    width = width or max(1, round(picture.width * height / picture.height))
    height = height or max(1, round(picture.height * width / picture.width))
    if crop == "center":
        wide, high = picture.width * height, picture.height * width
        if wide > high:
            kept = max(1, high // height)
            picture = pictures.cropped(picture, (picture.width - kept) // 2, 0, kept, picture.height)
        elif high > wide:
            kept = max(1, wide // width)
            picture = pictures.cropped(picture, 0, (picture.height - kept) // 2, picture.width, kept)
    return pictures.scaled(picture, width, height)


async def _resize_and_pad(call: NodeCall) -> tuple[Batch]:
    width, height = int(call["target_width"]), int(call["target_height"])
    return (tuple(pictures.scaled(each, width, height) for each in call["image"]),)


async def _crop(call: NodeCall) -> tuple[Batch]:
    box = (call["x"], call["y"], call["width"], call["height"])
    return (tuple(pictures.cropped(each, *box) for each in call["image"]),)


async def _batch(call: NodeCall) -> tuple[Batch]:
    first: Batch = call["image1"]
    second: Batch = call["image2"]
    return (first + tuple(pictures.scaled(each, first[0].width, first[0].height) for each in second),)


async def _stitch(call: NodeCall) -> tuple[Batch]:
    first: Batch = call["image1"]
    second: Batch | None = call.inputs.get("image2")
    if second is None:
        return (first,)
    gap = int(call["spacing_width"])
    colour = _GAP_COLOURS[call["spacing_color"]]
    pairs = zip(first, second, strict=False)
    return (tuple(pictures.stitched(one, other, call["direction"], gap, colour) for one, other in pairs),)


async def _blend(call: NodeCall) -> tuple[Batch]:
    mix = pictures.multiplied if call["blend_mode"] == "multiply" else pictures.blended
    pairs = zip(call["image1"], call["image2"], strict=False)
    return (tuple(mix(one, other, call["blend_factor"]) for one, other in pairs),)


async def _add_noise(call: NodeCall) -> tuple[Batch]:
    seed = int(call["seed"])
    return (tuple(pictures.noisy(each, seed + place, call["strength"]) for place, each in enumerate(call["image"])),)


async def _mask_to_image(call: NodeCall) -> tuple[Batch]:
    mask: Mask = call["mask"]
    return ((pictures.grey(mask.width, mask.height, mask.levels),),)


async def _solid_mask(call: NodeCall) -> tuple[Mask]:
    width, height = int(call["width"]), int(call["height"])
    return (Mask(width, height, bytes([round(255 * call["value"])]) * (width * height)),)


async def _image_size(call: NodeCall) -> tuple[int, int, int]:
    batch: Batch = call["image"]
    width, height = batch[0].width, batch[0].height
    call.progress_text(f"width: {width}, height: {height}\n batch size: {len(batch)}")
    return width, height, len(batch)


_LOADED = Input((), {"image_upload": True}, image_files)
_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
_IMAGE_OUT = ("IMAGE",)
_GAP_COLOURS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
}


def _more(display_name: str, category: str, module: str = "nodes", **others: object) -> dict[str, object]:
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
        outputs=_IMAGE_OUT,
        more=_more("EmptyImage", "image"),
    ),
    NodeClass(
        "LoadImage",
        _load_image,
        inputs={"image": _LOADED},
        outputs=("IMAGE", "MASK"),
        validate=_is_there,
        validates=frozenset({"image"}),
        fingerprint=file_fingerprint,
        more=_more("Load Image", "image"),
    ),
    NodeClass(
        "LoadImageMask",
        _load_image_mask,
        inputs={"image": _LOADED, "channel": Input(("alpha", "red", "green", "blue"))},
        outputs=("MASK",),
        validate=_is_there,
        validates=frozenset({"image"}),
        fingerprint=file_fingerprint,
        more=_more("Load Image (as Mask)", "mask"),
    ),
    NodeClass(
        "SaveImage",
        _save_image,
        inputs={"images": Input("IMAGE", {}), "filename_prefix": Input("STRING", {"default": "ComfyUI"})},
        output_node=True,
        more=_more("Save Image", "image", hidden=SAVED_WITH),
    ),
    NodeClass(
        "PreviewImage",
        _preview_image,
        inputs={"images": IMAGE},
        output_node=True,
        more=_more("Preview Image", "image", hidden=SAVED_WITH),
    ),
    NodeClass(
        "MaskPreview",
        _preview_mask,
        inputs={"mask": Input("MASK")},
        output_node=True,
        more=_more("Preview Mask", "mask", "comfy_extras.nodes_mask", hidden=SAVED_WITH),
    ),
    NodeClass(
        "SaveImageWebsocket",
        _save_over_socket,
        inputs={"images": IMAGE},
        output_node=True,
        never_cached=True,
        more=_more("SaveImageWebsocket", "api/image", "custom_nodes.websocket_image_save"),
    ),
    NodeClass("ImageInvert", _invert, inputs={"image": IMAGE}, outputs=_IMAGE_OUT, more=_more("Invert Image", "image")),
    NodeClass(
        "ImageScale",
        _scale,
        inputs={
            "image": IMAGE,
            "upscale_method": Input(_METHODS),
            "width": side(0),
            "height": side(0),
            "crop": Input(("disabled", "center")),
        },
        outputs=_IMAGE_OUT,
        more=_more("Upscale Image", "image/upscaling"),
    ),
    NodeClass(
        "ResizeAndPadImage",
        _resize_and_pad,
        inputs={
            "image": IMAGE,
            "target_width": side(),
            "target_height": side(),
            "padding_color": Input(("white", "black")),
            "interpolation": Input(("area", "bicubic", "nearest-exact", "bilinear", "lanczos")),
        },
        outputs=_IMAGE_OUT,
        more=_more("ResizeAndPadImage", "image/transform", "comfy_extras.nodes_images"),
    ),
    NodeClass(
        "ImageCrop",
        _crop,
        inputs={"image": IMAGE, "width": side(), "height": side(), "x": side(0), "y": side(0)},
        outputs=_IMAGE_OUT,
        more=_more("Image Crop", "image/transform", "comfy_extras.nodes_images"),
    ),
    NodeClass(
        "ImageBatch",
        _batch,
        inputs={"image1": IMAGE, "image2": IMAGE},
        outputs=_IMAGE_OUT,
        more=_more("Batch Images", "image"),
    ),
    NodeClass(
        "ImageBlend",
        _blend,
        inputs={
            "image1": IMAGE,
            "image2": IMAGE,
            "blend_factor": Input("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
            "blend_mode": Input(("normal", "multiply", "screen", "overlay", "soft_light", "difference")),
        },
        outputs=_IMAGE_OUT,
        more=_more("Image Blend", "image/postprocessing", "comfy_extras.nodes_post_processing"),
    ),
    NodeClass(
        "ImageStitch",
        _stitch,
        inputs={
            "image1": IMAGE,
            "direction": Input(("right", "down", "left", "up"), {"default": "right"}),
            "match_image_size": Input("BOOLEAN", {"default": True}),
            "spacing_width": Input("INT", {"default": 0, "min": 0, "max": 1024, "step": 2}),
            "spacing_color": Input(tuple(_GAP_COLOURS), {"default": "white"}),
        },
        optional={"image2": IMAGE},
        outputs=_IMAGE_OUT,
        more=_more("Image Stitch", "image/transform", "comfy_extras.nodes_images"),
    ),
    NodeClass(
        "ImageAddNoise",
        _add_noise,
        inputs={
            "image": IMAGE,
            "seed": Input("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
            "strength": Input("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
        },
        outputs=_IMAGE_OUT,
        more=_more("ImageAddNoise", "image", "comfy_extras.nodes_images"),
    ),
    NodeClass(
        "MaskToImage",
        _mask_to_image,
        inputs={"mask": Input("MASK")},
        outputs=_IMAGE_OUT,
        more=_more("Convert Mask to Image", "mask", "comfy_extras.nodes_mask"),
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
        more=_more("SolidMask", "mask", "comfy_extras.nodes_mask"),
    ),
    NodeClass(
        "GetImageSize",
        _image_size,
        inputs={"image": IMAGE},
        outputs=("INT", "INT", "INT"),
        more=_more(
            "Get Image Size", "image", "comfy_extras.nodes_images", output_name=["width", "height", "batch_size"]
        ),
    ),
)
