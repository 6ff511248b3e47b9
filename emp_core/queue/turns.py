"""The order in which waiting jobs are claimed: the rule of turns, followed in thought."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heapreplace

from attrs import frozen

__all__ = ["Line", "claims_before"]

_FOLLOWED = 20_000
"""So many claims are followed one by one. For what is left, nobody's head start is used up by then."""


@frozen
class Line:
    """The waiting jobs of one customer in one lane.

    Attributes:
        turn_us: the customer's turn in the lane, with the least penalty of those who serve it.
        penalty_us: that penalty.
        length: how many jobs wait.
        head_starts: of the jobs after the first, by runs of the same: up to which place in the line (exclusive), and the
            head start, in µs.
        arrivals: of some jobs after the first, by their places in the line: the virtual arrival, in µs.
        earlier: how many of its jobs would come before the job in question if nobody took turns.
    """

    customer: str
    turn_us: float
    penalty_us: float = 0.0
    length: int = 1
    head_starts: Sequence[tuple[int, float]] = ()
    arrivals: Sequence[tuple[int, float]] = ()
    earlier: int = 0


def claims_before(
    own: Line, rank: int, others: Sequence[Line], *, now_us: float, pace_us: float = 0.0, others_wait: bool = False
) -> int:
    """How many jobs are claimed before the one at place ``rank`` of the line ``own``, if none comes any more.

    The rule is that of claim.lua: the smallest turn goes first, and a customer joins again at the time of the claim less the
    head start of its next job; while only one customer waits, its jobs go by arrival.

    Args:
        pace_us: time between two claims; 0 where it is not known: then whoever has a larger head start keeps it.
        others_wait: whether customers wait in lanes that are not among these.
    """
    lines = [own, *others]
    taken, runs = [0] * len(lines), [0] * len(lines)
    waiting = Counter(line.customer for line in lines)
    turns = [(line.turn_us, number) for number, line in enumerate(lines)]
    heapify(turns)
    for claims in range(_FOLLOWED):
        alone = len(waiting) == 1 and not others_wait
        if alone and (rest := _earlier(lines, taken, rank)) > _FOLLOWED - claims:
            return claims + rest
        number = turns[0][1]
        if number == 0 and taken[0] == rank:
            return claims
        line = lines[number]
        taken[number] += 1
        if taken[number] < line.length:
            if alone:
                turn_us = _arrival_us(line, taken[number])
            else:
                while line.head_starts[runs[number]][0] <= taken[number]:
                    runs[number] += 1
                turn_us = now_us + claims * (pace_us + 1) - line.head_starts[runs[number]][1]
            heapreplace(turns, (turn_us + line.penalty_us, number))
        else:
            heappop(turns)
            waiting[line.customer] -= 1
            if not waiting[line.customer]:
                del waiting[line.customer]
    own_turn_us = next(turn_us for turn_us, number in turns if number == 0)
    head_start_us = now_us + _FOLLOWED * (pace_us + 1) - own_turn_us + own.penalty_us
    for turn_us, number in turns:
        taken[number] += turn_us < own_turn_us
    sooner = sum(turn_us < own_turn_us for turn_us, _ in turns)
    return _FOLLOWED + sooner + _rest(lines, taken, rank, head_start_us)


def _earlier(lines: Sequence[Line], taken: Sequence[int], rank: int) -> int:
    """How many more are claimed before it where nobody takes turns."""
    return rank - taken[0] + sum(max(0, line.earlier - had) for line, had in zip(lines[1:], taken[1:], strict=True))


def _arrival_us(line: Line, place: int) -> float:
    """The virtual arrival of the job at a place of a line, from those nearest to it."""
    at = bisect_left(line.arrivals, (place,))
    after, after_us = line.arrivals[min(at, len(line.arrivals) - 1)]
    if after == place or at in (0, len(line.arrivals)):
        return after_us
    before, before_us = line.arrivals[at - 1]
    return before_us + (after_us - before_us) * (place - before) / (after - before)


def _rest(lines: Sequence[Line], taken: Sequence[int], rank: int, head_start_us: float) -> int:
    """How many more are claimed before it by those who have a larger head start, and in turn with those who have the same.

    Args:
        head_start_us: that of the next job of the own line.
    """
    last, rounds = head_start_us, 0
    for last, rounds in _left(lines[0], taken[0] + 1, rank + 1):  # noqa: B007
        pass
    more = rank - taken[0]
    for line, had in zip(lines[1:], taken[1:], strict=True):
        for head_start, left in _left(line, had, line.length):
            if head_start <= last:
                more += min(left, rounds) if head_start == last else 0
                break
            more += left
    return more


def _left(line: Line, had: int, until: int) -> Iterator[tuple[float, int]]:
    """The head starts of the jobs between two places of a line, by runs, each with how many have it."""
    for end, head_start in line.head_starts:
        if had < min(end, until):
            yield head_start, min(end, until) - had
            had = end
