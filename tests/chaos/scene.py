"""A run: workers and jobs on a hub, a fault that is done to them, and what the queue wrote down about it."""

import random
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from attrs import define, field, frozen
from redis import Redis as SyncRedis

from emp_core.config import Settings
from emp_core.errors import QueueUnavailable
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.events import JobEvent, decode_event, submitted_event
from emp_core.queue.keys import Keys
from emp_core.queue.queue import JobQueue
from emp_core.testing.leaks import take_snapshot
from tests.chaos.checker import Verdict, judge
from tests.chaos.fleet import Nursery, Process, nursery

NAMESPACE = "{emp}:"
_OPEN = (JobState.PENDING, JobState.SCHEDULED, JobState.ACTIVE)


@frozen
class Size:
    """How much is done in one run.

    Attributes:
        rounds: how often the fault strikes.
        job_s: how long a job takes at most.
        submit_s: over how long the jobs are submitted.
        limit_s: when the run is given up.
    """

    jobs: int
    workers: int
    rounds: int
    job_s: float
    submit_s: float
    lease_s: float
    limit_s: float


@frozen
class Hub:
    """Where the queue is.

    Attributes:
        url: how workers and submitters reach it, faults included.
        view: a plain client of the server that holds the queue now, around all faults.
        parts: what the fault may break.
    """

    url: str
    view: Callable[[], Awaitable[str]]
    parts: Any


@define(eq=False)
class Scene:
    """What a fault has in its hands while jobs are submitted and worked on."""

    hub: Hub
    size: Size
    folder: Path
    random: random.Random
    nursery: Nursery
    settings: Mapping[str, Any]
    service: str | None = None
    others: list[Nursery] = field(factory=list)
    workers: list[Process] = field(factory=list)
    returned_at: list[float] = field(factory=list)
    ended: set[tuple[str, int]] = field(factory=set)
    deadlines: bool = False
    killed: int = 0

    def start_worker(self, nursery: Nursery | None = None) -> Process:
        """One more."""
        number = len(self.workers) + self.killed + 1
        made = (nursery or self.nursery).start(
            f"w{number}",
            self.folder / f"w{number}.log",
            url=self.hub.url,
            folder=str(self.folder),
            service=self.service,
            settings=dict(self.settings),
            slots=8,
        )
        self.workers.append(made)
        return made

    def kill_worker(self) -> None:
        """kill -9 of any of them; another one comes in its place."""
        gone = self.workers.pop(self.random.randrange(len(self.workers)))
        self.killed += 1
        gone.signal(signal.SIGKILL)
        self.start_worker()

    async def returned(self) -> None:
        """Take note that Redis can be reached again, by its own clock."""
        with SyncRedis.from_url(await self.hub.view(), protocol=2) as client:
            seconds, micros = client.time()
        self.returned_at.append(seconds + micros / 1e6)

    async def note_ended_leases(self, workers: set[str]) -> None:
        """Take note of the attempts of these workers whose lease is over: no outcome of theirs may count.

        A job that its worker has not heard of has no attempt yet: its number comes again.
        """
        keys = Keys(NAMESPACE)
        with SyncRedis.from_url(await self.hub.view(), protocol=2, decode_responses=True) as client:
            seconds, _ = client.time()
            ids = client.zrangebyscore(keys.index("active"), "-inf", seconds * 1_000_000)
            unheard = {str(entry).partition(" ")[0] for entry in client.zrange(keys.fixed("handed"), 0, -1)}
            for job_id in map(str, ids):
                if job_id in unheard:
                    continue
                worker, attempt = client.hmget(keys.job(job_id), "worker_id", "attempt")
                if str(worker).partition("@")[0] in workers:
                    self.ended.add((job_id, int(attempt or 0)))


