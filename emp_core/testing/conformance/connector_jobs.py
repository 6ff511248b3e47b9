"""Rules of `ConnectorConformance`: jobs that go well, and payloads that cannot."""

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from emp_core.connectors.base import Connector
from emp_core.errors import ConnectorError, InvalidJob, NotRepeated
from emp_core.jobs.codec import encode_result
from emp_core.jobs.outcomes import JobResult
from emp_core.testing.conformance.connector_base import ConnectorRules, Service
from emp_core.testing.conformance.rig import PATIENCE_S, Rig, RunningJob, wrong_progress

__all__ = ["JobRules"]

_JUNK: tuple[Any, ...] = (None, True, 7, -1.5, "", "text", [], [1, "a", None], {}, {"": ""}, {"unknown": {"a": [1]}})
_SIDE_BY_SIDE = 3


class JobRules(ConnectorRules):
    """Jobs that go well, and payloads that cannot."""

    async def test_a_job_ends_with_a_result_that_is_json(self, rig: Rig) -> None:
        for payload in self.payloads:
            result = await (await rig.run(payload)).outcome()
            assert isinstance(result, JobResult), f"{result!r} is no JobResult"
            told = json.loads(encode_result(result))["data"]
            assert told == result.data, f"the result's data changes on its way through JSON: {told}"
            assert json.loads(json.dumps(dict(result.usage))) == result.usage, "the result's usage is no JSON"

    async def test_the_same_payload_has_the_same_outcome_and_others_have_others(self, rig: Rig) -> None:
        outcomes = [await self.fingerprint(rig, await rig.run(payload)) for payload in self.payloads]
        again = [await self.fingerprint(rig, await rig.run(payload)) for payload in self.payloads]
        assert outcomes == again, "override fingerprint: results hold something that is never the same twice"
        assert len(outcomes) > 1, "give two payloads or more"
        assert len({json.dumps(outcome, sort_keys=True) for outcome in outcomes}) == len(outcomes), (
            "give payloads whose outcomes differ: else nobody sees when jobs mix"
        )

    async def test_artifacts_are_those_that_were_saved(self, rig: Rig) -> None:
        for payload in self.payloads:
            job = await rig.run(payload)
            result = await job.outcome()
            told = {artifact.url: artifact for artifact in result.artifacts}
            saved = {artifact.url: artifact for artifact in job.context.saved}
            assert told == saved, "the result's artifacts are not those that were saved with context.save"

    async def test_progress_never_falls_and_ends_at_most_at_the_whole(self, rig: Rig) -> None:
        for payload in self.payloads:
            job = await rig.run(payload)
            await job.outcome()
            problem = wrong_progress(job.context.told)
            assert problem is None, f"context.progress takes a fraction that never falls: {problem}"

    async def test_nothing_is_done_for_a_job_that_is_over(self, rig: Rig) -> None:
        for payload in self.payloads:
            await (await rig.run(payload)).outcome()
        await anyio.wait_all_tasks_blocked()
        for job in rig.jobs:
            assert not job.context.late, f"after its job was over, the connector called {', '.join(job.context.late)}"

    async def test_jobs_side_by_side_do_not_mix(self, rig: Rig, linked: Service | None) -> None:
        alone = [await rig.run(payload) for payload in self.payloads]
        expected = [await self.fingerprint(rig, job) for job in alone]
        for _ in range(_SIDE_BY_SIDE):
            if linked is not None and linked.driver.can_hold:
                linked.driver.hold()
            together = [rig.begin(payload) for payload in self.payloads]
            if linked is not None and linked.driver.can_hold:
                await self.until_running(linked, len(together), *together)
                linked.driver.release()
            for job in together:
                await job.until_ended()
            found = [await self.fingerprint(rig, job) for job in together]
            assert found == expected, "jobs that run side by side have other outcomes than alone"
            self._assert_own_progress(alone, together)

    def _assert_own_progress(self, alone: list[RunningJob], together: list[RunningJob]) -> None:
        for before, now in zip(alone, together, strict=True):
            assert before.context.late or not now.context.late, (
                f"{', '.join(now.context.late)} was called for a job that was over: it was another job's"
            )
            assert bool(now.context.told) == bool(before.context.told), (
                "a job that tells its progress alone does not side by side: another job got it"
            )
            problem = None if wrong_progress(before.context.told) else wrong_progress(now.context.told)
            assert problem is None, f"side by side, progress of one job went to another: {problem}"

    @pytest.mark.parametrize("payload", _JUNK, ids=json.dumps)
    async def test_a_payload_of_any_shape_is_run_or_refused_as_invalid(self, rig: Rig, payload: Any) -> None:
        job = await self._run_or_refuse(rig, payload)
        if job is not None and job.result is None:
            self.assert_told(job, InvalidJob)

    async def test_bad_payloads_are_refused_as_invalid_before_the_service_works(
        self, rig: Rig, linked: Service | None
    ) -> None:
        if not self.bad_payloads:
            pytest.skip("give bad_payloads: payloads that cannot be right, such as a number for a text")
        begun = linked.driver.begun if linked is not None else 0
        for payload in self.bad_payloads:
            job = await self._run_or_refuse(rig, payload)
            if job is not None:
                error = self.assert_told(job, InvalidJob)
                assert error.message, f"nothing is said of what is wrong with {payload!r}"
        assert linked is None or linked.driver.begun == begun, "the service was given a job that could not be right"

    async def test_a_run_that_goes_on_without_its_worker_is_taken_over(
        self, rig: Rig, make: Callable[[], Connector], held: Service
    ) -> None:
        first = await self.begin_long(rig, held)
        await held.link.until_quiet()
        if not first.context.checkpoints:
            pytest.skip("the connector stores no checkpoint; if runs outlive their worker, call context.checkpoint")
        run = first.context.checkpoints[-1]
        await held.link.go_down()  # as for a worker that was killed: nobody is left to stop the service's work
        await first.until_ended_in_time_lapse(PATIENCE_S)
        await held.link.come_up()
        other = make()
        await other.connect()
        try:
            second = rig.begin(self.payloads[0], connector=other, attempt=2, service_job_id=run)
            await anyio.wait_all_tasks_blocked()
            held.driver.release()
            taken_over = await self.fingerprint(rig, second)
            assert held.driver.begun == 1, "a run that went on was begun again instead of being taken over"
            fresh = await self.fingerprint(rig, await rig.run(self.payloads[0]))
            assert taken_over == fresh, "a run that was taken over has another outcome than one that was not"
        finally:
            with anyio.fail_after(PATIENCE_S):
                await other.disconnect()

    async def test_a_run_that_is_gone_is_begun_again(self, rig: Rig, held: Service) -> None:
        first = await self.begin_long(rig, held)
        if not first.context.checkpoints:
            pytest.skip("the connector stores no checkpoint; if runs outlive their worker, call context.checkpoint")
        held.driver.release()
        await first.outcome()
        second = await rig.run(self.payloads[0], attempt=2, service_job_id="00000000-0000-0000-0000-000000000000")
        if isinstance(second.error, NotRepeated):
            return
        assert await self.fingerprint(rig, second) == await self.fingerprint(rig, first), (
            "a job whose checkpoint the service does not know is not run"
        )

    async def _run_or_refuse(self, rig: Rig, payload: Any) -> RunningJob | None:
        try:
            return await rig.run(payload)
        except InvalidJob:
            return None  # it does not fit the payload class: neither would it be taken at submit
        except ConnectorError as error:
            pytest.fail(f"a payload is refused as {type(error).__name__}, where InvalidJob was due")
