"""Reading the fields of one entry of the service mapping, with note taken of every mistake."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from emp_core.jobs.requirements import kind_of
from emp_core.services.interpolate import at

__all__ = ["EntryReader"]

_SHOWN_MAX = 60
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class EntryReader:
    """One object of the mapping, at ``path``, with ``${VAR}`` replaced already.

    Numbers and truth values may be written as texts, because a replaced variable is one. A field that is null counts as not
    given. A place with a mistake is reported once: what else is wrong there follows from it.
    """

    def __init__(self, path: str, given: Any = None, parent: "EntryReader | None" = None) -> None:
        self.path = path
        self.given = given
        self.problems: dict[str, str] = parent.problems if parent else {}
        self.notes: list[str] = parent.notes if parent else []

    def problem(self, path: str, text: str) -> None:
        """Take note of a mistake."""
        self.problems.setdefault(path, text)

    def note(self, key: str, text: str) -> None:
        """Take note of something that has no effect."""
        self.notes.append(f"{at(self.path, key)}: {text}")

    def only(self, *known: str) -> None:
        """Check that this is an object, and note keys that nobody reads."""
        for key, close in self._unknown(known):
            self.note(key, "not read" + (f"; did you mean {close}?" if close else ""))

    def others(self, *known: str) -> dict[str, Any]:
        """Check that this is an object; its other keys, which are noted and handed on."""
        unknown = self._unknown(known)
        for key, close in unknown:
            self.note(key, "handed on to the connector" + (f"; did you mean {close}?" if close else ""))
        return {key: self.given[key] for key, _ in unknown}

    def _unknown(self, known: tuple[str, ...]) -> list[tuple[str, str | None]]:
        if not isinstance(self.given, Mapping):
            self.problem(self.path, f"expected an object, not {kind_of(self.given)}")
            return []
        unknown = [key for key in self.given if key not in known]
        return [(key, next(iter(get_close_matches(key, known, n=1)), None)) for key in unknown]

    def _value(self, key: str) -> Any:
        return self.given.get(key) if isinstance(self.given, Mapping) else None

    def text(self, key: str, *, required: bool = False, longest: int | None = None) -> str | None:
        """A text; None when it is not given or not one."""
        return self._text(self._value(key), at(self.path, key), required=required, longest=longest)

    def _text(self, value: Any, path: str, *, required: bool, longest: int | None) -> str | None:
        if value is None:
            if required:
                self._missing(path)
            return None
        if not isinstance(value, str):
            self.problem(path, f"expected a text, not {kind_of(value)}")
        elif required and (not value.strip() or not value.isprintable()):
            self.problem(path, "expected a name, not an empty or unprintable text")
        elif longest is not None and len(value) > longest:
            self.problem(path, f"expected at most {longest} characters, not {len(value)}")
        else:
            return value
        return None

    def _missing(self, path: str) -> None:
        if isinstance(self.given, Mapping):
            self.problem(path, "is missing")

    def texts(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        """A list of names, empty ones in the places of what is none."""
        return tuple(
            self._text(value, path, required=True, longest=None) or ""
            for path, value in self._list(key, required=required)
        )

    def _list(self, key: str, *, required: bool = False) -> list[tuple[str, Any]]:
        value, path = self._value(key), at(self.path, key)
        if value is None:
            if required:
                self._missing(path)
            return []
        if not isinstance(value, (list, tuple)):
            self.problem(path, f"expected a list, not {kind_of(value)}")
            return []
        return [(at(path, i), one) for i, one in enumerate(value)]

    def items(self, key: str) -> "list[EntryReader] | None":
        """The objects of a list; None when it is not given."""
        if self._value(key) is None:
            return None
        return [EntryReader(path, value, self) for path, value in self._list(key)]

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An object, as it stands there."""
        value = self._value(key)
        if value is not None and not isinstance(value, Mapping):
            self.problem(at(self.path, key), f"expected an object, not {kind_of(value)}")
            return {}
        return value or {}

    def flag(self, key: str) -> bool:
        """A truth value, false when it is not given."""
        value = self._value(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        word = value.strip().lower() if isinstance(value, str) else None
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        self.problem(at(self.path, key), f"expected true or false, not {_shown(value)}")
        return False

    def one_of(self, key: str, choices: tuple[str, ...]) -> str | None:
        """One of some words."""
        value, path = self._value(key), at(self.path, key)
        if value is None:
            self._missing(path)
        elif value not in choices:
            self.problem(path, f"expected one of {', '.join(choices)}, not {_shown(value)}")
        else:
            return str(value)
        return None

    def whole(self, key: str, least: int, most: int, *, default: int) -> int:
        """A whole number."""
        value = self._value(key)
        return default if value is None else self._whole(value, at(self.path, key), least, most)

    def wholes(self, key: str, least: int, most: int) -> tuple[int, ...]:
        """A list of whole numbers."""
        return tuple(self._whole(value, path, least, most) for path, value in self._list(key))

    def _whole(self, value: Any, path: str, least: int, most: int) -> int:
        number = value
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal() and len(value) < _SHOWN_MAX:
            number = int(value)
        if isinstance(number, int) and not isinstance(number, bool) and least <= number <= most:
            return number
        self.problem(path, f"expected a whole number from {least} to {most}, not {_shown(value)}")
        return least


def _shown(value: Any) -> str:
    if not isinstance(value, (str, int, float, bool)):
        return kind_of(value)
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= _SHOWN_MAX else f"{shown[:_SHOWN_MAX]}…"
