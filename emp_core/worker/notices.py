"""Notices that this machine is about to go: spot machines are told seconds or minutes before.

A worker that is told drains: it takes no more jobs, lets those that run end as far as the time goes, and gives back the rest.
Two sources are here; plugins bring others by the hook ``emp_register_spot_notices``.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx
from attrs import frozen

from emp_core.config import Settings
from emp_core.errors import PluginError
from emp_core.log.logger import get_logger
from emp_core.plugins.loaded import Plugins
from emp_core.worker.contained import contained

__all__ = ["MetadataPoll", "NoticeWatch", "SignalFile", "SpotNotice", "notices_of"]

log = get_logger("emp.notices")

_TIMEOUT_S = 5.0
_ANSWER_BYTES = 64 * 2**10
_SAID_MAX = 200
_LINK_LOCAL = "http://169.254.169.254"
_PREEMPTING = frozenset({"preempt", "terminate"})


class SpotNotice(ABC):
    """A source of notices.

    Attributes:
        name: what people call it, for logs.
    """

    name: str

    @abstractmethod
    async def wait(self) -> str:
        """Wait until the machine is about to go; gives why, in a few words. Cancelled when the worker ends.

        What stands in the way for a while, such as a server that does not answer, is its own to log and to get over.
        """


class SignalFile(SpotNotice):
    """A file that whoever manages the machine makes when it is about to go. Its first line is taken for the reason.

    Args:
        every_s: how often to look.
        sleep: waits; for tests.
    """

    def __init__(self, path: Path, every_s: float, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        self.name = f"the file {path}"
        self._path = anyio.Path(path)
        self._every_s = every_s
        self._sleep = sleep
        self._in_trouble = False

    async def wait(self) -> str:
        """Look until it is there."""
        while True:
            try:
                async with await self._path.open("rb") as file:
                    said = await file.read(_SAID_MAX)
            except FileNotFoundError:
                await self._sleep(self._every_s)
                continue
            except OSError as error:
                if await self._is_there():
                    return f"{self._path} is there, and cannot be read: {error.strerror}"
                self._note_trouble(error)
                await self._sleep(self._every_s)
                continue
            return said.decode(errors="replace").partition("\n")[0].strip() or f"{self._path} is there"

    async def _is_there(self) -> bool:
        """A path that this user may not look at tells nothing, and drains no machine."""
        try:
            await self._path.lstat()
        except OSError:
            return False
        return True

    def _note_trouble(self, error: OSError) -> None:
        """Once: it is looked for every few seconds."""
        if not self._in_trouble:
            self._in_trouble = True
            log.warning("a spot notice cannot be looked for", source=self.name, error=error.strerror)


@frozen
class _Metadata:
    """How a cloud's metadata server is asked, and what of its answers means that the machine goes."""

    url: str
    headers: Mapping[str, str]
    told: Callable[[str], str | None]
    token_url: str | None = None


class MetadataPoll(SpotNotice):
    """A metadata server that is asked again and again.

    Args:
        where: ``aws``, ``azure``, ``gcp``, or an address that answers 200 with a text when the machine is about to go, and until
            then 404, 204, nothing, ``FALSE`` or ``null``.
        every_s: how often to ask.
        sleep: waits; for tests.
    """

    def __init__(self, where: str, every_s: float, *, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        known = CLOUDS.get(where.lower())
        self._metadata = known or _Metadata(where, {}, _any_text)
        self.name = f"the metadata server of {where}" if known else f"the address {where}"
        self._every_s = every_s
        self._sleep = sleep
        self._in_trouble = False

    async def wait(self) -> str:
        """Ask until it says so. Proxies are not used: the address means this machine's own network."""
        async with httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_S, follow_redirects=False) as client:
            while True:
                said = await self._ask(client)
                if said is not None:
                    return said
                await self._sleep(self._every_s)

    async def _ask(self, client: httpx.AsyncClient) -> str | None:
        try:
            headers = dict(self._metadata.headers)
            if self._metadata.token_url is not None:
                lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
                token = await client.put(self._metadata.token_url, headers=lifetime)
                headers["X-aws-ec2-metadata-token"] = token.text.strip()
            async with client.stream("GET", self._metadata.url, headers=headers) as answer:
                text = await _text(answer)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: a token that no header can hold
            self._note_trouble(f"{type(error).__name__}: {error}")
            return None
        if answer.status_code >= 400 and answer.status_code != 404:
            self._note_trouble(f"it answers {answer.status_code}")
            return None
        self._in_trouble = False
        return self._metadata.told(text) if answer.status_code == 200 else None

    def _note_trouble(self, why: str) -> None:
        """Once until it works again: it is asked every few seconds."""
        if not self._in_trouble:
            log.warning("spot notices cannot be asked for", source=self.name, error=why)
        self._in_trouble = True


