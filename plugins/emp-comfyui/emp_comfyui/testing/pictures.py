"""The pictures that fake nodes hand to one another, and how they are painted.

A ComfyUI ``IMAGE`` is a batch; here it is a tuple of :class:`Picture`. Painting works on whole rows with
``bytes.translate``, so a picture of a megapixel takes milliseconds and not a second.
"""

import hashlib
import math
import random
from collections.abc import Sequence

import attrs

from emp_comfyui.testing import png

_INVERT = bytes(255 - value for value in range(256))


@attrs.frozen
class Picture:
    """One RGB picture (``rgb``: 3 bytes per pixel), with an alpha plane if the file it came from had one."""

    width: int
    height: int
    rgb: bytes = attrs.field(repr=False)
    alpha: bytes | None = attrs.field(default=None, repr=False)

    def as_png(self, text: dict[str, str] | None = None) -> bytes:
        """The picture as a PNG file without alpha, as SaveImage writes it."""
        return png.encode(self.raster(), text)

    def raster(self) -> png.Raster:
        """The pixels without alpha."""
        return png.Raster(self.width, self.height, 3, self.rgb)

    def mean_colour(self) -> tuple[int, int, int]:
        """The average colour."""
        count = self.width * self.height
        red, green, blue = (sum(self.rgb[channel::3]) // count for channel in range(3))
        return red, green, blue


def solid(width: int, height: int, colour: tuple[int, int, int]) -> Picture:
    """A picture of one colour."""
    return Picture(width, height, bytes(colour) * (width * height))


def plasma(width: int, height: int, seed: str) -> Picture:
    """A smooth, colourful gradient that depends on ``seed`` alone."""
    chance = random.Random(hashlib.sha256(seed.encode()).digest())  # noqa: S311 - a picture, not a secret
    rows = bytearray(3 * width * height)
    stride = 3 * width
    for channel in range(3):
        waves, drift = chance.uniform(0.6, 1.8), chance.uniform(-0.7, 0.7)
        tilt, phase = chance.uniform(0.5, 2.0), chance.uniform(0, math.tau)
        strip = bytes(
            int(127.5 + 127.5 * math.sin(math.tau * waves * x / max(width, 64) + phase)) for x in range(2 * width)
        )
        for y in range(height):
            start = int((y / height) * abs(drift) * width)
            bend = math.sin(math.tau * tilt * y / height + phase)
            row = strip[start : start + width].translate(_toned(round(15 * bend)))
            rows[y * stride + channel : (y + 1) * stride : 3] = row if drift > 0 else row[::-1]
    return Picture(width, height, bytes(rows))


_TONES: dict[int, bytes] = {}


def _toned(bend: int) -> bytes:
    """A table that lifts or lowers the middle tones; the 31 tables that occur are kept."""
    if bend not in _TONES:
        power = 2 ** (bend / 15)
        _TONES[bend] = bytes(24 + int(207 * (value / 255) ** power) for value in range(256))
    return _TONES[bend]


def noisy(picture: Picture, seed: int, strength: float) -> Picture:
    """The picture with random noise over it; ``strength`` 1.0 leaves nothing else."""
    noise = random.Random(seed).randbytes(len(picture.rgb))  # noqa: S311 - a picture, not a secret
    return Picture(picture.width, picture.height, _mixed(picture.rgb, noise, strength))


def inverted(picture: Picture) -> Picture:
    """The negative."""
    return Picture(picture.width, picture.height, picture.rgb.translate(_INVERT))


def blended(first: Picture, second: Picture, factor: float) -> Picture:
    """``factor`` of the second over the first; the second is scaled to the first's size."""
    other = scaled(second, first.width, first.height)
    return Picture(first.width, first.height, _mixed(first.rgb, other.rgb, factor))


def multiplied(first: Picture, second: Picture, factor: float) -> Picture:
    """The product of both, mixed with the first by ``factor``."""
    other = scaled(second, first.width, first.height)
    product = bytes(a * b // 255 for a, b in zip(first.rgb, other.rgb, strict=True))
    return Picture(first.width, first.height, _mixed(first.rgb, product, factor))


def cropped(picture: Picture, x: int, y: int, width: int, height: int) -> Picture:
    """A part of the picture, never smaller than one pixel."""
    x, y = min(x, picture.width - 1), min(y, picture.height - 1)
    width, height = min(width, picture.width - x), min(height, picture.height - y)
    rows = (picture.rgb[3 * (row * picture.width + x) :][: 3 * width] for row in range(y, y + height))
    return Picture(width, height, b"".join(rows))


def scaled(picture: Picture, width: int, height: int) -> Picture:
    """The picture in another size, nearest pixels."""
    if (width, height) == (picture.width, picture.height):
        return picture
    columns = [3 * (x * picture.width // width) for x in range(width)]
    rows = []
    known: dict[int, bytes] = {}
    for y in range(height):
        source = y * picture.height // height
        if source not in known:
            line = picture.rgb[3 * source * picture.width :][: 3 * picture.width]
            known[source] = b"".join(line[start : start + 3] for start in columns)
        rows.append(known[source])
    return Picture(width, height, b"".join(rows))


def stitched(first: Picture, second: Picture, direction: str, gap: int, colour: tuple[int, int, int]) -> Picture:
    """Both pictures side by side or one above the other; the second takes the first one's height or width."""
    if direction in ("down", "up"):
        other = scaled(second, first.width, max(1, round(second.height * first.width / second.width)))
        upper, lower = (first, other) if direction == "down" else (other, first)
        between = bytes(colour) * (gap * first.width)
        return Picture(first.width, upper.height + gap + lower.height, upper.rgb + between + lower.rgb)
    other = scaled(second, max(1, round(second.width * first.height / second.height)), first.height)
    left, right = (first, other) if direction == "right" else (other, first)
    between = bytes(colour) * gap
    rows = (
        left.rgb[3 * y * left.width :][: 3 * left.width] + between + right.rgb[3 * y * right.width :][: 3 * right.width]
        for y in range(first.height)
    )
    return Picture(left.width + gap + right.width, first.height, b"".join(rows))


def grey(width: int, height: int, levels: bytes) -> Picture:
    """A greyscale plane (one byte per pixel) as a picture."""
    rgb = bytearray(3 * len(levels))
    for channel in range(3):
        rgb[channel::3] = levels
    return Picture(width, height, bytes(rgb))


def from_png(data: bytes) -> Picture:
    """The picture in a PNG file.

    Raises:
        png.NotAPng: the file cannot be read.
    """
    raster = png.decode(data)
    if raster.channels == 3:
        return Picture(raster.width, raster.height, raster.data)
    rgb = bytearray(3 * raster.width * raster.height)
    for channel in range(3):
        rgb[channel::3] = raster.data[channel::4]
    return Picture(raster.width, raster.height, bytes(rgb), raster.data[3::4])


def as_tensor_text(batch: Sequence[Picture]) -> str:
    """How a real server prints such an image in ``current_inputs`` of an error: a cut tensor."""
    shades = [f"{value / 255:.4f}" for value in batch[0].rgb[:3]] if batch else []
    return f"tensor([[[[{', '.join(shades)}],\n          ...]]])"


def _mixed(first: bytes, second: bytes, share: float) -> bytes:
    """``share`` of the second plus the rest of the first. Two tables whose sums stay below 256 allow one big addition."""
    share = min(max(share, 0.0), 1.0)
    scale_second = bytes(int(value * share) for value in range(256))
    scale_first = bytes(int(value * (1 - share)) for value in range(256))
    total = int.from_bytes(first.translate(scale_first), "big") + int.from_bytes(second.translate(scale_second), "big")
    return total.to_bytes(len(first), "big")
