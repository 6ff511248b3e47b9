"""The echo service as a plugin: hook implementations only, so that listing plugins imports no connector."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from emp_core.plugins.hookspecs import Demo, Registration, hookimpl


@hookimpl
def emp_register_connectors() -> Sequence[Registration]:
    """The echo connector."""
    return (
        Registration(
            "EchoConnector",
            "emp_core.connectors.echo:EchoConnector",
            "Gives every payload back: for trying things out, needs no service",
        ),
    )


@hookimpl
def emp_service_mapping() -> Mapping[str, Any]:
    """The worker type ``echo``."""
    return {
        "workers": {
            "echo": {
                "services": ["echo"],
                "is_gpu_bound": False,
                "job_service_required_map": [{"job_service_required": "echo", "worker_service": "echo"}],
            }
        },
        "services": {"echo": {"connector": "EchoConnector", "type": "external_service", "is_gpu_bound": False}},
    }


@hookimpl
def emp_demo() -> Demo:
    """A job that takes two seconds and leaves a text behind."""
    text = "This came out of a job: it was submitted, waited in Redis, was claimed by a worker, and left this file.\n"
    options = {"seconds": 2.0, "steps": 20, "artifact": {"name": "hello.txt", "text": text}}
    return Demo(
        name="echo",
        description="a job that gives its payload back, with progress and a file; needs no service",
        worker_type="echo",
        service_required="echo",
        payload={"hello": "world", "$echo": options},
        start=_nothing_to_start,
    )


@asynccontextmanager
async def _nothing_to_start() -> AsyncIterator[Mapping[str, str]]:
    yield {}
