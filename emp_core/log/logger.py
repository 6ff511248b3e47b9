"""The one way to get a logger."""

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog

from emp_core.log.redaction import hide_secrets, redact

__all__ = ["FACTS", "Logger", "get_logger"]

Logger = structlog.stdlib.BoundLogger
"""What `get_logger` gives."""

FACTS = "emp_facts"
"""The attribute of a log record that holds the event and its facts by name, for handlers that show them in a form of their
own. Others show the record's message: the event, followed by ``name=value`` for every fact."""


def get_logger(name: str) -> Logger:
    """A logger that takes an event and facts by name: ``log.info("lease lost", job=job_id)``.

    It hands everything to the standard library's logger of the same name. A program that set nothing up sees warnings on
    stderr, as from any library; nothing ever goes to stdout.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_hide_in_traceback)
    wrapped: Logger = structlog.wrap_logger(
        logger,
        processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, redact, _to_record],
        wrapper_class=Logger,
        cache_logger_on_first_use=True,
    )
    return wrapped


def _to_record(_logger: Any, _method: str, facts: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """What the standard library's logger is called with."""
    exc_info = facts.pop("exc_info", None)
    event = str(facts.get("event", ""))
    said = " ".join([event, *(f"{name}={value!r}" for name, value in facts.items() if name != "event")])
    # No argument follows, so a % in the text stays what it is.
    return (said,), {"extra": {FACTS: facts}, "exc_info": exc_info}


def _hide_in_traceback(record: logging.LogRecord) -> bool:
    """Put the traceback's text without its secrets where every formatter of the standard library looks for it first."""
    if record.exc_info and not record.exc_text:
        record.exc_text = hide_secrets(logging.Formatter().formatException(record.exc_info))
    return True
