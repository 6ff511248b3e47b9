"""Between a job and its form in Redis: everything comes back, and no secret is shown."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import evolve, fields
from hypothesis import assume, example, given
from hypothesis import strategies as st

from emp_core.jobs.checking import problems_of
from emp_core.jobs.codec import (
    as_shown,
    decode_job,
    dumps,
    encode_error,
    encode_result,
    encode_spec,
    from_us,
    sendable,
    to_us,
)
from emp_core.jobs.model import Artifact, Destination, Job, JobError, JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.states import JobState

from . import offers

AT = datetime(2030, 1, 31, 18, 0, 0, 123456, UTC)
STORAGE = {"bucket": "pictures", "accountName": "name", "accountKey": "geheim"}
SPEC = JobSpec(
    "comfyui",
    payload={"text": "a red fox, grün", "n": [1, 2.5, None, True]},
    type="thumb",
    id="job-1",
    priority=80,
    ctx=Destination(storage=STORAGE, prefix="p/q", filename="f.png", retention="draft"),
    requirements={"models": ["a"], "hardware": {"ram_mb": 1}, "isolation": "loose"},
    customer_id="c1",
    user_tier="gold",
    region="eu",
    pool="fast",
    estimated_duration_s=2.5,
    max_attempts=4,
    timeout_s=30,
    deadline_at=AT + timedelta(hours=1),
    start_at=AT,
    idempotency_key="key",
    labels={"team": "art", "ä": "ö"},
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


def encoded(spec: JobSpec) -> tuple[dict[str, str], str]:
    """The hash and the payload."""
    made = encode_spec(spec, max_payload_bytes=1_000_000)
    return dict(zip(made.fields[::2], made.fields[1::2], strict=True)), made.payload


def read_back(spec: JobSpec, **more: str) -> Job:
    """The job that Redis would give."""
    hash_, payload = encoded(spec)
    return decode_job("job-1", {"status": "pending", **hash_, **more}, payload, max_attempts=3)


def test_every_field_of_a_spec_comes_back():
    job = read_back(SPEC)
    for field in fields(JobSpec):
        assert getattr(job, field.name) == getattr(SPEC, field.name), field.name
    assert job.requirement == SPEC.requirement
    assert job.lane == SPEC.requirement.lane


def test_the_key_of_a_jobs_store_stands_apart_so_that_it_can_go_alone():
    hash_, payload = encoded(SPEC)
    assert hash_["ctx_key"] == "geheim"
    assert not [name for name, text in hash_.items() if "geheim" in text and name != "ctx_key"]
    del hash_["ctx_key"]
    without = decode_job("job-1", {"status": "completed", **hash_}, payload)
    assert without.ctx is not None
    assert without.ctx.storage == {"bucket": "pictures", "accountName": "name"}


def test_what_was_not_said_takes_no_room_and_gets_its_default():
    hash_, payload = encoded(JobSpec("echo"))
    assert (hash_, payload) == ({"service_required": "echo"}, "{}")
    job = read_back(JobSpec("echo"))
    assert (job.type, job.priority, job.max_attempts, job.lane, job.labels) == ("echo", 50, 3, "echo", {})
    assert job.requirement.is_plain


def test_a_type_that_is_the_services_name_takes_no_room():
    assert encoded(JobSpec("echo", type="echo")) == encoded(JobSpec("echo"))


def test_what_the_scripts_write_comes_back():
    job = read_back(
        JobSpec("echo"),
        status="failed",
        attempt="2",
        crashes="1",
        worker_id="w@m",
        machine_id="m",
        progress="37.5",
        message="step 3",
        cancel_requested="1900000000000000",
        created_at=str(to_us(AT)),
        started_at=str(to_us(AT)),
        finished_at=str(to_us(AT)),
        error=encode_error(JobError("job_failed", "it", True, {"node": 7})),
        result=encode_result(JobResult({"a": 1})),
        usage='{"tokens":3}',
        service_job_id="s-1",
    )
    assert (job.status, job.attempt, job.crashes, job.progress, job.message) == (JobState.FAILED, 2, 1, 37.5, "step 3")
    assert (job.worker_id, job.machine_id, job.service_job_id, job.cancel_requested) == ("w@m", "m", "s-1", True)
    assert job.created_at == job.started_at == job.finished_at == AT
    assert job.error == JobError("job_failed", "it", True, {"node": 7})
    assert job.result == {"success": True, "data": {"a": 1}, "artifacts": []}
    assert job.usage == {"tokens": 3}


def test_a_listing_has_no_payload():
    assert decode_job("a", {"status": "pending", "service_required": "echo"}).payload is None


@given(moment=st.datetimes(timezones=st.timezones() | st.just(UTC)))
@example(moment=datetime.max.replace(tzinfo=UTC))
@example(moment=datetime.min.replace(tzinfo=UTC))
@example(moment=datetime.max.replace(tzinfo=timezone(timedelta(hours=12))))
@example(moment=datetime(2255, 6, 5, 23, 47, 34, 740993, UTC))
@example(moment=datetime(1970, 1, 1, tzinfo=UTC))
def test_every_moment_that_is_accepted_comes_back_to_the_microsecond(moment: datetime):
    spec = JobSpec("echo", start_at=moment, deadline_at=moment)
    assume(not problems_of(spec))
    job = read_back(spec)
    assert job.unreadable == ()
    assert job.start_at == job.deadline_at == moment.astimezone(UTC)
    assert as_shown(job)["start_at"] == moment.astimezone(UTC).isoformat()


def test_moments_are_in_utc_whatever_their_zone_was():
    job = read_back(evolve(SPEC, start_at=AT.astimezone(timezone(timedelta(hours=5, minutes=30)))))
    assert job.start_at == AT
    assert job.start_at.tzinfo is UTC
    assert from_us(None) is None


@given(payload=offers.json_values, labels=st.dictionaries(offers.names, offers.names, max_size=2))
def test_every_json_value_comes_back(payload: Any, labels: Mapping[str, str]):
    job = read_back(JobSpec("echo", payload, labels=labels))
    assert (job.payload, job.labels) == (payload, labels)
    assert type(job.payload) is type(payload)


# -- what tells a repeated submit from a different one ---------------------------------------------------------------


def digest(spec: JobSpec) -> str:
    return encoded(spec)[0].get("digest", "")


def test_a_job_without_id_and_key_has_no_digest():
    assert digest(JobSpec("echo")) == ""
    assert digest(JobSpec("echo", id="a")) != ""
    assert digest(JobSpec("echo", idempotency_key="a")) != ""


CHANGES: dict[str, Any] = {
    "service_required": "other",
    "payload": {"text": "a blue fox"},
    "type": "other",
    "priority": 81,
    "ctx": Destination(prefix="other"),
    "requirements": {"models": ["b"]},
    "customer_id": "c2",
    "user_tier": "iron",
    "region": "us",
    "pool": "slow",
    "estimated_duration_s": 3.0,
    "max_attempts": 5,
    "timeout_s": 31.0,
    "deadline_at": AT + timedelta(hours=2),
    "start_at": AT + timedelta(microseconds=1),
    "idempotency_key": "other",
    "labels": {"team": "sound"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_that_the_submitter_says_changes_the_digest(name: str):
    assert digest(evolve(SPEC, **{name: CHANGES[name]})) != digest(SPEC)


def test_the_digest_is_of_what_was_said_alone():
    """Another try of the same call may belong to another trace; the id is how the first one is found."""
    assert CHANGES.keys() == {field.name for field in fields(JobSpec)} - {"id", "traceparent"}
    assert digest(evolve(SPEC, traceparent="other")) == digest(SPEC)
    assert digest(evolve(SPEC, id="other")) == digest(SPEC)


def test_what_moves_from_one_field_to_the_next_changes_the_digest():
    assert digest(JobSpec("echo", id="a", customer_id="x", user_tier="y")) != digest(
        JobSpec("echo", id="a", customer_id="xuser_tiery")
    )


def test_json_is_compact_and_readable_and_nothing_that_json_does_not_know():
    assert dumps({"ä": [1, 2]}) == '{"ä":[1,2]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps(float("nan"))
    with pytest.raises(TypeError, match="datetime is not JSON serializable"):
        dumps([AT])
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(ValueError, match="Circular"):
        dumps(itself)


# -- what is shown --------------------------------------------------------------------------------------------------


def test_secrets_are_not_shown():
    shown = as_shown(read_back(SPEC))
    assert shown["ctx"] == {
        "storage": {"bucket": "pictures", "accountName": "name", "accountKey": "(hidden)"},
        "prefix": "p/q",
        "filename": "f.png",
        "retention": "draft",
    }
    assert "geheim" not in json.dumps(shown)
    assert "geheim" not in repr(SPEC)
    assert "geheim" not in repr(read_back(SPEC))


def test_a_job_is_shown_as_json_without_what_was_not_said():
    shown = as_shown(read_back(JobSpec("echo")))
    assert shown.keys() == {
        *("id", "type", "service_required", "status", "priority", "max_attempts", "attempt", "crashes", "returned"),
        *("progress", "cancel_requested"),
    }
    shown = as_shown(read_back(SPEC, error=encode_error(JobError("c", "m"))))
    assert json.loads(dumps(shown)) == shown
    assert shown["start_at"] == "2030-01-31T18:00:00.123456+00:00"
    assert shown["requirements"] == {"models": ["a"], "hardware": {"ram_mb": 1}, "isolation": "loose"}
    assert shown["error"] == {"code": "c", "message": "m", "retryable": False, "details": {}}


def test_everything_that_is_known_of_a_job_is_shown():
    job = read_back(SPEC)
    apart = {"requirement", "worker_id", "machine_id", "message", "result", "error", "service_job_id", "usage"}
    never_yet = {"created_at", "started_at", "finished_at", "unreadable"}
    assert {field.name for field in fields(Job)} - as_shown(job).keys() == apart | never_yet


def test_a_result_has_its_artifacts_by_reference():
    artifact = Artifact("a.png", "file:///a.png", "image/png", 7, "00", {"node": "9"})
    assert json.loads(encode_result(JobResult({"n": 1}, (artifact,)))) == {
        "success": True,
        "data": {"n": 1},
        "artifacts": [
            {
                "name": "a.png",
                "url": "file:///a.png",
                "media_type": "image/png",
                "size_bytes": 7,
                "sha256": "00",
                "metadata": {"node": "9"},
            }
        ],
    }


@pytest.mark.parametrize(
    ("told", "most", "sent"),
    [
        ("naïve ☕", None, "naïve ☕"),
        ("half \ud83d a cup", None, "half ? a cup"),
        ("long", 3, "lon"),
        (None, 9, "None"),
    ],
)
def test_what_a_service_tells_is_sent_as_far_as_utf_8_can_hold_it(told: object, most: int | None, sent: str):
    assert sendable(told, most) == sent
