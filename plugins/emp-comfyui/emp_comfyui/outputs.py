"""What a prompt put out: which of it counts, fetched from the server and stored as artifacts.

Entries stand under any key (``images`` for videos, too), and are files only if they have a ``filename``.
"""

import mimetypes
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from attrs import frozen

from emp_comfyui.frames import Picture
from emp_comfyui.graph import outputs_of
from emp_comfyui.history import HistoryEntry
from emp_comfyui.needs import may_be_output
from emp_comfyui.run import RUN_SHARE, Finished
from emp_comfyui.shared_files import LocalFile, SharedFolders
from emp_comfyui.workflow import Workflow
from emp_core.connectors.context import JobContext
from emp_core.connectors.http import HTTPConnector
from emp_core.errors import JobFailed, UnsafeName
from emp_core.jobs.model import Artifact
from emp_core.jobs.outcomes import JobResult
from emp_core.storage.names import safe_key

__all__ = ["OutputFile", "deliver", "media_type_of", "named_models", "read_outputs"]

_FLAGS = frozenset({"animated"})
_SILENT = frozenset(
    {
        "CLIPSave",
        "CheckpointSave",
        "ImageOnlyCheckpointSave",
        "LoraSave",
        "ModelSave",
        "SaveImageDataSetToFolder",
        "SaveImageTextDataSetToFolder",
        "SaveLoRA",
        "SaveLoRANode",
        "SaveTrainingDataset",
        "VAESave",
    }
)
"""Classes of ComfyUI itself that write files on the server and tell nothing of them."""
_MAX_TEXT = 100_000
_MODELS_3D = (".glb", ".gltf", ".obj", ".fbx", ".stl", ".ply", ".usdz", ".splat", ".ksplat", ".spz")
_ODD = re.compile(r"[^A-Za-z0-9._-]")
_TYPES = mimetypes.MimeTypes(filenames=())
for _suffix, _type in (
    (".webp", "image/webp"),
    (".avif", "image/avif"),
    (".exr", "image/x-exr"),
    (".flac", "audio/flac"),
    (".opus", "audio/ogg"),
    (".ogg", "audio/ogg"),
    (".m4a", "audio/mp4"),
    (".mkv", "video/x-matroska"),
    (".glb", "model/gltf-binary"),
    (".gltf", "model/gltf+json"),
    (".obj", "model/obj"),
    (".stl", "model/stl"),
    (".ply", "model/ply"),
    (".latent", "application/octet-stream"),
    (".safetensors", "application/octet-stream"),
):
    _TYPES.add_type(_type, _suffix)


