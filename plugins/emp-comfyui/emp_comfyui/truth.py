"""Asking the server what became of a prompt: its queue and its history, seldom enough not to be a burden."""

import anyio

from emp_comfyui.client import ComfyUIClient
from emp_comfyui.history import HistoryEntry, QueueView
from emp_comfyui.settings import ComfyUISettings
from emp_core.errors import ConnectionLost, ConnectorError, JobFailed, ServiceBroken, ServiceUnavailable

__all__ = ["Truth"]

_QUEUE_EVERY = 5
"""The queue carries whole workflows, so it is looked at in one of so many looks; the history of one prompt in all."""
_QUEUE_SHARE = 20
"""And never so often that looking takes more than one part in so many of the time."""
_DEAD_QUEUE_S = 20.0
_LOST_LOOKS = 5
_NO_ANSWER = (ServiceUnavailable, JobFailed)
"""What a look may end with; JobFailed when an answer is too long to be read."""


class Truth:
    """Where one prompt is, by the server's own account.

    Frames of the prompt put the next look off: while they come, it runs. A look that finds it in neither queue nor
    history, asked in this order, finds it lost: it was deleted, or the server came back without it.
    """

    def __init__(self, client: ComfyUIClient, settings: ComfyUISettings, prompt_id: str) -> None:
        self.message: str | None = None
        """What people are told while it waits."""
        self._client = client
        self._settings = settings
        self._prompt_id = prompt_id
        self._next_look = anyio.current_time() + settings.poll_s
        self._next_queue = 0.0
        self._failing_since: float | None = None
        self._stuck_since: float | None = None
        self._missed = 0

    def due_in_s(self) -> float:
        """Seconds until the next look."""
        return max(0.0, self._next_look - anyio.current_time())

    def heard(self) -> None:
        """A frame of the prompt came: it is alive."""
        self._next_look = anyio.current_time() + self._settings.poll_s
        self._failing_since = self._stuck_since = None
        self._missed = 0

    def look_now(self) -> None:
        """Frames may be missing: look at everything, at once."""
        self._next_look = self._next_queue = 0.0

    async def look(self) -> HistoryEntry | None:
        """Ask the server; gives the entry if the prompt has ended.

        Raises:
            ConnectionLost: the prompt is lost, or the server is gone for longer than it may be.
            ServiceBroken: the server takes prompts and runs none.
        """
        try:
            entry = await self._client.history(self._prompt_id)
            if entry is None and anyio.current_time() >= self._next_queue:
                entry = await self._look_at_queue()
        except _NO_ANSWER as error:
            self._bear(error)
            entry = None
        else:
            self._failing_since = None
        if self._missed >= _LOST_LOOKS:
            raise ConnectionLost(
                f"prompt {self._prompt_id} is neither in the queue nor in the history of the ComfyUI server",
                hint="somebody deleted it, or the server was restarted",
                details={"reason": "prompt_lost", "prompt_id": self._prompt_id},
            )
        self._next_look = anyio.current_time() + (
            min(1.0, self._settings.poll_s)
            if self._failing_since is not None or self._missed
            else self._settings.poll_s
        )
        return entry

    async def read_history(self) -> HistoryEntry | None:
        """The entry alone, for a prompt that is said to be over."""
        try:
            return await self._client.history(self._prompt_id)
        except _NO_ANSWER as error:
            self._bear(error)
            return None

    async def _look_at_queue(self) -> HistoryEntry | None:
        began = anyio.current_time()
        queue = await self._client.queue()
        now = anyio.current_time()
        self._next_queue = now + max(_QUEUE_EVERY * self._settings.poll_s, _QUEUE_SHARE * (now - began))
        if queue.find(self._prompt_id) is not None:
            self._missed = 0
            self._tell_place(queue)
            self._watch_standstill(queue, now)
            return None
        entry = await self._client.history(self._prompt_id)
        if entry is not None:
            self._missed = 0
            return entry
        # Not even a late entry may be taken for a lost prompt: several looks have to agree.
        self._missed += 1
        self._next_queue = 0.0
        return None

    def _tell_place(self, queue: QueueView) -> None:
        ahead = queue.ahead_of(self._prompt_id)
        self.message = None if ahead is None else f"waiting at the ComfyUI server, {ahead} ahead"

    def _watch_standstill(self, queue: QueueView, now: float) -> None:
        """Prompts wait and none runs: for a moment that is normal, for longer the server's worker thread is dead."""
        if queue.running:
            self._stuck_since = None
            return
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        self._next_queue = min(self._next_queue, now + _DEAD_QUEUE_S / 4)
        if now - self._stuck_since >= _DEAD_QUEUE_S:
            raise ServiceBroken(
                f"the ComfyUI server has {len(queue.waiting)} prompts waiting and runs none",
                hint="restart it: its worker thread has died",
                details={"reason": "queue_dead", "waiting": len(queue.waiting)},
            )

    def _bear(self, error: ConnectorError) -> None:
        """Put up with a server that does not answer, for a while: less long if nobody listens than if it is only silent.

        A server that loads a model may not answer for a minute; one that takes no connections has ended.
        """
        now = anyio.current_time()
        self._failing_since = now if self._failing_since is None else self._failing_since
        limit_s = self._settings.stall_s if isinstance(error, ConnectionLost) else self._settings.gone_s
        if now - self._failing_since >= limit_s:
            raise ConnectionLost(
                f"the ComfyUI server went away in mid-job: {error.message}",
                hint=error.hint,
                details={**error.details, "reason": "server_gone", "prompt_id": self._prompt_id},
            ) from error
