"""Places where the fake server waits until a test lets it go on."""

from __future__ import annotations

import anyio
import attrs


@attrs.define(eq=False)
class Hold:
    """A place in a prompt where execution stops once. Made by :meth:`emp_comfyui.testing.FakeComfyUI.hold`."""

    node: str
    at_step: float | None
    _reached: anyio.Event = attrs.field(factory=anyio.Event)
    _released: anyio.Event = attrs.field(factory=anyio.Event)

    async def reached(self, timeout: float = 30.0) -> None:
        """Wait until execution has come here; TimeoutError after ``timeout`` seconds."""
        with anyio.fail_after(timeout):
            await self._reached.wait()

    def release(self) -> None:
        """Let execution go on. The hold does not stop anything again."""
        self._released.set()

    @property
    def is_reached(self) -> bool:
        """Whether execution has come here."""
        return self._reached.is_set()

    async def _stop(self) -> None:
        self._reached.set()
        await self._released.wait()

    def _meets(self, node_id: str, class_name: str, step: float | None) -> bool:
        return not self._released.is_set() and self.at_step == step and self.node in (node_id, class_name)


class Holds:
    """All holds that are set."""

    def __init__(self) -> None:
        """None yet."""
        self._holds: list[Hold] = []

    def add(self, node: str, at_step: float | None) -> Hold:
        """Stop at a node (id or class), before it runs or before it reports a step."""
        hold = Hold(node, at_step)
        self._holds.append(hold)
        return hold

    def release_all(self) -> None:
        """Let everything go on."""
        for hold in self._holds:
            hold.release()
        self._holds.clear()

    async def pass_node(self, node_id: str, class_name: str) -> None:
        """Called by a node before it runs."""
        await self._pass(node_id, class_name, None)

    async def pass_step(self, node_id: str, class_name: str, step: float) -> None:
        """Called by a node before it reports a step."""
        await self._pass(node_id, class_name, step)

    async def _pass(self, node_id: str, class_name: str, step: float | None) -> None:
        for hold in list(self._holds):
            if hold._meets(node_id, class_name, step):
                await hold._stop()