@frozen
class Fault:
    """Something that goes wrong.

    Attributes:
        hub: opens what the queue runs on, in a folder.
        strike: does it, ``size.rounds`` times, and makes it good again.
        around: what else there has to be while the scene lasts; may change it before workers start.
        settings: settings of the queue and of workers, beyond those of every run.
        back_within_s: every worker has to be at work again so soon after `Scene.returned`.
    """

    name: str
    hub: Callable[[Path], AbstractAsyncContextManager[Hub]]
    strike: Callable[[Scene], Coroutine[Any, Any, None]]
    around: Callable[[Scene], AbstractAsyncContextManager[None]] | None = None
    settings: Mapping[str, Any] = field(factory=dict)
    back_within_s: float | None = None


@frozen
class Report:
    """What a run showed. ``back_s``: how long the slowest worker took to claim again after Redis was back."""

    name: str
    verdict: Verdict
    back_s: float | None
    took_s: float
    problems: tuple[str, ...] = field(repr=False)


async def run(fault: Fault, size: Size, folder: Path, *, seed: int) -> Report:
    """Do it."""
    began = anyio.current_time()
    settings = {"lease_s": size.lease_s, "max_attempts": 30, "max_crashes": 30, "poll_s": 2.0, **fault.settings}
    with nursery() as forked, anyio.fail_after(size.limit_s + 30):
        async with fault.hub(folder) as hub:
            scene = Scene(hub, size, folder, random.Random(seed), forked, settings)
            async with _around(fault, scene):
                acknowledged = await _played(fault, scene)
                ended = [one.name for one in scene.workers if not one.is_alive]
                histories, verdict = await _judged(scene, acknowledged)
    back_s = _back_s(scene, histories)
    problems = list(verdict.problems)
    problems += _late(scene, histories)
    # Attempts last for any fault here: a job that fails was failed by mistake.
    problems += [f"{count} jobs {name}" for name, count in verdict.outcomes.items() if name != "completed"]
    problems += [f"worker {name} ended: see {folder}/{name}.log" for name in ended]
    if fault.back_within_s is not None and (back_s is None or back_s > fault.back_within_s):
        problems.append(f"a worker was at work again after {back_s} s, not {fault.back_within_s} s")
    return Report(fault.name, verdict, back_s, anyio.current_time() - began, tuple(problems))


def _around(fault: Fault, scene: Scene) -> AbstractAsyncContextManager[None]:
    return nullcontext() if fault.around is None else fault.around(scene)


async def _played(fault: Fault, scene: Scene) -> list[str]:
    """Submit, strike, and wait until all is done; gives the acknowledged jobs."""
    acknowledged: list[str] = []
    queue_settings = Settings(
        machine_id="chaos", redis_url=scene.hub.url, namespace=NAMESPACE, data_dir=scene.folder, **scene.settings
    )
    while len(scene.workers) < scene.size.workers:
        scene.start_worker()
    async with JobQueue.connect(settings=queue_settings) as queue:
        with anyio.fail_after(20):
            while len(await queue.workers()) < scene.size.workers:  # noqa: ASYNC110 - workers come without a word
                await anyio.sleep(0.05)
        with anyio.move_on_after(scene.size.limit_s):  # what is not done then is stuck, and judged so
            async with anyio.create_task_group() as group:
                group.start_soon(_submit, queue, scene, acknowledged)
                group.start_soon(fault.strike, scene)
            if scene.returned_at:
                await _keep_busy(queue, scene, acknowledged)
            await _until_done(queue)
    return acknowledged


async def _keep_busy(queue: JobQueue, scene: Scene, acknowledged: list[str]) -> None:
    """More jobs than there are slots, until every worker took some; who has nothing to do cannot show that it works."""
    back = scene.returned_at[-1]
    with anyio.move_on_after(8):
        while True:
            await _submit_some(queue, scene, acknowledged, 8 * scene.size.workers)
            await anyio.sleep(0.2)
            jobs = await queue.jobs(limit=500)
            took = {job.worker_id for job in jobs if job.started_at and job.started_at.timestamp() >= back}
            if took >= {f"{one.name}@m" for one in scene.workers}:
                return


