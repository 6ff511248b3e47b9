"""A bell: somebody waits until somebody else rings."""

import anyio


class Bell:
    """Remembers one ring, so that none is missed between looking and waiting."""

    def __init__(self) -> None:
        """Silent."""
        self._event = anyio.Event()

    def ring(self) -> None:
        """Wake whoever waits, or the next one who does."""
        self._event.set()

    async def wait(self) -> None:
        """Wait for a ring since the last wait."""
        await self._event.wait()
        self._event = anyio.Event()
