"""The models of a server: their names, what is loaded, and how long loading takes."""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, field, frozen

from emp_core.jobs.matching import ModelOffer

__all__ = ["Listing", "Models", "Version", "full_name", "registry_of"]

_READ_BYTES_PER_S = 400e6
"""How fast a model is read until its first load tells."""
_LOAD_LEAST_MS = 500.0


def full_name(model: str) -> str:
    """A model's name with its tag: ``llama3.2`` means ``llama3.2:latest``, a registry's port is no tag."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


def registry_of(model: str) -> str:
    """Where Ollama pulls a model from: ``hf.co`` for ``hf.co/someone/model``, its own registry for names of fewer parts."""
    name = model.partition("://")[2] or model
    first, *others = name.split("/")
    return first.lower() if len(others) > 1 else "registry.ollama.ai"


@frozen
class Version:
    """What ``/api/version`` says."""

    version: str


@frozen
class Listing:
    """What ``/api/tags`` and ``/api/ps`` say; without models some servers say null."""

    models: tuple[Mapping[str, Any], ...] | None


@define
class Models:
    """What is known of a server's models."""

    _installed: dict[str, Mapping[str, Any]] = field(factory=dict)
    _loaded: dict[str, Mapping[str, Any]] = field(factory=dict)
    _load_ms: dict[str, float] = field(factory=dict)

    def seen(self, installed: Listing, loaded: Listing) -> None:
        """Take note of what ``/api/tags`` and ``/api/ps`` say."""
        self._installed = dict(_by_name(installed))
        self._loaded = dict(_by_name(loaded))

    def has(self, model: str) -> bool:
        """Whether a model is installed."""
        return full_name(model) in self._installed

    def is_loaded(self, model: str) -> bool:
        """Whether a model is in memory."""
        return full_name(model) in self._loaded

    def ran(self, model: str, final: Mapping[str, Any] | None, *, stays: bool = True) -> None:
        """Learn from an answer's last frame: the model is loaded, and if it was not before, how long that took.

        A request that waited for its turn has that time in the same figure: the shortest that was seen counts.

        Args:
            stays: whether it was to be kept in memory.
        """
        if final is None:
            return
        name = full_name(model)
        if stays:
            self._loaded.setdefault(name, {})
        else:
            self._loaded.pop(name, None)
        took_ns = final.get("load_duration")
        if isinstance(took_ns, int) and took_ns / 1e6 >= _LOAD_LEAST_MS:
            self._load_ms[name] = min(self._load_ms.get(name, took_ns / 1e6), took_ns / 1e6)

    def offers(self) -> dict[str, ModelOffer]:
        """What jobs may require, with and without the tag that may be left out."""
        offers = {}
        for name, facts in self._installed.items():
            size = facts.get("size")
            size = size if isinstance(size, int) else None
            guess_ms = max(_LOAD_LEAST_MS, (size or 0) / _READ_BYTES_PER_S * 1000)
            offer = ModelOffer(name in self._loaded, self._load_ms.get(name, guess_ms), size)
            offers[name] = offers[name.removesuffix(":latest")] = offer
        return offers

    def details(self) -> list[dict[str, Any]]:
        """What listings show of each: size, what it can do, what it takes in memory, the length of its context."""
        shown = []
        for name, facts in sorted(self._installed.items()):
            now = self._loaded.get(name, {})
            one = {
                "name": name,
                "size_bytes": facts.get("size"),
                "capabilities": facts.get("capabilities"),
                "loaded": name in self._loaded,
                "memory_bytes": now.get("size"),
                "gpu_memory_bytes": now.get("size_vram"),
                "context_length": now.get("context_length"),
            }
            shown.append({key: value for key, value in one.items() if value is not None})
        return shown


def _by_name(listing: Listing) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for one in listing.models or ():
        if isinstance(one.get("name"), str):
            yield full_name(one["name"]), one
