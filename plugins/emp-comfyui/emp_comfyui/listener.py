"""What the frames of a web socket say of one prompt."""

from emp_comfyui.durations import Durations
from emp_comfyui.frames import Message, Picture, ProgressText, decode
from emp_comfyui.history import HistoryEntry
from emp_comfyui.progress import ProgressTracker
from emp_comfyui.workflow import Workflow
from emp_core.connectors.context import Preview
from emp_core.connectors.websocket import Frame
from emp_core.errors import JobFailed
from emp_core.log.logger import get_logger

__all__ = ["Listener", "may_drop"]

_MAX_PICTURE_BYTES = 512 * 2**20
_MAX_TEXT = 200
_REPEATED = ('"type": "status"', '"type": "progress"', '"type": "progress_state"')


class Listener:
    """Takes in all frames of a socket, and keeps what is about one prompt.

    Attributes:
        ended: whether the prompt was said to be over, well or not.
        pictures: outputs that came over the socket, in order.
    """

    def __init__(self, workflow: Workflow, prompt_id: str, durations: Durations | None = None) -> None:
        self.ended = False
        self.pictures: list[Picture] = []
        self._workflow = workflow
        self._prompt_id = prompt_id
        self._tracker = ProgressTracker(workflow, durations)
        self._log = get_logger("emp.comfyui").bind(prompt_id=prompt_id)
        self._executing = False
        self._picture_bytes = 0
        self._preview: Preview | None = None
        self._text: str | None = None
        self._gap = False
        self._outputs: dict[str, object] = {}
        self._end: HistoryEntry | None = None

    @property
    def fraction(self) -> float:
        """How far the prompt is, 0 to 1."""
        return self._tracker.fraction

    @property
    def message(self) -> str | None:
        """What runs now, for people: a node's own words, else its title and step."""
        return self._text or self._tracker.message

    @property
    def told_end(self) -> HistoryEntry | None:
        """How the prompt ended, as far as frames tell it; None when they did not, or some may be missing."""
        return None if self._gap else self._end

    def note_gap(self) -> None:
        """Frames may be missing."""
        self._gap = True

    def take_preview(self) -> Preview | None:
        """The latest preview, once."""
        preview, self._preview = self._preview, None
        return preview

    def hear(self, frame: Frame) -> bool:
        """Take in a frame; whether it was about this prompt.

        Raises:
            JobFailed: the pictures that the prompt sends are too many to be kept.
        """
        match decode(frame):
            case Message() as message if self._is_own(message):
                self._note(message)
                return True
            case Picture() as picture if self._is_own_picture(picture):
                self._note_picture(picture)
                return True
            case ProgressText(node_id, text) if self._executing and text.strip():
                self._text = f"{self._workflow.title_of(node_id)}: {text.strip()[:_MAX_TEXT]}"
                return True
        return False

    def _is_own(self, message: Message) -> bool:
        if message.prompt_id is not None:
            return message.prompt_id == self._prompt_id
        # Told on coming back to a prompt that runs: only this client's, and without its id.
        return message.type == "executing" and message.data.get("node") is not None

    def _is_own_picture(self, picture: Picture) -> bool:
        """Prompts run one at a time: while ours does, a picture without metadata is ours. Those of prompts without a client
        go to everybody."""
        return self._executing if picture.prompt_id is None else picture.prompt_id == self._prompt_id

    def _note(self, message: Message) -> None:
        data, tracker = message.data, self._tracker
        match message.type:
            case "execution_start":
                self._executing = True
            case "execution_cached":
                self._executing = True
                tracker.nodes_cached(data.get("nodes"))
            case "executing" if data.get("node") is None:
                self._executing, self.ended = False, True
            case "executing":
                self._executing, self._text = True, None
                tracker.node_executing(str(data["node"]), data.get("display_node"))
            case "progress":
                tracker.node_step(data.get("node"), data.get("value"), data.get("max"))
            case "progress_state":
                tracker.node_states(data.get("nodes"))
            case "executed":
                tracker.node_executed(data.get("node"))
                self._outputs[str(data.get("node"))] = data.get("output")
            case "execution_error" if data.get("exception_type") == "ExecutionBlocked":
                # Not the end: the rest goes on, and the history does not know of it.
                self._log.info("a node was blocked", node=data.get("node_id"))
            case "execution_error":
                self._end = HistoryEntry(self._prompt_id, error=data)
            case "execution_success":
                self._end = HistoryEntry(self._prompt_id, outputs=self._outputs)

    def _note_picture(self, picture: Picture) -> None:
        node_id = picture.node_id or self._tracker.node_id
        if node_id is None or not self._workflow.sends_pictures(node_id):
            self._preview = Preview(picture.data, picture.media_type)
            return
        self._picture_bytes += len(picture.data)
        if self._picture_bytes > _MAX_PICTURE_BYTES:
            raise JobFailed(
                f"the pictures that node {node_id} sends are more than {_MAX_PICTURE_BYTES:,} bytes",
                hint="save them on the server with SaveImage instead of sending them",
                details={"reason": "output_too_large", "node_id": node_id, "limit_bytes": _MAX_PICTURE_BYTES},
            )
        self.pictures.append(Picture(picture.data, picture.media_type, node_id, self._prompt_id))


def may_drop(frame: Frame) -> bool:
    """Frames that a later one of the same kind makes up for."""
    return isinstance(frame, str) and any(kind in frame[:40] for kind in _REPEATED)
