"""What the parts of `ConnectorConformance` have in common: what a subclass gives, and the fixtures made of it."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from anyio.abc import TaskGroup
from attrs import define

from emp_core.connectors.base import Connector, ServiceConfig
from emp_core.errors import ConnectorError
from emp_core.testing.conformance.rig import PATIENCE_S, Rig, RunningJob, blame
from emp_core.testing.fake_service import ServiceDriver
from emp_core.testing.link import GARBAGE, Garbage, Link, link_to

__all__ = ["ConnectorRules", "Service"]


@define(eq=False)
class Service:
    """The service of a test, and the link that the connector reaches it by.

    Attributes:
        url: what the connector is told: it leads through the link.
    """

    driver: ServiceDriver
    link: Link
    url: str


class ConnectorRules:
    """What a subclass gives, and what the rules make of it. See `emp_core.testing.conformance.connector.ConnectorConformance`."""

    pytestmark = pytest.mark.anyio

    connector_class: ClassVar[type[Connector]]
    service_required: ClassVar[str | None] = None
    payloads: ClassVar[Sequence[Any]]
    bad_payloads: ClassVar[Sequence[Any]] = ()
    long_payload: ClassVar[Any] = None
    secrets: ClassVar[Sequence[str]] = ()
    options: ClassVar[Mapping[str, Any]] = {}
    garbage: ClassVar[Sequence[Garbage]] = GARBAGE
    oversized_bytes: ClassVar[int] = 256 * 2**20
    cancel_within_s: ClassVar[float] = 1.0

    def environ(self, url: str) -> Mapping[str, str]:  # noqa: ARG002 - for those who have a service
        """The subclass's: the environment variables that make the connector speak to the service at ``url``."""
        return {}

    def make_connector(self, url: str) -> Connector:
        """A connector to the service at ``url``, not connected yet."""
        name = self.connector_class.service_type
        return self.connector_class(ServiceConfig(name, self.environ(url), self.options))

    async def fingerprint(self, rig: Rig, job: RunningJob) -> Any:
        """What tells the outcome of one payload from that of another, and is the same whenever the payload is run.

        Override it when results hold what is never the same twice: ids, times.
        """
        return await rig.fingerprint(job)

    @pytest.fixture(scope="session")
    @classmethod
    def anyio_backend(cls) -> str:
        """The suites run on asyncio, as workers do."""
        return "asyncio"

    @pytest.fixture
    async def service(self) -> AsyncIterator[ServiceDriver | None]:
        """The subclass's: a service on a real socket; none, for a connector that needs none."""
        yield None  # noqa: PT022 - subclasses tidy up

    @pytest.fixture
    async def linked(self, service: ServiceDriver | None) -> AsyncIterator[Service | None]:
        """The service with a link before it, which can be cut."""
        if service is None:
            yield None
            return
        async with link_to(service.url) as (link, url):
            yield Service(service, link, url)
            if service.can_hold:
                service.release()

    @pytest.fixture
    def there(self, linked: Service | None) -> Service:
        """The service, for rules that are about one."""
        if linked is None:
            pytest.skip("the connector speaks to no service; if it does, give the fixture service")
        return linked

    @pytest.fixture
    def held(self, there: Service) -> Service:
        """A service that keeps its jobs from now on."""
        if not there.driver.can_hold:
            pytest.skip("give a service that can hold its jobs and tells what it runs: see ServiceDriver.can_hold")
        there.driver.hold()
        return there

    @pytest.fixture
    def make(self, linked: Service | None) -> Callable[[], Connector]:
        """Makes connectors to the service."""
        url = linked.url if linked is not None else ""
        return lambda: self.make_connector(url)

    @pytest.fixture
    async def rig(
        self, make: Callable[[], Connector], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> AsyncIterator[Rig]:
        """A connected connector with a worker's place around it."""
        caplog.set_level(logging.DEBUG, "emp")
        connector = make()
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            with anyio.fail_after(PATIENCE_S):
                await connector.connect()
            yield self.rig_at(tmp_path, connector, group)
            group.cancel_scope.cancel()
            await stack.aclose()
            with anyio.fail_after(PATIENCE_S):
                await connector.disconnect()

    def rig_at(self, folder: Path, connector: Connector, group: TaskGroup) -> Rig:
        """A worker's place for a connector, with its files in a folder."""
        return Rig.at(folder, connector, self.service_required or connector.service_type, group)

    async def begin_long(self, rig: Rig, linked: Service | None, **how: Any) -> RunningJob:
        """Begin a job that does not end by itself, and wait until its work has begun."""
        if linked is not None and linked.driver.can_hold:
            linked.driver.hold()
            job = rig.begin(self.payloads[0], **how)
            await self.until_running(linked, 1, job)
            return job
        if self.long_payload is None:
            pytest.skip(
                "give a service that can hold its jobs, or long_payload: a job that takes very long and says how far it is"
            )
        job = rig.begin(self.long_payload, **how)
        with anyio.fail_after(PATIENCE_S):
            await job.context.began_to_tell.wait()
        return job

    async def until_running(self, there: Service, count: int, *jobs: RunningJob) -> None:
        """Wait until the service runs so many jobs, of which these are some."""
        came = False
        async with anyio.create_task_group() as group:

            async def give_up(job: RunningJob) -> None:
                await job.ended.wait()
                group.cancel_scope.cancel()

            for job in jobs:
                group.start_soon(give_up, job)
            with anyio.move_on_after(PATIENCE_S):
                await there.driver.until_running(count)
                came = True
            group.cancel_scope.cancel()
        errors = [blame(job.error) for job in jobs if job.error is not None]
        assert came, f"the service never came to have {count} jobs; {'; '.join(errors) or 'nothing was raised'}"

    def assert_told(self, job: RunningJob, *expected: type[ConnectorError]) -> ConnectorError:
        """The job ended with one of these errors, which says what it has to."""
        error = job.error
        names = " or ".join(kind.__name__ for kind in expected)
        assert job.result is None, f"a result came out of it, where {names} was due: {job.result}"
        assert error is not None, f"the job ended without a result and without an error, where {names} was due"
        assert isinstance(error, ConnectorError), f"{blame(error)} came out as it is, where {names} was due"
        assert isinstance(error, expected), f"{blame(error)}, where {names} was due"
        assert error.message.strip(), f"the {type(error).__name__} says nothing"
        assert error.code, f"the {type(error).__name__} has no code"
        return error
