"""ComfyUI for emp-core. What a program uses by itself, without a queue, is here: a pool of servers."""

import importlib
import typing

if typing.TYPE_CHECKING:
    from emp_comfyui.cluster.pool import ComfyUIServerPool
    from emp_comfyui.cluster.results import RunOutput, RunProgress, RunResult
    from emp_comfyui.cluster.server import ComfyUIServer
    from emp_comfyui.cluster.synchronous import SyncComfyUIServerPool

__all__ = ["ComfyUIServer", "ComfyUIServerPool", "RunOutput", "RunProgress", "RunResult", "SyncComfyUIServerPool"]

_HOMES = {
    "ComfyUIServer": "server",
    "ComfyUIServerPool": "pool",
    "RunOutput": "results",
    "RunProgress": "results",
    "RunResult": "results",
    "SyncComfyUIServerPool": "synchronous",
}


def __getattr__(name: str) -> typing.Any:
    # Imported on first use: every `emp` command imports this package to find the plugin.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"emp_comfyui.cluster.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
