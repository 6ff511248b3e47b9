"""What was measured, as tables: the figures, their ratios to the best peer, and whether what we promise was reached."""

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

__all__ = ["markdown", "print_report"]

Medians = Mapping[str, Mapping[str, float]]
"""Peer → figure → value."""

_WIDTH = 120
_LESS_IS_BETTER = ("ms", "ms/job", "B/job", "commands /s", "MB", "%")
_ASYNC = ("arq", "saq", "taskiq", "streaq")


@frozen
class Promise:
    """A figure that must be reached.

    Attributes:
        value: computes it; None when something that it needs was not measured.
        least: it must be this or more; or, when ``most`` is given, that or less.
    """

    text: str
    value: Callable[[Medians], float | None]
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        """Whether the value is good enough."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


def _ours(name: str) -> Callable[[Medians], float | None]:
    return lambda medians: medians.get("ours", {}).get(name)


def _ratio(name: str, among: Callable[[str], bool]) -> Callable[[Medians], float | None]:
    def value(medians: Medians) -> float | None:
        own = medians.get("ours", {}).get(name)
        others = [
            figures[name] for peer, figures in medians.items() if peer != "ours" and among(peer) and name in figures
        ]
        return own / max(others) if own is not None and others else None

    return value


def _sum(ending: str) -> Callable[[Medians], float | None]:
    def value(medians: Medians) -> float | None:
        found = [value for name, value in medians.get("ours", {}).items() if name.endswith(f", {ending}")]
        return sum(found) if found else None

    return value


def _python(peer: str) -> bool:
    return peer != "bullmq"


PROMISES = (
    Promise("drain: times the best Python peer", _ratio("drain /s", _python), least=5.0),
    Promise("drain: times BullMQ", _ratio("drain /s", lambda peer: peer == "bullmq"), least=0.8),
    Promise("submit many: times the best Python peer", _ratio("submit many /s", _python), least=2.0),
    Promise("submit one: times the best asyncio peer", _ratio("submit one /s", lambda peer: peer in _ASYNC), least=0.8),
    Promise("submit to started, p99 ms", _ours("start p99 ms"), most=1.5),
    Promise("submit to result seen, p99 ms", _ours("result p99 ms"), most=2.5),
    Promise("commands a second, 10 idle workers", _ours("idle commands /s"), most=10.0),
    Promise("workers woken by one job, of 1,000 idle", _ours("woken of 1,000"), most=1.0),
    Promise("memory of a waiting job, bytes", _ours("memory B/job"), most=900.0),
    Promise("claim at the head, µs, the slowest size", _ours("claim head µs"), most=80.0),
    Promise("claim at worst, µs, the slowest size", _ours("claim worst µs"), most=200.0),
    Promise("claim: slowest size by fastest", _ours("claim growth"), most=1.5),
    Promise(
        "kill -9 of a worker with 50 jobs: s until all run again",
        _ours("fault: kill -9, s until all run again"),
        most=20,
    ),
    Promise(
        "Redis killed: s from its return until all workers work",
        _ours("fault: Redis killed, s until all workers work"),
        most=5,
    ),
    Promise(
        "silent link: s from its return until all workers work",
        _ours("fault: silent link, s until all workers work"),
        most=5,
    ),
    Promise("jobs lost, all faults", _sum("lost"), most=0),
    Promise("jobs with two outcomes, all faults", _sum("doubled"), most=0),
    Promise("workers that ended, all faults", _sum("workers ended"), most=0),
    Promise("results accepted after the lease ended", _ours("fault: SIGSTOP, late results accepted"), most=0),
    Promise(
        "SIGTERM: s beyond the grace time until all wait again",
        _ours("fault: SIGTERM, s beyond the grace time"),
        most=1,
    ),
    Promise("SIGTERM: attempts counted", _ours("fault: SIGTERM, attempts counted"), most=0),
    Promise("1,000 jobs at once: completed", _ours("fault: 1,000 at once, completed"), least=1000),
    Promise("1,000 jobs at once: false rescues", _ours("fault: 1,000 at once, false rescues"), most=0),
    Promise("idle worker: memory, MB", _ours("idle RSS MB"), most=60.0),
    Promise("idle worker: CPU, %", _ours("idle CPU %"), most=0.5),
)


@frozen
class Grid:
    """A table: its columns and rows as texts."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_rich(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def as_markdown(self) -> str:
        """For the documentation."""
        lines = [self.columns, ("---", *("--:" for _ in self.columns[1:])), *self.rows]
        return f"**{self.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def grids(medians: Medians) -> list[Grid]:
    """Everything that was measured, as tables."""
    shared = _shared_figures(medians)
    own = {name: value for name, value in medians.get("ours", {}).items() if name not in shared}
    made = []
    if shared:
        made.append(_figures_grid(medians, shared))
        if len(medians) > 1:
            made.append(_ratios_grid(medians, shared))
    if own:
        made.append(Grid("Ours only", ("", "value"), tuple((name, _shown(value)) for name, value in own.items())))
    made.append(_promises_grid(medians))
    return made


def print_report(medians: Medians, notes: Sequence[str]) -> None:
    """Print all tables to standard output."""
    console = Console(width=_WIDTH)
    for grid in grids(medians):
        console.print(grid.as_rich())
    for note in notes:
        console.print(note, markup=False, highlight=False)


def markdown(medians: Medians, notes: Sequence[str]) -> str:
    """The same for the documentation."""
    return "\n".join([*(grid.as_markdown() for grid in grids(medians)), *notes]) + "\n"


def _shared_figures(medians: Medians) -> list[str]:
    names = {name: None for figures in medians.values() for name in figures}
    only_ours = [name for name in names if name.startswith(("claim", "woken", "fault"))]
    return [name for name in names if name not in only_ours]


def _figures_grid(medians: Medians, names: Sequence[str]) -> Grid:
    return _grid("Figures", medians, names, lambda peer, name: medians[peer].get(name))


def _ratios_grid(medians: Medians, names: Sequence[str]) -> Grid:
    def ratio(peer: str, name: str) -> float | None:
        own, theirs = medians.get("ours", {}).get(name), medians[peer].get(name)
        if not own or not theirs:
            return None
        return theirs / own if name.endswith(_LESS_IS_BETTER) else own / theirs

    others = {peer: figures for peer, figures in medians.items() if peer != "ours"}
    return _grid("Ours, times better than", others, names, ratio)


def _grid(title: str, medians: Medians, names: Sequence[str], value: Callable[[str, str], float | None]) -> Grid:
    def row(name: str) -> tuple[str, ...]:
        cells = [value(peer, name) for peer in medians]
        return (name, *("" if cell is None else _shown(cell) for cell in cells))

    return Grid(title, ("", *medians), tuple(row(name) for name in names))


def _promises_grid(medians: Medians) -> Grid:
    def row(promise: Promise) -> tuple[str, ...]:
        value = promise.value(medians)
        bound = f"≥ {promise.least:g}" if promise.least is not None else f"≤ {promise.most:g}"
        verdict = "not measured" if value is None else "met" if promise.met(value) else "NOT MET"
        return (promise.text, "" if value is None else _shown(value), bound, verdict)

    return Grid("Promises", ("figure", "measured", "promised", ""), tuple(row(promise) for promise in PROMISES))


def _shown(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
