"""Telling the queue what this worker offers, and which lanes it serves: at the start and whenever that changes."""

from collections.abc import Callable, Mapping

import anyio

from emp_core.errors import ConfigError
from emp_core.jobs.matching import Capabilities, Match, match
from emp_core.jobs.requirements import Requirement
from emp_core.log.logger import get_logger
from emp_core.queue.consumer import Consumer
from emp_core.queue.workers import encode_capabilities
from emp_core.worker.persistence import until_done

__all__ = ["Registrar"]

log = get_logger("emp.worker")


class Registrar:
    """Keeps the worker's entry and its lanes as they are.

    Args:
        capabilities: what the worker offers now.
        on_work: told when a lane that was just taken up has jobs.
    """

    def __init__(
        self, consumer: Consumer, lease_s: float, capabilities: Callable[[], Capabilities], on_work: Callable[[], None]
    ) -> None:
        self._consumer = consumer
        self._lease_s = lease_s
        self._capabilities = capabilities
        self._on_work = on_work
        self._lanes: dict[str, Requirement] = {}
        self._version = -1
        self._told: dict[str, float] = {}
        self._told_facts: list[str] = []
        self._news: set[str] = set()
        self._gone: set[str] = set()
        self._resync = True
        self._reset = True
        self._changed = anyio.Event()

    def capabilities_changed(self) -> None:
        """A model was loaded, a service withdrawn or taken up: the lanes follow."""
        self._changed.set()

    def lane_opened(self, lane: str) -> None:
        """There is a new lane."""
        self._news.add(lane)
        self._changed.set()

    def lane_gone(self, lane: str) -> None:
        """A lane without jobs was dropped; the queue has forgotten that this worker serves it."""
        self._gone.add(lane)
        self._changed.set()

    def version_seen(self, version: int) -> None:
        """Told with every reply: a lane may have been missed."""
        if version != self._version and not self._news:
            self._resync = True
            self._changed.set()

    def tell_again(self) -> None:
        """What Redis was told, or told us, may be lost: say all of it again."""
        self._told, self._told_facts = dict.fromkeys(self._lanes, -1.0), []
        self._resync = True
        self._changed.set()

    def forgotten(self) -> None:
        """Redis does not know this worker any more: it was silent for too long, or Redis lost its data."""
        if not self._reset:  # whoever asks is told, until it is known again
            log.warning("registering again: redis does not know this worker")
        self._reset = self._resync = True
        self._changed.set()

    async def register(self) -> None:
        """Register for the first time. Waits for the heartbeat of a dead namesake to end, and for Redis as long as it takes.

        Raises:
            ConfigError: another process is alive under this worker's name.
        """
        ends: float | None = None
        while not await self._sync():
            now = anyio.current_time()
            ends = now + 2 * self._lease_s + 1 if ends is None else ends
            if now >= ends:
                raise ConfigError(
                    f"a worker {self._consumer.worker_id} is alive already",
                    hint="give each worker of a machine its own WORKER_ID, and each machine its own MACHINE_ID",
                )
            log.warning(
                "another process has this worker's name; waiting for its heartbeat to end",
                worker=self._consumer.worker_id,
            )
            await anyio.sleep(self._lease_s / 5)

    async def run(self) -> None:
        """Keep the entry as it is until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            if not await self._sync():
                log.error("another process took this worker's name over", worker=self._consumer.worker_id)
                await anyio.sleep(self._lease_s)
                self.forgotten()

    async def _sync(self) -> bool:
        await self._learn_lanes()
        offered = self._capabilities()
        verdicts = {lane: match(requirement, offered) for lane, requirement in self._lanes.items()}
        serves = {lane: verdict.penalty_ms for lane, verdict in verdicts.items() if isinstance(verdict, Match)}
        reset, facts = self._reset, encode_capabilities(offered)
        told = {} if reset else self._told
        changed: dict[str, float | None] = {
            lane: penalty for lane, penalty in serves.items() if told.get(lane) != penalty
        }
        changed.update(dict.fromkeys(told.keys() - serves.keys()))
        if not (reset or changed or facts != self._told_facts):
            return True
        code, version, work = await until_done(
            "registering", lambda: self._consumer.set_lanes(changed, facts, reset=reset)
        )
        if code == -1:
            self.forgotten()
            return True
        if code == 0:
            return False
        self._reset, self._told, self._told_facts = False, serves, facts
        self.version_seen(version)
        if work:
            self._on_work()
        return True

    async def _learn_lanes(self) -> None:
        news, self._news = self._news, set()
        gone, self._gone = self._gone, set()
        for lane in gone:
            self._told.pop(lane, None)
        if self._resync:
            self._resync = False
            self._version, found = await until_done("reading lanes", self._consumer.lanes)
            self._lanes = _readable(found)
        elif news or gone:
            # One that is gone may have come back since.
            unknown = sorted((news - self._lanes.keys()) | gone)
            if unknown:
                _, found = await until_done("reading lanes", lambda: self._consumer.lanes(unknown))
                for lane in gone - found.keys():
                    self._lanes.pop(lane, None)
                self._lanes.update(_readable(found))
            self._version += len(news)


def _readable(found: Mapping[str, str]) -> dict[str, Requirement]:
    """The lanes that this version understands. Others are left to workers of the version that made them."""
    lanes: dict[str, Requirement] = {}
    for lane, text in found.items():
        try:
            lanes[lane] = Requirement.from_json(text)
        except ConfigError as error:
            log.warning("a lane that cannot be read is left to other workers", lane=lane, error=str(error))
    return lanes
