"""GPU facts, by NVIDIA's own library. None without a driver."""

from collections.abc import Callable
from typing import Any

import pynvml
import structlog
from attrs import frozen

__all__ = ["Gpu", "gpus"]

log = structlog.get_logger("emp.gpus")


@frozen
class Gpu:
    """One GPU. What the driver does not tell is None.

    Attributes:
        utilization: 0 to 100.
    """

    index: int
    model: str | None
    memory_mb: int | None
    memory_used_mb: int | None
    utilization: int | None


def gpus() -> list[Gpu]:
    """The machine's GPUs; none when there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return []
    except pynvml.NVMLError as error:
        log.warning("the GPU driver does not work", error=str(error), hint="nvidia-smi says more")
        return []
    try:
        return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.warning("the GPU driver does not tell about its GPUs", error=str(error), hint="nvidia-smi says more")
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _asked(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    use = _asked(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    name = _asked(lambda: pynvml.nvmlDeviceGetName(handle))
    return Gpu(
        index=index,
        model=name.decode() if isinstance(name, bytes) else name,
        memory_mb=None if memory is None else int(memory.total) // 2**20,
        memory_used_mb=None if memory is None else int(memory.used) // 2**20,
        utilization=None if use is None else int(use.gpu),
    )


def _asked(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return None
