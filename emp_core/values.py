"""From the text of an environment variable to its value. Each parser raises ValueError with what was expected."""

import json
import math
from collections.abc import Callable
from typing import Any

__all__ = ["age", "ages", "flag", "json_object", "number", "one_of", "text", "whole", "words"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHOWN = 20


def text(value: str) -> str:
    """Any text: what cannot be sent in UTF-8 is none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text in UTF-8") from None
    return value


def flag(value: str) -> bool:
    """True or false, in the usual spellings."""
    match value.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError("expected true or false")


def whole(minimum: int = 0, maximum: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers within bounds."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError("expected a whole number") from None
        if number < minimum or (maximum is not None and number > maximum):
            raise ValueError(f"expected a whole number {_bounds(minimum, maximum)}")
        return number

    return parse


def number(minimum: float = 0.0, maximum: float | None = None) -> Callable[[str], float]:
    """A parser of finite numbers within bounds."""

    def parse(value: str) -> float:
        try:
            parsed = float(value)
        except ValueError:
            raise ValueError("expected a number") from None
        if not math.isfinite(parsed) or parsed < minimum or (maximum is not None and parsed > maximum):
            raise ValueError(f"expected a number {_bounds(minimum, maximum)}")
        return parsed

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that takes one of the given words, whatever their case."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return value.lower()

    return parse


def words(value: str) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(word for part in text(value).split(",") if (word := part.strip()))


def age(value: str) -> float:
    """A length of time in seconds: a number of them, or one with a unit (``90m``, ``36h``, ``7d``, ``2w``)."""
    unit = _UNITS.get(value[-1:].lower())
    try:
        seconds = float(value) if unit is None else float(value[:-1]) * unit
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("expected a number of seconds, or a number and one of s, m, h, d, w: 7d")
    return seconds


def ages(value: str) -> dict[str, float]:
    """Lengths of time by name: ``draft=7d,final=365d``."""
    found: dict[str, float] = {}
    for word in words(value):
        name, equals, told = (part.strip() for part in word.partition("="))
        if not equals or not name or name in found:
            raise ValueError(f"expected each name once, with its age: draft=7d, not {word!r}")
        found[name] = age(told)
    return found


def json_object(value: str) -> dict[str, Any]:
    """A JSON object that can be told on: its numbers are finite, its texts have whole characters."""
    try:
        parsed = json.loads(value, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
        json.dumps(parsed, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"expected a JSON object: {error}") from None
    except UnicodeEncodeError:
        raise ValueError("expected a JSON object, and it holds half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("expected a JSON object, and it is nested too deeply") from None
    if not isinstance(parsed, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - what every parser raises
    return parsed


def _finite(value: str) -> float:
    read = float(value)
    if not math.isfinite(read):
        raise ValueError(f"expected a JSON object, and {value[:_SHOWN]} in it is no finite number")
    return read


def _whole(value: str) -> int:
    _finite(value)  # one that no float can hold cannot be compared with floats
    return int(value)


def _bounds(minimum: float, maximum: float | None) -> str:
    return f"of {minimum} or more" if maximum is None else f"from {minimum} to {maximum}"
