"""Stock nodes that change pictures: scale, crop, blend, batch and their like."""

from emp_comfyui.testing import pictures
from emp_comfyui.testing.node_class import Batch, Input, NodeCall, NodeClass
from emp_comfyui.testing.nodes_images import IMAGE, IMAGE_OUT, Mask, about, side
from emp_comfyui.testing.pictures import Picture

_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
_GAP_COLOURS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
}


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


async def _image_size(call: NodeCall) -> tuple[int, int, int]:
    batch: Batch = call["image"]
    width, height = batch[0].width, batch[0].height
    call.progress_text(f"width: {width}, height: {height}\n batch size: {len(batch)}")
    return width, height, len(batch)


CLASSES = (
    NodeClass("ImageInvert", _invert, inputs={"image": IMAGE}, outputs=IMAGE_OUT, more=about("Invert Image", "image")),
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
        outputs=IMAGE_OUT,
        more=about("Upscale Image", "image/upscaling"),
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
        outputs=IMAGE_OUT,
        more=about("ResizeAndPadImage", "image/transform", "comfy_extras.nodes_images"),
    ),
    NodeClass(
        "ImageCrop",
        _crop,
        inputs={"image": IMAGE, "width": side(), "height": side(), "x": side(0), "y": side(0)},
        outputs=IMAGE_OUT,
        more=about("Image Crop", "image/transform", "comfy_extras.nodes_images"),
    ),
    NodeClass(
        "ImageBatch",
        _batch,
        inputs={"image1": IMAGE, "image2": IMAGE},
        outputs=IMAGE_OUT,
        more=about("Batch Images", "image"),
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
        outputs=IMAGE_OUT,
        more=about("Image Blend", "image/postprocessing", "comfy_extras.nodes_post_processing"),
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
        outputs=IMAGE_OUT,
        more=about("Image Stitch", "image/transform", "comfy_extras.nodes_images"),
    ),
    NodeClass(
        "ImageAddNoise",
        _add_noise,
        inputs={
            "image": IMAGE,
            "seed": Input("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
            "strength": Input("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
        },
        outputs=IMAGE_OUT,
        more=about("ImageAddNoise", "image", "comfy_extras.nodes_images"),
    ),
    NodeClass(
        "MaskToImage",
        _mask_to_image,
        inputs={"mask": Input("MASK")},
        outputs=IMAGE_OUT,
        more=about("Convert Mask to Image", "mask", "comfy_extras.nodes_mask"),
    ),
    NodeClass(
        "GetImageSize",
        _image_size,
        inputs={"image": IMAGE},
        outputs=("INT", "INT", "INT"),
        more=about(
            "Get Image Size", "image", "comfy_extras.nodes_images", output_name=["width", "height", "batch_size"]
        ),
    ),
)
