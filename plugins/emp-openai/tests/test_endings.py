"""Where an answer ends: with its last word, whatever becomes of its connection after that."""

import base64
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from emp_openai.testing.talk import PICTURE

from emp_core.errors import ConnectionLost, JobFailed, NotRepeated
from emp_core.testing.conformance.rig import RunningJob
from emp_core.testing.recorded import Exchange, RecordedService

from .rig import chat, rigged

PAINT = {"model": "fake", "prompt": "a cat", "partial_images": 1}
DONE = "data: [DONE]\n\n"


def event(**told: Any) -> str:
    return f"data: {json.dumps(told)}\n\n"


def chunk(text: str = "", finish: str | None = None, index: int = 0) -> str:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return event(id="c", choices=[choice])


def completed(picture: str = PICTURE) -> str:
    return event(type="image_generation.completed", b64_json=picture, usage={"total_tokens": 3})


async def run(
    folder: Path,
    payload: dict[str, Any],
    *frames: str,
    path: str = "/chat/completions",
    ends: Literal["whole", "broken", "client"] = "whole",
    media_type: str = "text/event-stream",
    **environ: str,
) -> RunningJob:
    """A job whose answer is these frames; ``client`` leaves its connection open and says nothing more."""
    answer = Exchange("", "POST", f"/v1{path}", None, 200, {"content-type": media_type}, frames, ends)
    async with RecordedService([answer], others={"/v1/models": {"data": []}}) as server:
        told = {"OPENAI_BASE_URL": f"{server.url}/v1", "EMP_OPENAI_SILENCE_S": "3", **environ}
        async with rigged(told, folder) as rig:
            return await rig.run(payload)


async def paint(folder: Path, *frames: str, **how: Any) -> RunningJob:
    return await run(folder, how.pop("payload", PAINT), *frames, path="/images/generations", **how)


async def embed(folder: Path, texts: Any, *vectors: Any) -> RunningJob:
    payload = {"model": "fake", "task": "embeddings", "input": texts}
    told = json.dumps({"data": [{"index": place, "embedding": one} for place, one in enumerate(vectors)]})
    return await run(folder, payload, told, path="/embeddings", media_type="application/json")


# -- chats ---------------------------------------------------------------------------------------------------------------


async def test_a_chat_ends_with_its_last_word_though_its_connection_stays_open(tmp_path: Path) -> None:
    job = await run(tmp_path, chat("hello"), chunk("Hello"), chunk(finish="stop"), DONE, ends="client")
    assert (await job.outcome()).data["text"] == "Hello"


async def test_a_chat_that_is_whole_counts_though_its_connection_breaks(tmp_path: Path) -> None:
    job = await run(tmp_path, chat("hello"), chunk("Hello"), chunk(finish="stop"), ends="broken")
    result = await job.outcome()
    assert (result.data["text"], result.data["finish_reason"], result.usage) == ("Hello", "stop", {})


async def test_one_of_two_answers_is_not_the_whole(tmp_path: Path) -> None:
    job = await run(tmp_path, chat("hello", n=2), chunk("Hello"), chunk(finish="stop"), ends="broken")
    assert isinstance(job.error, NotRepeated)


async def test_the_last_word_without_a_reason_to_finish_is_no_success(tmp_path: Path) -> None:
    frames = chunk("Hello"), DONE
    job = await run(tmp_path, chat("hello"), *frames, ends="client", EMP_OPENAI_RESEND="true")
    assert isinstance(job.error, ConnectionLost)


async def test_pictures_that_a_chat_gives_are_stored(tmp_path: Path) -> None:
    painted = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    choice = {"index": 0, "delta": {"content": "", "images": [painted]}, "finish_reason": None}
    job = await run(tmp_path, chat("paint"), event(id="c", choices=[choice]), chunk(finish="stop"), DONE)
    result = await job.outcome()
    [artifact] = result.artifacts
    assert artifact.media_type == "image/png"
    assert result.data["images"] == [artifact.url]


# -- pictures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["broken", "client"])
async def test_a_picture_that_came_counts_whatever_becomes_of_its_connection(
    tmp_path: Path, ends: Literal["broken", "client"]
) -> None:
    job = await paint(tmp_path, completed(), ends=ends)
    result = await job.outcome()
    assert len(result.artifacts) == 1
    assert result.usage["total_tokens"] == 3


async def test_one_of_two_pictures_is_not_the_whole(tmp_path: Path) -> None:
    job = await paint(tmp_path, completed(), ends="broken", payload={**PAINT, "n": 2})
    assert isinstance(job.error, NotRepeated)


async def test_a_large_picture_is_taken_whole(tmp_path: Path) -> None:
    large = base64.b64encode(base64.b64decode(PICTURE) + bytes(13 * 2**20)).decode()
    job = await paint(tmp_path, completed(large))
    [artifact] = (await job.outcome()).artifacts
    assert artifact.size_bytes > 13 * 2**20


async def test_a_preview_that_is_no_picture_does_not_end_what_is_being_painted(tmp_path: Path) -> None:
    words = base64.b64encode(b"not yet").decode()
    job = await paint(tmp_path, event(type="image_generation.partial_image", b64_json=words), completed())
    assert len((await job.outcome()).artifacts) == 1


# -- vectors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "vectors"),
    [("a", ()), (["a", "b"], ([1.0],)), (["a"], ([],)), ([1, 2], ([1.0], [2.0])), ([[1], [2]], ([1.0],))],
)
async def test_vectors_that_are_missing_are_no_success(tmp_path: Path, texts: Any, vectors: Any) -> None:
    job = await embed(tmp_path, texts, *vectors)
    assert isinstance(job.error, NotRepeated)
    assert job.error.details["because"] == JobFailed.code


@pytest.mark.parametrize(
    ("texts", "vectors"),
    [("a", ([1.0],)), (["a", "b"], ([1.0], [2.0])), ([1, 2], ([1.0],)), ([[1], [2]], ([1.0], "AAAA"))],
)
async def test_there_is_a_vector_for_every_text(tmp_path: Path, texts: Any, vectors: Any) -> None:
    job = await embed(tmp_path, texts, *vectors)
    assert (await job.outcome()).data["embeddings"] == list(vectors)
