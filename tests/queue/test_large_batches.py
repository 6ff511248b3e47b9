"""Many jobs at once, however large they are: no call takes so long that Redis seems to be away."""

from collections.abc import Sequence
from typing import Any

import pytest

from emp_core.jobs.model import JobSpec
from emp_core.queue.queue import JobQueue
from emp_core.queue.scripts import load_script

MIB = 2**20


@pytest.fixture
async def sent(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of every call that submits."""
    await queue.submit(JobSpec("echo"))  # Redis knows the script from now on
    sizes: list[int] = []
    calls, submits = queue.client.calls, load_script("submit").sha.encode()

    async def noted(commands: Sequence[bytes], *more: Any) -> list[Any]:
        if submits in commands[0][:100]:
            sizes.append(sum(len(command) for command in commands))
        replies: list[Any] = await calls(commands, *more)
        return replies

    monkeypatch.setattr(queue.client, "calls", noted)
    return sizes


async def test_large_payloads_are_sent_in_several_calls(queue: JobQueue, sent: list[int]):
    specs = [JobSpec("echo", {"n": n, "text": "x" * 3 * MIB}) for n in range(16)]
    jobs = await queue.submit_many(specs)
    assert sum(sent) > 48 * MIB
    assert max(sent) < 17 * MIB
    assert [job.payload["n"] for job in jobs] == list(range(16))
    assert (await queue.get(jobs[-1].id)).payload == specs[-1].payload


async def test_small_jobs_are_sent_500_at_once(queue: JobQueue, sent: list[int]):
    jobs = await queue.submit_many(JobSpec("echo", {"n": n}) for n in range(1100))
    assert len({job.id for job in jobs}) == 1100
    assert len(sent) == 3
