"""Logs of the command line: one line each, always to stderr, never with a secret in it.

Only programs configure logs. A service that embeds a worker keeps its own set-up: nothing here runs on import.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from emp_core.log.logger import FACTS
from emp_core.log.redaction import redact

__all__ = ["configure_logs"]

_OWN = "emp"
"""The logger above all of ours; their names begin with it."""


def configure_logs(level: str = "info", format: str = "auto", *, quiet: tuple[str, ...] = ()) -> None:  # noqa: A002
    """Send the logs of this process to stderr.

    Args:
        level: the least level of our own logs: ``debug``, ``info``, ``warning`` or ``error``. Other libraries' are shown
            from ``warning`` on; with ``debug``, from ``info`` on.
        format: ``console``, ``json`` (one object per line), or ``auto``: console on a terminal, JSON otherwise.
        quiet: loggers of ours that are shown from ``error`` on only, because the program says itself what they would.
    """
    console = sys.stderr.isatty() if format == "auto" else format == "console"
    before: list[Any] = [
        _facts_of_record,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
    ]
    handler = _StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,  # after tracebacks became text: they hold URLs, too
                _console() if console else structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO if level == "debug" else logging.WARNING)
    logging.getLogger(_OWN).setLevel(level.upper())
    for name in quiet:
        logging.getLogger(name).setLevel(logging.ERROR)


def _facts_of_record(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What our own loggers said, in place of the text that they made of it for others."""
    event.update(getattr(event["_record"], FACTS, {}))
    return event


def _console() -> structlog.dev.ConsoleRenderer:
    # Plain tracebacks: pretty ones show the values of variables, and with them secrets.
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at the time: a progress bar takes its place to keep lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:  # as logging's own handlers: a log that cannot be written must not end the program
            self.handleError(record)
