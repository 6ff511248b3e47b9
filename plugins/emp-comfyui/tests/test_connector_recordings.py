"""What a real server once said, replayed byte for byte: each prompt ends as a person who reads the recording expects.

What is expected stands in the table of ``docs/reference/comfyui-scenarios.md``, a line for every recorded prompt. A prompt that
ended in success gives, besides, exactly the files of its recorded history entry.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_comfyui.history import HistoryEntry
from emp_comfyui.outputs import named_models, read_outputs
from emp_comfyui.testing import Recording, ReplayServer

from emp_core.errors import EmpError, InvalidJob
from emp_core.jobs.outcomes import JobResult

from .rig import Told, rigged

HERE = Path(__file__).parent
RECORDINGS = HERE / "recordings"
PAGE = HERE.parents[2] / "docs" / "reference" / "comfyui-scenarios.md"
NOT_REPLAYED = "not replayed: "
_SHOWN_FILES = 4
_POLLED = ("`connection_lost`", "`service_broken`")
"""Outcomes that only polling tells; everything else the frames do, and quick polls would overtake them."""


def rows() -> dict[tuple[str, int], str]:
    """The table: scenario and number of its ``POST /prompt``, from 1 → outcome."""
    lines = (line.split("|") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `"))
    cells = ([cell.strip() for cell in line[1:-1]] for line in lines)
    return {(scenario.strip("`"), int(number)): outcome for scenario, number, _, outcome in cells if number.isdecimal()}


def scenarios() -> list[str]:
    """All scenarios of the table, those without prompts, too."""
    lines = PAGE.read_text("utf-8").splitlines()
    return list(dict.fromkeys(line.split("|")[1].strip(" `") for line in lines if line.startswith("| `")))


def prompts() -> Iterator[tuple[str, int, Recording]]:
    """Every recorded ``POST /prompt``: its scenario, its number there, and the recording."""
    for path in sorted(RECORDINGS.glob("*.json")):
        recording = Recording.load(path)
        yield from ((path.stem, number, recording) for number in range(1, len(recording.posts()) + 1))


CASES = [
    pytest.param(scenario, number, recording, id=f"{scenario}-{number}")
    for scenario, number, recording in prompts()
    if not rows().get((scenario, number), "").startswith(NOT_REPLAYED)
]


def test_the_table_has_every_scenario_and_a_line_for_every_prompt() -> None:
    assert scenarios() == [path.stem for path in sorted(RECORDINGS.glob("*.json"))]
    assert rows().keys() == {(scenario, number) for scenario, number, _ in prompts()}


@pytest.mark.parametrize(("scenario", "number", "recording"), CASES)
async def test_a_recorded_prompt_ends_as_the_table_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: str, number: int, recording: Recording
) -> None:
    monkeypatch.setattr("emp_comfyui.truth._DEAD_QUEUE_S", 0.5)
    place = recording.posts()[number - 1]
    expected = rows()[scenario, number]
    told = Told()
    ended, sent_last = await replayed(recording, number - 1, tmp_path, told, polling=expected.startswith(_POLLED))
    assert in_words(ended, recording.sent_json(place)) == expected
    assert told.percents == sorted(told.percents)
    if isinstance(ended, JobResult):
        assert told.percents[-1] == 100 or not ended.artifacts
        if not sends_pictures(recording.sent_json(place)):
            assert sorted({artifact.name for artifact in ended.artifacts}) == recorded_files(recording, sent_last)


async def replayed(
    recording: Recording, post: int, folder: Path, told: Told, *, polling: bool
) -> tuple[JobResult | EmpError, int]:
    """How a job ends that sends what the recorded client sent, and the place of the last prompt that it took.

    That is a later one where the files of the first are gone: the connector sends it once more, as the recorded client did.
    """
    sent = recording.sent_json(recording.posts()[post])
    payload = {key: sent[key] for key in ("prompt", "partial_execution_targets") if key in sent}
    # Interrupts and deletions were made by the recorded client: they pass by themselves.
    server = ReplayServer(recording, post=post, open_gates=("/interrupt", "/queue"))
    poll_s = "0.02" if polling else "1"
    async with server, rigged(server.url, folder, EMP_COMFYUI_CANCEL_S="0.2", EMP_COMFYUI_POLL_S=poll_s) as rig:
        with anyio.fail_after(30):
            try:
                ended: JobResult | EmpError = await rig.run(payload, told)
            except EmpError as error:
                if isinstance(error, InvalidJob) and not any(one.method == "POST" for one in server.requests):
                    error.details["reason"] = "refused before it is sent"
                ended = error
        posted = sum(request.method == "POST" and request.path == "/prompt" for request in server.requests)
        return ended, recording.posts()[post + max(0, posted - 1)]


def in_words(ended: JobResult | EmpError, sent: Any) -> str:
    """The outcome as the table has it."""
    if isinstance(ended, EmpError):
        details = ended.details
        about = [str(details[key]) for key in ("reason", "exception_type") if details.get(key)]
        about += [f"node {details['node_id']}"] if details.get("node_id") else []
        about += sorted({reason["type"] for node in details.get("node_errors", ()) for reason in node["errors"]})
        about += [details["error_type"]] if details.get("error_type") and not details.get("node_errors") else []
        return f"`{ended.code}`" + (f" ({', '.join(about)})" if about else "")
    parts = []
    if ended.artifacts and sends_pictures(sent):
        parts.append(f"{len(ended.artifacts)} pictures over the socket")
    elif ended.artifacts:
        parts.append(_listed([f"`{artifact.name}`" for artifact in ended.artifacts], "files"))
    if values := [node for node, told in ended.data["outputs"].items() if told["values"]]:
        parts.append(f"values of node {', '.join(values)}")
    if ended.usage["cached_nodes"]:
        parts.append(
            "from the cache" if ended.usage["cached_nodes"] == ended.usage["nodes"] else "partly from the cache"
        )
    return f"completed: {'; '.join(parts)}"


def sends_pictures(sent: Any) -> bool:
    return any("websocket" in node["class_type"].lower() for node in sent["prompt"].values())


def _listed(names: Sequence[str], what: str) -> str:
    shown = ", ".join(names[:_SHOWN_FILES])
    return shown if len(names) <= _SHOWN_FILES else f"{shown} … ({len(names)} {what})"


def recorded_files(recording: Recording, place: int) -> list[str]:
    """The names of the files that the prompt made: temporary ones only if there is nothing else."""
    prompt_id = recording.prompt_id_of(place)
    assert prompt_id is not None
    entry = HistoryEntry.read(prompt_id, recording.history_entry(prompt_id, place))
    assert entry is not None
    files, values = read_outputs(entry)
    files = (*files, *named_models(values))
    kept = {file.filename for file in files if file.type == "output"}
    if not kept and not values:
        kept = {file.filename for file in files if file.type == "temp"}
    return sorted(kept)
