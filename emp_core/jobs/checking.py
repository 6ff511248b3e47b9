"""What is wrong with a spec: everything, each with the field that it stands in. Values of secrets are not repeated."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import fields

from emp_core.errors import ConfigError
from emp_core.jobs.destinations import destination_problems
from emp_core.jobs.ids import is_job_id, is_service_name
from emp_core.jobs.model import JobSpec
from emp_core.jobs.requirements import NO_REQUIREMENTS, Requirements, in_brief, is_finite, is_text

__all__ = ["is_priority", "problems_of"]

_NAME_MAX = 128
_LABELS_MAX = 50
_LABEL_MAX = 512
_ATTEMPTS_MAX = 1_000_000
_REQUIREMENT_MAX = 65_536
_NAMES = ("type", "customer_id", "user_tier", "region", "pool", "idempotency_key", "traceparent")


def problems_of(given: JobSpec) -> list[str]:
    """Why the queue cannot take the spec as it is; empty when it can."""
    spec: Any = given  # what users pass is not always what the annotations say
    problems: list[str] = []
    if not isinstance(spec.service_required, str) or not is_service_name(spec.service_required):
        problems.append(
            f"service_required: expected 1 to 64 letters, digits, '-', '_' or '.', not {in_brief(spec.service_required)}"
        )
    for name in _NAMES:
        if (value := getattr(spec, name)) is not None:
            problems += _name_problem(name, value)
    if spec.id is not None and not (isinstance(spec.id, str) and is_job_id(spec.id)):
        problems.append("id: expected 1 to 64 letters, digits, '-', '_' or '.'")
    if not is_priority(spec.priority):
        problems.append(f"priority: expected a whole number from 0 to 100, not {in_brief(spec.priority)}")
    if (most := spec.max_attempts) is not None and not (_is_int(most) and 1 <= most <= _ATTEMPTS_MAX):
        problems.append(f"max_attempts: expected a whole number from 1 to {_ATTEMPTS_MAX:,}, not {in_brief(most)}")
    for name in ("estimated_duration_s", "timeout_s"):
        value = getattr(spec, name)
        if value is not None and not (is_finite(value) and value > 0):
            problems.append(f"{name}: expected a number of seconds above 0, not {in_brief(value)}")
    for name in ("start_at", "deadline_at"):
        if (moment := getattr(spec, name)) is not None:
            problems += _moment_problem(name, moment)
    if spec.labels != {}:  # without asking what it is: most jobs have none
        problems += _label_problems(spec.labels)
    if spec.ctx is not None:
        problems += destination_problems(spec.ctx)
    if spec.requirements is not NO_REQUIREMENTS:
        problems += _requirement_problems(spec)
    return problems


def is_priority(value: Any) -> bool:
    """Whether it is a whole number from 0 to 100."""
    return _is_int(value) and 0 <= value <= 100


def _name_problem(name: str, value: Any) -> list[str]:
    if not isinstance(value, str) or not value.strip():
        return [f"{name}: expected a text that is not empty, not {in_brief(value)}"]
    if len(value) > _NAME_MAX or not value.isprintable():
        return [f"{name}: expected at most {_NAME_MAX} printable characters"]
    return []


def _moment_problem(name: str, value: Any) -> list[str]:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        return [f"{name}: expected an aware datetime (with a time zone), not {in_brief(value)}"]
    try:
        value.astimezone(UTC)
    except OverflowError:
        return [f"{name}: expected a time in the years 1 to 9999 in UTC, not {in_brief(value)}"]
    return []


def _requirement_problems(spec: Any) -> list[str]:
    """Requirements may have been made without being read; what no worker could judge would stop all of them."""
    asked: Requirements = spec.requirements
    try:
        Requirements.from_dict({field.name: getattr(asked, field.name) for field in fields(Requirements)})
    except ConfigError as error:
        return list(error.problems)
    if asked.isolation != "none" and spec.customer_id is None:
        return ["requirements.isolation: needs a customer_id"]
    if len(spec.requirement.as_json().encode()) > _REQUIREMENT_MAX:
        return [f"requirements: expected at most {_REQUIREMENT_MAX:,} bytes of JSON in all"]
    return []


def _label_problems(labels: Any) -> list[str]:
    if not isinstance(labels, Mapping) or not all(is_text(text) for pair in labels.items() for text in pair):
        return ["labels: expected texts by name"]
    problems = [] if len(labels) <= _LABELS_MAX else [f"labels: expected at most {_LABELS_MAX}, not {len(labels):,}"]
    if not all(0 < len(name) <= _NAME_MAX for name in labels):
        problems.append(f"labels: expected names of 1 to {_NAME_MAX} characters")
    problems += [
        f"labels.{name[:_NAME_MAX]}: expected at most {_LABEL_MAX} characters, not {len(text):,}"
        for name, text in labels.items()
        if len(text) > _LABEL_MAX
    ]
    return problems


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
