"""How a ComfyUI server is: by ``/system_stats`` and its queue."""

from collections.abc import Mapping
from typing import Any

import anyio

from emp_comfyui.client import ComfyUIClient
from emp_comfyui.history import QueueView
from emp_core.endpoints.endpoint import Reading
from emp_core.errors import ServiceBroken

__all__ = ["read_status"]

_STANDSTILL_LOOKS = 3
_STANDSTILL_PAUSE_S = 0.7


async def read_status(client: ComfyUIClient) -> Reading:
    """Ask a server how it is.

    The queue carries whole workflows, so it is read only if it is not empty.

    Raises:
        ServiceUnavailable, ConnectionLost: it does not answer, or something else answers there.
        ServiceBroken: prompts wait and none runs.
    """
    stats = await client.system_stats()
    queue = await client.queue() if await client.queue_remaining() else QueueView()
    for _ in range(_STANDSTILL_LOOKS - 1):
        if queue.running or not queue.waiting:
            break
        await anyio.sleep(_STANDSTILL_PAUSE_S)  # between two prompts nothing runs for a moment
        queue = await client.queue()
    if queue.waiting and not queue.running:
        raise ServiceBroken(
            f"it takes prompts and runs none: {len(queue.waiting)} wait",
            hint="restart it: its worker thread has died",
            details={"waiting": len(queue.waiting)},
        )
    free, total = _memory(stats.get("devices"))
    return Reading(
        running=len(queue.running),
        pending=len(queue.waiting),
        memory_free_bytes=free,
        memory_total_bytes=total,
        details={
            "version": _text(stats["system"].get("comfyui_version")),
            "devices": [_text(device.get("name")) for device in _devices(stats.get("devices"))],
            "prompts": [entry.prompt_id for entry in queue.running],
        },
    )


def _memory(devices: Any) -> tuple[int | None, int | None]:
    """Free and total memory of all GPUs together; None for a server without any."""
    gpus = [device for device in _devices(devices) if device.get("type") != "cpu"]
    free = [value for device in gpus if isinstance(value := device.get("vram_free"), int)]
    total = [value for device in gpus if isinstance(value := device.get("vram_total"), int)]
    return (sum(free), sum(total)) if free and total else (None, None)


def _devices(devices: Any) -> list[Mapping[str, Any]]:
    return [device for device in devices if isinstance(device, Mapping)] if isinstance(devices, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
