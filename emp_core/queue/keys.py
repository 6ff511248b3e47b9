"""The names of the queue's keys and channels, with the namespace in front."""

from attrs import frozen

__all__ = ["FIXED_KEYS", "Keys"]

FIXED_KEYS = {
    "pending": "jobs:pending",
    "scheduled": "jobs:scheduled",
    "deadlines": "jobs:deadlines",
    "active": "jobs:active",
    "completed": "jobs:completed",
    "failed": "jobs:failed",
    "cancelled": "jobs:cancelled",
    "events": "events",
    "lanes": "lanes",
    "lanes_version": "lanes:version",
    "lanes_empty": "lanes:empty",
    "heads": "lanes:heads",
    "customers_active": "customers:active",
    "waiting": "customers:waiting",
    "workers": "workers",
    "idle": "workers:idle",
    "woken": "workers:woken",
    "handed": "workers:handed",
    "keeper": "keeper",
    "machines": "machines",
}
"""What the scripts call a key → its name."""


@frozen
class Keys:
    """Names of keys and channels under one namespace."""

    namespace: str = ""

    def fixed(self, name: str) -> str:
        """The key that scripts call ``name``."""
        return self.namespace + FIXED_KEYS[name]

    def index(self, state: str) -> str:
        """The index of the jobs in one state."""
        return f"{self.namespace}jobs:{state}"

    def job(self, job_id: str) -> str:
        """The job's hash."""
        return f"{self.namespace}jobs:{job_id}"

    def payload(self, job_id: str) -> str:
        """The job's payload."""
        return f"{self.namespace}jobs:{job_id}:payload"

    def job_events(self, job_id: str) -> str:
        """The list of what happened to the job."""
        return f"{self.namespace}jobs:{job_id}:events"

    def job_text(self, job_id: str) -> str:
        """What the job has put out so far, while it runs."""
        return f"{self.namespace}jobs:{job_id}:text"

    def worker(self, worker_id: str, part: str) -> str:
        """One of a worker's keys: ``heartbeat``, ``capabilities``, ``lanes``, ``claim``, ``inbox``."""
        return f"{self.namespace}worker:{worker_id}:{part}"

    def machine(self, machine_id: str, part: str) -> str:
        """One of a machine's keys: ``status``."""
        return f"{self.namespace}machine:{machine_id}:{part}"

    def lane_workers(self, lane: str) -> str:
        """The workers that serve a lane."""
        return f"{self.namespace}lane:{lane}:workers"

    def parked(self, customer: str) -> str:
        """The turns of a customer that is at its cap."""
        return f"{self.namespace}parked:{customer}"

    def line(self, lane: str, customer: str) -> str:
        """The waiting jobs of one customer in one lane."""
        return f"{self.namespace}lane:{lane}:line:{customer}"

    def turns(self, lane: str) -> str:
        """The customers that wait in a lane."""
        return f"{self.namespace}lane:{lane}"

    def events_channel(self, job_id: str) -> str:
        """Where the job's events are published as they happen."""
        return f"{self.namespace}events:{job_id}"

    def done_channel(self, job_id: str) -> str:
        """Where the job's final state is published."""
        return f"{self.namespace}done:{job_id}"
