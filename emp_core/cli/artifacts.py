"""`emp artifacts`: what jobs have put out, in the stores where it is kept."""

import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import click

from emp_core.cli.failures import DONE, FAILED
from emp_core.cli.hub import prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, emit_failure, json_option, note, table, warn
from emp_core.cli.showing import age as shown_age
from emp_core.cli.showing import size_text
from emp_core.config import Settings, age, environment
from emp_core.errors import ConfigError
from emp_core.plugins.manager import load_plugins
from emp_core.storage.configured import DEFAULT
from emp_core.storage.interface import ArtifactStore, StoredObject
from emp_core.storage.pruning import UNCLASSED, Pruning, prune, to_prune
from emp_core.storage.stores import Stores
from emp_core.worker.planning import store_openers

__all__ = ["artifacts"]

_CLOSE_S = 2.0


def _age(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """A length of time, as settings have it."""
    try:
        return None if value is None else age(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


store_option = click.option(
    "--store", "store_name", metavar="NAME", default=DEFAULT, show_default=True, help="A store of EMP_STORES."
)


@click.group()
def artifacts() -> None:
    """List what jobs have put out, give addresses of it, and delete what is past its age.

    \b
    Examples:
      emp artifacts ls 01M7Y3SW00C16K7V193XFACAW2/
      emp artifacts url 01M7Y3SW00C16K7V193XFACAW2/1-0-hello.txt --expires 1h
      emp artifacts prune --dry-run
    """


@artifacts.command()
@click.argument("prefix", required=False, default="", metavar="[PREFIX]")
@store_option
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="At most so many.")
@json_option
def ls(prefix: str, store_name: str, limit: int, as_json: bool) -> int:
    """List artifacts whose names begin with PREFIX, in the store's own order.

    \b
    Examples:
      emp artifacts ls
      emp artifacts ls 01M7Y3SW00C16K7V193XFACAW2/ --json
      emp artifacts ls --store final shots/
    """

    async def run() -> int:
        found: list[StoredObject] = []
        async with _opened(prepared(), store_name) as store:
            async for one in store.list_objects(prefix):
                if len(found) == limit:
                    if not as_json:
                        note(f"There are more; --limit {limit * 10} shows ten times as many.")
                    break
                found.append(one)
        emit([_described(one) for one in found], lambda: _listing(found), as_json=as_json)
        return DONE

    return run_async(run)


@artifacts.command()
@click.argument("key", metavar="NAME")
@store_option
@click.option("--expires", callback=_age, metavar="AGE", help="Sign the address; it holds so long: 90m, 7d.")
@json_option
def url(key: str, store_name: str, expires: float | None, as_json: bool) -> int:
    """Print the address of an artifact: its own, or one by which anybody can read it for a while.

    \b
    Examples:
      emp artifacts url 01M7Y3SW00C16K7V193XFACAW2/1-0-hello.txt
      emp artifacts url 01M7Y3SW00C16K7V193XFACAW2/1-0-hello.txt --expires 1h
    """

    async def run() -> int:
        async with _opened(prepared(), store_name) as store:
            stored = await store.stat(key)
            address = stored.url if expires is None else await store.sign(key, expires_in_s=expires)
        emit({**_described(stored), "url": address}, address, as_json=as_json)
        return DONE

    return run_async(run)


@artifacts.command("prune")
@store_option
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--older-than", callback=_age, metavar="AGE", help="The age for all classes: 90m, 7d, 2w.")
@json_option
def prune_command(store_name: str, dry_run: bool, older_than: float | None, as_json: bool) -> int:
    """Delete the artifacts that are past the age of their retention class.

    EMP_RETENTION says the ages: draft=7d,final=365d; a class that it does not name is kept. Only what workers have stored is
    deleted. It may be interrupted: what is left is deleted the next time.

    \b
    Examples:
      emp artifacts prune --dry-run
      EMP_RETENTION=draft=7d emp artifacts prune --store final
      emp artifacts prune --older-than 52w --json
    """
    settings = prepared()
    if older_than is None and not settings.retention:
        raise ConfigError(
            "nothing says what age artifacts get to",
            hint="set EMP_RETENTION (draft=7d,final=365d), or give --older-than",
        )

    async def run() -> int:
        unknown: Counter[str] = Counter()
        async with _opened(settings, store_name) as store:
            found = to_prune(
                store, now=datetime.now(UTC), ages_s=settings.retention, older_than_s=older_than, unknown=unknown
            )
            if dry_run:
                _tell_found(store_name, [one async for one in found], unknown, as_json=as_json)
                return DONE
            count = _Count()
            try:
                done = await prune(store, found, count.tell)
            finally:
                count.end()
        return _tell_done(store_name, done, unknown, as_json=as_json)

    return run_async(run)


@asynccontextmanager
async def _opened(settings: Settings, name: str) -> AsyncIterator[ArtifactStore]:
    stores = Stores.from_settings(settings, openers=store_openers(load_plugins()), environ=environment())
    try:
        yield stores.get(name)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_S):
            await stores.aclose()


