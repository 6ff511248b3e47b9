"""Whether everything in Redis belongs to somebody: every key of the queue has an expiry, or an owner that ends it.

The same rules say whether the indexes agree with each other: a job stands in the one index of its state, a line has its
turn, a lane its head.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["OWNERS", "Snapshot", "disowned", "take_snapshot"]

_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "string": lambda pipe, key: pipe.get(key),
    "hash": lambda pipe, key: pipe.hgetall(key),
    "list": lambda pipe, key: pipe.lrange(key, 0, -1),
    "set": lambda pipe, key: pipe.smembers(key),
    "zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
    "stream": lambda pipe, key: pipe.xlen(key),
}


@frozen
class Snapshot:
    """All keys of one namespace, without the namespace: their values, and which of them expire."""

    values: Mapping[str, Any]
    expiring: frozenset[str]

    def hash(self, key: str) -> Mapping[str, str]:
        """A hash; empty when it is not there."""
        return self.values.get(key) or {}

    def scores(self, key: str) -> dict[str, float]:
        """A sorted set; empty when it is not there."""
        return dict(self.values.get(key) or ())

    def jobs(self) -> dict[str, Mapping[str, str]]:
        """The hashes of all jobs, by id."""
        return {key[5:]: value for key, value in self.values.items() if _JOB.fullmatch(key) and isinstance(value, dict)}


def take_snapshot(client: "Redis", namespace: str) -> Snapshot:
    """Read all keys of a namespace. ``client`` gives text."""
    keys: list[str] = sorted(client.scan_iter(match=_literal(namespace) + "*", count=1000))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.type(key)
            pipe.pttl(key)
        facts = pipe.execute()
    kinds = dict(zip(keys, facts[::2], strict=True))
    ttls = dict(zip(keys, facts[1::2], strict=True))
    there = [key for key in keys if kinds[key] in _READERS]  # "none" went away meanwhile
    with client.pipeline(transaction=False) as pipe:
        for key in there:
            _READERS[kinds[key]](pipe, key)
        values = pipe.execute()
    cut = len(namespace)
    return Snapshot(
        {key[cut:]: value for key, value in zip(there, values, strict=True) if value is not None},
        frozenset(key[cut:] for key in there if ttls[key] >= 0),
    )


def disowned(found: Snapshot) -> list[str]:
    """What belongs to nobody or contradicts itself, in words; empty when all is well."""
    problems = []
    for key in found.values:
        if key in found.expiring:
            continue
        problems += [f"{key}: {problem}" for problem in _asked_of_owner(found, key)]
    return problems


def _asked_of_owner(found: Snapshot, key: str) -> Iterable[str]:
    for pattern, rule in OWNERS:
        if named := re.fullmatch(pattern, key):
            return rule(found, *named.groups())
    return ["has no expiry and is not known"]


_JOB = re.compile(r"jobs:(?!(?:pending|scheduled|deadlines|active|completed|failed|cancelled)$)([A-Za-z0-9_.-]+)")
_STATES = ("pending", "scheduled", "active", "completed", "failed", "cancelled")


def _job(found: Snapshot, job_id: str) -> Iterator[str]:
    """A job belongs to the index of its state: the keeper and the workers find it there."""
    status = found.hash(f"jobs:{job_id}").get("status")
    there = [state for state in _STATES if job_id in found.scores(f"jobs:{state}")]
    if there != [status]:
        yield f"is {status} and stands in {there or 'no index'}"


def _part_of_job(found: Snapshot, job_id: str) -> Iterator[str]:
    if f"jobs:{job_id}" not in found.values:
        yield "its job is gone"


def _index(found: Snapshot, state: str) -> Iterator[str]:
    for job_id in found.scores(f"jobs:{state}"):
        status = found.hash(f"jobs:{job_id}").get("status")
        if status != state:
            yield f"names {job_id}, which is {status}"
    if state == "pending":
        lines = [job_id for key in found.values if _LINE.fullmatch(key) for job_id in found.scores(key)]
        if sorted(lines) != sorted(found.scores("jobs:pending")):
            yield "does not agree with the lines"


def _deadlines(found: Snapshot) -> Iterator[str]:
    for job_id in found.scores("jobs:deadlines"):
        if found.hash(f"jobs:{job_id}").get("status") not in ("pending", "scheduled", "active"):
            yield f"names {job_id}, which has no deadline to meet"


_LINE = re.compile(r"lane:([^:]+):line:(.*)", re.DOTALL)


def _lane(found: Snapshot, lane: str) -> Iterator[str]:
    """Turns belong to lines; the first of them is the lane's head."""
    turns = found.scores(f"lane:{lane}")
    for customer, turn in turns.items():
        line = found.scores(f"lane:{lane}:line:{customer}")
        if not line:
            yield f"{customer!r} has a turn and no line"
        elif turn < min(line.values()):
            yield f"{customer!r} has a turn before its best job"
        if lane in found.hash(f"parked:{customer}"):
            yield f"{customer!r} has a turn and is parked"
    head = found.scores("lanes:heads").get(lane)
    if head != min(turns.values()):
        yield f"its head is {head}, its first turn {min(turns.values())}"


