"""Between a job and its form in Redis: a flat hash of texts without defaults, and the payload apart from it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite
from sys import intern
from typing import Any

import cattrs
from attrs import evolve, frozen

from emp_core.errors import ConfigError, PayloadTooLarge, QueueError
from emp_core.jobs.checking import problems_of
from emp_core.jobs.destinations import shown_storage
from emp_core.jobs.digests import digest_of
from emp_core.jobs.inputs import INPUT_KEY, inputs_of, without_contents
from emp_core.jobs.model import DEFAULT_PRIORITY, Artifact, Destination, Job, JobError, JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.requirements import Requirement, in_brief, kind_of
from emp_core.jobs.states import JobState
from emp_core.log.redaction import hide_secrets, without_secrets

__all__ = [
    "EncodedSpec",
    "as_shown",
    "decode_job",
    "dumps",
    "encode_error",
    "encode_result",
    "encode_spec",
    "from_us",
    "loads",
    "sendable",
    "to_us",
    "told",
]

_TEXTS = ("customer_id", "user_tier", "region", "pool", "traceparent", "idempotency_key")
_NUMBERS = ("estimated_duration_s", "timeout_s")
_KEY, _KEY_FIELD = "accountKey", "ctx_key"
_DEEPEST = 200
"""Python's own JSON reads what it wrote only where calls do not stand deeper than they did there."""
_TOLD_MAX = 8_000
"""A service may put a whole page into its message."""
_PROBLEM_MAX = 200

_converter = cattrs.Converter()
_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_decode = json.JSONDecoder().raw_decode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _quick_encoder() -> Callable[[Any, int], Iterable[str]]:
    """What ``_encoder`` makes anew for every text, where Python has it in C: that takes longer than a short text does."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, _: (_encoder.encode(value),)
    quick: Callable[[Any, int], Iterable[str]] = make(
        None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False
    )
    return quick


_encode = _quick_encoder()


def dumps(value: Any) -> str:
    """Compact JSON.

    Raises:
        TypeError, ValueError: JSON cannot hold this (NaN included).
        RecursionError: it is nested too deeply.
    """
    try:
        return "".join(_encode(value, 0))
    except RecursionError:
        return _encoder.encode(value)  # which looks whether something holds itself


def sendable(text: object, most: int | None = None) -> str:
    """What a service told as Redis takes it, ``most`` characters of it: what UTF-8 cannot hold becomes a question mark."""
    return str(text)[:most].encode("utf-8", "replace").decode()


def told(text: object, most: int = _TOLD_MAX) -> str:
    """What a service told of a job or of itself, as it may stand in Redis: ``most`` characters of it, without secrets."""
    return hide_secrets(sendable(text, most))


def loads(text: str) -> Any:
    """Read JSON that `dumps` or a script wrote: nothing stands around it, and nobody looks whether something does."""
    return _decode(text)[0]


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (moment - _EPOCH) // _MICROSECOND


def from_us(text: str | float | None) -> datetime | None:
    """The datetime of microseconds since 1970, as Redis has them.

    Raises:
        ValueError, OverflowError: no number, or no time in the years 1 to 9999.
    """
    return _EPOCH + int(text) * _MICROSECOND if text else None


@frozen
class EncodedSpec:
    """A spec ready for the submit script."""

    fields: Sequence[str]
    """Names and values in turn, for the job's hash."""
    payload: str
    digest: str
    """Of all that the submitter said, where it is needed: see `digest_of`."""
    lane: str
    requirement: str


def encode_spec(spec: JobSpec, *, max_payload_bytes: int, said: JobSpec | None = None) -> EncodedSpec:
    """Check a spec and put it into the form that it has in Redis.

    Args:
        said: the spec as the submitter gave it, where a plugin added to it since: a repeated submit is told by that.

    Raises:
        ConfigError: fields that cannot be used; lists all of them.
        PayloadTooLarge: the payload's JSON is longer than ``max_payload_bytes``.
    """
    _refuse_what_is_wrong(spec)
    payload = _payload_json(spec, max_payload_bytes)
    lane, requirement = _lane_of(spec.requirement)
    pairs: list[str] = ["service_required", spec.service_required]
    if spec.type is not None and spec.type != spec.service_required:
        pairs += ("type", spec.type)
    if spec.priority != DEFAULT_PRIORITY:
        pairs += ("priority", str(int(spec.priority)))  # the text of a number with a name of its own is that name
    if lane != spec.service_required:
        pairs += ("lane", lane, "requirement", requirement)
    for name in _TEXTS:
        if (value := getattr(spec, name)) is not None:
            pairs += (name, value)
    for name in _NUMBERS:
        if (value := getattr(spec, name)) is not None:
            pairs += (name, repr(float(value)))
    if spec.max_attempts is not None:
        pairs += ("max_attempts", str(int(spec.max_attempts)))
    if spec.labels:
        pairs += ("labels", dumps(dict(spec.labels)))
    if spec.ctx is not None:
        pairs += _ctx_pairs(spec.ctx)
    if spec.start_at is not None:
        pairs += ("start_at", str(to_us(spec.start_at)))
    if spec.deadline_at is not None:
        pairs += ("deadline_at", str(to_us(spec.deadline_at)))
    digest = ""
    if spec.id is not None or spec.idempotency_key is not None:
        digest = digest_of(pairs, payload) if said is None or said is spec else _digest_of(said, max_payload_bytes)
        pairs += ("digest", digest.partition(" ")[0])
    return EncodedSpec(pairs, payload, digest, lane, requirement)


