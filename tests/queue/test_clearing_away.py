"""What scripts leave in Redis's Lua is cleared away while nobody waits for it."""

from pathlib import Path

from emp_core.queue.queue import JobQueue
from emp_core.testing.workers import fast_settings
from tests.chaos.servers import server

from .hands import Hands, put

MUCH = "local t = {} for i = 1, 3000 do t[i] = 'left ' .. i end return 1"


async def test_an_idle_worker_that_finds_nothing_clears_away_what_scripts_left(tmp_path: Path):
    async with (
        server(tmp_path) as own,
        JobQueue.connect(settings=fast_settings(own.url, "{emp}:", tmp_path)) as queue,
    ):
        hand = await Hands(queue)()

        async def kilobytes() -> int:
            return int(await queue.client.eval("return collectgarbage('count')", 0))

        await hand.claim()  # it is idle from then on
        await queue.client.eval(MUCH, 0)
        left = await kilobytes()
        for _ in range(2):  # what was made while Lua cleared away is found by the time after
            await hand.claim()
        assert await kilobytes() < left - 100

        await put(queue, "j1")
        await queue.client.eval(MUCH, 0)
        left = await kilobytes()
        await hand.take_one()  # somebody waits for this
        assert await kilobytes() > left - 100
