"""`emp submit`."""

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from emp_core.jobs.ids import new_job_id

from .conftest import Emp, Hub, environ_of, start

BODY = b'{"hello": 1}'


def test_a_job_is_waited_for_and_printed_as_one_document(on_hub: Emp):
    ended = on_hub("submit", "echo", "-", "--wait", "--json", stdin=BODY)
    assert ended.code == 0
    assert ended.document["ok"] is True
    assert ended.data["status"] == "completed"
    assert ended.data["result"] == {"success": True, "data": {"hello": 1}, "artifacts": []}
    assert ended.err == ""


def test_without_waiting_the_id_alone_is_printed(on_hub: Emp):
    ended = on_hub("submit", "echo", '{"hello": 1}')
    assert ended.code == 0
    assert len(ended.out.split()) == 1
    assert on_hub("jobs", "wait", ended.out.strip(), "--json").data[0]["result"]["data"] == {"hello": 1}


def test_outputs_are_printed_with_paths_that_exist(on_hub: Emp):
    ended = on_hub("submit", "echo", "-p", '$echo.artifact={"name": "ä b.txt", "text": "contents"}', "--wait")
    assert ended.code == 0
    line = next(line for line in ended.out.splitlines() if line.startswith("Artifact"))
    path = Path(line.removeprefix("Artifact").rpartition("  (")[0].strip())
    assert path.read_text() == "contents"


def test_progress_goes_to_stderr_in_lines_where_there_is_no_terminal(on_hub: Emp):
    ended = on_hub("submit", "echo", "-p", "$echo.seconds=0.8", "-p", "$echo.steps=8", "--wait")
    assert ended.code == 0
    assert " % " not in ended.out
    assert "claimed" in ended.err
    assert " %  step " in ended.err


def test_a_job_that_fails_ends_with_1_and_says_why(on_hub: Emp):
    arguments = ("submit", "echo", "-p", "$echo.fail=InvalidJob", "--wait")
    plain = on_hub(*arguments)
    assert plain.code == 1
    assert "invalid_job: the job asked for InvalidJob" in plain.err
    assert "emp jobs retry" in plain.err
    enveloped = on_hub(*arguments, "--json")
    assert enveloped.code == 1
    assert enveloped.error["code"] == "invalid_job"
    assert enveloped.data["status"] == "failed"


def test_a_service_that_nobody_serves_is_warned_of_once_and_refused_when_strict(on_hub: Emp):
    ended = on_hub("submit", "nosuch", "--json")
    assert ended.code == 0
    assert ended.err.count("nobody serves nosuch now") == 1
    assert "it serves echo" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert on_hub("jobs", "cancel", ended.data["id"]).code == 0
    strict = on_hub("submit", "nosuch", "--strict", "--json")
    assert strict.code == 2
    assert strict.error["code"] == "nobody_serves"


def test_a_payload_that_is_too_large_is_refused(on_hub: Emp):
    ended = on_hub("submit", "echo", "-p", f"text={'x' * 2000}", "--json", EMP_MAX_PAYLOAD_BYTES="1000")
    assert ended.code == 2
    assert ended.error["code"] == "payload_too_large"
    assert "EMP_MAX_PAYLOAD_BYTES" in ended.error["hint"]


def test_every_mistake_in_the_payload_is_told_with_its_path_and_nothing_is_submitted(on_hub: Emp):
    before = on_hub("jobs", "ls", "--json").data["counts"]
    ended = on_hub("submit", "echo", "-p", '$echo={"steps": "5", "second": 1}', "--json")
    assert ended.code == 2
    assert ended.error["code"] == "invalid_job"
    assert ended.error["details"]["problems"] == [
        "payload.$echo.steps: expected a whole number, not a text",
        "payload.$echo.second: unknown; known are seconds, steps, fail, fail_attempts, retry_after_s, artifact",
    ]
    said = on_hub("submit", "echo", "-p", '$echo={"steps": "5"}').err
    assert "payload.$echo.steps: expected a whole number, not a text" in said
    assert "emp services schema" in said
    assert on_hub("jobs", "ls", "--json").data["counts"] == before


