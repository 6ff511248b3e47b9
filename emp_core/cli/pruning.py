"""`emp artifacts prune`: deleting artifacts that are past their age."""

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import anyio
import click

from emp_core.cli.failures import DONE, FAILED
from emp_core.cli.hub import prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, emit_failure, json_option, note, warn
from emp_core.cli.showing import size_text
from emp_core.cli.stores import age_of, counted, described, listing, open_store, store_option
from emp_core.errors import ConfigError
from emp_core.storage.interface import StoredObject
from emp_core.storage.pruning import UNCLASSED, Pruning, prune, to_prune

__all__ = ["prune_command"]


@click.command("prune")
@store_option
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--older-than", callback=age_of, metavar="AGE", help="The age for all classes: 90m, 7d, 2w.")
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
        async with open_store(settings, store_name) as store:
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


def _tell_found(name: str, found: Sequence[StoredObject], unknown: Counter[str], *, as_json: bool) -> None:
    size_bytes = sum(one.size_bytes for one in found)
    data = {
        "store": name,
        "would_delete": [described(one) for one in found],
        "size_bytes": size_bytes,
        "kept_without_age": dict(unknown),
    }
    emit(data, lambda: listing(found), as_json=as_json)
    if not as_json:
        note(f"Would delete {counted(len(found))} ({size_text(size_bytes)}).")
        _tell_unknown(unknown)


def _tell_done(name: str, done: Pruning, unknown: Counter[str], *, as_json: bool) -> int:
    data = {
        "store": name,
        "deleted": dict(done.deleted),
        "size_bytes": done.size_bytes,
        "failed": done.failed,
        "kept_without_age": dict(unknown),
    }
    message = f"{counted(len(done.failed))} could not be deleted"
    if as_json:
        if done.failed:
            emit_failure({"code": "storage", "message": message}, data)
        else:
            emit(data, "", as_json=True)
        return FAILED if done.failed else DONE
    by_class = ", ".join(f"{count} of {clean(one)}" for one, count in sorted(done.deleted.items()))
    note(
        f"Deleted {counted(done.deleted.total())} ({size_text(done.size_bytes)}){f': {by_class}' if by_class else ''}."
    )
    _tell_unknown(unknown)
    if done.failed:
        key, why = next(iter(done.failed.items()))
        warn(f"{message}, {clean(key)} among them: {clean(why)}")
    return FAILED if done.failed else DONE


def _tell_unknown(unknown: Counter[str]) -> None:
    for name, count in sorted(unknown.items()):
        told = "without a class" if name == UNCLASSED else f"of the class {clean(name)}"
        note(f"Kept {counted(count)} {told}: EMP_RETENTION has no age for {clean(name)}.")


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
            sys.stderr.write(f"\r{counted(done.deleted.total())} deleted ({size_text(done.size_bytes)}) \r")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave an empty line for what comes."""
        if self._shown and self._last:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
