"""What a job needs of a worker. Jobs with the same requirement share a lane."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeGuard

from attrs import field, frozen

from emp_core.errors import ConfigError

__all__ = ["NO_REQUIREMENTS", "Requirement", "Requirements", "in_brief", "is_finite", "is_number", "is_text", "kind_of"]

_ISOLATION = ("none", "loose", "strict")
_SHOWN_CHARS = 60


@frozen
class Requirements:
    """What the submitter asks of the worker, beyond the service.

    Attributes:
        models: names of models that the service must have; all of them.
        hardware: least amounts, by the names of the worker's resources: ``gpu_memory_mb``, ``ram_mb``, ``cpu_cores`` …
        capabilities: custom ones. A number means at least, a list means all of, a text or a truth value means equal to, or one of
            the worker's list.
        exclude: the same shapes; a worker that would satisfy one of them is refused. An empty list excludes nobody.
        isolation: ``loose``: only workers that name the job's customer; ``strict``: only workers that serve nobody else.
    """

    models: tuple[str, ...] = ()
    hardware: Mapping[str, float] = field(factory=dict)
    capabilities: Mapping[str, Any] = field(factory=dict)
    exclude: Mapping[str, Any] = field(factory=dict)
    isolation: str = "none"

    @classmethod
    def from_dict(cls, given: Any) -> "Requirements":
        """Read requirements from what a user wrote; None is no requirement.

        Raises:
            ConfigError: lists every mistake with its path.
        """
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise ConfigError(f"requirements must be an object, not {kind_of(given)}")
        problems: list[str] = []
        known = {"models", "hardware", "capabilities", "exclude", "isolation"}
        problems += [
            f"requirements.{_path(key)}: unknown; known are {', '.join(sorted(known))}"
            for key in given
            if key not in known
        ]
        isolation = given.get("isolation")
        made = cls(
            models=_models(given.get("models"), problems),
            hardware=_hardware(given.get("hardware"), problems),
            capabilities=_custom("capabilities", given.get("capabilities"), problems),
            exclude=_custom("exclude", given.get("exclude"), problems),
            isolation="none" if isolation is None else isolation,
        )
        if made.isolation not in _ISOLATION:
            problems.append(
                f"requirements.isolation: expected one of {', '.join(_ISOLATION)}, not {in_brief(made.isolation)}"
            )
        if problems:
            raise ConfigError("the job's requirements cannot be used", problems=tuple(problems))
        return made

    def over(self, found: "Requirements") -> "Requirements":
        """These, with what was ``found`` besides: all models of both; of everything else that both name, this one's word."""
        return Requirements(
            models=tuple(sorted({*self.models, *found.models})),
            hardware={**found.hardware, **self.hardware},
            capabilities={**found.capabilities, **self.capabilities},
            exclude={**found.exclude, **self.exclude},
            isolation=found.isolation if self.isolation == "none" else self.isolation,
        )

    def as_dict(self) -> dict[str, Any]:
        """The requirements without what is not asked."""
        shown: dict[str, Any] = {}
        if self.models:
            shown["models"] = list(self.models)
        for name in ("hardware", "capabilities", "exclude"):
            if value := getattr(self, name):
                shown[name] = dict(value)
        if self.isolation != "none":
            shown["isolation"] = self.isolation
        return shown


NO_REQUIREMENTS = Requirements()
"""Nothing beyond the service: what most jobs ask."""


