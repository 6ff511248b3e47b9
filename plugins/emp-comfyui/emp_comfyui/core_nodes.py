"""The node classes that come with ComfyUI itself."""

from functools import lru_cache
from importlib.resources import files

__all__ = ["core_nodes"]


@lru_cache(maxsize=1)
def core_nodes() -> frozenset[str]:
    """The node classes that come with ComfyUI itself; frozen, see the file."""
    text = files("emp_comfyui").joinpath("core_nodes.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))
