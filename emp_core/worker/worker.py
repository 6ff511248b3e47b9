"""`Worker`: one process's part in the queue. It touches no signals, no logging set-up and no event loop."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from emp_core.config import Settings, environment
from emp_core.errors import ConfigError
from emp_core.inputs.taking import InputTaking
from emp_core.jobs.matching import Capabilities
from emp_core.jobs.retry import Backoff
from emp_core.log.logger import get_logger
from emp_core.plugins.loaded import Plugins
from emp_core.plugins.manager import load_plugins
from emp_core.queue.connection import connect, wait_for_redis
from emp_core.queue.consumer import Claim, ClaimedJob, Consumer, Renewal
from emp_core.queue.housekeeping import Housekeeping
from emp_core.queue.keeper import Keeper
from emp_core.queue.queue import find_redis
from emp_core.services.resolve import ServiceBinding
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.stores import Stores
from emp_core.worker.attempt import Attempts
from emp_core.worker.claimer import Claimer
from emp_core.worker.draining import Drain
from emp_core.worker.finisher import Finisher
from emp_core.worker.gpus import GpusNow, GpuWatch
from emp_core.worker.leases import Leases
from emp_core.worker.mailbox import Mailbox
from emp_core.worker.notices import NoticeWatch, notices_of
from emp_core.worker.offering import Offering
from emp_core.worker.persistence import until_done
from emp_core.worker.planning import capacity_of, planned_workers, store_openers
from emp_core.worker.registrar import Registrar
from emp_core.worker.services import ServiceRunner

__all__ = ["Worker", "store_openers"]

log = get_logger("emp.worker")

_FLUSH_S = 5.0
_CLOSE_S = 2.0
_FIRST_LOOK_S = 2.0
"""How long a service may take to be connected before the worker says that it started."""


class Worker:
    """Claims jobs for the services that it was given, and runs them.

    ``async with Worker.from_env() as worker: await worker.run()``. `run` ends when the worker was drained; cancelling it
    ends it as well, in bounded time, and gives its jobs back.
    """

    def __init__(
        self,
        bindings: Sequence[ServiceBinding],
        *,
        settings: Settings,
        plugins: Plugins,
        worker_id: str,
        redis_url: str | None = None,
        store: ArtifactStore | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.id = f"{worker_id}@{settings.machine_id}"
        self.settings = settings
        self._plugins = plugins
        self._bindings = tuple(bindings)
        self._redis_url = redis_url
        self._given_store = store
        self._environ = environment() if environ is None else environ
        self._stack = AsyncExitStack()
        self._drain = Drain(settings.grace_s)
        self._claimed_last = anyio.Event()
        self._opened = self._leaving = self._left = False
        self._running: anyio.Event | None = None
        self._offering = Offering(self.id, settings, self._drain)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, index: int = 0) -> Self:
        """The worker that ``WORKERS`` describes, with all services of its worker types.

        Args:
            index: which one, where ``WORKERS`` asks for several (``comfyui:2``).

        Raises:
            ConfigError: the settings, the mapping or ``WORKERS`` cannot be used.
        """
        return cls.all_from_env(environ)[index]

    @classmethod
    def all_from_env(cls, environ: Mapping[str, str] | None = None) -> list[Self]:
        """Every worker that ``WORKERS`` asks for, to be run side by side."""
        environ = environment() if environ is None else environ
        settings = Settings.from_env(environ)
        plugins = load_plugins()
        plan = planned_workers(settings, plugins, environ)
        return [
            cls(one.bindings, settings=settings, plugins=plugins, worker_id=one.name, environ=environ) for one in plan
        ]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            url = self._redis_url or await find_redis(self.settings)
            client = connect(url, self.settings)
            stack.push_async_callback(_within, _CLOSE_S, client.aclose)
            await wait_for_redis(client, url, limit_s=self.settings.redis_wait_s)
            stores = Stores.from_settings(
                self.settings, openers=store_openers(self._plugins), environ=self._environ, default=self._given_store
            )
            stack.push_async_callback(_within, _CLOSE_S, stores.aclose)
            await stores.get().check()
            self._wire(url, client, stores)
            stack.push_async_callback(_within, _CLOSE_S, self._inputs.aclose)
            await self._inputs.folders.sweep()
            self._stack = stack.pop_all()
            self._opened = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is None:
            self._left = True  # its connections are gone: whoever runs it yet finds nothing to do
        try:
            if self._running is not None and not self._running.is_set():
                await self._end(self._running, at_once=error is not None)
        finally:
            await self._stack.__aexit__(kind, error, trace)

    async def _end(self, running: anyio.Event, *, at_once: bool) -> None:
        """End what runs in a task of its own: its connections must stay until it ended."""
        self.stop() if at_once else self.drain("its block was left")
        try:
            await _within(self.settings.grace_s + _FLUSH_S, running.wait)
        except anyio.get_cancelled_exc_class():  # no shield keeps a Task.cancel() away
            self.stop()
            await _within(_FLUSH_S, running.wait)
            raise

    def _wire(self, url: str, client: Any, stores: Stores) -> None:
        """Make the parts and tell them of each other. The tree of who tells whom is all here."""
        settings = self.settings
        self._consumer = Consumer(client, settings, worker_id=self.id, session=uuid.uuid4().hex)
        self._keeper = Keeper(Housekeeping(client, settings, worker_id=self.id), settings.lease_s)
        self._leases = Leases(self._consumer, settings.lease_s, on_renewal=self._renewed)
        self._finisher = Finisher(self._consumer, self._leases, self._plugins.job_finished)
        self._inputs = InputTaking.from_settings(
            settings, store=stores.get(), facts_of=self._consumer.job_facts, named=stores.named
        )
        self._attempts = Attempts(
            worker_id=self.id,
            stores=stores,
            inputs=self._inputs,
            leases=self._leases,
            finisher=self._finisher,
            warn=self._consumer.tell_warning,
            backoff=Backoff(settings.retry_base_s, settings.retry_max_s),
            max_result_bytes=settings.max_result_bytes,
        )
        self._claimer = Claimer(
            self._consumer,
            settings.machine_id,
            settings.poll_s,
            free=self._offering.free_slots,
            capacity=self._offering.capacity,
            on_claim=self._claimed,
        )
        self._gpu_watch = GpuWatch(
            settings.gpu_id or 0, lambda: [held.gpu_use() for held in self._leases.running()], self._gpu_changed
        )
        self._notices = NoticeWatch(notices_of(settings, self._plugins, self._environ), self.drain)
        self._registrar = Registrar(self._consumer, settings.lease_s, self.capabilities, self._claimer.wake)
        self._mailbox = Mailbox(
            url,
            settings,
            self._consumer,
            on_message=self._message,
            on_job=self._handed,
            is_late=lambda redis_s: self._leaving or self._leases.is_over(redis_s),
            on_taken_back=self._leases.lose,
            on_return=self._returned,
        )
        for binding in self._bindings:
            service = ServiceRunner(
                binding,
                self._plugins.connector_class(binding.connector).for_service(binding.config),
                capacity_of(settings, binding.service),
                check_store=stores.get().check,
                run=self._attempts.run,
                refuse=self._finisher.release,
                on_change=self._services_changed,
                on_free=self._claimer.slot_freed,
            )
            self._offering.add(service)

    # -- running -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Work until drained or cancelled. Started (for ``task_group.start``) once the worker is registered.

        Raises:
            ConfigError: another process is alive under this worker's name, this worker is not open, or it runs already.
        """
        if not self._opened:
            raise ConfigError(f"the worker {self.id} is not open", hint="run it within `async with worker:`")
        if self._running is not None and not self._running.is_set():
            raise ConfigError(f"the worker {self.id} runs already", hint="make another one, with another WORKER_ID")
        if self._left:
            task_status.started()
            return
        self._running = anyio.Event()
        refusal: ConfigError | None = None
        try:
            # Two groups: what records and renews must outlive what runs jobs.
            async with anyio.create_task_group() as recording:
                # Shielded: a cancellation from outside reaches all of this worker, and these must still give jobs back.
                outliving = anyio.CancelScope(shield=True)
                try:
                    async with anyio.create_task_group() as self._group:
                        refusal = await self._register()
                        if refusal is None:
                            recording.start_soon(self._record_within, outliving, name="emp recording")
                            await self._work(task_status)
                        self._group.cancel_scope.cancel()
                finally:
                    recording.start_soon(self._leave, outliving, name="emp leaving")
        finally:
            self._running.set()
            if refusal is None:
                log.info("worker ended", worker=self.id)
        if refusal is not None:
            raise refusal

    async def _register(self) -> ConfigError | None:
        """Register, once it is known which services take jobs: a job that is submitted now shall not be told otherwise."""
        for service in self._offering.services.values():
            self._group.start_soon(service.run, name=f"emp service {service.name}")
        with anyio.move_on_after(_FIRST_LOOK_S):
            for service in self._offering.services.values():
                await service.looked.wait()
        try:
            with self._drain.before():
                await self._registrar.register()
                log.info("worker started", worker=self.id, services=sorted(self._offering.services))
        except ConfigError as refusal:
            return refusal  # raised outside of the task groups, which would wrap it
        return None

    async def _work(self, task_status: TaskStatus[None]) -> None:
        task_status.started()
        if self._drain.has_begun:
            return  # maybe before it was registered
        for part in (self._registrar, self._mailbox, self._keeper, self._gpu_watch, self._notices):
            self._group.start_soon(part.run, name=f"emp {type(part).__name__.lower()}")
        claiming = anyio.CancelScope()
        self._group.start_soon(self._claim_until, claiming)
        await self._drain.begun()
        claiming.cancel()
        await self._claimed_last.wait()
        await self._drain.let_end(self._leases)
        # Before the attempts are cancelled for good: stopping a service's work may take longer.
        await self._give_back()

    async def _record_within(self, scope: anyio.CancelScope) -> None:
        with scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._leases.run, name="emp leases")
                group.start_soon(self._finisher.run, name="emp finisher")

    def drain(self, reason: str = "asked to") -> None:
        """Stop claiming, let the jobs end within the grace time, give back the rest, and end `run`."""
        if not self._drain.has_begun:
            self._drain.begin()
            jobs = 0 if self._running is None else len(self._leases)
            log.info("draining", worker=self.id, reason=reason, jobs=jobs, grace_s=self.settings.grace_s)
            if self._running is not None:  # else it ends as soon as it is run
                self._registrar.capabilities_changed()

    def stop(self) -> None:
        """Drain without grace: jobs are stopped and given back at once."""
        self._drain.cut_short()
        self.drain("asked to stop at once")

    async def _claim_until(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await self._claimer.run()
        finally:
            self._claimed_last.set()

    async def _leave(self, outliving: anyio.CancelScope) -> None:
        """Give back what is left. A task of its own: whoever cancels the worker a second time does not reach it."""
        try:
            await self._give_back()
        finally:
            outliving.cancel()

    async def _give_back(self) -> None:
        """Every job that is still held goes back to the queue, and this worker out of it."""
        if self._left:
            return
        self._leaving = True
        with anyio.move_on_after(_FLUSH_S, shield=True) as flushing:
            for held in self._leases.unfinished():
                self._finisher.release(held)
            await self._finisher.flushed()
            await until_done("leaving", self._consumer.retire)
        self._left = True
        if flushing.cancelled_caught:
            log.warning("redis is away: jobs are given to others when their leases end", jobs=len(self._leases))

    # -- what the parts tell -------------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """What this worker offers now."""
        return self._offering.capabilities()

    def _claimed(self, claim: Claim) -> None:
        if not claim.registered:
            self._registrar.forgotten()
            return
        self._registrar.version_seen(claim.lanes_version)
        for claimed in claim.jobs:
            if not self._leases.holds(claimed.job.id, claimed.token):
                self._begin(claimed)

    def _begin(self, claimed: ClaimedJob) -> None:
        self._offering.accepting[claimed.job.service_required].slots.put(self._leases.hold(claimed), self._group)

    def _handed(self, claimed: ClaimedJob, room: int) -> None:
        if self._drain.has_begun or self._offering.accepting[claimed.job.service_required].free <= 0:
            self._finisher.release(self._leases.hold(claimed))
        else:
            self._begin(claimed)
        self._claimer.handed(claimed.job.id, room)

    def _renewed(self, renewal: Renewal) -> None:
        self._keeper.clock_seen(renewal.redis_s)
        if self._leaving:
            return
        if not renewal.registered:
            self._registrar.forgotten()
            return
        self._registrar.version_seen(renewal.lanes_version)
        if renewal.keeper_missing:
            self._keeper.keep()

    def _gpu_changed(self, now: GpusNow) -> None:
        self._offering.gpus_seen(now)
        self._registrar.capabilities_changed()

    def _services_changed(self) -> None:
        self._registrar.capabilities_changed()
        self._claimer.slot_freed()
        self._claimer.wake()  # what it said when it claimed last does not hold any more

    def _message(self, word: str, rest: str) -> None:
        match word:
            case "wake":
                self._claimer.wake()
            case "lane":
                self._registrar.lane_opened(rest)
            case "gone":
                self._registrar.lane_gone(rest)
            case "due":
                self._keeper.something_is_due()
            case "cancel":
                self._cancel(rest)
            case "drain":
                if rest == self._consumer.session:  # else it is for one that died under this name
                    self.drain("told through its inbox")
            case _:
                log.warning("a message is not understood", word=word)

    def _cancel(self, told: str) -> None:
        job_id, _, token = told.partition(" ")  # older programs tell no token
        held = self._leases.find(job_id)
        if held is not None and token in ("", held.claimed.token):  # else it came late, for a run before this one
            self._group.start_soon(self._offering.accepting[held.claimed.job.service_required].cancel, held)

    def _returned(self) -> None:
        """The link is back. What was told meanwhile is lost: look at everything, and say everything."""
        self._registrar.tell_again()
        self._claimer.wake()


async def _within(limit_s: float, wait: Callable[[], Awaitable[object]]) -> None:
    with anyio.move_on_after(limit_s, shield=True):
        await wait()
