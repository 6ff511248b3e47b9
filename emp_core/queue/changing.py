"""Changing jobs from outside: cancelling them, giving them a new run, another priority; and telling workers to drain."""

from attrs import evolve

from emp_core.config import Settings
from emp_core.errors import ConfigError, IllegalTransition, JobNotFound, WorkerNotFound
from emp_core.jobs.checking import is_priority
from emp_core.jobs.model import Job
from emp_core.jobs.requirements import in_brief, is_text
from emp_core.jobs.states import JobState
from emp_core.queue.calls import Calls

__all__ = ["Changer"]

_REASON_MAX = 500


class Changer:
    """Makes the changes that `JobQueue` offers."""

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self._calls = calls
        self._settings = settings

    async def cancel(self, job_id: str, reason: str) -> None:
        """What `JobQueue.cancel` does."""
        if not is_text(reason) or len(reason) > _REASON_MAX:
            raise ConfigError(f"a reason is a text of at most {_REASON_MAX} characters: it is kept in the job's events")
        code, status = await self._run("cancel", {"id": job_id, "reason": reason})
        if code == -1:
            raise JobNotFound(f"there is no job {job_id}")
        if code == 0 and status != JobState.CANCELLED:
            raise IllegalTransition(f"job {job_id} is {status} already", details={"status": status})

    async def retry(self, job: Job) -> None:
        """What `JobQueue.retry` does."""
        # Whoever asks for a new run has mended something: workers that failed may do better now.
        fresh = evolve(job.requirement, avoid=(), not_here=())
        where = {"lane": "", "requirement": ""}
        if fresh != job.requirement:
            where = {"lane": fresh.lane, "requirement": fresh.as_json()}
        code, status = await self._run("retry", {"id": job.id, **where})
        if code in (-1, -2):
            raise JobNotFound(f"there is no job {job.id} any more")
        if code == 0:
            raise IllegalTransition(f"job {job.id} is {status}: only failed and cancelled jobs are retried")

    async def set_priority(self, job_id: str, priority: int) -> None:
        """What `JobQueue.set_priority` does."""
        if not is_priority(priority):
            raise ConfigError(f"a priority is a whole number from 0 to 100, not {priority!r}")
        step_us = round(self._settings.priority_step_s * 1e6)
        code, status = await self._run("reprioritize", {"step_us": step_us, "id": job_id, "priority": priority})
        if code == -1:
            raise JobNotFound(f"there is no job {job_id}")
        if code == 0:
            raise IllegalTransition(f"job {job_id} is {status}: only jobs that wait have a place to change")

    async def drain_worker(self, worker_id: str) -> None:
        """What `JobQueue.drain_worker` does."""
        # Nothing else is a worker's name, and it becomes a part of a key.
        known = is_text(worker_id) and await self._calls.run("drain", {"worker": worker_id})
        if not known:
            raise WorkerNotFound(
                f"no worker {in_brief(worker_id)} is alive",
                hint="`emp workers` lists them by their ids: WORKER_ID@MACHINE_ID",
            )

    async def _run(self, script: str, arguments: dict[str, str | int]) -> tuple[int, str]:
        code, status = await self._calls.run(script, {"events_max": self._settings.events_max, **arguments})
        return int(code), status
