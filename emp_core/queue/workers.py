"""Workers as Redis knows them: their capabilities as a hash of JSON texts."""

import json
from collections.abc import Mapping
from typing import Any

import cattrs
from attrs import frozen
from cattrs import BaseValidationError, transform_error
from cattrs.gen import make_dict_unstructure_fn

from emp_core.jobs.codec import dumps, sendable
from emp_core.jobs.matching import Capabilities, ModelOffer
from emp_core.log.logger import get_logger
from emp_core.queue.keys import Keys

__all__ = ["WorkerReader", "WorkerView", "decode_worker", "encode_capabilities"]

log = get_logger("emp.workers")

_TOLD_CHARS = 300
_converter = cattrs.Converter()
_compact = cattrs.Converter()
# A service may have thousands of models: what is as usual is not written.
_compact.register_unstructure_hook(
    ModelOffer, make_dict_unstructure_fn(ModelOffer, _compact, _cattrs_omit_if_default=True)
)
_TEXTS = ("worker_id", "machine_id", "pool", "region")


@frozen
class WorkerView:
    """A live worker.

    Attributes:
        id: its name among all machines: ``WORKER_ID@MACHINE_ID``.
        alive_for_s: how long its heartbeat still holds.
    """

    id: str
    capabilities: Capabilities
    alive_for_s: float

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` output."""
        shown: dict[str, Any] = _converter.unstructure(self.capabilities)
        return {"id": self.id, **shown, "alive_for_s": round(self.alive_for_s, 1)}


def encode_capabilities(capabilities: Capabilities) -> list[str]:
    """Names and values in turn, for the hash. What UTF-8 cannot hold, such as a file name of a service, is replaced."""
    pairs: list[str] = []
    for name, value in _compact.unstructure(capabilities).items():
        if value is not None:
            text = value if name in _TEXTS else dumps(value)
            pairs += (name, sendable(text))
    return pairs


def decode_worker(worker_id: str, facts: Mapping[str, str], alive_for_s: float) -> WorkerView:
    """A worker from its hash."""
    values = {name: text if name in _TEXTS else json.loads(text) for name, text in facts.items()}
    return WorkerView(worker_id, _converter.structure(values, Capabilities), alive_for_s)


class WorkerReader:
    """Reads the live workers and what they offer.

    An entry that cannot be understood is left out: that of another version, or one that somebody wrote by hand. It is warned of
    once, and again when something else is wrong with it.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._warned: dict[str, str] = {}

    async def read(self, client: Any) -> list[WorkerView]:
        """The live workers. One try: raises what the client raises while Redis is away."""
        ids = await client.zrange(self._keys.fixed("workers"), 0, -1)
        async with client.pipeline(transaction=False) as pipe:
            for worker_id in ids:
                pipe.hgetall(self._keys.worker(worker_id, "capabilities"))
                pipe.pttl(self._keys.worker(worker_id, "heartbeat"))
            replies = await pipe.execute()
        found: list[WorkerView] = []
        wrong: dict[str, str] = {}
        for worker_id, facts, ttl_ms in zip(ids, replies[::2], replies[1::2], strict=True):
            if not facts or ttl_ms <= 0:
                continue
            try:
                found.append(decode_worker(worker_id, facts, ttl_ms / 1000))
            except Exception as error:  # whatever is wrong with one worker, the others go on
                # A hash that is no text came as an exception.
                wrong[worker_id] = _told(facts if isinstance(facts, Exception) else error)
        for worker_id, problem in wrong.items():
            if self._warned.get(worker_id) != problem:
                log.warning("what a worker says cannot be understood: it is left out", worker=worker_id, error=problem)
        self._warned = wrong
        return found


def _told(error: Exception) -> str:
    problems = (
        transform_error(error) if isinstance(error, BaseValidationError) else [f"{type(error).__name__}: {error}"]
    )
    return "; ".join(problems)[:_TOLD_CHARS]
