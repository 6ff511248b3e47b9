"""What this process holds open: tasks, threads, and file descriptors, which sockets are, too."""

import asyncio
import gc
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

import anyio
from attrs import frozen

__all__ = ["Resources", "held_now", "left_over"]

_DESCRIPTORS = Path("/dev/fd")
_POOLED_THREADS = ("AnyIO worker thread", "asyncio_")
"""Names of threads that event loops keep for whoever needs one next."""
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1
_LOOKS = 25

Descriptor = tuple[int, int, int]


@frozen
class Resources:
    """What is held at one moment.

    Attributes:
        tasks: of the running event loop.
        descriptors: number, device and inode → what it is.
    """

    tasks: frozenset["asyncio.Task[object]"]
    threads: frozenset[threading.Thread]
    descriptors: Mapping[Descriptor, str]

    def since(self, before: "Resources") -> list[str]:
        """What is held now and was not before, in words."""
        return [
            *(f"task {_told(task)}" for task in self.tasks - before.tasks),
            *(f"thread {thread.name}" for thread in self.threads - before.threads),
            *(what for key, what in self.descriptors.items() if key not in before.descriptors),
        ]


def held_now() -> Resources:
    """All that is held now, what is only waiting to be collected left out."""
    gc.collect()
    mine = asyncio.current_task()
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith(_POOLED_THREADS)]
    return Resources(
        frozenset(task for task in asyncio.all_tasks() if task is not mine), frozenset(threads), _descriptors()
    )


async def left_over(before: Resources, *, within_s: float = 3.0) -> list[str]:
    """What has come since ``before`` and does not go within ``within_s``, in words; empty when all is well."""
    deadline = anyio.current_time() + within_s
    looks = 0
    pause_s = _FIRST_PAUSE_S
    # Each look holds up the loop that has to close things: on a busy machine the time may be over after a few of them.
    while (left := held_now().since(before)) and (looks < _LOOKS or anyio.current_time() < deadline):
        # Nothing tells when a descriptor is closed: the other end of a connection closes a moment after ours.
        await anyio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        looks += 1
    return left


def _descriptors() -> dict[Descriptor, str]:
    found = {}
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - a path for each would be opened anew
        number = int(name)
        try:
            facts = os.fstat(number)
        except OSError:  # the listing's own
            continue
        found[number, facts.st_dev, facts.st_ino] = _kind(number, facts.st_mode)
    return found


def _kind(number: int, mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return f"socket {number}"
    if stat.S_ISFIFO(mode):
        return f"pipe {number}"
    try:
        return f"file {number}: {(_DESCRIPTORS / str(number)).readlink()}"
    except OSError:  # systems where descriptors are no links
        return f"file {number}"


def _told(task: "asyncio.Task[object]") -> str:
    stack = task.get_stack(limit=1)
    place = f" at {stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else ""
    return f"{task.get_name()}: {getattr(task.get_coro(), '__qualname__', '?')}{place}"
