"""Code of plugins, which may let a cancellation out that nobody asked for."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["contained", "is_cancelled"]

_ELSEWHERE = "it was cancelled by something that it waited for"


def is_cancelled() -> bool:
    """Whether the one who asks was cancelled by a scope around it. Else what it awaited was cancelled elsewhere."""
    return anyio.current_effective_deadline() == -math.inf


@contextmanager
def contained() -> Iterator[None]:
    """Runs code of a plugin. What it awaited may have been cancelled elsewhere, which would end this task's whole group.

    Raises:
        RuntimeError: that is what happened.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise RuntimeError(_ELSEWHERE) from error
