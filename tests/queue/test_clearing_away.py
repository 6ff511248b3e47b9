"""What scripts leave in Redis's Lua is cleared away while nobody waits for it."""

from pathlib import Path

from emp_core.queue.queue import JobQueue
from emp_core.testing.workers import fast_settings
from tests.chaos.servers import server

from .handing import handed_to, waiting
from .hands import Hands, put

MUCH = "local t = {} for i = 1, 3000 do t[i] = 'left ' .. i end return 1"


async def test_a_worker_that_was_handed_jobs_and_finds_no_more_clears_away_what_scripts_left(tmp_path: Path):
    async with (
        server(tmp_path) as own,
        JobQueue.connect(settings=fast_settings(own.url, "{emp}:", tmp_path)) as queue,
    ):
        hand = await waiting(Hands(queue), slots=8)

        async def kilobytes() -> int:
            return int(await queue.client.eval("return collectgarbage('count')", 0))

        await queue.client.eval(MUCH, 0)
        left = await kilobytes()
        await hand.wait_for_jobs(8)  # it had nothing to do since the time before
        assert await kilobytes() > left - 100

        for job_id in ("j1", "j2"):  # what was made while Lua cleared away is found by the time after
            await put(queue, job_id)
            handed = await handed_to(hand)
            assert await hand.acknowledge(handed)
            assert (await hand.wait_for_jobs(8, heard=job_id)).jobs == ()
        assert await kilobytes() < left - 100
