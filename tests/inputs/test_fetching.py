"""The files of a job: from wherever they come, once each, and all errors by their place."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from emp_core.errors import InputError, InputUnavailable, ServiceUnavailable
from emp_core.inputs.files import Input, safe_name
from emp_core.jobs.inputs import InputPlace
from tests.connectors.web import serving

from .sources import HTML, PNG, WAV, attempt, files_below, job, ref, taking


def inline(data: bytes, **said: Any) -> dict[str, Any]:
    return {"$input": {"base64": b64encode(data).decode(), **said}}


async def uploaded(at: InputPlace, found: Input) -> str:
    return f"{at} as {found.name}"


async def test_the_bytes_in_a_payload_are_a_file_like_any_other(tmp_path: Path) -> None:
    async with attempt(taking(tmp_path), job()) as inputs:
        found = await inputs.fetch(ref(**inline(PNG)["$input"]))
        assert (found.name, found.media_type, await found.read()) == ("input.png", "image/png", PNG)
        named = await inputs.fetch(ref(**inline(WAV, name="voice.wav")["$input"]))
        assert (named.name, named.media_type) == ("voice.wav", "audio/wav")


async def test_a_file_of_an_allowed_folder_is_copied_so_that_it_stays_as_it_is(tmp_path: Path) -> None:
    cat = tmp_path / "shared" / "cat.png"
    cat.parent.mkdir()
    cat.write_bytes(PNG)
    async with attempt(taking(tmp_path, input_folders=(str(cat.parent),)), job()) as inputs:
        found = await inputs.fetch(ref(path=str(cat)))
        cat.write_bytes(b"changed")
        assert (found.name, await found.read()) == ("cat.png", PNG)
    assert cat.read_bytes() == b"changed"


async def test_every_file_of_a_payload_is_replaced_by_what_is_made_of_it(tmp_path: Path) -> None:
    payload = {"a": inline(PNG, name="a.png"), "list": [inline(WAV, name="b.wav"), 7], "text": "stays"}
    async with attempt(taking(tmp_path), job()) as inputs:
        assert await inputs.replaced(payload, uploaded) == {
            "a": "payload.a as a.png",
            "list": ["payload.list[0] as b.wav", 7],
            "text": "stays",
        }
        assert {at: found.name for at, found in (await inputs.fetch_all(payload)).items()} == {
            ("a",): "a.png",
            ("list", 0): "b.wav",
        }
        assert await inputs.replaced({"text": "none"}, uploaded) == {"text": "none"}


async def test_what_is_referred_to_twice_is_fetched_once(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=PNG)

    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        one = {"$input": {"url": f"{base}/cat.png"}}
        found = await inputs.fetch_all([one, one, {"again": one}])
        assert len({file.path for file in found.values()}) == 1
    assert asked == ["/cat.png"]


async def test_files_are_fetched_side_by_side_but_only_a_few_at_a_time(tmp_path: Path) -> None:
    now = most = 0
    full = anyio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 4:
            full.set()
        await full.wait()
        now -= 1
        return web.Response(body=PNG)

    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        with anyio.fail_after(10):
            found = await inputs.fetch_all([{"$input": {"url": f"{base}/{number}.png"}} for number in range(12)])
    assert (len(found), most) == (12, 4)


async def test_the_files_of_a_job_share_one_limit(tmp_path: Path) -> None:
    files = [inline(PNG + bytes([number]) * 100) for number in range(10)]
    async with attempt(taking(tmp_path, input_max_bytes=900), job()) as inputs:
        with pytest.raises(InputError, match="more than 900 bytes together"):
            await inputs.fetch_all(files)
    async with attempt(taking(tmp_path, input_max_bytes=10 * (len(PNG) + 100)), job()) as inputs:
        assert len(await inputs.fetch_all(files)) == 10


async def test_a_file_that_was_refused_takes_nothing_of_the_limit(tmp_path: Path) -> None:
    async with attempt(taking(tmp_path, input_max_bytes=len(PNG)), job()) as inputs:
        with pytest.raises(InputError, match="and image/png was said"):
            await inputs.fetch(ref(**inline(HTML, media_type="image/png")["$input"]))
        assert (await inputs.fetch(ref(**inline(PNG)["$input"]))).size_bytes == len(PNG)


async def test_an_error_names_the_place_of_the_file(tmp_path: Path) -> None:
    payload = {"images": [inline(PNG), inline(HTML)]}
    async with attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError, match=r"^payload\.images\[1\]: .* is text/html") as caught:
            await inputs.replaced(payload, uploaded, accept=("image/*",))
    assert caught.value.details["input"] == "payload.images[1]"


async def test_references_that_cannot_be_read_are_listed_before_anything_is_fetched(tmp_path: Path) -> None:
    async with attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError, match=r"payload\.a: .*payload\.c: ") as caught:
            await inputs.fetch_all({"a": {"$input": {}}, "b": inline(PNG), "c": {"$input": 7}})
        assert len(caught.value.details["problems"]) == 2
        assert not files_below(tmp_path)


async def test_of_several_failures_the_one_that_nothing_can_mend_decides(tmp_path: Path) -> None:
    here: list[InputPlace] = []
    both = anyio.Event()

    async def fails(at: InputPlace, _: Input) -> str:
        here.append(at)
        if len(here) == 2:
            both.set()
        await both.wait()
        raise InputUnavailable("not now") if at is here[0] else InputError("never")

    async with attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError, match="never") as caught:
            await inputs.replaced([inline(PNG), inline(WAV)], fails)
    assert type(caught.value) is InputError


async def test_what_the_maker_raises_is_raised_as_it_is(tmp_path: Path) -> None:
    async def fails(_: InputPlace, __: Input) -> str:
        raise ServiceUnavailable("the service is away")

    async with attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(ServiceUnavailable, match="the service is away"):
            await inputs.replaced([inline(PNG), inline(WAV)], fails)


async def test_a_cancelled_attempt_leaves_no_file_and_no_connection(tmp_path: Path) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(PNG + bytes(1_000_000))
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        return response

    async def fetch(base: str) -> None:
        async with attempt(taking(tmp_path), job()) as inputs:
            await inputs.fetch(ref(url=base))

    async with serving(endless) as base:
        async with anyio.create_task_group() as group:
            group.start_soon(fetch, base)
            await begun.wait()
            group.cancel_scope.cancel()
        with anyio.fail_after(5):
            await ended.wait()
    assert [path.suffix for path in files_below(tmp_path)] in ([], [".lock"])


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("cat.png", "cat.png"),
        ("a/b/../cat.png", "cat.png"),
        ("C:\\Users\\me\\cat.png", "cat.png"),
        ("..", ""),
        ("", ""),
        ("/", ""),
        (" .hidden. ", "hidden"),
        ("a\0b\n.png", "a_b_.png"),
        ('a<b>:"|?*.png', "a_b______.png"),
        ("ü" * 100 + ".png", "ü" * 58 + ".png"),
        ("." + "x" * 300, "x" * 120),
    ],
)
def test_names_from_outside_become_plain_file_names(told: str, name: str) -> None:
    assert safe_name(told) == name
    assert len(safe_name(told).encode()) <= 120
