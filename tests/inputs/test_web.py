"""Files from URLs: fetched whole, never more than was allowed, and again when that may help."""

import hashlib
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from emp_core.errors import InputError, InputUnavailable
from tests.connectors.web import serving

from .sources import HTML, PNG, Pauses, attempt, files_below, job, ref, taking

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(*answers: web.Response | Answer) -> tuple[Answer, list[str]]:
    """A server that gives these answers, the last one again and again; and the paths that it was asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path_qs)
        one = answers[min(len(asked), len(answers)) - 1]
        if isinstance(one, web.Response):
            return web.Response(status=one.status, headers=one.headers.copy(), body=one.body)
        return await one(request)

    return answer, asked


def gzipped(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    return packer.compress(data) + packer.flush()


async def test_a_file_is_fetched_with_its_name_type_and_checksum(tmp_path: Path) -> None:
    answer, _ = answering(web.Response(body=PNG, content_type="binary/octet-stream"))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        found = await inputs.fetch(ref(url=f"{base}/a%20cat.png?sig=1", sha256=hashlib.sha256(PNG).hexdigest()))
        assert (found.name, found.media_type, found.size_bytes) == ("a cat.png", "image/png", len(PNG))
        assert await found.read() == PNG
        assert b"".join([chunk async for chunk in found.chunks()]) == PNG
        with found.open() as file:
            assert file.read() == PNG
    assert [path.name for path in files_below(tmp_path) if path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="cat.png"', "cat.png"),
        ("attachment; filename*=UTF-8''gr%C3%BCn.png", "grün.png"),
        ('attachment; filename="../../etc/cat.png"', "cat.png"),
        ('attachment; filename="..\\\\cat.png"', "cat.png"),
        ("attachment", "x.png"),
        ('attachment; filename="' + "a" * 300 + '.png"', "a" * 116 + ".png"),
    ],
)
async def test_a_name_from_a_server_never_leads_out_of_a_folder(tmp_path: Path, header: str, name: str) -> None:
    answer, _ = answering(web.Response(body=PNG, headers={"content-disposition": header}))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        assert (await inputs.fetch(ref(url=f"{base}/x.png"))).name == name


async def test_a_file_without_a_name_gets_one_by_its_type(tmp_path: Path) -> None:
    answer, _ = answering(web.Response(body=PNG))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        assert (await inputs.fetch(ref(url=base))).name == "input.png"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_busy_or_broken_server_is_asked_again(tmp_path: Path, status: int) -> None:
    answer, asked = answering(web.Response(status=status), web.Response(status=status), web.Response(body=PNG))
    ready = taking(tmp_path)
    async with serving(answer) as base, attempt(ready, job()) as inputs:
        assert await (await inputs.fetch(ref(url=base))).read() == PNG
    assert len(asked) == 3
    assert isinstance(ready.web.pause, Pauses)
    assert ready.web.pause.told == [0.5, 1.0]


async def test_a_server_that_stays_broken_is_given_up_for_this_attempt(tmp_path: Path) -> None:
    answer, asked = answering(web.Response(status=503))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputUnavailable, match="answered 503"):
            await inputs.fetch(ref(url=base))
    assert len(asked) == 3


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410])
async def test_what_asking_again_cannot_mend_is_not_asked_again(tmp_path: Path, status: int) -> None:
    answer, asked = answering(web.Response(status=status))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError, match=f"answered {status}") as caught:
            await inputs.fetch(ref(url=base))
    assert not isinstance(caught.value, InputUnavailable)
    assert len(asked) == 1


async def test_a_connection_that_breaks_is_begun_again_from_the_beginning(tmp_path: Path) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": str(len(PNG))})
        await response.prepare(request)
        await response.write(PNG[:20])
        assert request.transport is not None
        request.transport.close()
        return response

    answer, asked = answering(broken, web.Response(body=PNG))
    async with serving(answer) as base, attempt(taking(tmp_path, input_max_bytes=len(PNG)), job()) as inputs:
        assert await (await inputs.fetch(ref(url=base))).read() == PNG
    assert len(asked) == 2


async def test_nothing_listens_there_is_an_input_that_is_not_to_be_had_now(tmp_path: Path) -> None:
    async with serving(answering(web.Response())[0]) as base:
        pass
    async with attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputUnavailable, match="could not be fetched"):
            await inputs.fetch(ref(url=base))


async def test_redirects_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    on = web.Response(status=302, headers={"location": "/next.png?again"}, body=b"x" * 100_000)
    answer, asked = answering(on, on, web.Response(body=PNG))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        found = await inputs.fetch(ref(url=f"{base}/first"))
        assert (found.name, asked) == ("next.png", ["/first", "/next.png?again", "/next.png?again"])
    answer, asked = answering(on)
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError, match="more than 5 redirects"):
            await inputs.fetch(ref(url=base))
    assert len(asked) == 6


@pytest.mark.parametrize(
    "to", ["http://169.254.169.254/", "file:///etc/passwd", "http://127.1/", "http://u:p@127.0.0.1/"]
)
async def test_a_redirect_to_where_jobs_may_not_reach_is_refused(tmp_path: Path, to: str) -> None:
    answer, asked = answering(web.Response(status=307, headers={"location": to}))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError) as caught:
            await inputs.fetch(ref(url=base))
    assert len(asked) == 1 or to.startswith("file")
    assert "p@" not in str(caught.value)


async def test_a_private_address_is_refused_at_once_and_not_asked(tmp_path: Path) -> None:
    answer, asked = answering(web.Response(body=PNG))
    async with serving(answer) as base, attempt(taking(tmp_path, private_hosts=()), job()) as inputs:
        with pytest.raises(InputError, match="EMP_PRIVATE_HOSTS") as caught:
            await inputs.fetch(ref(url=f"{base}/?sig=geheim"))
    assert caught.value.details["reason"] == "private_address"
    assert "geheim" not in str(caught.value)
    assert not asked


async def test_a_file_that_says_it_is_too_large_is_not_read(tmp_path: Path) -> None:
    sent: list[int] = []

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "1000000000"})
        await response.prepare(request)
        sent.append(1)
        return response

    async with serving(large) as base, attempt(taking(tmp_path, input_max_bytes=1000), job()) as inputs:
        with pytest.raises(InputError, match="more than 1,000 bytes"):
            await inputs.fetch(ref(url=base))
        assert not files_below(tmp_path / "data")
    assert len(sent) == 1


@pytest.mark.parametrize("limit", [{"input_max_bytes": 300_000}, {}])
async def test_a_file_that_does_not_say_how_large_it_is_is_counted(tmp_path: Path, limit: dict[str, int]) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while True:
            await response.write(bytes(100_000))

    said = {} if limit else {"max_bytes": 300_000}
    async with serving(endless) as base, attempt(taking(tmp_path, **limit), job()) as inputs:
        with pytest.raises(InputError, match="300,000 bytes") as caught:
            await inputs.fetch(ref(url=base, **said))
    assert caught.value.details["reason"] == "too_large"


async def test_a_few_packed_bytes_do_not_become_gigabytes(tmp_path: Path) -> None:
    bomb = gzipped(bytes(50_000_000))
    assert len(bomb) < 100_000
    answer, _ = answering(web.Response(body=bomb, headers={"content-encoding": "gzip"}))
    async with serving(answer) as base, attempt(taking(tmp_path, input_max_bytes=1_000_000), job()) as inputs:
        with pytest.raises(InputError, match="more than 1,000,000 bytes"):
            await inputs.fetch(ref(url=base))
        assert sum(path.stat().st_size for path in files_below(tmp_path / "data")) <= 1_000_000


@pytest.mark.parametrize("packed", [gzipped, zlib.compress])
async def test_a_file_that_is_packed_all_the_same_is_unpacked(tmp_path: Path, packed: Callable[[bytes], bytes]) -> None:
    data = PNG + bytes(200_000)
    encoding = "gzip" if packed is gzipped else "deflate"
    answer, _ = answering(web.Response(body=packed(data), headers={"content-encoding": encoding}))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        assert await (await inputs.fetch(ref(url=base))).read() == data


@pytest.mark.parametrize(
    ("encoding", "body", "why"),
    [
        ("br", b"x", "packs files as 'br'"),
        ("gzip", b"not packed", "cannot be unpacked"),
        ("gzip", gzipped(PNG)[:-9], "ended"),
    ],
)
async def test_what_cannot_be_unpacked_is_told(tmp_path: Path, encoding: str, body: bytes, why: str) -> None:
    answer, _ = answering(web.Response(body=body, headers={"content-encoding": encoding}))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError, match=why):
            await inputs.fetch(ref(url=base))


async def test_an_error_page_in_place_of_a_picture_is_no_picture(tmp_path: Path) -> None:
    answer, _ = answering(web.Response(body=HTML, content_type="image/png"))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError, match="it is text/html, and image/png was said"):
            await inputs.fetch(ref(url=f"{base}/cat.png", media_type="image/png"))
        with pytest.raises(InputError, match=r"cat\.png is text/html, and image/\* is needed here"):
            await inputs.fetch(ref(url=f"{base}/cat.png"), accept=("image/*",))


async def test_another_file_than_was_meant_is_refused(tmp_path: Path) -> None:
    answer, _ = answering(web.Response(body=PNG))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError, match="checksum is another"):
            await inputs.fetch(ref(url=base, sha256="0" * 64))


async def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    answer, _ = answering(web.Response(body=b""))
    async with serving(answer) as base, attempt(taking(tmp_path), job()) as inputs:
        with pytest.raises(InputError, match="empty"):
            await inputs.fetch(ref(url=base))
