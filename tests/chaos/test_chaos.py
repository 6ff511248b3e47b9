"""The short form: every fault once, with a few hundred jobs. ``make chaos`` is the long one."""

from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, missing
from tests.chaos.scene import Fault, Size, run

SHORT = Size(jobs=200, workers=3, rounds=1, job_s=0.06, submit_s=1.5, lease_s=1.5, limit_s=30)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
async def test_nothing_is_lost_and_nothing_happens_twice(fault: Fault, tmp_path: Path):
    if reason := missing(fault):
        pytest.skip(reason)
    report = await run(fault, SHORT, tmp_path, seed=1)
    assert not report.problems, "\n".join(report.problems[:20])
    assert report.verdict.jobs >= SHORT.jobs
    assert (report.verdict.lost, report.verdict.doubled) == (0, 0)
