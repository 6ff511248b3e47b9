"""What cannot be submitted: refused with every mistake at once, and without repeating a secret."""

import json
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from attrs import evolve

from emp_core.errors import ConfigError, PayloadTooLarge
from emp_core.jobs.codec import encode_spec
from emp_core.jobs.model import Destination, JobSpec
from emp_core.jobs.requirements import Requirements

AT = datetime(2030, 1, 31, 18, 0, 0, 123456, UTC)
STORAGE = {"bucket": "pictures", "accountName": "name", "accountKey": "geheim"}


class ZoneOfNowhere(tzinfo):
    """A time zone that does not say how far from UTC it is: Python counts such a time as naive."""

    def utcoffset(self, _moment: datetime | None) -> None:
        return None

    def tzname(self, _moment: datetime | None) -> str:
        return "nowhere"

    def dst(self, _moment: datetime | None) -> None:
        return None


def problems(spec: JobSpec) -> tuple[str, ...]:
    """What is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        encode_spec(spec, max_payload_bytes=1_000_000)
    return caught.value.problems


def test_every_mistake_of_a_spec_is_told_at_once_with_its_field():
    spec = JobSpec(
        "no such name",
        id="jobs:1",
        priority=101,
        max_attempts=0,
        timeout_s=0,
        estimated_duration_s=float("nan"),
        start_at=datetime(2030, 1, 1),  # noqa: DTZ001
        deadline_at="tomorrow",  # type: ignore[arg-type]
        user_tier="",
        pool="x" * 129,
        region="a\nb",
        labels={"team": 7},  # type: ignore[dict-item]
        requirements={"isolation": "strict"},
    )
    told = [problem.partition(":")[0] for problem in problems(spec)]
    assert sorted(told) == sorted(
        [
            *("service_required", "id", "priority", "max_attempts", "timeout_s", "estimated_duration_s", "start_at"),
            *("deadline_at", "user_tier", "pool", "region", "labels"),
            "requirements.isolation",
        ]
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service_required", ""),
        ("service_required", ".hidden"),
        ("service_required", "a@b"),
        ("service_required", "x" * 65),
        ("service_required", None),
        ("id", "pending"),
        ("id", ""),
        ("id", 7),
        ("priority", -1),
        ("priority", 50.0),
        ("priority", True),
        ("priority", "50"),
        ("max_attempts", True),
        ("max_attempts", 1.5),
        ("timeout_s", -1),
        ("timeout_s", True),
        ("timeout_s", float("inf")),
        pytest.param("timeout_s", 10**400, id="timeout_s-huge"),
        ("timeout_s", "30"),
        ("customer_id", "   "),
        ("customer_id", 7),
        ("user_tier", "a\x00b"),
        ("idempotency_key", "\ud800"),
        ("labels", ["team"]),
        ("labels", {7: "team"}),
        ("labels", {"team": "\ud800"}),
        ("ctx", {"storage": {"accountKey": "geheim"}}),
        ("ctx", Destination(storage={"accountKey": 7})),  # type: ignore[dict-item]
        ("ctx", Destination(storage="geheim")),  # type: ignore[arg-type]
        ("ctx", Destination(prefix=7)),  # type: ignore[arg-type]
        ("ctx", Destination(filename="\ud800")),
        ("start_at", 1900000000),
        ("start_at", datetime(2030, 1, 1, tzinfo=ZoneOfNowhere())),
        ("start_at", datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))),
        ("deadline_at", datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))),
        ("labels", []),
        ("labels", 0),
        ("labels", False),
        ("labels", ""),
        ("labels", None),
    ],
)
def test_a_field_that_cannot_be_used_is_named_and_no_secret_is_repeated(name: str, value: Any):
    [problem] = problems(evolve(JobSpec("echo"), **{name: value}))
    assert problem.startswith(name)
    assert "geheim" not in problem
    problem.encode()


@pytest.mark.parametrize(
    ("name", "most", "too_much"),
    [
        ("labels", {str(n): "" for n in range(50)}, {str(n): "" for n in range(51)}),
        ("labels", {"n" * 128: "v" * 512}, {"n" * 129: "v"}),
        ("labels", {"n": "v" * 512}, {"n": "v" * 513}),
        ("labels", {"n": ""}, {"": "v"}),
        ("max_attempts", 1_000_000, 1_000_001),
        ("requirements", Requirements(models=("m" * 65_500,)), Requirements(models=("m" * 65_536,))),
        ("ctx", Destination(prefix="a/" * 255 + "aa"), Destination(prefix="a/" * 256 + "aa")),
        ("ctx", Destination(storage={"store": "s" * 2048}), Destination(storage={"store": "s" * 2049})),
        (
            "ctx",
            Destination(storage={**STORAGE, "cdnUrl": "https://" + "a" * 2040}),
            Destination(storage={**STORAGE, "cdnUrl": "https://" + "a" * 2041}),
        ),
    ],
    ids=["labels", "names", "values", "no name", "attempts", "requirements", "prefix", "store", "url"],
)
def test_what_stands_beside_the_payload_has_its_limits(name: str, most: Any, too_much: Any):
    """It is kept in Redis's memory with the job, listed with it, and judged by every worker."""
    encode_spec(evolve(JobSpec("echo"), **{name: most}), max_payload_bytes=1_000_000)
    [problem] = problems(evolve(JobSpec("echo"), **{name: too_much}))
    assert problem.startswith(name)
    assert len(problem) < 300


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service_required", "x" * 1_000_000),
        ("priority", 10**5000),
        ("max_attempts", 10**5000),
        ("timeout_s", "x" * 1_000_000),
        ("start_at", "x" * 1_000_000),
        ("customer_id", " " * 1_000_000),
        ("requirements", Requirements(isolation="x" * 1_000_000)),
        ("requirements", Requirements(hardware={"x" * 1_000_000: "much"})),  # type: ignore[dict-item]
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 100 else "",
)
def test_what_is_said_of_a_mistake_does_not_repeat_all_of_it(name: str, value: Any):
    told = "".join(problems(evolve(JobSpec("echo"), **{name: value})))
    assert told.startswith(name)
    assert len(told) < 300


