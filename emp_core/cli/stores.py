"""Artifact stores in commands: which one, how it is reached, and how its files are shown."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import click

from emp_core.cli.output import table
from emp_core.cli.showing import age as shown_age
from emp_core.cli.showing import size_text
from emp_core.config import Settings, age, environment
from emp_core.plugins.manager import load_plugins
from emp_core.storage.configured import DEFAULT
from emp_core.storage.interface import ArtifactStore, StoredObject
from emp_core.storage.stores import Stores

__all__ = ["age_of", "counted", "described", "listing", "open_store", "open_stores", "store_option"]

_CLOSE_S = 2.0

store_option = click.option(
    "--store", "store_name", metavar="NAME", default=DEFAULT, show_default=True, help="A store of EMP_STORES."
)


def age_of(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """A length of time, as settings have it."""
    try:
        return None if value is None else age(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """The artifact stores that the settings name.

    Raises:
        ConfigError: the settings cannot be used.
    """
    from emp_core.worker.planning import store_openers  # with all of a worker behind it: not for those who want help

    stores = Stores.from_settings(settings, openers=store_openers(load_plugins()), environ=environment())
    try:
        yield stores
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_S):
            await stores.aclose()


@asynccontextmanager
async def open_store(settings: Settings, name: str) -> AsyncIterator[ArtifactStore]:
    """One of them.

    Raises:
        ConfigError: there is none of this name, or the settings cannot be used.
    """
    async with open_stores(settings) as stores:
        yield stores.get(name)


def described(stored: StoredObject) -> dict[str, Any]:
    """An artifact, for programs."""
    return {
        "name": stored.key,
        "url": stored.url,
        "media_type": stored.media_type,
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
        "stored_at": stored.stored_at,
        "retention": stored.retention,
    }


def listing(found: Sequence[StoredObject]) -> str:
    """Artifacts, for people."""
    rows = [
        (one.key, size_text(one.size_bytes), one.media_type, one.retention or "", shown_age(one.stored_at))
        for one in found
    ]
    return table(("name", "size", "type", "retention", "age"), rows) if rows else ""


def counted(number: int) -> str:
    """So many artifacts, in words."""
    return "1 artifact" if number == 1 else f"{number} artifacts"
