"""What jobs for OpenAI's API look like: the fields of the API, and what is done when it cannot be had."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
from attrs import field, frozen
from attrs.validators import min_len

from emp_core.jobs.inputs import InputRef

__all__ = ["PAYLOADS", "AnyTask", "Chat", "Choice", "Edit", "Embed", "Image", "Respond", "Task"]

JSON = Mapping[str, Any]
Picture = str | InputRef
"""A picture: its base64, or a reference to it."""
_OURS = ("task", "fallbacks", "account", "resend", "others", "stream", "background")


@frozen
class Choice:
    """Where else a job may go, when the place before cannot do it.

    Attributes:
        model: another model; None: the same.
        account: another account; None: any.
    """

    model: str | None = None
    account: str | None = None


@frozen(kw_only=True)
class Task:
    """What all tasks have in common.

    Attributes:
        model: its name, as the API calls it.
        fallbacks: models, accounts or both to try instead, in order; a text is a model.
        account: the only account that will do.
        resend: whether the job may be sent again when its answer broke off, though it may be paid for twice.
        stream: without effect: answers are streamed wherever the API can.
        others: all further fields, passed on as they are.
    """

    task: ClassVar[str]

    model: str
    fallbacks: tuple[str | Choice, ...] = ()
    account: str | None = None
    resend: bool | None = None
    stream: bool | None = None
    others: JSON = field(factory=dict, metadata={"rest": True})

    def choices(self) -> tuple[Choice, ...]:
        """Where to go, in order, with the model of each."""
        others = (Choice(one) if isinstance(one, str) else one for one in self.fallbacks)
        first = Choice(self.model, self.account)
        return (first, *(attrs.evolve(one, model=one.model or self.model) for one in others))

    def meant(self) -> "Task":
        """The task, where this is the class of any."""
        return self

    def body(self) -> dict[str, Any]:
        """The fields for the API that were given, but for the model."""
        named = {
            one.name: value
            for one in attrs.fields(type(self))
            if one.name not in (*_OURS, "model") and (value := getattr(self, one.name)) is not None
        }
        return {**self.others, **named}


@frozen(kw_only=True)
class Chat(Task):
    """A chat completion.

    Attributes:
        messages: the chat so far; or
        prompt: one message of the user.
    """

    task = "chat"

    messages: tuple[JSON, ...] | None = None
    prompt: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("expected either messages or a prompt")

    def body(self) -> dict[str, Any]:
        """With the prompt as a message."""
        body = super().body()
        prompt = body.pop("prompt", None)
        if prompt is not None:
            body["messages"] = [{"role": "user", "content": prompt}]
        return body


@frozen(kw_only=True)
class Respond(Task):
    """A response.

    Attributes:
        input: a text, or items.
        background: whether the server goes on without us, so that a worker's end loses nothing and repeats nothing. Servers
            that cannot do that do not mind.
    """

    task = "responses"

    input: str | tuple[JSON, ...]
    background: bool = True


@frozen(kw_only=True)
class Image(Task):
    """Pictures from a text."""

    task = "images"

    prompt: str = field(validator=min_len(1))


@frozen(kw_only=True)
class Edit(Task):
    """Pictures from pictures.

    Attributes:
        image: a picture, or several.
        mask: what of the first one may change: where it is transparent.
    """

    task = "edits"

    prompt: str = field(validator=min_len(1))
    image: Picture | tuple[Picture, ...]
    mask: Picture | None = None


@frozen(kw_only=True)
class Embed(Task):
    """Vectors of texts."""

    task = "embeddings"

    input: str | tuple[str, ...] | tuple[int, ...] | tuple[tuple[int, ...], ...]


@frozen(kw_only=True)
class AnyTask(Task):
    """Any of the tasks, by ``task``; where it is not given: ``messages`` is a chat, ``prompt`` with ``image`` an edit, ``prompt``
    alone a picture, ``input`` a response."""

    task: Literal["chat", "responses", "images", "edits", "embeddings"] | None = None  # type: ignore[misc,assignment]
    messages: tuple[JSON, ...] | None = None
    prompt: str | None = None
    input: Any = None
    image: Picture | tuple[Picture, ...] | None = None
    mask: Picture | None = None

    def __attrs_post_init__(self) -> None:
        self.meant()

    def meant(self) -> Task:
        """The task that is meant. Raises ValueError: none, or one that lacks something."""
        kind = _KINDS.get(self.task or self._guess())
        if kind is None:
            raise ValueError("expected messages, a prompt or an input")
        own = {one.name for one in attrs.fields(kind)}
        given = {
            one.name: value
            for one in attrs.fields(AnyTask)
            if one.name != "task" and (value := getattr(self, one.name)) is not None
        }
        if wrong := sorted(given.keys() - own):
            raise ValueError(f"{', '.join(wrong)} cannot be used with the task {kind.task}")
        missing = [one.name for one in attrs.fields(kind) if one.default is attrs.NOTHING and one.name not in given]
        if missing:
            raise ValueError(f"the task {kind.task} needs {', '.join(missing)}")
        if kind is Respond and "background" in self.others:
            given |= _background_of(self.others)
        return kind(**given)

    def _guess(self) -> str:
        if self.messages is not None:
            return "chat"
        if self.prompt is not None:
            return "edits" if self.image is not None else "images"
        return "responses" if self.input is not None else ""


def _background_of(others: JSON) -> dict[str, Any]:
    """``background`` means something else to pictures, so that only here it is told what it is."""
    rest = dict(others)
    background = rest.pop("background")
    if not isinstance(background, bool):
        raise ValueError("background: expected true or false")  # noqa: TRY004 - what payload classes raise
    return {"background": background, "others": rest}


_KINDS: Mapping[str, type[Task]] = {kind.task: kind for kind in (Chat, Respond, Image, Edit, Embed)}

PAYLOADS: Mapping[str, type[Task]] = {
    "openai": AnyTask,
    "openai_text": Chat,
    "openai_responses": Respond,
    "openai_image": Image,
    "openai_img2img": Edit,
    "openai_embeddings": Embed,
}
"""Payload classes by what jobs require."""
