"""What an exception that ends a command means: its exit code, and what is said of it."""

import traceback
from collections.abc import Iterator
from typing import Any

import click
from attrs import field, frozen

from emp_core.cli.output import clean, emit_failure, note
from emp_core.config import environment
from emp_core.errors import ConfigError, EmpError
from emp_core.log.redaction import hide_secrets

__all__ = ["DONE", "FAILED", "INTERRUPTED", "UNREACHED", "USAGE", "Failure", "WaitTimeout", "explain"]

DONE, FAILED, USAGE, UNREACHED, INTERRUPTED = 0, 1, 2, 3, 130


class WaitTimeout(EmpError):
    """What was waited for did not happen in time; it goes on."""

    code = "wait_timeout"


@frozen
class Failure:
    """How a command failed.

    Attributes:
        error: for ``--json``.
        lines: for people.
    """

    exit_code: int
    error: dict[str, Any]
    lines: tuple[str, ...]
    exception: BaseException = field(repr=False)

    def tell(self, *, as_json: bool) -> None:
        """Say it: to stdout as JSON, to stderr otherwise. The traceback only for those who log at debug."""
        if environment().get("EMP_LOG_LEVEL", "").strip().lower() == "debug":
            note(hide_secrets("".join(traceback.format_exception(self.exception)).rstrip()))
        if as_json:
            emit_failure(self.error)
            return
        for line in self.lines:
            note(line)


def explain(exception: BaseException) -> Failure:
    """What is said of the exception that ended a command."""
    leaves = list(_leaves(exception))
    if any(isinstance(leaf, KeyboardInterrupt | click.Abort) for leaf in leaves):
        return Failure(INTERRUPTED, {"code": "interrupted", "message": "interrupted"}, ("Interrupted.",), exception)
    # One that is not ours is a defect, which matters more than what it brought down with it.
    leaves.sort(key=lambda leaf: isinstance(leaf, EmpError))
    first, *others = leaves
    failure = _of(first, exception)
    further = [other for other in others if str(other) != str(first)]
    if not further:
        return failure
    also = [_of(other, exception) for other in further]
    error = {**failure.error, "also": [other.error for other in also]}
    lines = (*failure.lines, *(line for other in also for line in other.lines))
    return Failure(failure.exit_code, error, lines, exception)


def _leaves(exception: BaseException) -> Iterator[BaseException]:
    if isinstance(exception, BaseExceptionGroup):
        for inner in exception.exceptions:
            yield from _leaves(inner)
    else:
        yield exception


def _of(error: BaseException, whole: BaseException) -> Failure:
    match error:
        case EmpError():
            return Failure(error.exit_code, error.as_dict(), tuple(_lines(error)), whole)
        case click.UsageError():
            where = f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n\n" if error.ctx else ""
            message = error.format_message()
            return Failure(USAGE, {"code": "usage", "message": message}, (f"{where}error: {message}",), whole)
        case click.ClickException():
            message = error.format_message()
            return Failure(USAGE, {"code": "usage", "message": message}, (f"error: {message}",), whole)
    message = f"{type(error).__name__}: {hide_secrets(clean(error))}"
    hint = "this is a defect of emp or of a plugin; EMP_LOG_LEVEL=debug shows where"
    body = {"code": "internal", "message": message, "hint": hint}
    return Failure(FAILED, body, (f"error: {message}", f"hint: {hint}"), whole)


def _lines(error: EmpError) -> Iterator[str]:
    yield f"error: {_readable(error.message)}"
    if isinstance(error, ConfigError):
        for problem in error.problems:
            yield f"  - {_readable(problem)}"
    if error.hint:
        yield f"hint: {_readable(error.hint)}"


def _readable(text: str) -> str:
    """Line by line: messages such as the end of a server's log have several."""
    return "\n".join(clean(line) if not line.startswith(" ") else "  " + clean(line) for line in text.splitlines())
