"""`emp submit`: put a job into the queue."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import click

from emp_core.cli.failures import DONE
from emp_core.cli.following import follow
from emp_core.cli.hub import open_queue, prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, json_option, note, warn
from emp_core.cli.payload import apply_fields, read_payload
from emp_core.cli.showing import emit_outcome
from emp_core.cli.times import SECONDS, deadline, delay, moment
from emp_core.config import Settings
from emp_core.jobs.codec import as_shown, dumps
from emp_core.jobs.model import DEFAULT_PRIORITY, Destination, Job, JobSpec
from emp_core.jobs.requirements import Requirements
from emp_core.queue.queue import JobQueue

__all__ = ["submit"]

_CTX_EXAMPLE = '{"storage": {"store": "final"}, "prefix": "shots/010", "retention": "draft"}'
_REQUIREMENTS_EXAMPLE = '{"hardware": {"gpu_memory_mb": 16000}}'


def _requirements(_context: click.Context, _parameter: click.Parameter, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"expected a JSON object such as {_REQUIREMENTS_EXAMPLE}: {error}") from None
    if not isinstance(given, dict):
        raise click.BadParameter(f"expected a JSON object such as {_REQUIREMENTS_EXAMPLE}")
    return given


def _destination(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Destination | None:
    if text is None:
        return None
    try:
        given = json.loads(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except OSError as error:
        raise click.BadParameter(f"{text[1:]} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise click.BadParameter(f"expected a JSON object such as {_CTX_EXAMPLE}, or @FILE with one") from None
    known = [field.name for field in attrs.fields(Destination)]
    if not isinstance(given, dict) or not given.keys() <= set(known):
        raise click.BadParameter(f"expected a JSON object such as {_CTX_EXAMPLE}; it may have {', '.join(known)}")
    return Destination(**given)


def _labels(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    labels = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"expected NAME=VALUE, not {one!r}")
        labels[name] = value
    return labels


@click.command()
@click.argument("service")
@click.argument("payload", required=False, metavar="[FILE|-|JSON]")
@click.option(
    "-p",
    "--param",
    "fields",
    multiple=True,
    metavar="K=V",
    help="Set a field of the payload; @FILE is a file; repeatable.",
)
@click.option(
    "--priority", type=click.IntRange(0, 100), default=DEFAULT_PRIORITY, show_default=True, help="More is sooner."
)
@click.option("--wait", is_flag=True, help="Wait until the job is done; exit 1 when it failed.")
@click.option("--wait-timeout", type=SECONDS, metavar="S", help="Wait at most so many seconds; the job goes on.")
@click.option(
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Wait, and copy the outputs into this folder.",
)
@click.option(
    "--ctx",
    callback=_destination,
    metavar="JSON|@FILE",
    help="Where the outputs go, as a JSON object, or a file with it.",
)
@click.option("--strict", is_flag=True, help="Refuse the job when no live worker can run it.")
@click.option("--idempotency-key", metavar="KEY", help="Submitting again under the same key gives the same job.")
@click.option("--id", "job_id", metavar="ID", help="An id of your own; made when not given.")
@click.option("--type", "job_type", metavar="TYPE", help="What kind of job it is; the service's name when not given.")
@click.option("--customer", metavar="ID", help="Whose job it is.")
@click.option("--label", "labels", multiple=True, callback=_labels, metavar="K=V", help="A label; repeatable.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="S", help="How long one attempt may take.")
@click.option("--max-attempts", type=click.IntRange(1), metavar="N", help="Attempts before the job fails.")
@click.option(
    "--start-at", callback=moment, metavar="TIME", help="Not before this time (ISO 8601; local without a zone)."
)
@click.option(
    "--delay", "later", type=SECONDS, callback=delay, metavar="S", help="Not before so many seconds from now."
)
@click.option(
    "--deadline",
    callback=deadline,
    metavar="S|TIME",
    help="The job fails when it is not done so many seconds from now, or by this time.",
)
@click.option(
    "--model", "models", multiple=True, metavar="NAME", help="A model that the service must have; repeatable."
)
@click.option(
    "--requirements", callback=_requirements, metavar="JSON", help="What the worker must have, as a JSON object."
)
@click.option("--pool", metavar="NAME", help="Only workers of this pool.")
@click.option("--region", metavar="NAME", help="Only workers in this region.")
@json_option
def submit(
    service: str,
    payload: str | None,
    fields: tuple[str, ...],
    wait: bool,
    wait_timeout: float | None,
    folder: Path | None,
    strict: bool,
    as_json: bool,
    start_at: datetime | None,
    later: datetime | None,
    **given: Any,
) -> int:
    """Put a job for SERVICE into the queue, and print its id.

    The payload is a JSON object: a file, `-` for stdin, or the object itself in quotes; `{}` when not given. `-p` sets
    fields of it: VALUE is taken as JSON if it is JSON, else as text, and dots lead into nested fields. @FILE hands over a
    file (@- what comes from stdin): in the payload if it is small, through the artifact store otherwise.

    With --wait, progress is shown, then the outputs and the result; with --json, the job as JSON. Ctrl-C while waiting
    leaves the job running.

    \b
    Examples:
      emp submit comfyui workflow.json --wait
      emp submit comfyui workflow.json -p 10.inputs.image=@photo.png --output results
      emp submit comfyui workflow.json -p 6.inputs.text="a red fox" -p 3.inputs.seed=7 --wait
      echo '{"hello": 1}' | emp submit echo - --wait --json
      emp submit echo '{"hello": 1}' --priority 80 --label team=art --deadline 600
      emp submit comfyui workflow.json --ctx '{"storage": {"store": "final"}, "prefix": "shots/010"}'
      emp submit comfyui workflow.json --model sd_xl_base_1.0.safetensors --requirements '{"hardware": {"gpu_memory_mb": 16000}}'
    """
    if start_at is not None and later is not None:
        raise click.UsageError("the start is given twice: as --start-at and as --delay")
    settings = prepared(quiet=("emp.submit",))
    if folder is not None:
        from emp_core.cli.saving import check_folder

        check_folder(folder)
    body = read_payload(payload, max_bytes=settings.max_payload_bytes)
    apply_fields(body, fields, _handed_over(fields, settings, body, given["customer"]))
    spec = JobSpec(
        service_required=service,
        payload=body,
        type=given["job_type"],
        id=given["job_id"],
        priority=given["priority"],
        customer_id=given["customer"],
        max_attempts=given["max_attempts"],
        timeout_s=given["timeout"],
        start_at=start_at or later,
        idempotency_key=given["idempotency_key"],
        labels=given["labels"],
        deadline_at=given["deadline"],
        ctx=given["ctx"],
        requirements=_asked(given["requirements"], given["models"]),
        pool=given["pool"],
        region=given["region"],
    )
    waiting = wait or wait_timeout is not None or folder is not None
    submitted: list[Job] = []
    try:
        return run_async(_submit, settings, spec, strict, waiting, wait_timeout, folder, as_json, submitted.append)
    except KeyboardInterrupt:
        for job in submitted:
            note(f"job {job.id} goes on; `emp jobs wait {job.id}` waits on, `emp jobs cancel {job.id}` cancels it")
        raise


def _handed_over(
    fields: tuple[str, ...], settings: Settings, body: dict[str, Any], customer: str | None
) -> Mapping[str, Any]:
    """What stands in the payload for the files among the fields, by their assignments."""
    if not any("=@" in field for field in fields):
        return {}
    from emp_core.cli.attaching import attachments_in, payload_values

    with attachments_in(fields) as attachments:
        used = len(dumps(body)) + sum(map(len, fields))
        return run_async(payload_values, attachments, settings, used, customer)


def _asked(requirements: dict[str, Any], models: tuple[str, ...]) -> Requirements:
    """The requirements with the models that were named apart."""
    asked = Requirements.from_dict(requirements)
    return Requirements.from_dict({**asked.as_dict(), "models": [*asked.models, *models]})


async def _submit(
    settings: Settings,
    spec: JobSpec,
    strict: bool,
    waiting: bool,
    limit_s: float | None,
    folder: Path | None,
    as_json: bool,
    on_submitted: Callable[[Job], None],
) -> int:
    async with open_queue(settings) as queue:
        job = await queue.submit(spec, strict=strict)
        on_submitted(job)
        await _warn_if_unserved(queue, job)
        if not waiting:
            emit(as_shown(job), job.id, as_json=as_json)
            return DONE
        if not as_json:
            note(f"job {job.id}")
        done = await follow(queue, job.id, limit_s=limit_s, silent=as_json)
    code = emit_outcome(done, as_json=as_json)
    if folder is not None:
        await _save(done, folder, settings, spec.ctx)
    return code


async def _save(job: Job, folder: Path, settings: Settings, ctx: Destination | None) -> None:
    from emp_core.cli.saving import save_outputs

    for path in await save_outputs(job, folder, settings, ctx):
        note(f"Saved      {path}")


async def _warn_if_unserved(queue: JobQueue, job: Job) -> None:
    """Pass on what the queue noted about the job when it came."""
    for event in await queue.history(job.id):
        if event.name == "unserved":
            reasons = clean("; ".join(map(str, event.data.get("reasons", ()))))
            warn(
                f"nobody serves {job.service_required} now, so the job waits until a worker does: {reasons} "
                "(`emp services` lists what workers can be started for)"
            )
            return
