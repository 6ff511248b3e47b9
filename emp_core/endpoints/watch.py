"""`Watch`: asking endpoints how they are, each as often as needed and never twice at a time."""

from collections.abc import Awaitable, Callable, Iterable, Mapping

import anyio

from emp_core.endpoints.endpoint import Endpoint, EndpointStatus, Reading
from emp_core.endpoints.member import Member, status_after
from emp_core.endpoints.place import PoolOptions
from emp_core.errors import EmpError
from emp_core.log.logger import get_logger

__all__ = ["Watch"]

log = get_logger("emp.endpoints")


class Watch:
    """Keeps what is known of endpoints fresh.

    Args:
        members: the endpoints; may change at any time, and `wake` is told then.
        ask: asks one how it is.
    """

    def __init__(
        self, members: Mapping[str, Member], ask: Callable[[Endpoint], Awaitable[Reading]], options: PoolOptions
    ) -> None:
        self._members = members
        self._ask = ask
        self._options = options
        self._limit = anyio.CapacityLimiter(options.checks_at_once)
        self._woken = anyio.Event()
        self._running = 0

    def wake(self) -> None:
        """Somebody may have to be asked sooner than it seemed."""
        self._woken.set()

    async def run(self) -> None:
        """Keep asking until cancelled."""
        self._running += 1
        try:
            async with anyio.create_task_group() as group:
                while True:
                    self._woken = anyio.Event()
                    for member in self._due():
                        # Nobody waits for it here: one that hangs does not keep the others from being asked.
                        group.start_soon(self._check, member, name=f"emp endpoint {member.name}")
                    with anyio.move_on_after(self._next_due_s()):
                        await self._woken.wait()
        finally:
            self._running -= 1

    async def refresh(self, *, everyone: bool = False) -> None:
        """Have those asked whose answers are old, or all of them, and wait for it."""
        await self._check_all(
            [one for one in self._members.values() if one.endpoint.enabled] if everyone else self._due()
        )

    async def know_all(self) -> None:
        """Wait until all were asked: lately, if nobody keeps asking, else at least once."""
        due = self._due()
        if self._running:
            due = [one for one in due if one.status is EndpointStatus.UNKNOWN]
            due += [one for one in self._members.values() if one.probing and one.status is EndpointStatus.UNKNOWN]
        if due:
            await self._check_all(due)

    async def ask_again(self) -> None:
        """Ask those that gave no answer, or a wrong one, and wait for it."""
        away = (EndpointStatus.OFFLINE, EndpointStatus.ERROR)
        await self._check_all([one for one in self._members.values() if one.status in away])

    def _due(self) -> list[Member]:
        return [one for one in self._members.values() if one.endpoint.enabled and self._due_in_s(one) <= 0]

    def _due_in_s(self, member: Member) -> float:
        if member.probing is not None:
            return self._options.check_every_s  # its end wakes us
        return member.due_in_s(self._options.check_every_s, self._options.check_down_every_s)

    def _next_due_s(self) -> float:
        waits = [self._due_in_s(one) for one in self._members.values() if one.endpoint.enabled]
        return max(0.0, min(waits, default=self._options.check_every_s))

    async def _check_all(self, members: Iterable[Member]) -> None:
        async with anyio.create_task_group() as group:
            for member in members:
                group.start_soon(self._check, member)

    async def _check(self, member: Member) -> None:
        """Ask one how it is; if somebody is asking already, wait for that answer."""
        if member.probing is not None:
            await member.probing.wait()
            return
        done = member.probing = anyio.Event()
        try:
            async with self._limit:
                await self._question(member)
        finally:
            member.probing = None
            done.set()
            self.wake()

    async def _question(self, member: Member) -> None:
        endpoint, own = member.endpoint, member.in_flight
        reading: Reading | None = None
        status, reason = EndpointStatus.OFFLINE, f"it did not answer within {self._options.check_timeout_s:g} s"
        try:
            with anyio.move_on_after(self._options.check_timeout_s):
                reading = await self._ask(endpoint)
        except EmpError as error:
            status, reason = status_after(error), error.message
        except TimeoutError as error:
            reason = str(error) or reason
        except Exception as error:  # whatever a plugin's question raises is the state of this endpoint and no other
            log.exception("an endpoint could not be asked how it is", endpoint=endpoint.name)
            status, reason = EndpointStatus.ERROR, f"{type(error).__name__}: {error}"
        if member.endpoint.url != endpoint.url:
            return  # it has moved meanwhile
        if reading is not None:
            member.answered(reading, own)
            return
        member.failed_to_answer(status, reason)
        if self._options.lost_after_s is not None:
            member.stop_jobs_if_lost(self._options.lost_after_s)
