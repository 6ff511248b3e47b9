"""`emp worker`: workers for a process manager."""

import anyio
import click

from emp_core.cli.hub import find_hub, prepared
from emp_core.cli.output import emit, json_option
from emp_core.cli.serving import described, serve, worker_lines, workers_from
from emp_core.cli.shutdown import Shutdown
from emp_core.cli.up import hub_of
from emp_core.queue.addresses import shown_url

__all__ = ["worker"]


@click.command()
@click.argument("types", nargs=-1, metavar="[WORKERS]...")
@click.option("--workers", "option", metavar="WORKERS", help="The same as the argument: `one:2,another`.")
@json_option
def worker(types: tuple[str, ...], option: str | None, as_json: bool) -> int:
    """Run workers for WORKERS, for a process manager.

    It starts no Redis: it uses the one that HUB_REDIS_URL names, or an embedded one that `emp up` runs on this machine,
    which then stays as long as this worker does. It waits for it as long as EMP_REDIS_WAIT_S says, and then ends with 3. A
    service that is not there yet is waited for, with no limit.

    SIGTERM or Ctrl-C drains: jobs that run may end (EMP_GRACE_S), the rest goes back to the queue. A second one stops
    them at once. With --json, one document tells when all is ready.

    \b
    Examples:
      HUB_REDIS_URL=redis://hub:6379 WORKERS=comfyui emp worker
      emp worker echo:2
      GPU_ID=1 emp worker --workers comfyui
    """
    if types and option is not None:
        raise click.UsageError("the workers are given twice: as argument and as --workers")
    settings = prepared()
    shutdown = Shutdown(settings.grace_s)

    async def body() -> None:
        workers = workers_from(",".join(types) or option)
        await find_hub(settings, limit_s=settings.redis_wait_s)
        async with hub_of(settings) as hub:  # counted among an embedded one's users, or it ends with `emp up`
            url = shown_url(hub.url)

            def ready() -> None:
                lines = [f"Redis      {url}", *worker_lines(workers), "Ready."]
                emit({"redis": {"url": url}, "workers": described(workers)}, "\n".join(lines), as_json=as_json)

            await serve(workers, ready, on_start=shutdown.look_after)

    return anyio.run(shutdown.run, body)
