"""Connectors that are wrong in one way each, when a job or its service stops. ``breaks`` names the rule that has to say so."""

import asyncio
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import httpx

from emp_core import InvalidJob, Job, JobContext, JobResult, ServiceConfig
from emp_core.errors import ConnectionLost, JobFailed, ServiceUnavailable

from .studio import StudioConnector


class NeverStops(StudioConnector):
    """Leaves the service to its work when a job is cancelled."""

    breaks: ClassVar = "test_stopping_a_job_stops_the_services_work"

    async def stop(self, run: str) -> None:
        return


class StopsWhenTold(StudioConnector):
    """Stops what a user cancels, and nothing else: not what lost its lease."""

    breaks: ClassVar = "test_stopping_a_job_stops_the_services_work"

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.told: set[str] = set()
        self.jobs: dict[str, str] = {}

    async def cancel_job(self, job_id: str) -> None:
        self.told.add(job_id)

    async def begin(self, text: str, context: JobContext) -> str:
        run = await super().begin(text, context)
        self.jobs[run] = context.job.id
        return run

    async def stop(self, run: str) -> None:
        if self.jobs.get(run) in self.told:
            await super().stop(run)


class StopsLate(StudioConnector):
    """Thinks about a user's wish before it stops the service."""

    breaks: ClassVar = "test_stopping_a_job_stops_the_services_work"
    wished = False

    async def cancel_job(self, job_id: str) -> None:
        self.wished = "unknown" not in job_id

    async def stop(self, run: str) -> None:
        if self.wished:
            await anyio.sleep(1.2)
        await super().stop(run)


class SwallowsCancellations(StudioConnector):
    breaks: ClassVar = "test_a_cancellation_is_let_go_on"

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        try:
            return await super().process_job(job, context)
        except asyncio.CancelledError:
            return JobResult({"cancelled": True})


class RaisesOnCancellations(StudioConnector):
    breaks: ClassVar = "test_a_cancellation_is_let_go_on"

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        try:
            return await super().process_job(job, context)
        except asyncio.CancelledError:
            raise JobFailed("it was cancelled") from None


class BreaksWithTheFirstCancelled(StudioConnector):
    breaks: ClassVar = "test_a_connector_goes_on_after_a_job_was_cancelled"
    cancelled = False

    async def begin(self, text: str, context: JobContext) -> str:
        if self.cancelled:
            raise ServiceUnavailable("somebody cancelled a job")
        return await super().begin(text, context)

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        try:
            return await super().process_job(job, context)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class StopsAll(StudioConnector):
    """Stops all that the service runs, whoever it belongs to."""

    breaks: ClassVar = "test_stopping_one_job_leaves_the_others_alone"

    async def stop(self, run: str) -> None:
        await self.request("DELETE", "/jobs")


class InsistsOnStopping(StudioConnector):
    """Does not let go of a cancelled job before the service has heard of it."""

    breaks: ClassVar = "test_stopping_ends_soon_when_the_service_cannot_be_reached"

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        try:
            return await super().process_job(job, context)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                while True:
                    try:
                        await self.request("GET", "/health", silence_s=None)
                    except ServiceUnavailable:
                        await anyio.sleep(0.01)
                    else:
                        break
            raise


class KnowsItsJobsOnly(StudioConnector):
    breaks: ClassVar = "test_a_job_that_nobody_knows_can_be_cancelled"

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.jobs: dict[str, JobContext] = {}

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        self.jobs[job.id] = context
        return await super().process_job(job, context)

    async def cancel_job(self, job_id: str) -> None:
        self.jobs[job_id].log.info("cancelled")


class RawWhenDown(StudioConnector):
    """Lets the error of a refused connection through."""

    breaks: ClassVar = "test_a_service_that_is_down_is_unavailable"

    async def begin(self, text: str, context: JobContext) -> str:
        try:
            return await super().begin(text, context)
        except ServiceUnavailable as error:
            if isinstance(error.__cause__, httpx.ConnectError):
                raise error.__cause__ from None
            raise


class BlamesTheJobWhenDown(StudioConnector):
    breaks: ClassVar = "test_a_service_that_is_down_is_unavailable"

    async def begin(self, text: str, context: JobContext) -> str:
        try:
            return await super().begin(text, context)
        except ServiceUnavailable as error:
            if isinstance(error.__cause__, httpx.ConnectError):
                raise InvalidJob("the service does not want this job") from None
            raise


class StaysDown(StudioConnector):
    """Does not notice that its service is back."""

    breaks: ClassVar = "test_a_service_that_is_down_is_unavailable"
    was_down = False

    async def begin(self, text: str, context: JobContext) -> str:
        if self.was_down:
            raise ServiceUnavailable("it was down once")
        try:
            return await super().begin(text, context)
        except ServiceUnavailable as error:
            self.was_down = isinstance(error.__cause__, httpx.ConnectError)
            raise


class WaitsForTheDead(StudioConnector):
    """Asks a service that is gone for ever."""

    breaks: ClassVar = "test_a_service_that_goes_down_in_mid_job_is_lost"

    async def ask(self, run: str) -> Any:
        while True:
            try:
                return await super().ask(run)
            except ServiceUnavailable as error:
                if not isinstance(error.__cause__, httpx.ConnectError | httpx.ReadError):
                    raise
                await anyio.sleep(0.05)


class TakesHalfForWhole(StudioConnector):
    """Takes a broken connection for the end of the job."""

    breaks: ClassVar = "test_a_connection_that_breaks_is_lost_or_made_again"

    async def ask(self, run: str) -> Any:
        try:
            return await super().ask(run)
        except ConnectionLost as error:
            if isinstance(error.__cause__, httpx.ReadError) and (await self.check_health()).ok:
                return {"state": "done", "text": "HAL"}
            raise


class TrustsTheService(StudioConnector):
    """Takes whatever is answered to a new job for what it expects."""

    breaks: ClassVar = "test_garbage_is_no_result_and_no_raw_error"

    async def begin(self, text: str, context: JobContext) -> str:
        await context.checkpoint("studio")
        answer: Any = await self.request_json("PUT", f"/jobs/{id(context)}", json={"text": text})
        await context.checkpoint(answer["id"])
        return str(answer["id"])


class TrustsTheServiceLater(StudioConnector):
    """Takes whatever is answered in mid-job for what it expects."""

    breaks: ClassVar = "test_garbage_in_mid_job_is_no_result_and_no_raw_error"

    async def until_done(self, run: str, context: JobContext) -> str:
        answer: Any = await self.ask(run)
        await context.progress(0.5, "under way")
        return str(answer["text"])


class ReadsItAll(StudioConnector):
    """Has no cap on what it reads."""

    breaks: ClassVar = "test_an_endless_answer_is_not_read_to_its_end"

    async def begin(self, text: str, context: JobContext) -> str:
        run = str(id(context))
        await context.checkpoint(run)
        await self.request("PUT", f"/jobs/{run}", json={"text": text}, max_bytes=2**40)
        return run
