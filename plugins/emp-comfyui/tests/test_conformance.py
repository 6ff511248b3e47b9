"""The connector keeps to what is asked of every connector, with old and new servers."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from emp_comfyui.cluster.connector import ComfyUIClusterConnector
from emp_comfyui.connector import ComfyUIWebSocketConnector
from emp_comfyui.testing import FakeComfyUI

from emp_core.connectors.base import Connector
from emp_core.testing.conformance.connector import ConnectorConformance
from emp_core.testing.conformance.rig import Rig, RunningJob
from emp_core.testing.fake_service import ServiceDriver

from .rig import image, save, slow


class HeldComfyUI(ServiceDriver):
    """A ComfyUI server whose steps take as long as the suite says; as ever, it notices an interrupt at the next step."""

    can_hold = True

    def __init__(self, version: str) -> None:
        self.server = FakeComfyUI(version=version, sleep=self._step)
        self._held = False
        self._interrupts = 0

    @property
    def url(self) -> str:  # type: ignore[override]  # known once it listens
        return self.server.url

    @property
    def begun(self) -> int:  # type: ignore[override]  # counted by the server
        return len(self.server.prompts)

    def hold(self) -> None:
        self._held, self._interrupts = True, len(self.server.interrupts)
        self.server.forget_cache()  # a workflow that ran before would be over at once

    def release(self) -> None:
        self._held = False
        self.server.note_change()

    async def until_running(self, count: int) -> None:
        await self.server.until(lambda: self.server.queue.remaining() == count, timeout=60)

    async def _step(self, seconds: float) -> None:
        await self.server.until(lambda: not self._held or len(self.server.interrupts) > self._interrupts, timeout=60)
        self._interrupts = len(self.server.interrupts)


def workflow(color: int) -> dict[str, Any]:
    return {"1": slow(image=["3", 0]), "2": save("1"), "3": image(color)}


class ComfyUIConformance(ConnectorConformance):
    connector_class: ClassVar[type[Connector]] = ComfyUIWebSocketConnector
    payloads = (workflow(0x00FF00), {"prompt": workflow(0x0000FF)})
    bad_payloads = (
        {"prompt": workflow(1), "temp_outputs": "yes"},
        {"nodes": [], "links": []},
        {"1": {"class_type": "SaveImage"}},
    )
    secrets = ("conformance-token", "conformance-header")
    version: ClassVar[str]

    def environ(self, url: str) -> Mapping[str, str]:
        parts = urlsplit(url)
        login = {"EMP_COMFYUI_TOKEN": self.secrets[0], "EMP_COMFYUI_HEADERS": json.dumps({"X-Key": self.secrets[1]})}
        waits = {"POLL": "0.05", "GONE": "0.2", "STALL": "0.4", "CANCEL": "2"}
        patience = {f"EMP_COMFYUI_{name}_S": seconds for name, seconds in waits.items()}
        return {**patience, **login, "COMFYUI_HOST": parts.hostname or "", "COMFYUI_PORT": str(parts.port)}

    async def fingerprint(self, rig: Rig, job: RunningJob) -> Any:
        result = await job.outcome()
        return sorted(artifact.sha256 for artifact in result.artifacts)

    @pytest.fixture
    async def service(self) -> AsyncIterator[ServiceDriver]:
        driver = HeldComfyUI(self.version)
        async with driver.server:
            yield driver


class TestNewServer(ComfyUIConformance):
    version = "0.3.64"


class TestOldServer(ComfyUIConformance):
    version = "0.3.12"


class TestCluster(ComfyUIConformance):
    """Two servers of a cluster, one of which is disabled: there is nowhere to move to."""

    connector_class = ComfyUIClusterConnector
    garbage = ConnectorConformance.garbage[
        :2
    ]  # after three failures in a row its only server is left alone for a while
    version = "0.38.0"

    def environ(self, url: str) -> Mapping[str, str]:
        alone = dict(super().environ(url))
        server = {"name": "a", "ip": alone.pop("COMFYUI_HOST"), "port": int(alone.pop("COMFYUI_PORT"))}
        off = {"name": "b", "ip": "127.0.0.1", "port": 9, "enabled": False}
        checks = {"EMP_COMFYUI_CHECK_S": "0.1", "EMP_COMFYUI_CHECK_TIMEOUT_S": "0.5"}
        return {**alone, **checks, "NUKE_COMFYUI_SERVERS": json.dumps([server, off])}
