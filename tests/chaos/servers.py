"""Real Redis servers for tests that break them: alone, behind sentinels, and as a cluster. All end with this process."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import anyio
from attrs import define, field
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from emp_core.queue.server_binary import find_server
from emp_core.testing.ports import free_port, free_ports

HOST = "127.0.0.1"
_START_S = 10.0


def die_with_parent() -> None:
    """For a child before it becomes another program: end with the process that started it, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG, prctl(2)


@cache
def _binary() -> str:
    return str(find_server())


def _spawn(log: Path, arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [_binary(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environ,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it makes one system call and takes no lock
        )


@define(eq=False)
class Server:
    """A Redis server process that can be killed and started again on its append-only file."""

    folder: Path
    port: int
    options: Sequence[str] = ()
    environ: Mapping[str, str] | None = None
    tls: bool = False
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://{HOST}:{self.port}"

    def client(self, **options: Any) -> Any:
        """A plain client for it."""
        fixed = {"host": HOST, "port": self.port, "protocol": 2, "decode_responses": True, "socket_timeout": 2}
        return Redis(**{**fixed, "retry": Retry(NoBackoff(), 0), **options})

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        port = ("--port", "0", "--tls-port", str(self.port)) if self.tls else ("--port", str(self.port))
        fixed = (
            "--bind",
            HOST,
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--appendonly",
            "yes",
            # What is killed leaves its pages to the system: only a machine that loses power needs more, and a slow disk
            # holds up the server for seconds, whom its sentinels then take for dead.
            "--appendfsync",
            "no",
            "--loglevel",
            "warning",
        )
        self.process = _spawn(self.folder / "log", [*port, *fixed, *self.options], self.environ)
        if not self.tls:
            await self.until_answers()

    async def until_answers(self) -> None:
        """Wait until it has loaded its data."""
        with anyio.fail_after(_START_S):
            while True:
                async with self.client() as client:
                    try:
                        await client.ping()
                    except exceptions.AuthenticationError:
                        return  # it wants a password
                    except (exceptions.ConnectionError, exceptions.TimeoutError):
                        await anyio.sleep(0.02)  # nothing tells when a port opens
                        continue
                    return

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and says nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    def end(self) -> None:
        """End it, whatever state it is in."""
        if self.alive:
            self.kill()


@asynccontextmanager
async def server(folder: Path, *options: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
    """One server."""
    made = Server(folder, free_port(), options, environ)
    try:
        await made.start()
        yield made
    finally:
        made.end()


@define(eq=False)
class Group:
    """Servers of which one is the master that holds the queue.

    Attributes:
        data: those that hold data.
        watchers: sentinels; none in a cluster.
        others: masters of a cluster that hold nothing of the queue.
        url: what a client is told.
    """

    url: str
    data: list[Server]
    watchers: list[Server] = field(factory=list)
    others: list[Server] = field(factory=list)
    tag: str = "emp"

    async def master(self, *, but: Server | None = None) -> Server:
        """The master now; waits for one, ``but`` this, to be elected."""
        with anyio.fail_after(30):
            while True:
                for one in self.data:
                    if one is not but and await self._is_master(one):
                        return one
                await anyio.sleep(0.05)  # an election tells nobody

    async def _is_master(self, one: Server) -> bool:
        try:
            async with one.client() as client:
                if (await client.execute_command("ROLE"))[0] != "master":
                    return False
                if not self.watchers:
                    return await _owns(client, self.tag)
            # An old master that comes back takes itself for one until the sentinels tell it otherwise.
            async with self.watchers[-1].client() as watcher:
                return int((await watcher.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "hub"))[1]) == one.port
        except (exceptions.RedisError, OSError):
            return False

    async def keep_the_master(self) -> None:
        """No other is elected from here on, even where a busy machine holds up this one for seconds."""
        for watcher in self.watchers:
            async with watcher.client() as client:
                await client.execute_command("SENTINEL", "SET", "hub", "down-after-milliseconds", 60_000)
        for one in [] if self.watchers else self.data + self.others:
            if one.alive:
                async with one.client() as client:
                    await client.config_set("cluster-node-timeout", 60_000)

    async def replicas_attached(self, count: int) -> None:
        """Wait until so many replicas follow the master and have its data."""
        with anyio.fail_after(30):
            while True:
                async with (await self.master()).client() as client:
                    info = await client.info("replication")
                    states = [str(v) for k, v in info.items() if k.startswith("slave") and isinstance(v, dict)]
                    if sum("online" in state for state in states) >= count:
                        return
                await anyio.sleep(0.05)


async def _owns(client: Any, tag: str) -> bool:
    """Whether this node says itself that it serves the tag's slot."""
    slot = key_slot(tag.encode())
    me = await client.execute_command("CLUSTER", "MYID")
    for first, last, master, *_ in await client.execute_command("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return bool(master[2] == me)
    return False


@asynccontextmanager
async def sentinels(folder: Path, *, replicas: int = 2, quorum: int = 2) -> AsyncIterator[Group]:
    """A master with replicas, and three sentinels that notice within a second that it is gone."""
    ports = free_ports(replicas + 4)
    async with AsyncExitStack() as stack:
        master = Server(folder / "0", ports[0], ("--repl-diskless-sync-delay", "0"))
        data = [master]
        for i, port in enumerate(ports[1 : replicas + 1], 1):
            data.append(
                Server(
                    folder / str(i), port, ("--replicaof", f"{HOST} {master.port}", "--repl-diskless-sync-delay", "0")
                )
            )
        for one in data:
            stack.callback(one.end)
            await one.start()
        watchers = []
        for port in ports[replicas + 1 :]:
            config = folder / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind {HOST}\ndir {folder}\n"
                f"sentinel monitor hub {HOST} {master.port} {quorum}\n"
                "sentinel down-after-milliseconds hub 1000\nsentinel failover-timeout hub 3000\n"
            )
            watcher = Server(folder / f"s{port}", port)
            stack.callback(watcher.end)
            _start_sentinel(watcher, config)
            await watcher.until_answers()
            watchers.append(watcher)
        hosts = ",".join(f"{HOST}:{one.port}" for one in watchers)
        group = Group(f"redis+sentinel://{hosts}/hub/0", data, watchers)
        await group.replicas_attached(replicas)
        await _until_sentinels_know(watchers, replicas)
        yield group


def _start_sentinel(watcher: Server, config: Path) -> None:
    watcher.folder.mkdir(parents=True, exist_ok=True)
    watcher.process = _spawn(watcher.folder / "log", [str(config), "--sentinel"])


async def _until_sentinels_know(watchers: Sequence[Server], replicas: int) -> None:
    with anyio.fail_after(20):
        for watcher in watchers:
            async with watcher.client() as client:
                while True:
                    flat = await client.execute_command("SENTINEL", "MASTER", "hub")
                    state = dict(zip(flat[::2], flat[1::2], strict=True))
                    others, slaves = int(state["num-other-sentinels"]), int(state["num-slaves"])
                    if others >= len(watchers) - 1 and slaves >= replicas:
                        break
                    await anyio.sleep(0.05)


@asynccontextmanager
async def cluster(folder: Path, *, replicas: int = 2, tag: str = "emp") -> AsyncIterator[Group]:
    """Three masters; the one that has the tag's slot has replicas, and its failure is noticed within a second or two."""
    ports = free_ports(3 + replicas, beside=(10_000,))  # where nodes talk to each other
    options = (
        *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
        *("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"),
    )
    nodes = [Server(folder / str(port), port, options) for port in ports]
    async with AsyncExitStack() as stack:
        for node in nodes:
            stack.callback(node.end)
            await node.start()
        clients = [await stack.enter_async_context(node.client()) for node in nodes]
        # The hub's slot in the first range.
        slot = key_slot(tag.encode())
        thirds = [(0, 5460), (5461, 10922), (10923, 16383)]
        thirds.sort(key=lambda third: not third[0] <= slot <= third[1])
        for client, (first, last) in zip(clients[:3], thirds, strict=True):
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for epoch, client in enumerate(clients, 1):
            await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node in nodes[1:]:
            await clients[0].execute_command("CLUSTER", "MEET", HOST, node.port)
        await _until_all(clients, lambda state: int(state["cluster_known_nodes"]) == len(nodes))
        owner = await clients[0].execute_command("CLUSTER", "MYID")
        for client in clients[3:]:
            await _replicate(client, owner)
        await _until_all(clients, lambda state: state["cluster_state"] == "ok")
        hosts = ",".join(f"{HOST}:{node.port}" for node in nodes[:3])
        group = Group(f"redis+cluster://{hosts}", [nodes[0], *nodes[3:]], others=nodes[1:3], tag=tag)
        await group.replicas_attached(replicas)
        yield group


async def _replicate(client: Any, owner: str) -> None:
    with anyio.fail_after(10):
        while True:
            try:
                await client.execute_command("CLUSTER", "REPLICATE", owner)
            except exceptions.ResponseError:  # it has not heard of the owner yet
                await anyio.sleep(0.05)
            else:
                return


async def _until_all(clients: Sequence[Any], done: Any) -> None:
    with anyio.fail_after(20):
        for client in clients:
            while True:
                text = await client.execute_command("CLUSTER", "INFO")
                state = (
                    text
                    if isinstance(text, dict)
                    else dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
                )
                if done(state):
                    break
                await anyio.sleep(0.05)
