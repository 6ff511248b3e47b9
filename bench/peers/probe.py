"""What the no-op job of every peer does: tell when the first one ran, and how late each one began.

All times are of ``time.monotonic``, which all processes of a Linux machine share.
"""

import json
import os
import sys
import threading
import time
from typing import Any

__all__ = ["REPORT", "WORD", "ran", "say"]

WORD = "@bench "
"""Begins the lines of standard output that are for the bench; libraries print there, too."""

REPORT = -1.0
"""What a job says instead of when it was sent, to have the worker report."""

_lock = threading.Lock()
_delays: list[float] = []
_began = False


def ran(sent: float) -> None:
    """A job runs.

    Args:
        sent: when it was to be submitted; 0 when nobody asks how late it is; `REPORT` to tell of all since the last report.
    """
    global _began  # noqa: PLW0603 - one per process, as cheap as can be: this is what is measured
    if sent > 0:
        _delays.append(time.monotonic() - sent)
    if not _began:
        _began = True
        say({"first": time.monotonic(), "cpu": time.process_time(), "pid": os.getpid()})
    if sent == REPORT:
        say({"delays": list(_delays)})
        _delays.clear()


def say(message: dict[str, Any]) -> None:
    """Tell the bench something."""
    with _lock:
        sys.stdout.write(f"{WORD}{json.dumps(message)}\n")
        sys.stdout.flush()
