"""Payload classes of every shape that payloads may have."""

from collections.abc import Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Annotated, Any, ClassVar, Literal, NewType, Self, cast

from attrs import field, frozen, validators

Seed = NewType("Seed", int)


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@frozen
class Text:
    """A text prompt."""

    kind: Literal["text"]
    text: str = field(validator=validators.min_len(1))


@frozen
class Picture:
    """A picture prompt."""

    kind: Literal["picture"]
    width: int = field(default=64, validator=[validators.ge(1), validators.le(4096)])


class Colour:
    """A value with a form of its own."""

    payload_schema: ClassVar[Mapping[str, Any]] = {"type": "string", "pattern": "^#[0-9a-f]{6}$"}

    def __init__(self, red: int) -> None:
        self.red = red

    @classmethod
    def from_payload(cls, value: Any) -> Self:
        if (
            not isinstance(value, str)
            or len(value) != 7
            or value[0] != "#"
            or not set(value[1:]) <= set("0123456789abcdef")
        ):
            raise ValueError("expected a colour like #ff0000")
        return cls(int(value[1:3], 16))


@frozen
class Everything:
    """One field of each kind.

    It has a second paragraph.

    Attributes:
        steps: how often,
            in all.
        name: what it is called.
    """

    steps: int = field(validator=validators.ge(1))
    name: str = ""
    strength: float = field(default=0.5, validator=[validators.gt(0), validators.lt(1)])
    fast: bool = False
    nothing: None = None
    anything: Any = None
    size: Size = Size.SMALL
    level: Level = Level.LOW
    mode: Literal["a", 1, True] | None = "a"
    seed: Seed | None = field(default=None, validator=cast("Any", validators.optional(validators.ge(0))))
    tags: Sequence[str] = field(default=(), validator=validators.deep_iterable(validators.max_len(3)))
    pair: tuple[int, str] | None = None
    sizes: list[int] = field(factory=list, validator=validators.max_len(2))
    weights: Mapping[str, float] = field(factory=dict)
    prompt: Text | Picture | None = None
    either: int | str | list[int] = 1
    code: Annotated[str, "as printed"] = field(default="ab", validator=validators.matches_re("[a-c]+"))
    choice: str | None = field(default=None, validator=validators.optional(validators.in_(["x", "y"])))
    colour: Colour | None = None
    options: Text | None = field(default=None, metadata={"key": "$options", "description": "How."})
    children: "list[Everything]" = field(factory=list)


@frozen
class Open:
    """Takes other keys, too."""

    model: str
    rest: Mapping[str, float] = field(factory=dict, metadata={"rest": True})


@frozen
class Between:
    """What it says can only be judged as a whole."""

    first: int
    last: int

    def __attrs_post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError("last comes before first")