async def _text(answer: httpx.Response) -> str:
    """The beginning of an answer."""
    content = b""
    async for block in answer.aiter_raw():
        content += block
        if len(content) >= _ANSWER_BYTES:
            break
    return content[:_ANSWER_BYTES].decode(errors="replace").strip()


def _any_text(text: str) -> str | None:
    return None if text.lower() in ("", "false", "null", "none", "{}", "[]") else text[:_SAID_MAX]


def _gcp_told(text: str) -> str | None:
    return "it is preempted" if text.upper() == "TRUE" else None


def _azure_told(text: str) -> str | None:
    try:
        document: Any = json.loads(text)
    except ValueError:
        return None
    events = document.get("Events") if isinstance(document, dict) else None
    for event in events if isinstance(events, list) else []:
        if isinstance(event, dict) and str(event.get("EventType", "")).lower() in _PREEMPTING:
            return f"{event['EventType']} not before {event.get('NotBefore') or 'now'}"
    return None


CLOUDS: Mapping[str, _Metadata] = {
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    "aws": _Metadata(
        f"{_LINK_LOCAL}/latest/meta-data/spot/instance-action", {}, _any_text, f"{_LINK_LOCAL}/latest/api/token"
    ),
    # https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
    "azure": _Metadata(
        f"{_LINK_LOCAL}/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"}, _azure_told
    ),
    # https://cloud.google.com/compute/docs/instances/create-use-preemptible#detecting_if_an_instance_was_preempted
    "gcp": _Metadata(
        "http://metadata.google.internal/computeMetadata/v1/instance/preempted",
        {"Metadata-Flavor": "Google"},
        _gcp_told,
    ),
}
"""What ``EMP_SPOT_URL`` may say instead of an address."""


def notices_of(settings: Settings, plugins: Plugins, environ: Mapping[str, str]) -> tuple[SpotNotice, ...]:
    """The sources that the settings name, and those of plugins. A plugin's target is called with ``environ``, and gives None
    where it has nothing to watch.

    Raises:
        PluginError: a plugin's cannot be used.
    """
    found: list[SpotNotice] = []
    if settings.spot_file is not None:
        found.append(SignalFile(settings.spot_file, settings.spot_poll_s))
    if settings.spot_url is not None:
        found.append(MetadataPoll(settings.spot_url, settings.spot_poll_s))
    for registered in plugins.spot_notices.values():
        made = plugins.load_target(registered)(environ)
        if made is None:
            continue
        if not isinstance(made, SpotNotice):
            raise PluginError(
                f"{registered.registration.target} of the plugin {registered.plugin} makes no source of spot notices",
                hint="it must give a subclass of emp_core.SpotNotice, or None",
            )
        found.append(made)
    return tuple(found)


class NoticeWatch:
    """Waits for the first notice of any source.

    Args:
        on_notice: told why the machine goes, once.
    """

    def __init__(self, sources: Sequence[SpotNotice], on_notice: Callable[[str], None]) -> None:
        self._sources = sources
        self._on_notice = on_notice
        self._told = False

    async def run(self) -> None:
        """Watch until there was a notice, or until cancelled. A source that fails is logged, and the others go on."""
        async with anyio.create_task_group() as group:
            for source in self._sources:
                group.start_soon(self._watch, source, group.cancel_scope, name=f"emp notices from {source.name}")

    async def _watch(self, source: SpotNotice, scope: anyio.CancelScope) -> None:
        try:
            with contained():
                why = await source.wait()
        except Exception:  # a plugin's code may raise anything, and must not end the worker
            log.exception("a source of spot notices failed", source=source.name)
            return
        log.warning("this machine is about to go", source=source.name, notice=why)
        if not self._told:
            self._told = True
            self._on_notice(f"spot notice: {why}")
        scope.cancel()
