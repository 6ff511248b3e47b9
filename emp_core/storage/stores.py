"""`Stores`: the artifact stores of one process, opened when they are first used and shared by all who use them."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Self

import anyio
from attrs import define, field

from emp_core.config import Settings
from emp_core.errors import ConfigError, InvalidJob, NotHere, StorageRefused
from emp_core.jobs.destinations import storage_problems
from emp_core.jobs.model import Destination
from emp_core.log.logger import get_logger
from emp_core.network.guard import Guard
from emp_core.storage.configured import DEFAULT, StoreConfig, configured_stores
from emp_core.storage.interface import ArtifactStore
from emp_core.storage.opening import NO_STORES, StoreOpener, open_store
from emp_core.storage.public import PublicStore

__all__ = ["Stores"]

log = get_logger("emp.storage")

_CLOSE_S = 2.0


class Stores:
    """The stores that the operator set up, by name, and those that jobs bring along.

    Args:
        configs: those that were set up; ``default`` is among them.
        openers: what plugins serve, by scheme.
        environ: the variables that stores see which have none of their own.
        guard: looks at the endpoints that jobs bring.
        default: a store in the place of the default one. Whoever made it closes it.
    """

    def __init__(
        self,
        configs: Mapping[str, StoreConfig],
        *,
        openers: Mapping[str, StoreOpener] = NO_STORES,
        environ: Mapping[str, str],
        guard: Guard,
        default: ArtifactStore | None = None,
    ) -> None:
        self._configs = dict(configs)
        self._openers = openers
        self._environ = environ
        self._guard = guard
        self._given = default
        self._opened: dict[str, ArtifactStore] = {}
        self._proven: set[str] = set()
        self._brought: dict[str, _Brought] = {}

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        openers: Mapping[str, StoreOpener] = NO_STORES,
        environ: Mapping[str, str],
        default: ArtifactStore | None = None,
    ) -> Self:
        """As the settings say.

        Raises:
            ConfigError: ``EMP_STORES``, ``EMP_STORE_CDN`` or ``EMP_PRIVATE_HOSTS`` cannot be used.
        """
        guard = Guard(settings.private_hosts)
        return cls(configured_stores(settings), openers=openers, environ=environ, guard=guard, default=default)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the stores that were set up, the default one first."""
        return (DEFAULT, *sorted(self._configs.keys() - {DEFAULT}))

    def url(self, name: str = DEFAULT) -> str:
        """The URL of a store that was set up. A plugin's may hold a password."""
        return self._configs[name].url

    def get(self, name: str = DEFAULT) -> ArtifactStore:
        """A store that was set up.

        Raises:
            ConfigError: there is none of this name, or its URL or variables cannot be used.
        """
        if name == DEFAULT and self._given is not None:
            return self._given
        if name not in self._opened:
            config = self._configs.get(name)
            if config is None:
                raise ConfigError(
                    f"there is no artifact store {name[:40]!r}; known are: {', '.join(self.names)}",
                    hint="set it up in EMP_STORES",
                )
            environ = self._environ if config.env is None else config.env
            store = open_store(config.url, stores=self._openers, environ=environ)
            self._opened[name] = store if config.cdn is None else PublicStore(store, config.cdn)
        return self._opened[name]

    def named(self) -> Iterator[ArtifactStore]:
        """Those besides the default one, without any that cannot be opened here."""
        for name in self.names[1:]:
            try:
                yield self.get(name)
            except ConfigError as error:
                log.warning("an artifact store cannot be used here", name=name, error=error.message)

    def of(self, ctx: Destination | None) -> AbstractAsyncContextManager[ArtifactStore]:
        """The store for a job's outputs, as long as the block lasts: the one it names, the one it brings, or the default one.

        One that was not used yet is tried before anything is done for the job.

        Raises:
            NotHere: this worker has no store of that name.
            InvalidJob: what the job brings cannot be used: it is wrong, or Azure does not accept it.
            AddressRefused: the endpoint that it brings leads into a private network.
            StorageUnavailable: the store cannot be reached or written now.
        """
        if ctx is None or ctx.storage is None:
            return nullcontext(self.get())
        name = ctx.storage.get("store")
        return self._of_job(ctx.storage) if name is None else self._named(name)

    @staticmethod
    def is_brought(ctx: Destination | None) -> bool:
        """Whether a job brings a store of its own, with its credentials."""
        return ctx is not None and ctx.storage is not None and "store" not in ctx.storage

    async def aclose(self) -> None:
        """Close what was opened."""
        opened = [*self._opened.values(), *(one.store for one in self._brought.values())]
        self._opened.clear()
        self._brought.clear()
        for store in opened:
            try:
                await store.aclose()
            except Exception as error:  # a plugin's store may raise anything, and the others have to be closed
                log.warning("a store failed to close", store=repr(store), error=str(error))

    @asynccontextmanager
    async def _named(self, name: str) -> AsyncIterator[ArtifactStore]:
        try:
            store = self.get(name)
        except ConfigError as error:
            raise NotHere(f"the store that the job names cannot be used here: {error.message}") from error
        if name not in self._proven:
            await store.check()
            self._proven.add(name)
        yield store

    @asynccontextmanager
    async def _of_job(self, storage: Mapping[str, str]) -> AsyncIterator[ArtifactStore]:
        # By a digest: nothing that lives longer than the job's own memory holds the key.
        told = hashlib.sha256(json.dumps(sorted(storage.items())).encode()).hexdigest()
        brought = self._brought.get(told)
        if brought is None:
            brought = self._brought[told] = _Brought(self._open(storage))
        brought.users += 1
        try:
            await brought.prove()
            yield brought.store
        finally:
            brought.users -= 1
            if not brought.users and self._brought.pop(told, None) is not None:
                with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_S):
                    await brought.store.aclose()

    def _open(self, storage: Mapping[str, str]) -> ArtifactStore:
        from emp_core.storage.azure import AzureStore
        from emp_core.storage.azure_access import AzureAccess
        from emp_core.storage.place import Place

        if problems := storage_problems(storage):
            raise InvalidJob(
                "the job's own store cannot be used", details={"problems": problems}, hint="; ".join(problems)
            )
        endpoint = storage.get("endpoint") or None
        guard = None
        if endpoint is not None:
            self._guard.check_url(endpoint)
            guard = self._guard
        access = AzureAccess.of(storage["accountName"], storage["accountKey"], endpoint=endpoint)
        store = AzureStore(Place("azure", storage["bucket"]), access, guard=guard)
        return PublicStore(store, storage["cdnUrl"]) if storage.get("cdnUrl") else store


@define(eq=False)
class _Brought:
    """A store that jobs brought along: one for all that bring the same, as long as one of them runs."""

    store: ArtifactStore = field(repr=False)
    users: int = 0
    proven: bool = False
    _turn: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def prove(self) -> None:
        """Try it once, so that a wrong key is known before the work is done."""
        async with self._turn:
            if self.proven:
                return
            try:
                await self.store.check()
            except StorageRefused as error:
                raise InvalidJob(
                    f"the job's own store does not take its outputs: {error.message}", hint=error.hint
                ) from error
            self.proven = True
