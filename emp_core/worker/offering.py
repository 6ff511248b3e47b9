"""What a worker offers: its services as they are now, on the machine as it is now."""

from collections.abc import Sequence

from attrs import evolve

from emp_core.config import Settings
from emp_core.jobs.matching import Capabilities, ServiceOffer
from emp_core.worker.draining import Drain
from emp_core.worker.gpus import GpusNow
from emp_core.worker.machine import machine_resources, with_gpus
from emp_core.worker.services import ServiceRunner

__all__ = ["Offering"]


class Offering:
    """The services of a worker, and what they come to.

    Attributes:
        services: by their names; none before the worker is connected.
        accepting: the service that runs a job, by what jobs may require.
    """

    def __init__(self, worker_id: str, settings: Settings, drain: Drain) -> None:
        self._worker_id = worker_id
        self._settings = settings
        self._drain = drain
        self._resources = machine_resources(settings)
        self.services: dict[str, ServiceRunner] = {}
        self.accepting: dict[str, ServiceRunner] = {}

    def add(self, service: ServiceRunner) -> None:
        """Offer this service, too. Where two accept the same jobs the first one runs them."""
        self.services[service.name] = service
        for required in service.accepts:
            self.accepting.setdefault(required, service)

    def gpus_seen(self, now: GpusNow) -> None:
        """The GPUs are not as they were."""
        self._resources = with_gpus(self._resources, self._settings, now)

    def capabilities(self) -> Capabilities:
        """What is offered now."""
        settings = self._settings
        return Capabilities(
            worker_id=self._worker_id,
            machine_id=settings.machine_id,
            services={name: self._offer(service) for name, service in self.services.items()},
            resources=self._resources,
            custom=settings.capabilities,
            allow=settings.customers_allow,
            deny=settings.customers_deny,
            pool=settings.pool,
            region=settings.region,
        )

    def _offer(self, service: ServiceRunner) -> ServiceOffer:
        # So nobody wakes a worker that takes no more jobs.
        return evolve(service.offer, withdrawn="the worker is draining") if self._drain.has_begun else service.offer

    def capacity(self) -> int:
        """Jobs at once, of all services."""
        return sum(service.slots.capacity for service in self.services.values())

    def free_slots(self) -> list[tuple[int, Sequence[str]]]:
        """Slots that may be filled now, and what jobs that fill them may require; of each service that has some."""
        return [(free, service.accepts) for service in self.services.values() if (free := service.free) > 0]
