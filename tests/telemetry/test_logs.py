"""Logs of the command line."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from emp_core.log.logger import get_logger
from emp_core.log.redaction import hide_secrets, without_secrets
from emp_core.telemetry.logs import configure_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("emp")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])
    logging.getLogger("emp.quiet").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_logs_are_one_object_a_line_on_stderr(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", "json")
    get_logger("emp.test").info("something\nhappened", job="j1")
    [line] = lines(capsys)
    assert (line["event"], line["job"], line["level"], line["logger"]) == (
        "something\nhappened",
        "j1",
        "info",
        "emp.test",
    )
    assert str(line["timestamp"]).endswith("Z")


def test_auto_is_json_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", "auto")
    get_logger("emp.test").warning("said")
    assert lines(capsys)[0]["event"] == "said"


def test_the_console_says_the_same_in_one_readable_line(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", "console")
    get_logger("emp.test").warning("redis is away", url="redis://:geheim@hub/0")
    [line] = capsys.readouterr().err.splitlines()
    assert "redis is away" in line
    assert "hub/0" in line
    assert "geheim" not in line


def test_other_libraries_are_heard_from_warning_on(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", "json")
    logging.getLogger("httpx").info("GET / 200")
    logging.getLogger("httpx").warning("odd: %s", "http://u:geheim@host/?token=abc123")
    [line] = lines(capsys)
    assert line["event"] == "odd: http://(hidden)@host/?token=(hidden)"
    assert line["logger"] == "httpx"


@pytest.mark.parametrize(("level", "heard"), [("debug", 2), ("info", 1), ("error", 0)])
def test_the_level_holds_for_our_own_logs(level: str, heard: int, capsys: pytest.CaptureFixture[str]):
    configure_logs(level, "json")
    log = get_logger("emp.test")
    log.debug("one")
    log.info("two")
    assert len(lines(capsys)) == heard


def test_a_quiet_logger_is_heard_from_error_on(capsys: pytest.CaptureFixture[str]):
    configure_logs("debug", "json", quiet=("emp.quiet",))
    get_logger("emp.quiet").warning("said elsewhere")
    get_logger("emp.quiet").error("not said elsewhere")
    assert [line["event"] for line in lines(capsys)] == ["not said elsewhere"]


def test_secrets_are_hidden_by_their_names_at_any_depth(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", "json")
    storage = {"bucket": "b", "accountKey": "geheim", "inner": [{"API-Key": "geheim", "Authorization": "geheim"}]}
    get_logger("emp.test").info("x", storage=storage, api_key="geheim", token="geheim", max_tokens=5)
    [line] = lines(capsys)
    assert "geheim" not in json.dumps(line)
    assert line["max_tokens"] == 5
    assert line["storage"]["bucket"] == "b"  # type: ignore[index]  # it is what went in


def test_secrets_in_tracebacks_are_hidden(capsys: pytest.CaptureFixture[str]):
    configure_logs("info", "json")
    try:
        raise ValueError("cannot reach redis://default:geheim@host:1")
    except ValueError:
        get_logger("emp.test").exception("failed")
    [line] = lines(capsys)
    assert "ValueError" in str(line["exception"])
    assert "geheim" not in str(line)


def a_failure() -> Exception:
    """One that was raised and caught long ago: whoever logs it does so outside of the ``except``."""

    def where_it_went_wrong() -> None:
        raise ValueError("cannot reach https://store/x?api_key=geheim as redis://default:geheim@host:1")

    try:
        where_it_went_wrong()
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("format_", ["console", "json"])
def test_an_exception_that_was_caught_before_is_logged_with_its_traceback(
    format_: str, capsys: pytest.CaptureFixture[str]
):
    configure_logs("info", format_)
    get_logger("emp.test").error("attempt failed", job="j1", exc_info=a_failure())
    said = capsys.readouterr().err
    assert "attempt failed" in said
    assert "in where_it_went_wrong" in said
    assert "ValueError: cannot reach https://store/x?api_key=(hidden)" in said
    assert "geheim" not in said
    if format_ == "json":
        assert "in where_it_went_wrong" in json.loads(said)["exception"]


def test_the_logs_of_a_program_that_embeds_us_have_the_traceback_without_its_secrets():
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    try:
        get_logger("emp.test").error("attempt failed", job="j1", exc_info=a_failure())
        try:
            raise KeyError("token=geheim")
        except KeyError:
            get_logger("emp.test").exception("and another")
    finally:
        logging.getLogger().removeHandler(handler)
    assert "in where_it_went_wrong" in said.getvalue()
    assert "KeyError: 'token=(hidden)'" in said.getvalue()
    assert "geheim" not in said.getvalue()


def test_handlers_that_want_the_exception_itself_have_it(caplog: pytest.LogCaptureFixture):
    failure = a_failure()
    get_logger("emp.test").error("attempt failed", exc_info=failure)
    [record] = caplog.records
    assert record.exc_info == (ValueError, failure, failure.__traceback__)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:pa@ss@host:6379/0", "redis://(hidden)@host:6379/0"),
        ("redis://user:pa#ss@host and redis://:p/a?ss@host/0", "redis://(hidden)@host and redis://(hidden)@host/0"),
        ("git+https://u:pw@host/@scope/x@main", "git+https://(hidden)@host/@scope/x@main"),
        ("http://host:80/path@2 http://[::1]:80/a@b", "http://host:80/path@2 http://[::1]:80/a@b"),
        ("https://store/x?sv=1&sig=abc%2B&se=2", "https://store/x?sv=1&sig=(hidden)&se=2"),
        ("Authorization: Bearer abcdef123", "Authorization: Bearer (hidden)"),
        ('{"api_key": "abc"}', '{"api_key": "(hidden)"}'),
        ("mail to a@b about http://host/path@2", "mail to a@b about http://host/path@2"),
        ("5 tokens for the secretary", "5 tokens for the secretary"),
        ("?access_token=abc&client_secret='x'&b=1", "?access_token=(hidden)&client_secret='(hidden)'&b=1"),
        ("Authorization: Basic dXNlcjpwdw==", "Authorization: Basic (hidden)"),
        ("a Basic understanding of basic photography", "a Basic understanding of basic photography"),
    ],
)
def test_secrets_in_texts_are_hidden_and_nothing_else(text: str, shown: str):
    assert hide_secrets(text) == shown
    assert hide_secrets(shown) == shown, "hiding again changes nothing"


def test_secrets_in_json_are_hidden_as_deep_as_they_stand_and_nothing_else():
    value: Any = {"n": 1, "max_tokens": 5, "said": ["token=geheim", None], "headers": {"Cookie": {"a": "geheim"}}}
    shown: Any = {"n": 1, "max_tokens": 5, "said": ["token=(hidden)", None], "headers": {"Cookie": "(hidden)"}}
    for _ in range(50):
        value, shown = [{"in": value}], [{"in": shown}]
    assert without_secrets(value) == shown


def test_what_nobody_can_look_through_is_hidden():
    value: Any = "token=geheim"
    for _ in range(900):
        value = [value]
    assert "geheim" not in json.dumps(without_secrets(value))
