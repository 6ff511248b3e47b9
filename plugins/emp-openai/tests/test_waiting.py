"""Waiting for the first byte: for ever while the server lives, and not for ever when it does not."""

import anyio
import pytest
from emp_openai.waiting import not_stopped_before, while_it_lives

from emp_core.errors import ConnectionLost
from emp_core.testing.time_lapse import TimeLapse


class Waiting:
    """A request without an answer, at a server that answers other questions, or not."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.over = anyio.Event()
        self.error: Exception | None = None

    async def run(self) -> None:
        try:
            await while_it_lives(anyio.sleep_forever, lambda: self.trouble, "http://there")
        except ConnectionLost as error:
            self.error = error
        self.over.set()


async def test_a_request_waits_as_long_as_its_server_answers_other_questions() -> None:
    waiting = Waiting()
    async with anyio.create_task_group() as group:
        group.start_soon(waiting.run)
        await TimeLapse.here().until(waiting.over.is_set, most_s=150)
        assert not waiting.over.is_set()
        group.cancel_scope.cancel()


async def test_a_request_is_given_up_when_its_server_answers_nothing_for_a_minute() -> None:
    waiting = Waiting()
    waiting.trouble = "it did not answer within 5 s"
    async with anyio.create_task_group() as group:
        group.start_soon(waiting.run)
        passed_s = await TimeLapse.here().until(waiting.over.is_set, most_s=150)
        assert 60 <= passed_s <= 75
    assert isinstance(waiting.error, ConnectionLost)
    assert "it did not answer within 5 s" in waiting.error.message


async def test_what_the_work_gives_and_raises_comes_out_as_it_is() -> None:
    async def answer() -> str:
        return "an answer"

    async def fail() -> str:
        raise ValueError("as it is")

    assert await while_it_lives(answer, lambda: None, "http://there") == "an answer"
    with pytest.raises(ValueError, match="as it is"):
        await while_it_lives(fail, lambda: None, "http://there")


async def test_work_is_not_stopped_before_it_can_be_stopped_well() -> None:
    begun, go_on, told = anyio.Event(), anyio.Event(), []

    async def work() -> None:
        await go_on.wait()
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            told.append("stopped well")

    async with anyio.create_task_group() as group:
        group.start_soon(not_stopped_before, begun, work)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        go_on.set()
    assert told == ["stopped well"]


async def test_work_that_does_not_begin_is_stopped_soon() -> None:
    began = anyio.current_time()
    with anyio.move_on_after(0):
        await not_stopped_before(anyio.Event(), anyio.sleep_forever)
    assert anyio.current_time() - began < 1
