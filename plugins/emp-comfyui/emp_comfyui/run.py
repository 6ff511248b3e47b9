"""One prompt's life: put into the queue once, watched until it ended, stopped when nobody wants it any more.

The web socket tells of progress; the truth is the server's queue and history. Frames may fail to come through nobody's
fault here (a socket taken over, another client that does not read, a server that died), so silence is never waited out:
the truth is asked for.
"""

import math
import uuid
from collections import deque

import anyio
from attrs import frozen

from emp_comfyui.client import Accepted, ComfyUIClient
from emp_comfyui.dialect import Handover, own_client_id
from emp_comfyui.durations import Durations
from emp_comfyui.errors import dropped_outputs
from emp_comfyui.frames import Picture
from emp_comfyui.history import HistoryEntry
from emp_comfyui.listener import Listener
from emp_comfyui.settings import ComfyUISettings
from emp_comfyui.stopping import stop_prompt
from emp_comfyui.truth import Truth
from emp_comfyui.workflow import Workflow
from emp_core.connectors.context import JobContext
from emp_core.connectors.websocket import Frame, Gap, Socket
from emp_core.errors import (
    ConnectionLost,
    InvalidJob,
    MissingModel,
    MissingNode,
    ServiceUnavailable,
)

__all__ = ["RUN_SHARE", "Finished", "PromptRun"]

RUN_SHARE = 0.95
"""The part of a job's progress that running takes; the rest is fetching its outputs."""
_SENDS = 2
_FRAMES_LATE_S = 10.0
_GONE_STOP_S = 1.0
"""How long a prompt is pursued on a server that gives no answer: whoever waits is not held up."""
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
_LOST_ANSWER_LOOKS = 3
_LOST_ANSWER_PAUSE_S = 0.25
_LATE_DELAYS_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)


@frozen
class Finished:
    """A prompt that ended.

    Attributes:
        pictures: outputs that came over the web socket, in order.
        adopted: whether an earlier attempt had begun it.
    """

    entry: HistoryEntry
    pictures: tuple[Picture, ...] = ()
    adopted: bool = False


