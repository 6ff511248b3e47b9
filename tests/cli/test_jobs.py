"""`emp jobs` and `emp workers`."""

import json
import re
import signal
from pathlib import Path
from select import select

import pytest
from redis import Redis

from emp_core.jobs.ids import new_job_id

from .conftest import Emp, Hub, environ_of, start


def submitted(on_hub: Emp, *arguments: str) -> str:
    job: str = on_hub("submit", "echo", *arguments, "--json").data["id"]
    return job


def test_jobs_are_listed_by_state_and_service(on_hub: Emp):
    done = submitted(on_hub, "--wait")
    later = submitted(on_hub, "--delay", "3600")
    assert done in ids(on_hub("jobs", "ls", "--state", "completed", "--limit", "1000", "--json"))
    assert done not in ids(on_hub("jobs", "ls", "--state", "scheduled", "--json"))
    assert later in ids(on_hub("jobs", "ls", "--service", "echo", "--state", "scheduled", "--json"))
    assert ids(on_hub("jobs", "ls", "--service", "other", "--json")) == []
    assert len(ids(on_hub("jobs", "ls", "--limit", "1", "--json"))) == 1
    listing = on_hub("jobs", "ls", "--state", "scheduled")
    assert listing.out.splitlines()[0].split() == ["ID", "SERVICE", "STATE", "PROGRESS", "ATTEMPT", "AGE", "WHAT"]
    assert later in listing.out
    assert "1 scheduled" in listing.err
    assert on_hub("jobs", "cancel", later).code == 0


def ids(ended) -> list[str]:
    assert ended.code == 0
    assert set(ended.data) == {"jobs", "counts"}
    return [job["id"] for job in ended.data["jobs"]]


def test_a_job_is_shown_with_its_payload_and_its_outcome(on_hub: Emp):
    job = submitted(on_hub, '{"n": 1}', "--label", "team=art", "--wait")
    shown = on_hub("jobs", "show", job, "--json").data
    assert (shown["payload"], shown["labels"], shown["status"]) == ({"n": 1}, {"team": "art"}, "completed")
    text = on_hub("jobs", "show", job).out
    assert '{"n": 1}' in text
    assert f"Job {job} completed" in text


def test_a_job_of_which_something_cannot_be_read_is_listed_and_shown_and_says_so(hub: Hub, on_hub: Emp):
    job = on_hub("submit", "nobody-serves-this", '{"n": 1}', "--json").data["id"]
    with Redis.from_url(hub.url, protocol=2) as client:
        client.hset(f"{hub.namespace}jobs:{job}", "deadline_at", "253402300800000000")
    [line] = on_hub("jobs", "ls", "--service", "nobody-serves-this", "--state", "pending").out.splitlines()[1:]
    assert line.startswith(job)
    assert "not all of it can be read: deadline_at: OverflowError" in line
    shown = on_hub("jobs", "show", job, "--json").data
    assert (shown["payload"], len(shown["unreadable"])) == ({"n": 1}, 1)
    assert "deadline_at: OverflowError" in on_hub("jobs", "show", job).out
    assert on_hub("jobs", "cancel", job).code == 0


def test_secrets_in_a_result_are_given_to_whoever_waits_for_it_and_not_shown(on_hub: Emp):
    said = {"text": "a plan", "url": "https://u:geheim@host/", "api_key": "geheim"}
    hidden = {"text": "a plan", "url": "https://(hidden)@host/", "api_key": "(hidden)"}
    submitted_and_waited = on_hub("submit", "echo", json.dumps(said), "--wait", "--json").data
    job = submitted_and_waited["id"]
    [waited] = on_hub("jobs", "wait", job, "--json").data
    shown = on_hub("jobs", "show", job, "--json").data
    assert submitted_and_waited["result"]["data"] == waited["result"]["data"] == said
    assert submitted_and_waited["payload"] == shown["payload"] == shown["result"]["data"] == hidden
    assert "geheim" not in on_hub("jobs", "show", job).out
    listed = on_hub("jobs", "ls", "--state", "completed", "--limit", "1000", "--json")
    assert job in ids(listed)
    assert "geheim" not in listed.out + on_hub("jobs", "attempts", job, "--json").out
    assert '"https://u:geheim@host/"' in on_hub("jobs", "wait", job).out


def test_the_events_of_a_job_are_listed_in_order(on_hub: Emp):
    job = submitted(on_hub, "--wait")
    events = on_hub("jobs", "events", job, "--json").data
    assert [event["event"] for event in events] == ["submitted", "claimed", "completed"]
    assert [line.split()[1] for line in on_hub("jobs", "events", job).out.splitlines()] == [
        "submitted",
        "claimed",
        "completed",
    ]


