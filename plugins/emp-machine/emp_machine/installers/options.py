"""Reading ``installer_config``, with every mistake told at once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError

__all__ = ["Options"]

T = TypeVar("T")

_YES = frozenset({"true", "1", "yes", "on"})
_NO = frozenset({"false", "0", "no", "off", ""})


class Options:
    """What stands under ``installer_config`` of a service's entry.

    Values come from JSON and from variables, so that ``"true"`` and ``true`` mean the same. Mistakes are collected;
    `check` raises them.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self._service = config.name
        given = config.options.get("installer_config", {})
        self._given: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        self._asked: set[str] = set()
        self.problems: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        return self._read(name, default, "a text", lambda value: value if isinstance(value, str) else None)

    def flag(self, name: str, default: bool) -> bool:
        """Yes or no."""

        def read(value: Any) -> bool | None:
            word = str(value).strip().lower()
            return word in _YES if word in _YES | _NO else None

        return self._read(name, default, "true or false", read)

    def number(self, name: str, default: float) -> float:
        """A number that is not negative."""

        def read(value: Any) -> float | None:
            try:
                number = float(value)
            except (TypeError, ValueError):
                return None
            return number if 0 <= number < float("inf") and not isinstance(value, bool) else None

        return self._read(name, default, "a number of 0 or more", read)

    def words(self, name: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        """A list of texts; or one text with commas between them."""

        def read(value: Any) -> tuple[str, ...] | None:
            if isinstance(value, str):
                return tuple(word.strip() for word in value.split(",") if word.strip())
            return tuple(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else None

        return self._read(name, tuple(default), "a list of texts", read)

    def variables(self, name: str) -> dict[str, str]:
        """An object of texts."""

        def read(value: Any) -> dict[str, str] | None:
            if not isinstance(value, Mapping):
                return None
            return {key: str(one) for key, one in value.items()}

        return self._read(name, {}, "an object of texts", read)

    def objects(self, name: str) -> list[Any]:
        """A list of anything."""
        return self._read(name, [], "a list", lambda value: list(value) if isinstance(value, list) else None)

    def value(self, name: str) -> Any:
        """Whatever stands there; None if nothing does."""
        self._asked.add(name)
        return self._given.get(name)

    def wrong(self, name: str, why: str) -> None:
        """Add a mistake."""
        self.problems.append(f"services.{self._service}.installer_config.{name}: {why}")

    def check(self) -> None:
        """Raise what was found.

        Raises:
            ConfigError: values cannot be used, or keys are not known; lists all of them.
        """
        for key in sorted(self._given.keys() - self._asked):
            self.wrong(key, f"no such key; known are {', '.join(sorted(self._asked))}")
        if self.problems:
            raise ConfigError(
                f"the installer of {self._service} is not configured well", problems=tuple(dict.fromkeys(self.problems))
            )

    def _read(self, name: str, default: T, expected: str, read: Callable[[Any], T | None]) -> T:
        self._asked.add(name)
        given = self._given.get(name)
        if given is None or given == "":
            return default
        found = read(given)
        if found is None:
            self.wrong(name, f"expected {expected}")
            return default
        return found
