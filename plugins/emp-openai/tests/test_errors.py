"""What an answer that is no success means, by status, type and code."""

import json
from typing import Any

import pytest
from emp_openai.errors import error_of_answer, error_of_event

from emp_core.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ContentRefused,
    EmpError,
    InvalidJob,
    JobFailed,
    MissingModel,
    QuotaExhausted,
    RateLimited,
    ServiceBusy,
    ServiceUnavailable,
)


def answered(status: int, error: Any = None, headers: dict[str, str] | None = None) -> EmpError:
    body = error if isinstance(error, str) else json.dumps({"error": error} if error is not None else {})
    return error_of_answer(status, headers or {}, body, endpoint="http://there/v1", doing="POST /chat/completions")


def broke_off(**error: Any) -> EmpError:
    return error_of_event({"error": error}, endpoint="http://there/v1", doing="POST /chat/completions")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidJob),
        (401, AuthenticationFailed),
        (402, QuotaExhausted),
        (403, AuthenticationFailed),
        (404, InvalidJob),
        (408, ConnectionLost),
        (409, ServiceBusy),
        (413, InvalidJob),
        (422, InvalidJob),
        (425, ServiceBusy),
        (429, RateLimited),
        (500, JobFailed),
        (501, InvalidJob),
        (502, ServiceUnavailable),
        (503, ServiceUnavailable),
        (504, ServiceUnavailable),
        (529, ServiceBusy),
    ],
)
@pytest.mark.parametrize(
    "body", ["", "Internal Server Error", "<html>", "{", "[]", "null", '{"error": null}', "[" * 9999]
)
def test_a_status_without_words_has_its_meaning(status: int, kind: type[EmpError], body: str) -> None:
    assert type(answered(status, body)) is kind


@pytest.mark.parametrize(
    "error",
    [
        {"type": "insufficient_quota", "code": "insufficient_quota", "message": "You exceeded your current quota"},
        {"type": "insufficient_quota", "code": None, "message": "x"},
        {"type": "x", "code": "credit_balance_exhausted", "message": "x"},
        {"type": "x", "code": "billing_hard_limit_reached", "message": "x"},
        {"type": "x", "code": "billing_not_active", "message": "x"},
        {"type": "x", "code": "monthly_spend_limit_exceeded", "message": "x"},
        {"type": "x", "code": "usage_limit_exceeded", "message": "x"},
    ],
)
@pytest.mark.parametrize("status", [400, 403, 429])
def test_money_is_told_by_type_and_code_whatever_the_status(status: int, error: dict[str, Any]) -> None:
    assert type(answered(status, error)) is QuotaExhausted


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "slow_down", "chaos_ratelimit", 429])
def test_a_rate_is_no_money(code: Any) -> None:
    error = answered(429, {"type": "requests", "code": code, "message": "Rate limit"}, {"retry-after-ms": "250"})
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 0.25


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"type": "image_generation_user_error", "code": "moderation_blocked", "message": "safety system"}),
        (400, {"code": "content_policy_violation", "message": "x"}),
        (400, {"code": "content_filter", "message": "Azure's filter"}),
        (400, {"code": "invalid_prompt", "message": "flagged as potentially violating our usage policy"}),
        (403, {"code": 403, "message": "Input was flagged", "metadata": {"reasons": ["x"], "flagged_input": "…"}}),
    ],
)
def test_refused_content_has_its_own_code(status: int, error: dict[str, Any]) -> None:
    assert answered(status, error).code == "content_refused"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, {"code": "model_not_found", "message": "The model `x` does not exist"}),
        (403, {"code": "model_not_found", "message": "You are not allowed to use this model"}),
        (404, {"type": "not_found_error", "code": None, "message": "model 'nope' not found"}),
        (400, {"message": "Invalid model name passed in model=nope"}),
    ],
)
def test_a_model_that_is_not_there_is_missing(status: int, error: dict[str, Any]) -> None:
    assert type(answered(status, error)) is MissingModel


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "context_length_exceeded", "message": "too long"}),
        (400, {"type": "exceed_context_size_error", "message": "request (9002 tokens) exceeds"}),
        (400, {"message": "This model's maximum context length is 8192 tokens"}),
        (500, {"code": 500, "message": "input (9002 tokens) is too large to process", "type": "server_error"}),
    ],
)
def test_what_is_too_long_says_so(status: int, error: dict[str, Any]) -> None:
    told = answered(status, error)
    assert type(told) is InvalidJob
    assert told.details["reason"] == "context_exceeded"


