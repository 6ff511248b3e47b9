"""GPU facts, by NVIDIA's own library. None without a driver."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import pynvml
from attrs import define, frozen

from emp_core.log.logger import get_logger

__all__ = ["Gpu", "GpuInventory", "GpuUse", "GpuWatch", "GpusNow", "gpus", "inventory"]

log = get_logger("emp.gpus")

_SAMPLE_EVERY_S = 1.0
_IDLE_ROUNDS = 10
"""A worker without jobs looks in every so manieth round only, whether its GPU is still there."""
_NOT_TOLD: tuple[type[Exception], ...] = (
    pynvml.NVMLError_NotSupported,  # pyright: ignore[reportAttributeAccessIssue] - made when it is imported
    pynvml.NVMLError_FunctionNotFound,  # pyright: ignore[reportAttributeAccessIssue]
)


@frozen
class Gpu:
    """One GPU. What the driver does not tell is None.

    Attributes:
        utilization: 0 to 100.
        uuid: its own, whatever its index: the others move up when one is taken out.
    """

    index: int
    model: str | None
    memory_mb: int | None
    memory_used_mb: int | None
    utilization: int | None
    uuid: str | None = None


@frozen
class GpuInventory:
    """What NVIDIA's driver tells of the machine.

    Attributes:
        gpus: those that answer, by index.
        driver: the driver's version, if it tells one.
        installed: whether there is a driver at all.
        trouble: what does not work, and what to do, a sentence each.
        certain: whether a GPU that is not among them is not there; False when the driver could not be asked.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    installed: bool = True
    trouble: tuple[str, ...] = ()
    certain: bool = True


def inventory(only: int | None = None) -> GpuInventory:
    """Ask the driver. One GPU that it has lost does not hide the others.

    Args:
        only: the index of the one to ask about; None: all.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:  # pyright: ignore[reportAttributeAccessIssue] - made when it is imported
        return GpuInventory(installed=False)
    except pynvml.NVMLError as error:
        return GpuInventory(trouble=(_in_words(error),), certain=_tells_of_none(error))
    certain = True
    trouble: list[str] = []
    found: list[Gpu] = []
    version: Any = None
    try:
        version = _asked(pynvml.nvmlSystemGetDriverVersion)
        count = pynvml.nvmlDeviceGetCount()
        for index in range(count) if only is None else range(only, min(only + 1, count)):
            try:
                found.append(_gpu(index))
            except pynvml.NVMLError as error:
                trouble.append(f"GPU {index} does not answer: {error}; nvidia-smi says more")
    except pynvml.NVMLError as error:
        certain = _tells_of_none(error)
        trouble.append(f"the GPU driver does not tell about its GPUs: {error}; nvidia-smi says more")
    finally:
        with suppress(pynvml.NVMLError):  # of a driver that went away meanwhile; what it said before is told
            pynvml.nvmlShutdown()
    return GpuInventory(tuple(found), _text(version), trouble=tuple(trouble), certain=certain)


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


def _tells_of_none(error: Exception) -> bool:
    """Whether it means that there are no GPUs to be used. One of an update or of permissions says nothing of those that are
    in use."""
    return getattr(error, "value", None) in (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_GPU_IS_LOST)


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
        uuid=_text(_asked(lambda: pynvml.nvmlDeviceGetUUID(handle))),
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


@frozen
class GpusNow:
    """A worker's GPU, as it is now.

    Attributes:
        own: the worker's; None: it is not there.
        count: how many the machine has.
        lost: whether the worker's was there before.
    """

    own: Gpu | None
    count: int
    lost: bool = False


class GpuWatch:
    """Watches the worker's GPU: whether it is there, and while jobs run, what it does.

    Args:
        index: which GPU.
        running: what to note samples in: one for each running job.
        on_change: told how the GPU is at first, and when it was lost or is back.
        read: reads one of the machine's GPUs, or all (None).
    """

    def __init__(
        self,
        index: int,
        running: Callable[[], Iterable[GpuUse]],
        on_change: Callable[[GpusNow], None],
        *,
        read: Callable[[int | None], GpuInventory] = inventory,
    ) -> None:
        self._index = index
        self._running = running
        self._on_change = on_change
        self._read = read
        self._uuid: str | None = None
        self._there: bool | None = None

    async def run(self) -> None:
        """Watch until cancelled; returns at once on a machine without a driver."""
        found = await self._found(None)
        if not found.installed:
            return
        self._take(found)
        rounds = 0
        while True:
            await anyio.sleep(_SAMPLE_EVERY_S)
            rounds += 1
            running = list(self._running())
            if running or rounds >= _IDLE_ROUNDS:
                rounds = 0
                if (own := await self._look()) is not None:
                    for use in running:
                        use.note(own)

    async def _look(self) -> Gpu | None:
        if self._there:
            # To ask about one is cheap; to ask about all wakes those that nobody uses.
            found = await self._found(self._index)
            if (own := self._own_of(found)) is not None:
                return own
        return self._take(await self._found(None))

    async def _found(self, only: int | None) -> GpuInventory:
        # In a thread: a driver in trouble takes its time to answer, and the worker may end meanwhile.
        return await anyio.to_thread.run_sync(self._read, only, abandon_on_cancel=True)

    def _own_of(self, found: GpuInventory) -> Gpu | None:
        for gpu in found.gpus:
            if gpu.uuid == self._uuid if self._uuid else gpu.index == self._index:
                return gpu
        return None

    def _take(self, found: GpuInventory) -> Gpu | None:
        """Take in what all of the driver's answers say of the worker's GPU, and tell if that is news."""
        own = self._own_of(found)
        if own is None and not found.certain:
            return None
        if own is not None:
            self._index, self._uuid = own.index, own.uuid
        before, self._there = self._there, own is not None
        if self._there is before:
            return own
        if before:
            log.warning("the worker's GPU is gone", gpu=self._index, trouble="; ".join(found.trouble))
        elif before is False:
            log.info("the worker's GPU is there", gpu=self._index)
        self._on_change(GpusNow(own, len(found.gpus), lost=bool(before)))
        return own
