"""What the fake server saw."""

from typing import Any, Literal

from attrs import define, field

__all__ = ["Seen"]


@define(eq=False)
class Seen:
    """A request for an answer.

    Attributes:
        body: as it was sent.
        state: where it is: waiting for its turn or for a model to load; running; ended well; ended by an error; or given
            up because its client left.
        frames: sent so far.
    """

    path: str
    body: dict[str, Any]
    state: Literal["waiting", "loading", "running", "done", "failed", "cancelled"] = field(default="waiting")
    frames: int = 0

    @property
    def model(self) -> str:
        """The model that it asked for."""
        return str(self.body.get("model", ""))
