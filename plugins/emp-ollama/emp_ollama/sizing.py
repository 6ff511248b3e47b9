"""The options that size a model's process. Ollama starts the process again when they differ from the request before."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from emp_core.config import json_object

if TYPE_CHECKING:  # payloads are checked by what stands here
    from emp_ollama.payloads import Task

__all__ = ["SIZING_OPTIONS", "Sizing", "check_sizes", "read_sizing", "sizing_of"]

SIZING_OPTIONS: Mapping[str, type] = {
    "num_ctx": int,
    "num_batch": int,
    "num_gpu": int,
    "main_gpu": int,
    "num_thread": int,
    "use_mmap": bool,
    "shift": bool,
}
"""As recorded with Ollama 0.33. ``shift`` is no option there but a field of its own."""

_DEFAULTS: Mapping[str, Any] = {"shift": True}
"""Those of Ollama that are the same everywhere."""


@frozen
class Sizing:
    """What models run with on a server.

    Attributes:
        own: the worker's options; what is not among them is the server's own.
        may_reload: whether a job may have its model loaded again with others.
    """

    own: Mapping[str, Any] = field(factory=dict)
    may_reload: bool = False

    def capabilities(self) -> dict[str, Any]:
        """What jobs may require: the length of the context that they get. None as a value: as long as they ask for."""
        if self.may_reload:
            return {"ollama_num_ctx": None}
        return {"ollama_num_ctx": self.own["num_ctx"]} if "num_ctx" in self.own else {}

    def refusal(self, task: "Task") -> str | None:
        """Why a task is not for this server: its model would be loaded again for it. None: it is."""
        if self.may_reload:
            return None
        for name, asked in _asked(task).items():
            own = self.own.get(name, _DEFAULTS.get(name))
            if asked != own and not (name == "num_ctx" and own is not None and asked <= own):
                runs_with = "the server's own" if own is None else repr(own)
                return (
                    f"the job asks for {name} {asked!r}, models of this worker run with {runs_with}: set "
                    "EMP_OLLAMA_OPTIONS on workers for such jobs, or EMP_OLLAMA_ALLOW_RELOAD"
                )
        return None

    def sent_for(self, task: "Task") -> dict[str, Any]:
        """What is sent with a task: the options, and ``shift`` where it is not as usual."""
        sizes = {**self.own, **(_asked(task) if self.may_reload else {})}
        shift = sizes.pop("shift", None)
        options = {**task.options, **sizes}
        return {
            **({"options": options} if options else {}),
            **({} if shift is None or task.task == "embed" else {"shift": shift}),
        }


def read_sizing(value: str) -> dict[str, Any]:
    """Sizing options from the text of a variable. Raises ValueError: says what was expected."""
    return sizing_of(json_object(value))


def sizing_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Sizing options, checked. Raises ValueError: others are among them, or values that are none."""
    if unknown := sorted(options.keys() - SIZING_OPTIONS.keys()):
        raise ValueError(f"expected only {', '.join(SIZING_OPTIONS)}, not {', '.join(unknown)}")
    check_sizes(options)
    return dict(options)


def check_sizes(options: Mapping[str, Any]) -> None:
    """Raises ValueError if one of the sizing options among others has a value that is none."""
    for name, kind in SIZING_OPTIONS.items():
        if name in options and type(options[name]) is not kind:
            expected = "true or false" if kind is bool else "a whole number"
            raise ValueError(f"expected {expected} for {name}, not {options[name]!r}")


def _asked(task: "Task") -> dict[str, Any]:
    """The sizes that a task asks for."""
    asked = {name: task.options[name] for name in SIZING_OPTIONS if name in task.options}
    shift = getattr(task, "shift", None)
    return asked if shift is None else {**asked, "shift": shift}
