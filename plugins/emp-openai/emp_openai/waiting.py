"""Waiting for an answer to begin: for as long as that takes, as long as its server is there."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from emp_core.errors import ConnectionLost

__all__ = ["not_stopped_before", "while_it_lives"]

T = TypeVar("T")

_LOOK_EVERY_S = 10.0
_GONE_AFTER_S = 60.0
_GRACE_S = 0.5


async def while_it_lives(work: Callable[[], Awaitable[T]], trouble: Callable[[], str | None], endpoint: str) -> T:
    """Do something that may take very long without a sign; give it up when the server has answered nothing at all for a minute.

    A request that waits for its turn gets no byte, not even headers, so that no time limit tells it from one that is lost.

    Args:
        trouble: says why nobody there answers questions; None: somebody does.

    Raises:
        ConnectionLost: nobody did; and what ``work`` raises.
    """
    gone: str | None = None

    async def watch(scope: anyio.CancelScope) -> None:
        nonlocal gone
        silent_s = 0.0
        while silent_s < _GONE_AFTER_S:
            await anyio.sleep(_LOOK_EVERY_S)
            gone = trouble()
            silent_s = 0.0 if gone is None else silent_s + _LOOK_EVERY_S
        scope.cancel()

    done: list[T] = []
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        try:
            done.append(await work())
        except Exception as error:  # raised again below, as itself and not as a group
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not done:
        raise ConnectionLost(
            f"{endpoint} answered nothing any more while a job waited there: {gone}", details={"endpoint": endpoint}
        )
    return done[0]


async def not_stopped_before(begun: anyio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Do something that cannot be stopped well before it has begun; if it is stopped, half a second later at the latest.

    What the server has just made, and we have no name of yet, would go on there, and nobody could stop it.

    Args:
        begun: set by ``work`` once it can be stopped.

    Raises: what ``work`` raises.
    """
    scope = anyio.CancelScope(shield=True)
    over = anyio.Event()
    failures: list[Exception] = []

    async def run() -> None:
        try:
            with scope:
                await work()
        except Exception as error:  # raised again below, as itself and not as a group
            failures.append(error)
        finally:
            over.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        try:
            await over.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(_GRACE_S):
                await begun.wait()
            scope.cancel()
            raise
    for failure in failures:
        raise failure