async def _submit(queue: JobQueue, scene: Scene, acknowledged: list[str]) -> None:
    """Twenty at once, for which workers are woken, and twenty one by one, which may be handed to them; and again."""
    batch = 20
    pause_s = scene.size.submit_s / scene.size.jobs
    for _ in range(0, scene.size.jobs, 2 * batch):
        await _submit_some(queue, scene, acknowledged, batch)
        await anyio.sleep(pause_s * batch)
        for _ in range(batch):
            await _submit_some(queue, scene, acknowledged, 1)
            await anyio.sleep(pause_s)


async def _submit_some(queue: JobQueue, scene: Scene, acknowledged: list[str], count: int) -> None:
    first = len(acknowledged)
    specs = [_spec(scene, number) for number in range(first, first + count)]
    while True:
        try:
            # With ids of our own: submitting them again is harmless.
            acknowledged += [job.id for job in await queue.submit_many(specs)]
        except QueueUnavailable:
            continue
        return


def _spec(scene: Scene, number: int) -> JobSpec:
    payload = {"n": number, "$echo": {"seconds": round(scene.random.random() * scene.size.job_s, 3), "steps": 1}}
    # Far enough away for every run, and near enough for a clock that is wrong to matter.
    deadline = datetime.now(UTC) + timedelta(seconds=40) if number % 2 and scene.deadlines else None
    return JobSpec("echo", payload, id=f"job{number}", customer_id=f"c{number % 3}", deadline_at=deadline)


async def _until_done(queue: JobQueue) -> None:
    while True:
        try:
            counts = await queue.counts()
        except QueueUnavailable:
            continue
        if not any(counts[state] for state in _OPEN):
            return
        await anyio.sleep(0.05)


async def _judged(scene: Scene, acknowledged: list[str]) -> tuple[dict[str, list[JobEvent]], Verdict]:
    """Around all faults and the queue's own code: whatever they do, this is what is written."""
    keys = Keys(NAMESPACE)
    with SyncRedis.from_url(await scene.hub.view(), protocol=2, decode_responses=True) as client:
        with client.pipeline(transaction=False) as pipe:
            for job_id in acknowledged:
                pipe.hmget(keys.job(job_id), "created_at", "start_at")
                pipe.lrange(keys.job_events(job_id), 0, -1)
            written = pipe.execute()
        snapshot = take_snapshot(client, NAMESPACE)
    histories = {
        job_id: [decode_event(text) for text in (submitted_event(job_id, *times), *texts)] if times[0] else []
        for job_id, times, texts in zip(acknowledged, written[::2], written[1::2], strict=True)
    }
    return histories, judge(acknowledged, histories, snapshot)


def _late(scene: Scene, histories: Mapping[str, list[JobEvent]]) -> list[str]:
    """Attempts that had an outcome although their lease was over and their worker stood still."""
    return [
        f"{job_id}: attempt {attempt} was {event.name} after its lease was over"
        for job_id, attempt in sorted(scene.ended)
        for event in histories[job_id]
        if event.name in ("completed", "failed", "retried") and event.data.get("attempt") == attempt
    ]


def _back_s(scene: Scene, histories: Mapping[str, list[JobEvent]]) -> float | None:
    """The time from the last return to the moment when every worker that lives had claimed something."""
    if not scene.returned_at:
        return None
    back = scene.returned_at[-1]
    first: dict[str, float] = {}
    for events in histories.values():
        for event in events:
            at = event.at.timestamp()
            if event.name == "claimed" and at >= back:
                worker = str(event.data["worker"]).partition("@")[0]
                first[worker] = min(at, first.get(worker, at))
    if {one.name for one in scene.workers} - first.keys():
        return None
    return round(max(first.values()) - back, 2)
