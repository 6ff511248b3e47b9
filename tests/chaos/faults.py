"""What goes wrong on machines that come and go, done on purpose."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio

from emp_core.testing.ports import free_port
from tests.chaos.clocks import Clock, compiler, make_clock
from tests.chaos.fleet import nursery
from tests.chaos.proxy import Proxy, proxy
from tests.chaos.scene import Fault, Hub, Scene
from tests.chaos.servers import HOST, Group, Server, cluster, die_with_parent, sentinels, server

_ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def plain(folder: Path) -> AsyncIterator[Hub]:
    """One Redis."""
    async with server(folder / "redis") as one:

        async def view() -> str:
            return one.url

        yield Hub(one.url, view, one)


@asynccontextmanager
async def behind_proxy(folder: Path) -> AsyncIterator[Hub]:
    """One Redis behind a proxy."""
    async with server(folder / "redis") as one, proxy(one.port) as between:

        async def view() -> str:
            return one.url

        yield Hub(between.url, view, between)


@asynccontextmanager
async def behind_sentinels(folder: Path) -> AsyncIterator[Hub]:
    """A master, two replicas, three sentinels."""
    async with sentinels(folder / "redis") as group:
        yield _of_group(group)


@asynccontextmanager
async def on_a_cluster(folder: Path) -> AsyncIterator[Hub]:
    """Three masters, and two replicas of the one that has the queue."""
    async with cluster(folder / "redis") as group:
        yield _of_group(group)


def _of_group(group: Group) -> Hub:
    async def view() -> str:
        return (await group.master()).url

    return Hub(group.url, view, group)


async def kill_workers(scene: Scene) -> None:
    """kill -9 of workers at random."""
    for _ in range(scene.size.rounds * len(scene.workers)):
        await anyio.sleep(scene.size.submit_s / scene.size.rounds / len(scene.workers))
        scene.kill_worker()


async def stop_workers(scene: Scene) -> None:
    """SIGSTOP of workers past their lease, then SIGCONT: all of them, then some, in turn."""
    for number in range(scene.size.rounds):
        stopped = scene.workers if number % 2 == 0 else scene.random.sample(scene.workers, len(scene.workers) // 2)
        await anyio.sleep(0.4)
        for one in stopped:
            one.signal(signal.SIGSTOP)
        await anyio.sleep(scene.size.lease_s * 1.1)
        await scene.note_ended_leases({one.name for one in stopped})
        for one in stopped:
            one.signal(signal.SIGCONT)


async def delay_and_cut(scene: Scene) -> None:
    """Slow links that break in mid-command."""
    between: Proxy = scene.hub.parts
    between.delay_s = 0.01
    for _ in range(4 * scene.size.rounds):
        await anyio.sleep(scene.size.submit_s / scene.size.rounds / 4)
        await between.cut()
    between.delay_s = 0


async def drop_replies(scene: Scene) -> None:
    """What was asked is done, and nobody is told."""
    between: Proxy = scene.hub.parts
    for _ in range(2 * scene.size.rounds):
        await anyio.sleep(0.4)
        between.deaf = True
        await anyio.sleep(0.05 + 0.2 * scene.random.random())
        between.deaf = False
    await scene.returned()


async def go_silent(scene: Scene) -> None:
    """A link over which nothing comes, and whose end nobody is told: no FIN, no RST."""
    between: Proxy = scene.hub.parts
    for _ in range(scene.size.rounds):
        await anyio.sleep(0.4)
        between.silent = True
        await anyio.sleep(scene.size.lease_s * 1.2)
        between.silent = False
        await scene.returned()
        await anyio.sleep(1)


async def kill_redis(scene: Scene) -> None:
    """kill -9 of Redis; it comes back on its append-only file after two seconds."""
    one: Server = scene.hub.parts
    for _ in range(scene.size.rounds):
        await anyio.sleep(0.5)
        one.kill()
        await anyio.sleep(2)
        await one.start()
        await scene.returned()


async def kill_master(scene: Scene) -> None:
    """kill -9 of the master; a replica takes over, and the old master comes back as one."""
    group: Group = scene.hub.parts
    for _ in range(max(1, scene.size.rounds // 2)):
        await anyio.sleep(0.5)
        await group.replicas_attached(2)
        old = await group.master()
        old.kill()
        await group.master(but=old)
        await scene.returned()
        await old.start()


async def set_clocks(scene: Scene) -> None:
    """Redis's clock jumps a minute ahead, and back."""
    clock: Clock = scene.hub.parts
    for _ in range(scene.size.rounds):
        await anyio.sleep(0.5)
        clock.set_wrong_by(60)
        await anyio.sleep(scene.size.lease_s * 1.3)
        clock.set_wrong_by(0)
        await anyio.sleep(0.5)


