"""A fake service can be killed and comes back where it was."""

import anyio
import httpx
import pytest
from aiohttp import web

from emp_core.testing.fake_service import FakeService


class Clock(FakeService):
    """Answers at once, or when it is released."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        async with self.job():
            return web.Response(text="now")


async def test_a_service_that_was_killed_breaks_off_its_answers_and_takes_no_connection() -> None:
    async with Clock() as clock, httpx.AsyncClient(trust_env=False) as client, anyio.create_task_group() as group:
        clock.hold()
        broke = anyio.Event()

        async def ask() -> None:
            with pytest.raises(httpx.TransportError):
                await client.get(clock.url)
            broke.set()

        group.start_soon(ask)
        with anyio.fail_after(5):
            await clock.until_running(1)
            await clock.kill()
            await broke.wait()
            await clock.until_running(0)
            with pytest.raises(httpx.ConnectError):
                await client.get(clock.url)


async def test_a_service_comes_back_at_its_address() -> None:
    async with Clock() as clock, httpx.AsyncClient(trust_env=False) as client:
        before = clock.url
        assert (await client.get(before)).text == "now"
        await clock.kill()
        await clock.restart()
        assert clock.url == before
        assert (await client.get(before)).text == "now"
        await clock.restart()
        assert (await client.get(before)).text == "now"
