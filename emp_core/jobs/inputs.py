"""Files that a job refers to: values ``{"$input": {…}}`` anywhere in its payload."""

import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self, get_args
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from emp_core.jobs.requirements import kind_of

__all__ = ["INPUT_KEY", "InputPlace", "InputRef", "Place", "inputs_of", "place_text", "with_values", "without_contents"]

INPUT_KEY = "$input"
"""An object with this key is a reference to a file, wherever it stands."""

Source = Literal["url", "artifact", "base64", "path"]
Place = tuple[str | int, ...]
"""Where a value stands in a payload: the keys and indexes that lead to it."""
_Step = tuple[Any, str | int]

_SOURCES: tuple[Source, ...] = get_args(Source)
_FACTS = ("name", "media_type", "sha256", "max_bytes")
_TEXT_MAX = 8192
_NAME_MAX = 200
_PROBLEMS_MAX = 20
_FILES_MAX = 1000
_DEPTH_MAX = 100
_HIDDEN = "(hidden)"
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SPACE = re.compile(r"\s+")


@frozen
class InputRef:
    """A file that a job refers to, as its payload says.

    Attributes:
        source: what ``at`` is: an http or https URL, an artifact's key or URL, the bytes themselves in base64, or a path on
            the worker's machine.
        at: never shown: it may be a signed URL, or the file itself.
        name: a file name for it; None: that of the source.
        media_type: what it is said to be, in lower case and without parameters; None: not said.
        sha256: the checksum that it must have, in hexadecimal.
        max_bytes: the length at which it is refused, besides the worker's own limit.
    """

    source: Source
    at: str = field(repr=False)
    name: str | None = None
    media_type: str | None = None
    sha256: str | None = None
    max_bytes: int | None = None

    payload_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "description": "A file: from a URL, an artifact, base64 or a path on the worker's machine.",
        "properties": {
            INPUT_KEY: {
                "type": "object",
                "properties": {
                    **{source: {"type": "string", "minLength": 1} for source in _SOURCES},
                    "name": {"type": "string", "minLength": 1, "maxLength": _NAME_MAX},
                    "media_type": {"type": "string"},
                    "sha256": {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
                    "max_bytes": {"type": "integer", "minimum": 1},
                },
                "oneOf": [{"required": [source]} for source in _SOURCES],
                "additionalProperties": False,
            }
        },
        "required": [INPUT_KEY],
        "additionalProperties": False,
    }
    """JSON Schema of its form in payloads."""

    @classmethod
    def from_payload(cls, value: Any) -> Self:
        """Read ``{"$input": {…}}``.

        Raises:
            ValueError: what is wrong with it, without repeating what it refers to.
        """
        if not isinstance(value, Mapping) or INPUT_KEY not in value:
            raise ValueError(f'expected a file such as {{"{INPUT_KEY}": {{"url": …}}}}, not {kind_of(value)}')
        problems: list[str] = []
        others = [name for name in value if name != INPUT_KEY]
        if others:
            problems.append(f"{INPUT_KEY} stands alone in its object, not beside {_names(others)}")
        said = value[INPUT_KEY]
        if not isinstance(said, Mapping):
            raise ValueError(  # noqa: TRY004 - what a payload value raises
                f"{INPUT_KEY}: expected an object with one of {', '.join(_SOURCES)}, not {kind_of(said)}"
            )
        problems += _problems(said)
        if problems:
            raise ValueError("; ".join(problems))
        source: Source = next(filter(said.__contains__, _SOURCES))
        at = _SPACE.sub("", said[source]) if source == "base64" else said[source]
        media_type = said.get("media_type")
        sha256 = said.get("sha256")
        return cls(
            source=source,
            at=at,
            name=said.get("name"),
            media_type=None if media_type is None else _plain_type(media_type),
            sha256=None if sha256 is None else sha256.lower(),
            max_bytes=said.get("max_bytes"),
        )

    def as_payload(self) -> dict[str, Any]:
        """Its form in payloads."""
        facts = {name: value for name in _FACTS if (value := getattr(self, name)) is not None}
        return {INPUT_KEY: {self.source: self.at, **facts}}

    def as_shown(self) -> dict[str, Any]:
        """Its form for people."""
        shown = self.at
        if self.source == "base64":
            shown = f"({self.base64_bytes:,} bytes)"
        elif self.source in ("url", "artifact"):
            before, mark, _ = self.at.partition("?")
            shown = before + mark + (_HIDDEN if mark else "")
        return evolve(self, at=shown).as_payload()

    @property
    def base64_bytes(self) -> int:
        """How many bytes its base64 stands for."""
        return len(self.at) * 3 // 4 - self.at[-2:].count("=")


@frozen
class InputPlace:
    """A reference, and where it stands in the payload."""

    place: Place
    ref: InputRef

    def __str__(self) -> str:
        return place_text(self.place)


def inputs_of(payload: Any, *, at: Place = ()) -> tuple[list[InputPlace], list[str]]:
    """The files that a payload refers to, in their order, and what is wrong with it, each with its place.

    Args:
        at: where it stands, if it is a part of a payload.
    """
    found: list[InputPlace] = []
    problems: list[str] = []
    for below, value in _references(payload):
        place = (*at, *below)
        if len(place) > _DEPTH_MAX:
            problems.append(f"{place_text(place[:5])}…: a file stands more than {_DEPTH_MAX} levels deep")
            continue
        try:
            found.append(InputPlace(place, InputRef.from_payload(value)))
        except ValueError as error:
            problems.append(f"{place_text(place)}: {error}")
    if len(found) > _FILES_MAX:
        # All are given all the same: whoever shows a payload hides what is in them.
        problems.append(
            f"{place_text(at)}: {len(found):,} files are more than the {_FILES_MAX:,} that a job may refer to"
        )
    if len(problems) > _PROBLEMS_MAX:
        problems[_PROBLEMS_MAX:] = [f"and {len(problems) - _PROBLEMS_MAX} more files that cannot be used"]
    return found, problems


