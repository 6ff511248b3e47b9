"""The long form: ``python -m tests.chaos [WORDS OF A FAULT'S NAME]…`` does 2,000 jobs and more under each fault, and judges.

It ends with 0 when nothing was lost, doubled or stuck, and with 1 otherwise; what workers said stays in its folder then.
"""

import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import anyio
from rich.console import Console
from rich.table import Table

from tests.chaos.faults import FAULTS, missing
from tests.chaos.scene import Report, Size, run

LONG = Size(jobs=2000, workers=5, rounds=6, job_s=0.15, submit_s=8.0, lease_s=2.0, limit_s=120)


async def main(words: list[str]) -> int:
    """Run every fault whose name has one of the words; all when there are none."""
    console = Console(width=150 if not sys.stdout.isatty() else None)
    folder = Path(tempfile.mkdtemp(prefix="emp-chaos-"))
    seed = int(time.time())
    table = Table("fault", "jobs", "outcomes", "rescues", "lost", "doubled", "problems", "back after", "took")
    failed = False
    for number, fault in enumerate(FAULTS):
        if words and not any(word.lower() in fault.name.lower() for word in words):
            continue
        if reason := missing(fault):
            table.add_row(fault.name, f"left out: {reason}")
            continue
        console.print(f"{fault.name} …")
        report = await run(fault, LONG, _made(folder / str(number)), seed=seed)
        failed |= bool(report.problems)
        for problem in report.problems[:10]:
            console.print(f"  {problem}", markup=False)
        _add(table, report)
    console.print(table)
    console.print(f"seed {seed}; " + (f"what was said is in {folder}" if failed else "nothing lost, nothing doubled"))
    if not failed:
        shutil.rmtree(folder)
    return int(failed)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _add(table: Table, report: Report) -> None:
    verdict = report.verdict
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(verdict.outcomes.items()))
    back = "" if report.back_s is None else f"{report.back_s} s"
    cells = (verdict.jobs, outcomes, verdict.rescues, verdict.lost, verdict.doubled, len(report.problems), back)
    table.add_row(report.name, *(str(cell) for cell in cells), f"{report.took_s:.0f} s")


if __name__ == "__main__":
    logging.getLogger("emp").setLevel(logging.CRITICAL)  # that Redis is away is what this is about
    sys.exit(anyio.run(main, sys.argv[1:]))
