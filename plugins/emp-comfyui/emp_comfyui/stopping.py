"""Stopping a prompt that nobody wants any more: out of the queue, or interrupted, until it is gone."""

import anyio

from emp_comfyui.client import ComfyUIClient
from emp_core.errors import ConnectionLost, ConnectorError
from emp_core.log.logger import Logger

__all__ = ["stop_prompt"]

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_GONE_PAUSE_S = 0.25


async def stop_prompt(
    client: ComfyUIClient, log: Logger, *, prompt_id: str, client_id: str | None, looks: int = 1
) -> bool:
    """Stop a prompt, waiting or running, and nothing else. Returns once the queue does not have it any more, or false if the
    server is not there to ask.

    Newer servers cancel by id. Elsewhere an interrupt is sent only right after the queue showed that ours runs: servers before
    0.3.57 stop whatever runs. It is sent again and again: one that comes as a prompt starts is forgotten, and a node notices
    it at its next step.

    Args:
        client_id: the client that only this prompt has; finds it where the server gave it another id.
        looks: how often the queue must not have it: more than once while the server may still be reading it.
    """
    pause_s = _FIRST_PAUSE_S
    while looks:
        try:
            by_id = await client.cancel(prompt_id)
            queue = await client.queue()
            found = queue.find(prompt_id, client_id)
            if found is None:
                looks -= 1
                pause_s = _GONE_PAUSE_S
            elif found in queue.running and not by_id:
                await client.interrupt(found.prompt_id)
            elif not by_id:
                await client.delete_waiting(found.prompt_id)
        except ConnectionLost as error:
            log.debug("could not stop the prompt yet", error=error.message)
        except ConnectorError as error:
            log.warning("could not stop the prompt", error=error.message, prompt_id=prompt_id)
            return False
        if looks:
            await anyio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 1.5)
    return True
