"""Times and lengths of time on the command line: what no clock can hold is refused where it is read."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import click

__all__ = ["SECONDS", "deadline", "delay", "moment"]


class _Seconds(click.FloatRange):
    """A number of seconds, which is finite."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


SECONDS = _Seconds(0)
"""A number of seconds, 0 or more."""


def moment(_context: click.Context, _parameter: click.Parameter, text: str | None) -> datetime | None:
    """A time in ISO 8601; that of this machine's clock where it names no zone."""
    if text is None:
        return None
    try:
        told = datetime.fromisoformat(text)
        return told.astimezone() if told.tzinfo is None else told
    except (ValueError, OverflowError):  # also of a year that has no place in another zone
        raise click.BadParameter("expected a time such as 2030-01-31T18:00 or 2030-01-31T18:00:00+01:00") from None


def delay(_context: click.Context, _parameter: click.Parameter, seconds: float | None) -> datetime | None:
    """So many seconds from now."""
    return None if seconds is None else _from_now(seconds)


def deadline(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """A time, or a number of seconds from now, above 0."""
    try:
        seconds = float(text or "")
    except ValueError:
        return moment(context, parameter, text)
    if seconds <= 0:
        raise click.BadParameter("expected a time, or a number of seconds from now above 0")
    return _from_now(seconds)


def _from_now(seconds: float) -> datetime:
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"no clock shows the time {seconds:g} seconds from now") from None
