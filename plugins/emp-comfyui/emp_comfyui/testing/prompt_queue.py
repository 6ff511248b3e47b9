"""The prompts that wait and run, and the history of those that ended."""

import heapq
from collections.abc import Callable, Mapping
from typing import Any

Item = tuple[float, str, dict[str, Any], dict[str, Any], list[str]]
"""Number, prompt id, graph, extra data, outputs to run: as ``/queue`` shows it."""

_SECRET_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")


class PromptQueue:
    """A heap of prompts and a dictionary of results.

    It is a plain heap of plain tuples on purpose: two items of the same number and id cannot be compared, which gives
    the real server's 500 on putting, and the death of its worker on taking.
    """

    def __init__(self, on_change: Callable[[], None], history_limit: int = 10_000) -> None:
        """``on_change`` is called whenever the number of prompts may have changed."""
        self._on_change = on_change
        self._history_limit = history_limit
        self.pending: list[Item] = []
        self.running: list[Item] = []
        self.history: dict[str, dict[str, Any]] = {}

    def remaining(self) -> int:
        """Waiting and running prompts."""
        return len(self.pending) + len(self.running)

    def put(self, item: Item) -> None:
        """Add a prompt. Raises TypeError for a second one of the same number and id, and keeps it all the same."""
        heapq.heappush(self.pending, item)
        self._on_change()

    def take(self) -> Item:
        """Take the prompt of the smallest number and let it count as running."""
        item = heapq.heappop(self.pending)
        self.running.append(item)
        self._on_change()
        return item

    def finish(self, item: Item, outcome: Mapping[str, Any]) -> None:
        """Move a prompt from the running ones to the history; the newest entry of an id stays."""
        self.running.remove(item)
        number, prompt_id, graph, extra_data, outputs = item
        shown = {key: value for key, value in extra_data.items() if key not in _SECRET_KEYS}
        if len(self.history) > self._history_limit:
            del self.history[next(iter(self.history))]
        self.history[prompt_id] = {"prompt": [number, prompt_id, graph, shown, outputs], **outcome}
        self._on_change()

    def delete(self, prompt_id: object) -> bool:
        """Take one waiting prompt of that id out."""
        for position, item in enumerate(self.pending):
            if item[1] == prompt_id:
                if len(self.pending) == 1:
                    self.clear()  # the real one clears here as well, and so tells of the change twice
                else:
                    self.pending.pop(position)
                    heapq.heapify(self.pending)
                self._on_change()
                return True
        return False

    def clear(self) -> None:
        """Take all waiting prompts out."""
        self.pending.clear()
        self._on_change()

    def listed(self, max_items: int | None = None, offset: int = -1) -> dict[str, dict[str, Any]]:
        """History entries, oldest first: the newest ``max_items``, or as many from ``offset`` on."""
        if offset < 0 and max_items is not None:
            offset = len(self.history) - max_items
        last = len(self.history) if max_items is None else offset + max_items
        return {key: entry for place, (key, entry) in enumerate(self.history.items()) if offset <= place < last}
