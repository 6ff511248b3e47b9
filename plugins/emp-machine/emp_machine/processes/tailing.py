"""Reading what processes have put out, with what looks like a secret hidden: the end of a log, and what comes after."""

import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from emp_core.log.redaction import hide_secrets
from emp_machine.processes.interface import LogLine
from emp_machine.processes.roster import Known

__all__ = ["last_lines", "tail"]

_LOOK_EVERY_S = 0.3
_LINE_MAX = 16 * 2**10
_LINE_USUAL = 200


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log; none when there is no log."""
    return _Tail(log).last(count)


async def tail(processes: Sequence[Known], *, lines: int, follow: bool) -> AsyncGenerator[LogLine, None]:
    """The last lines of each log, and with ``follow`` all that comes."""
    tails = [(one.name, _Tail(one.log)) for one in processes]
    for name, one in tails:
        for line in await anyio.to_thread.run_sync(one.last, lines):
            yield LogLine(name, line)
    while follow:
        await anyio.sleep(_LOOK_EVERY_S)  # a file tells nobody when it grows
        for name, one in tails:
            for line in await anyio.to_thread.run_sync(one.more):
                yield LogLine(name, line)


class _Tail:
    """One log, read from wherever it was read to. One that was cut or replaced is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = 0
        self._waiting = b""

    def last(self, count: int) -> list[str]:
        """The last whole lines."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                # Lines are short for the most part. One that is cut at its beginning is left out.
                begin = max(0, found.st_size - max(1, count) * _LINE_USUAL - _LINE_MAX)
                file.seek(begin)
                text = file.read(found.st_size - begin)
        except OSError:
            return []
        self._inode, self._offset = found.st_ino, found.st_size
        lines = self._lines(text)
        return (lines[1:] if begin else lines)[-count:] if count > 0 else []

    def more(self) -> list[str]:
        """The lines that came since."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._inode or found.st_size < self._offset:
                    self._inode, self._offset, self._waiting = found.st_ino, 0, b""
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return []
        self._offset += len(text)
        return self._lines(text)

    def _lines(self, text: bytes) -> list[str]:
        *whole, self._waiting = (self._waiting + text).split(b"\n")
        if len(self._waiting) > _LINE_MAX:
            whole, self._waiting = [*whole, self._waiting], b""
        return [hide_secrets(line.decode("utf-8", "replace").rstrip("\r")) for line in whole]
