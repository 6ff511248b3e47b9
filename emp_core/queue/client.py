"""The client: redis-py's, with its commands sent over links, and with errors that say what is wrong with the server now."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import ConnectionPool
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from emp_core.errors import ConfigError
from emp_core.queue.addresses import Node
from emp_core.queue.links import Links, Wire
from emp_core.queue.sending import packed
from emp_core.queue.topology import ClusterLocator, Locator

__all__ = ["Client", "NotReady"]


class NotReady(exceptions.ConnectionError):
    """Redis answers, and cannot do it now: it loads, fails over, moves the slot, is full, or has lost its replicas."""


class Client(Redis):
    """A client that tells what is wrong with the server now (`NotReady`) from what is wrong with the command.

    Commands go over `Links`; what needs a connection for several commands (transactions, redis-py's subscriptions) has one of the
    pool's. A command that is cancelled in flight takes its connection with it, so that no reply goes to another command.
    """

    def __init__(self, pool: ConnectionPool, links: Links, locator: Locator | None) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._links = links
        self._locator = locator

    async def calls(self, commands: Sequence[bytes], patience_s: float = 0.0) -> list[Any]:
        """Send commands that were packed (`packed`) in one go, and give their replies as they are.

        Args:
            patience_s: how long they may take to come back after they were cancelled on their way.
        """
        replies = await self._links.ask(b"".join(commands), len(commands), patience_s)
        for reply in replies:
            if isinstance(reply, Exception):
                if isinstance(reply, exceptions.ResponseError):
                    await self.judge(reply)
                raise reply
        return replies

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command."""
        if not _OF_REDIS_PY.isdisjoint(options):
            return await self._slowly(*args, **options)
        [reply] = await self.calls((packed(*args),))
        return self._read(reply, args[0], options)

    async def _slowly(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except exceptions.ResponseError as error:
            await self.judge(error)
            raise

    def _read(self, reply: Any, name: str, options: Mapping[str, Any]) -> Any:
        """A reply as redis-py gives it."""
        if name not in self.response_callbacks:
            return reply
        return self.response_callbacks[name](reply, **{key: options[key] for key in options if key != "keys"})

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "_Pipeline":
        """Commands that are sent together."""
        del shard_hint
        return _Pipeline(self, transaction)

    async def together(self, stack: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[Any]:
        """Send commands with their options; gives their replies, and refusals as exceptions."""
        replies = await self._links.ask(b"".join([packed(*args) for args, _ in stack]), len(stack))
        return [
            reply if isinstance(reply, Exception) else self._read(reply, args[0], options)
            for reply, (args, options) in zip(replies, stack, strict=True)
        ]

    @asynccontextmanager
    async def wire(
        self,
        on_reply: Callable[[Any], None],
        on_refusal: Callable[[exceptions.RedisError], bool] = lambda _: False,
    ) -> AsyncIterator[Wire]:
        """A connection of its own, on which things come when they come.

        Args:
            on_reply: told everything that Redis sends, but for refusals.
            on_refusal: told those; the wire ends unless it gives True.
        """
        wire = await self._links.wire(on_reply, on_refusal)
        try:
            yield wire
        except exceptions.ResponseError as error:
            await self.judge(error)
            raise
        finally:
            wire.drop()

    @property
    def is_closed(self) -> bool:
        """Whether `aclose` was called: from then on every call fails."""
        return self._links.closed

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        self._links.close()
        await super().aclose(close_connection_pool)

    async def judge(self, error: exceptions.ResponseError) -> None:
        """Raise what the refusal means, where it is the server's state and not the command.

        Raises:
            NotReady: the command was not carried out; it may be sent again.
            ConfigError: the server is part of a cluster, and the URL does not say so.
        """
        match error:
            case exceptions.MovedError() | exceptions.ClusterCrossSlotError() if not isinstance(
                self._locator, ClusterLocator
            ):
                raise ConfigError(
                    "the Redis that HUB_REDIS_URL names is part of a cluster", hint="write it as redis+cluster://…"
                ) from error
            case exceptions.MovedError():
                await self._move(_target(error))
            case exceptions.ReadOnlyError():
                await self._move(None)
            case exceptions.AskError() | exceptions.TryAgainError() | exceptions.ClusterDownError():
                pass
            case exceptions.OutOfMemoryError():
                pass
            case _:
                state = _STATES.search(str(error))
                if state is None:
                    return
                if state["demoted"]:
                    await self._move(None)
        raise NotReady(str(error)) from error

    async def _move(self, node: Node | None) -> None:
        """Later commands use new connections, which find the server where it is now."""
        if self._locator is not None:
            self._locator.moved(node)
        self._links.forget()
        await self.connection_pool.disconnect(inuse_connections=False)


class _Pipeline(Pipeline):
    def __init__(self, client: Client, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        try:
            if self.is_transaction or self.watching or self.scripts:
                return await super().execute(raise_on_error)
            stack, self.command_stack = self.command_stack, []
            replies = await self._client.together(stack) if stack else []
            if raise_on_error:
                for reply in replies:
                    # redis-py looks for ResponseError alone, and a server that loads its data says another.
                    if isinstance(reply, exceptions.ConnectionError):
                        raise reply
                self.raise_first_error(stack, replies)
        except exceptions.ResponseError as error:
            await self._client.judge(error)
            raise
        return replies


_OF_REDIS_PY = {NEVER_DECODE, EMPTY_RESPONSE}
"""Options of commands whose replies redis-py has to read."""

_STATES = re.compile(
    r"(?:^|caused error: )(?:BUSY|MISCONF|NOREPLICAS|(?P<demoted>UNBLOCKED|WAIT cannot be used with replica))\b"
)
"""Refusals that redis-py has no types for; a pipeline says in front of them which command it was. ``demoted``: of a server that
is not the master any more."""


def _target(error: exceptions.MovedError) -> Node | None:
    return (error.host, int(error.port)) if error.host else None
