"""Looking at some members of sorted sets at a time, and in the end at all of them."""

from collections.abc import Sequence
from typing import Any

__all__ = ["Rounds"]

_PLACES_MOST = 10_000


class Rounds:
    """Goes round sorted sets, and remembers where in each of them it is.

    Args:
        client: a redis-py client; a call that fails because Redis is away raises what it raises.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._places: dict[str, int] = {}

    async def next_of(self, keys: Sequence[str], most: int) -> list[list[str]]:
        """The next members of each of these sorted sets, about ``most`` of all, of each set at least one; after its last ones
        a set begins again."""
        async with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.zcard(key)
            lengths = await pipe.execute()
        if not any(lengths):
            return [[] for _ in keys]
        share = _share(lengths, most)
        if len(self._places) > _PLACES_MOST:  # of lines that are gone
            self._places.clear()
        starts = [self._places.pop(key, 0) for key in keys]
        async with self._client.pipeline(transaction=False) as pipe:
            for key, start in zip(keys, starts, strict=True):
                pipe.zrange(key, start, start + share - 1)
            found: list[list[str]] = await pipe.execute()
        for key, start, length in zip(keys, starts, lengths, strict=True):
            if start + share < length:
                self._places[key] = start + share
        return found


def _share(lengths: Sequence[int], most: int) -> int:
    """How many each may have at most, so that all together have no more than ``most``; at least one."""
    for i, length in enumerate(sorted(lengths)):
        share = most // (len(lengths) - i)
        if length > share:
            return max(1, share)
        most -= length
    return max(1, *lengths)
