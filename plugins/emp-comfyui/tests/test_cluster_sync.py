"""The pool from a program without an event loop: plain functions and threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from anyio.from_thread import start_blocking_portal
from emp_comfyui.cluster.synchronous import SyncComfyUIServerPool

from emp_core.endpoints.endpoint import EndpointStatus
from emp_core.errors import ConfigError, InvalidJob

from .clusters import Fakes, fakes
from .rig import one_image, slow_image

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from emp_comfyui.cluster.results import RunProgress


class Elsewhere:
    """Fake servers in a thread of their own."""

    def __init__(self, portal: "BlockingPortal", servers: Fakes) -> None:
        self.portal = portal
        self.fakes = servers

    def until(self, name: str, what: str) -> None:
        server = self.fakes[name]
        met = {
            "empty": lambda: server.queue.remaining() == 0,
            "interrupted": lambda: bool(server.interrupts),
        }[what]
        self.portal.call(server.until, met)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        servers = stack.enter_context(portal.wrap_async_context_manager(fakes("a", "b")))
        yield Elsewhere(portal, servers)


@pytest.fixture
def pool(elsewhere: Elsewhere, tmp_path: Path) -> Iterator[SyncComfyUIServerPool]:
    with SyncComfyUIServerPool.from_env(elsewhere.fakes.environ(tmp_path)) as opened:
        yield opened


def test_a_workflow_runs_from_a_plain_function(pool: SyncComfyUIServerPool, tmp_path: Path) -> None:
    told: list[RunProgress] = []
    done = pool.run(slow_image(), folder=tmp_path / "shots", on_progress=told.append)
    [output] = done.outputs
    assert output.path is not None
    assert output.path.read_bytes().startswith(b"\x89PNG")
    assert told[-1].percent == 100


def test_several_threads_may_use_it_at_once(pool: SyncComfyUIServerPool) -> None:
    servers: list[str] = []
    threads = [threading.Thread(target=lambda: servers.append(pool.run(one_image()).server)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(servers)) == ["a", "b"]
    assert len(servers) == 6


def test_a_program_with_a_window_does_not_wait_and_may_cancel(
    pool: SyncComfyUIServerPool, elsewhere: Elsewhere
) -> None:
    holds = [elsewhere.fakes[name].hold("ProbeSlow", at_step=1) for name in "ab"]
    ended = threading.Event()
    running = pool.start(slow_image(400), server="a")
    running.add_done_callback(lambda _: ended.set())
    elsewhere.portal.call(holds[0].reached)
    assert not running.done()
    assert running.cancel()
    assert ended.wait(10)
    elsewhere.until("a", "interrupted")
    for hold in holds:
        elsewhere.portal.call(hold.release)
    elsewhere.until("a", "empty")
    with pytest.raises(CancelledError):
        running.result(10)


def test_a_run_that_takes_too_long_is_stopped_on_its_server(pool: SyncComfyUIServerPool, elsewhere: Elsewhere) -> None:
    hold = elsewhere.fakes["a"].hold("ProbeSlow", at_step=1)
    with pytest.raises(TimeoutError):
        pool.run(slow_image(400), server="a", timeout_s=0.3)
    elsewhere.portal.call(hold.release)
    elsewhere.until("a", "empty")


def test_closing_it_stops_what_runs(elsewhere: Elsewhere, tmp_path: Path) -> None:
    hold = elsewhere.fakes["a"].hold("ProbeSlow", at_step=1)
    pool = SyncComfyUIServerPool.from_env(elsewhere.fakes.environ(tmp_path)).open()
    running = pool.start(slow_image(400), server="a")
    elsewhere.portal.call(hold.reached)
    closing = threading.Thread(target=pool.close)
    closing.start()
    elsewhere.until("a", "interrupted")
    elsewhere.portal.call(hold.release)
    closing.join(10)
    elsewhere.until("a", "empty")
    with pytest.raises(CancelledError):
        running.result(10)
    pool.close()


def test_servers_are_looked_after_from_outside(pool: SyncComfyUIServerPool, elsewhere: Elsewhere) -> None:
    assert [one.name for one in pool.servers] == ["a", "b"]
    assert {state.status for state in pool.status(fresh=True)} == {EndpointStatus.ONLINE}
    pool.disable("a")
    assert pool.run(one_image()).server == "b"
    pool.enable("a")
    pool.set_priority("a", 3)
    pool.remove("b")
    assert [(one.name, one.priority) for one in pool.servers] == [("a", 3)]
    pool.add(elsewhere.fakes.server("b"))
    assert [one.name for one in pool.servers] == ["a", "b"]


def test_errors_are_the_same_as_elsewhere(pool: SyncComfyUIServerPool) -> None:
    with pytest.raises(InvalidJob, match="API format"):
        pool.run({"nodes": [], "links": []})
    with pytest.raises(ConfigError, match="no server 'x'"):
        pool.enable("x")


def test_one_that_is_not_open_says_so() -> None:
    with pytest.raises(ConfigError, match="the pool is not open"):
        SyncComfyUIServerPool.of().run(one_image())


def test_a_description_that_cannot_be_used_is_told_on_opening() -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        SyncComfyUIServerPool.from_env({"NUKE_COMFYUI_SERVERS": "{"}).open()
