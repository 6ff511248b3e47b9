"""Connectors that are wrong in one way each, in what they do besides jobs. ``breaks`` names the rule that has to say so."""

import asyncio
import tempfile
import threading
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import httpx

from emp_core import Health, Job, JobContext, JobResult, ServiceInfo
from emp_core.errors import ServiceUnavailable

from .studio import StudioConnector


class Nameless(StudioConnector):
    breaks: ClassVar = "test_it_says_what_it_is"
    version = ""


class OneLifeOnly(StudioConnector):
    """Works no more once it was disconnected."""

    breaks: ClassVar = "test_it_can_be_connected_again"
    ended = False

    async def disconnect(self) -> None:
        self.ended = True
        await super().disconnect()

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        if self.ended:
            raise ServiceUnavailable("it was disconnected")
        return await super().process_job(job, context)


class Hypochondriac(StudioConnector):
    """Is only well after it was ill."""

    breaks: ClassVar = "test_it_is_healthy_while_its_service_is_up"
    been_ill = False

    async def connect(self) -> None:
        try:
            await super().connect()
        except ServiceUnavailable:
            self.been_ill = True
            raise

    async def check_health(self) -> Health:
        health = await super().check_health()
        self.been_ill |= not health.ok
        return health if self.been_ill else Health(ok=False, reason="one never knows")


class Reticent(StudioConnector):
    breaks: ClassVar = "test_it_tells_about_its_service"

    async def get_service_info(self) -> ServiceInfo:
        raise ServiceUnavailable("no comment")


class RawHealth(StudioConnector):
    """Lets the error of a refused connection through."""

    breaks: ClassVar = "test_a_service_that_is_down_is_unhealthy_and_that_is_no_error"

    async def check_health(self) -> Health:
        try:
            await self._health()
        except ServiceUnavailable as error:
            if isinstance(error.__cause__, httpx.ConnectError):
                raise error.__cause__ from None
            return Health(ok=False, reason=error.message)
        return Health(ok=True)


class TrustingHealth(StudioConnector):
    """Takes whatever is answered for what it expects."""

    breaks: ClassVar = "test_a_service_that_talks_garbage_is_no_error_of_the_health_check"

    async def check_health(self) -> Health:
        try:
            answer = await self.request_json("GET", "/health", silence_s=self.health_timeout_s)
        except ServiceUnavailable as error:
            return Health(ok=False, reason=error.message)
        return Health(ok=bool(answer["version"]))


class PatientHealth(StudioConnector):
    """Waits for ever for an answer."""

    breaks: ClassVar = "test_a_service_that_is_silent_is_soon_unhealthy"

    async def check_health(self) -> Health:
        try:
            self.understood(await self.request_json("GET", "/health", silence_s=None), "version")
        except ServiceUnavailable as error:
            return Health(ok=False, reason=error.message)
        return Health(ok=True)


class Resentful(StudioConnector):
    """Never connects to a service that was not there once."""

    breaks: ClassVar = "test_it_can_wait_for_a_service_that_is_not_there_yet"
    failure: ServiceUnavailable | None = None

    async def connect(self) -> None:
        if self.failure is not None:
            raise self.failure
        try:
            await super().connect()
        except ServiceUnavailable as error:
            self.failure = error
            raise


class TrustingConnect(StudioConnector):
    breaks: ClassVar = "test_it_does_not_connect_to_garbage_with_a_raw_error"

    async def connect(self) -> None:
        answer = await self.request_json("GET", "/health", silence_s=self.health_timeout_s)
        assert answer["version"]


class PatientConnect(StudioConnector):
    breaks: ClassVar = "test_it_does_not_wait_for_ever_to_connect"

    async def connect(self) -> None:
        self.understood(await self.request_json("GET", "/health", silence_s=None), "version")


class LeavesSockets(StudioConnector):
    """Forgets its connections instead of closing them."""

    breaks: ClassVar = "test_nothing_is_left_open"
    forgotten: ClassVar[list[Any]] = []

    async def disconnect(self) -> None:
        self.forgotten.append(self._client)
        self._client = None


class LeavesTasks(StudioConnector):
    breaks: ClassVar = "test_nothing_is_left_open"
    forgotten: ClassVar[list[Any]] = []

    async def connect(self) -> None:
        await super().connect()
        self.forgotten.append(asyncio.get_running_loop().create_task(anyio.sleep(3600)))


class LeavesThreads(StudioConnector):
    breaks: ClassVar = "test_nothing_is_left_open"

    async def connect(self) -> None:
        await super().connect()
        threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()


class LeavesFiles(StudioConnector):
    """Every job leaves a temporary file."""

    breaks: ClassVar = "test_nothing_is_left_open"

    async def deliver(self, shouted: str, context: JobContext) -> JobResult:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(shouted.encode())
        return await super().deliver(shouted, context)


class TellsTheKeyInErrors(StudioConnector):
    breaks: ClassVar = "test_secrets_are_never_shown"

    async def begin(self, text: str, context: JobContext) -> str:
        try:
            return await super().begin(text, context)
        except ServiceUnavailable as error:
            error.details["headers"] = dict(self.client.headers)
            raise


class TellsTheKeyInLogs(StudioConnector):
    """Logs the key where nothing tells that it is one."""

    breaks: ClassVar = "test_secrets_are_never_shown"

    async def begin(self, text: str, context: JobContext) -> str:
        context.log.debug("a job begins", headers=str(self.make_headers()["authorization"])[7:])
        return await super().begin(text, context)


class TellsTheKeyInItsRepr(StudioConnector):
    breaks: ClassVar = "test_secrets_are_never_shown"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config.environ})"
