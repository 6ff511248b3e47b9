"""What a server has: node classes and model files. Asked for seldom, and again before anything is said to be missing."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
from attrs import evolve, field, frozen

from emp_comfyui.client import ComfyUIClient
from emp_comfyui.core_nodes import core_nodes
from emp_comfyui.needs import EMBEDDING, NODES, Needs, model_name
from emp_comfyui.node_info import Catalogue, read_catalogue
from emp_core.errors import EmpError
from emp_core.jobs.matching import ModelOffer
from emp_core.log.logger import Logger

__all__ = ["Inventory", "ModelFiles"]

_NODES_EVERY_S = 600.0
"""Custom nodes come with a restart of the server, which is not always noticed. Reading all holds the server up for a moment."""
_MODELS_EVERY_S = 60.0
_AGAIN_S = 45.0
"""After a reading that failed, or that the caller did not wait for."""
_ASKED_AT_ONCE = 4
_FOLDERS_MOST = 300
_NO_MODELS = ("custom_nodes", "configs")
"""Folders that the server names among those of models."""
_LOAD_MS: Mapping[str, float] = {
    "checkpoints": 20_000.0,
    "diffusion_models": 20_000.0,
    "unet": 20_000.0,
    "unet_gguf": 20_000.0,
    "text_encoders": 8_000.0,
    "clip": 8_000.0,
}
_LOAD_SMALL_MS = 2_000.0


@frozen
class ModelFiles:
    """Model files by their name with ``/``.

    Attributes:
        folders: name → the folders that have it.
        spelled: name → as the server spells it: on Windows with backslashes.
    """

    folders: Mapping[str, Sequence[str]] = field(factory=dict)
    spelled: Mapping[str, str] = field(factory=dict)


class Inventory:
    """What one server has, as far as it was asked; None: not yet, or it does not tell.

    What is read is kept until it is old, the server was away, or something turns out to be missing.
    """

    def __init__(self, client: ComfyUIClient, log: Logger) -> None:
        self.catalogue: Catalogue | None = None
        self.files: ModelFiles | None = None
        self._client = client
        self._log = log
        self._nodes_due_at = self._files_due_at = float("-inf")
        self._in_use: frozenset[str] = frozenset()
        self._reading = anyio.Lock()

    def forget(self) -> None:
        """The server was away: it may come back with other nodes, other files, and nothing loaded."""
        self._nodes_due_at = self._files_due_at = float("-inf")
        self._in_use = frozenset()

    def note_use(self, models: frozenset[str]) -> None:
        """These models were just used: they are most likely in memory still."""
        if models:
            self._in_use = models

    async def refresh(self) -> None:
        """Read what is old. A server that does not answer in time keeps what was known of it."""
        async with self._reading:
            now = anyio.current_time()
            if now >= self._nodes_due_at:
                await self._tolerant("node classes", self._read_nodes)
            if now >= self._files_due_at:
                await self._tolerant("model files", self._read_files)

    async def refresh_files(self) -> None:
        """Read the model files now: one that is looked for may have been added."""
        async with self._reading:
            await self._tolerant("model files", self._read_files)

    def learned(self, found: Catalogue) -> None:
        """Node classes that were asked for one by one."""
        self.catalogue = found if self.catalogue is None else self.catalogue.joined(found)

    def spelling(self, name: str) -> str | None:
        """How the server spells a model file's name; None: it has no such file, as far as is known."""
        files = self.files.spelled if self.files is not None else {}
        chosen = self.catalogue.files if self.catalogue is not None else {}
        return files.get(name) or chosen.get(name)

    def has_model(self, name: str) -> bool | None:
        """Whether the server has a model; None: it does not tell."""
        if name.startswith(EMBEDDING):
            return None if self.files is None else name in self.files.folders
        if self.spelling(name) is not None:
            return True
        return None if self.files is None and self.catalogue is None else False

    def may_have(self, needs: Needs) -> bool:
        """Whether the server has all that a workflow needs, as far as it was asked."""
        knows_nodes = self.catalogue is None or needs.nodes <= self.catalogue.names
        return knows_nodes and all(self.has_model(name) is not False for name in needs.models)

    def models(self) -> dict[str, ModelOffer] | None:
        """What jobs may require as models; None: the server does not tell, which counts as having all.

        What its nodes may be chosen from is not all that it has: embeddings are not among it, nor what nodes take by any name.
        """
        if self.files is None:
            return None
        folders: dict[str, Sequence[str]] = dict.fromkeys(
            self.catalogue.files if self.catalogue is not None else (), ()
        )
        folders.update(self.files.folders)
        return {
            name: ModelOffer(
                loaded=name in self._in_use,
                load_ms=max((_LOAD_MS.get(f, _LOAD_SMALL_MS) for f in own), default=_LOAD_SMALL_MS),
            )
            for name, own in folders.items()
        }

    def capabilities(self) -> dict[str, Any]:
        """The node classes that do not come with ComfyUI itself; None: it does not tell, which counts as having all."""
        if self.catalogue is None:
            return {NODES: None}
        return {NODES: sorted(self.catalogue.names - core_nodes())}

    async def _tolerant(self, what: str, read: Callable[[], Awaitable[None]]) -> None:
        try:
            await read()
        except EmpError as error:
            self._log.info("the server's list could not be read", what=what, error=error.message)

    async def _read_nodes(self) -> None:
        # Not sooner again, whatever becomes of it: the caller may not wait for as long as the server takes.
        self._nodes_due_at = anyio.current_time() + _AGAIN_S
        found = read_catalogue(await self._client.node_classes())
        if not found.names:  # something between us and the server does not let it through
            return
        replaced = await self._client.replaced_classes()
        self.catalogue = evolve(found, names=found.names | frozenset(replaced))
        self._nodes_due_at = anyio.current_time() + _NODES_EVERY_S

    async def _read_files(self) -> None:
        self._files_due_at = anyio.current_time() + _AGAIN_S
        told = [name for name in await self._client.model_folders() if name not in _NO_MODELS][:_FOLDERS_MOST]
        if not told:
            return
        folders: dict[str, list[str]] = {}
        spelled: dict[str, str] = {}
        limiter = anyio.CapacityLimiter(_ASKED_AT_ONCE)

        async def read(folder: str) -> None:
            async with limiter:
                for file in await self._client.models(folder):
                    name = model_name(file)
                    folders.setdefault(name, []).append(folder)
                    spelled[name] = file

        failed: EmpError | None = None
        try:
            async with anyio.create_task_group() as group:
                for folder in told:
                    group.start_soon(read, folder)
        except* EmpError as errors:
            failed = next(error for error in errors.exceptions if isinstance(error, EmpError))
        if failed is not None:
            raise failed
        for name in await self._client.embeddings():
            folders.setdefault(f"{EMBEDDING}{model_name(name)}", ["embeddings"])
        self.files = ModelFiles(folders, spelled)
        self._files_due_at = anyio.current_time() + _MODELS_EVERY_S
