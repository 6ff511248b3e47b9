"""Reaching the artifact stores from a command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from emp_core.config import Settings, environment
from emp_core.plugins.manager import load_plugins
from emp_core.storage.stores import Stores
from emp_core.worker.planning import store_openers

__all__ = ["open_stores"]


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """The artifact stores that the settings name.

    Raises:
        ConfigError: the settings cannot be used.
    """
    stores = Stores.from_settings(settings, openers=store_openers(load_plugins()), environ=environment())
    try:
        yield stores
    finally:
        await stores.aclose()
