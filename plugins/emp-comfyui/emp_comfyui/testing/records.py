"""What the fake server remembers of its clients, for tests to look at."""

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class RequestRecord:
    """A request that was answered (or let hang). ``path`` is without ``/api``; ``status`` None: there was no answer."""

    method: str
    path: str
    query: Mapping[str, str]
    status: int | None


@attrs.frozen
class PromptRecord:
    """A prompt that was taken into the queue."""

    prompt_id: str
    number: float
    client_id: str | None
    graph: Mapping[str, Any] = attrs.field(repr=False)
    extra_data: Mapping[str, Any] = attrs.field(repr=False)
    body: Mapping[str, Any] = attrs.field(repr=False)


@attrs.frozen
class InterruptRecord:
    """An interrupt: the id that was given (None: whatever runs), and whether it was passed on to what runs."""

    prompt_id: str | None
    effective: bool


@attrs.frozen
class UploadRecord:
    """An upload and the reference it was answered with."""

    name: str
    subfolder: str
    type: str
    size: int
    mask: bool
