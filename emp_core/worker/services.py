"""A service on this worker: its connector's life, its health, and whether it takes jobs."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from emp_core.connectors.base import Connector, Health, ServiceInfo
from emp_core.connectors.breaker import Breaker, BreakerChange, BreakerPolicy, BreakerState, Permit
from emp_core.errors import (
    AuthenticationFailed,
    EmpError,
    QuotaExhausted,
    ServiceBroken,
    ServiceBusy,
    ServiceUnavailable,
    StorageError,
    StorageUnavailable,
)
from emp_core.jobs.codec import dumps, told
from emp_core.jobs.matching import ModelOffer, ServiceOffer
from emp_core.log.logger import get_logger
from emp_core.services.resolve import ServiceBinding
from emp_core.worker.contained import contained
from emp_core.worker.leases import Held
from emp_core.worker.slots import Slots

__all__ = ["ServiceRunner"]

log = get_logger("emp.service")

_HEALTH_EVERY_S = 10.0
_HEALTH_WHEN_DOWN_S = 2.0
_HEALTH_LIMIT_S = 10.0
_STOPS_S = 30.0
"""How long attempts that were cancelled may take to stop the service's work. The worker waits for them anyway."""
_CANCEL_S = 2.0
_CONNECT_FIRST_S = 0.5
_CONNECT_MOST_S = 5.0
_PAUSE_S = 60.0
_BUSY_REST_S = 1.0
_REST_LEAST_S = 0.25
"""Taking a service's lanes away and giving them back costs more than a shorter rest."""
_BREAKER = BreakerPolicy(failures=3, open_s=5.0, open_max_s=120.0)


