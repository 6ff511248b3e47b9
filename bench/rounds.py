"""Rounds: every figure is the median of several, and in each round every peer has its turn, so that drift hits all alike."""

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field, frozen

from bench.environments import Peer
from bench.programs import Failure
from bench.servers import Server

__all__ = ["Figures", "Measure", "Size", "percentile", "progress", "run_rounds"]


@frozen
class Size:
    """How much is measured.

    Attributes:
        quick: smaller numbers, to see that everything works; not for comparing.
    """

    quick: bool
    rounds: int

    def of(self, full: int, quick: int) -> int:
        """A number for this size."""
        return quick if self.quick else full


Figures = dict[str, float]
"""A figure's name, with its unit, and its value."""

Measure = Callable[[Peer, Server, Size], Figures]


@define
class Result:
    """What was measured of one peer, round by round."""

    rounds: list[Figures] = field(factory=list)
    failures: list[str] = field(factory=list)

    def medians(self) -> Figures:
        """The median of each figure."""
        names = {name: None for one in self.rounds for name in one}
        return {name: statistics.median(one[name] for one in self.rounds if name in one) for name in names}


def run_rounds(name: str, measure: Measure, peers: Sequence[Peer], size: Size) -> dict[str, Result]:
    """Measure every peer in every round. Each round has a new Redis."""
    results: dict[str, Result] = {peer.name: Result() for peer in peers}
    for number in range(1, size.rounds + 1):
        with Server() as server:
            for peer in peers:
                server.clean()
                progress(f"{name} {number}/{size.rounds}: {peer.name}")
                try:
                    figures = measure(peer, server, size)
                except Failure as failure:
                    results[peer.name].failures.append(str(failure))
                    progress(f"  {peer.name} failed: {failure}")
                else:
                    results[peer.name].rounds.append(figures)
                    progress("  " + ", ".join(f"{key} {value:,.4g}" for key, value in figures.items()))
    return results


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by ``share`` of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def progress(text: Any) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)