def test_a_payload_that_is_no_json_is_refused_before_redis_is_asked(emp: Emp):
    ended = emp("submit", "echo", "-", "--json", stdin=b'{"a":\n x}', HUB_REDIS_URL="redis://127.0.0.1:1")
    assert ended.code == 2
    assert ended.error["details"] == {"line": 2, "column": 2}
    assert emp("submit", "echo", "-", stdin=b"[1]").code == 2


def test_the_same_idempotency_key_gives_the_same_job_and_another_body_is_refused(on_hub: Emp):
    key = new_job_id()
    first = on_hub("submit", "echo", '{"n": 1}', "--idempotency-key", key, "--json").data["id"]
    assert on_hub("submit", "echo", '{"n": 1}', "--idempotency-key", key, "--json").data["id"] == first
    other = on_hub("submit", "echo", '{"n": 2}', "--idempotency-key", key, "--json")
    assert other.code == 1
    assert other.error["code"] == "duplicate_job"


def test_every_option_reaches_the_job(on_hub: Emp):
    name = new_job_id()
    options = ("--id", name, "--type", "thumb", "--customer", "c1", "--priority", "80", "--label", "team=art")
    times = ("--timeout", "30", "--max-attempts", "2", "--start-at", "2099-01-01T00:00:00+00:00")
    job = on_hub("submit", "echo", *options, *times, "--json").data
    assert on_hub("jobs", "cancel", name).code == 0
    assert (job["id"], job["type"], job["customer_id"], job["priority"]) == (name, "thumb", "c1", 80)
    assert (job["timeout_s"], job["max_attempts"], job["labels"]) == (30.0, 2, {"team": "art"})
    assert (job["status"], job["start_at"]) == ("scheduled", "2099-01-01T00:00:00+00:00")


def test_what_the_worker_must_have_reaches_the_job(on_hub: Emp):
    asked = '{"hardware": {"gpu_memory_mb": 16000}, "models": ["b"]}'
    options = ("--requirements", asked, "--model", "c", "--model", "a", "--pool", "fast", "--region", "eu")
    job = on_hub("submit", "echo", *options, "--json").data
    assert on_hub("jobs", "cancel", job["id"]).code == 0
    assert job["requirements"] == {"models": ["a", "b", "c"], "hardware": {"gpu_memory_mb": 16000}}
    assert (job["pool"], job["region"]) == ("fast", "eu")
    alone = on_hub("submit", "echo", "--model", "a", "--delay", "3600", "--json").data
    assert on_hub("jobs", "cancel", alone["id"]).code == 0
    assert alone["requirements"] == {"models": ["a"]}


@pytest.mark.parametrize("text", ["[]", "7", "gpu", '{"a":', "null"])
def test_requirements_that_are_no_object_are_refused(on_hub: Emp, text: str):
    ended = on_hub("submit", "echo", "--requirements", text, "--json")
    assert (ended.code, ended.error["code"]) == (2, "usage")
    assert "gpu_memory_mb" in ended.error["message"], "an example tells what is expected"


def test_every_mistake_in_the_requirements_is_told_with_its_path(on_hub: Emp):
    ended = on_hub("submit", "echo", "--requirements", '{"models": "a", "gpu": 1}', "--model", "b", "--json")
    assert (ended.code, ended.error["code"]) == (2, "config")
    assert [problem.partition(":")[0] for problem in ended.error["problems"]] == [
        "requirements.gpu",
        "requirements.models",
    ]


