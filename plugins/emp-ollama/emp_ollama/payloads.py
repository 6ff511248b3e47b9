"""What jobs for Ollama look like: the fields of its own API, and nothing that its API does not know."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs
from attrs import field, frozen

from emp_core.jobs.inputs import InputRef
from emp_ollama.schemas import check_schema
from emp_ollama.sizing import check_sizes

__all__ = ["PAYLOADS", "AnyTask", "Chat", "Embed", "Generate", "Message", "Task"]

JSON = Mapping[str, Any]
Picture = str | InputRef
"""A picture: its base64, or a reference to it."""


def _is_format(_owner: Any, _field: Any, value: Any) -> None:
    if value is None or value == "json":
        return
    if not isinstance(value, Mapping):
        raise ValueError('expected "json" or a JSON schema')  # noqa: TRY004 - what every validator raises
    check_schema(value)


def _are_options(_owner: Any, _field: Any, value: JSON) -> None:
    check_sizes(value)
    if "shift" in value:
        raise ValueError("shift is no option: it stands beside options")


def _is_extra(_owner: Any, _field: Any, value: JSON) -> None:
    if own := sorted(value.keys() & {one.name for one in attrs.fields(AnyTask)}):
        raise ValueError(f"expected fields that have no place of their own, not {', '.join(own)}")


def _are_pictures(_owner: Any, _field: Any, value: tuple[Picture, ...]) -> None:
    for one in value:
        if isinstance(one, str) and ":" in one[:100]:
            raise ValueError('expected base64 alone, or {"$input": {"url": …}} for a picture that is elsewhere')


@frozen(kw_only=True)
class Task:
    """What all tasks have in common.

    Attributes:
        model: its name; ``:latest`` may be left out. The worker's default when not set.
        options: sampling and other options, as Ollama names them.
        keep_alive: how long the model stays loaded: ``10m``, seconds, negative for ever, 0 not at all.
        stream: without effect: answers are always streamed.
        extra: further fields of Ollama's API, passed on as they are.
    """

    task: ClassVar[str]

    model: str | None = None
    options: JSON = field(factory=dict, validator=_are_options)
    keep_alive: str | int | float | None = None
    stream: bool | None = None
    extra: JSON = field(factory=dict, validator=_is_extra)


@frozen(kw_only=True)
class _Text(Task):
    """What tasks that put out text have in common."""

    format: Literal["json"] | JSON | None = field(default=None, validator=_is_format)
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


@frozen(kw_only=True)
class Generate(_Text):
    """Go on with a text. An empty prompt loads the model and does nothing else.

    Attributes:
        prompt: the text.
        images: pictures for models that see.
        suffix: what comes after the answer, for models that fill in.
        raw: the prompt is not put into the model's template.
        format: ``"json"``, or a JSON schema that the answer has to fit.
        think: whether the model thinks first, and how much.
        truncate: whether a prompt that is too long is cut (Ollama's default) or refused.
        shift: whether an answer goes on beyond the context's end.
    """

    task = "generate"

    prompt: str = ""
    system: str | None = None
    template: str | None = None
    suffix: str | None = None
    images: tuple[Picture, ...] = field(default=(), validator=_are_pictures)
    raw: bool | None = None


@frozen
class Message:
    """One message of a chat.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        tool_calls: what the model asked for in an earlier answer.
        tool_name: whose answer a message of the role ``tool`` is.
    """

    role: str
    content: str = ""
    thinking: str | None = None
    images: tuple[Picture, ...] = field(default=(), validator=_are_pictures)
    tool_calls: tuple[JSON, ...] = ()
    tool_name: str | None = None
    tool_call_id: str | None = None


@frozen(kw_only=True)
class Chat(_Text):
    """Answer a chat. No messages: the model is loaded and nothing else is done.

    Attributes:
        messages: the chat so far.
        tools: functions that the model may ask for.
        format: ``"json"``, or a JSON schema that the answer has to fit.
        think: whether the model thinks first, and how much.
        truncate: whether a chat that is too long is cut (Ollama's default) or refused.
        shift: whether an answer goes on beyond the context's end.
    """

    task = "chat"

    messages: tuple[Message, ...]
    tools: tuple[JSON, ...] = ()


@frozen(kw_only=True)
class Embed(Task):
    """Turn texts into vectors.

    Attributes:
        input: a text, or several.
        truncate: whether texts that are too long are cut (Ollama's default) or refused.
        dimensions: the length of the vectors, for models that can choose.
    """

    task = "embed"

    input: str | Sequence[str]
    truncate: bool | None = None
    dimensions: int | None = None


@frozen(kw_only=True)
class AnyTask(_Text):
    """Any of the tasks, told by its field: ``messages`` is a chat, ``input`` is to be embedded, ``prompt`` is gone on with."""

    prompt: str | None = None
    system: str | None = None
    template: str | None = None
    suffix: str | None = None
    images: tuple[Picture, ...] = field(default=(), validator=_are_pictures)
    raw: bool | None = None
    messages: tuple[Message, ...] | None = None
    tools: tuple[JSON, ...] = ()
    input: str | Sequence[str] | None = None
    dimensions: int | None = None

    def __attrs_post_init__(self) -> None:
        told = [name for name in ("messages", "input", "prompt") if getattr(self, name) is not None]
        if len(told) > 1:
            raise ValueError(f"expected one of messages, input and prompt, not {' and '.join(told)}")
        known = {one.name for one in attrs.fields(self._meant)}
        others = [
            one.name
            for one in attrs.fields(AnyTask)
            if one.name not in known and getattr(self, one.name) not in (None, ())
        ]
        if others:
            raise ValueError(f"{', '.join(others)} cannot be used to {self.task}")

    @property
    def task(self) -> str:  # type: ignore[override]  # a payload of this class says it by its fields
        """The task that is meant."""
        return self._meant.task

    @property
    def _meant(self) -> type[Task]:
        if self.messages is not None:
            return Chat
        return Embed if self.input is not None else Generate


PAYLOADS: Mapping[str, type[Task]] = {
    "ollama": AnyTask,
    "text_generation": Generate,
    "chat_completion": Chat,
    "embeddings": Embed,
}
"""Payload classes by what jobs require."""
