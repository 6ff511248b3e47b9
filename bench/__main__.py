"""``python -m bench``: measure, print tables, write JSON."""

import argparse
import datetime as dt
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from bench.claims import claims, wakes
from bench.environments import NODE, PYTHON_PEERS, Missing, Peer, find_peer
from bench.faults import faults
from bench.idle import idle
from bench.latency import latency
from bench.memory import memory
from bench.report import markdown, print_report
from bench.rounds import Figures, Measure, Size, progress, run_rounds
from bench.servers import Server
from bench.throughput import drain, submit
from emp_core.telemetry.logs import configure_logs

COMPARED: Mapping[str, Measure] = {
    "drain": drain,
    "submit": submit,
    "latency": latency,
    "memory": memory,
    "idle": idle,
}
"""What is measured of every peer."""

_STEADY = ("memory", "idle")
"""What hardly varies is measured once."""

OWN: Mapping[str, Callable[[Size], Figures]] = {"claims": claims, "wakes": wakes, "faults": faults}
"""What is measured of ours only."""

_CORES = 2
_HELD_UP_S = 0.0005


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure this queue and its peers side by side."
    )
    parser.add_argument(
        "--quick", action="store_true", help="small numbers and one round, to see that everything works"
    )
    parser.add_argument("--only", default="", help=f"some of: {', '.join([*COMPARED, *OWN])}")
    parser.add_argument(
        "--peers", default="", help=f"some of: {', '.join([*PYTHON_PEERS, NODE])}; 'none' for ours alone"
    )
    parser.add_argument("--rounds", type=int, default=0, help="rounds of which medians are taken; 3, or 1 with --quick")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="folder for the JSON")
    given = parser.parse_args()
    given.only = _words(parser, "--only", given.only, (*COMPARED, *OWN))
    given.peers = _words(parser, "--peers", given.peers, (*PYTHON_PEERS, NODE))
    return given


def _words(parser: argparse.ArgumentParser, option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    if text == "none":
        return ()
    words = tuple(word for part in text.split(",") if (word := part.strip())) or known
    if unknown := [word for word in words if word not in known]:
        parser.error(f"{option}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return words


def _find_peers(names: tuple[str, ...]) -> tuple[list[Peer], dict[str, str]]:
    found, skipped = [find_peer("ours")], {}
    for name in names:
        try:
            found.append(find_peer(name))
        except Missing as error:
            progress(f"skipped: {error}")
            skipped[name] = str(error)
    return found, skipped


def _machine() -> dict[str, Any]:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    with Server() as server:
        redis = server.version
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "redis": redis,
        "loop_ms": _loop_ms(),
        "load_before": os.getloadavg()[0],
    }


def _loop_ms() -> float:
    """How long this machine takes for a fixed piece of Python, now: to compare runs by."""
    best = math.inf
    for _ in range(5):
        began = time.process_time()
        sum(len(str(i)) for i in range(200_000))
        best = min(best, time.process_time() - began)
    return 1000 * best


def _hold_ups_per_s() -> float:
    """How often this machine keeps a process that only looks at the clock from running for half a millisecond or longer, now.

    No queue can help that, and above all the 99th percentiles tell of it: each job that it meets is later by as much.
    """
    cores = os.sched_getaffinity(0)
    spent = found = 0.0
    for core in cores:
        os.sched_setaffinity(0, {core})
        began = last = time.perf_counter()
        while last < began + 2:
            now = time.perf_counter()
            found += now - last > _HELD_UP_S
            last = now
        spent += last - began
    os.sched_setaffinity(0, cores)
    return found / spent


def main() -> None:
    """Measure what the arguments ask for."""
    given = _arguments()
    configure_logs("error")  # that nobody serves what is submitted here is no news
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_CORES])
    size = Size(given.quick, given.rounds or (1 if given.quick else 3))
    compared = [name for name in given.only if name in COMPARED]
    peers, skipped = _find_peers(given.peers if compared else ())
    machine = _machine()
    held_up = [_hold_ups_per_s()]
    medians: dict[str, dict[str, float]] = {peer.name: {} for peer in peers}
    rounds: dict[str, Any] = {}
    for name in compared:
        results = run_rounds(name, COMPARED[name], peers, evolve(size, rounds=1) if name in _STEADY else size)
        rounds[name] = {peer: {"rounds": one.rounds, "failures": one.failures} for peer, one in results.items()}
        for peer, one in results.items():
            medians[peer].update(one.medians())
    for name in given.only:
        if name in OWN:
            progress(name)
            medians["ours"].update(OWN[name](size))
    held_up.append(_hold_ups_per_s())
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{stamp}.json"
    document = {
        "at": stamp,
        "quick": given.quick,
        "machine": {**machine, "hold_ups_per_s": held_up},
        "versions": {peer.name: peer.version for peer in peers},
        "skipped": skipped,
        "medians": medians,
        "rounds": rounds,
    }
    ran_on = (
        f"Python {machine['python']}, Redis {machine['redis']}, {machine['cpu']}, {machine['cores']} cores, "
        f"a fixed loop in {machine['loop_ms']:.1f} ms, load before {machine['load_before']:.1f}, rounds {size.rounds}. "
        f"Held up for {1000 * _HELD_UP_S:g} ms or longer {held_up[0]:.1f} times a second before and {held_up[1]:.1f} after."
    )
    notes = [
        ran_on,
        *(f"Skipped {name}: {why}." for name, why in skipped.items()),
    ]
    path.write_text(json.dumps(document, indent=2) + "\n")
    path.with_suffix(".md").write_text(markdown(medians, notes))
    print_report(medians, [*notes, f"Written to {path}, and the tables to {path.with_suffix('.md').name} beside it."])


if __name__ == "__main__":
    main()
