"""What happens to jobs when something breaks: how long until they go on, and whether any is lost or done twice. Ours only."""

import signal
import time
from collections.abc import Awaitable, Callable, Sequence

import anyio

from bench.fleet import Fleet, all_in, echo, judge, opened, until
from bench.programs import Failure
from bench.proxy import Proxy
from bench.rounds import Figures, Size, progress
from bench.servers import Server
from emp_core.config import Settings
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue

__all__ = ["faults"]

_IN_FLIGHT = 50


def faults(size: Size) -> Figures:
    """Every fault once. One that cannot be judged is told, and its figures are missing."""
    figures: Figures = {}
    scenarios: Sequence[Callable[[Size], Awaitable[Figures]]] = (
        _worker_killed,
        _redis_killed,
        _link_silent,
        _workers_stopped,
        _worker_told_to_end,
        _thousand_at_once,
    )
    for scenario in scenarios:
        progress(scenario.__name__.strip("_").replace("_", " "))
        try:
            measured = anyio.run(scenario, size)
        except Failure as failure:
            progress(f"  failed: {failure}")
            continue
        progress("  " + ", ".join(f"{name} {value:,.4g}" for name, value in measured.items()))
        figures.update({f"fault: {name}": value for name, value in measured.items()})
    return figures


async def _worker_killed(size: Size) -> Figures:
    """kill -9 of a worker with 50 jobs; another one has room for them."""
    with Server() as server, Fleet(server.url) as dying, Fleet(server.url) as heir:
        async with opened(server) as queue:
            dying.start(1, slots=_IN_FLIGHT, WORKER_ID="dying")
            ids = await _submit_running(queue, _IN_FLIGHT, size.of(25, 20))
            heir.start(1, slots=_IN_FLIGHT, WORKER_ID="heir")
            await until("the second worker is there", lambda: _has_workers(queue, 2))
            killed = dying.signal(signal.SIGKILL)
            await _all_done(queue, ids)
            verdict = await judge(queue, ids)
    again = max(verdict.claims.get("heir@bench", [float("inf")])) - killed
    return {
        "kill -9, s until all run again": again,
        "kill -9, lost": verdict.lost,
        "kill -9, doubled": verdict.doubled,
    }


