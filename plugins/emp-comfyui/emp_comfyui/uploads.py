"""Files that a workflow refers to (``{"$input": …}`` among a node's inputs), uploaded to the server and named in their places.

A file's name on the server is its content's checksum: two jobs never meet under one name with different files, equal files are
stored once, and what nodes made of the same file before is still in the server's cache. What counts is the name that the server
answers.

Sources: recordings of ``POST /upload/image`` and ``/upload/mask`` (0.3.64). The route for images takes every kind of file.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync
from attrs import define, evolve, field

from emp_comfyui.client import ComfyUIClient
from emp_comfyui.held_files import OURS, HeldFiles, holder_of
from emp_comfyui.loaders import Loader, loader_of
from emp_comfyui.uploading import Uploaded, find_upload, send_upload
from emp_comfyui.workflow import Workflow
from emp_core.connectors.context import JobContext
from emp_core.errors import InvalidJob
from emp_core.inputs.files import Input
from emp_core.inputs.media_types import extension_of
from emp_core.jobs.inputs import INPUT_KEY, InputPlace, Place, inputs_of, place_text
from emp_core.log.logger import Logger

__all__ = ["Uploads", "has_files", "remove_left"]

_MASK = "mask"
_TIDY_S = 5.0
_EXTENSION = re.compile(r"\.[a-z0-9]{1,8}", re.ASCII)

Graph = Mapping[str, Mapping[str, Any]]


def has_files(workflow: Workflow) -> bool:
    """Whether a workflow refers to files that have to be uploaded."""
    return any(inputs_of(workflow.graph))


@define(eq=False)
class Uploads:
    """The files of one job on one server.

    Attributes:
        folder: the server's input folder, if this machine sees it: files are removed from there when no job needs them any
            more. None: they stay, as ComfyUI has no route that deletes them.
    """

    client: ComfyUIClient
    context: JobContext
    folder: Path | None = None
    _loaders: dict[str, Loader] = field(factory=dict, init=False)
    _own: set[str] = field(factory=set, init=False)

    async def upload(self, workflow: Workflow) -> Workflow:
        """The workflow with the names of uploaded files in place of references.

        A node's ``mask`` that is a file is put into its ``image`` by the server, as its alpha channel, unless the node's
        class has an input of that name.

        Raises:
            InputError, InputUnavailable: a file cannot be had, or the node cannot load it.
            InvalidJob: the server takes no file as large as that, or a mask does not fit.
            ServiceUnavailable, ConnectionLost: the server did not take a file.
        """
        await self._learn(workflow.graph)
        at = _place_of_graph(self.context.job.payload)
        masks = self._masks_in(workflow.graph)
        graph = {node_id: _without_mask(node) if node_id in masks else node for node_id, node in workflow.graph.items()}

        async def put(found: InputPlace, file: Input) -> str:
            node_id, *steps = found.place[len(at) :]
            return await self._put_file(file, str(graph[str(node_id)]["class_type"]), str(steps[1:2] and steps[1]))

        named: dict[str, Any] = await self.context.replace_inputs(graph, put, at=at)
        for node_id, mask in masks.items():
            named[node_id] = await self._masked(named[node_id], mask, (*at, node_id, "inputs", _MASK))
        return evolve(workflow, graph=named)

    async def tidy(self) -> None:
        """Remove the files that this job alone needed, in this attempt and earlier ones. Its run must be over."""
        if self.folder is None:
            return
        held, job_id, attempt = HeldFiles(self.folder), self.context.job.id, self.context.attempt
        with anyio.move_on_after(_TIDY_S, shield=True):
            try:
                removed = await run_sync(held.let_go, job_id, attempt, abandon_on_cancel=True)
            except OSError as error:
                self.context.log.warning("uploaded files could not be removed", error=str(error))
                return
            if removed:
                self.context.log.debug("uploaded files were removed", files=removed)

    async def _learn(self, graph: Graph) -> None:
        """Find out how the nodes that get files take them."""
        found, _ = inputs_of(graph)
        for name in {str(graph[str(one.place[0])]["class_type"]) for one in found} - self._loaders.keys():
            self._loaders[name] = await loader_of(name, self.client)

    def _masks_in(self, graph: Graph) -> dict[str, Any]:
        return {
            node_id: node["inputs"][_MASK]
            for node_id, node in graph.items()
            if _is_file(node["inputs"].get(_MASK))
            and "image" in node["inputs"]
            and not self._loaders[str(node["class_type"])].has(_MASK)
        }

    async def _put_file(self, file: Input, class_type: str, name: str) -> str:
        way = self._loaders[class_type].way_of(name)
        way.check(file, class_type)
        own_name = f"{way.prefix}{file.sha256[:32]}{_extension(file)}"

        async def send() -> Uploaded:
            return await send_upload(self.client, file, own_name, way.subfolder)

        value = await self._held(file, send, file.size_bytes)
        self._own.add(value)
        return value

    async def _masked(self, node: Mapping[str, Any], mask: Any, at: Place) -> Mapping[str, Any]:
        """The node with an image that has the mask for its alpha channel."""
        image = node["inputs"]["image"]
        if not isinstance(image, str):
            raise InvalidJob(f"{place_text(at)}: a mask goes with an image that is a file, not with a link")

        async def put(_: InputPlace, file: Input) -> str:
            own_name = f"{sha256(f'{image}:{file.sha256}'.encode()).hexdigest()[:32]}.png"

            async def send() -> Uploaded:
                # The server does not tell that it made this picture before; if its image is ours, the name does.
                found = await find_upload(self.client, own_name, OURS) if image in self._own else None
                masked = Uploaded.of_value(image)
                return found or await send_upload(self.client, file, own_name, OURS, masks=masked)

            return await self._held(file, send, None)

        value = await self.context.replace_inputs(mask, put, at=at, accept=("image/*",))
        return {**node, "inputs": {**node["inputs"], "image": value}}

    async def _held(self, file: Input, send: Callable[[], Awaitable[Uploaded]], size_bytes: int | None) -> str:
        """Upload a file, and have it stay for as long as this job needs it."""
        await self.context.progress(0.0, f"uploading {file.name}")
        uploaded = await send()
        if self.folder is not None and uploaded.kind == "input":
            holder = holder_of(self.context.job.id, self.context.attempt)
            hold = HeldFiles(self.folder).hold
            if not await run_sync(hold, uploaded.path, size_bytes, holder):
                # Another job that was done with the same file may have removed it just now.
                uploaded = await send()
                await run_sync(hold, uploaded.path, size_bytes, holder)
        return uploaded.value


async def remove_left(folder: Path, log: Logger) -> None:
    """Remove uploaded files that nobody needs any more and nobody removed, from a server's input folder."""
    with anyio.move_on_after(_TIDY_S):
        try:
            removed = await run_sync(HeldFiles(folder).let_go_of_left, abandon_on_cancel=True)
        except OSError as error:
            log.warning("uploaded files could not be removed", folder=str(folder), error=str(error))
            return
        if removed:
            log.info("uploaded files of jobs that never ended were removed", files=removed)


def _place_of_graph(payload: Any) -> Place:
    """Where the workflow stands in a payload: it may be all of it."""
    if isinstance(payload, Mapping) and not any(
        isinstance(node, Mapping) and "class_type" in node for node in payload.values()
    ):
        return tuple(key for key in ("prompt", "workflow") if key in payload)
    return ()


def _is_file(value: Any) -> bool:
    return isinstance(value, Mapping) and INPUT_KEY in value


def _without_mask(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**node, "inputs": {name: value for name, value in node["inputs"].items() if name != _MASK}}


def _extension(file: Input) -> str:
    """What the file's name ends in: some nodes go by it."""
    told = "." + file.name.rpartition(".")[2].lower()
    return told if "." in file.name and _EXTENSION.fullmatch(told) else extension_of(file.media_type)
