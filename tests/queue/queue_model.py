"""What the queue should do, as plain Python: no Redis, no scripts, no clock."""

from collections import Counter
from collections.abc import Iterable

from attrs import define, field

CAP = 2
MAX_CRASHES = 2
Place = tuple[str, str]
"""A lane and a customer; "" is nobody."""
Lease = tuple[str, str]
"""A job and a token."""


@define
class ModelJob:
    """A job, and what the queue told of it when it was submitted."""

    id: str
    lane: str
    customer: str
    arrival: int
    came: int
    status: str
    max_attempts: int
    has_deadline: bool = False
    attempt: int = 0
    crashes: int = 0
    token: str = ""
    worker: str = ""
    cancel: bool = False
    lease_ended: bool = False
    late: bool = False
    due: bool = False
    revived: int = 0

    @property
    def is_final(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")

    @property
    def head_start(self) -> int:
        return max(0, self.came - self.arrival)


@define
class ModelWorker:
    """A worker, and what it said when it claimed last.

    Attributes:
        room: how many jobs may be handed to it while it is idle.
        unheard: jobs that were handed to it, in order, until a claim knows of them, or nobody waits for its word any more.
        heard: the last job of which it heard.
    """

    name: str
    lanes: frozenset[str]
    token: str = ""
    room: int = 0
    unheard: list[str] = field(factory=list)
    heard: str = ""


@define
class QueueModel:
    """Jobs, lines and turns.

    Attributes:
        handed: jobs that were handed over and not acknowledged, by id, with the token of each; whether the time for it is over.
    """

    jobs: dict[str, ModelJob] = field(factory=dict)
    turns: dict[Place, int] = field(factory=dict)
    parked: dict[Place, int] = field(factory=dict)
    workers: dict[str, ModelWorker] = field(factory=dict)
    handed: dict[Lease, bool] = field(factory=dict)

    # -- what is the case ----------------------------------------------------------------------------------------

    def line(self, place: Place) -> list[ModelJob]:
        """The jobs that wait there, the next one first."""
        waiting = (job for job in self.jobs.values() if (job.lane, job.customer) == place and job.status == "pending")
        return sorted(waiting, key=lambda job: (job.arrival, job.id))

    def lines(self) -> dict[Place, list[str]]:
        """All lines that are not empty."""
        places = {(job.lane, job.customer) for job in self.jobs.values()}
        return {place: [job.id for job in line] for place in places if (line := self.line(place))}

    def active(self) -> Counter[str]:
        """Running jobs by customer."""
        return Counter(job.customer for job in self.jobs.values() if job.status == "active")

    def in_state(self, *states: str) -> list[ModelJob]:
        """Jobs in one of these states, in the order in which they were submitted."""
        return [job for job in self.jobs.values() if job.status in states]

    # -- what happens --------------------------------------------------------------------------------------------

    def add(self, job: ModelJob) -> None:
        """A job was submitted."""
        self.jobs[job.id] = job
        if job.status == "pending":
            self._enter(job)

    def taker(self, lane: str, customer: str, idle: Iterable[str]) -> ModelWorker | None:
        """The worker that a new job is handed to, given those that are idle, the first one first; None: it has to wait."""
        able = [self.workers[name] for name in idle if lane in self.workers[name].lanes]
        worker = next((one for one in able if not (one.unheard and self.is_coming(one.unheard[-1]))), None)
        if worker is None or not worker.room or any(other in worker.lanes for other, _ in self.turns):
            return None
        return None if customer and self.active()[customer] >= CAP else worker

    def hand_over(self, job: ModelJob, worker: ModelWorker) -> Lease:
        """A new job begins with a worker that did not claim it; gives its lease."""
        self.jobs[job.id] = job
        worker.room -= 1
        job.status, job.token, job.attempt, job.worker = "active", f"{worker.token}.handed", 1, worker.name
        worker.unheard.append(job.id)
        self.handed[job.id, job.token] = False
        return job.id, job.token

    def slots(self, worker: ModelWorker, slots: int, heard: str) -> int:
        """How many jobs it may have at most, when it claims with so many free slots and says which job it heard of last."""
        return max(0, slots - len(self._unheard(worker, heard)))

    def claims(self, worker: ModelWorker, token: str, heard: str, room: int) -> None:
        """It claimed, told that, and has room for so many more."""
        worker.unheard = [job_id for job_id in self._unheard(worker, heard) if self.is_coming(job_id)]
        worker.token, worker.room = token, 0 if worker.unheard else room

    def _unheard(self, worker: ModelWorker, heard: str) -> list[str]:
        begins = worker.unheard.index(heard) + 1 if heard in worker.unheard else 0
        return worker.unheard[begins:]

    def is_coming(self, job_id: str) -> bool:
        """Whether a job was handed over, and its worker has not said that it has it."""
        return any(job_id == coming for coming, _ in self.handed)

    def acknowledge(self, lease: Lease) -> bool:
        """A worker says that it has a job; gives whether that came in time."""
        return self.handed.pop(lease, None) is not None

    def claim(self, worker: ModelWorker, limit: int, now: int, token: str) -> list[str]:
        """Jobs for a worker: the customer whose turn it is, in the lane whose turn is first."""
        served, taken = worker.lanes, 0
        ids: list[str] = []
        while taken < limit:
            mine = [(turn, lane, customer) for (lane, customer), turn in self.turns.items() if lane in served]
            if not mine:
                break
            _, lane, customer = min(mine)
            place = (lane, customer)
            if customer and self.active()[customer] >= CAP:
                self.parked[place] = self.turns.pop(place)
                continue
            alone = len({waiting for _, waiting in self.turns}) <= 1
            job, *rest = self.line(place)
            taken += 1
            ids.append(job.id)
            job.status, job.token, job.attempt = "active", token, job.attempt + 1
            job.worker, job.lease_ended = worker.name, False
            if not rest:
                del self.turns[place]
            elif alone:
                self.turns[place] = rest[0].arrival
            else:
                self.turns[place] = now + taken - rest[0].head_start
        return ids

    def finish(self, job: ModelJob, token: str, decision: str, *, delayed: bool, lane: str | None) -> tuple[int, str]:
        """An outcome was sent; gives the answer that it should get."""
        if job.token != token or (job.status == "active" and job.lease_ended):
            return -1, job.status
        if job.status != "active":
            return 0, job.status
        if lane is not None:
            job.lane = lane
        if job.cancel and decision in ("retry", "release"):
            decision = "cancelled"
        if decision == "release":
            job.attempt -= 1
        self._leave_active(job)
        if decision in ("retry", "release"):
            self._put_back(job, delayed=delayed)
        else:
            job.status = decision
        return 1, job.status

    def cancel(self, job: ModelJob) -> None:
        """Somebody wants it stopped."""
        match job.status:
            case "pending":
                self._leave(job, "cancelled")
            case "scheduled":
                job.status = "cancelled"
            case "active":
                job.cancel = True

    def sweep(self) -> None:
        """What is due happens."""
        for lease in [lease for lease, is_over in self.handed.items() if is_over]:
            self._take_back(lease)
        for job in self.in_state("active"):
            if job.lease_ended:
                self._rescue(job)
        for job in self.in_state("scheduled"):
            if job.due:
                self._put_back(job, delayed=False)
        for job in self.in_state("pending", "scheduled"):
            if job.late:
                if job.status == "pending":
                    self._leave(job, "failed")
                else:
                    job.status = "failed"

    def revive(self, job: ModelJob, lane: str, early: int) -> None:
        """A failed or cancelled job was given a new run, so long before it should have begun."""
        job.came, job.arrival = job.came - early, job.arrival - early
        job.lane = lane
        job.attempt = job.crashes = 0
        job.token, job.cancel, job.has_deadline, job.late, job.lease_ended = "", False, False, False, False
        job.worker = ""
        job.revived += 1
        self._put_back(job, delayed=False)

    def retire(self, worker: ModelWorker) -> None:
        """A worker ended. It did not hear what it was told last."""
        worker.token, worker.room, worker.unheard, worker.heard = "", 0, [], ""
        for lease in [lease for lease in self.handed if self.jobs[lease[0]].worker == worker.name]:
            self._take_back(lease)

    def prioritize(self, job: ModelJob, arrival: int) -> None:
        """Its priority, and so its arrival, was changed."""
        place = (job.lane, job.customer)
        queue = self.parked if place in self.parked else self.turns
        if job.status != "pending" or arrival == job.arrival:
            job.arrival = arrival
            return
        first = self.line(place)[0]
        later = queue[place] - first.arrival
        joined = queue[place] + first.head_start
        job.arrival = arrival
        best = self.line(place)[0]
        queue[place] = max(best.arrival, joined - best.head_start) if later > 0 else best.arrival

    # -- how -----------------------------------------------------------------------------------------------------

    def _enter(self, job: ModelJob) -> None:
        place = (job.lane, job.customer)
        queue = self.parked if place in self.parked else self.turns
        queue[place] = min(queue.get(place, job.arrival), job.arrival)

    def _leave(self, job: ModelJob, status: str) -> None:
        place = (job.lane, job.customer)
        job.status = status
        line = self.line(place)
        for turns in (self.turns, self.parked):
            if place in turns and not line:
                del turns[place]
            elif place in turns:
                turns[place] = max(turns[place], line[0].arrival)

    def _leave_active(self, job: ModelJob) -> None:
        job.status = "left"
        for place in [place for place in self.parked if place[1] == job.customer]:
            turn = self.parked.pop(place)
            self.turns[place] = min(self.turns.get(place, turn), turn)

    def _put_back(self, job: ModelJob, *, delayed: bool) -> None:
        job.due = False
        job.lease_ended = False
        job.status = "scheduled" if delayed else "pending"
        if not delayed:
            self._enter(job)

    def _take_back(self, lease: Lease) -> None:
        del self.handed[lease]
        job = self.jobs[lease[0]]
        if job.status != "active" or job.token != lease[1]:
            return
        job.token, job.attempt = "", 0
        self._leave_active(job)
        if job.cancel:
            job.status = "cancelled"
        else:
            self._put_back(job, delayed=False)

    def _rescue(self, job: ModelJob) -> None:
        job.crashes += 1
        job.token = ""
        self._leave_active(job)
        if job.cancel:
            job.status = "cancelled"
        elif job.crashes >= MAX_CRASHES or job.attempt >= job.max_attempts:
            job.status = "failed"
        else:
            self._put_back(job, delayed=False)
