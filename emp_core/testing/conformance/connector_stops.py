"""Rules of `ConnectorConformance`: jobs that are stopped, and services that fail under them."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from emp_core.errors import AttemptTimeout, JobFailed, NotRepeated, ServiceBroken, ServiceUnavailable
from emp_core.testing.conformance.connector_base import ConnectorRules, Service
from emp_core.testing.conformance.rig import PATIENCE_S, Rig, RunningJob, blame
from emp_core.testing.link import Garbage, endless_answer
from emp_core.testing.time_lapse import TimeLapse

__all__ = ["StopRules", "TroubleRules"]

_STOPS = ("cancelled", "lease lost", "out of time")
_LOST_S = 120.0
"""By its own clock, a connector has noticed by then that its service is gone."""
_LOST = (ServiceUnavailable, NotRepeated)
"""What a service that went away under a job may be called; NotRepeated where the job may have been paid for."""
_UNREAD = (*_LOST, ServiceBroken, JobFailed)
"""What an answer that is none may be called: the job is not to blame."""


class StopRules(ConnectorRules):
    """Jobs that are stopped from outside."""

    @pytest.mark.parametrize("why", _STOPS)
    async def test_stopping_a_job_stops_the_services_work(self, rig: Rig, held: Service, why: str) -> None:
        job = await self._begin(rig, held, why)
        await self._stop(rig, job, why)
        try:
            with anyio.fail_after(self.cancel_within_s):
                await held.driver.until_running(0)
        except TimeoutError:
            pytest.fail(f"{self.cancel_within_s:g} s after its job was stopped ({why}), the service still works on it")
        await self._assert_ended(job, PATIENCE_S)

    @pytest.mark.parametrize("why", _STOPS)
    async def test_a_cancellation_is_let_go_on(self, rig: Rig, linked: Service | None, why: str) -> None:
        job = await self._begin(rig, linked, why)
        await self._stop(rig, job, why)
        await self._assert_ended(job, PATIENCE_S)
        if why == "out of time" and isinstance(job.error, AttemptTimeout):
            return  # it looked at the deadline itself
        assert job.error is None, f"it was cancelled and raised {blame(job.error)}: let the cancellation go on"
        assert job.let_go, "it was cancelled and kept the cancellation to itself: let it go on"

    async def test_a_connector_goes_on_after_a_job_was_cancelled(self, rig: Rig, linked: Service | None) -> None:
        expected = await self.fingerprint(rig, await rig.run(self.payloads[0]))
        job = await self.begin_long(rig, linked)
        job.scope.cancel()
        await self._assert_ended(job, PATIENCE_S)
        if linked is not None and linked.driver.can_hold:
            linked.driver.release()
        assert await self.fingerprint(rig, await rig.run(self.payloads[0])) == expected, (
            "the next job comes out otherwise"
        )

    async def test_stopping_one_job_leaves_the_others_alone(self, rig: Rig, held: Service) -> None:
        held.driver.release()
        alone = await self.fingerprint(rig, await rig.run(self.payloads[0]))
        held.driver.hold()
        jobs = [rig.begin(payload) for payload in self.payloads[:2]]
        await self.until_running(held, 2, *jobs)
        jobs[1].scope.cancel()
        await self._assert_ended(jobs[1], PATIENCE_S)
        held.driver.release()
        await jobs[0].until_ended()
        if (error := jobs[0].error) is not None:
            pytest.fail(f"a job fails when another one is cancelled: {blame(error)}")
        assert await self.fingerprint(rig, jobs[0]) == alone, "a job comes out otherwise when another one is cancelled"

    @pytest.mark.parametrize("trouble", ["down", "silent"])
    async def test_stopping_ends_soon_when_the_service_cannot_be_reached(
        self, rig: Rig, held: Service, trouble: str
    ) -> None:
        job = await self.begin_long(rig, held)
        if trouble == "down":
            await held.link.go_down()
        else:
            held.link.fall_silent()
        job.scope.cancel()
        passed_s = await TimeLapse.here().until(job.ended.is_set, most_s=PATIENCE_S)
        ended = job.ended.is_set()
        await held.link.cut()
        await held.link.come_up()  # so that one that still waits ends now
        assert ended, f"{passed_s:g} s after it was cancelled, a job still waits for a service that is {trouble}"

    async def test_a_job_that_nobody_knows_can_be_cancelled(self, rig: Rig) -> None:
        with anyio.fail_after(PATIENCE_S):
            await rig.connector.cancel_job("conformance-unknown")
        await (await rig.run(self.payloads[0])).outcome()

    async def _begin(self, rig: Rig, linked: Service | None, why: str) -> RunningJob:
        deadline = datetime.now(UTC) + timedelta(hours=1) if why == "out of time" else None
        return await self.begin_long(rig, linked, deadline=deadline)

    async def _stop(self, rig: Rig, job: RunningJob, why: str) -> None:
        """Stop a job as a worker does: only a user's wish is told beforehand."""
        match why:
            case "cancelled":
                with anyio.fail_after(PATIENCE_S):
                    await rig.connector.cancel_job(job.context.job.id)
                job.scope.cancel()
            case "lease lost":
                job.scope.cancel()
            case "out of time":
                job.scope.deadline = anyio.current_time()

    async def _assert_ended(self, job: RunningJob, within_s: float) -> None:
        try:
            await job.until_ended(within_s)
        except TimeoutError:
            pytest.fail(f"{within_s:g} s after its job was stopped, the connector still holds on to it")


