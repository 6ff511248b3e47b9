"""The process of a peer: ``python -m bench.peers.program PEER worker``, or ``client``, which takes orders from standard input.

An order is a line of JSON, and so is the reply. Nothing of this project is imported but ``bench.peers``.
"""

import asyncio
import contextlib
import gc
import importlib
import json
import queue
import selectors
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from bench.peers.base import AsyncPeer, BlockingPeer
from bench.peers.probe import say

__all__ = ["main"]

_POLL_S = 0.005
_RESULT_LIMIT_S = 10.0
_TIMERS_S = 0.001
"""How late a timer may end, the more so on a virtual machine. That is not the queue's delay: the last of it is spent looking at
the clock, here as in the program of the peer that is not Python's."""


def _precise_loop() -> asyncio.AbstractEventLoop:
    """Its timers end when they are due. epoll counts in whole milliseconds, so that jobs would be submitted up to one late,
    which would count as the queue's delay: with asyncio clients and not with blocking ones."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _drive_async(peer: AsyncPeer) -> None:
    await peer.open()
    say({"ready": True})
    while line := await asyncio.to_thread(sys.stdin.readline):
        say(await _obey_async(peer, json.loads(line)))


async def _obey_async(peer: AsyncPeer, order: Mapping[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    match order["do"]:
        case "prepare":
            await peer.prepare()
        case "one":
            for _ in range(order["count"]):
                await peer.submit(order.get("sent", 0.0))
        case "many":
            await peer.submit_many(order["count"], order.get("text", ""))
        case "recorded":
            while not await peer.recorded(order["count"]):  # noqa: ASYNC110 - nothing tells in every peer
                await asyncio.sleep(_POLL_S)
        case "latency":
            return {"results": await _latency_async(peer, order["rate"], order["count"])}
    return {"seconds": time.monotonic() - began, "at": time.monotonic()}


async def _latency_async(peer: AsyncPeer, rate: float, count: int) -> list[float]:
    """Submit at a steady rate, whatever becomes of the jobs; gives how long each one's result took, from its due time."""

    async def one(due: float) -> float:
        await asyncio.sleep(due - time.monotonic() - _TIMERS_S)
        while time.monotonic() < due:  # noqa: ASYNC110 - nothing sets an event in time, which is why
            await asyncio.sleep(0)
        handle = await peer.submit(due)
        with contextlib.suppress(TimeoutError):  # a result that is never seen counts as seen so late
            await asyncio.wait_for(peer.result(handle), _RESULT_LIMIT_S)
        return time.monotonic() - due

    begin = time.monotonic() + 0.1
    return list(await asyncio.gather(*(one(begin + i / rate) for i in range(count))))


def _drive_blocking(peer: BlockingPeer) -> None:
    peer.open()
    say({"ready": True})
    for line in sys.stdin:
        say(_obey_blocking(peer, json.loads(line)))


def _obey_blocking(peer: BlockingPeer, order: Mapping[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    match order["do"]:
        case "prepare":
            peer.prepare()
        case "one":
            for _ in range(order["count"]):
                peer.submit(order.get("sent", 0.0))
        case "many":
            peer.submit_many(order["count"], order.get("text", ""))
        case "recorded":
            while not peer.recorded(order["count"]):
                time.sleep(_POLL_S)
        case "latency":
            return {"results": _latency_blocking(peer, order["rate"], order["count"])}
    return {"seconds": time.monotonic() - began, "at": time.monotonic()}


def _latency_blocking(peer: BlockingPeer, rate: float, count: int) -> list[float]:
    waiting: queue.SimpleQueue[tuple[float, Any] | None] = queue.SimpleQueue()
    results: list[float] = []

    def wait() -> None:
        while (job := waiting.get()) is not None:
            with contextlib.suppress(TimeoutError):
                peer.result(job[1])
            results.append(time.monotonic() - job[0])

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(peer.waiters)]
    for thread in threads:
        thread.start()
    begin = time.monotonic() + 0.1
    for i in range(count):
        due = begin + i / rate
        time.sleep(max(0.0, due - time.monotonic() - _TIMERS_S))
        while time.monotonic() < due:
            pass
        waiting.put((due, peer.submit(due)))
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join(_RESULT_LIMIT_S)
    return list(results)


def main() -> None:
    """Run as the arguments say."""
    name, role = sys.argv[1:]
    peer: AsyncPeer | BlockingPeer = importlib.import_module(f"bench.peers.{name}_peer").PEER
    if role == "worker":
        peer.work()
        return
    gc.freeze()  # so that what was imported is not looked through in the middle of a measurement
    if isinstance(peer, AsyncPeer):
        with asyncio.Runner(loop_factory=_precise_loop) as runner:
            runner.run(_drive_async(peer))
    else:
        _drive_blocking(peer)


if __name__ == "__main__":
    main()