def test_waiting_for_several_jobs_ends_with_1_when_one_failed(on_hub: Emp):
    good, bad = submitted(on_hub, '{"n": 1}'), submitted(on_hub, "-p", "$echo.fail=InvalidJob")
    ended = on_hub("jobs", "wait", good, bad, good, "--json")
    assert ended.code == 1
    assert ended.error["code"] == "invalid_job"
    assert [job["status"] for job in ended.data] == ["completed", "failed", "completed"]
    assert on_hub("jobs", "wait", good).code == 0


def test_jobs_that_are_not_done_in_time_are_named(on_hub: Emp):
    done, later = submitted(on_hub), submitted(on_hub, "--delay", "3600")
    ended = on_hub("jobs", "wait", done, later, "--timeout", "0.5", "--json")
    assert ended.code == 1
    assert ended.error["code"] == "wait_timeout"
    assert ended.error["details"] == {"job_ids": [later]}
    assert on_hub("jobs", "cancel", later).code == 0


def test_a_job_that_runs_is_cancelled_and_retried_and_watched_to_its_end(on_hub: Emp):
    job = submitted(on_hub, "-p", "$echo.seconds=30", "-p", "$echo.steps=300")
    assert on_hub("jobs", "cancel", job, "--reason", "enough", "--json").data[0]["id"] == job
    watched = on_hub("jobs", "watch", job, "--json")
    assert watched.code == 1
    documents = [json.loads(line) for line in watched.out.splitlines()]
    assert documents[-1]["ok"] is False
    assert documents[-1]["error"]["code"] == "cancelled"
    assert documents[-1]["data"]["status"] == "cancelled"
    assert [one["data"]["event"] for one in documents[:-1]][-1] == "cancelled"
    assert on_hub("jobs", "retry", job, "--json").data[0]["status"] in ("pending", "active")
    assert on_hub("jobs", "cancel", job).code == 0


def test_one_id_that_is_refused_does_not_keep_the_others_from_being_changed(on_hub: Emp):
    later, done, none = submitted(on_hub, "--delay", "3600"), submitted(on_hub, "--wait"), new_job_id()
    ended = on_hub("jobs", "cancel", none, done, later, "--json")
    assert ended.code == 2
    assert [job["status"] for job in ended.data] == ["cancelled"]
    assert ended.error["code"] == "job_not_found"
    assert [also["code"] for also in ended.error["also"]] == ["illegal_transition"]


def test_a_job_that_does_not_exist_is_told_by_every_command(on_hub: Emp):
    for command in ("show", "events", "wait", "watch", "cancel", "retry", "explain", "attempts", "priority"):
        ended = on_hub("jobs", command, new_job_id(), *(["7"] if command == "priority" else []), "--json")
        assert (ended.code, json.loads(ended.out.splitlines()[-1])["error"]["code"]) == (2, "job_not_found"), command


def test_why_a_job_waits_is_explained(on_hub: Emp, hub: Hub):
    job = on_hub("submit", "nosuch", "--json").data["id"]
    data = on_hub("jobs", "explain", job, "--json").data
    assert data["status"] == "pending"
    assert [worker["can_run"] for worker in data["workers"]] == [False]
    lines = on_hub("jobs", "explain", job).out.splitlines()
    why = "does not serve nosuch (it serves echo)"
    assert lines == [
        f"pending: no live worker can run it: {hub.worker_id}: {why}",
        "Place      1",
        f"Worker     {hub.worker_id}: {why}",
    ]
    assert on_hub("jobs", "cancel", job).code == 0


def test_about_how_long_a_job_will_wait_is_told_with_what_it_comes_from(on_hub: Emp, hub: Hub):
    submitted(on_hub, "--wait")
    slots = on_hub("workers", "--json").data[0]["services"]["echo"]["slots"]
    running = [submitted(on_hub, "-p", "$echo.seconds=60") for _ in range(slots)]
    waiting = submitted(on_hub)
    while any(on_hub("jobs", "show", job, "--json").data["status"] != "active" for job in running):
        pass
    lines = on_hub("jobs", "explain", waiting).out.splitlines()
    assert lines[0] == f"pending: every slot that could run it is busy ({slots} on 1 worker)"
    assert lines[1] == "Place      1"
    assert re.match(
        r"Begins in  about \d+ s \(\d+ recent echo jobs? took \d+\.\d s( each)?, on \d+ slots?\)$", lines[2]
    )
    assert lines[3] == f"Worker     {hub.worker_id}: can run it, {slots} of {slots} slots busy"
    assert on_hub("jobs", "cancel", waiting, *running).code == 0


def test_the_attempts_of_a_job_are_listed(on_hub: Emp, hub: Hub):
    job = submitted(on_hub, "-p", "$echo.fail=JobFailed", "-p", "$echo.fail_attempts=1", "--wait")
    first, second = on_hub("jobs", "attempts", job, "--json").data
    assert (first["number"], first["outcome"], first["error"]["code"]) == (1, "retry", "job_failed")
    assert (second["number"], second["outcome"], second["worker_id"]) == (2, "completed", hub.worker_id)
    assert {"began_at", "ended_at", "waited_ms", "ran_ms", "machine_id"} <= second.keys()
    lines = on_hub("jobs", "attempts", job).out.splitlines()
    assert lines[0].split()[:3] == ["ATTEMPT", "OUTCOME", "WORKER"]
    assert lines[1].endswith("job_failed: the job asked for JobFailed ($echo.fail)")
    assert lines[2].split()[:3] == ["2", "completed", hub.worker_id]


