"""Chats on a real llama-cpp-python server with a tiny model of random weights.

Needs another Python environment, with a C++ compiler to build it, once::

    python -m venv ~/llama && ~/llama/bin/pip install "llama-cpp-python[server]" gguf
    EMP_TEST_LLAMA_PYTHON=~/llama/bin/python pytest plugins/emp-openai/tests/test_real_server.py

This server has one place, and a second request interrupts the first.
"""

import os
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from attrs import define, evolve, field
from emp_openai.connector import OpenAIConnector

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConnectionLost, NotRepeated
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.conformance.rig import Rig, RunningJob
from emp_core.testing.workers import WorkerStarter, bindings_of

TINY_GGUF = Path(__file__).with_name("tiny_gguf.py")
NO_SERVER = (
    "needs a Python with llama-cpp-python: python -m venv ~/llama && ~/llama/bin/pip install "
    "'llama-cpp-python[server]' gguf, then EMP_TEST_LLAMA_PYTHON=~/llama/bin/python"
)
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
SHORT = {**CHAT, "max_tokens": 8}
LONG = {**CHAT, "max_tokens": 8000}
PATIENCE_S = 60.0


@define(eq=False)
class RealServer:
    """The server's process, and what it says."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(factory=list)
    _news: threading.Condition = field(factory=threading.Condition)

    def read(self) -> None:
        """Take note of all that it says, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def wait_for(self, pattern: str, *, since: int = 0, within_s: float = PATIENCE_S) -> re.Match[str]:
        """Wait until it says something."""
        found: list[re.Match[str]] = []

        def said() -> bool:
            found[:] = [match for line in self.lines[since:] if (match := re.search(pattern, line))]
            return bool(found) or self.process.poll() is not None

        with self._news:
            self._news.wait_for(said, within_s)
        assert found, f"the server did not say {pattern!r}: {''.join(self.lines[-20:])}"
        return found[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    python = os.environ.get("EMP_TEST_LLAMA_PYTHON")
    if python is None:
        pytest.skip(NO_SERVER)
    model = tmp_path_factory.mktemp("model") / "tiny.gguf"
    subprocess.run([python, TINY_GGUF, model], check=True, timeout=PATIENCE_S)
    command = [python, "-u", "-m", "llama_cpp.server", "--model", str(model), "--n_ctx", "8192", "--n_threads", "1"]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        running = RealServer(process)
        reader = threading.Thread(target=running.read)
        reader.start()
        try:
            running.url = running.wait_for(r"running on (http://127\.0\.0\.1:\d+)")[1]
            yield running
        finally:
            process.kill()
            reader.join()


@asynccontextmanager
async def rigged(server: RealServer, folder: Path, **environ: str) -> AsyncIterator[Rig]:
    config = ServiceConfig("openai", {"OPENAI_BASE_URL": f"{server.url}/v1", **environ})
    connector = OpenAIConnector.for_service(config)
    await connector.connect()
    try:
        async with anyio.create_task_group() as group:
            yield Rig.at(folder, connector, "openai_text", group)
            group.cancel_scope.cancel()
    finally:
        await connector.disconnect()


async def until_it_talks(job: RunningJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until a job that was just begun has put out a few words."""
    talks = anyio.Event()
    put_out = job.context.text

    async def text(piece: str) -> None:
        await put_out(piece)
        if len(job.context.pieces) >= 5:
            talks.set()

    monkeypatch.setattr(job.context, "text", text)
    with anyio.fail_after(PATIENCE_S):
        await talks.wait()


async def interrupt(server: RealServer) -> Any:
    """Ask for something else, as another client would."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{server.url}/v1/chat/completions", json=SHORT, timeout=PATIENCE_S)
        return answer.raise_for_status().json()


async def test_a_chat_is_streamed(server: RealServer, tmp_path: Path) -> None:
    async with rigged(server, tmp_path) as rig:
        job = await rig.run(SHORT)
        result = await job.outcome()
    assert result.data["finish_reason"] == "length"
    assert len(job.context.pieces) == 8
    assert "".join(job.context.pieces) == result.data["text"]


async def test_a_cancelled_chat_is_stopped_on_the_server_within_a_second(
    server: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigged(server, tmp_path) as rig:
        job = rig.begin(LONG)
        await until_it_talks(job, monkeypatch)
        since = len(server.lines)
        job.scope.cancel()
        await job.until_ended(within_s=1)
        await anyio.to_thread.run_sync(lambda: server.wait_for("(?i)disconnected", since=since, within_s=1))
        assert job.let_go
        assert (await (await rig.run(SHORT)).outcome()).data["finish_reason"] == "length"


@pytest.mark.parametrize(("environ", "error"), [({}, NotRepeated), ({"EMP_OPENAI_RESEND": "true"}, ConnectionLost)])
async def test_a_chat_that_another_request_interrupts_is_no_success(
    environ: dict[str, str], error: type[Exception], server: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigged(server, tmp_path, **environ) as rig:
        job = rig.begin(LONG)
        await until_it_talks(job, monkeypatch)
        other = await interrupt(server)
        assert other["choices"][0]["finish_reason"] == "length"
        await job.until_ended()
        assert type(job.error) is error
        assert job.result is None


async def test_jobs_of_a_queue_stand_in_line_and_one_that_was_interrupted_is_begun_again_where_that_is_allowed(
    server: RealServer, queue: JobQueue, start_worker: WorkerStarter
) -> None:
    [binding] = bindings_of("openai")
    environ = {"OPENAI_BASE_URL": f"{server.url}/v1", "EMP_OPENAI_RESEND": "true"}
    await start_worker(evolve(binding, config=ServiceConfig("openai", environ)))
    spec = JobSpec("openai_text", payload={**CHAT, "max_tokens": 1500})
    first = await queue.submit(spec)
    others = await queue.submit_many([JobSpec("openai_text", payload=SHORT) for _ in range(4)])
    async for event in queue.events(first.id):
        if event.name == "text":
            break
    await interrupt(server)
    done = [await queue.wait(job.id, timeout=PATIENCE_S) for job in (first, *others)]
    assert [job.status for job in done] == [JobState.COMPLETED] * 5
    assert [job.attempt for job in done] == [2, 1, 1, 1, 1]
    assert done[0].result is not None
    assert len(done[0].result["data"]["text"].split()) == 1500
