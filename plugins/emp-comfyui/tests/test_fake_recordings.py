"""The fake server answers the recorded requests as the recorded server did: same frames, same order, same bodies."""

from pathlib import Path

import pytest
from emp_comfyui.testing import FakeComfyUI, Faults
from emp_comfyui.testing.recording import Recording

from .recorded_session import RecordedSession

RECORDINGS = Path(__file__).parent / "recordings"


# Of these measurements of many runs, some runs were kept: what a poll finds is chance, and so not compared.
SAMPLED = {"08b", "20", "20b"}


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*.json")), ids=lambda path: path.stem)
async def test_the_fake_answers_like_the_recorded_server(path: Path) -> None:
    session = RecordedSession(Recording.load(path), sampled=path.stem.partition("_")[0] in SAMPLED)
    await session.run()
    assert not session.differences, "\n".join(session.differences)
    assert session.compared


async def test_a_fake_that_differs_would_be_found_out() -> None:
    session = RecordedSession(Recording.load(RECORDINGS / "01_single_image.json"), patience_s=0.1)

    def spoil(server: FakeComfyUI) -> None:
        server.faults = Faults(drop_frames={"executed"})

    await session.run(before=spoil)
    assert "'executed'" in session.differences[0]
