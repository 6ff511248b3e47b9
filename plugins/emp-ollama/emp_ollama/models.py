"""The models of a server: their names, what is loaded, and how long loading takes."""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, field

from emp_core.jobs.matching import ModelOffer

__all__ = ["Models", "full_name"]

_READ_BYTES_PER_S = 400e6
"""How fast a model is read until its first load tells."""
_LOAD_LEAST_MS = 500.0


def full_name(model: str) -> str:
    """A model's name with its tag: ``llama3.2`` means ``llama3.2:latest``, a registry's port is no tag."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


@define
class Models:
    """What is known of a server's models.

    Attributes:
        others: whether models that are not there can be had.
    """

    others: bool = False
    _installed: dict[str, Mapping[str, Any]] = field(factory=dict)
    _loaded: dict[str, Mapping[str, Any]] = field(factory=dict)
    _load_ms: dict[str, float] = field(factory=dict)

    def seen(self, tags: Any, loaded: Any) -> None:
        """Take note of what ``/api/tags`` and ``/api/ps`` say."""
        self._installed = dict(_by_name(tags))
        self._loaded = dict(_by_name(loaded))

    def ran(self, model: str, final: Mapping[str, Any] | None) -> None:
        """Learn from an answer's last frame how long the model took to load, if it did.

        A request that waited for its turn has that time in the same figure: the shortest that was seen counts.
        """
        took_ns = (final or {}).get("load_duration")
        if not isinstance(took_ns, int) or took_ns / 1e6 < _LOAD_LEAST_MS:
            return
        name = full_name(model)
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


def _by_name(answer: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    models = answer.get("models") if isinstance(answer, Mapping) else None
    for one in models if isinstance(models, list) else ():
        if isinstance(one, Mapping) and isinstance(one.get("name"), str):
            yield full_name(one["name"]), one