@asynccontextmanager
async def with_a_settable_clock(folder: Path) -> AsyncIterator[Hub]:
    """A Redis whose clock can be set."""
    clock = make_clock(folder, "redis")
    async with server(folder / "redis", environ=clock.environ) as one:

        async def view() -> str:
            return one.url

        yield Hub(one.url, view, clock)


@asynccontextmanager
async def workers_with_wrong_clocks(scene: Scene) -> AsyncIterator[None]:
    """One worker a minute ahead, one a minute behind; the others are right."""
    with ExitStack() as stack:
        scene.deadlines = True
        for name, seconds in (("ahead", 60), ("behind", -60)):
            clock = make_clock(scene.folder, name, seconds)
            scene.start_worker(stack.enter_context(nursery(clock.environ)))
        yield


async def go_on(scene: Scene) -> None:
    """Nothing strikes: what is wrong was so before."""


@asynccontextmanager
async def a_service(scene: Scene) -> AsyncIterator[None]:
    """A service over HTTP that does the work."""
    port = free_port()
    scene.service = f"http://{HOST}:{port}"
    running = _Service(scene.folder / "service.log", port)
    scene.hub = Hub(scene.hub.url, scene.hub.view, running)
    running.start()
    try:
        yield
    finally:
        running.kill()


async def kill_service(scene: Scene) -> None:
    """kill -9 of the service while jobs run in it."""
    running: _Service = scene.hub.parts
    for _ in range(scene.size.rounds):
        await anyio.sleep(scene.size.submit_s / (scene.size.rounds + 1))
        running.kill()
        await anyio.sleep(0.3)
        running.start()


class _Service:
    def __init__(self, log: Path, port: int) -> None:
        self._log = log
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.service_process", str(self._port)],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - it makes one system call and takes no lock
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


FAULTS: tuple[Fault, ...] = (
    Fault("workers killed", plain, kill_workers),
    Fault("workers stopped past their lease", plain, stop_workers),
    Fault("slow links that break", behind_proxy, delay_and_cut),
    Fault("replies lost", behind_proxy, drop_replies, back_within_s=5),
    Fault("a silent link", behind_proxy, go_silent, back_within_s=5),
    Fault("Redis killed", plain, kill_redis, back_within_s=5),
    Fault("Sentinel failover", behind_sentinels, kill_master, settings={"wait_replicas": 1}),
    Fault("Cluster failover", on_a_cluster, kill_master, settings={"wait_replicas": 1}),
    Fault("Redis's clock jumps a minute", with_a_settable_clock, set_clocks),
    Fault("workers' clocks wrong by a minute", plain, go_on, around=workers_with_wrong_clocks),
    Fault("the service killed", plain, kill_service, around=a_service),
)


def missing(fault: Fault) -> str | None:
    """Why this fault cannot be made on this machine; None when it can."""
    if (fault.hub is with_a_settable_clock or fault.around is workers_with_wrong_clocks) and (
        sys.platform != "linux" or compiler() is None
    ):
        return "needs Linux and a C compiler, to set the clocks of processes"
    return None
