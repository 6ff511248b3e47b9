"""What a real server once said, replayed byte for byte: each prompt ends as a person who reads the recording expects.

A prompt that the recording shows to have ended in success gives exactly the files of its history entry; all others are
listed here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from emp_comfyui.history import HistoryEntry
from emp_comfyui.outputs import read_outputs
from emp_comfyui.testing import Recording, ReplayServer

from emp_core.errors import ConnectionLost, EmpError, InvalidJob, JobFailed, MissingNode, OutOfMemory, ServiceBroken

from .rig import Told, rigged

RECORDINGS = Path(__file__).parent / "recordings"

# Scenario → number of its `POST /prompt` → the error, and its reason or the id of the node.
OTHERWISE: Mapping[str, Mapping[int, tuple[type[EmpError], str | None]]] = {
    "03_cached_repeat": {6: (JobFailed, "output_missing")},
    "06_execution_errors": {
        0: (JobFailed, "3"),
        1: (JobFailed, "3"),
        2: (InvalidJob, None),
        3: (JobFailed, "1"),
        4: (OutOfMemory, "2"),
        5: (JobFailed, "3"),
    },
    "07_invalid_prompts": {8: (MissingNode, None), **dict.fromkeys((*range(4, 8), *range(9, 31)), (InvalidJob, None))},
    "08_interrupt": dict.fromkeys((0, 1, 5, 6, 8), (JobFailed, "interrupted")),
    "09_queue": dict.fromkeys((2, 8, 9, 11), (ConnectionLost, "prompt_lost")),
    "12b_same_id_and_number": {
        2: (InvalidJob, "server_error"),
        **dict.fromkeys((4, 5, 6, 7), (ConnectionLost, "prompt_lost")),
        8: (ServiceBroken, "queue_dead"),
    },
    "13d_upload": {4: (JobFailed, "1")},
    "15_server_killed": dict.fromkeys((1, 2), (ConnectionLost, "prompt_lost")),
    "15b_server_stopped": dict.fromkeys((1, 3), (ConnectionLost, "prompt_lost")),
    "16_non_image_outputs": dict.fromkeys((16, 17), (JobFailed, "no_output")),
    "17_expanded_nodes": {2: (JobFailed, "5")},
    "18_async_nodes": {1: (JobFailed, "2")},
    "19_list_outputs": {1: (JobFailed, "2")},
    "21_partly_valid": {0: (InvalidJob, None), 2: (InvalidJob, None), 3: (InvalidJob, None)},
}

# The recording does not show how these ended, or lost their files before anybody asked for them; 08b is statistics.
UNTOLD = {
    ("03_cached_repeat", 5),
    ("11b_same_client_id_twice", 1),
    ("24_slow_reader", 0),
    *(("08b_interrupt_too_early", number) for number in range(4)),
}


def replays() -> Iterator[Any]:
    for path in sorted(RECORDINGS.glob("*.json")):
        recording = Recording.load(path)
        for number, place in enumerate(recording.posts()):
            client_id = recording.client_id_of(place)
            has_socket = client_id is not None and bool(recording.sockets_of(client_id))
            if has_socket and (path.stem, number) not in UNTOLD:
                yield pytest.param(recording, number, path.stem, id=f"{path.stem}-{number}")


@pytest.mark.parametrize(("recording", "number", "scenario"), list(replays()))
async def test_a_recorded_prompt_ends_as_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: Recording, number: int, scenario: str
):
    monkeypatch.setattr("emp_comfyui.truth._DEAD_QUEUE_S", 0.5)
    sent = recording.sent_json(recording.posts()[number])
    payload = {key: sent[key] for key in ("prompt", "partial_execution_targets") if key in sent}
    told, error, result = Told(), None, None
    expected = OTHERWISE.get(scenario, {}).get(number)
    # What is lost only polling tells; everything else the frames do, and quick polls would overtake them.
    poll_s = "0.02" if expected is not None and expected[0] in (ConnectionLost, ServiceBroken) else "1"
    # Interrupts and deletions were made by the recorded client: they pass by themselves.
    server = ReplayServer(recording, post=number, open_gates=("/interrupt", "/queue"))
    async with server, rigged(server.url, tmp_path, EMP_COMFYUI_CANCEL_S="0.2", EMP_COMFYUI_POLL_S=poll_s) as rig:
        with anyio.fail_after(30):
            try:
                result = await rig.run(payload, told)
            except EmpError as raised:
                error = raised
    assert told.percents == sorted(told.percents)
    if expected is not None:
        assert type(error) is expected[0]
        assert expected[1] in (None, error.details.get("reason"), error.details.get("node_id"))
        return
    assert error is None
    assert result is not None
    assert told.percents[-1] == 100 or not result.artifacts
    if not any("websocket" in node["class_type"].lower() for node in sent["prompt"].values()):
        assert sorted({artifact.name for artifact in result.artifacts}) == recorded_files(recording, number)


def recorded_files(recording: Recording, number: int) -> list[str]:
    """The names of the files that the prompt made: temporary ones only if there is nothing else."""
    place = recording.posts()[number]
    prompt_id = recording.prompt_id_of(place)
    assert prompt_id is not None
    entry = HistoryEntry.read(prompt_id, recording.history_entry(prompt_id, place))
    assert entry is not None
    files, values = read_outputs(entry)
    kept = {file.filename for file in files if file.type == "output"}
    if not kept and not values:
        kept = {file.filename for file in files if file.type == "temp"}
    return sorted(kept)
