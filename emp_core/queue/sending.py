"""redis-py's connections with less ado: packing by hiredis, sending without a task for each command (3.11), and a way to
read what comes without redis-py, which `links` does.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection

__all__ = ["PackedHead", "QuickConnection", "QuickSending", "QuickTLSConnection", "QuickUnixConnection", "packed"]


def packed(name: str, *arguments: Any) -> bytes:
    """A command as Redis reads it: RESP's array of bulk strings. Its name comes as redis-py has it, words and all.

    Raises:
        TypeError: an argument is neither text nor number.
    """
    # hiredis takes a tuple of any length, whatever its annotations say.
    command: bytes = hiredis.pack_command((*name.split(), *arguments))  # pyright: ignore[reportArgumentType]
    return command


class PackedHead:
    """What many commands begin with, packed once."""

    def __init__(self, *words: Any) -> None:
        self._count = len(words)
        self._words = packed(*words).partition(b"\r\n")[2]

    def packed(self, *arguments: Any) -> bytes:
        """The command with these arguments, of which there is one at least. Raises TypeError: one is neither text nor number."""
        parts = [b"*%d\r\n" % (self._count + len(arguments)), self._words]
        for argument in arguments:
            # Not by hiredis, which takes twice as long for the few that most commands have.
            text = (argument if isinstance(argument, str) else _digits(argument)).encode()
            parts += (b"$%d\r\n" % len(text), text, b"\r\n")
        return b"".join(parts)


def _digits(number: Any) -> str:
    if not isinstance(number, int | float):
        raise TypeError(f"{type(number).__name__} is neither text nor number")
    return repr(number)


class QuickSending(AbstractConnection):
    """Goes before one of redis-py's connection classes."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """The command as it is sent."""
        return [packed(*args)]

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Send what `pack_command` made. What the socket takes at once needs no waiting for."""
        writer = self._writer
        if writer is None or not isinstance(command, list) or writer.transport.is_closing():
            await super().send_packed_command(command, check_health)
            return
        writer.writelines(command)
        if writer.transport.get_write_buffer_size():
            # The rest is sent by the event loop; with the time limit and the errors of the slow way.
            await super().send_packed_command([], check_health)

    @property
    def transport(self) -> asyncio.WriteTransport:
        """What bytes are written to, once it is connected."""
        if self._writer is None:
            raise ConnectionError("it is not connected")
        return self._writer.transport

    def refusal(self, text: str) -> Exception:
        """The exception for an error that Redis replied."""
        error: Exception = self._parser.parse_error(text)  # type: ignore[no-untyped-call]
        return error

    def abandon(self) -> None:
        """Close it at once, whatever is on its way."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._close()  # type: ignore[no-untyped-call]  # redis-py annotates no results


class QuickConnection(QuickSending, Connection):
    """Over TCP."""


class QuickTLSConnection(QuickSending, SSLConnection):
    """Over TCP, encrypted."""


class QuickUnixConnection(QuickSending, UnixDomainSocketConnection):
    """Over a socket of this machine."""
