"""`emp demo`: the whole way once, with nothing set up."""

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
import click
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from attrs import evolve

from emp_core.cli.failures import INTERRUPTED
from emp_core.cli.following import follow
from emp_core.cli.hub import prepared
from emp_core.cli.output import clean, json_option, note
from emp_core.cli.serving import serve
from emp_core.cli.showing import emit_outcome
from emp_core.cli.shutdown import Shutdown
from emp_core.cli.up import Hub, hub_of
from emp_core.config import Settings
from emp_core.errors import ConfigError
from emp_core.jobs.model import Job, JobSpec
from emp_core.plugins.hookspecs import Demo
from emp_core.plugins.manager import load_plugins
from emp_core.queue.addresses import shown_url
from emp_core.queue.queue import JobQueue
from emp_core.worker.worker import Worker

__all__ = ["demo"]

_FALLBACK = "echo"
"""The core's own demo, which always runs."""
_START_S = 60.0
_POLL_S = 0.05
_RUN_S = 300.0


@click.command()
@click.argument("name", required=False)
@json_option
def demo(name: str | None, as_json: bool) -> int:
    """Run one job the whole way, with nothing set up: queue, worker, progress, result on disk.

    It runs what an installed plugin has for it, by NAME or the first that can run; without any, the echo service. Nothing
    that runs already is touched: the job has a namespace of its own in Redis, which is removed at the end. Its output stays
    in the artifact store.

    \b
    Examples:
      emp demo
      emp demo echo
      emp demo --json
    """
    settings = prepared(level="warning")
    chosen = _choose(load_plugins().demos(), name)
    done: list[Job] = []

    async def body() -> None:
        done.append(await _demonstrate(settings, chosen, as_json))

    anyio.run(Shutdown(grace_s=0).run, body)  # so that SIGTERM tidies up, too
    return emit_outcome(done[0], as_json=as_json) if done else INTERRUPTED


def _choose(demos: Sequence[Demo], name: str | None) -> Demo:
    if name is not None:
        for one in demos:
            if one.name != name:
                continue
            if one.missing is not None:
                raise ConfigError(f"the demo {name} cannot run here: {one.missing}")
            return one
        known = ", ".join(sorted(one.name for one in demos))
        raise ConfigError(
            f"there is no demo {name!r}; known are: {known}", hint=f"a package may be missing: emp-{name}"
        )
    # Last, because every other one shows more.
    for one in sorted(demos, key=lambda one: one.name == _FALLBACK):
        if one.missing is None:
            return one
        note(f"The demo {one.name} cannot run here: {one.missing}")
    raise ConfigError("no demo can run here", hint="install emp-core anew: the one of its echo service is missing")


async def _demonstrate(settings: Settings, chosen: Demo, as_json: bool) -> Job:
    if not as_json:
        note(f"Demo: {clean(chosen.description)}")
    async with hub_of(settings) as hub, _namespace_of_its_own(settings, hub) as own, _outlasting(chosen) as variables:
        environ = {**_environ_of(own), **variables, "WORKERS": chosen.worker_type}
        async with JobQueue.connect(own.redis_url, settings=own) as queue, _working(environ):
            await _taken_up(queue, chosen.service_required)
            if not as_json:
                note(f"Redis: {shown_url(hub.url)}{' (embedded)' if hub.embedded_in else ''}; a worker is ready")
            job = await queue.submit(JobSpec(chosen.service_required, chosen.payload))
            return await follow(queue, job.id, limit_s=_RUN_S, silent=as_json)


@asynccontextmanager
async def _outlasting(chosen: Demo) -> AsyncIterator[Mapping[str, str]]:
    """What the demo's worker needs, there until the block has ended.

    A cancellation reaches every task at once, and a worker that gives its job back still has to stop it at its service.
    """
    over = anyio.Event()

    async def stay(*, task_status: TaskStatus[Mapping[str, str]] = TASK_STATUS_IGNORED) -> None:
        with anyio.CancelScope() as scope:
            async with chosen.start() as variables:
                scope.shield = True
                task_status.started(variables)
                await over.wait()
                scope.shield = False

    async with anyio.create_task_group() as group:
        try:
            yield await group.start(stay)
        finally:
            over.set()


@asynccontextmanager
async def _namespace_of_its_own(settings: Settings, hub: Hub) -> AsyncIterator[Settings]:
    """Settings under which nobody else's worker takes the job, and ours takes nobody else's."""
    own = evolve(settings, namespace=f"{{emp-demo-{secrets.token_hex(6)}}}:", redis_url=hub.url)
    try:
        yield own
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            async with JobQueue.connect(hub.url, settings=evolve(own, redis_wait_s=1.0)) as queue:
                keys = [key async for key in queue.client.scan_iter(match=f"{own.namespace}*", count=1000)]
                if keys:
                    await queue.client.unlink(*keys)


def _environ_of(settings: Settings) -> dict[str, str]:
    """What the worker is told: a setting made for something else must not stand in the demo's way."""
    return {
        "HUB_REDIS_URL": settings.redis_url or "",
        "EMP_NAMESPACE": settings.namespace,
        "EMP_DATA_DIR": str(settings.data_dir.absolute()),
        "EMP_STORE": settings.store_url,
        "EMP_STORES": json.dumps(dict(settings.stores)),
        "EMP_STORE_CDN": settings.store_cdn or "",
        "EMP_GRACE_S": "0",
        "WORKER_ID": "demo",
    }


async def _taken_up(queue: JobQueue, service: str) -> None:
    """Wait until the worker offers the service, so that the first thing one sees is no warning."""
    with anyio.move_on_after(_START_S):
        while not await _is_offered(queue, service):  # noqa: ASYNC110 - only the worker's own entry in Redis tells
            await anyio.sleep(_POLL_S)


async def _is_offered(queue: JobQueue, service: str) -> bool:
    offers = [offer for worker in await queue.workers() for offer in worker.capabilities.services.values()]
    return any(service in offer.accepts and offer.withdrawn is None for offer in offers)


@asynccontextmanager
async def _working(environ: dict[str, str]) -> AsyncIterator[None]:
    """A worker, as long as the block lasts."""
    workers = Worker.all_from_env(environ)
    async with anyio.create_task_group() as group:
        ready = anyio.Event()
        group.start_soon(serve, workers, ready.set)
        await ready.wait()
        yield
        group.cancel_scope.cancel()
