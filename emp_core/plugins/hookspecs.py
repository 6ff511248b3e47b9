"""The hooks that a plugin may answer. All are synchronous, cheap, and return descriptions; what waits lives on the objects."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import click
import pluggy
from attrs import field, frozen

from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import Outcome

__all__ = ["Demo", "Registration", "hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("emp_core")
hookimpl = pluggy.HookimplMarker("emp_core")


@frozen
class Registration:
    """A class that a plugin brings, imported only when it is needed.

    Attributes:
        name: what the service mapping calls it (``ComfyUIWebSocketConnector``).
        target: where it is: ``package.module:Class``.
        description: one line for listings.
    """

    name: str
    target: str
    description: str = ""


@frozen
class Demo:
    """A job that shows a service at work where nothing is set up, for ``emp demo``.

    Attributes:
        name: what it is called in ``emp demo NAME``.
        description: one line that says what is run, and what of it is only pretended.
        worker_type: the worker type that runs it.
        service_required, payload: the job.
        start: an async context manager that starts what the service needs, and gives the environment variables for the
            worker. The worker gets no others of the user's but those that say where Redis and the artifacts are.
        missing: why it cannot run in this installation, and what to install; None: it can.
    """

    name: str
    description: str
    worker_type: str
    service_required: str
    start: Callable[[], AbstractAsyncContextManager[Mapping[str, str]]] = field(repr=False)
    payload: Any = field(factory=dict, repr=False)
    missing: str | None = None


@hookspec
def emp_register_connectors() -> Sequence[Registration]:
    """The connectors of this plugin."""
    return ()


@hookspec
def emp_register_installers() -> Sequence[Registration]:
    """The installers of this plugin."""
    return ()


@hookspec
def emp_register_stores() -> Sequence[Registration]:
    """The artifact stores of this plugin; ``name`` is the URL scheme, the target is called with (url, environ)."""
    return ()


@hookspec
def emp_register_balancers() -> Sequence[Registration]:
    """The strategies by which this plugin chooses among several servers of one service."""
    return ()


@hookspec
def emp_register_spot_notices() -> Sequence[Registration]:
    """Sources of notices that this machine is about to go; the target is called with (environ), and gives an
    `emp_core.SpotNotice`, or None where there is nothing to watch.
    """
    return ()


@hookspec
def emp_service_mapping() -> Mapping[str, Any]:
    """This plugin's part of the service mapping, in the file's format. The user's file overrides it entry by entry."""
    return {}


@hookspec
def emp_settings() -> Sequence[type]:
    """The settings classes of this plugin, made with `emp_core.config.setting`."""
    return ()


@hookspec
def emp_demo() -> Demo | None:
    """A job for ``emp demo``; it starts nothing yet."""
    return None


@hookspec
def emp_add_commands(cli: click.Group) -> None:
    """Add commands to ``emp``."""


@hookspec
def emp_job_finished(job: Job, outcome: Outcome) -> None:
    """Told on the worker after an outcome was recorded. Must return at once."""
