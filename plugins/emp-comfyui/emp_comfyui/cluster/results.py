"""What a workflow gave that ran on a pool by itself, without a queue: its files, here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from attrs import field, frozen

from emp_comfyui.cluster.paths import PathMap
from emp_core.connectors.context import Preview
from emp_core.errors import UnsafeName
from emp_core.jobs.model import Artifact
from emp_core.jobs.outcomes import JobResult
from emp_core.storage.names import safe_key

__all__ = ["OnProgress", "RunOutput", "RunProgress", "RunResult", "collect"]


@frozen
class RunProgress:
    """How far a workflow is.

    Attributes:
        percent: 0 to 100; never falls.
        message: what runs now, for people.
        server: the name of the server that runs it; None: it has none yet.
        preview: a picture of it, if there is a new one.
    """

    percent: float
    message: str | None = None
    server: str | None = None
    preview: Preview | None = field(default=None, repr=False)


OnProgress = Callable[[RunProgress], None]


@frozen
class RunOutput:
    """A file that a workflow put out.

    Attributes:
        name: its name, as the server gave it.
        node_id: the output node that it is of.
        path: where it was stored here; None when it is in ``data``.
        data: its bytes; None when it was stored.
        shared_path: the same file in the server's output folder, as this machine sees that; None when it does not.
    """

    name: str
    media_type: str
    node_id: str | None
    size_bytes: int
    sha256: str
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    shared_path: str | None = None


@frozen
class RunResult:
    """A workflow that ran to its end.

    Attributes:
        server: the name of the server that ran it.
        values: texts, numbers and objects that output nodes gave besides files: node id → name → list. Paths in them are
            this machine's.
        usage: what it took: ``execution_s``, ``nodes``, ``cached_nodes``.
    """

    server: str
    prompt_id: str
    outputs: tuple[RunOutput, ...]
    values: Mapping[str, Mapping[str, Any]]
    usage: Mapping[str, Any]


def collect(result: JobResult, paths: PathMap, folder: Path | None) -> RunResult:
    """The result of a run whose files are in a store of files. Blocks on the disk.

    Args:
        folder: where they go; None: their bytes are given instead. Names that are taken get a number.
    """
    data = result.data
    outputs = [_output(artifact, paths, folder) for artifact in result.artifacts]
    nodes: Mapping[str, Any] = data.get("outputs") or {}
    values = {node_id: node["values"] for node_id, node in nodes.items() if node.get("values")}
    return RunResult(str(data.get("server")), str(data.get("prompt_id")), tuple(outputs), values, result.usage or {})


def _output(artifact: Artifact, paths: PathMap, folder: Path | None) -> RunOutput:
    stored = Path(url2pathname(urlsplit(artifact.url).path))
    node_id = artifact.metadata.get("node_id")
    return RunOutput(
        artifact.name,
        artifact.media_type,
        node_id if isinstance(node_id, str) else None,
        artifact.size_bytes,
        artifact.sha256,
        path=None if folder is None else _moved(stored, folder / artifact.name),
        data=stored.read_bytes() if folder is None else None,
        shared_path=_shared(artifact, paths),
    )


def _moved(source: Path, target: Path) -> Path:
    """Move a file next to others of the same name, in whatever order several programs do so."""
    number = 1
    wanted = target
    while True:
        try:
            target.touch(exist_ok=False)
        except FileExistsError:
            number += 1
            target = wanted.with_stem(f"{wanted.stem}-{number}")
        else:
            return source.replace(target)


def _shared(artifact: Artifact, paths: PathMap) -> str | None:
    """Where the server's own file is, seen from here, if its folder is shared with this machine."""
    kind, subfolder = artifact.metadata.get("type"), artifact.metadata.get("subfolder")
    if not paths.local or kind not in ("output", "temp") or not isinstance(subfolder, str):
        return None
    try:
        inner = safe_key("/".join(part for part in (subfolder.replace("\\", "/").strip("/"), artifact.name) if part))
    except UnsafeName:
        return None
    return f"{paths.local.rstrip('/')}/{kind}/{inner}"
