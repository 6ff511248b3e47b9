"""A machine that is about to go is heard of, whoever tells it, and its worker drains."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define, evolve, field

from emp_core.config import Settings
from emp_core.errors import ConfigError
from emp_core.jobs.model import JobSpec
from emp_core.jobs.states import JobState
from emp_core.queue.queue import JobQueue
from emp_core.testing.steered import Steering, steered_binding
from emp_core.testing.workers import WorkerStarter
from emp_core.worker import notices
from emp_core.worker.notices import CLOUDS, MetadataPoll, NoticeWatch, SignalFile, SpotNotice


@define
class Metadata:
    """A metadata server: by path, what it answers, the last answer for ever."""

    url: str = ""
    answers: dict[str, list[tuple[int, str]]] = field(factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(factory=list)


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    server = Metadata()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
            answers = server.answers.get(self.path, [(404, "")])
            status, text = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_GET  # noqa: N815 - the base class looks for it

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        server.url = f"http://127.0.0.1:{http_server.server_address[1]}"
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        http_server.shutdown()
        thread.join()


@define
class Waits:
    """Sleeps that return at once, so many; then it does something."""

    count: int = 0
    at: dict[int, Callable[[], Any]] = field(factory=dict)

    async def __call__(self, _seconds: float) -> None:
        self.count += 1
        self.at.get(self.count, lambda: None)()
        await anyio.lowlevel.checkpoint()


async def test_a_file_is_waited_for_and_its_first_line_is_the_reason(tmp_path: Path):
    path = tmp_path / "going"
    waits = Waits(at={3: lambda: path.write_text("outbid at 0.30\nand more")})
    with anyio.fail_after(10):
        assert await SignalFile(path, 5.0, sleep=waits).wait() == "outbid at 0.30"
    assert waits.count == 3


async def test_an_empty_file_is_a_notice_too(tmp_path: Path):
    (tmp_path / "going").touch()
    assert "going is there" in await SignalFile(tmp_path / "going", 5.0).wait()


async def test_a_file_that_cannot_be_looked_for_is_no_notice(tmp_path: Path):
    """Every worker of the fleet would drain for a mistake in a path."""
    (tmp_path / "file").touch()
    for path in (tmp_path / ("x" * 300), tmp_path / "file" / "going"):
        notice = SignalFile(path, 5.0)
        mend = partial(setattr, notice, "_path", anyio.Path(tmp_path / "file"))
        waits = Waits(at={3: mend})
        notice._sleep = waits
        with anyio.fail_after(10):
            assert "file is there" in await notice.wait()
        assert waits.count == 3


async def test_a_token_that_no_header_can_hold_is_asked_for_again(metadata: Metadata, monkeypatch: pytest.MonkeyPatch):
    aws = CLOUDS["aws"]
    here = evolve(aws, url=f"{metadata.url}/going", token_url=f"{metadata.url}/token")
    monkeypatch.setattr(notices, "CLOUDS", {"aws": here})
    metadata.answers = {"/token": [(200, "t\N{SNOWMAN}"), (200, "token")], "/going": [(200, "terminate")]}
    waits = Waits()
    with anyio.fail_after(10):
        assert await MetadataPoll("aws", 5.0, sleep=waits).wait() == "terminate"
    assert waits.count == 1


@pytest.mark.parametrize("quiet", [(404, ""), (204, ""), (200, ""), (200, "FALSE"), (200, "null"), (503, "wait")])
async def test_an_address_is_asked_until_it_tells(metadata: Metadata, quiet: tuple[int, str]):
    metadata.answers["/going"] = [quiet, quiet, (200, "terminating at noon")]
    waits = Waits()
    with anyio.fail_after(10):
        assert await MetadataPoll(f"{metadata.url}/going", 5.0, sleep=waits).wait() == "terminating at noon"
    assert waits.count == 2


async def test_a_server_that_is_away_is_asked_again(metadata: Metadata):
    gone = MetadataPoll("http://127.0.0.1:9/going", 5.0)
    found: list[str] = []

    def come_back() -> None:
        gone._metadata = evolve(gone._metadata, url=f"{metadata.url}/going")

    metadata.answers["/going"] = [(200, "now")]
    gone._sleep = Waits(at={2: come_back})
    with anyio.fail_after(20):
        found.append(await gone.wait())
    assert found == ["now"]


@pytest.mark.parametrize(
    ("cloud", "path", "before", "then", "told"),
    [
        ("gcp", "/computeMetadata/v1/instance/preempted", "FALSE", "TRUE", "it is preempted"),
        (
            "azure",
            "/metadata/scheduledevents?api-version=2020-07-01",
            json.dumps({"Events": [{"EventType": "Reboot"}]}),
            json.dumps({"Events": [{"EventType": "Preempt", "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT"}]}),
            "Preempt not before Mon, 19 Sep 2016 18:29:47 GMT",
        ),
        (
            "aws",
            "/latest/meta-data/spot/instance-action",
            None,
            '{"action": "terminate", "time": "2017-09-18T08:22:00Z"}',
            '{"action": "terminate", "time": "2017-09-18T08:22:00Z"}',
        ),
    ],
)
async def test_the_clouds_are_asked_as_each_wants_it(
    metadata: Metadata, monkeypatch: pytest.MonkeyPatch, cloud: str, path: str, before: str | None, then: str, told: str
):
    real = CLOUDS[cloud]
    assert real.url.endswith(path)
    token = None if real.token_url is None else f"{metadata.url}/latest/api/token"
    monkeypatch.setattr(notices, "CLOUDS", {cloud: evolve(real, url=f"{metadata.url}{path}", token_url=token)})
    metadata.answers["/latest/api/token"] = [(200, "the-token")]
    metadata.answers[path] = [(404, "") if before is None else (200, before), (200, then)]
    with anyio.fail_after(10):
        assert await MetadataPoll(cloud, 5.0, sleep=Waits()).wait() == told
    _, _, headers = metadata.seen[-1]
    wanted = {
        "gcp": ("metadata-flavor", "Google"),
        "azure": ("metadata", "true"),
        "aws": ("x-aws-ec2-metadata-token", "the-token"),
    }
    name, value = wanted[cloud]
    assert headers[name] == value


async def test_the_first_notice_counts_and_a_source_that_fails_ends_nothing():
    class Given(SpotNotice):
        def __init__(self, name: str, said: str | Exception | None) -> None:
            self.name = name
            self._said = said

        async def wait(self) -> str:
            if isinstance(self._said, Exception):
                raise self._said
            if self._said is None:
                await anyio.sleep_forever()
            return str(self._said)

    told: list[str] = []
    sources = [Given("broken", RuntimeError("no")), Given("silent", None), Given("true", "outbid")]
    with anyio.fail_after(10):
        await NoticeWatch(sources, told.append).run()
    assert told == ["spot notice: outbid"]


async def test_a_worker_that_is_told_drains_and_gives_back_what_does_not_end(
    queue: JobQueue, start_worker: WorkerStarter, steering: Steering, tmp_path: Path
):
    going = tmp_path / "going"
    started = await start_worker(steered_binding(steering), spot_file=going, spot_poll_s=0.1, grace_s=0.2)
    job = await queue.submit(JobSpec("steered"))
    await steering.next()
    going.write_text("outbid")
    with anyio.fail_after(20):
        await started.ended.wait()
    returned = await queue.get(job.id)
    assert returned.status is JobState.PENDING
    assert returned.attempt == 0


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="expected aws, azure, gcp"):
        Settings.from_env({"EMP_SPOT_URL": "amazon"})