@pytest.mark.parametrize(
    "message",
    [
        "[json.exception.parse_error.101] parse error at line 1, column 1",
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "Llama model must be created with embedding=True to call this method",
    ],
)
def test_servers_that_blame_themselves_for_wrong_requests_are_not_asked_again(message: str) -> None:
    assert type(answered(500, {"message": message, "type": "server_error"})) is InvalidJob


@pytest.mark.parametrize("message", ["", "an unexpected error", "Required resource is gone", "Invalid upstream answer"])
def test_other_failures_of_a_server_are_tried_again(message: str) -> None:
    assert type(answered(500, {"message": message, "type": "server_error"})) is JobFailed


def test_x_should_retry_goes_before_the_status() -> None:
    assert type(answered(500, {"message": "x"}, {"x-should-retry": "false"})) is InvalidJob
    assert type(answered(429, {"message": "x"}, {"x-should-retry": "false"})) is InvalidJob
    assert type(answered(503, "", {"x-should-retry": "false"})) is InvalidJob
    assert type(answered(400, {"message": "x"}, {"x-should-retry": "true"})) is JobFailed
    assert type(answered(429, {"message": "x"}, {"x-should-retry": "maybe"})) is RateLimited


def test_an_overloaded_server_is_busy() -> None:
    assert type(answered(503, {"code": "server_is_overloaded", "message": "x"})) is ServiceBusy
    assert type(answered(503, "", {"retry-after": "3"})) is ServiceBusy


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": "some words"}', "some words"),
        ('{"error": {"message": "some words", "type": "x", "param": null, "code": 400}}', "some words"),
        ('{"detail": "some words"}', "some words"),
        ("some words", "some words"),
        ('{"error": "{\\"error\\": {\\"message\\": \\"some words\\"}}"}', "some words"),
    ],
)
def test_the_words_are_found_in_every_shape_of_a_body(body: str, message: str) -> None:
    told = error_of_answer(400, {}, body, endpoint="http://there", doing="POST /x")
    assert told.message == f"http://there answered POST /x with 400: {message}"


def test_an_error_names_the_request() -> None:
    assert answered(500, {"message": "x"}, {"x-request-id": "req_1"}).details["request_id"] == "req_1"
    assert answered(404, {"message": "x"}, {"x-litellm-call-id": "abc"}).details["request_id"] == "abc"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "rate_limit_exceeded", "message": "x"}, RateLimited),
        ({"code": 429, "message": "x"}, RateLimited),
        ({"code": "server_is_overloaded", "message": "x"}, ServiceUnavailable),
        ({"code": 502, "message": "Provider disconnected"}, ServiceUnavailable),
        ({"code": "server_error", "message": "x"}, JobFailed),
        ({"type": "insufficient_quota", "message": "x"}, QuotaExhausted),
        ({"code": "image_content_policy_violation", "message": "x"}, ContentRefused),
        ({"code": "invalid_image", "message": "x"}, InvalidJob),
        ({"code": "image_too_large", "message": "x"}, InvalidJob),
        ({"code": "failed_to_download_image", "message": "x"}, InvalidJob),
        ({"type": "invalid_request_error", "message": "x"}, InvalidJob),
        ({"message": "unexpected EOF"}, ConnectionLost),
        ({"message": "upstream connection closed"}, ConnectionLost),
        ({}, JobFailed),
    ],
)
def test_an_error_in_the_middle_of_an_answer_has_its_meaning(error: dict[str, Any], kind: type[EmpError]) -> None:
    assert type(broke_off(**error)) is kind
