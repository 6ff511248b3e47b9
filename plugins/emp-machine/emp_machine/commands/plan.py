"""`emp machine plan`: what this machine would run."""

from pathlib import Path
from typing import Any

import attrs
import click

from emp_core.cli.failures import DONE
from emp_core.cli.output import clean, emit, json_option, table
from emp_core.log.redaction import hide_secrets
from emp_core.queue.addresses import shown_url
from emp_core.services.launch import HealthCheck
from emp_machine.commands.options import env_file_option
from emp_machine.plan.here import plan_here
from emp_machine.plan.model import MachinePlan, Process, ServicePlan
from emp_machine.plan.secrets import shown_variables

__all__ = ["plan"]


@click.command()
@env_file_option
@json_option
def plan(env_file: Path | None, as_json: bool) -> int:
    """Show what this machine would run for WORKERS: services, instances with their GPUs and ports, and workers.

    It does nothing. What stands in the way is listed, all of it at once: a port that is taken, too few GPUs, an unknown
    installer, a variable that is not set. Values of variables that may be secrets are not shown.

    \b
    Examples:
      WORKERS=comfyui,ollama emp machine plan
      NUM_GPUS=2 GPU_MODE=mock WORKERS=comfyui:auto emp machine plan --json
      emp machine plan --env-file box.env
    """
    made = plan_here(env_file)
    emit(_shown(made), lambda: _text(made), as_json=as_json)
    return DONE


def _shown(made: MachinePlan) -> dict[str, Any]:
    return {
        "machine_id": made.machine_id,
        "root": made.root,
        "own_redis": made.own_redis,
        "gpus": [{**attrs.asdict(gpu), "device": gpu.visible} for gpu in made.gpus],
        "services": [_service(one) for one in made.services],
        "processes": [_process(one, made) for one in made.processes],
        "environ": shown_variables(made.environ, made.secrets),
        "notes": [hide_secrets(text) for text in made.notes],
    }


def _service(one: ServicePlan) -> dict[str, Any]:
    return {
        "name": one.name,
        "type": one.entry.type.value,
        "installer": one.installer,
        "folder": one.folder if one.entry.runs_here else None,
        "instances": [instance.name for instance in one.instances],
        "ports": {instance.name: list(instance.ports) for instance in one.instances},
    }


def _process(one: Process, made: MachinePlan) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind.value,
        "service": one.service or None,
        "worker_type": one.worker_type or None,
        "worker_id": one.environ.get("WORKER_ID"),
        "gpu": one.gpu,
        "endpoint": one.endpoint,
        "argv": [hide_secrets(word) for word in one.argv],
        "cwd": one.cwd,
        "log": one.log,
        "environ": shown_variables(one.environ, made.secrets),
        "needs": list(one.needs),
        "health": None if one.health is None else _health(one.health),
        "stop_s": one.stop_s,
    }


def _health(check: HealthCheck) -> dict[str, Any]:
    shown = attrs.asdict(check)
    return {**shown, "url": None if check.url is None else hide_secrets(check.url)}


def _text(made: MachinePlan) -> str:
    gpus = ", ".join(f"{gpu.index}: {clean(gpu.model or 'unknown')}" for gpu in made.gpus) or "none"
    hub = shown_url(made.environ["HUB_REDIS_URL"]) + (", its own" if made.own_redis else "")
    parts = [
        f"Machine    {clean(made.machine_id)}\nFolder     {made.root}\nRedis      {clean(hub)}\nGPUs       {gpus}",
        table(("service", "type", "installer", "instances"), map(_service_row, made.services)),
        table(("instance", "gpu", "listens on", "health"), map(_instance_row, made.instances)),
        table(("worker", "id", "gpu", "works with", "starts after"), map(_worker_row, made.workers)),
    ]
    return "\n\n".join(parts) + "".join(f"\nNote: {clean(hide_secrets(text))}" for text in made.notes)


def _service_row(one: ServicePlan) -> tuple[Any, ...]:
    instances = len(one.instances) if one.entry.runs_here else "elsewhere"
    return (one.name, one.entry.type.value, one.installer, instances)


def _instance_row(one: Process) -> tuple[Any, ...]:
    health = "" if one.health is None else hide_secrets(one.health.url or f"port {one.health.port}")
    return (one.name, one.gpu, one.endpoint, health)


def _worker_row(one: Process) -> tuple[Any, ...]:
    return (one.name, one.environ["WORKER_ID"], one.gpu, one.endpoint, ", ".join(one.needs))
