"""Routes of files: reading outputs and taking uploads."""

from __future__ import annotations

import hashlib
import json
import posixpath
from typing import TYPE_CHECKING

from aiohttp import web, web_fileresponse
from aiohttp.web_request import FileField

from emp_comfyui.testing import jpeg, pictures, png, sample_files, webp
from emp_comfyui.testing.folders import KINDS
from emp_comfyui.testing.records import UploadRecord

if TYPE_CHECKING:
    from pathlib import Path

    from emp_comfyui.testing.server import FakeComfyUI

# asyncio's sendfile breaks the event loop with an InvalidStateError where a connection is cut in the middle of a file, as a
# killed server cuts it. It is what AIOHTTP_NOSENDFILE sets, where aiohttp was not imported before.
setattr(web_fileresponse, "NOSENDFILE", True)  # noqa: B010 - it is declared final
_NEVER_SHOWN = {"text/html", "application/xhtml+xml", "text/javascript", "text/css"}


class FileRoutes:
    """Handlers of ``/view``, ``/upload/image`` and ``/upload/mask``."""

    def __init__(self, server: FakeComfyUI) -> None:
        """For one server."""
        self._server = server

    def routes(self) -> list[web.RouteDef]:
        """All routes, without ``/api``."""
        return [
            web.get("/view", self.view),
            web.post("/upload/image", self.upload_image),
            web.post("/upload/mask", self.upload_mask),
        ]

    async def view(self, request: web.Request) -> web.StreamResponse:
        """A file of output, input or temp. Refusals have empty bodies."""
        query = request.query
        if "filename" not in query:
            return web.Response(status=404)
        name, kind = query["filename"], query.get("type", "output")
        for each in KINDS:
            if name.endswith(f" [{each}]"):
                name, kind = name.removesuffix(f" [{each}]"), each
        if not name or name.startswith("/") or ".." in name or kind not in KINDS:
            return web.Response(status=400)
        folder = self._server.folders.inside(kind, query.get("subfolder", ""))
        if folder is None:
            return web.Response(status=403)
        path = folder / posixpath.basename(name)
        missing = self._server.faults.missing_outputs and kind == "output"
        if missing or not path.is_file():
            return web.Response(status=404)
        return _answer(path, query.get("preview"), query.get("channel", "rgba"))

    async def upload_image(self, request: web.Request) -> web.Response:
        """Take a file; another one of the same name gets a number unless it is to be overwritten."""
        return await self._upload(request, mask=False)

    async def upload_mask(self, request: web.Request) -> web.Response:
        """Take a mask and store the image it belongs to with the mask's alpha."""
        return await self._upload(request, mask=True)

    async def _upload(self, request: web.Request, *, mask: bool) -> web.Response:
        form = await request.post()
        image, kind = form.get("image"), str(form.get("type", "input"))
        if not isinstance(image, FileField):
            return web.Response(status=400)
        base = self._server.folders.path(kind)
        subfolder = str(form.get("subfolder", ""))
        folder = self._server.folders.inside(kind, subfolder)
        if folder is None or not image.filename:
            return web.Response(status=400)
        if not (folder / image.filename).resolve().is_relative_to(base.resolve()):
            return web.Response(status=400)
        data = image.file.read()
        if mask:
            data = self._masked(data, json.loads(str(form["original_ref"])))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / image.filename
        if form.get("overwrite") not in ("true", "1"):
            path = _free_name(path, data)
        path.write_bytes(data)
        self._server.uploads.append(UploadRecord(path.name, subfolder, kind, len(data), mask))
        return web.json_response({"name": path.name, "subfolder": subfolder, "type": kind})

    def _masked(self, mask: bytes, reference: dict[str, str]) -> bytes:
        folder = self._server.folders.inside(reference.get("type", "output"), reference.get("subfolder", ""))
        if folder is None:
            raise PermissionError(f"the folder of {reference} is outside")
        original = pictures.from_png((folder / posixpath.basename(reference["filename"])).read_bytes())
        plane = png.decode(mask)
        alpha = plane.data[3::4] if plane.channels == 4 else b"\xff" * (plane.width * plane.height)
        fitted = pictures.scaled(pictures.grey(plane.width, plane.height, alpha), original.width, original.height)
        pixels = bytearray(4 * original.width * original.height)
        for channel in range(3):
            pixels[channel::4] = original.rgb[channel::3]
        pixels[3::4] = fitted.rgb[0::3]
        return png.encode(png.Raster(original.width, original.height, 4, bytes(pixels)))


def _free_name(path: Path, data: bytes) -> Path:
    """The name itself, or one with a number; an existing file of the same bytes is used again."""
    digest = hashlib.sha256(data).digest()
    candidate, number = path, 0
    while candidate.exists() and hashlib.sha256(candidate.read_bytes()).digest() != digest:
        number += 1
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return candidate


def _answer(path: Path, preview: str | None, channel: str) -> web.StreamResponse:
    headers = {"Content-Disposition": f'filename="{path.name}"'}
    if preview is not None:
        picture = pictures.from_png(path.read_bytes())
        if preview.startswith("jpeg"):
            return web.Response(body=jpeg.encode(picture), content_type="image/jpeg", headers=headers)
        return web.Response(body=webp.encode(picture), content_type="image/webp", headers=headers)
    if channel != "rgba":
        return web.Response(body=_channel(path.read_bytes(), channel), content_type="image/png", headers=headers)
    kind = sample_files.content_type(path.name)
    headers["Content-Type"] = "application/octet-stream" if kind in _NEVER_SHOWN else kind
    return web.FileResponse(path, headers=headers)


def _channel(data: bytes, channel: str) -> bytes:
    picture = pictures.from_png(data)
    if channel == "rgb":
        return picture.as_png()
    alpha = picture.alpha or b"\xff" * (picture.width * picture.height)
    pixels = bytearray(4 * len(alpha))
    pixels[3::4] = alpha
    return png.encode(png.Raster(picture.width, picture.height, 4, bytes(pixels)))