def test_a_job_that_was_not_begun_has_no_attempts(on_hub: Emp):
    job = submitted(on_hub, "--delay", "3600")
    assert on_hub("jobs", "attempts", job, "--json").data == []
    assert on_hub("jobs", "attempts", job).out == ""
    assert on_hub("jobs", "cancel", job).code == 0


def test_the_priority_of_a_waiting_job_is_changed(on_hub: Emp):
    job = submitted(on_hub, "--delay", "3600")
    assert on_hub("jobs", "priority", job, "90", "--json").data[0]["priority"] == 90
    assert on_hub("jobs", "priority", job, "10").out.split() == [job, "scheduled"]
    assert on_hub("jobs", "priority", job, "101").code == 2
    assert on_hub("jobs", "cancel", job).code == 0
    ended = on_hub("jobs", "priority", job, "10", "--json")
    assert (ended.code, ended.error["code"]) == (1, "illegal_transition")


def test_failed_jobs_run_again_by_what_they_have_in_common(on_hub: Emp):
    team = new_job_id()

    def failed(kind: str, label: str) -> str:
        return submitted(on_hub, "-p", f"$echo.fail={kind}", "--label", label, "--max-attempts", "1", "--wait")

    one, other = failed("InvalidJob", f"team={team}"), failed("JobFailed", f"team={team}")
    chosen = ("jobs", "retry", "--failed", "--label", f"team={team}")
    assert on_hub(*chosen, "--code", "nosuch").err == "no failed job fits\n"
    assert on_hub(*chosen, "--service", "nosuch", "--json").data == []
    ended = on_hub(*chosen, "--code", "invalid_job", "--service", "echo")
    assert (ended.code, ended.err) == (0, "1 job runs again\n")
    assert ended.out.split()[0] == one
    assert on_hub("jobs", "wait", one).code == 1
    ended = on_hub(*chosen, "--limit", "5", "--json")
    assert {job["id"] for job in ended.data} == {one, other}


def test_a_job_that_never_failed_is_not_run_again_and_the_command_says_why(on_hub: Emp):
    job = on_hub("submit", "nobody-serves-this", "--json").data["id"]
    ended = on_hub("jobs", "retry", job, "--json")
    assert (ended.code, ended.error["code"], ended.data) == (1, "illegal_transition", [])
    assert f"job {job} is pending: only failed and cancelled jobs are retried" in on_hub("jobs", "retry", job).err
    assert on_hub("jobs", "cancel", job).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--failed", "some-id"),
        ("some-id", "--service", "echo"),
        ("--code", "job_failed"),
        ("--failed", "--label", "team"),
        ("--failed", "--limit", "0"),
    ],
)
def test_what_to_run_again_is_named_one_way(emp: Emp, arguments: tuple[str, ...]):
    ended = emp("jobs", "retry", *arguments, "--json")
    assert (ended.code, ended.error["code"]) == (2, "usage")


def test_all_jobs_are_watched_as_they_change(hub: Hub, on_hub: Emp, tmp_path: Path):
    process = start("jobs", "watch", "--json", environ=environ_of(tmp_path, **hub.environ))
    assert process.stdout is not None
    seen: list[str] = []
    first = submitted(on_hub)
    # Until the watcher looks there is nothing to see, and it does not say when it begins to.
    while not seen:
        submitted(on_hub, "--wait")
        if select([process.stdout], [], [], 0.2)[0]:
            seen.append(json.loads(process.stdout.readline())["data"]["job"])
    assert seen[0] != first
    last = submitted(on_hub)
    while (event := json.loads(process.stdout.readline())["data"])["job"] != last:
        seen.append(event["job"])
    assert event["event"] == "submitted"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors.strip() == ""


def test_the_workers_that_are_alive_are_listed(on_hub: Emp, hub: Hub):
    [worker] = on_hub("workers", "--json").data
    assert worker["id"] == hub.worker_id
    assert worker["services"]["echo"]["withdrawn"] is None
    line = on_hub("workers").out.splitlines()[1].split()
    assert line[:3] == [hub.worker_id, "echo", "ready"]


def test_looking_at_a_redis_that_is_not_there_ends_soon_with_3(emp: Emp):
    for command in (("jobs", "ls"), ("workers",)):
        ended = emp(*command, "--json", HUB_REDIS_URL="redis://127.0.0.1:1", EMP_REDIS_WAIT_S="0.1")
        assert (ended.code, ended.error["code"]) == (3, "redis_unavailable")