@pytest.mark.parametrize(
    "asked",
    [
        Requirements(hardware={"ram_mb": "16"}),  # type: ignore[dict-item]
        Requirements(capabilities={"c": {"nested": 1}}),
        Requirements(models="abc"),  # type: ignore[arg-type]
        Requirements(hardware=["ram_mb"]),  # type: ignore[arg-type]
    ],
)
def test_requirements_that_were_not_read_are_checked_as_well(asked: Requirements):
    """Every worker judges them: what makes one of them raise would make all of them raise."""
    [problem] = problems(JobSpec("echo", requirements=asked))
    assert problem.startswith("requirements.")


def test_isolation_that_was_not_read_is_checked_as_well():
    assert any(
        "requirements.isolation" in one
        for one in problems(JobSpec("echo", requirements=Requirements((), isolation="x")))
    )


def test_isolation_needs_a_customer():
    assert problems(JobSpec("echo", requirements={"isolation": "loose"})) == (
        "requirements.isolation: needs a customer_id",
    )


@pytest.mark.parametrize("payload", [float("nan"), {"a": float("-inf")}, b"bytes", {"a": {1, 2}}, AT])
def test_a_payload_that_is_no_json_is_refused(payload: Any):
    with pytest.raises(ConfigError, match="the payload is not JSON"):
        encode_spec(JobSpec("echo", payload), max_payload_bytes=1_000_000)


def test_a_payload_that_holds_itself_is_refused():
    payload: dict[str, Any] = {}
    payload["self"] = payload
    with pytest.raises(ConfigError, match="the payload is not JSON"):
        encode_spec(JobSpec("echo", payload), max_payload_bytes=1_000_000)


def test_a_payload_that_is_nested_too_deeply_is_refused():
    payload: list[Any] = []
    for _ in range(100_000):
        payload = [payload]
    with pytest.raises(ConfigError, match="nested too deeply"):
        encode_spec(JobSpec("echo", payload), max_payload_bytes=1_000_000)


def nested(levels: int, value: Any = 1) -> Any:
    """A value below so many lists and objects."""
    for level in range(levels):
        value = {"below": value} if level % 2 else [value]
    return value


def test_a_payload_is_nested_no_deeper_than_everybody_can_read_it():
    """Redis and Python read what they wrote only where their own calls do not stand too deep."""
    wide = [[{"a": "[" * 300}] for _ in range(300)]
    assert encode_spec(JobSpec("echo", {"deep": nested(199), "wide": wide}), max_payload_bytes=1_000_000).payload
    with pytest.raises(ConfigError, match="nested too deeply"):
        encode_spec(JobSpec("echo", {"deep": nested(200), "wide": wide}), max_payload_bytes=1_000_000)


@pytest.mark.parametrize("text", ["x", "ü", "狐"])
def test_a_payload_is_measured_in_bytes(text: str):
    payload = {"t": text * 100}
    size = len(json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode())
    assert encode_spec(JobSpec("echo", payload), max_payload_bytes=size).payload
    with pytest.raises(PayloadTooLarge, match=f"has {size:,} bytes, at most {size - 1:,} are taken"):
        encode_spec(JobSpec("echo", payload), max_payload_bytes=size - 1)
