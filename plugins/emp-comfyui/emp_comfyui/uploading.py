"""One upload: ``POST /upload/image`` and ``/upload/mask``, streamed, and asked after by ``/view``."""

import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

from attrs import frozen

from emp_comfyui.client import ComfyUIClient
from emp_core.connectors.http import Reply
from emp_core.errors import InvalidJob
from emp_core.inputs.files import Input

__all__ = ["Uploaded", "find_upload", "send_upload"]

_ANSWER_S = 300.0
"""The server compares a file with the one that it has under this name before it answers."""
_QUICK_S = 15.0
_LARGE_BYTES = 32 * 2**20
"""Servers take three times as much, unless they were told otherwise; a larger file is asked about first."""
_ANNOTATED = re.compile(r"(?P<path>.*?)(?: \[(?P<kind>input|output|temp)\])?", re.DOTALL)


@frozen
class Uploaded:
    """A file on the server, as it answered.

    Attributes:
        subfolder: below the folder of its kind; empty: that folder itself.
        kind: ``input``, ``temp`` or ``output``.
    """

    name: str
    subfolder: str
    kind: str = "input"

    @classmethod
    def of_value(cls, value: str) -> "Uploaded":
        """The file that a node's input names: ``subfolder/name``, or ``name [temp]``."""
        match = _ANNOTATED.fullmatch(value)
        path, kind = (match["path"], match["kind"]) if match else (value, None)
        subfolder, _, name = path.replace("\\", "/").rpartition("/")
        return cls(name, subfolder, kind or "input")

    @property
    def path(self) -> str:
        """Where it lies below the folder of its kind."""
        return f"{self.subfolder}/{self.name}" if self.subfolder else self.name

    @property
    def value(self) -> str:
        """What a node's input says to load it."""
        return self.path if self.kind == "input" else f"{self.path} [{self.kind}]"

    @property
    def reference(self) -> dict[str, str]:
        """As the server's routes name it."""
        return {"filename": self.name, "subfolder": self.subfolder, "type": self.kind}


async def send_upload(
    client: ComfyUIClient, file: Input, name: str, subfolder: str, *, masks: Uploaded | None = None
) -> Uploaded:
    """Upload a file. One that the server has under this name already is not written again.

    Args:
        name: ASCII letters, digits, ``-`` and ``.``.
        masks: the picture that gets this file's alpha channel; what is stored is that picture. None: the file itself is.

    Raises:
        InvalidJob: the server takes no file as large as that, or the mask does not fit the picture.
        ServiceUnavailable, ConnectionLost: the server did not take the file.
    """
    if file.size_bytes > _LARGE_BYTES:
        await _check_size(client, file)
    route = "/upload/image" if masks is None else "/upload/mask"
    fields = {"type": "input", "subfolder": subfolder}
    if masks is not None:
        fields["original_ref"] = json.dumps(masks.reference)
    form = _Form.of(file, name, fields)
    reply = await client.http.request(
        "POST",
        route,
        content=form.chunks(),
        headers={"content-type": form.content_type, "content-length": str(form.size_bytes)},
        silence_s=_ANSWER_S,
        accept=(413,) if masks is None else (413, 500),
    )
    match reply.status:
        case 413:
            raise _too_large(client, file, None)
        case 500:
            raise InvalidJob(
                f"the ComfyUI server could not put the mask {file.name} on the image",
                hint="a mask is a picture of the same size; its alpha channel counts",
                details={"reason": "mask"},
            )
    return _answered(client, reply, route)


async def find_upload(client: ComfyUIClient, name: str, subfolder: str) -> Uploaded | None:
    """A file that the server has already; None: it has none of that name."""
    found = Uploaded(name, subfolder)
    params = found.reference
    reply = await client.http.request("HEAD", "/view", params=params, silence_s=_QUICK_S, accept=(400, 403, 404, 405))
    return found if reply.status == 200 else None


@frozen
class _Form:
    """A form with one file in it (RFC 7578), as it goes over the wire piece by piece."""

    file: Input
    head: bytes
    tail: bytes
    content_type: str

    @classmethod
    def of(cls, file: Input, name: str, fields: Mapping[str, str]) -> "_Form":
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            f"Content-Type: {file.media_type}\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"
        return cls(file, "".join(parts).encode(), tail.encode(), f"multipart/form-data; boundary={boundary}")

    @property
    def size_bytes(self) -> int:
        return len(self.head) + self.file.size_bytes + len(self.tail)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.head
        async for chunk in self.file.chunks():
            yield chunk
        yield self.tail


async def _check_size(client: ComfyUIClient, file: Input) -> None:
    """Ask a server that tells how much it takes: one that is sent more closes the connection in the middle of it."""
    reply = await client.http.request("GET", "/features", silence_s=_QUICK_S, accept=(404, 405))
    try:
        told: Any = json.loads(reply.body) if reply.status == 200 else {}
    except (ValueError, RecursionError):
        return
    limit = told.get("max_upload_size") if isinstance(told, Mapping) else None
    if isinstance(limit, int) and file.size_bytes >= limit:
        raise _too_large(client, file, limit)


def _too_large(client: ComfyUIClient, file: Input, limit: int | None) -> InvalidJob:
    most = "" if limit is None else f" of at most {limit:,}"
    return InvalidJob(
        f"{file.name} has {file.size_bytes:,} bytes, and {client.http.endpoint} takes no uploads as large as that{most}",
        hint="start the ComfyUI server with a larger --max-upload-size (in MB)",
        details={"reason": "too_large", "size_bytes": file.size_bytes, "limit_bytes": limit},
    )


def _answered(client: ComfyUIClient, reply: Reply, route: str) -> Uploaded:
    try:
        answer = json.loads(reply.body)
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {"name": str(name), "subfolder": str(subfolder), "type": str(kind)} if name:
            return Uploaded(name, subfolder.replace("\\", "/"), kind)
    raise client.not_understood(f"POST {route}")
