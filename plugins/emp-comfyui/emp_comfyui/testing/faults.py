"""What can be made to go wrong with the fake server, as one frozen value that may be exchanged at any time."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import attrs

FaultKind = Literal["status", "garbage", "oversized", "hang", "drop", "lose_answer", "die", "delay"]


@attrs.define(eq=False)
class HttpFault:
    """Something that happens to requests on chosen routes.

    Attributes:
        path: The route, without ``/api``; ``*`` stands for anything (``/history/*``).
        kind: ``status`` answers ``status`` with ``body`` (plain text); ``garbage`` answers 200 with broken JSON;
            ``oversized`` answers 200 with ``size`` bytes of JSON; ``hang`` takes the request and never answers; ``drop``
            closes the connection without doing anything; ``lose_answer`` does what was asked and then closes the
            connection; ``die`` does what was asked and then the whole server dies; ``delay`` answers after ``delay_s``.
        method: Only requests of this method; None for all.
        times: How often it happens; None for ever. ``seen`` counts.
        status: HTTP status for ``status``.
        body: Text for ``status``.
        size: Bytes for ``oversized``.
        delay_s: Seconds for ``delay``; real ones unless the server was given a ``sleep`` of its own.
    """

    path: str
    kind: FaultKind
    method: str | None = None
    times: int | None = 1
    status: int = 500
    body: str = "500 Internal Server Error\n\nServer got itself in trouble"
    size: int = 64 * 1024 * 1024
    delay_s: float = 0.0
    seen: int = attrs.field(default=0, init=False)

    def applies(self, method: str, path: str) -> bool:
        """Whether a request meets this fault; the path comes without ``/api``."""
        spent = self.times is not None and self.seen >= self.times
        return not spent and self.method in (None, method) and fnmatchcase(path, self.path)


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@attrs.frozen
class Faults:
    """Everything that is wrong at the moment; the default is a sound server.

    Attributes:
        http: Faults of routes; the first that applies is taken.
        drop_frames: Types of frames that are never sent: ``executed``, ``executing``, ``PREVIEW_IMAGE`` ….
        silent_sockets: Sockets stay open and nothing at all is sent over them.
        history_late_by: So many reads of a finished prompt's history entry find nothing.
        history_never: A finished prompt never gets a history entry.
        missing_outputs: ``/view`` finds no file of type output.
        no_outputs: Prompts end in success, and history and frames have no outputs.
        out_of_memory: Node classes or ids that fail with an out-of-memory error.
        lost_interrupts: So many interrupts are answered with 200 and forgotten, as one that comes too early is.
    """

    http: Sequence[HttpFault] = ()
    drop_frames: frozenset[str] = attrs.field(default=frozenset(), converter=_names)
    silent_sockets: bool = False
    history_late_by: int = 0
    history_never: bool = False
    missing_outputs: bool = False
    no_outputs: bool = False
    out_of_memory: frozenset[str] = attrs.field(default=frozenset(), converter=_names)
    lost_interrupts: int = 0

    def http_fault(self, method: str, path: str) -> HttpFault | None:
        """The fault that a request meets; it is counted."""
        for fault in self.http:
            if fault.applies(method, path):
                fault.seen += 1
                return fault
        return None
