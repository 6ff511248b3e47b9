"""Pictures from an answer: proven to be pictures before they count as outputs."""

import base64
import binascii

from attrs import define, field

from emp_core.connectors.context import JobContext, Preview
from emp_core.errors import InputError, JobFailed
from emp_core.inputs.files import Input
from emp_core.inputs.media_types import HEAD_BYTES, extension_of, settled_type
from emp_core.jobs.inputs import InputPlace
from emp_core.jobs.model import Artifact

__all__ = ["Attached", "picture_of", "preview_of", "save_picture"]

_FILES_BYTES = 128 * 2**20
"""What all files of a request may have together: it is made in memory, and they stand in it in base64."""


def picture_of(text: str, endpoint: str) -> tuple[bytes, str]:
    """A picture and its media type, from base64 as it stands in an answer.

    Raises:
        JobFailed: it is no picture: text of a refusal is none.
    """
    try:
        data = base64.b64decode(text.partition(";base64,")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    found = [one for one in settled_type(data[:HEAD_BYTES], said=None, told=None, name="") if one.startswith("image/")]
    if not found:
        raise JobFailed(
            f"{endpoint} answered with something that is no picture",
            details={"reason": "no_picture", "bytes": len(data)},
        )
    return data, found[0]


def preview_of(text: str, endpoint: str) -> Preview | None:
    """A picture of work in progress; None: it is no picture, which is no reason to give the work up."""
    try:
        return Preview(*picture_of(text, endpoint))
    except JobFailed:
        return None


async def save_picture(text: str, index: int, context: JobContext, endpoint: str) -> Artifact:
    """Store a picture as an output of the job. Raises JobFailed: it is none."""
    data, media_type = picture_of(text, endpoint)
    return await context.save(data, f"image-{index + 1}{extension_of(media_type)}", media_type)


@define
class Attached:
    """The job's files that one request holds."""

    _left_bytes: int = field(init=False, factory=lambda: _FILES_BYTES)

    async def read(self, file: Input) -> bytes:
        """A file's bytes. Raises InputError: it is too long, or all of them together are."""
        self._left_bytes -= file.size_bytes
        if self._left_bytes < 0:
            raise InputError(
                f"the files of a request may have {_FILES_BYTES:,} bytes together, and with {file.name} they have more",
                details={"reason": "too_large", "limit_bytes": _FILES_BYTES},
            )
        return await file.read()

    async def as_data_url(self, _: InputPlace, file: Input) -> str:
        """A file as it stands in messages: the API takes addresses, and this is one that needs no network."""
        return f"data:{file.media_type};base64,{base64.b64encode(await self.read(file)).decode()}"
