"""What one claim costs Redis, by how many jobs wait and by which lanes the worker serves; and whom one job wakes. Ours only.

No worker runs: the calls are made by hand, and Redis tells how long it took for each.
"""

import random
import statistics
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack

import anyio
from attrs import evolve, frozen

from bench.rounds import Figures, Size, progress
from bench.servers import Server
from emp_core.config import Settings
from emp_core.jobs.model import JobSpec
from emp_core.jobs.requirements import Requirements
from emp_core.queue.consumer import Consumer, Finish
from emp_core.queue.queue import JobQueue
from emp_core.queue.scripts import load_script

__all__ = ["claims", "wakes"]

_SERVICE = "noop"
_LANES = 300
_FEW, _MANY = 10, 60
"""Claims look at the first lanes by turn, and intersect with those that are served when these are none of them."""
_TURNS, _ROUNDS, _WARM_UP = 6, 30, 5
_LOGGED_US, _LOGGED_PER_CLAIM = 20, 10
"""No claim is faster; few of the commands that scripts call are slower, and are logged, too."""
_FILL = 5000
_LONG_LEASE_S = 3600.0


@frozen
class Served:
    """Which of the lanes that have jobs a worker serves, the first turn first."""

    name: str
    first: int | None = None
    last: int | None = None

    def of(self, lanes: Sequence[str]) -> Sequence[str]:
        """The lanes."""
        if self.first is not None:
            return lanes[: self.first]
        return lanes[-self.last :] if self.last is not None else lanes


_AT_HEAD = (Served(f"first {_FEW}", first=_FEW), Served(f"first {_MANY}", first=_MANY), Served("all"))
_AT_WORST = (*_AT_HEAD, Served(f"last {_FEW}", last=_FEW), Served(f"last {_MANY}", last=_MANY))


def claims(size: Size) -> Figures:
    """Redis's time of a claim of one job: medians, for one customer and for ten."""
    sizes = (100, 10_000, size.of(1_000_000, 100_000))
    measured: Figures = {}
    by_case: dict[str, list[float]] = {}
    for customers in (1, 10):
        with ExitStack() as stack:
            servers = {wanted: stack.enter_context(Server()) for wanted in sizes}
            for wanted, figures in anyio.run(_claims_of, servers, customers).items():
                for case, value in figures.items():
                    label = f"{case}, {customers} customers" if customers > 1 else case
                    measured[f"claim {label}, {wanted:,} waiting µs"] = value
                    by_case.setdefault(label, []).append(value)
                shown = ", ".join(f"{case} {value:.0f} µs" for case, value in figures.items())
                progress(f"  {wanted:,} waiting: {shown}")
    at_head = {served.name for served in _AT_HEAD}
    measured["claim head µs"] = max(max(v) for case, v in by_case.items() if case.split(",")[0] in at_head)
    measured["claim worst µs"] = max(max(values) for values in by_case.values())
    measured["claim growth"] = max(max(values) / min(values) for values in by_case.values())
    return measured


async def _claims_of(servers: Mapping[int, Server], customers: int) -> dict[int, Figures]:
    """Medians by how many jobs wait.

    Each server has its turn several times: what the machine does meanwhile hits all of them. Within a turn, so have the
    workers, in no order that Lua's collector of garbage could keep step with. A turn begins with claims that do not
    count: Redis and its caches come from other work.
    """
    rng = random.Random(1)
    async with AsyncExitStack() as stack:
        workers = {}
        for waiting, server in servers.items():
            progress(f"claims: {waiting:,} waiting jobs of {customers} customers")
            workers[waiting] = await _workers_at(server, waiting, customers, stack)
        took: dict[int, dict[str, list[float]]] = {
            waiting: {name: [] for name in workers[waiting]} for waiting in servers
        }
        for _ in range(_TURNS):
            for waiting, server in servers.items():
                names = [name for _ in range(_ROUNDS) for name in rng.sample(sorted(workers[waiting]), len(_AT_WORST))]
                figures = await _claims_us(server, [workers[waiting][name] for name in names])
                for name, us in list(zip(names, figures, strict=True))[_WARM_UP * len(_AT_WORST) :]:
                    took[waiting][name].append(us)
    return {
        waiting: {name: statistics.median(values) for name, values in by_name.items()}
        for waiting, by_name in took.items()
    }


