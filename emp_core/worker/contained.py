"""Code of plugins, which may let a cancellation out that nobody asked for."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["cancelled_elsewhere", "contained", "is_cancelled"]


def is_cancelled() -> bool:
    """Whether the one who asks was cancelled by a scope around it. Else what it awaited was cancelled elsewhere."""
    return anyio.current_effective_deadline() == -math.inf


def cancelled_elsewhere() -> RuntimeError:
    """What a cancellation is that nobody here asked for: let through, it would end the task's whole group."""
    return RuntimeError("the plugin's code was cancelled by something that it waited for")


@contextmanager
def contained() -> Iterator[None]:
    """Runs code of a plugin, of which no cancellation comes that nobody asked for.

    Raises:
        RuntimeError: what it awaited was cancelled elsewhere.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise cancelled_elsewhere() from error
