"""Workers worked by hand: one call to a script at a time, in the order that a test wants."""

import itertools
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, evolve

from emp_core.config import Settings
from emp_core.jobs.matching import Capabilities, ServiceOffer
from emp_core.jobs.model import Job, JobSpec
from emp_core.queue.consumer import Claim, ClaimedJob, Consumer, Finish, HandedJob
from emp_core.queue.housekeeping import Housekeeping
from emp_core.queue.queue import JobQueue
from emp_core.queue.workers import encode_capabilities

SECOND = 1_000_000


@define(eq=False)
class Hand:
    """A worker worked by hand."""

    queue: JobQueue
    consumer: Consumer
    house: Housekeeping
    name: str
    settings: Settings

    async def register(self, lanes: Mapping[str, float | None], *, reset: bool = True) -> int:
        """Say which lanes it serves, with their penalties in ms; gives the script's code."""
        offers = {"echo": ServiceOffer("EchoConnector")}
        allow, deny = self.settings.customers_allow, self.settings.customers_deny
        facts = encode_capabilities(Capabilities(self.name, "m", services=offers, allow=allow, deny=deny))
        code, _, _ = await self.consumer.set_lanes(lanes, facts, reset=reset)
        return code

    async def claim(
        self, slots: int = 1, *, services: Sequence[str] = ("echo",), token: str | None = None, groups: Any = None
    ) -> Claim:
        """Claim with so many free slots of one group, or with several groups."""
        return await self.consumer.claim(token or uuid.uuid4().hex, groups or [(slots, services)], "m")

    async def wait_for_jobs(self, slots: int = 1, *, services: Sequence[str] = ("echo",), heard: str = "") -> Claim:
        """Claim so that a job may be handed to it when there is none now.

        Args:
            heard: the last job that was handed to it, as far as it knows.
        """
        return await self.consumer.claim(uuid.uuid4().hex, [(slots, services)], "m", handed=heard)

    async def handed(self) -> list[HandedJob]:
        """The jobs that were handed to it, taken out of its inbox."""
        messages = (message.partition(" ") for message in await self.inbox())
        return [self.consumer.handed(rest) for word, _, rest in messages if word == "job"]

    async def acknowledge(self, handed: HandedJob) -> bool:
        """Say that it has the job; gives whether that came in time."""
        [reply] = await self.queue.client.calls([handed.acknowledgement])
        return bool(reply)

    async def take(self, slots: int = 1, **how: Any) -> list[ClaimedJob]:
        """The jobs that a claim gives."""
        claim = await self.claim(slots, **how)
        assert claim.registered
        return list(claim.jobs)

    async def take_one(self, **how: Any) -> ClaimedJob:
        """The one job that a claim gives."""
        [claimed] = await self.take(1, **how)
        return claimed

    async def ids(self, slots: int = 1, **how: Any) -> list[str]:
        """The ids of the jobs that a claim gives."""
        return [claimed.job.id for claimed in await self.take(slots, **how)]

    async def finish(self, claimed: ClaimedJob, decision: str = "completed", **told: Any) -> tuple[int, str]:
        """Record an outcome; gives the code and the job's state."""
        [answer] = await self.consumer.finish([Finish(claimed.job.id, claimed.token, decision, **told)])
        return answer

    async def inbox(self) -> list[str]:
        """What was told to it, taken out."""
        key = self.queue.keys.worker(self.name, "inbox")
        told: list[str] = await self.queue.client.lpop(key, 10_000) or []
        return told

    async def is_idle(self) -> bool:
        """Whether it stands among the idle ones."""
        return await self.queue.client.zscore(self.queue.keys.fixed("idle"), self.name) is not None


class Hands:
    """Makes workers."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._numbers = itertools.count(1)

    async def __call__(
        self, lanes: Mapping[str, float | None] | None = None, *, name: str | None = None, **changed: Any
    ) -> Hand:
        """A registered worker that serves these lanes, ``echo`` when not given."""
        hand = self.unregistered(name=name, **changed)
        assert await hand.register({"echo": 0.0} if lanes is None else lanes) == 1
        return hand

    def unregistered(self, *, name: str | None = None, **changed: Any) -> Hand:
        """One that the queue does not know yet."""
        settings = evolve(self._queue.settings, **changed)
        name = name or f"w{next(self._numbers)}"
        consumer = Consumer(self._queue.client, settings, worker_id=name, session=uuid.uuid4().hex)
        house = Housekeeping(self._queue.client, settings, worker_id=name)
        return Hand(self._queue, consumer, house, name, settings)


async def put(queue: JobQueue, *ids: str, **spec: Any) -> list[Job]:
    """Submit echo jobs with these ids, one after the other."""
    return [await queue.submit(JobSpec("echo", id=one, **spec)) for one in ids]


async def end_lease(queue: JobQueue, job_id: str) -> None:
    """Let the job's lease have ended a second ago, as if time had passed."""
    seconds, _ = await queue.client.time()
    await queue.client.zadd(queue.keys.index("active"), {job_id: (seconds - 1) * SECOND}, xx=True)


async def make_due(queue: JobQueue, index: str, member: str) -> None:
    """Let something that waits for a time be due."""
    await queue.client.zadd(queue.keys.fixed(index), {member: 1}, xx=True)


async def names_of_events(queue: JobQueue, job_id: str) -> list[str]:
    """What happened to a job."""
    return [event.name for event in await queue.history(job_id)]