async def _workers_at(server: Server, waiting: int, customers: int, stack: AsyncExitStack) -> dict[str, Consumer]:
    """A worker for each choice of lanes, beside so many waiting jobs."""
    settings = _settings(server)
    queue = await stack.enter_async_context(JobQueue.connect(settings=settings))
    for start in range(0, waiting, _FILL):
        await queue.submit_many(_spec(i, customers) for i in range(start, min(waiting, start + _FILL)))
    lanes: list[str] = await queue.client.zrange(queue.keys.fixed("heads"), 0, -1)
    workers = {}
    for served in _AT_WORST:
        consumer = Consumer(queue.client, settings, worker_id=f"{uuid.uuid4().hex}@bench", session="bench")
        await consumer.set_lanes(dict.fromkeys(served.of(lanes), 0.0), [], reset=True)
        workers[served.name] = consumer
    return workers


def _spec(i: int, customers: int) -> JobSpec:
    return JobSpec(
        service_required=_SERVICE,
        requirements=Requirements(models=(f"model-{i % _LANES}",)),
        # Not in step with the lanes: every customer has jobs in every lane.
        customer_id=f"customer-{i // _LANES % customers}" if customers > 1 else None,
    )


async def _claims_us(server: Server, workers: Sequence[Consumer]) -> list[float]:
    """Redis's time in µs for one claim of each. A job that was claimed is put back to its old place before the next one.

    The slow log tells it afterwards: statistics asked for in between would be what Redis has in its caches.
    """
    server.client.config_set("slowlog-log-slower-than", _LOGGED_US)
    server.client.config_set("slowlog-max-len", _LOGGED_PER_CLAIM * len(workers))
    server.client.slowlog_reset()
    for worker in workers:
        claim = await worker.claim(uuid.uuid4().hex, [(1, (_SERVICE,))], "bench")
        [claimed] = claim.jobs
        await worker.finish([Finish(claimed.job.id, claimed.token, "release")])
    logged = server.client.slowlog_get(_LOGGED_PER_CLAIM * len(workers))
    command = f"EVALSHA {load_script('claim').sha} ".encode()
    return [float(entry["duration"]) for entry in reversed(logged) if entry["command"].startswith(command)]


def _script_us(server: Server) -> float:
    stats = server.client.info("commandstats")
    return float(stats.get("cmdstat_evalsha", {}).get("usec", 0))


def _settings(server: Server) -> Settings:
    return evolve(Settings(), redis_url=server.url, lease_s=_LONG_LEASE_S)


def wakes(size: Size) -> Figures:
    """A thousand idle workers, one job of a lane that all of them serve."""
    with Server() as server:
        return anyio.run(_wakes, server, size.of(1000, 200))


async def _wakes(server: Server, count: int) -> Figures:
    settings = _settings(server)
    async with JobQueue.connect(settings=settings) as queue:
        await queue.submit(JobSpec(service_required=_SERVICE))
        consumers = [Consumer(queue.client, settings, worker_id=f"w{i}@bench", session="bench") for i in range(count)]
        _, lanes = await consumers[0].lanes()
        for consumer in consumers:
            await consumer.set_lanes(dict.fromkeys(lanes, 0.0), [], reset=True)
            await consumer.claim(uuid.uuid4().hex, [(2, (_SERVICE,))], "bench")
        inboxes = [queue.keys.worker(consumer.worker_id, "inbox") for consumer in consumers]
        for inbox in inboxes:
            server.client.delete(inbox)
        before = _script_us(server)
        await queue.submit(JobSpec(service_required=_SERVICE))
        took = _script_us(server) - before
        told = [server.client.llen(inbox) for inbox in inboxes]
        # Registered, idle and told nothing more: how many of the thousand have to do something.
        return {"woken of 1,000": float(sum(1 for messages in told if messages)), "woken: submit µs": took}