class TroubleRules(ConnectorRules):
    """Services that are down, go down, and talk garbage."""

    async def test_a_service_that_is_down_is_unavailable(self, rig: Rig, there: Service) -> None:
        expected = await self.fingerprint(rig, await rig.run(self.payloads[0]))
        await there.link.go_down()
        job = rig.begin(self.payloads[0])
        await self._until_ended(job, "met a service that is down")
        self.assert_told(job, ServiceUnavailable)
        await there.link.come_up()
        again = await rig.run(self.payloads[0])
        assert again.error is None, f"the service is back, and the next job fails: {blame(again.error)}"
        assert await self.fingerprint(rig, again) == expected, "after the service came back, a job comes out otherwise"

    async def test_a_service_that_goes_down_in_mid_job_is_lost(self, rig: Rig, held: Service) -> None:
        job = await self.begin_long(rig, held)
        await held.link.go_down()
        await self._until_ended(job, "went down in mid-job")
        self.assert_told(job, *_LOST)

    async def test_a_connection_that_breaks_is_lost_or_made_again(self, rig: Rig, held: Service) -> None:
        job = await self.begin_long(rig, held)
        await held.link.cut()
        await anyio.wait_all_tasks_blocked()
        held.driver.release()
        await self._until_ended(job, "lost its connection in mid-job")
        if job.result is None:
            self.assert_told(job, *_LOST)
            return
        alone = await self.fingerprint(rig, await rig.run(self.payloads[0]))
        assert await self.fingerprint(rig, job) == alone, (
            "after its connection was made again, a job comes out otherwise"
        )

    async def test_garbage_is_no_result_and_no_raw_error(self, rig: Rig, there: Service) -> None:
        for garbage in self.garbage:
            await there.link.answer_with(garbage)
            job = rig.begin(self.payloads[0])
            await self._until_ended(job, f"got {garbage.name}")
            await self._assert_not_understood(job, garbage)
        await there.link.come_up()
        again = await rig.run(self.payloads[0])
        assert again.error is None, f"the service talks sense again, and the next job fails: {blame(again.error)}"

    async def test_garbage_in_mid_job_is_no_result_and_no_raw_error(self, rig: Rig, held: Service) -> None:
        for garbage in self.garbage:
            job = await self.begin_long(rig, held)
            await held.link.answer_with(garbage)
            await self._until_ended(job, f"got {garbage.name} in mid-job")
            await self._assert_not_understood(job, garbage)
            await held.link.come_up()
            held.driver.release()
            await self.until_running(held, 0)

    async def test_an_endless_answer_is_not_read_to_its_end(self, rig: Rig, there: Service) -> None:
        endless = endless_answer(self.oversized_bytes)
        await there.link.answer_with(endless)
        job = rig.begin(self.payloads[0])
        await self._until_ended(job, f"got {endless.name}")
        await self._assert_not_understood(job, endless)
        most = there.link.most_at_once
        assert most < self.oversized_bytes, f"{most:,} bytes of one answer were read: cap what is read"

    async def _until_ended(self, job: RunningJob, what: str) -> None:
        passed_s = await job.until_ended_in_time_lapse(_LOST_S)
        assert job.ended.is_set(), f"a job that {what} still waits after {passed_s:g} s"

    async def _assert_not_understood(self, job: RunningJob, garbage: Garbage) -> None:
        try:
            self.assert_told(job, *_UNREAD)
        except AssertionError as error:
            raise AssertionError(f"at {garbage.name}: {error}") from None