async def _redis_killed(size: Size) -> Figures:
    """kill -9 of Redis under load; it comes back two seconds later, on its append-only file."""
    count = size.of(3000, 1500)
    with Server(append_only=True) as server, Fleet(server.url) as fleet:
        names = fleet.start(3, slots=10)
        async with opened(server) as queue:
            await until("the workers are there", lambda: _has_workers(queue, 3))
            ids = [job.id for job in await queue.submit_many(echo(0.1) for _ in range(count))]
            await until("some are done", lambda: all_in(queue, JobState.COMPLETED, count // 10))
            server.kill()
            await anyio.sleep(2)
            await anyio.to_thread.run_sync(server.start)
            back = time.time()
            await _all_done(queue, ids)
            verdict = await judge(queue, ids)
            ended = fleet.ended
    return {
        "Redis killed, s until all workers work": max(verdict.first_claim(name, back) for name in names),
        "Redis killed, lost": verdict.lost,
        "Redis killed, doubled": verdict.doubled,
        "Redis killed, workers ended": ended,
    }


async def _link_silent(size: Size) -> Figures:
    """Nothing passes between workers and Redis, and nothing tells them so; longer than their leases hold."""
    silent_s = size.of(20, 8)
    with Server() as server, Proxy(server.port) as proxy, Fleet(proxy.url) as fleet:
        names = fleet.start(3, slots=10)
        async with opened(server) as queue:
            await until("the workers are there", lambda: _has_workers(queue, 3))
            ids = [job.id for job in await queue.submit_many(echo(0.1) for _ in range(1500))]
            await until("some are done", lambda: all_in(queue, JobState.COMPLETED, 150))
            proxy.go_silent()
            await anyio.sleep(silent_s)
            proxy.speak()
            back = time.time()
            await _all_done(queue, ids)
            verdict = await judge(queue, ids)
            ended = fleet.ended
    return {
        "silent link, s until all workers work": max(verdict.first_claim(name, back) for name in names),
        "silent link, lost": verdict.lost,
        "silent link, doubled": verdict.doubled,
        "silent link, workers ended": ended,
    }


async def _workers_stopped(size: Size) -> Figures:
    """Ten workers stand still for longer than their leases hold; when they go on, their jobs are done at once."""
    del size  # a lease takes as long as it does
    with Server() as server, Fleet(server.url) as zombies, Fleet(server.url) as heir:
        async with opened(server) as queue:
            zombies.start(10, slots=5)
            await until("the workers are there", lambda: _has_workers(queue, 10))
            ids = await _submit_running(queue, _IN_FLIGHT, 10.0)
            heir.start(1, slots=_IN_FLIGHT, WORKER_ID="heir")
            await until("the other worker is there", lambda: _has_workers(queue, 11))
            zombies.signal(signal.SIGSTOP)
            await anyio.sleep(Settings().lease_s)
            await until("others have the jobs", lambda: _all_held_by(queue, ids, "heir@bench"))
            zombies.signal(signal.SIGCONT)
            await _all_done(queue, ids)
            verdict = await judge(queue, ids)
            ended = zombies.ended
    return {
        "SIGSTOP, leases taken away": verdict.rescued,
        "SIGSTOP, late results accepted": verdict.late,
        "SIGSTOP, lost": verdict.lost,
        "SIGSTOP, doubled": verdict.doubled,
        "SIGSTOP, workers ended": ended,
    }


async def _worker_told_to_end(size: Size) -> Figures:
    """SIGTERM to a worker whose jobs do not end within the grace time."""
    grace_s = size.of(30, 3)
    with Server() as server, Fleet(server.url) as fleet:
        async with opened(server) as queue:
            fleet.start(1, slots=_IN_FLIGHT, EMP_GRACE_S=str(grace_s))
            ids = await _submit_running(queue, _IN_FLIGHT, 3600.0)
            told = fleet.signal(signal.SIGTERM)
            await until("all jobs wait again", lambda: all_in(queue, JobState.PENDING, _IN_FLIGHT))
            again = time.time() - told
            attempts = [(await queue.get(job_id)).attempt for job_id in ids]
    return {
        "SIGTERM, s beyond the grace time": again - grace_s,
        "SIGTERM, attempts counted": sum(attempts),
    }


async def _thousand_at_once(size: Size) -> Figures:
    """A thousand jobs at once on fifty workers, for longer than a lease holds."""
    count, seconds = 1000, size.of(40, 20)
    with Server() as server, Fleet(server.url) as fleet:
        async with opened(server) as queue:
            fleet.start(5, slots=20, workers=10)
            await until("the workers are there", lambda: _has_workers(queue, 50))
            ids = [job.id for job in await queue.submit_many(echo(seconds, steps=10) for _ in range(count))]
            await until("all run at once", lambda: all_in(queue, JobState.ACTIVE, count), limit_s=seconds)
            await _all_done(queue, ids)
            verdict = await judge(queue, ids)
            completed = (await queue.counts())[JobState.COMPLETED]
    return {"1,000 at once, completed": completed, "1,000 at once, false rescues": verdict.rescued}


async def _submit_running(queue: JobQueue, count: int, seconds: float) -> list[str]:
    ids = [job.id for job in await queue.submit_many(echo(seconds) for _ in range(count))]
    await until("all jobs run", lambda: all_in(queue, JobState.ACTIVE, count))
    return ids


async def _has_workers(queue: JobQueue, count: int) -> bool:
    ready = [worker for worker in await queue.workers() if not worker.capabilities.services["echo"].withdrawn]
    return len(ready) >= count


async def _all_held_by(queue: JobQueue, ids: Sequence[str], worker: str) -> bool:
    return all([(await queue.get(job_id, payload=False)).worker_id == worker for job_id in ids])


async def _all_done(queue: JobQueue, ids: Sequence[str]) -> None:
    async def done() -> bool:
        counts = await queue.counts()
        return sum(count for state, count in counts.items() if state.is_final) >= len(ids)

    await until("all jobs are done", done)
    await anyio.sleep(1)  # for what comes late
