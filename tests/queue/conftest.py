from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from emp_core.queue.embedded import stop
from emp_core.queue.queue import JobQueue

from .hands import Hands, put

pytest.register_assert_rewrite("tests.queue.queue_machine")  # it says what did not agree


@pytest.fixture
def hands(queue: JobQueue) -> Hands:
    """Makes workers that are worked by hand."""
    return Hands(queue)


@pytest.fixture
async def known_lane(queue: JobQueue, hands: Hands) -> None:
    """Somebody had an echo job before."""
    await put(queue, "opener")
    hand = await hands()
    await hand.finish(await hand.take_one())
    await hand.consumer.retire()


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """The folder of an embedded Redis, which ends with the test."""
    yield tmp_path / "data"
    anyio.run(stop, tmp_path / "data")
