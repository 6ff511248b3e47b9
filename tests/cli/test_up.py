"""`emp up`, `emp worker` and `emp demo` as the processes that they are."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from .conftest import COMMAND, Emp, Hub, environ_of, ready, start


@contextmanager
def running(*arguments: str, environ: dict[str, str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = start(*arguments, environ=environ, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def said_until(process: subprocess.Popen[str], word: str) -> str:
    """What it says on stderr, to the line with this word."""
    assert process.stderr is not None
    said = ""
    while word not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def test_one_machine_without_any_set_up(tmp_path: Path):
    environ = environ_of(tmp_path)
    submit_and_wait = ("submit", "echo", "-", "--wait", "--json")
    # At the same moment: whoever submits waits for the Redis that comes.
    with (
        running(*submit_and_wait, environ=environ, stdin=subprocess.PIPE) as submit,
        running("up", "echo", "--json", environ=environ) as up,
    ):
        started = ready(up)
        out, errors = submit.communicate('{"hello": 1}', timeout=30)
        assert submit.returncode == 0, errors
        assert json.loads(out)["data"]["result"]["data"] == {"hello": 1}
        assert started["redis"]["embedded"] is True
        assert started["redis"]["url"].startswith("redis://127.0.0.1:")
        assert "@" not in started["redis"]["url"]
        up.send_signal(signal.SIGTERM)
        up.communicate(timeout=20)
        assert up.returncode == 0
    left = subprocess.run([*COMMAND, "redis", "--json"], env=environ, capture_output=True, text=True, check=True)
    assert json.loads(left.stdout)["data"]["running"] is False


def test_an_embedded_redis_stays_as_long_as_a_worker_uses_it(tmp_path: Path):
    environ = environ_of(tmp_path)
    with running("up", "echo", "--json", environ=environ) as up:
        ready(up)
        with running("worker", "echo", "--json", environ={**environ, "WORKER_ID": "second"}) as worker:
            ready(worker)
            up.kill()
            up.communicate(timeout=20)
            command = [*COMMAND, "submit", "echo", "--wait", "--json"]
            job = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=True)
            assert json.loads(job.stdout)["data"]["worker_id"].startswith("second@")
            worker.terminate()
            worker.communicate(timeout=20)
            assert worker.returncode == 0
    left = subprocess.run([*COMMAND, "redis", "--json"], env=environ, capture_output=True, text=True, check=True)
    assert json.loads(left.stdout)["data"]["running"] is False


def test_the_first_signal_lets_jobs_end_and_the_second_gives_them_back(hub: Hub, on_hub: Emp, tmp_path: Path):
    own = {"HUB_REDIS_URL": hub.url, "EMP_NAMESPACE": hub.namespace.replace("test-cli", "test-cli-drained")}
    with running("worker", "echo", "--json", environ=environ_of(tmp_path, **own)) as worker:
        ready(worker)
        short = on_hub("submit", "echo", "-p", "$echo.seconds=1", "--json", environ=own).data["id"]
        long = on_hub("submit", "echo", "-p", "$echo.seconds=600", "-p", "$echo.steps=2", "--json", environ=own).data[
            "id"
        ]
        with running("jobs", "watch", long, "--json", environ=environ_of(tmp_path, **own)) as watch:
            assert watch.stdout is not None
            while json.loads(watch.stdout.readline())["data"]["event"] != "claimed":
                pass
            worker.send_signal(signal.SIGINT)
            said_until(worker, "SIGINT: jobs that run get up to 30 s")
            assert on_hub("jobs", "wait", short, "--timeout", "10", environ=own).code == 0
            worker.send_signal(signal.SIGINT)  # the same one again at once, as from a shell and the terminal, is one
            worker.send_signal(signal.SIGTERM)
            worker.communicate(timeout=20)
            assert worker.returncode == 130
            assert json.loads(watch.stdout.readline())["data"]["event"] == "released"
        job = on_hub("jobs", "show", long, "--json", environ=own).data
        assert (job["status"], job["attempt"]) == ("pending", 0)
        assert on_hub("workers", "--json", environ=own).data == []
        assert on_hub("jobs", "cancel", long, environ=own).code == 0


def test_a_signal_while_other_workers_of_the_process_still_start_lets_jobs_end(
    redis_url: str, emp: Emp, tmp_path: Path
):
    own = {"HUB_REDIS_URL": redis_url, "EMP_NAMESPACE": "{test-cli-starting}:", "MACHINE_ID": "box"}
    heartbeat = "{test-cli-starting}:worker:two-1@box:heartbeat"
    with Redis.from_url(redis_url, protocol=2) as client:
        client.set(heartbeat, "of a namesake", px=60_000)
        with running("worker", "echo:2", "--json", environ=environ_of(tmp_path, WORKER_ID="two", **own)) as worker:
            said_until(worker, "another process has this worker's name")
            job = emp("submit", "echo", "-p", "$echo.seconds=1", "--json", environ=own).data["id"]
            with running("jobs", "watch", job, "--json", environ=environ_of(tmp_path, **own)) as watch:
                assert watch.stdout is not None
                while json.loads(watch.stdout.readline())["data"]["event"] != "claimed":
                    pass
            worker.terminate()
            said_until(worker, "SIGTERM: jobs that run get up to 30 s")
            assert emp("jobs", "wait", job, "--timeout", "10", environ=own).code == 0
            client.delete(heartbeat)
            worker.communicate(timeout=20)
            assert worker.returncode == 0
        client.unlink(*client.scan_iter(match="{test-cli-starting}:*", count=1000))


def test_a_signal_while_it_waits_for_redis_ends_it(tmp_path: Path):
    environ = environ_of(tmp_path, HUB_REDIS_URL="redis://127.0.0.1:1")
    with running("worker", "echo", environ=environ) as worker:
        said_until(worker, "waiting for redis")
        worker.send_signal(signal.SIGINT)
        _, errors = worker.communicate(timeout=10)
        assert worker.returncode == 130
        assert "Traceback" not in errors


def test_the_same_worker_twice_is_refused(hub: Hub, on_hub: Emp):
    name, _, machine = hub.worker_id.partition("@")
    ended = on_hub("worker", "echo", "--json", WORKER_ID=name, MACHINE_ID=machine, EMP_LEASE_S="0.5")
    assert (ended.code, ended.error["code"]) == (2, "config")


def test_the_demonstration_shows_a_bar_on_a_terminal_and_leaves_a_file(redis_url: str, tmp_path: Path):
    code, screen = on_a_terminal("demo", "echo", environ=environ_of(tmp_path, HUB_REDIS_URL=redis_url, TERM="xterm"))
    assert code == 0, screen
    assert "━" in screen
    assert "100%" in screen
    line = next(line for line in screen.splitlines() if line.startswith("Artifact"))
    path = Path(line.removeprefix("Artifact").rpartition("  (")[0].strip())
    assert path.is_relative_to(tmp_path / "data")
    assert "came out of a job" in path.read_text()


def on_a_terminal(*arguments: str, environ: dict[str, str]) -> tuple[int, str]:
    """A command whose terminal is as wide as is needed; its exit code, and all that it drew."""
    ours, theirs = pty.openpty()
    environ["COLUMNS"] = "200"
    process = subprocess.Popen([*COMMAND, *arguments], env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    drawn = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                chunk = terminal.read(65536)
            except OSError:  # Linux says so when the last one has closed the other side
                break
            if not chunk:
                break
            drawn += chunk
    return process.wait(timeout=10), drawn.decode().replace("\r\n", "\n")


def test_a_demonstration_that_is_not_there_is_told_with_those_that_are(emp: Emp):
    ended = emp("demo", "toaster")
    assert ended.code == 2
    assert "echo" in ended.err
    assert "emp-toaster" in ended.err


def test_an_interrupted_demonstration_leaves_nothing_in_redis(tmp_path: Path, redis_url: str):
    with Redis.from_url(redis_url, protocol=2, decode_responses=True) as client:
        before = set(client.scan_iter(match="{emp-demo-*", count=1000))
        with running("demo", "echo", environ=environ_of(tmp_path, HUB_REDIS_URL=redis_url)) as demo:
            said_until(demo, "claimed")
            demo.send_signal(signal.SIGTERM)
            demo.communicate(timeout=20)
            assert demo.returncode == 130
        assert set(client.scan_iter(match="{emp-demo-*", count=1000)) <= before
