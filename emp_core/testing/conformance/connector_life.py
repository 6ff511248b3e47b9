"""Rules of `ConnectorConformance`: a connector's life from connect to disconnect, and what it says of its service."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from emp_core.connectors.base import Connector, Health, ServiceInfo
from emp_core.errors import ConnectorError, ServiceUnavailable
from emp_core.testing.conformance.connector_base import ConnectorRules, Service
from emp_core.testing.conformance.rig import PATIENCE_S, Rig, blame
from emp_core.testing.conformance.watching import everything_shown
from emp_core.testing.resources import held_now, left_over
from emp_core.testing.time_lapse import TimeLapse

__all__ = ["LifeRules"]

_HEALTH_S = 12.0
"""A worker waits 10 s for an answer about health; what is on its way may take a little longer."""
_CONNECT_S = 60.0


class LifeRules(ConnectorRules):
    """A connector's life from connect to disconnect, and what it says of its service."""

    async def test_it_says_what_it_is(self, make: Callable[[], Connector]) -> None:
        connector = make()
        assert connector.service_type.strip(), "service_type is the name that jobs ask for"
        assert connector.version.strip(), "version is shown to operators"
        assert connector.max_concurrent_jobs >= 1, "max_concurrent_jobs is how many jobs it may be given at a time"

    async def test_it_can_be_connected_again(self, rig: Rig) -> None:
        for _ in range(2):
            await (await rig.run(self.payloads[0])).outcome()
            with anyio.fail_after(PATIENCE_S):
                await rig.connector.disconnect()
                await rig.connector.connect()

    async def test_it_is_healthy_while_its_service_is_up(self, rig: Rig) -> None:
        with anyio.fail_after(_HEALTH_S):
            health = await rig.connector.check_health()
        assert isinstance(health, Health), f"check_health gives a Health, not {health!r}"
        assert health.ok, f"the service is up and is called unhealthy: {health.reason}"

    async def test_it_tells_about_its_service(self, rig: Rig) -> None:
        with anyio.fail_after(PATIENCE_S):
            info = await rig.connector.get_service_info()
        assert isinstance(info, ServiceInfo), f"get_service_info gives a ServiceInfo, not {info!r}"
        assert info.name == rig.connector.config.name, "the info's name is the worker's name of the service"

    async def test_a_service_that_is_down_is_unhealthy_and_that_is_no_error(self, rig: Rig, there: Service) -> None:
        await there.link.go_down()
        await self._assert_unhealthy(rig)
        await there.link.come_up()
        assert (await rig.connector.check_health()).ok, "the service is back and is still called unhealthy"

    async def test_a_service_that_talks_garbage_is_no_error_of_the_health_check(self, rig: Rig, there: Service) -> None:
        for garbage in self.garbage:
            await there.link.answer_with(garbage)
            try:
                with anyio.fail_after(_HEALTH_S):
                    health = await rig.connector.check_health()
            except Exception as error:
                pytest.fail(f"check_health raised {blame(error)} at {garbage.name}")
            assert health.ok or health.reason, "an unhealthy service has a reason"

    async def test_a_service_that_is_silent_is_soon_unhealthy(self, rig: Rig, there: Service) -> None:
        there.link.fall_silent()
        asked = anyio.Event()

        async def ask() -> None:
            await self._assert_unhealthy(rig)
            asked.set()

        lapse = TimeLapse.here()
        rig.group.start_soon(ask)
        passed_s = await lapse.until(asked.is_set, most_s=_HEALTH_S)
        assert asked.is_set(), f"check_health still waits for a silent service after {passed_s:g} s"

    async def test_it_can_wait_for_a_service_that_is_not_there_yet(
        self, there: Service, make: Callable[[], Connector]
    ) -> None:
        await there.link.go_down()
        connector = make()
        try:
            for _ in range(2):
                await self._assert_cannot_connect(connector)
            await there.link.come_up()
            await connector.connect()
            assert (await connector.check_health()).ok, "connected late, and not healthy"
        finally:
            await connector.disconnect()

    async def test_it_does_not_connect_to_garbage_with_a_raw_error(
        self, there: Service, make: Callable[[], Connector]
    ) -> None:
        for garbage in self.garbage:
            await there.link.answer_with(garbage)
            connector = make()
            try:
                with anyio.fail_after(PATIENCE_S):
                    await connector.connect()
            except ServiceUnavailable:
                pass
            except Exception as error:
                pytest.fail(f"connect raised {blame(error)} at {garbage.name}, where ServiceUnavailable was due")
            finally:
                await connector.disconnect()

    async def test_it_does_not_wait_for_ever_to_connect(
        self, there: Service, rig: Rig, make: Callable[[], Connector]
    ) -> None:
        there.link.fall_silent()
        connector = make()
        over = anyio.Event()

        async def connect() -> None:
            await self._assert_cannot_connect(connector)
            await connector.disconnect()
            over.set()

        lapse = TimeLapse.here()
        rig.group.start_soon(connect)
        passed_s = await lapse.until(over.is_set, most_s=_CONNECT_S)
        assert over.is_set(), f"connect still waits for a silent service after {passed_s:g} s"

    async def test_nothing_is_left_open(
        self,
        linked: Service | None,
        make: Callable[[], Connector],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        await self._live(linked, make(), tmp_path)  # what is loaded once and for all
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        before = held_now()
        await self._live(linked, make(), tmp_path)
        left = await left_over(before)
        assert not left, f"a connector that was disconnected left behind: {'; '.join(left)}"
        files = sorted(path.name for path in scratch.rglob("*"))
        assert not files, f"temporary files were left behind: {', '.join(files)}"

    async def test_secrets_are_never_shown(
        self, rig: Rig, linked: Service | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        if not self.secrets:
            pytest.skip("give secrets: the texts that environ hands over and nobody may see, such as a password or key")
        caplog.set_level(logging.INFO)
        caplog.set_level(logging.DEBUG, "emp")  # as workers show, at most
        shown: list[object] = [rig.connector, rig.connector.config]
        shown += await self._say_everything(rig)
        if linked is not None:
            await linked.link.answer_with(self.garbage[0])
            shown += await self._say_everything(rig)
            await linked.link.go_down()
            shown += await self._say_everything(rig)
        text = everything_shown(*shown) + caplog.text
        found = [line for line in text.splitlines() if any(secret in line for secret in self.secrets)]
        assert not found, f"a secret is shown: {found[0][:300]}"

    async def _say_everything(self, rig: Rig) -> list[object]:
        """All that somebody gets to see of a job and a look at the service."""
        job = await rig.run(self.payloads[0])
        shown: list[object] = [job.result, job.error, *job.context.messages]
        for ask in (rig.connector.check_health, rig.connector.get_service_info):
            try:
                shown.append(await ask())
            except Exception as error:
                shown.append(error)
        return shown

    async def _live(self, linked: Service | None, connector: Connector, folder: Path) -> None:
        """A whole life: a job that goes well, one that is cancelled, one whose service talks garbage, and the end."""
        async with anyio.create_task_group() as group:
            await connector.connect()
            rig = self.rig_at(folder / "life", connector, group)
            await (await rig.run(self.payloads[0])).outcome()
            if self.long_payload is not None or (linked is not None and linked.driver.can_hold):
                job = await self.begin_long(rig, linked)
                job.scope.cancel()
                await job.until_ended()
            if linked is not None:
                if linked.driver.can_hold:
                    linked.driver.release()
                await linked.link.answer_with(self.garbage[0])
                await rig.begin(self.payloads[0]).until_ended_in_time_lapse(PATIENCE_S)
                await linked.link.come_up()
            await connector.check_health()
            await rig.run(self.payloads[0])
            with anyio.fail_after(PATIENCE_S):
                await connector.disconnect()

    async def _assert_unhealthy(self, rig: Rig) -> None:
        try:
            with anyio.fail_after(_HEALTH_S + 1):
                health = await rig.connector.check_health()
        except TimeoutError:
            pytest.fail(f"check_health did not answer within {_HEALTH_S:g} s")
        except Exception as error:
            pytest.fail(f"check_health raised {blame(error)}; it gives Health(ok=False, reason=…)")
        assert not health.ok, "the service cannot be reached and is called healthy"
        assert health.reason, "an unhealthy service has a reason, for the operator"

    async def _assert_cannot_connect(self, connector: Connector) -> None:
        try:
            await connector.connect()
        except ServiceUnavailable:
            return
        except ConnectorError as error:
            pytest.fail(f"connect raised {blame(error)}, where ServiceUnavailable was due")
        except Exception as error:
            pytest.fail(f"connect raised {blame(error)} as it is, where ServiceUnavailable was due")
        pytest.fail("connect went well, and there is nothing to connect to")
