"""Workers that run beside a test."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, evolve, field

from emp_core.config import Settings, environment
from emp_core.services.resolve import ServiceBinding, load_mapping, resolve_workers
from emp_core.storage.local import LocalStore
from emp_core.testing.steered import steered_plugins
from emp_core.worker.worker import Worker

__all__ = ["RunningWorker", "WorkerStarter", "bindings_of", "fast_settings"]

_END_S = 20.0


def fast_settings(redis_url: str, namespace: str, folder: Path, **changed: Any) -> Settings:
    """Settings for tests: everything below ``namespace`` and ``folder``, retries at once, a lease that a busy machine keeps.

    Args:
        changed: other values, by the names of `Settings`.
    """
    made = Settings(
        machine_id="test",
        redis_url=redis_url,
        namespace=namespace,
        data_dir=folder,
        lease_s=3.0,
        poll_s=5.0,
        grace_s=5.0,
        retry_base_s=0.0,
        redis_wait_s=10.0,
    )
    return evolve(made, **changed)


def bindings_of(*worker_types: str) -> tuple[ServiceBinding, ...]:
    """The services of worker types of installed plugins: ``echo``."""
    plugins = steered_plugins()
    mapping = load_mapping(Settings(), plugins, environment())
    return tuple(
        binding for plan in resolve_workers(worker_types, mapping, plugins, environment()) for binding in plan.services
    )


@define(eq=False)
class RunningWorker:
    """A worker that runs beside the test.

    Attributes:
        scope: cancel it to end the worker from outside, as an embedding program would.
        ended: set when `Worker.run` ended.
        error: what it raised.
    """

    worker: Worker
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    ended: anyio.Event = field(factory=anyio.Event)
    error: BaseException | None = None

    @property
    def id(self) -> str:
        """The worker's name in the queue."""
        return self.worker.id

    async def until_ended(self) -> None:
        """Wait until it ended; raises what it raised."""
        with anyio.fail_after(_END_S):
            await self.ended.wait()
        if self.error is not None:
            raise self.error

    async def end(self) -> None:
        """Stop it at once: its jobs go back to the queue."""
        self.worker.stop()
        await self.until_ended()

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        try:
            with self.scope:
                async with self.worker:
                    await self.worker.run(task_status=task_status)
        except Exception as error:  # for the test, which asks for it
            self.error = error
        finally:
            self.ended.set()


class WorkerStarter:
    """Starts workers beside the test; see the fixture ``start_worker``."""

    def __init__(self, settings: Settings, group: TaskGroup) -> None:
        self._settings = settings
        self._group = group
        self._running: list[RunningWorker] = []

    async def __call__(
        self,
        *bindings: ServiceBinding,
        name: str | None = None,
        wire: Callable[[Worker], None] | None = None,
        redis_url: str | None = None,
        **changed: Any,
    ) -> RunningWorker:
        """Start a worker; it is registered when this returns.

        Args:
            bindings: its services; ``echo`` when not given.
            name: its WORKER_ID.
            wire: called with the worker before it runs.
            redis_url: another way to Redis.
            changed: settings of its own, by the names of `Settings`.
        """
        settings = evolve(self._settings, **changed)
        services: Sequence[ServiceBinding] = bindings or bindings_of("echo")
        worker = Worker(
            services,
            settings=settings,
            plugins=steered_plugins(),
            worker_id=name or f"w{len(self._running) + 1}",
            redis_url=redis_url or settings.redis_url,
            store=LocalStore(settings.data_dir / "artifacts"),
        )
        running = RunningWorker(worker)
        if wire is not None:
            wire(worker)
        with anyio.fail_after(_END_S):
            try:
                await self._group.start(running._run)
            except RuntimeError:  # ended before it was started: tell why
                if running.error is not None:
                    raise running.error from None
                raise
        self._running.append(running)
        return running

    async def end_all(self) -> None:
        """End what still runs. Raises what workers ended with, unless the test asked for it before."""
        asked = [one for one in self._running if not one.ended.is_set()]
        for one in asked:
            one.worker.stop()
        for one in asked:
            await one.until_ended()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """A starter whose workers end with the block."""
        async with anyio.create_task_group() as group:
            starter = cls(settings, group)
            try:
                yield starter
                await starter.end_all()
            finally:
                group.cancel_scope.cancel()
