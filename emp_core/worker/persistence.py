"""Going on while Redis is away: the worker's loops try again, for as long as it takes."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from emp_core.log.logger import get_logger
from emp_core.queue.connection import AWAY

__all__ = ["until_done"]

T = TypeVar("T")

log = get_logger("emp.redis")


async def until_done(what: str, call: Callable[[], Awaitable[T]]) -> T:
    """Call until Redis is there to answer. Only for what may be called twice."""
    delay_s = 0.05
    while True:
        try:
            return await call()
        except AWAY as error:
            log.warning("redis is away", doing=what, error=str(error), again_in_s=round(delay_s, 2))
        await anyio.sleep(delay_s)
        delay_s = min(1.0, delay_s * 2)
