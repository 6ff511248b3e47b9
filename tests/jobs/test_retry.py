"""What becomes of a failed attempt is decided by its error's type alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_core import errors
from emp_core.jobs.outcomes import Failed, Release, Retry
from emp_core.jobs.retry import Backoff, job_error, outcome_of

BACKOFF = Backoff(2.0, 300.0)
PERMANENT = {
    "InvalidJob",
    "ContentRefused",
    "NotRepeated",
    "InputError",
    "AddressRefused",
    "UnsafeName",
    "DeadlineExceeded",
}
ELSEWHERE = {"MissingModel", "MissingNode", "NotHere"}
PAUSES = {"AuthenticationFailed", "QuotaExhausted", "StorageRefused", "StorageUnavailable"}
ALL = [*(getattr(errors, name) for name in errors.__all__), RuntimeError, ValueError, ExceptionGroup]
COUNTS = [kind for kind in ALL if kind.__name__ not in PERMANENT | ELSEWHERE | PAUSES]


def raised(kind: Any) -> Exception:
    made: Exception = kind("it", [ValueError()]) if kind is ExceptionGroup else kind("it")
    return made


def outcome(error: Exception, *, attempt: int = 1, max_attempts: int = 3, backoff: Backoff = BACKOFF) -> Any:
    return outcome_of(error, attempt=attempt, max_attempts=max_attempts, backoff=backoff)


@pytest.mark.parametrize("name", sorted(PERMANENT))
@pytest.mark.parametrize("attempt", [1, 3])
def test_what_no_attempt_can_mend_fails_for_good(name: str, attempt: int):
    given = outcome(getattr(errors, name)("it"), attempt=attempt)
    assert given == Failed(job_error(getattr(errors, name)("it"), retryable=False))


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
@pytest.mark.parametrize("attempt", [1, 3, 4])
def test_what_only_this_worker_lacks_goes_elsewhere_and_is_no_attempt(name: str, attempt: int):
    error = getattr(errors, name)("it")
    assert outcome(error, attempt=attempt) == Release(job_error(error, retryable=True), avoid_worker=True)


@pytest.mark.parametrize("name", sorted(PAUSES))
@pytest.mark.parametrize("attempt", [1, 3])
def test_what_pauses_the_service_gives_the_job_back_without_keeping_it_away(name: str, attempt: int):
    error = getattr(errors, name)("it")
    assert outcome(error, attempt=attempt) == Release(job_error(error, retryable=True), avoid_worker=False)


@pytest.mark.parametrize("kind", COUNTS)
def test_everything_else_is_tried_again_as_long_as_there_are_attempts(kind: type[Exception]):
    for attempt in (1, 2):
        assert isinstance(outcome(raised(kind), attempt=attempt), Retry)
    for attempt in (3, 4):
        given = outcome(raised(kind), attempt=attempt)
        assert isinstance(given, Failed)
        assert given.error.retryable, "another attempt might have gone better"


@pytest.mark.parametrize("kind", ALL)
def test_one_attempt_is_never_followed_by_another(kind: type[Exception]):
    assert not isinstance(outcome(raised(kind), max_attempts=1), Retry)


def test_elsewhere_is_better_after_a_failure_and_a_busy_service_is_the_same_everywhere():
    assert outcome(errors.ServiceUnavailable("it")).avoid_worker
    assert outcome(RuntimeError("it")).avoid_worker
    assert not outcome(errors.ServiceBusy("it")).avoid_worker
    assert not outcome(errors.RateLimited("it")).avoid_worker


def test_out_of_memory_is_tried_at_once_here_and_then_elsewhere():
    assert outcome(errors.OutOfMemory("it"), attempt=1) == Retry(
        job_error(errors.OutOfMemory("it"), retryable=True), 0.0, avoid_worker=False
    )
    second = outcome(errors.OutOfMemory("it"), attempt=2)
    assert (second.delay_s, second.avoid_worker) == (0.0, True)


@pytest.mark.parametrize("kind", [errors.ServiceBusy, errors.RateLimited])
def test_a_service_that_says_how_long_is_waited_for_at_least_so_long(kind: type[errors.ServiceBusy]):
    assert outcome(kind("it", retry_after_s=1000.0)).delay_s == 1000.0
    assert 2.0 <= outcome(kind("it", retry_after_s=0.5)).delay_s <= 4.0
    assert 2.0 <= outcome(kind("it")).delay_s <= 4.0
    assert outcome(kind("it", retry_after_s=0.0), backoff=Backoff(0.0)).delay_s == 0.0


@given(
    base_s=st.floats(0.001, 1000), max_s=st.floats(0.001, 10_000), attempt=st.integers(1, 10) | st.integers(1, 10**6)
)
def test_delays_double_with_a_jitter_up_to_their_limit(base_s: float, max_s: float, attempt: int):
    delay_s = Backoff(base_s, max_s).delay_s(attempt)
    least = min(base_s * 2.0 ** min(attempt - 1, 200), max_s)
    assert least * 0.999999 <= delay_s <= max_s
    assert delay_s <= (least + base_s) * 1.000001


@pytest.mark.parametrize("attempt", [1, 2, 50])
def test_zero_means_at_once(attempt: int):
    assert Backoff(0.0).delay_s(attempt) == 0.0
    assert Backoff(2.0, 0.0).delay_s(attempt) == 0.0


def test_delays_are_not_the_same_for_all():
    assert len({Backoff().delay_s(1) for _ in range(20)}) > 1


def test_an_error_is_kept_without_its_hint_and_with_its_details():
    error: errors.EmpError = errors.JobFailed("node 7 failed", hint="for our own log", details={"node": 7})
    kept = job_error(error, retryable=True)
    assert (kept.code, kept.message, kept.retryable, kept.details) == ("job_failed", "node 7 failed", True, {"node": 7})
    other = job_error(KeyError("x"), retryable=False)
    assert (other.code, other.message, other.details) == ("unexpected", "KeyError: 'x'", {})