class ServiceRunner:
    """Connects to a service, watches it, and runs jobs on it.

    While the service is withdrawn its lanes are, too: jobs wait or go elsewhere instead of failing here. It is withdrawn
    while it is not healthy, while its breaker is open, and for a while after it refused our credentials.

    Args:
        capacity: jobs at once; None: as many as the connector says, which may change.
        check_store: raises StorageError while artifacts cannot be stored.
        run: runs one job within a scope that stops it, and tells how the connector ended: None when it did its work, else
            the failure.
        refuse: gives a job back that came when the breaker had just opened.
        on_change: told when the service was withdrawn or taken up, or offers something else.
        on_free: told when a slot became free.
    """

    def __init__(
        self,
        binding: ServiceBinding,
        connector: Connector,
        capacity: int | None,
        *,
        check_store: Callable[[], Awaitable[None]],
        run: Callable[[Connector, Held, anyio.CancelScope, Callable[[Exception | None], None]], Awaitable[None]],
        refuse: Callable[[Held], None],
        on_change: Callable[[], None],
        on_free: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = binding.service
        self.accepts = binding.accepts
        self.connector = connector
        self._own_capacity = capacity is None
        self.slots = Slots(connector.max_concurrent_jobs if capacity is None else capacity, self._run_job, on_free)
        self._run = run
        self._check_store = check_store
        self._store_failed = False
        self._refuse = refuse
        self._connector_name = binding.connector
        self._on_change = on_change
        self._clock = clock
        self._info = ServiceInfo(self.name, connector.version)
        self._withdrawn: str | None = "not connected yet"
        self._paused_until = 0.0
        self._breaker = Breaker(_BREAKER, clock=clock, on_change=self._breaker_changed)
        self._misunderstood = ""
        self._look = anyio.Event()
        self.looked = anyio.Event()
        """Set once it is known whether the service takes jobs."""
        connector.on_rest = self._rest

    @property
    def offer(self) -> ServiceOffer:
        """What the service offers now."""
        return ServiceOffer(
            connector=self._connector_name,
            version=self._info.version,
            slots=self._breaker.room_at_all(self.slots.capacity),
            models=self._info.models,
            withdrawn=self._withdrawn,
            accepts=self.accepts,
            capabilities=self._info.capabilities,
            other_models=self._info.other_models,
        )

    @property
    def free(self) -> int:
        """Slots that may be filled now."""
        return 0 if self._withdrawn else self._breaker.room(self.slots.free)

    async def _run_job(self, held: Held, scope: anyio.CancelScope) -> None:
        permit = self._breaker.admit()
        if permit is None:
            self._refuse(held)
            return
        with permit:  # an attempt that was stopped from outside says nothing of the service
            await self._run(self.connector, held, scope, lambda failure: self._attempt_ended(permit, failure))

    async def cancel(self, held: Held) -> None:
        """Have the service stop its work on a job that was cancelled, and stop the attempt."""
        try:
            with anyio.move_on_after(_CANCEL_S), contained():
                await self.connector.cancel_job(held.claimed.job.id)
        except Exception as error:  # the attempt is stopped all the same
            log.warning("the connector's cancel_job failed", job=held.claimed.job.id, error=str(error))
        held.stop("cancelled")

    def _attempt_ended(self, permit: Permit, failure: Exception | None) -> None:
        """Failures of the service itself withdraw it until it works again; failures of the job do not."""
        match failure:
            case None:
                permit.succeeded()
            case ServiceBroken():
                self._breaker.trip(failure.message)
            case AuthenticationFailed() | QuotaExhausted():
                permit.succeeded()
                self._pause(failure)
            case StorageUnavailable():
                # The service worked; what it made has no place to go. No job can end well here until it has.
                permit.succeeded()
                self._store_failed = True
                self._withdraw(failure.message)
                self._look.set()
            case ServiceUnavailable():
                permit.failed(failure.message)
                self._look.set()
            case ServiceBusy(retry_after_s=told_s):
                permit.succeeded()
                self._rest(_BUSY_REST_S if told_s is None else told_s, failure.message)
            case _:
                permit.succeeded()
        if self._breaker.state is BreakerState.OPEN and not self._breaker.admits:
            self._withdraw(self._breaker.reason or "its jobs fail")
            self._look.set()

    def _breaker_changed(self, change: BreakerChange) -> None:
        if change.after is BreakerState.CLOSED:
            self._on_change()  # there is room for more than one again

    def _pause(self, failure: AuthenticationFailed | QuotaExhausted) -> None:
        self._paused_until = self._clock() + _PAUSE_S
        log.error(
            "the service refuses us: it gets no jobs until it does not",
            service=self.name,
            code=failure.code,
            error=failure.message,
        )
        self._withdraw(failure.message)

    def _rest(self, seconds: float, reason: str) -> None:
        if seconds < _REST_LEAST_S:
            return
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        self._withdraw(reason)
        self._look.set()

    @property
    def _look_again_s(self) -> float:
        if not self._withdrawn:
            return _HEALTH_EVERY_S
        left_s = self._paused_until - self._clock()
        return min(_HEALTH_WHEN_DOWN_S, left_s) if left_s > 0 else _HEALTH_WHEN_DOWN_S

    async def run(self) -> None:
        """Connect, and watch the service until cancelled."""
        try:
            await self._connect()
            async with anyio.create_task_group() as group:
                group.start_soon(self._let_it_watch, name=f"emp watch {self.name}")
                while True:
                    self._look = anyio.Event()  # before the look: what a job tells meanwhile asks for another one
                    await self._check()
                    self.looked.set()
                    with anyio.move_on_after(self._look_again_s):
                        await self._look.wait()
        finally:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(_STOPS_S):
                    await self.slots.emptied()  # jobs that are stopped still stop the service's work
                with anyio.move_on_after(5):
                    await self._disconnect()

    async def _let_it_watch(self) -> None:
        while True:
            try:
                with contained():
                    await self.connector.watch()
            except Exception:  # whatever it looks after, the jobs and the other services go on
                log.exception("what the connector looks after failed; it begins again", service=self.name)
            else:
                return
            await anyio.sleep(_CONNECT_MOST_S)

    async def _disconnect(self) -> None:
        try:
            await self.connector.disconnect()
        except Exception as error:  # it ends either way, and the jobs of this worker have to be given back
            log.warning("the connector failed to disconnect", service=self.name, error=str(error))

    async def _connect(self) -> None:
        delay_s = _CONNECT_FIRST_S
        while True:
            try:
                with contained():
                    await self.connector.connect()
            except (
                Exception
            ) as error:  # a connector that cannot begin must not end the worker: it says why and tries again
                self._failed_to_connect(error)
                self.looked.set()
            else:
                return
            await anyio.sleep(delay_s)
            delay_s = min(_CONNECT_MOST_S, delay_s * 2)

    def _failed_to_connect(self, error: Exception) -> None:
        if not isinstance(error, EmpError):
            log.error("the connector failed to connect", service=self.name, exc_info=error)
        self._withdraw(error.message if isinstance(error, EmpError) else f"{type(error).__name__}: {error}")

    async def _check(self) -> None:
        health = await self._ask_health()
        if not health.ok:
            self._withdraw(health.reason or "it says that it is not healthy")
            return
        if self._told_off() or not await self._store_works():
            return
        info = await self._ask_info()
        if self._told_off() or self._store_failed:  # by a job that ended meanwhile
            return
        changed = self._take_capacity() or self._withdrawn is not None or info != self._info
        if self._withdrawn is not None:
            log.info("service taken up", service=self.name, version=info.version or None)
        self._info, self._withdrawn = info, None
        if changed:
            self._on_change()

    def _told_off(self) -> bool:
        """Whether jobs have shown that the service takes none for now."""
        return self._clock() < self._paused_until or not self._breaker.admits

    def _take_capacity(self) -> bool:
        """As many slots as the connector has now; whether that is another number. Jobs that run too many of run on."""
        if not self._own_capacity or self.connector.max_concurrent_jobs == self.slots.capacity:
            return False
        self.slots.capacity = self.connector.max_concurrent_jobs
        return True

    async def _store_works(self) -> bool:
        if self._store_failed:
            try:
                await self._check_store()
            except StorageError as error:
                self._withdraw(error.message)
                return False
            self._store_failed = False
        return True

    async def _ask_health(self) -> Health:
        try:
            with anyio.fail_after(_HEALTH_LIMIT_S), contained():
                health: Health = _expected(Health, await self.connector.check_health(), "check_health")
                return health
        except TimeoutError:
            return Health(False, f"it did not answer within {_HEALTH_LIMIT_S:g} s")
        except Exception as error:  # the contract says that it raises nothing; one that does is not healthy
            return Health(False, f"{type(error).__name__}: {error}")

    async def _ask_info(self) -> ServiceInfo:
        try:
            with anyio.fail_after(_HEALTH_LIMIT_S), contained():
                info = await self.connector.get_service_info()
        except Exception as error:  # what it says of itself is not needed to give it jobs
            log.debug("the service does not tell about itself", service=self.name, error=str(error))
            return self._info
        try:
            _refuse_what_cannot_be_told(info)
        except Exception as error:  # a connector's mistake; its service may work all the same
            if str(error) != self._misunderstood:
                self._misunderstood = str(error)
                log.warning("what the connector tells of its service is left out", service=self.name, error=str(error))
            return self._info
        self._misunderstood = ""
        return info

    def _withdraw(self, reason: str) -> None:
        reason = told(reason)
        if self._withdrawn != reason:
            log.warning("service withdrawn", service=self.name, reason=reason)
            self._withdrawn = reason
            self._on_change()


def _expected(kind: type, given: Any, what: str) -> Any:
    """What a connector gave. Raises TypeError: it is of another type, which no checker of types has seen."""
    if not isinstance(given, kind):
        raise TypeError(f"{what} gave {type(given).__name__}, not {kind.__name__}")
    return given


def _refuse_what_cannot_be_told(given: object) -> None:
    """Raises TypeError, ValueError: a part is of another type, or no JSON."""
    info: ServiceInfo = _expected(ServiceInfo, given, "get_service_info")
    _expected(str, info.version, "version")
    for name, model in {} if info.models is None else _expected(Mapping, info.models, "models").items():
        _expected(str, name, "a name in models")
        _expected(ModelOffer, model, f"models[{name!r}]")
    if info.other_models is not None:
        _expected(ModelOffer, info.other_models, "other_models")
    dumps({**_expected(Mapping, info.capabilities, "capabilities")})
