"""Jobs as people see them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve

from emp_core.cli.failures import DONE, FAILED
from emp_core.cli.output import clean, emit, emit_failure, note, path_of
from emp_core.jobs.codec import as_shown
from emp_core.jobs.model import Job
from emp_core.jobs.states import JobState

__all__ = ["age", "as_waited_for", "emit_outcome", "error_of", "job_text", "outcome_text", "size_text"]

_RESULT_MAX = 2000


def emit_outcome(job: Job, *, as_json: bool) -> int:
    """Print how a job ended, for whoever waited for it; gives the exit code."""
    if job.status is JobState.COMPLETED:
        emit(as_waited_for(job), lambda: outcome_text(job), as_json=as_json)
        return DONE
    if as_json:
        emit_failure(error_of(job), as_waited_for(job))
    else:
        note(outcome_text(job))
    return FAILED


def as_waited_for(job: Job) -> dict[str, Any]:
    """A job for whoever waited for it: as it is shown to everybody, but with its result as the connector gave it."""
    shown = as_shown(job)
    return {**shown, "result": job.result} if "result" in shown else shown


def error_of(job: Job) -> dict[str, Any]:
    """Why a job did not complete, as ``error`` stands in ``--json`` output."""
    if job.error is None:
        return {"code": job.status.value, "message": f"job {job.id} is {job.status.value}"}
    return {"code": job.error.code, "message": job.error.message, "details": dict(job.error.details)}


def outcome_text(job: Job) -> str:
    """How a job ended: its outputs, its result, or why it failed."""
    lines = [f"Job {job.id} {job.status.value}{_took(job)}"]
    result = job.result or {}
    lines += (_artifact_line(artifact) for artifact in result.get("artifacts", ()))
    if data := result.get("data"):
        text = json.dumps(data, ensure_ascii=False)
        shown = (
            text if len(text) <= _RESULT_MAX else f"{text[:_RESULT_MAX]}… (emp jobs wait {job.id} --json has it all)"
        )
        lines.append(f"Result     {clean(shown)}")
    if job.status is not JobState.COMPLETED and job.error is not None:
        lines += _error_lines(job)
    if job.status is JobState.FAILED:
        lines.append(f"Try again  emp jobs retry {job.id}")
    return "\n".join(lines)


def _error_lines(job: Job) -> list[str]:
    assert job.error is not None  # noqa: S101 - the caller has looked
    lines = [f"Error      {clean(job.error.code)}: {clean(job.error.message)}"]
    for name, value in job.error.details.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # A traceback keeps its lines; everything else takes one.
        shown = "\n".join(f"    {clean(line)}" for line in text.splitlines()) if "\n" in text else None
        lines.append(f"  {clean(name)}:\n{shown}" if shown else f"  {clean(name)}: {clean(text)[:_RESULT_MAX]}")
    return lines


def _artifact_line(artifact: Mapping[str, Any]) -> str:
    kind, size = artifact.get("media_type", ""), size_text(int(artifact.get("size_bytes", 0)))
    return f"Artifact   {clean(path_of(str(artifact.get('url', ''))))}  ({clean(kind)}, {size})"


def size_text(count: int) -> str:
    """A number of bytes, in the largest unit that fits."""
    amount, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _took(job: Job) -> str:
    parts = []
    if job.started_at is not None and job.finished_at is not None:
        parts.append(f"in {(job.finished_at - job.started_at).total_seconds():.1f} s")
    if job.worker_id:
        parts.append(f"by {clean(job.worker_id)}")
    if job.attempt > 1:
        parts.append(f"in attempt {job.attempt}")
    return " " + " ".join(parts) if parts else ""


def job_text(job: Job) -> str:
    """Everything that is known of a job."""
    lines = []
    shown = as_shown(job)
    for name, value in shown.items():
        if name in ("result", "error", "status"):
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=dict)
        lines.append(f"{name:<18} {clean(text)[:_RESULT_MAX]}")
    return "\n".join([*lines, "", outcome_text(evolve(job, result=shown.get("result")))])


def age(moment: datetime | None) -> str:
    """How long ago, in the largest unit that fits."""
    if moment is None:
        return ""
    passed = datetime.now(UTC) - moment
    for unit, length in (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1))):
        if passed >= length:
            return f"{passed // length}{unit}"
    return f"{max(0, int(passed.total_seconds()))}s"
