"""What the page on a Redis of one's own advises works."""

import re
from pathlib import Path

import pytest
from redis import Redis, exceptions

from emp_core import JobQueue, JobSpec, JobState
from emp_core.queue.addresses import parse_address
from emp_core.queue.embedded import use_embedded_redis
from emp_core.testing.workers import WorkerStarter, fast_settings

from .pages import DOCS, page

PAGE = page(DOCS / "how-to" / "redis.md")
ADDRESSES = re.findall(r"`(\w+[\w+]*://[^`]+)`", PAGE.section("The address").text.partition("## Settings of")[0])


def the_user() -> list[str]:
    [rules] = [block.text for block in PAGE.blocks if block.text.startswith("user worker ")]
    return rules.split()[2:]


async def test_the_user_of_the_page_may_do_all_that_the_queue_does_and_nothing_else(tmp_path: Path) -> None:
    with use_embedded_redis(tmp_path) as server, Redis.from_url(server.url, protocol=2) as admin:
        admin.execute_command("ACL", "SETUSER", "worker", *the_user())
        url = f"redis://worker:PASSWORD@127.0.0.1:{server.port}/0"
        settings = fast_settings(url, "emp:", tmp_path)
        async with WorkerStarter.open(settings) as start, JobQueue.connect(settings=settings) as queue:
            await start()
            await goes_the_whole_way(queue)
        with Redis.from_url(url, protocol=2) as client:
            for command in (("SET", "other", "1"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*")):
                with pytest.raises(exceptions.NoPermissionError):
                    client.execute_command(*command)
            assert client.info()


async def goes_the_whole_way(queue: JobQueue) -> None:
    quick = await queue.submit(JobSpec("echo", {"n": 1}))
    assert [event.name async for event in queue.events(quick.id)][-1] == "completed"
    slow = await queue.submit(JobSpec("echo", {"$echo": {"seconds": 600}}))
    await queue.cancel(slow.id)
    assert (await queue.wait(slow.id, timeout=30)).status is JobState.CANCELLED
    await queue.retry(slow.id)
    assert (await queue.explain(slow.id)).summary
    await queue.cancel(slow.id)
    await queue.wait(slow.id, timeout=30)
    assert await queue.jobs()
    assert await queue.workers()


@pytest.mark.parametrize("url", ADDRESSES)
def test_every_form_of_an_address_is_taken(url: str) -> None:
    parse_address(url)


def test_a_cluster_needs_the_namespace_that_the_page_tells() -> None:
    assert "EMP_NAMESPACE={emp}:" in PAGE.text
    assert len(ADDRESSES) >= 5
