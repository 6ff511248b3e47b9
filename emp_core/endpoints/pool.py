"""`EndpointPool`: several servers of one service behind one connector.

It knows how each of them is, chooses one for every job, and begins a job again elsewhere when its server went away:

    async with EndpointPool(endpoints, ask) as pool:
        answer = await pool.run(lambda place: self._call(place.endpoint, job), kind=model)

Nothing in it knows what the service is.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import anyio
from attrs import evolve

from emp_core.endpoints.balancers import Balancer, LeastLoaded
from emp_core.endpoints.endpoint import Endpoint, EndpointState, EndpointStatus, Reading
from emp_core.endpoints.failover import Failover
from emp_core.endpoints.member import EndpointEvent, Member
from emp_core.endpoints.place import Place, PoolOptions
from emp_core.endpoints.watch import Watch
from emp_core.errors import ConfigError, EmpError, NotHere, ServiceBusy, ServiceUnavailable
from emp_core.log.logger import get_logger

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["EndpointPool"]

T = TypeVar("T")

log = get_logger("emp.endpoints")


class EndpointPool:
    """Endpoints that come and go, and the jobs that this process has there. For one event loop.

    While its block lasts, or while `watch` runs, the endpoints are asked now and then how they are. Without that, those who
    want a place have them asked and wait for it. How a job ended there is taken into account at once.

    Args:
        endpoints: with unique names.
        ask: asks one how it is. Its errors become the endpoint's state; of unexpected ones the type and text.
        balancer: the strategy; least loaded when not given.
        on_event: told of what operators want to know, besides the log. Must return at once.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        ask: Callable[[Endpoint], Awaitable[Reading]],
        *,
        balancer: Balancer | None = None,
        options: PoolOptions | None = None,
        on_event: Callable[[EndpointEvent], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options or PoolOptions()
        self.balancer = balancer or LeastLoaded()
        self._on_event = on_event
        self._clock = clock
        self._members: dict[str, Member] = {}
        self._watch = Watch(self._members, ask, self.options)
        self._group: TaskGroup | None = None
        for endpoint in endpoints:
            self._join(endpoint)

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self.watch, name="emp endpoints")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.cancel_scope.cancel()
            await group.__aexit__(None, None, None)

    # -- who belongs to it ---------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those in the pool, in order."""
        return tuple(member.endpoint for member in self._members.values())

    def states(self) -> tuple[EndpointState, ...]:
        """How they are, as far as is known now. Asks nobody."""
        return tuple(member.state for member in self._members.values())

    def state(self, name: str) -> EndpointState:
        """How one is, as far as is known now.

        Raises:
            ConfigError: there is none of this name.
        """
        return self._member(name).state

    def add(self, endpoint: Endpoint) -> None:
        """Take an endpoint in.

        Raises:
            ConfigError: there is one of this name.
        """
        self._join(endpoint)
        self._tell(EndpointEvent("added", endpoint.name, f"was added at {endpoint.url}"))
        self._watch.wake()

    def remove(self, name: str) -> None:
        """Take an endpoint out. Jobs that it has go on there.

        Raises:
            ConfigError: there is none of this name.
        """
        self._member(name)
        del self._members[name]
        self.balancer.endpoint_gone(name)
        self._tell(EndpointEvent("removed", name, "was removed"))

    def enable(self, name: str) -> None:
        """Give an endpoint jobs again, once it was asked how it is. Raises ConfigError as `remove` does."""
        self.change(evolve(self._member(name).endpoint, enabled=True))

    def disable(self, name: str) -> None:
        """Give an endpoint no more jobs. Those that it has go on there. Raises ConfigError as `remove` does."""
        self.change(evolve(self._member(name).endpoint, enabled=False))

    def set_priority(self, name: str, priority: int) -> None:
        """Prefer an endpoint more (1) or less. Raises ConfigError as `remove` does."""
        self.change(evolve(self._member(name).endpoint, priority=priority))

    def pause(self, name: str, seconds: float, reason: str) -> None:
        """Give an endpoint no jobs for a while: it is about to refuse them. Raises ConfigError as `remove` does."""
        self._member(name).pause(seconds, reason)

    def change(self, endpoint: Endpoint) -> None:
        """Replace what is said of the endpoint of this name. Raises ConfigError as `remove` does."""
        member = self._member(endpoint.name)
        before, member.endpoint = member.endpoint, endpoint
        if before == endpoint:
            return
        kind = "changed"
        if before.enabled != endpoint.enabled:
            kind = "enabled" if endpoint.enabled else "disabled"
        if kind == "enabled" or before.url != endpoint.url:
            member.forget()
        said = f"was changed: priority {endpoint.priority}" if kind == "changed" else f"was {kind}"
        self._tell(EndpointEvent(kind, endpoint.name, said))
        self._watch.wake()

    def replace(self, endpoints: Iterable[Endpoint]) -> None:
        """Have these endpoints and no others: adds, changes and removes by name.

        Raises:
            ConfigError: two have the same name; nothing was changed.
        """
        wanted = list(endpoints)
        names = [one.name for one in wanted]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"two servers have the name {twice[0]!r}", hint="give each a name of its own")
        for name in self._members.keys() - set(names):
            self.remove(name)
        for one in wanted:
            if one.name in self._members:
                self.change(one)
            else:
                self.add(one)
        for name in names:  # in their order
            self._members[name] = self._members.pop(name)

    def _join(self, endpoint: Endpoint) -> None:
        if endpoint.name in self._members:
            raise ConfigError(f"two servers have the name {endpoint.name!r}", hint="give each a name of its own")
        self._members[endpoint.name] = Member(endpoint, self.options.breaker, tell=self._tell, clock=self._clock)

    def _member(self, name: str) -> Member:
        member = self._members.get(name)
        if member is None:
            raise ConfigError(f"there is no server {name!r}", hint=f"there are: {', '.join(self._members) or 'none'}")
        return member

    # -- how they are --------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Keep asking the endpoints how they are, until cancelled."""
        await self._watch.run()

    async def refresh(self, *, everyone: bool = False) -> tuple[EndpointState, ...]:
        """Have those asked whose answers are old, wait for it, and say how all are.

        Args:
            everyone: ask all of them, however fresh their answers are.
        """
        await self._watch.refresh(everyone=everyone)
        return self.states()

    # -- giving places -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def place(
        self,
        *,
        kind: str = "",
        at: str | None = None,
        avoid: Collection[str] = (),
        prefer: str | None = None,
        fit: Callable[[Endpoint], bool] | None = None,
        rather: Callable[[Endpoint], bool] | None = None,
    ) -> AsyncIterator[Place]:
        """A place for one job, for as long as the block lasts.

        Args:
            kind: what kind of job it is, for strategies that learn.
            at: the name of the only endpoint that will do.
            avoid: names of endpoints that will not do.
            prefer: the name of the endpoint that gets it if it takes jobs now, whatever the strategy says.
            fit: tells whether an endpoint could run it.
            rather: tells those that the strategy chooses among, as long as one of them takes jobs.

        Raises:
            NotHere: there is no endpoint ``at``, or it is disabled.
            ServiceBusy: all that would do asked to be left alone for a while.
            ServiceUnavailable: none that would do takes jobs now; says why of each.
        """
        await self._watch.know_all()  # nobody is chosen whom nobody has ever asked
        try:
            member = self._chosen(at, kind, avoid, prefer, fit, rather)
        except ServiceUnavailable:
            await self._watch.ask_again()  # one may be back since it was asked last
            member = self._chosen(at, kind, avoid, prefer, fit, rather)
        permit = member.breaker.admit()
        if permit is None:
            raise ServiceUnavailable(f"server {member.name} takes no jobs now: {member.trouble}")
        member.in_flight += 1
        try:
            with permit:
                yield Place(member, permit, self.balancer, self.options, kind)
        finally:
            member.in_flight -= 1
            self._watch.wake()  # it may have failed there

    async def run(
        self,
        work: Callable[[Place], Awaitable[T]],
        *,
        kind: str = "",
        at: str | None = None,
        prefer: str | None = None,
        fit: Callable[[Endpoint], bool] | None = None,
        rather: Callable[[Endpoint], bool] | None = None,
        may_move: Callable[[], bool] = lambda: True,
        moved: int = 0,
    ) -> T:
        """Run a job somewhere. When its server goes away or cannot run it, run it elsewhere; see `Failover`.

        Args:
            work: runs it at the place that it is given. May call `Place.succeeded`, to tell how long it took.
            may_move: asked after a failure in mid-run whether the job may still be begun again.
            moved: how often it was begun again elsewhere before it came here, by an earlier attempt.
            kind, at, prefer, fit, rather: as for `place`.

        Raises:
            what ``work`` raises and no other endpoint mends; what `place` raises.
        """
        failover = Failover(self.options.moves, at, may_move, moved=moved)
        while True:
            try:
                async with self.place(
                    kind=kind, at=at, avoid=failover.tried, prefer=prefer, fit=fit, rather=rather
                ) as place:
                    failover.begins(place.name)
                    place.setback, place.moved = failover.last, failover.moved
                    try:
                        done = await place.run(work)
                    except Exception as error:
                        place.failed(error)
                        if isinstance(error, EmpError):
                            error.details.setdefault("server", place.name)
                        raise
                    place.succeeded()
                    return done
            except EmpError as error:
                setback = failover.take(error)
                if setback.lost:
                    said = f"lost a job, which is begun again elsewhere: {error.message}"
                    self._tell(EndpointEvent("moved", setback.endpoint, said, trouble=True))

    def _chosen(
        self,
        at: str | None,
        kind: str,
        avoid: Collection[str],
        prefer: str | None,
        fit: Callable[[Endpoint], bool] | None,
        rather: Callable[[Endpoint], bool] | None,
    ) -> Member:
        return self._chosen_by_hand(at) if at is not None else self._choose(kind, avoid, prefer, fit, rather)

    def _choose(
        self,
        kind: str,
        avoid: Collection[str],
        prefer: str | None,
        fit: Callable[[Endpoint], bool] | None,
        rather: Callable[[Endpoint], bool] | None,
    ) -> Member:
        others = [one for one in self._members.values() if one.name not in avoid]
        fitting = [one for one in others if fit is None or fit(one.endpoint)]
        able = [one for one in fitting if one.trouble is None]
        if not able:
            raise _nobody(fitting, tried=avoid)
        preferred = next((one for one in able if one.name == prefer), None)
        if preferred is not None:
            return preferred
        among = [one for one in able if rather is None or rather(one.endpoint)] or able
        return self._members[self.balancer.choose([one.state for one in among], kind).name]

    def _chosen_by_hand(self, name: str) -> Member:
        member = self._members.get(name)
        if member is None:
            known = ", ".join(self._members) or "none"
            raise NotHere(f"there is no server {name!r} here", hint=f"there are: {known}", details={"server": name})
        if not member.endpoint.enabled:
            raise NotHere(f"server {name} is disabled", hint="enable it or choose another", details={"server": name})
        if member.trouble is not None:
            raise _nobody([member], tried=())
        return member

    # -- telling -------------------------------------------------------------------------------------------------

    def _tell(self, event: EndpointEvent) -> None:
        level = log.warning if event.trouble else log.info
        level(f"server {event.endpoint} {event.message}", endpoint=event.endpoint, kind=event.kind)
        if self._on_event is not None:
            self._on_event(event)


def _nobody(members: Collection[Member], *, tried: Collection[str]) -> EmpError:
    """The error for a job that no endpoint takes now."""
    if not members:
        why = f"no server is left: tried {', '.join(sorted(tried))}" if tried else "there is no server that could"
        return ServiceUnavailable(why, hint="add or enable servers", details={"servers": {}, "away": []})
    reasons = {one.name: one.trouble or "" for one in members}
    said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    message = f"server {said}" if len(members) == 1 else f"none of {len(members)} servers takes jobs now: {said}"
    details = {"servers": reasons, "away": [one.name for one in members if one.endpoint.enabled]}
    waiting = [one for one in members if one.status is EndpointStatus.ONLINE and one.paused_s > 0]
    if waiting:
        soonest = min(one.paused_s for one in waiting)
        return ServiceBusy(message, retry_after_s=soonest, details=details)
    return ServiceUnavailable(message, hint="are they running and reachable?", details=details)