def test_a_deadline_is_a_time_or_seconds_from_now(on_hub: Emp):
    job = on_hub("submit", "echo", "--delay", "3600", "--deadline", "7200", "--json").data
    left = datetime.fromisoformat(job["deadline_at"]) - datetime.now(UTC)
    assert timedelta(seconds=7100) < left <= timedelta(seconds=7200)
    assert on_hub("jobs", "cancel", job["id"]).code == 0
    job = on_hub("submit", "echo", "--delay", "3600", "--deadline", "2099-01-01T00:00:00+01:00", "--json").data
    assert datetime.fromisoformat(job["deadline_at"]) == datetime(2098, 12, 31, 23, tzinfo=UTC)
    assert on_hub("jobs", "cancel", job["id"]).code == 0


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e30", "soon", ""])
def test_a_deadline_that_is_none_is_refused(on_hub: Emp, text: str):
    assert on_hub("submit", "echo", "--deadline", text, "--json").code == 2


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *(("--delay", text) for text in ("1e12", "1e400", "inf", "nan", "-1", "soon")),
        *(("--start-at", text) for text in ("0001-01-01T00:00", "soon", "", "2030-13-01")),
        *(("--wait-timeout", text) for text in ("inf", "nan", "-1")),
        *(("--deadline", text) for text in ("1e12", "9999-12-31T23:59:59.999999-05:00", "-inf")),
        *(("--start-at", text) for text in ("0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00")),
        *(("--timeout", text) for text in ("inf", "nan", "0")),
        ("--max-attempts", "1" + "0" * 30),
    ],
)
def test_a_time_that_no_clock_can_show_is_wrong_usage_and_names_the_option(on_hub: Emp, option: str, text: str):
    ended = on_hub("submit", "echo", option, text, "--json")
    assert (ended.code, ended.error["code"] in ("usage", "config")) == (2, True), ended.error
    said = f"{ended.error['message']} {ended.error.get('problems')}"
    assert option in said or option.strip("-").replace("-", "_") in said


def test_a_delayed_job_is_scheduled(on_hub: Emp):
    job = on_hub("submit", "echo", "--delay", "3600", "--json").data
    assert job["status"] == "scheduled"
    assert on_hub("jobs", "cancel", job["id"]).code == 0


def test_one_that_is_not_done_in_time_goes_on(on_hub: Emp):
    ended = on_hub("submit", "echo", "-p", "$echo.seconds=30", "--wait-timeout", "0.2", "--json")
    assert ended.code == 1
    assert ended.error["code"] == "wait_timeout"
    job = ended.error["details"]["job_id"]
    assert on_hub("jobs", "show", job, "--json").data["status"] == "active"
    assert on_hub("jobs", "cancel", job).code == 0


@pytest.mark.parametrize("as_json", [True, False])
def test_redis_that_is_not_there_is_waited_for_with_a_message_and_ends_with_3(emp: Emp, as_json: bool):
    arguments = ("submit", "echo", *(["--json"] if as_json else []))
    ended = emp(*arguments, HUB_REDIS_URL="redis://:geheim@127.0.0.1:1", EMP_REDIS_WAIT_S="0.3")
    assert ended.code == 3
    assert "waiting for redis" in ended.err
    assert "geheim" not in ended.out + ended.err
    if as_json:
        assert ended.error["code"] == "redis_unavailable"


def test_without_any_redis_it_says_how_to_get_one(emp: Emp):
    ended = emp("submit", "echo", EMP_REDIS_WAIT_S="0.1")
    assert ended.code == 3
    assert "waiting for Redis" in ended.err
    assert "`emp up`" in ended.err


def test_ctrl_c_leaves_the_job_running_and_says_how_to_cancel_it(hub: Hub, on_hub: Emp, tmp_path: Path):
    environ = environ_of(tmp_path, **hub.environ)
    process = start("submit", "echo", "-p", "$echo.seconds=60", "--wait", environ=environ)
    assert process.stderr is not None
    seen = ""
    while "claimed" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=10)
    job = seen.split()[1]
    assert process.returncode == 130
    assert f"job {job} goes on" in rest
    assert f"emp jobs cancel {job}" in rest
    assert "Traceback" not in rest
    assert on_hub("jobs", "show", job, "--json").data["status"] == "active"
    assert on_hub("jobs", "cancel", job).code == 0
