"""What is wrong with a payload: every mistake with its path and what was expected, and no value repeated."""

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from emp_core.connectors.payload_fields import key_of
from emp_core.log.redaction import hide_secrets

__all__ = ["Mistakes", "Unfit", "problems_in"]

_PROBLEMS_SHOWN = 100
_NAME_SHOWN = 80
_PATH_SHOWN = 200
_MESSAGE_SHOWN = 300


class Mistakes(Exception):
    """What is wrong with one value: where below it, and what was expected."""

    def __init__(self, *found: tuple[str, str]) -> None:
        super().__init__(found)
        self.found = found


class Unfit(ValueError):
    """A value that does not fit its class. ``problems`` lists the mistakes, each with its path."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def problems_in(error: Exception, root: str) -> list[str]:
    """The mistakes in what reading a value raised, each once, with its path from ``root``; of very many the first."""
    # The depth at which Python gives up may be met by several fields at once, whose long paths are shortened alike.
    problems = list(dict.fromkeys(f"{_shortened(path)}: {text}" for path, text in _told(error, root)))
    shown = problems[:_PROBLEMS_SHOWN]
    return shown if shown == problems else [*shown, f"and {len(problems) - len(shown)} more"]


def _told(error: Exception, path: str) -> Iterator[tuple[str, str]]:
    """Every mistake in what cattrs raised: its path, and what was expected."""
    match error:
        case Mistakes():
            yield from ((path + below, text) for below, text in error.found)
        case ForbiddenExtraKeysError():
            known = ", ".join(key_of(one) for one in attrs.fields(error.cl) if one.init)
            names = sorted(map(str, error.extra_fields))
            yield from ((path + _step(name), f"unknown; known are {known or 'none'}") for name in names)
        case ClassValidationError():
            fields = attrs.fields_dict(error.cl)
            with_notes, others = error.group_exceptions()
            for inner, note in with_notes:
                attribute = fields[note.name]
                where = path if attribute.metadata.get("rest") else path + _step(key_of(attribute))
                yield from [(where, "it is required")] if isinstance(inner, KeyError) else _told(inner, where)
            for inner in others:
                yield from _told(inner, path)
        case IterableValidationError():
            for inner, item in error.group_exceptions()[0]:
                yield from _told(
                    inner, path + (f"[{item.index}]" if isinstance(item.index, int) else _step(item.index))
                )
        case _:
            yield path, _said_by_author(error)


def _step(name: Any) -> str:
    text = str(name).encode(errors="backslashreplace").decode()
    text = text if len(text) <= _NAME_SHOWN else f"{text[:_NAME_SHOWN]}…"
    return f".{text}" if text and not set(text) & set(". []") else f"[{text!r}]"


def _shortened(path: str) -> str:
    return path if len(path) <= _PATH_SHOWN else f"{path[:_PATH_SHOWN]}…"


def _said_by_author(error: Exception) -> str:
    """What a validator of the class says. What attrs says itself would repeat the value."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
    if where.split(".")[0] in {"attr", "attrs", "cattrs"}:
        return "its validator refuses it"
    return hide_secrets(" ".join(str(error).split()))[:_MESSAGE_SHOWN] or type(error).__name__