@frozen
class OutputFile:
    """A file as the server names it: ``filename``, ``subfolder`` and ``type`` are asked for as they are."""

    node_id: str
    key: str
    filename: str
    subfolder: str
    type: str

    @property
    def name(self) -> str:
        """Its name in the store, with the folder; servers on Windows separate folders with backslashes."""
        folder = self.subfolder.replace("\\", "/").strip("/") if not self.subfolder.startswith(("/", "\\")) else "/"
        return f"{folder}/{self.filename}" if folder else self.filename

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes it the same file; several nodes may name one."""
        return (self.type, self.subfolder, self.filename)


def read_outputs(entry: HistoryEntry) -> tuple[tuple[OutputFile, ...], dict[str, dict[str, list[Any]]]]:
    """The files of a history entry, and everything else that nodes put out: texts, numbers, objects."""
    files: list[OutputFile] = []
    values: dict[str, dict[str, list[Any]]] = {}
    for node_id, output in entry.outputs.items():
        for key, found in output.items() if isinstance(output, Mapping) else ():
            for item in found if isinstance(found, list) else [found]:
                if isinstance(item, Mapping) and isinstance(item.get("filename"), str) and item["filename"]:
                    files.append(_file(node_id, key, item))
                elif item is not None and key not in _FLAGS:
                    values.setdefault(node_id, {}).setdefault(key, []).append(_capped(item))
    return tuple(files), values


def named_models(values: Mapping[str, Mapping[str, Sequence[Any]]]) -> tuple[OutputFile, ...]:
    """3D models that nodes name in words alone, as ``Preview3D`` does: they may be output files.

    Source: newer servers take such texts for files of type ``output`` themselves, in ``/api/jobs``.
    """
    found = []
    for node_id, output in values.items():
        for key, items in output.items():
            for text in items:
                if isinstance(text, str) and text.lower().endswith(_MODELS_3D) and "\n" not in text:
                    subfolder, _, filename = text.replace("\\", "/").rpartition("/")
                    file = OutputFile(node_id, key, filename, subfolder, "output")
                    found += [file] if _has_safe_name(file) else []
    return tuple(found)


def media_type_of(filename: str, told: str | None) -> str:
    """A file's media type: by its name, else as the server tells it. Newer servers tell less, for browsers' sake."""
    guessed, encoding = _TYPES.guess_type(filename)
    if guessed is not None and encoding is None:
        return guessed
    return (told or "").split(";", 1)[0].strip().lower() or "application/octet-stream"


async def deliver(
    http: HTTPConnector,
    finished: Finished,
    workflow: Workflow,
    context: JobContext,
    *,
    temp_outputs: bool,
    max_bytes: int,
    folders: SharedFolders,
    keep: bool,
) -> JobResult:
    """Store a prompt's outputs, and say what they are.

    Temporary files count if they are asked for, or if the workflow gives nothing else.

    Args:
        folders: where files may be read without the network.
        keep: whether files that were read there stay when all outputs are stored.

    Raises:
        JobFailed: there is nothing, or a file that the server names is gone.
        UnsafeName: a name from the server tries to leave its folder; nothing was stored.
    """
    files, values = read_outputs(finished.entry)
    files = _wanted(files, temp_outputs=temp_outputs, others=bool(values or finished.pictures))
    if not (files or values or finished.pictures or _may_be_empty(workflow)):
        raise _nothing(finished.entry.prompt_id)
    for file in files:
        _check_name(file, finished.entry.prompt_id)
    stored: dict[tuple[str, str, str], Artifact] = {}
    read: list[LocalFile] = []
    shown: dict[str, dict[str, Any]] = {}
    named = named_models(values)
    total = len({file.identity for file in (*files, *named)}) + len(finished.pictures)
    for file in (*files, *named):
        if file.identity not in stored:
            content = _opened(http, folders, file, finished.entry.prompt_id, max_bytes)
            try:
                stored[file.identity] = await _fetch(content, file, workflow, context, read)
            except JobFailed as error:
                if file in files or error.details.get("reason") != "output_missing":
                    raise
                continue  # it was no file, only words
            await context.progress(_share(len(stored), total), f"stored {file.filename}")
        _node(shown, file.node_id, workflow)["files"].append(_file_shown(file, stored[file.identity]))
    artifacts = list(stored.values())
    for number, picture in enumerate(finished.pictures):
        artifact = await _store_picture(picture, number, workflow, context)
        artifacts.append(artifact)
        await context.progress(_share(len(artifacts), total), f"stored {artifact.name}")
        _node(shown, picture.node_id or "?", workflow)["files"].append(
            {"name": artifact.name, "type": "websocket", "url": artifact.url, "media_type": artifact.media_type}
        )
    for node_id, found in values.items():
        _node(shown, node_id, workflow)["values"] = found
    _tell_origins(shown, finished.entry, workflow)
    if not keep:
        await _remove(read, context)
    return JobResult(_data(finished.entry, shown, artifacts), tuple(artifacts), _usage(finished, workflow))


def _wanted(files: Sequence[OutputFile], *, temp_outputs: bool, others: bool) -> tuple[OutputFile, ...]:
    """Files of type ``input`` are what a node was given, not what it made."""
    kept = tuple(file for file in files if file.type == "output")
    temporary = tuple(file for file in files if file.type == "temp")
    return kept + temporary if temp_outputs or not (kept or others) else kept


def _may_be_empty(workflow: Workflow) -> bool:
    graph = workflow.graph
    ends = outputs_of(graph, may_be_output(graph), workflow.targets)
    return workflow.allow_empty or (bool(ends) and all(workflow.class_of(node_id) in _SILENT for node_id in ends))


def _has_safe_name(file: OutputFile) -> bool:
    try:
        safe_key(file.name)
    except UnsafeName:
        return False
    return True


def _check_name(file: OutputFile, prompt_id: str) -> None:
    try:
        safe_key(file.name)
    except UnsafeName as error:
        raise UnsafeName(
            f"an output of node {file.node_id}: {error.message}",
            hint="change the node's filename_prefix; nothing was stored",
            details={"reason": "unsafe_name", "node_id": file.node_id, "prompt_id": prompt_id},
        ) from error


@frozen
class _Content:
    """An output's bytes on their way, and what the server says that they are."""

    chunks: AsyncIterator[bytes]
    content_type: str | None
    file: LocalFile | None = None


@asynccontextmanager
async def _opened(
    http: HTTPConnector, folders: SharedFolders, file: OutputFile, prompt_id: str, max_bytes: int
) -> AsyncIterator[_Content]:
    params = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
    local = await folders.open(http, params)
    if local is not None:
        with local:
            if local.size_bytes > max_bytes:
                raise _too_large(file, max_bytes, prompt_id)
            yield _Content(local.chunks(), local.content_type, local)
        return
    async with http.stream("GET", "/view", params=params, accept=(400, 403, 404)) as response:
        if response.status_code != 200:
            raise _gone(file, response.status_code, prompt_id)
        yield _Content(http.chunks_capped(response, max_bytes), response.headers.get("content-type"))


