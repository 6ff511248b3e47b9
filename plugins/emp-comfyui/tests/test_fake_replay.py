"""The replay server says to a client what the recorded server said, under the client's own ids."""

import json
from pathlib import Path

import aiohttp
import pytest
from emp_comfyui.testing import ReplayServer
from emp_comfyui.testing.recording import Recording

from .fake_client import Watcher, types, watching

RECORDINGS = Path(__file__).parent / "recordings"


def load(name: str) -> Path:
    return next(RECORDINGS.glob(f"{name}_*.json"))


async def test_a_whole_run_is_replayed_under_the_clients_own_ids() -> None:
    async with ReplayServer(load("01")) as server, watching(server.url) as client:
        answer = await client.submit(server.graph, prompt_id="mine")
        await client.until("end")
        entry = (await client.json("/history/mine"))["mine"]
        assert answer == {"status": 200, "prompt_id": "mine", "number": 0, "node_errors": {}}
        recorded = [e["json"]["type"] for e in Recording.load(load("01")).events if e["kind"] == "ws_recv"]
        assert types(client.frames) == recorded
        assert all("679ad470" not in json.dumps(frame) for frame in client.frames)
        assert entry["prompt"][1] == "mine"
        assert entry["prompt"][3]["client_id"] == "me"
        assert entry["outputs"] == {
            "3": {"images": [{"filename": "single_00001_.png", "subfolder": "", "type": "output"}]}
        }
        async with client.session.get("/view?filename=single_00001_.png&subfolder=&type=output") as file:
            assert (await file.read()).startswith(b"\x89PNG")
        assert await client.json("/history/other") == {}


async def test_history_and_queue_follow_the_timeline() -> None:
    async with ReplayServer(load("08"), post=0) as server, watching(server.url) as client:
        await client.submit(server.graph, prompt_id="mine")
        await client.until("progress")
        await client.until("progress")
        queue = await client.json("/queue")
        assert [item[1] for item in queue["queue_running"]] == ["mine"]
        assert await client.json("/history/mine") == {}
        async with client.session.post("/interrupt", json={"prompt_id": "mine"}) as response:
            assert response.status == 200
        frame = await client.until("execution_interrupted")
        assert frame["data"]["prompt_id"] == "mine"
        await client.until("end")
        status = (await client.json("/history/mine"))["mine"]["status"]
        assert (status["status_str"], status["messages"][-1][0]) == ("error", "execution_interrupted")
        assert await client.json("/queue") == {"queue_running": [], "queue_pending": []}


async def test_metadata_of_binary_frames_names_the_clients_prompt() -> None:
    async with ReplayServer(load("14")) as server, watching(server.url) as client:
        await client.submit(server.graph, prompt_id="a-much-longer-id-than-the-recorded-one-was")
        await client.until("end")
        previews = [frame for frame in client.frames if isinstance(frame, bytes)]
        assert len(previews) == 3
        length = int.from_bytes(previews[0][4:8], "big")
        metadata = json.loads(previews[0][8 : 8 + length])
        assert metadata["prompt_id"] == "a-much-longer-id-than-the-recorded-one-was"
        assert previews[0][8 + length :].startswith(b"\xff\xd8")


async def test_further_prompts_of_the_recorded_client_are_replayed_in_turn() -> None:
    async with ReplayServer(load("03")) as server, watching(server.url) as client:
        await client.submit(server.graph, prompt_id="one")
        await client.until("end")
        await client.submit(server.graph, prompt_id="two")
        cached = await client.until("execution_cached")
        await client.until("end")
        assert cached["data"]["nodes"] == ["1", "2", "3"]
        assert list(await client.json("/history")) == ["one", "two"]


async def test_a_recorded_refusal_can_be_chosen_by_its_note() -> None:
    async with ReplayServer(load("07"), post="number below the minimum") as server, watching(server.url) as client:
        answer = await client.submit(server.graph)
        assert answer["status"] == 400
        assert answer["node_errors"]["1"]["errors"][0]["type"] == "value_smaller_than_min"


async def test_a_lost_socket_is_cut_and_the_next_one_gets_what_the_recorded_one_got() -> None:
    async with ReplayServer(load("11")) as server, watching(server.url) as client:
        await client.submit(server.graph, prompt_id="mine")
        await client.until("progress")
        await client.until("progress")
        message = await client.socket.receive(timeout=5)
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.ERROR)
        assert client.socket.close_code == 1006
        async with client.session.ws_connect("/ws?clientId=me") as socket:
            again = Watcher(client.session, socket)
            await again.until("end")
        assert types(again.frames)[:3] == ["status", "executing", "progress_state"]
        assert "mine" in await client.json("/history/mine")


async def test_a_server_that_died_knows_nothing_afterwards() -> None:
    async with ReplayServer(load("15"), post=1) as server, watching(server.url) as client:
        await client.submit(server.graph, prompt_id="mine")
        for _ in range(3):
            await client.until("progress")
        await client.socket.receive(timeout=5)
        assert client.socket.close_code == 1006
        assert await client.json("/history/mine") == {}
        assert await client.json("/queue") == {"queue_running": [], "queue_pending": []}


async def test_a_file_nobody_fetched_comes_as_bytes_of_its_kind() -> None:
    async with ReplayServer(load("16")) as server, aiohttp.ClientSession(server.url) as session:
        for name, magic in (
            ("x.png", b"\x89PNG"),
            ("x.flac", b"fLaC"),
            ("x.webp", b"RIFF"),
            ("x.webm", b"\x1a\x45\xdf\xa3"),
        ):
            async with session.get("/view", params={"filename": name}) as response:
                assert (await response.read()).startswith(magic)


async def test_when_the_recording_is_over_a_prompt_is_refused_in_words() -> None:
    async with ReplayServer(load("01")) as server, watching(server.url) as client:
        await client.submit(server.graph)
        await client.until("end")
        await server.finished.wait()
        async with client.session.post("/prompt", json={"prompt": server.graph}) as response:
            assert response.status == 503
            assert "no further POST /prompt" in await response.text()


# In these the first watched prompt was not seen to its end on the socket that it was posted with.
ENDS_UNSEEN = {"11b", "24", "11"}


def watched_recordings() -> list[Path]:
    found = []
    for path in sorted(RECORDINGS.glob("*.json")):
        recording = Recording.load(path)
        watched = {
            event["request"].get("query", {}).get("clientId")
            for event in recording.events
            if event["kind"] == "ws_open"
        }
        posts = [
            post
            for post in recording.posts()
            if recording.status(post) == 200 and recording.client_id_of(post) in watched
        ]
        if posts and path.stem.partition("_")[0] not in ENDS_UNSEEN:
            found.append(path)
    return found


def test_most_recordings_have_a_prompt_to_replay() -> None:
    assert len(watched_recordings()) == 31


@pytest.mark.parametrize("path", watched_recordings(), ids=lambda path: path.stem)
async def test_every_watched_prompt_is_replayed_to_its_end(path: Path) -> None:
    async with ReplayServer(path, open_gates=("/interrupt", "/queue")) as server, watching(server.url) as client:
        answer = await client.submit(server.graph)
        end = await client.until("end")
        assert end["data"]["prompt_id"] == answer["prompt_id"]
        assert answer["prompt_id"] in await client.json(f"/history/{answer['prompt_id']}")