class PromptRun:
    """One prompt of one attempt, under a client_id of its own: a server has one socket per client_id.

    Args:
        socket: where its frames arrive; None: nowhere, it is an earlier attempt's.
        prompt_id: the prompt to watch; made here when not given.
        durations: what nodes of this server are expected to take.
    """

    def __init__(
        self,
        client: ComfyUIClient,
        workflow: Workflow,
        context: JobContext,
        settings: ComfyUISettings,
        *,
        client_id: str | None,
        socket: Socket | None,
        prompt_id: str | None = None,
        durations: Durations | None = None,
    ) -> None:
        self.prompt_id = prompt_id or str(uuid.uuid4())
        self._client = client
        self._workflow = workflow
        self._context = context
        self._settings = settings
        self._client_id = client_id
        self._socket = socket
        self._durations = durations
        self._listener = Listener(workflow, self.prompt_id, durations)
        self._truth = Truth(client, settings, self.prompt_id)
        self._may_run = prompt_id is not None
        self._answered = prompt_id is not None
        self._greeted = False
        self._early: deque[Frame | Gap] = deque()

    async def submit_and_watch(self) -> Finished:
        """Put the prompt into the queue and see it through.

        Raises:
            ConnectorError: it could not be submitted, or was lost. What it may still be doing has been stopped.
        """
        return await self._or_stop(submit=True)

    async def watch(self) -> Finished:
        """See a prompt through that is in the queue already."""
        return await self._or_stop(submit=False)

    async def _or_stop(self, *, submit: bool) -> Finished:
        try:
            if submit:
                await self._submit()
            entry = await self._until_ended()
        except BaseException as error:
            pursued_s = min(
                self._settings.cancel_s, _GONE_STOP_S if self._client.is_away or _is_gone(error) else math.inf
            )
            with anyio.CancelScope(shield=True), anyio.move_on_after(pursued_s) as limit:
                await self.stop()
            if limit.cancelled_caught:
                self._context.log.warning("the prompt still runs at the ComfyUI server", prompt_id=self.prompt_id)
            raise
        return Finished(entry, tuple(self._listener.pictures), adopted=not submit)

    # Submitting.

    async def _submit(self) -> None:
        # Kept before it is sent: whatever becomes of the answer, a later attempt finds the prompt by it.
        await self._context.checkpoint(self.prompt_id)
        accepted = await self._send()
        self._answered = True
        if accepted.prompt_id != self.prompt_id:
            self.prompt_id = accepted.prompt_id
            self._listener = Listener(self._workflow, self.prompt_id, self._durations)
            self._truth = Truth(self._client, self._settings, self.prompt_id)
            await self._context.checkpoint(self.prompt_id)
        problem = dropped_outputs(accepted.node_errors)
        if problem is not None and not self._workflow.allow_partial:
            raise problem
        if problem is not None:
            self._context.log.warning("outputs are left out", problem=problem.message, prompt_id=self.prompt_id)

    async def _send(self) -> Accepted:
        """Send the prompt; when the answer gets lost, look whether it arrived before it is sent again."""
        assert self._client_id is not None  # noqa: S101 - only watched prompts have none
        for attempt in range(1, _SENDS + 1):
            if self._socket is not None and not self._greeted:
                self._client_id = await own_client_id(self._socket, self._client_id)
                self._greeted = True
            self._may_run = True
            try:
                return await self._hand_over(self._client_id)
            except (InvalidJob, MissingNode, MissingModel) as error:
                self._may_run = error.details.get("reason") == "server_error"
                raise
            except ServiceUnavailable as error:
                if error.details.get("cause") in _NEVER_SENT:
                    self._may_run = attempt > 1
                    raise
                found = await self._look_for_lost()
                if found is not None:
                    return found
                if attempt == _SENDS:
                    raise
        raise AssertionError("unreachable")

    async def _hand_over(self, client_id: str) -> Accepted:
        """As every server takes it; over the socket where the server does not."""
        accepted = await self._client.submit(self._workflow, prompt_id=self.prompt_id, client_id=client_id)
        if accepted is not None:
            return accepted
        if self._socket is None:
            raise self._client.not_understood("POST /prompt")
        handover = Handover(self._socket)
        try:
            return await handover.hand_over(self._workflow, client_id=client_id, answer_within_s=self._settings.stall_s)
        except ConnectionLost:
            # Opened again, the socket has another id: what is sent next must carry it.
            self._greeted = False
            raise
        finally:
            self._early += handover.early

    async def _look_for_lost(self) -> Accepted | None:
        """Whether a prompt is there whose answer got lost. The server may still be reading it: look more than once."""
        for look in range(_LOST_ANSWER_LOOKS):
            await anyio.sleep(_LOST_ANSWER_PAUSE_S if look else 0)
            found = (await self._client.queue()).find(self.prompt_id, self._client_id)
            if found is not None:
                return Accepted(found.prompt_id)
            entry = await self._client.history(self.prompt_id)
            if entry is None and self._client_id is not None:
                entry = await self._client.recent_history(self._client_id)
            if entry is not None:
                return Accepted(entry.prompt_id)
        return None

    # Watching.

    async def _until_ended(self) -> HistoryEntry:
        late_read = False
        entry: HistoryEntry | None = None
        while entry is None:
            if self._truth.due_in_s() <= 0:
                entry = await self._truth.look()
                await self._tell()
                if entry is not None:
                    break
            frame: Frame | Gap | None = None
            with anyio.move_on_after(self._truth.due_in_s()):
                frame = await self._receive()
            # Outside of the time limit: what was taken off the queue is never dropped half-way.
            if isinstance(frame, Gap):
                self._note_gap()
            elif frame is not None and self._listener.hear(frame):
                self._truth.heard()
                await self._tell()
            if self._listener.ended and not late_read:
                late_read = True
                entry = await self._late_entry()
                if entry is None:
                    self._truth.look_now()
        self._may_run = False
        if entry.succeeded and self._workflow.needs_socket and self._socket is not None:
            await self._hear_to_the_end()
        return entry

    async def _hear_to_the_end(self) -> None:
        """Take the frames that are still on their way: the history may be read before the pictures have come.

        Raises:
            ConnectionLost: they do not come; no picture is left out in silence.
        """
        with anyio.move_on_after(_FRAMES_LATE_S) as limit:
            while not self._listener.ended:
                frame = await self._receive()
                if isinstance(frame, Gap):
                    self._note_gap()
                elif frame is not None and self._listener.hear(frame):
                    limit.deadline = anyio.current_time() + _FRAMES_LATE_S
        if not self._listener.ended:
            raise self._pictures_lost("stayed silent")

    def _note_gap(self) -> None:
        if self._workflow.needs_socket:
            raise self._pictures_lost("was lost")
        self._listener.note_gap()
        self._truth.look_now()

    def _pictures_lost(self, what: str) -> ConnectionLost:
        return ConnectionLost(
            f"pictures of prompt {self.prompt_id} may be missing: they come over the web socket alone, which {what}",
            hint="save them on the server with SaveImage instead of sending them",
            details={"reason": "pictures_lost", "prompt_id": self.prompt_id},
        )

    async def _receive(self) -> Frame | Gap | None:
        if self._early:
            return self._early.popleft()
        if self._socket is not None:
            return await self._socket.receive()
        await anyio.sleep_forever()
        return None

    async def _tell(self) -> None:
        listener = self._listener
        message = listener.message or self._truth.message
        await self._context.progress(listener.fraction * RUN_SHARE, message, listener.take_preview())

    async def _late_entry(self) -> HistoryEntry | None:
        """The history entry of a prompt that the socket says is over. It may come a moment later.

        One that does not come was deleted by somebody; then what the frames told is all there is, if none is missing.
        """
        for delay_s in _LATE_DELAYS_S:
            await anyio.sleep(delay_s)
            entry = await self._truth.read_history()
            if entry is not None:
                return entry
        return self._listener.told_end

    async def stop(self) -> None:
        """Take the prompt out of the queue and stop it, until it is gone."""
        if self._may_run:
            looks = 1 if self._answered else _LOST_ANSWER_LOOKS
            await stop_prompt(
                self._client, self._context.log, prompt_id=self.prompt_id, client_id=self._client_id, looks=looks
            )


def _is_gone(error: BaseException) -> bool:
    return isinstance(error, ConnectionLost) and error.details.get("reason") == "server_gone"
