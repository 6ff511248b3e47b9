"""`Upkeep`: what there is to do at a server once it answers: read its lists, stop what was left there, tidy its history."""

import anyio
from anyio.abc import TaskGroup

from emp_comfyui.cluster.hosts import Hosts
from emp_comfyui.stopping import stop_prompt
from emp_core.errors import ConfigError, EmpError
from emp_core.log.logger import get_logger

__all__ = ["Upkeep"]

log = get_logger("emp.comfyui.cluster")

_MOST_LEFT = 1000
"""Of each server; the oldest are forgotten."""


class Upkeep:
    """Looks after servers beside the jobs. Done in a task of its own, so that neither jobs nor questions wait for it.

    Prompts are left at a server that went away, because their jobs go on elsewhere. They are stopped when it is back: no GPU
    works for nobody.

    Args:
        cancel_s: how long each prompt is pursued, in seconds.
    """

    def __init__(self, hosts: Hosts, cancel_s: float) -> None:
        self._hosts = hosts
        self._cancel_s = cancel_s
        self._left: dict[str, dict[str, None]] = {}
        self._busy: set[str] = set()
        self._answered: set[str] = set()
        self._something_to_do = anyio.Event()

    def leave(self, server: str, prompt_id: str) -> None:
        """A job goes on elsewhere; its prompt may still wait or run at this server, if it is one of ours."""
        if not self._hosts.has(server):
            return
        left = self._left.setdefault(server, {})
        left[prompt_id] = None
        if len(left) > _MOST_LEFT:
            del left[next(iter(left))]

    def answered(self, server: str) -> None:
        """This server answers."""
        self._answered.add(server)
        self._something_to_do.set()

    async def run(self) -> None:
        """Do what there is to do, until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                await self._something_to_do.wait()
                self._something_to_do = anyio.Event()
                self._begin(group)

    def _begin(self, group: TaskGroup) -> None:
        answered, self._answered = self._answered, set()
        for server in answered - self._busy:
            self._busy.add(server)
            group.start_soon(self._look_after, server)

    async def _look_after(self, server: str) -> None:
        try:
            await self._stop_what_was_left(server)
            await self._hosts.refresh(server)
            async with self._hosts.connector(server) as connector:
                await connector.tidy_history()
        except ConfigError:
            log.info("a server was removed", server=server, prompts_left=len(self._left.pop(server, ())))
        except EmpError as error:
            log.info("a server could not be looked after", server=server, error=error.message)
        finally:
            self._busy.discard(server)

    async def _stop_what_was_left(self, server: str) -> None:
        for prompt_id in list(self._left.get(server, ())):
            async with self._hosts.connector(server) as connector:
                stopped = False
                with anyio.move_on_after(self._cancel_s):
                    stopped = await stop_prompt(connector.comfyui, log, prompt_id=prompt_id, client_id=None)
            if not stopped:
                return  # it went away again, or does not stop: another time
            self._left[server].pop(prompt_id, None)
            log.info("a prompt was stopped whose job went on elsewhere", server=server, prompt_id=prompt_id)
