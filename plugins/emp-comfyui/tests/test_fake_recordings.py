"""The fake server answers the recorded requests as the recorded server did: same frames, same order, same bodies."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from emp_comfyui.testing.recording import Recording

RECORDINGS = Path(__file__).parent / "recordings"


def _neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"emp_comfyui_tests_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# Of these measurements of many runs, some runs were kept: what a poll finds is chance, and so not compared.
SAMPLED = {"08b", "20", "20b"}

RecordedSession = _neighbour("recorded_session").RecordedSession


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*.json")), ids=lambda path: path.stem)
async def test_the_fake_answers_like_the_recorded_server(path: Path) -> None:
    session = RecordedSession(Recording.load(path), sampled=path.stem.partition("_")[0] in SAMPLED)
    await session.run()
    assert not session.differences, "\n".join(session.differences)
    assert session.compared
