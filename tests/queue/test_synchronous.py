"""The queue for code that does not await."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from emp_core.config import Settings
from emp_core.errors import EmpError, QueueError, QueueUnavailable
from emp_core.jobs.model import JobSpec
from emp_core.queue.events import JobEvent
from emp_core.queue.queue import JobQueue
from emp_core.queue.synchronous import SyncJobQueue

FORKING = multiprocessing.get_context("fork")
ENOUGH_S = 30


def test_what_makes_the_specs_may_use_the_queue(queue: JobQueue):
    with SyncJobQueue.connect(settings=queue.settings) as blocking:
        blocking.submit(JobSpec("echo", {"n": 1}, id="first"))

        def specs() -> Iterator[JobSpec]:
            for n in range(3):
                yield JobSpec("echo", {**blocking.get("first").payload, "again": n})

        assert [job.payload for job in blocking.submit_many(specs())] == [{"n": 1, "again": n} for n in range(3)]


def _use(queue: SyncJobQueue, settings: Settings, said: Connection) -> None:
    """What a forked child does with its parent's queue, and with one of its own."""
    try:
        queue.counts()
    except EmpError as error:
        said.send(str(error))
    with queue:
        said.send(len(queue.jobs()))
    with SyncJobQueue.connect(settings=settings) as own:
        said.send(len(own.jobs()))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own(queue: JobQueue):
    ours, theirs = FORKING.Pipe()
    with SyncJobQueue.connect(settings=queue.settings) as blocking:
        blocking.submit(JobSpec("echo"))
        child = FORKING.Process(target=_use, args=(blocking, queue.settings, theirs))
        child.start()
        theirs.close()
        said = []
        for _ in range(3):
            assert ours.poll(ENOUGH_S)
            said.append(ours.recv())
        child.join(ENOUGH_S)
        assert child.exitcode == 0
        assert said[0].startswith("the queue was opened by the process that this one was forked from (open one")
        assert said[1:] == [1, 1]
        assert len(blocking.jobs()) == 1


def _leave(queue: SyncJobQueue, events: Iterator[JobEvent]) -> None:
    """What happens where a forked child comes to the end of its parent's block."""
    del events
    queue.__exit__(None, None, None)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_leaves_the_block_and_the_queue_stays_open_for_its_parent(queue: JobQueue):
    with SyncJobQueue.connect(settings=queue.settings) as blocking:
        events = blocking.events(blocking.submit(JobSpec("echo")).id)
        assert next(events).name == "submitted"
        child = FORKING.Process(target=_leave, args=(blocking, events))
        child.start()
        child.join(ENOUGH_S)
        assert child.exitcode == 0
        assert len(blocking.jobs()) == 1


PROGRAM = """
import os, sys
from emp_core import SyncJobQueue
queue = SyncJobQueue.connect()
queue.__enter__()
child = os.fork()
if not child:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
queue.__exit__(None, None, None)
"""


def test_a_forked_child_ends_though_it_never_used_the_queue(queue: JobQueue):
    environ = {**os.environ, "HUB_REDIS_URL": queue.url, "EMP_NAMESPACE": queue.settings.namespace}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=ENOUGH_S, check=False)
    assert (ended.stdout.strip(), ended.stderr, ended.returncode) == ("7", "", 0)


def test_one_that_cannot_be_opened_leaves_no_thread():
    before = threading.active_count()
    settings = Settings(redis_wait_s=0)
    with pytest.raises(QueueUnavailable), SyncJobQueue.connect("redis://127.0.0.1:1", settings=settings):
        raise AssertionError
    assert threading.active_count() == before


def test_it_may_be_opened_again_and_is_closed_between(queue: JobQueue):
    blocking = SyncJobQueue.connect(settings=queue.settings)
    for count in range(2):
        with blocking:
            assert len(blocking.jobs()) == count
            blocking.submit(JobSpec("echo"))
        with pytest.raises(QueueError, match="not open"):
            blocking.counts()
