"""Calling a store over the network: again after a while where that may help, and never silently."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from attrs import field, frozen
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from emp_core.jobs.retry import Backoff
from emp_core.log.logger import get_logger

__all__ = ["Patience", "persist", "said"]

T = TypeVar("T")

log = get_logger("emp.storage")


@frozen
class Patience:
    """How often a call is tried, and how long is waited in between.

    Attributes:
        sleep: waits so many seconds.
    """

    attempts: int = 6
    backoff: Backoff = field(factory=lambda: Backoff(base_s=0.2, max_s=5.0))
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep


async def persist(
    call: Callable[[], Awaitable[T]],
    *,
    patience: Patience,
    may_pass: Callable[[BaseException], bool],
    store: str,
    doing: str,
) -> T:
    """Call until it goes well. Only for what may be called twice.

    Args:
        may_pass: whether a failure may be gone after a while; others are raised at once.
        store, doing: for the log.
    """

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        again_in_s = round(state.upcoming_sleep, 2)
        log.warning("the store is asked again", store=store, doing=doing, error=said(error), again_in_s=again_in_s)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(patience.attempts),
        wait=lambda state: patience.backoff.delay_s(state.attempt_number),
        retry=retry_if_exception(may_pass),
        before_sleep=tell,
        sleep=patience.sleep,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await call()
    raise AssertionError("tenacity ends by an answer or by an error")


def said(error: BaseException | None) -> str:
    """What a library's error says, in one line of bounded length."""
    first = str(error).strip().partition("\n")[0].strip()
    return first[:300] or type(error).__name__
