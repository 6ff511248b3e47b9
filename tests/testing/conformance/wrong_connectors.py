"""Connectors that are wrong in one way each. ``breaks`` names the rule that has to say so."""

import asyncio
import tempfile
import threading
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import httpx

from emp_core import Artifact, Health, InvalidJob, Job, JobContext, JobResult, ServiceConfig, ServiceInfo
from emp_core.errors import ConnectionLost, JobFailed, ServiceUnavailable

from .studio import StudioConnector

__all__ = ["WRONG"]


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


class NoJson(StudioConnector):
    """Gives a result that is another one once it went through JSON."""

    breaks: ClassVar = "test_a_job_ends_with_a_result_that_is_json"

    async def deliver(self, shouted: str, context: JobContext) -> JobResult:
        result = await super().deliver(shouted, context)
        odd: dict[Any, Any] = {**result.data, 1: "one"}
        return JobResult(odd, artifacts=result.artifacts)


class ForgetsArtifacts(StudioConnector):
    """Saves an output and does not tell of it."""

    breaks: ClassVar = "test_artifacts_are_those_that_were_saved"

    async def deliver(self, shouted: str, context: JobContext) -> JobResult:
        return JobResult((await super().deliver(shouted, context)).data)


class InventsArtifacts(StudioConnector):
    """Tells of an output that it has not saved."""

    breaks: ClassVar = "test_artifacts_are_those_that_were_saved"

    async def deliver(self, shouted: str, context: JobContext) -> JobResult:
        result = await super().deliver(shouted, context)
        return JobResult(result.data, artifacts=(Artifact("a.txt", "file:///a.txt", "text/plain", 1, "00"),))


class GoesBackwards(StudioConnector):
    breaks: ClassVar = "test_progress_never_falls_and_ends_at_most_at_the_whole"

    async def deliver(self, shouted: str, context: JobContext) -> JobResult:
        await context.progress(0.2)
        return await super().deliver(shouted, context)


class TellsPercents(StudioConnector):
    breaks: ClassVar = "test_progress_never_falls_and_ends_at_most_at_the_whole"

    async def deliver(self, shouted: str, context: JobContext) -> JobResult:
        await context.progress(90)
        return await super().deliver(shouted, context)


class NeverDone(StudioConnector):
    """Tells progress of a job that is over."""

    breaks: ClassVar = "test_nothing_is_done_for_a_job_that_is_over"
    tellers: ClassVar[list[Any]] = []

    async def deliver(self, shouted: str, context: JobContext) -> JobResult:
        self.tellers.append(asyncio.get_running_loop().create_task(self._tell_later(context)))
        return await super().deliver(shouted, context)

    async def _tell_later(self, context: JobContext) -> None:
        while not getattr(context, "is_over", True):
            await anyio.lowlevel.checkpoint()
        await context.progress(1.0)


class OneContextForAll(StudioConnector):
    """Tells the progress of every job to the one that came last."""

    breaks: ClassVar = "test_jobs_side_by_side_do_not_mix"
    latest: JobContext | None = None

    async def begin(self, text: str, context: JobContext) -> str:
        self.latest = context
        run = str(id(context))
        await context.checkpoint(run)
        answer = await self.request_json("PUT", f"/jobs/{run}", json={"text": text})
        return self.understood(answer, "id")

    async def until_done(self, run: str, context: JobContext) -> str:
        return await super().until_done(run, self.latest or context)


class TrustsPayloads(StudioConnector):
    breaks: ClassVar = "test_a_payload_of_any_shape_is_run_or_refused_as_invalid"

    def text_of(self, job: Job) -> str:
        text = job.payload["text"]
        if not isinstance(text, str):
            raise InvalidJob("payload.text: expected a text")
        return text


class TakesAnything(StudioConnector):
    """Makes a text of what is none."""

    breaks: ClassVar = "test_bad_payloads_are_refused_as_invalid_before_the_service_works"

    def text_of(self, job: Job) -> str:
        if isinstance(job.payload, dict) and "text" in job.payload:
            return str(job.payload["text"])
        return super().text_of(job)


class BeginsAnew(StudioConnector):
    """Stores checkpoints and does not look at them."""

    breaks: ClassVar = "test_a_run_that_goes_on_without_its_worker_is_taken_over"

    async def adopt(self, context: JobContext) -> str | None:
        return None


class ClingsToCheckpoints(StudioConnector):
    breaks: ClassVar = "test_a_run_that_is_gone_is_begun_again"

    async def adopt(self, context: JobContext) -> str | None:
        if context.service_job_id is not None and await super().adopt(context) is None:
            raise ConnectionLost("the run is gone")
        return context.service_job_id


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


WRONG: tuple[type[StudioConnector], ...] = tuple(
    one for one in list(globals().values()) if isinstance(one, type) and "breaks" in vars(one)
)