def with_values(payload: Any, values: Mapping[Place, Any]) -> Any:
    """A copy of the payload with other values in these places; what has no other value in it is the same object."""
    if () in values:
        return values[()]
    below: dict[str | int, dict[Place, Any]] = {}
    for place, value in values.items():
        below.setdefault(place[0], {})[place[1:]] = value
    if isinstance(payload, Mapping):
        return {key: with_values(inner, below[key]) if key in below else inner for key, inner in payload.items()}
    if isinstance(payload, list | tuple):
        return [with_values(inner, below[i]) if i in below else inner for i, inner in enumerate(payload)]
    return payload


def without_contents(payload: Any) -> Any:
    """A payload for people: without the bytes of files, and without what may open a URL to whoever reads it."""
    found, _ = inputs_of(payload)
    return with_values(payload, {one.place: one.ref.as_shown() for one in found})


def place_text(place: Place) -> str:
    """A place in words: ``payload.images[0].file``."""
    return "payload" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)


def _references(payload: Any) -> Iterator[tuple[Place, Any]]:
    # By a stack of its own, with each place as a chain of steps: payloads may be nested more deeply than calls can be.
    waiting: list[tuple[_Step | None, Any]] = [(None, payload)]
    while waiting:
        step, value = waiting.pop()
        if isinstance(value, Mapping):
            if INPUT_KEY in value:
                yield _place(step), value
                continue
            waiting += reversed([((step, key), inner) for key, inner in value.items()])
        elif isinstance(value, list | tuple):
            waiting += reversed([((step, index), inner) for index, inner in enumerate(value)])


def _place(step: "_Step | None") -> Place:
    place: list[str | int] = []
    while step is not None:
        step, last = step
        place.append(last)
    return tuple(reversed(place))


def _problems(said: Mapping[str, Any]) -> Iterator[str]:
    given = [name for name in _SOURCES if name in said]
    if len(given) != 1:
        yield f"expected one of {', '.join(_SOURCES)}" + (f", not {_names(given)} together" if given else "")
    if unknown := [name for name in said if name not in _SOURCES and name not in _FACTS]:
        yield f"unknown: {_names(unknown)} (known: {', '.join((*_SOURCES, *_FACTS))})"
    for name in (*given, "name", "media_type", "sha256"):
        if (value := said.get(name)) is None and name not in said:
            continue
        if not isinstance(value, str) or not value.strip():
            yield f"{name}: expected a text that is not empty, not {kind_of(value) if value != '' else 'an empty one'}"
        elif (wrong := _WRONG[name](value)) is not None:
            yield f"{name}: {wrong}"
    if "max_bytes" in said and (type(said["max_bytes"]) is not int or said["max_bytes"] < 1):
        yield "max_bytes: expected a whole number of bytes, 1 or more"


def _wrong_url(url: str) -> str | None:
    if len(url) > _TEXT_MAX or not url.isprintable() or " " in url:
        return f"expected at most {_TEXT_MAX} printable characters without spaces"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it cannot be read as a URL"
    if parts.scheme.lower() not in ("http", "https") or not host:
        return "expected an http or https URL with a host"
    if "@" in parts.netloc:
        return "a login may not stand in it: jobs are kept and shown"
    return None


def _wrong_base64(text: str) -> str | None:
    if text.startswith("data:"):
        return "expected the base64 alone, without 'data:…,' in front; media_type says what it is"
    try:
        decoded = binascii.a2b_base64(_SPACE.sub("", text), strict_mode=True)
    except (binascii.Error, ValueError):  # ValueError: it has characters beyond ASCII
        return "it is no base64"
    return None if decoded else "it holds nothing"


def _wrong_text(text: str) -> str | None:
    if len(text) > _TEXT_MAX or not text.isprintable():
        return f"expected at most {_TEXT_MAX} printable characters"
    return None


def _wrong_name(name: str) -> str | None:
    if len(name.encode("utf-8", "replace")) > _NAME_MAX or not name.isprintable():
        return f"expected at most {_NAME_MAX} bytes of printable characters"
    if name in (".", "..") or any(mark in name for mark in "/\\:"):
        return "expected a file's name, without folders"
    return None


def _wrong_media_type(media_type: str) -> str | None:
    return None if _MEDIA_TYPE.fullmatch(_plain_type(media_type)) else "expected a type such as image/png"


def _wrong_sha256(digest: str) -> str | None:
    return None if _SHA256.fullmatch(digest.lower()) else "expected 64 hexadecimal digits"


def _plain_type(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def _names(names: list[Any]) -> str:
    shown = [str(name)[:40] for name in names[:5]]
    return ", ".join([*shown, "…"] if len(names) > len(shown) else shown)


_WRONG = {
    "url": _wrong_url,
    "artifact": _wrong_text,
    "base64": _wrong_base64,
    "path": _wrong_text,
    "name": _wrong_name,
    "media_type": _wrong_media_type,
    "sha256": _wrong_sha256,
}
