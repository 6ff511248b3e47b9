"""Running a coroutine so that Ctrl-C ends it for certain."""

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import anyio

__all__ = ["run_async"]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def run_async(function: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments) -> T:
    """Run ``function``; Ctrl-C cancels it, and a second one leaves at once.

    asyncio's own answer to Ctrl-C cancels the main task once. Where the cancellation meets a timeout that ends in the same
    step, asyncio takes it for the timeout's and it is lost. A cancel scope delivers it until it has its effect.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell asks of what it runs in the background
        return anyio.run(_plainly, function, arguments)
    done = anyio.run(_interruptible, function, arguments)
    if not done:
        raise KeyboardInterrupt
    return done[0]


async def _plainly(function: Callable[..., Awaitable[T]], arguments: tuple[object, ...]) -> T:
    return await function(*arguments)


async def _interruptible(function: Callable[..., Awaitable[T]], arguments: tuple[object, ...]) -> list[T]:
    """The result in a list; an empty one after an interruption."""
    done: list[T] = []
    scope = anyio.CancelScope()

    async def heed() -> None:
        async for _ in received:
            if scope.cancel_called:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.raise_signal(signal.SIGINT)
            scope.cancel()

    with anyio.open_signal_receiver(signal.SIGINT) as received:
        async with anyio.create_task_group() as group:
            group.start_soon(heed, name="emp interruption")
            with scope:
                done.append(await function(*arguments))
            group.cancel_scope.cancel()
    return done