def _line(found: Snapshot, lane: str, customer: str) -> Iterator[str]:
    parked = lane in found.hash(f"parked:{customer}")
    if customer not in found.scores(f"lane:{lane}") and not parked:
        yield "has no turn"
    if lane not in found.hash("lanes"):
        yield "its lane is not known"
    for job_id, arrival in found.scores(f"lane:{lane}:line:{customer}").items():
        job = found.hash(f"jobs:{job_id}")
        if float(job.get("arrival", "nan")) != arrival:
            yield f"{job_id} stands at {arrival:.0f}, not at its arrival {job.get('arrival')}"
        if (job.get("lane") or job.get("service_required"), job.get("customer_id", "")) != (lane, customer):
            yield f"{job_id} stands in another one's line"


def _lane_workers(found: Snapshot, lane: str) -> Iterator[str]:
    for worker in found.scores(f"lane:{lane}:workers"):
        if worker not in found.scores("workers"):
            yield f"names {worker}, which is no worker"
        if lane not in found.scores(f"worker:{worker}:lanes"):
            yield f"names {worker}, which does not name the lane"


def _workers_lanes(found: Snapshot, worker: str) -> Iterator[str]:
    """Whoever takes a worker out of the index finds here which lanes name it."""
    if worker not in found.scores("workers"):
        yield "its worker is gone"
    for lane in found.scores(f"worker:{worker}:lanes"):
        if worker not in found.scores(f"lane:{lane}:workers"):
            yield f"names {lane}, which does not name the worker"


def _lanes(found: Snapshot) -> Iterator[str]:
    """A lane has jobs, or stands among those that have none and may go."""
    busy = {m[1] for key in found.values if (m := _LINE.fullmatch(key))}
    for lane in found.hash("lanes"):
        if lane not in busy and lane not in found.scores("lanes:empty"):
            yield f"{lane} is neither used nor about to go"


def _lanes_empty(found: Snapshot) -> Iterator[str]:
    for lane in found.scores("lanes:empty"):
        if lane in found.scores("lanes:heads"):
            yield f"{lane} has jobs"


def _heads(found: Snapshot) -> Iterator[str]:
    for lane in found.scores("lanes:heads"):
        if f"lane:{lane}" not in found.values:
            yield f"{lane} has no turns"


def _customers_active(found: Snapshot) -> Iterator[str]:
    running: dict[str, int] = {}
    for job_id in found.scores("jobs:active"):
        if customer := found.hash(f"jobs:{job_id}").get("customer_id"):
            running[customer] = running.get(customer, 0) + 1
    counted = {customer: int(count) for customer, count in found.hash("customers:active").items()}
    if counted != running:
        yield f"counts {counted}, active are {running}"


def _customers_waiting(found: Snapshot) -> Iterator[str]:
    turns: dict[str, int] = {}
    for key in found.values:
        if re.fullmatch(r"lane:[^:]+", key):
            for customer in found.scores(key):
                turns[customer] = turns.get(customer, 0) + 1
    counted = {customer: int(count) for customer, count in found.hash("customers:waiting").items()}
    if counted != turns:
        yield f"counts {counted}, turns are {turns}"


def _parked(found: Snapshot, customer: str) -> Iterator[str]:
    """Whichever job of the customer leaves active gives the turns back."""
    if int(found.hash("customers:active").get(customer, 0)) < 1:
        yield "nothing of this customer runs, so nothing will bring its turns back"
    for lane in found.hash(f"parked:{customer}"):
        if f"lane:{lane}:line:{customer}" not in found.values:
            yield f"has a turn in {lane} and no line"
        if customer not in found.values.get(f"lane:{lane}:parked", ()):
            yield f"has a turn in {lane}, which does not name the customer"


def _lane_parked(found: Snapshot, lane: str) -> Iterator[str]:
    for customer in found.values[f"lane:{lane}:parked"]:
        if lane not in found.hash(f"parked:{customer}"):
            yield f"names {customer!r}, which has no turn set aside in the lane"


def _of_workers(found: Snapshot, which: str) -> Iterator[str]:
    for worker in found.scores(f"workers:{which}"):
        if worker not in found.scores("workers"):
            yield f"names {worker}, which is no worker"


def _capped(_found: Snapshot) -> Iterator[str]:
    """The scripts keep it short; or it is one key for the whole installation."""
    return iter(())


def _expires(_found: Snapshot, *_: str) -> Iterator[str]:
    yield "has no expiry"


OWNERS: tuple[tuple[str, Callable[..., Iterator[str]]], ...] = (
    (r"jobs:(pending|scheduled|active|completed|failed|cancelled)", _index),
    (r"jobs:deadlines", _deadlines),
    (_JOB.pattern, _job),
    (r"jobs:([^:]+):(?:payload|events)", _part_of_job),
    (r"events", _capped),
    (r"idem:.*", _expires),
    (r"lanes", _lanes),
    (r"lanes:version", _capped),
    (r"lanes:empty", _lanes_empty),
    (r"lanes:heads", _heads),
    (r"lane:([^:]+)", _lane),
    (r"lane:([^:]+):workers", _lane_workers),
    (r"lane:([^:]+):parked", _lane_parked),
    (r"(?s:lane:([^:]+):line:(.*))", _line),
    (r"customers:active", _customers_active),
    (r"customers:waiting", _customers_waiting),
    (r"(?s:parked:(.*))", _parked),
    (r"workers", _capped),
    (r"workers:(idle|woken)", _of_workers),
    (r"workers:handed", _capped),
    (r"(?s:worker:(.*):lanes)", _workers_lanes),
    (r"(?s:worker:.*:(?:heartbeat|capabilities|claim|inbox))", _expires),
    (r"keeper", _expires),
    (r"machines|machine:.*:status", _expires),
)
"""Patterns of keys → what is wrong with such a key when it has no expiry; nothing when its owner is there."""


def _literal(text: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
