"""What a payload class says of its fields beyond their types: names, and the validators of attrs, in words and as JSON Schema.

Validators are run by themselves before the class is made, so that all mistakes are found and none of them repeats a value.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from attrs import Attribute, evolve, field, fields, frozen, validators

__all__ = ["Limit", "PayloadValue", "key_of", "limits_of", "listed", "rest_of", "same_choice"]

# attrs does not name the classes of its validators.
_AND: type = type(validators.and_())
_OPTIONAL: type = type(validators.optional(validators.ge(0)))
_IN: type = type(validators.in_(()))
_NUMBER: type = type(validators.ge(0))
_MIN_LENGTH: type = type(validators.min_len(0))
_MAX_LENGTH: type = type(validators.max_len(0))
_PATTERN: type = type(validators.matches_re(""))
_ITEMS: type = type(validators.deep_iterable(validators.ge(0)))

_COMPARED: Mapping[str, tuple[str, str]] = {
    ">=": ("{} or more", "minimum"),
    ">": ("more than {}", "exclusiveMinimum"),
    "<=": ("{} or less", "maximum"),
    "<": ("less than {}", "exclusiveMaximum"),
}
_SHOWN_CHOICES = 20


@runtime_checkable
class PayloadValue(Protocol):
    """A class with a form of its own in payloads."""

    payload_schema: ClassVar[Mapping[str, Any]]
    """JSON Schema of that form."""

    @classmethod
    def from_payload(cls, value: Any) -> Self:
        """Read it. Raises ValueError with what was expected (``expected …, not a text``)."""
        ...


def key_of(attribute: "Attribute[Any]") -> str:
    """A field's name in the payload."""
    return str(attribute.metadata.get("key") or attribute.alias)


def rest_of(kind: type) -> "Attribute[Any] | None":
    """The field that takes the keys which the class does not name."""
    return next((one for one in fields(kind) if one.metadata.get("rest")), None)


def same_choice(value: Any, choice: Any) -> bool:
    """Whether a JSON value is this choice: to JSON, true is not 1."""
    return bool(value == choice) and isinstance(value, bool) == isinstance(choice, bool)


def listed(choices: Sequence[Any]) -> str:
    """Choices in words, as they stand in JSON."""
    shown = [
        choice if isinstance(choice, str) else json.dumps(choice, default=str) for choice in choices[:_SHOWN_CHOICES]
    ]
    more = f" and {len(choices) - _SHOWN_CHOICES} more" if len(choices) > _SHOWN_CHOICES else ""
    return ", ".join(map(str, shown)) + more


@frozen
class Limit:
    """One thing that holds of a value.

    Attributes:
        expected: in words, after "expected".
        schema: JSON Schema keywords that say the same; ``min`` and ``max`` for lengths, whose names hang on the type.
        items: whether it is said of each item of a list rather than of the value.
        or_none: whether None is let through.
    """

    expected: str
    holds: Callable[[Any], bool] = field(repr=False)
    schema: Mapping[str, Any]
    items: bool = False
    or_none: bool = False

    def mistakes(self, value: Any) -> Iterator[tuple[str, str]]:
        """Where below the value it does not hold, and what was expected."""
        if value is None and self.or_none:
            return
        if not self.items:
            if not self.holds(value):
                yield "", self.expected
            return
        for index, item in enumerate(value or ()):
            if not self.holds(item):
                yield f"[{index}]", self.expected


def limits_of(validator: Any) -> tuple[Limit, ...]:
    """What a field's validator says. Validators that are not attrs's own say nothing here: they need the whole object."""
    return tuple(_read(validator))


def _read(validator: Any) -> Iterator[Limit]:
    kind = type(validator)
    if kind is _AND:
        for inner in validator._validators:
            yield from _read(inner)
    elif kind is _OPTIONAL:
        yield from (evolve(limit, or_none=True) for limit in _read(validator.validator))
    elif kind is _ITEMS:
        yield from (evolve(limit, items=True) for limit in _read(validator.member_validator) if not limit.items)
    elif kind is _IN:
        yield _one_of(tuple(validator.options))
    elif kind is _NUMBER:
        words, keyword = _COMPARED[validator.compare_op]
        yield Limit(
            words.format(validator.bound),
            lambda value: validator.compare_func(value, validator.bound),
            {keyword: validator.bound},
        )
    elif kind is _MIN_LENGTH:
        least = validator.min_length
        yield Limit(f"a length of {least} or more", lambda value: len(value) >= least, {"min": least})
    elif kind is _MAX_LENGTH:
        most = validator.max_length
        yield Limit(f"a length of {most} or less", lambda value: len(value) <= most, {"max": most})
    elif kind is _PATTERN:
        yield _pattern(validator)


def _one_of(options: tuple[Any, ...]) -> Limit:
    return Limit(f"one of {listed(options)}", lambda value: value in options, {"enum": list(options)})


def _pattern(validator: Any) -> Limit:
    pattern = validator.pattern.pattern
    # attrs keeps the bound method that it calls; JSON Schema's patterns are searched for.
    begin, end = {"fullmatch": ("^(?:", ")$"), "match": ("^(?:", ")")}.get(validator.match_func.__name__, ("", ""))
    return Limit(
        f"a text like {pattern}",
        lambda value: validator.match_func(value) is not None,
        {"pattern": f"{begin}{pattern}{end}"},
    )
