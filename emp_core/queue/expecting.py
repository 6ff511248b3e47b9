"""Outcomes that will be waited for. They are listened to from before their jobs are submitted, so that nobody has to ask."""

import time
from collections.abc import Callable
from typing import Any, Self

from redis.exceptions import NoScriptError, ResponseError

from emp_core.jobs.ids import new_job_id
from emp_core.queue.calls import Calls
from emp_core.queue.listening import LOST, Heard, Listener

__all__ = ["Expectations", "Expected"]

_MOST = 256
_PAYLOAD_MOST = 4096
"""Characters: it is kept until somebody waits, and a longer one would hold up what else comes on the connection."""
_FRESH_S = 0.05
"""An outcome that was heard longer ago than this, before anybody waited, may not be the last word: a job can be retried."""


class Expected(Heard):
    """What is told of a job whose outcome is listened to, until the block ends.

    Attributes:
        job_id: the job's id.
        payload: its payload's JSON.
    """

    def __init__(self, expectations: "Expectations", job_id: str, payload: str) -> None:
        super().__init__()
        self._expectations = expectations
        self.job_id = job_id
        self.payload = payload

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._expectations.leave(self)


class Expectations:
    """Which jobs will be waited for: as many of those that are submitted next as were waited for before.

    So a program that waits for its jobs listens to each from before it exists, and one that does not wait listens to none.
    All of them are told on one channel, whose name each job carries along (``waiter``): to subscribe to one for each job
    would take Redis and the program longer than all else that waiting takes.
    """

    def __init__(self, listener: Listener, calls: Calls) -> None:
        self._listener = listener
        self._calls = calls
        self._waiter = f"@{new_job_id()}"  # which is no job's id
        self._channel = calls.keys.done_channel(self._waiter)
        self._waits = 0
        self._heard: dict[str, Expected] = {}
        # Those of them that nobody waits for yet.
        self._expected: dict[str, Expected] = {}

    async def submit(self, job_id: str, payload: str, call: Callable[[str], bytes]) -> Any:
        """Make the call that submits a job, and listen to the job's outcome from before it.

        Args:
            call: gives it, packed, for a job that carries this ``waiter``.

        Returns:
            Redis's answer. None: the call has to be made in another way; it may have been carried out all the same.

        Raises:
            NotReady: it was not carried out, and may be made again.
            redis.exceptions.ResponseError: Redis refused it.
        """
        if not self._waits or len(payload) > _PAYLOAD_MOST or job_id in self._heard:
            return None
        self._waits -= 1
        expected = Expected(self, job_id, payload)
        self._listen(expected)
        answer = None
        try:
            answers = await self._listener.ask(self._channel, (call(self._waiter),), refusable=True)
            answer = answers[0] if answers else None
        finally:
            if answer is None or isinstance(answer, ResponseError):
                self.leave(expected)
        if isinstance(answer, ResponseError):
            return await self._refused(answer)
        if answer is not None:
            self._expected[job_id] = expected
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

    def _listen(self, expected: Expected) -> None:
        if not self._heard:
            self._listener.join(self._channel, self)
        self._heard[expected.job_id] = expected

    def leave(self, expected: Expected) -> None:
        """Nobody listens to this job any more."""
        if self._heard.get(expected.job_id) is expected:
            del self._heard[expected.job_id]
            if not self._heard:
                self._listener.leave(self._channel, self)

    def put(self, text: str) -> None:
        """Something was published for this program: a job's id, and what is told of the job."""
        if text == LOST:
            for expected in self._heard.values():
                expected.put(LOST)
            return
        job_id, _, told = text.partition(" ")
        if job_id in self._heard:
            self._heard[job_id].put(told)

    def forget(self, job_id: str) -> None:
        """The job's next outcome is not the one that was expected, or nobody waits for it."""
        if (expected := self._expected.pop(job_id, None)) is not None:
            self.leave(expected)

    def close(self) -> None:
        """Nobody will wait any more."""
        for job_id in tuple(self._expected):
            self.forget(job_id)

    def waited_for(self, job_id: str) -> Expected | None:
        """Somebody waits for a job now, and goes on listening where it was expected; None: the job has to be read."""
        self._waits = min(self._waits + 1, _MOST)
        expected = self._expected.get(job_id)
        if expected is None:
            return None
        if self._listener.hears(self._channel) and time.monotonic() - expected.heard_at < _FRESH_S:
            del self._expected[job_id]
            return expected
        self.forget(job_id)
        return None
