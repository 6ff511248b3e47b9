"""Files of variables: one of the machine's settings, and one for each of its processes."""

import re
from collections.abc import Mapping
from pathlib import Path

from emp_machine.plan.model import MachinePlan, Process
from emp_machine.render.files import RenderedFile

__all__ = ["process_env", "render", "variables"]

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")


def render(plan: MachinePlan, folder: Path) -> tuple[RenderedFile, ...]:  # noqa: ARG001 - what all renderers are given
    """``machine.env`` with the settings that the plan was made from, and ``env/NAME.env`` for each process."""
    return (
        RenderedFile(Path("machine.env"), _machine(plan), private=True),
        *(process_env(process) for process in plan.processes),
    )


def process_env(process: Process) -> RenderedFile:
    """The variables of one process."""
    return RenderedFile(Path("env") / f"{process.name}.env", variables(process.environ), private=True)


def _machine(plan: MachinePlan) -> str:
    head = f"# What {plan.machine_id} runs: `emp machine plan --env-file machine.env` shows it.\n"
    if not plan.own_redis:
        return head + variables(plan.environ)
    # Set, it would mean a hub elsewhere, and the plan would have no Redis of its own any more.
    url = plan.environ["HUB_REDIS_URL"]
    return (
        f"{head}# HUB_REDIS_URL is not set: the machine has a Redis of its own, {url}\n"
        f"{variables({name: value for name, value in plan.environ.items() if name != 'HUB_REDIS_URL'})}"
    )


def variables(environ: Mapping[str, str]) -> str:
    """Variables in the form that `.env` readers and systemd's ``EnvironmentFile`` have in common."""
    return "".join(f"{name}={_quoted(value)}\n" for name, value in sorted(environ.items()))


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    # Between single quotes all stands for itself; but some readers take a backslash there for an escape, and some do not.
    if not set("'\\\n\r") & set(value):
        return f"'{value}'"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