def _described(stored: StoredObject) -> dict[str, Any]:
    return {
        "name": stored.key,
        "url": stored.url,
        "media_type": stored.media_type,
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
        "stored_at": stored.stored_at,
        "retention": stored.retention,
    }


def _listing(found: Sequence[StoredObject]) -> str:
    rows = [
        (one.key, size_text(one.size_bytes), one.media_type, one.retention or "", shown_age(one.stored_at))
        for one in found
    ]
    return table(("name", "size", "type", "retention", "age"), rows) if rows else ""


def _tell_found(name: str, found: Sequence[StoredObject], unknown: Counter[str], *, as_json: bool) -> None:
    size_bytes = sum(one.size_bytes for one in found)
    data = {
        "store": name,
        "would_delete": [_described(one) for one in found],
        "size_bytes": size_bytes,
        "kept_without_age": dict(unknown),
    }
    emit(data, lambda: _listing(found), as_json=as_json)
    if not as_json:
        note(f"{len(found)} artifacts ({size_text(size_bytes)}) would be deleted.")
        _tell_unknown(unknown)


def _tell_done(name: str, done: Pruning, unknown: Counter[str], *, as_json: bool) -> int:
    data = {
        "store": name,
        "deleted": dict(done.deleted),
        "size_bytes": done.size_bytes,
        "failed": done.failed,
        "kept_without_age": dict(unknown),
    }
    message = f"{len(done.failed)} artifacts could not be deleted"
    if as_json:
        if done.failed:
            emit_failure({"code": "storage", "message": message}, data)
        else:
            emit(data, "", as_json=True)
        return FAILED if done.failed else DONE
    by_class = ", ".join(f"{count} of {clean(one)}" for one, count in sorted(done.deleted.items()))
    note(
        f"{done.deleted.total()} artifacts ({size_text(done.size_bytes)}) were deleted{f': {by_class}' if by_class else ''}."
    )
    _tell_unknown(unknown)
    if done.failed:
        key, why = next(iter(done.failed.items()))
        warn(f"{message}, {clean(key)} among them: {clean(why)}")
    return FAILED if done.failed else DONE


def _tell_unknown(unknown: Counter[str]) -> None:
    for name, count in sorted(unknown.items()):
        told = "without a class" if name == UNCLASSED else f"of the class {clean(name)}"
        note(f"{count} artifacts {told} were kept: EMP_RETENTION has no age for {clean(name)}.")


class _Count:
    """Counts on a terminal, in one line."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._last = 0.0

    def tell(self, done: Pruning) -> None:
        """Show how many there are, five times a second."""
        now = anyio.current_time()
        if self._shown and now - self._last >= 0.2:
            self._last = now
            sys.stderr.write(f"\r{done.deleted.total()} artifacts deleted ({size_text(done.size_bytes)}) \r")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave an empty line for what comes."""
        if self._shown and self._last:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