def _digest_of(said: JobSpec, max_payload_bytes: int) -> str:
    return encode_spec(said, max_payload_bytes=max_payload_bytes).digest


def _refuse_what_is_wrong(spec: JobSpec) -> None:
    if problems := problems_of(spec):
        raise ConfigError("the job cannot be submitted as it is", problems=tuple(problems))


def _lane_of(requirement: Requirement) -> tuple[str, str]:
    if requirement is Requirement.plain(requirement.service):
        return requirement.service, _plain_json(requirement.service)
    return requirement.lane, requirement.as_json()


def _payload_json(spec: JobSpec, max_payload_bytes: int) -> str:
    try:
        payload = dumps(spec.payload)
        size = len(payload) if payload.isascii() else len(payload.encode())
    except RecursionError as error:
        raise ConfigError("the payload is not JSON: it is nested too deeply") from error
    except (TypeError, ValueError) as error:  # UnicodeEncodeError among them: half a surrogate pair is no text
        raise ConfigError(f"the payload is not JSON: {error}") from error
    if size > max_payload_bytes:
        raise PayloadTooLarge(
            f"the payload has {size:,} bytes, at most {max_payload_bytes:,} are taken",
            hint="put files into an artifact store and refer to them, or raise EMP_MAX_PAYLOAD_BYTES",
        )
    # By its text: payloads without many brackets, and without files, as most are, are not walked through.
    if payload.count("[") + payload.count("{") > _DEEPEST and _is_deeper_than(_DEEPEST, spec.payload):
        raise ConfigError(f"the payload is nested too deeply: more than {_DEEPEST} lists and objects within each other")
    if f'"{INPUT_KEY}"' in payload and (problems := inputs_of(spec.payload)[1]):
        raise ConfigError("the job's files cannot be used", problems=tuple(problems))
    return payload


def _is_deeper_than(levels: int, value: Any) -> bool:
    """Whether there are more lists and objects within each other. Level by level: calls cannot be nested as deeply as values."""
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list | tuple)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list | tuple) for one in level)


def decode_job(job_id: str, fields: Mapping[str, str], payload: str | None = None, *, max_attempts: int = 1) -> Job:
    """A job from its hash. What cannot be read of it is left out, and told in its ``unreadable``.

    Args:
        max_attempts: what holds for a job that does not say its own number.

    Raises:
        QueueError: its state is none that is known here.
    """
    service = fields.get("service_required", "")
    known: dict[str, Any] = {"id": job_id, "service_required": service, "type": service, "max_attempts": max_attempts}
    unreadable: list[str] = []
    # By what is there, not by what could be: most jobs have a third of it, and a worker does this for every job.
    for name, text in fields.items():
        if (decode := _DECODERS.get(name)) is not None:
            try:
                # By the one text of the name: Python looks for an argument's name itself before it compares texts.
                known[intern(name)] = decode(text)
            except Exception as error:  # whatever is wrong with one of them, the others can be told
                unreadable.append(_problem(name, error))
    if "status" not in known:
        raise QueueError(
            f"job {job_id} is in a state that is not known here: {in_brief(fields.get('status'))}",
            hint="a newer version of emp may have put it there: use that one",
        )
    if "requirement" not in known:
        known["requirement"] = Requirement.plain(service)
    if _KEY_FIELD in fields and "ctx" in known:
        known["ctx"] = _with_key(known["ctx"], fields[_KEY_FIELD])
    if payload is not None:
        try:
            known["payload"] = loads(payload)
        except Exception as error:
            unreadable.append(_problem("payload", error))
    if unreadable:
        known["unreadable"] = tuple(unreadable)
    return Job(**known)


