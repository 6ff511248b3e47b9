"""Outcomes that will be waited for. They are listened to from before their jobs are submitted, so that nobody has to ask."""

import time
from collections.abc import Callable
from typing import Any

from attrs import frozen
from redis.exceptions import NoScriptError, ResponseError

from emp_core.queue.calls import Calls
from emp_core.queue.listening import Heard, Listener

__all__ = ["Expectations", "Expected"]

_MOST = 256
_PAYLOAD_MOST = 4096
"""Characters: it is kept until somebody waits, and a longer one would hold up what else comes on the connection."""
_FRESH_S = 0.05
"""An outcome that was heard longer ago than this, before anybody waited, may not be the last word: a job can be retried."""


@frozen
class Expected:
    """A job whose outcome is listened to.

    Attributes:
        payload: its payload's JSON.
    """

    heard: Heard
    payload: str


class Expectations:
    """Which jobs will be waited for: as many of those that are submitted next as were waited for before.

    So a program that waits for its jobs listens to each from before it exists, and one that does not wait listens to none.
    """

    def __init__(self, listener: Listener, calls: Calls) -> None:
        self._listener = listener
        self._calls = calls
        self._waits = 0
        self._expected: dict[str, Expected] = {}

    async def submit(self, job_id: str, payload: str, call: Callable[[], bytes]) -> Any:
        """Make the call that submits a job, and listen to the job's outcome from before it.

        Args:
            call: gives it, packed.

        Returns:
            Redis's answer. None: the call has to be made in another way; it may have been carried out all the same.

        Raises:
            NotReady: it was not carried out, and may be made again.
            redis.exceptions.ResponseError: Redis refused it.
        """
        if not self._waits or len(payload) > _PAYLOAD_MOST:
            return None
        self._waits -= 1
        heard = self._listener.subscribed(self._calls.keys.done_channel(job_id))
        heard.__enter__()
        answer = None
        try:
            answer = await heard.subscribed_before(call())
        finally:
            if answer is None or isinstance(answer, ResponseError):
                heard.__exit__()
        if isinstance(answer, ResponseError):
            return await self._refused(answer)
        if answer is not None:
            self.forget(job_id)  # it may have been submitted twice
            self._expected[job_id] = Expected(heard, payload)
            if len(self._expected) > _MOST:
                self.forget(next(iter(self._expected)))
        return answer

    async def _refused(self, error: ResponseError) -> None:
        if isinstance(error, NoScriptError):
            return  # it has to be sent as a whole
        self._waits = 0
        await self._calls.client.judge(error)
        # A script that fails on its way has done half of its work: made again, it would find the job and do nothing.
        raise error

    def forget(self, job_id: str) -> None:
        """The job's next outcome is not the one that was expected, or nobody waits for it."""
        if (expected := self._expected.pop(job_id, None)) is not None:
            expected.heard.__exit__()

    def waited_for(self, job_id: str) -> Expected | None:
        """Somebody waits for a job now, and goes on listening where it was expected; None: the job has to be read."""
        self._waits = min(self._waits + 1, _MOST)
        expected = self._expected.get(job_id)
        if expected is None:
            return None
        heard = expected.heard
        if heard.is_live and time.monotonic() - heard.heard_at < _FRESH_S:
            del self._expected[job_id]
            return expected
        self.forget(job_id)
        return None
