"""How far a pull is, from the lines that Ollama sends while it gets a model."""

from collections.abc import Mapping
from typing import Any

from attrs import define, field

from emp_core.errors import ConnectionLost, EmpError, InvalidJob, JobFailed, MissingModel
from emp_ollama.errors import said_by

__all__ = ["PullProgress"]


@define
class PullProgress:
    """A pull as far as it was told.

    Attributes:
        message: what it does now, for people.
        fraction: how much of what was announced is there, 0 to 1. Layers are announced one after the other: it does not go back.
    """

    model: str
    endpoint: str
    message: str = field(default="", init=False)
    fraction: float = field(default=0.0, init=False)
    _got: dict[str, int] = field(factory=dict, init=False)
    _whole: dict[str, int] = field(factory=dict, init=False)
    _succeeded: bool = field(default=False, init=False)

    def take(self, line: Any) -> None:
        """Add a line.

        Raises:
            MissingModel: the registry does not have the model.
            InvalidJob: its name is none.
            JobFailed: it cannot be had now.
        """
        facts: Mapping[str, Any] = line if isinstance(line, Mapping) else {"error": line}
        if "error" in facts:
            raise self._error(said_by(str(facts["error"])))
        status = str(facts.get("status") or "")
        self._succeeded = status == "success"
        digest, total, completed = facts.get("digest"), facts.get("total"), facts.get("completed", 0)
        if isinstance(digest, str) and isinstance(total, int) and isinstance(completed, int):
            self._whole[digest], self._got[digest] = total, min(total, completed)
            self.fraction = max(self.fraction, sum(self._got.values()) / max(1, sum(self._whole.values())))
        percent = f", {self.fraction:.0%}" if self._whole else ""
        self.message = f"pulling {self.model}{percent}"

    def prove(self) -> None:
        """Raises ConnectionLost if it ended without the word that says it is done."""
        if not self._succeeded:
            raise ConnectionLost(
                f"{self.endpoint} broke off pulling {self.model}; what it has got is kept",
                details={"model": self.model, "endpoint": self.endpoint},
            )

    def _error(self, said: str) -> EmpError:
        details = {"model": self.model, "endpoint": self.endpoint}
        message = f"{self.endpoint} cannot pull {self.model}: {said}"
        lower = said.lower()
        if "does not exist" in lower or "not found" in lower:
            return MissingModel(message, hint="is the name right?", details=details)
        if "invalid model name" in lower:
            return InvalidJob(message, details=details)
        return JobFailed(message, details={**details, "reason": "pull_failed"})