@frozen
class Requirement:
    """All that decides which workers may run a job. Jobs with equal requirements share a lane."""

    service: str
    asked: Requirements = NO_REQUIREMENTS
    pool: str | None = None
    region: str | None = None
    customer: str | None = None
    """Only set with isolation: otherwise customers share lanes."""
    avoid: tuple[str, ...] = ()
    """Workers where an attempt failed: they take the job only if nobody else does soon."""
    not_here: tuple[str, ...] = ()
    """Workers that found out that they cannot run the job."""

    def as_dict(self) -> dict[str, Any]:
        """The canonical form, as it stands in ``lanes``."""
        shown = {"service": self.service, **self.asked.as_dict()}
        shown.update({k: v for k in ("pool", "region", "customer") if (v := getattr(self, k)) is not None})
        shown.update({k: sorted(v) for k in ("avoid", "not_here") if (v := getattr(self, k))})
        return shown

    def as_json(self) -> str:
        """The canonical text: equal requirements give equal text."""
        shown = self.as_dict()
        if "models" in shown:
            shown["models"] = sorted(set(shown["models"]))
        return json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Requirement":
        """Read the canonical text back.

        Raises:
            ConfigError: it is none of ours; perhaps a newer version wrote it.
        """
        try:
            given = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"a lane's requirement is not JSON: {error}") from error
        if not isinstance(given, dict) or not is_text(given.get("service")):
            raise ConfigError("a lane's requirement names no service")
        outer = {key: given.pop(key, None) for key in ("service", "pool", "region", "customer")}
        workers = {key: given.pop(key, []) for key in ("avoid", "not_here")}
        problems = [f"{key}: expected a text" for key, one in outer.items() if one is not None and not is_text(one)]
        problems += [
            f"{key}: expected a list of workers"
            for key, some in workers.items()
            if not isinstance(some, list) or not all(is_text(one) for one in some)
        ]
        if problems:
            raise ConfigError("a lane's requirement cannot be read", problems=tuple(problems))
        avoid, not_here = tuple(workers["avoid"]), tuple(workers["not_here"])
        return cls(asked=Requirements.from_dict(given), avoid=avoid, not_here=not_here, **outer)

    @staticmethod
    @lru_cache(maxsize=1024)
    def plain(service: str) -> "Requirement":
        """Nothing but the service, as most jobs have it."""
        return Requirement(service)

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but the service."""
        return self == Requirement.plain(self.service)

    @property
    def lane(self) -> str:
        """The lane's name: the service, and a digest of everything else.

        Names of services hold no ``@`` and no ``:``, so that a lane's name can be part of a key.
        """
        if self.is_plain:
            return self.service
        return f"{self.service}@{hashlib.sha256(self.as_json().encode()).hexdigest()[:12]}"


def _models(given: Any, problems: list[str]) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        problems.append(f"requirements.models: expected a list of names, not {kind_of(given)}")
        return ()
    problems += [
        f"requirements.models[{i}]: expected a name, not {kind_of(name)}"
        for i, name in enumerate(given)
        if not is_text(name) or not name
    ]
    return tuple(sorted({name for name in given if isinstance(name, str)}))


def _hardware(given: Any, problems: list[str]) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        problems.append(f"requirements.hardware: expected an object, not {kind_of(given)}")
        return {}
    problems += _name_problems("hardware", given)
    problems += [
        f"requirements.hardware.{_path(name)}: expected a number of 0 or more, not {in_brief(amount)}"
        for name, amount in given.items()
        if not is_finite(amount) or amount < 0
    ]
    return dict(given)


def _custom(where: str, given: Any, problems: list[str]) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        problems.append(f"requirements.{where}: expected an object, not {kind_of(given)}")
        return {}
    problems += _name_problems(where, given)
    for name, wanted in given.items():
        items = wanted if isinstance(wanted, (list, tuple)) else (wanted,)
        if not all(isinstance(item, bool) or is_text(item) or is_finite(item) for item in items):
            problems.append(
                f"requirements.{where}.{_path(name)}: expected a number, a text, true, false or a list of those"
            )
    return dict(given)


def _name_problems(where: str, given: Mapping[Any, Any]) -> list[str]:
    return [f"requirements.{where}.{_path(name)}: expected a text as its name" for name in given if not is_text(name)]


def _path(name: Any) -> str:
    return _printable(str(name))


def in_brief(value: Any) -> str:
    """The beginning of a value, as an error repeats it."""
    try:
        return _printable(repr(value))
    except ValueError:  # a whole number with more digits than Python writes
        return kind_of(value)


def _printable(text: str) -> str:
    """The beginning of a text as it can be printed: half of a surrogate pair cannot."""
    cut = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
    return cut.encode(errors="backslashreplace").decode()


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
    return type(value).__name__


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number; truth values are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether it is a number that a float can hold."""
    try:
        return is_number(value) and math.isfinite(value)
    except OverflowError:  # a whole number with more than 308 digits
        return False


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is a text that UTF-8 can hold: half of a surrogate pair is none."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
