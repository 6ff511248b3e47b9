"""Workers as Redis knows them: their capabilities as a hash of JSON texts."""

import json
from collections.abc import Mapping
from typing import Any

import cattrs
from attrs import frozen
from cattrs.gen import make_dict_unstructure_fn

from emp_core.jobs.codec import dumps
from emp_core.jobs.matching import Capabilities, ModelOffer
from emp_core.queue.keys import Keys

__all__ = ["WorkerView", "decode_worker", "encode_capabilities", "read_workers"]

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
            pairs += (name, text.encode("utf-8", "replace").decode())
    return pairs


def decode_worker(worker_id: str, facts: Mapping[str, str], alive_for_s: float) -> WorkerView:
    """A worker from its hash."""
    values = {name: text if name in _TEXTS else json.loads(text) for name, text in facts.items()}
    return WorkerView(worker_id, _converter.structure(values, Capabilities), alive_for_s)


async def read_workers(client: Any, keys: Keys) -> list[WorkerView]:
    """The live workers and what they offer."""
    ids = await client.zrange(keys.fixed("workers"), 0, -1)
    async with client.pipeline(transaction=False) as pipe:
        for worker_id in ids:
            pipe.hgetall(keys.worker(worker_id, "capabilities"))
            pipe.pttl(keys.worker(worker_id, "heartbeat"))
        replies = await pipe.execute()
    return [
        decode_worker(worker_id, facts, ttl_ms / 1000)
        for worker_id, facts, ttl_ms in zip(ids, replies[::2], replies[1::2], strict=True)
        if facts and ttl_ms > 0
    ]