def _problem(name: str, error: Exception) -> str:
    return f"{name}: {type(error).__name__}: {error}"[:_PROBLEM_MAX]


def _number(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"expected a number, not {text}")
    return number


def _object(text: str) -> dict[str, Any]:
    value = loads(text)
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, not {kind_of(value)}")
    return value


def _destination(text: str) -> Destination:
    ctx = Destination(**_object(text))
    if not isinstance(ctx.storage, dict | None):
        raise TypeError(f"expected an object as storage, not {kind_of(ctx.storage)}")
    return ctx


def _ctx_pairs(ctx: Destination) -> tuple[str, ...]:
    """The key of a job's own store stands by itself: it is taken away as soon as nobody needs it any more."""
    told = {name: value for name, value in _converter.unstructure(ctx).items() if value is not None}
    if ctx.storage is None or _KEY not in ctx.storage:
        return ("ctx", dumps(told))
    told["storage"] = {name: value for name, value in ctx.storage.items() if name != _KEY}
    return ("ctx", dumps(told), _KEY_FIELD, ctx.storage[_KEY])


def _with_key(ctx: Destination, key: str) -> Destination:
    return evolve(ctx, storage={**(ctx.storage or {}), _KEY: key})


_STATES = {state.value: state for state in JobState}
_DECODERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys((*_TEXTS, "type", "service_required", "worker_id", "machine_id", "message", "service_job_id"), str),
    **dict.fromkeys(("priority", "max_attempts", "attempt", "crashes", "returned"), int),
    **dict.fromkeys((*_NUMBERS, "progress"), _number),
    **dict.fromkeys(("created_at", "start_at", "deadline_at", "started_at", "finished_at"), from_us),
    **dict.fromkeys(("labels", "result", "usage"), _object),
    "status": _STATES.__getitem__,
    "ctx": _destination,
    "requirement": Requirement.from_json,
    "error": lambda text: JobError(**_object(text)),
    "cancel_requested": bool,
}
"""Fields of the hash that a job has, and how each is read; the others are the scripts' own."""


@lru_cache(maxsize=1024)
def _plain_json(service: str) -> str:
    return Requirement.plain(service).as_json()


def encode_result(result: JobResult) -> str:
    """A result in the form that it has in the job: ``{success, data, artifacts}``."""
    artifacts = [_artifact_dict(artifact) for artifact in result.artifacts]
    return dumps({"success": True, "data": dict(result.data), "artifacts": artifacts})


def _artifact_dict(artifact: Artifact) -> dict[str, Any]:
    shown: dict[str, Any] = _converter.unstructure(artifact)
    return shown


def encode_error(error: JobError) -> str:
    """An error in the form that it has in the job."""
    return dumps(_converter.unstructure(error))


def as_shown(job: Job) -> dict[str, Any]:
    """A job for people and programs outside: ISO times, nothing that was not said, secrets hidden."""
    shown: dict[str, Any] = {}
    for name in _SHOWN:
        value = getattr(job, name)
        if value is None or value in ("", {}, ()):
            continue
        shown[name] = value.isoformat() if isinstance(value, datetime) else value
    shown["status"] = job.status.value
    if "payload" in shown:
        shown["payload"] = without_contents(shown["payload"])
    for name in _SAID_BY_OTHERS:
        if name in shown:
            shown[name] = without_secrets(shown[name])
    shown["requirements"] = job.requirements.as_dict()
    if not shown["requirements"]:
        del shown["requirements"]
    if job.error is not None:
        shown["error"] = _converter.unstructure(job.error)
    if job.ctx is not None:
        ctx = {k: v for k, v in _converter.unstructure(job.ctx).items() if v is not None}
        if "storage" in ctx:
            ctx["storage"] = shown_storage(ctx["storage"])
        shown["ctx"] = ctx
    return shown


_SAID_BY_OTHERS = ("payload", "labels", "result", "usage")
"""What submitters and services put into a job, and nobody has looked through yet."""
_SHOWN = (
    *("id", "type", "service_required", "status", "priority", "payload", "customer_id", "user_tier", "region", "pool"),
    *("requirements", "labels", "idempotency_key", "estimated_duration_s", "max_attempts", "timeout_s", "traceparent"),
    *(
        "created_at",
        "start_at",
        "deadline_at",
        "started_at",
        "finished_at",
        "attempt",
        "crashes",
        "returned",
        "worker_id",
        "machine_id",
    ),
    *("progress", "message", "cancel_requested", "result", "error", "service_job_id", "usage", "ctx", "unreadable"),
)
