"""`emp machine start` and its like where no `emp machine up` holds the machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .box import Box


@pytest.fixture
def box(tmp_path: Path, redis_url: str, namespace: str) -> Iterator[Box]:
    made = Box(tmp_path, {"EMP_PROCESS_MANAGER": "supervisor", "HUB_REDIS_URL": redis_url, "EMP_NAMESPACE": namespace})
    yield made
    made.emp("machine", "stop")


def running(box: Box) -> set[str]:
    return {one["name"] for one in box.emp("machine", "status")["data"]["processes"] if one["pid"] is not None}


def tell(box: Box, *arguments: str) -> None:
    said = box.emp("machine", *arguments)
    assert said["ok"], said


def test_what_a_worker_needs_is_started_before_it_and_nothing_else(box: Box) -> None:
    first = {"comfyui-gpu0", "worker-comfyui-gpu0"}
    tell(box, "start", "worker-comfyui-gpu0")
    assert running(box) == first

    # The process manager is there now, and is told by name.
    tell(box, "start", "worker-comfyui-gpu1")
    assert running(box) == first | {"comfyui-gpu1", "worker-comfyui-gpu1"}

    tell(box, "stop", "comfyui")
    assert running(box) == {"worker-comfyui-gpu0", "worker-comfyui-gpu1"}
    tell(box, "start", "worker-comfyui-gpu1")
    assert running(box) == {"worker-comfyui-gpu0", "worker-comfyui-gpu1", "comfyui-gpu1"}


def test_where_nothing_was_started_a_name_stands_for_nothing(box: Box) -> None:
    refused = box.emp("machine", "restart", "workers")
    assert refused["code"] == 2
    assert refused["error"]["hint"] == "nothing was started here yet: `emp machine up` does"
