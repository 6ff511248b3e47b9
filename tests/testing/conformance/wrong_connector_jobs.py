"""Connectors that are wrong in one way each, in how they run jobs. ``breaks`` names the rule that has to say so."""

import asyncio
from typing import Any, ClassVar

import anyio
import anyio.lowlevel

from emp_core import Artifact, InvalidJob, Job, JobContext, JobResult
from emp_core.errors import ConnectionLost

from .studio import StudioConnector


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
