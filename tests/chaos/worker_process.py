"""What a chaos worker's process runs: a worker as `emp worker` runs it, on a service over HTTP or with the echo connector.

Started once, it forks a worker for every line of its standard input, and answers with its pid.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
from attrs import evolve

from emp_core.cli.serving import serve
from emp_core.cli.shutdown import Shutdown
from emp_core.config import Settings
from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.context import JobContext
from emp_core.connectors.http import HTTPConnector
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_core.plugins.hookspecs import Registration
from emp_core.plugins.loaded import Registered
from emp_core.plugins.manager import load_plugins
from emp_core.services.resolve import ServiceBinding
from emp_core.services.schema import ServiceEntry, ServiceType
from emp_core.storage.local import LocalStore
from emp_core.worker.worker import Worker
from tests.chaos.servers import die_with_parent


class SlowEchoConnector(HTTPConnector):
    """Lets a service of the test's own do the work: POST /work."""

    service_type = "slow-echo"
    version = "1"
    max_concurrent_jobs = 16

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config, base_url=config.options["base_url"])

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        """Have it done."""
        return JobResult(data=await self.request_json("POST", "/work", json=job.payload))


def run(order: dict[str, Any]) -> None:
    """Run a worker until it is told to end."""
    folder = Path(order["folder"])
    settings = evolve(
        Settings(),
        machine_id=order.get("machine", "m"),
        redis_url=order["url"],
        namespace="{emp}:",
        data_dir=folder,
        retry_base_s=0.05,
        retry_max_s=0.5,
        grace_s=5.0,
        concurrency=(str(order.get("slots", 16)),),
        **order.get("settings", {}),
    )
    worker = Worker(
        [_binding(order.get("service"))],
        settings=settings,
        plugins=_plugins(),
        worker_id=order["name"],
        store=LocalStore(folder / "artifacts"),
    )
    shutdown = Shutdown(settings.grace_s)

    async def body() -> None:
        await serve([worker], lambda: None, on_start=shutdown.look_after)

    anyio.run(shutdown.run, body)


def _binding(service: str | None) -> ServiceBinding:
    connector = "EchoConnector" if service is None else "SlowEchoConnector"
    options = {} if service is None else {"base_url": service}
    entry = ServiceEntry(connector=connector, type=ServiceType.EXTERNAL)
    return ServiceBinding("echo", ("echo",), connector, entry, ServiceConfig("echo", {}, options))


def _plugins() -> Any:
    plugins = load_plugins()
    registration = Registration("SlowEchoConnector", "tests.chaos.worker_process:SlowEchoConnector")
    return evolve(
        plugins, connectors={**plugins.connectors, "SlowEchoConnector": Registered("tests.chaos", registration)}
    )


def main() -> None:
    """Fork a worker for every line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the kernel buries them
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            die_with_parent()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
            run(order)
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
