"""Servers that a test steers, and a pool of them."""

from collections.abc import Iterable
from typing import Any

import anyio
from attrs import define, field

from emp_core.endpoints.endpoint import Endpoint, Reading
from emp_core.endpoints.member import EndpointEvent
from emp_core.endpoints.pool import EndpointPool
from emp_core.errors import ServiceUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def away(name: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"nothing answers at {name}", details={"cause": "ConnectError"})


@define(eq=False)
class Servers:
    """What servers say when they are asked; a name that raises is broken, one in ``silent`` never answers."""

    says: dict[str, Reading | Exception] = field(factory=dict)
    silent: set[str] = field(factory=set)
    asked: list[str] = field(factory=list)
    at_once: int = 0
    most_at_once: int = 0
    gate: anyio.Event | None = None
    somebody_asks: anyio.Event = field(factory=anyio.Event)
    events: list[EndpointEvent] = field(factory=list)
    clock: Clock = field(factory=Clock)

    async def ask(self, endpoint: Endpoint) -> Reading:
        self.asked.append(endpoint.name)
        self.somebody_asks.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if endpoint.name in self.silent:
                await anyio.sleep_forever()
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.at_once -= 1
        said = self.says.get(endpoint.name, Reading())
        if isinstance(said, Exception):
            raise said
        return said

    def pool(self, endpoints: Iterable[Endpoint] | str, **more: Any) -> EndpointPool:
        if isinstance(endpoints, str):
            endpoints = [Endpoint(name, f"http://{name}:1") for name in endpoints.split()]
        return EndpointPool(endpoints, self.ask, on_event=self.events.append, clock=self.clock, **more)

    def told(self, kind: str) -> list[str]:
        return [event.endpoint for event in self.events if event.kind == kind]