async def _fetch(
    opened: AbstractAsyncContextManager[_Content],
    file: OutputFile,
    workflow: Workflow,
    context: JobContext,
    read: list[LocalFile],
) -> Artifact:
    metadata = {"node_id": file.node_id, "key": file.key, "subfolder": file.subfolder, "type": file.type}
    class_type = workflow.class_of(file.node_id)
    if class_type is not None:
        metadata["class_type"] = class_type
    async with opened as content:
        media_type = media_type_of(file.filename, content.content_type)
        artifact = await context.save(content.chunks, file.name, media_type, metadata=metadata)
        if content.file is not None:
            read.append(content.file)
        return artifact


async def _remove(read: Sequence[LocalFile], context: JobContext) -> None:
    """Remove files of the server's whose bytes the store has confirmed."""
    for file in read:
        try:
            await file.remove()
        except OSError as error:
            context.log.warning("an output is stored, and its file stays: it cannot be removed", error=str(error))


async def _store_picture(picture: Picture, number: int, workflow: Workflow, context: JobContext) -> Artifact:
    node_id = picture.node_id or "unknown"
    name = f"websocket-{_ODD.sub('_', node_id)[:50]}-{number}.{picture.media_type.rpartition('/')[2]}"
    metadata = {"node_id": node_id, "type": "websocket", "class_type": workflow.class_of(node_id)}
    return await context.save(picture.data, name, picture.media_type, metadata=metadata)


def _gone(file: OutputFile, status: int, prompt_id: str) -> JobFailed:
    return JobFailed(
        f"the ComfyUI server names {file.filename!r} as an output of node {file.node_id} and does not give it ({status})",
        hint="it answered from its cache after the file was deleted: change an input (a seed), or free its cache",
        details={"reason": "output_missing", "node_id": file.node_id, "status": status, "prompt_id": prompt_id},
    )


def _too_large(file: OutputFile, max_bytes: int, prompt_id: str) -> JobFailed:
    return JobFailed(
        f"the output {file.filename!r} of node {file.node_id} is larger than the {max_bytes:,} bytes that are taken",
        hint="raise EMP_COMFYUI_MAX_OUTPUT_BYTES",
        details={"reason": "answer_too_long", "limit_bytes": max_bytes, "prompt_id": prompt_id},
    )


def _nothing(prompt_id: str) -> JobFailed:
    return JobFailed(
        "the workflow ran to its end and put out nothing",
        hint="its output nodes gave no file and no text; is an input empty, or was everything blocked? If they write files "
        "elsewhere, say allow_empty",
        details={"reason": "no_output", "prompt_id": prompt_id},
    )


def _file(node_id: str, key: str, item: Mapping[str, Any]) -> OutputFile:
    subfolder, kind = item.get("subfolder"), item.get("type")
    return OutputFile(
        node_id,
        key,
        item["filename"],
        subfolder if isinstance(subfolder, str) else "",
        kind if isinstance(kind, str) and kind else "output",
    )


def _capped(item: Any) -> Any:
    return f"{item[:_MAX_TEXT]}…" if isinstance(item, str) and len(item) > _MAX_TEXT else item


def _share(done: int, total: int) -> float:
    return RUN_SHARE + (1 - RUN_SHARE) * done / max(1, total)


def _node(shown: dict[str, dict[str, Any]], node_id: str, workflow: Workflow) -> dict[str, Any]:
    return shown.setdefault(node_id, {"class_type": workflow.class_of(node_id), "files": [], "values": {}})


def _tell_origins(shown: Mapping[str, dict[str, Any]], entry: HistoryEntry, workflow: Workflow) -> None:
    """Which node of the workflow another one stands for, that was put in at run time."""
    for node_id, node in shown.items():
        told = entry.meta.get(node_id)
        origin = told.get("display_node") if isinstance(told, Mapping) else None
        if node_id not in workflow.graph and origin in workflow.graph:
            node["display_node"] = origin


def _file_shown(file: OutputFile, artifact: Artifact) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "subfolder": file.subfolder,
        "type": file.type,
        "key": file.key,
        "url": artifact.url,
        "media_type": artifact.media_type,
    }


def _data(entry: HistoryEntry, shown: Mapping[str, Any], artifacts: Sequence[Artifact]) -> dict[str, Any]:
    data: dict[str, Any] = {"prompt_id": entry.prompt_id, "outputs": dict(shown)}
    image = next((artifact for artifact in artifacts if artifact.media_type.startswith("image/")), None)
    if image is not None:
        data["image_url"] = image.url
    return data


def _usage(finished: Finished, workflow: Workflow) -> dict[str, Any]:
    usage: dict[str, Any] = {"nodes": len(workflow.graph), "cached_nodes": len(finished.entry.cached)}
    if finished.entry.execution_s is not None:
        usage["execution_s"] = round(finished.entry.execution_s, 3)
    if finished.adopted:
        usage["adopted"] = True
    return usage
