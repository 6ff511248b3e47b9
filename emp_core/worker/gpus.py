"""GPU facts, by NVIDIA's own library. None without a driver."""

from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.to_thread
import pynvml
from attrs import define, frozen

from emp_core.log.logger import get_logger

__all__ = ["Gpu", "GpuUse", "GpuWatch", "gpus"]

log = get_logger("emp.gpus")

_SAMPLE_EVERY_S = 1.0
_NOT_TOLD: tuple[type[Exception], ...] = (
    pynvml.NVMLError_NotSupported,  # pyright: ignore[reportAttributeAccessIssue] - made when it is imported
    pynvml.NVMLError_FunctionNotFound,  # pyright: ignore[reportAttributeAccessIssue]
)


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


def gpus(*, tell: bool = True) -> list[Gpu]:
    """The machine's GPUs; none when there is no driver. One that the driver has lost is left out.

    Args:
        tell: whether trouble is logged; not by those who look every second.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:  # pyright: ignore[reportAttributeAccessIssue] - made when it is imported
        return []
    except pynvml.NVMLError as error:
        if tell:
            log.warning("the GPU driver does not work", error=str(error), hint="nvidia-smi says more")
        return []
    try:
        found = [_gpu(index, tell) for index in range(pynvml.nvmlDeviceGetCount())]
        return [gpu for gpu in found if gpu is not None]
    except pynvml.NVMLError as error:
        if tell:
            log.warning("the GPU driver does not tell about its GPUs", error=str(error), hint="nvidia-smi says more")
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int, tell: bool) -> Gpu | None:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = _asked(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
        use = _asked(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
        name = _asked(lambda: pynvml.nvmlDeviceGetName(handle))
    except pynvml.NVMLError as error:
        if tell:
            log.warning("a GPU does not answer", index=index, error=str(error), hint="nvidia-smi says more")
        return None
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
    except _NOT_TOLD:
        return None


@define
class GpuUse:
    """What was seen of the GPU while a job ran."""

    memory_mb: int | None = None
    """The most that was in use."""
    _utilization: float = 0.0
    _samples: int = 0

    def note(self, gpu: Gpu) -> None:
        """Take a sample into account."""
        if gpu.memory_used_mb is not None:
            self.memory_mb = max(self.memory_mb or 0, gpu.memory_used_mb)
        if gpu.utilization is not None:
            self._utilization += gpu.utilization
            self._samples += 1

    @property
    def utilization(self) -> float | None:
        """Its mean, 0 to 100."""
        return round(self._utilization / self._samples, 1) if self._samples else None


class GpuWatch:
    """Samples one GPU while jobs run.

    Args:
        index: which GPU.
        running: what to note samples in: one for each running job.
        read: reads the machine's GPUs.
    """

    def __init__(
        self,
        index: int,
        running: Callable[[], Iterable[GpuUse]],
        *,
        read: Callable[[], list[Gpu]] = lambda: gpus(tell=False),
    ) -> None:
        self._index = index
        self._running = running
        self._read = read

    async def run(self) -> None:
        """Sample until cancelled; returns at once on a machine without such a GPU."""
        if all(gpu.index != self._index for gpu in await anyio.to_thread.run_sync(self._read)):
            return
        while True:
            await anyio.sleep(_SAMPLE_EVERY_S)
            running = list(self._running())
            if not running:
                continue
            # In a thread: a driver in trouble takes its time to answer.
            for gpu in await anyio.to_thread.run_sync(self._read):
                if gpu.index == self._index:
                    for use in running:
                        use.note(gpu)
