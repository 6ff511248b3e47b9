"""What `emp doctor` checks of the queue: whether its jobs move."""

from attrs import evolve

from emp_core.cli.checks import Check, State, failed
from emp_core.config import Settings
from emp_core.errors import EmpError
from emp_core.queue.embedded import running
from emp_core.queue.health import Age, QueueHealth
from emp_core.queue.queue import JobQueue

__all__ = ["check_queue"]

_WAIT_S = 3.0


async def check_queue(settings: Settings) -> Check | None:
    """Whether jobs move; None where no Redis runs yet."""
    try:
        server = await running(settings.data_dir) if settings.redis_url is None else None
        url = server.url if server is not None else settings.redis_url
        if url is None:
            return None
        looking = evolve(settings, redis_wait_s=min(_WAIT_S, settings.redis_wait_s))
        async with JobQueue.connect(url, settings=looking, prepare=False) as queue:
            return _judge(await queue.health())
    except EmpError as error:
        return failed("queue", error)


def _judge(health: QueueHealth) -> Check:
    parts = [
        f"{health.waiting} waiting{_longest(health.oldest_waiting)}",
        f"{health.running} running{_longest(health.oldest_running)}",
        f"{health.workers} worker{'' if health.workers == 1 else 's'} alive",
    ]
    if not health.problems:
        return Check("queue", State.OK, ", ".join(parts))
    hint = "see `emp workers`, and `emp jobs explain` of the job"
    return Check("queue", State.WARN, ", ".join(parts), hint, health.problems)


def _longest(oldest: Age | None) -> str:
    return "" if oldest is None else f" (the oldest for {oldest.seconds:.0f} s)"
