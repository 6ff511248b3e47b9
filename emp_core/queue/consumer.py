"""`Consumer`: the worker's side of the queue. Every call is one try; whoever calls decides what is tried again."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, frozen

from emp_core.config import Settings
from emp_core.errors import InputUnavailable
from emp_core.inputs.artifacts import JobFacts
from emp_core.jobs.codec import decode_job, dumps, loads
from emp_core.jobs.model import Job
from emp_core.queue.connection import AWAY, Limits
from emp_core.queue.keys import Keys
from emp_core.queue.scripts import load_script
from emp_core.queue.sending import PackedHead, packed

__all__ = ["Claim", "ClaimedJob", "Consumer", "Finish", "HandedJob", "Lease", "Renewal"]

_PATIENCE_S = 1.0
"""How long a call that is cancelled on its way may take to come back: what it did would be lost with its reply."""


@frozen
class ClaimedJob:
    """A job, and the token of the lease under which it may be worked on."""

    job: Job
    token: str


@define  # as `Job` is, and for the same reason
class HandedJob:
    """A job that was given to this worker without being claimed, as it came: `Consumer.claimed` reads it.

    Attributes:
        acknowledgement: the command that says that this worker has it. Its reply is 1, or 0 when that came too late.
        until_s: by Redis's clock, in seconds since 1970: when it is taken back unless that was said.
        fields: names and values of the job's hash in turn.
        payload: its JSON.
        room: how many more jobs may be handed to this worker before it claims again.
    """

    job_id: str
    token: str
    acknowledgement: bytes
    until_s: float
    fields: Sequence[str]
    payload: str
    room: int


@frozen
class Claim:
    """What a claim gave.

    Attributes:
        registered: False when Redis does not know this worker: register, then claim again.
        lanes_version: counts the lanes that there ever were.
        come_back_s: when a job that was left to another worker may be taken after all; None if there is none.
        left: jobs that still wait, in whatever lane.
    """

    registered: bool
    jobs: tuple[ClaimedJob, ...]
    lanes_version: int
    come_back_s: float | None
    left: int


@frozen
class Lease:
    """A lease to be renewed, with what changed since the last time.

    Attributes:
        text: what the job put out since then.
        text_at: how many bytes of UTF-8 it had put out before.
    """

    job_id: str
    token: str
    progress: float | None = None
    message: str = ""
    service_job_id: str = ""
    text: str = ""
    text_at: int = 0


@frozen
class Renewal:
    """What a heartbeat gave.

    Attributes:
        lost: jobs whose lease is not ours any more.
        cancelled: jobs that somebody wants stopped.
        redis_s: Redis's clock, in seconds since 1970.
        keeper_missing: whether nobody keeps house.
    """

    registered: bool
    redis_s: float
    lanes_version: int
    keeper_missing: bool
    lost: frozenset[str]
    cancelled: frozenset[str]


@define  # as `Job` is, and for the same reason
class Finish:
    """An outcome to be recorded.

    Attributes:
        decision: ``completed``, ``failed``, ``cancelled``, ``retry`` or ``release``.
        lane, requirement: where the job waits from now on, when that changes.
        record: JSON members for the event, beginning with a comma, or nothing.
        checkpoint: the service's id of the run, which the next attempt may adopt; it may not have been sent before.
    """

    job_id: str
    token: str
    decision: str
    delay_s: float = 0.0
    result: str = ""
    error: str = ""
    usage: str = ""
    lane: str = ""
    requirement: str = ""
    record: str = ""
    checkpoint: str = ""


class Consumer:
    """One worker's calls to the queue.

    Args:
        client: a redis-py client; a call that fails because Redis is away raises what it raises.
        worker_id: ``WORKER_ID@MACHINE_ID``.
        session: tells this process from another one under the same name.
    """

    def __init__(self, client: Any, settings: Settings, *, worker_id: str, session: str) -> None:
        self.client = client
        self.keys = Keys(settings.namespace)
        self.worker_id = worker_id
        self.session = session
        self._settings = settings
        self._me = {"worker": worker_id, "session": session}
        self._limits = Limits.of(settings.lease_s)
        self._lease_us = round(settings.lease_s * 1e6)
        claiming = {
            "events_max": settings.events_max,
            **self._me,
            "lease_us": self._lease_us,
            "customer_cap": settings.customer_cap,
            "allow": json.dumps(settings.customers_allow) if settings.customers_allow else "",
            "deny": json.dumps(settings.customers_deny) if settings.customers_deny else "",
        }
        self._acknowledge = PackedHead("ZREM", self.keys.fixed("handed"))
        self._claim = load_script("claim").bound(self.keys, claiming)
        self._finish = load_script("finish").bound(self.keys, {"events_max": settings.events_max})

    async def _run(
        self, script: str, arguments: Mapping[str, Any], rest: Sequence[Any] = (), *, patience_s: float = _PATIENCE_S
    ) -> Any:
        return await load_script(script).bound(self.keys)(self.client, arguments, rest, patience_s=patience_s)

    async def set_lanes(
        self, changed: Mapping[str, float | None], facts: Sequence[str], *, reset: bool
    ) -> tuple[int, int, bool]:
        """Tell what the worker offers, and which lanes it serves with which penalty in ms (None: not any more).

        Args:
            facts: the capabilities' hash, names and values in turn; empty when nothing changed.
            reset: register anew, forgetting what was told before.

        Returns:
            The script's code (1 done, 0 somebody else is alive under this name, -1 register first), the version of the
            lanes, and whether one of the lanes has jobs.
        """
        rest: list[Any] = list(facts)
        for lane, penalty_ms in changed.items():
            rest += (lane, "" if penalty_ms is None else round(penalty_ms))
        arguments = {
            **self._me,
            "lease_us": self._lease_us,
            "reset": int(reset),
            "facts": len(facts) // 2,
            "lanes_count": len(changed),
        }
        code, _, version, work = await self._run("lanes_set", arguments, rest)
        return int(code), int(version), bool(work)

    async def lanes(self, names: Sequence[str] | None = None) -> tuple[int, dict[str, str]]:
        """The version of the lanes and their requirements as JSON: of some, or of all."""
        async with self.client.pipeline(transaction=False) as pipe:
            pipe.get(self.keys.fixed("lanes_version"))
            if names is None:
                pipe.hgetall(self.keys.fixed("lanes"))
            else:
                pipe.hmget(self.keys.fixed("lanes"), names)
            version, found = await pipe.execute()
        if names is not None:
            found = {name: text for name, text in zip(names, found, strict=True) if text is not None}
        return int(version or 0), found

    async def claim(
        self, token: str, groups: Sequence[tuple[int, Sequence[str]]], machine_id: str, *, handed: str | None = None
    ) -> Claim:
        """Take jobs.

        Args:
            token: new for every claim; the same one again gives the same jobs.
            groups: free slots, and the services that jobs may require to use them.
            handed: the last job that was handed to this worker, or nothing; None: no jobs may be handed to it.
        """
        rest: list[Any] = []
        for free, services in groups:
            rest += (free, len(services), *services)
        # As long as any reply may take: jobs that were claimed and that nobody knows of would wait for their leases to end.
        terms = "" if handed is None else f"{self._lease_us} {self._settings.customer_cap} {machine_id}"
        arguments = {
            "machine": machine_id,
            "token": token,
            "terms": terms,
            "handed": handed or "",
            "groups": len(groups),
        }
        reply = await self._claim(self.client, arguments, rest, patience_s=self._limits.reply_s)
        code, version, come_back_us, left, given, now = reply
        begun = {"status": "active", "worker_id": self.worker_id, "machine_id": machine_id, "started_at": now}
        return Claim(
            registered=code == 1,
            jobs=tuple(
                # What the call wrote does not come back with it.
                self._claimed(token, job_id, _pairs(flat) | ({**begun, "attempt": attempt} if attempt else {}), payload)
                for job_id, flat, payload, attempt in given
            ),
            lanes_version=int(version),
            come_back_s=None if come_back_us < 0 else come_back_us / 1e6,
            left=left,
        )

    def handed(self, text: str) -> HandedJob:
        """A job out of a message. What is wrong with it shows when it is read."""
        job_id, token, until_us, payload, fields, room = loads(text)
        acknowledgement = self._acknowledge.packed(f"{job_id} {token}")
        return HandedJob(job_id, token, acknowledgement, int(until_us) / 1e6, fields, payload, room)

    def claimed(self, handed: HandedJob) -> ClaimedJob:
        """A job that was handed over, as one that this worker has."""
        return self._claimed(handed.token, handed.job_id, _pairs(handed.fields), handed.payload)

    def _claimed(self, token: str, job_id: str, fields: Mapping[str, str], payload: str) -> ClaimedJob:
        return ClaimedJob(decode_job(job_id, fields, payload, max_attempts=self._settings.max_attempts), token)

    async def renew(self, leases: Sequence[Lease]) -> Renewal:
        """Keep this worker and the named leases alive, and pass on progress."""
        rest: list[Any] = []
        for lease in leases:
            progress = "" if lease.progress is None else f"{lease.progress:.2f}"
            rest += (lease.job_id, lease.token, progress, lease.message, lease.service_job_id)
            rest += (lease.text, str(lease.text_at))
        arguments = {**self._me, "lease_us": self._lease_us, "count": len(leases)}
        reply = await self._run("renew", arguments, rest)
        states = list(zip(leases, reply[4:], strict=True))
        return Renewal(
            registered=int(reply[0]) == 1,
            redis_s=float(reply[1]) / 1e6,
            lanes_version=int(reply[2]),
            keeper_missing=int(reply[3]) == 1,
            lost=frozenset(lease.job_id for lease, state in states if int(state) == -1),
            cancelled=frozenset(lease.job_id for lease, state in states if int(state) == 2),
        )

    async def finish(self, outcomes: Sequence[Finish]) -> list[tuple[int, str]]:
        """Record outcomes: for each 1 (recorded), 0 (it was recorded before) or -1 (the lease is lost), and the job's state."""
        if not outcomes:
            return []
        rest: list[str] = []
        for one in outcomes:
            delay_us = str(round(one.delay_s * 1e6))
            told: tuple[str, ...] = (
                one.job_id,
                one.token,
                one.decision,
                delay_us,
                one.error,
                one.usage,
                one.lane,
                one.requirement,
                one.record,
            )
            if one.checkpoint:
                told += (one.checkpoint,)
            rest += (dumps(told), one.result)
        [text] = await self._finish.together(
            self.client,
            [({"count": len(outcomes)}, rest)],
            replicas=self._settings.wait_replicas,
            limit_ms=self._limits.copies_ms,
            patience_s=_PATIENCE_S,
        )
        reply = loads(text)
        return list(zip(reply[::2], reply[1::2], strict=True))

    async def tell_warning(self, job_id: str, message: str) -> None:
        """Write into a job's events that there was trouble which it survived."""
        note = {"id": job_id, "name": "warned", "fragment": f',"message":{dumps(message)}'}
        await self._run("note", {"events_max": self._settings.events_max, **note})

    async def job_facts(self, job_id: str) -> JobFacts | None:
        """Whose a job is and where its outputs are; None: it is not known, or not any more.

        Raises:
            InputUnavailable: Redis is away.
        """
        try:
            status, customer, result = await self.client.hmget(self.keys.job(job_id), "status", "customer_id", "result")
        except AWAY as error:
            raise InputUnavailable(
                f"the queue cannot be asked whose artifacts those of {job_id} are: {error}"
            ) from error
        if status is None:
            return None
        artifacts = loads(result).get("artifacts", ()) if result else ()
        return JobFacts(customer, [artifact["url"] for artifact in artifacts])

    async def retire(self) -> None:
        """Take this worker out of every index."""
        await self._run("retire", {"events_max": self._settings.events_max, **self._me})

    def inbox_read(self, block_s: float) -> bytes:
        """The command that reads messages for this worker, waiting up to ``block_s`` for the first; gives ``[key, messages]``
        or nothing. For a connection of its own, which it blocks.
        """
        key = self.keys.worker(self.worker_id, "inbox")
        return packed("BLMPOP", block_s, 1, key, "LEFT", "COUNT", 100)


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    one_by_one = iter(flat)
    return dict(zip(one_by_one, one_by_one))  # noqa: B905 - strict=True is read anew in every call
