"""GPU facts, by NVIDIA's own library. None without a driver."""

from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.to_thread
import pynvml
from attrs import define, frozen

from emp_core.log.logger import get_logger

__all__ = ["Gpu", "GpuInventory", "GpuUse", "GpuWatch", "gpus", "inventory"]

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


@frozen
class GpuInventory:
    """What NVIDIA's driver tells of the machine.

    Attributes:
        gpus: those that answer, by index.
        driver: the driver's version, if it tells one.
        installed: whether there is a driver at all.
        trouble: what does not work, and what to do, a sentence each.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    installed: bool = True
    trouble: tuple[str, ...] = ()


def inventory() -> GpuInventory:
    """Ask the driver. One GPU that it has lost does not hide the others."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:  # pyright: ignore[reportAttributeAccessIssue] - made when it is imported
        return GpuInventory(installed=False)
    except pynvml.NVMLError as error:
        return GpuInventory(trouble=(_in_words(error),))
    trouble: list[str] = []
    found: list[Gpu] = []
    version: Any = None
    try:
        version = _asked(pynvml.nvmlSystemGetDriverVersion)
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                found.append(_gpu(index))
            except pynvml.NVMLError as error:
                trouble.append(f"GPU {index} does not answer: {error}; nvidia-smi says more")
    except pynvml.NVMLError as error:
        trouble.append(f"the GPU driver does not tell about its GPUs: {error}; nvidia-smi says more")
    finally:
        pynvml.nvmlShutdown()
    return GpuInventory(tuple(found), _text(version), trouble=tuple(trouble))


def gpus(*, tell: bool = True) -> list[Gpu]:
    """The machine's GPUs; none when there is no driver. One that the driver has lost is left out.

    Args:
        tell: whether trouble is logged; not by those who look every second.
    """
    found = inventory()
    if tell:
        for trouble in found.trouble:
            log.warning("trouble with the GPUs", trouble=trouble)
    return list(found.gpus)


def _in_words(error: Exception) -> str:
    match getattr(error, "value", None):
        case pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
            return "the GPU driver is installed and not loaded: run nvidia-smi, and restart the machine if it says the same"
        case pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return "the GPU driver was updated while an older one is loaded: restart the machine"
        case pynvml.NVML_ERROR_NO_PERMISSION:
            return "the GPU driver may not be used by this user: see who may read /dev/nvidiactl"
    return f"the GPU driver does not work: {error}; nvidia-smi says more"


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _asked(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    use = _asked(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    return Gpu(
        index=index,
        model=_text(_asked(lambda: pynvml.nvmlDeviceGetName(handle))),
        memory_mb=None if memory is None else int(memory.total) // 2**20,
        memory_used_mb=None if memory is None else int(memory.used) // 2**20,
        utilization=None if use is None else int(use.gpu),
    )


def _text(told: str | bytes | None) -> str | None:
    return told.decode() if isinstance(told, bytes) else told


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
