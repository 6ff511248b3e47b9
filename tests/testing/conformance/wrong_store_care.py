"""Stores that are wrong in one way each, in the care that they take. ``breaks`` names the rule that has to say so."""

import asyncio
from typing import Any, ClassVar

from emp_core.errors import StorageUnavailable
from emp_core.storage.interface import StoredObject
from emp_core.storage.names import safe_key

from .kept import Data, KeptStore


class TakesItAll(KeptStore):
    """Has a whole stream in memory."""

    breaks: ClassVar = "test_a_big_stream_takes_little_memory"

    async def put(self, key: str, data: Data, **how: Any) -> StoredObject:
        if isinstance(data, bytes):
            return await super().put(key, data, **how)
        safe_key(key)
        return await super().put(key, b"".join([chunk async for chunk in data]), **how)


class KeepsWorking(KeptStore):
    """Leaves a task behind."""

    breaks: ClassVar = "test_nothing_is_left_open"
    _task: "asyncio.Task[None] | None" = None

    async def put(self, key: str, data: Data, **how: Any) -> StoredObject:
        self._task = self._task or asyncio.get_running_loop().create_task(asyncio.sleep(3600))
        return await super().put(key, data, **how)


class ClosesOnce(KeptStore):
    breaks: ClassVar = "test_closing_twice_is_no_error"
    _closed = False

    async def aclose(self) -> None:
        if self._closed:
            raise RuntimeError("it is closed")
        self._closed = True


class ChecksOnce(KeptStore):
    """Is in its own way the second time."""

    breaks: ClassVar = "test_a_check_of_a_sound_store_passes"
    _checked = False

    async def check(self) -> None:
        await super().check()
        if self._checked:
            raise StorageUnavailable("the place for the check is taken", hint="tidy it up")
        self._checked = True


class LeavesItsCheck(KeptStore):
    """Leaves what it tried the place with."""

    breaks: ClassVar = "test_nothing_unasked_is_left_in_the_place"

    async def check(self) -> None:
        await super().check()
        (self.root / "was-here").touch()


class NoAdvice(KeptStore):
    """Does not say what to do."""

    breaks: ClassVar = "test_a_place_that_cannot_be_used_is_unavailable"

    async def check(self) -> None:
        try:
            await super().check()
        except StorageUnavailable as error:
            raise StorageUnavailable(error.message) from error


class Talkative(KeptStore):
    breaks: ClassVar = "test_secrets_are_never_shown"

    def __repr__(self) -> str:
        return f"Talkative({str(self.root)!r}, {self.password!r})"
