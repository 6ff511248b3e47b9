"""What a job asks of ComfyUI: a workflow in API format, and how it is to be run."""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from attrs import field, frozen

from emp_comfyui.core_nodes import core_nodes
from emp_core.errors import InvalidJob

__all__ = ["Workflow"]

# What a body of `POST /prompt` may hold. The identities are the connector's own business; `number` is never sent: two
# prompts with one id and one number end the server's queue.
_OURS = frozenset({"client_id", "prompt_id", "number", "front"})
_FLAGS: Mapping[str, str] = {
    "temp_outputs": "Whether previews and other temporary outputs are kept; left out: as the worker is set.",
    "allow_partial": "Whether the valid outputs run when the server refuses others.",
    "allow_empty": "Whether a run that puts nothing out is a success: its nodes write files elsewhere.",
    "derive_requirements": "Whether the job asks for workers that have the workflow's models and custom nodes; true.",
}
_KNOWN = ("prompt", "workflow", "extra_data", "partial_execution_targets", "server", *_FLAGS)
_SHOWN_PROBLEMS = 10
_EXPORT_HINT = "in ComfyUI use Workflow > Export (API), called 'Save (API Format)' in older versions"


def _schema() -> Mapping[str, Any]:
    node = {
        "type": "object",
        "properties": {
            "class_type": {"type": "string", "minLength": 1},
            "inputs": {"type": "object", "description": "Values, and links: [node id, slot]."},
            "_meta": {"type": "object"},
        },
        "required": ["class_type", "inputs"],
    }
    graph = {
        "type": "object",
        "description": "A workflow in API format: node id → node.",
        "minProperties": 1,
        "additionalProperties": node,
    }
    flags = {name: {"type": ["boolean", "null"], "description": text} for name, text in _FLAGS.items()}
    known = {
        "prompt": graph,
        "workflow": graph,
        "extra_data": {
            "type": ["object", "null"],
            "description": "Handed to the server as it is; it shows in the server's queue.",
        },
        "partial_execution_targets": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "Ids of the output nodes that are to run.",
        },
        "server": {
            "type": ["string", "null"],
            "minLength": 1,
            "description": "The server of a cluster that is to run it, by its name; left out: whichever is chosen.",
        },
        **flags,
        **{name: {"description": "Ignored: the connector's own business."} for name in sorted(_OURS)},
    }
    held = {
        "type": "object",
        "properties": known,
        "additionalProperties": False,
        "oneOf": [{"required": ["prompt"]}, {"required": ["workflow"]}],
    }
    return {"title": "ComfyUI workflow", "anyOf": [graph, held]}


@frozen
class Workflow:
    """A workflow in API format: node id → ``{"class_type", "inputs", "_meta"?}``.

    Attributes:
        extra_data: handed to the server as it is; ``extra_pnginfo`` ends up in the pictures. It shows in the server's queue.
        targets: ids of the output nodes that are to run; None: all.
        temp_outputs: whether temporary outputs are wanted; None: as the worker is set.
        allow_partial: whether the valid outputs may run when the server refuses others.
        allow_empty: whether a run that puts nothing out is a success.
        derive_requirements: whether what the workflow needs is asked of workers at submit.
        server: the name of the only server of a cluster that may run it; None: any.
    """

    payload_schema: ClassVar[Mapping[str, Any]] = _schema()
    """JSON Schema of the payload: the workflow itself, or an object that holds it."""

    graph: Mapping[str, Mapping[str, Any]]
    extra_data: Mapping[str, Any] = field(factory=dict, repr=False)
    targets: tuple[str, ...] | None = None
    temp_outputs: bool | None = None
    allow_partial: bool = False
    allow_empty: bool = False
    derive_requirements: bool = True
    server: str | None = None

    @classmethod
    def from_payload(cls, payload: Any) -> "Workflow":
        """Read a job's payload: the workflow itself, or an object that holds it as ``prompt`` or ``workflow``.

        It is the workflow itself if any of its values has a ``class_type``: no other key of the object form has one.

        Raises:
            InvalidJob: it is neither; says what is wrong and where.
        """
        if not isinstance(payload, Mapping):
            raise InvalidJob(
                f"the payload must be a ComfyUI workflow in API format, not {_kind(payload)}", hint=_EXPORT_HINT
            )
        if _is_graph(payload) or _is_editor_format(payload):
            return cls(_graph(payload, "payload"))
        return cls._from_object(payload)

    @classmethod
    def _from_object(cls, payload: Mapping[str, Any]) -> "Workflow":
        holders = [key for key in ("prompt", "workflow") if key in payload]
        if len(holders) != 1:
            said = "holds both 'prompt' and 'workflow'" if holders else "holds no workflow"
            raise InvalidJob(
                f"the payload {said}",
                hint="give a workflow in API format, or {'prompt': WORKFLOW}",
                details={"keys": sorted(map(str, payload))[:_SHOWN_PROBLEMS]},
            )
        problems = [f"payload.{key}: unknown; known are {', '.join(_KNOWN)}" for key in _unknown(payload)]
        extra_data = payload.get("extra_data")
        if extra_data is not None and not isinstance(extra_data, Mapping):
            problems.append(f"payload.extra_data: expected an object, not {_kind(extra_data)}")
        targets = payload.get("partial_execution_targets")
        if targets is not None and not (isinstance(targets, list) and all(isinstance(t, str) for t in targets)):
            problems.append("payload.partial_execution_targets: expected a list of node ids")
        server = payload.get("server")
        if server is not None and not (isinstance(server, str) and server.strip()):
            problems.append(f"payload.server: expected the name of a server, not {_kind(server)}")
        problems += [
            f"payload.{name}: expected true or false, not {_kind(payload[name])}"
            for name in _FLAGS
            if not isinstance(payload.get(name), bool | None)
        ]
        _raise_if(problems)
        return cls(
            graph=_graph(payload[holders[0]], f"payload.{holders[0]}"),
            extra_data=dict(extra_data or {}),
            targets=None if targets is None else tuple(targets),
            temp_outputs=payload.get("temp_outputs"),
            allow_partial=bool(payload.get("allow_partial")),
            allow_empty=bool(payload.get("allow_empty")),
            derive_requirements=payload.get("derive_requirements") is not False,
            server=server,
        )

    def class_of(self, node_id: str) -> str | None:
        """The class of a node; None for ids that are not in the workflow (nodes that were expanded at run time)."""
        node = self.graph.get(node_id)
        return None if node is None else str(node["class_type"])

    def title_of(self, node_id: str) -> str:
        """What a person calls a node: its title in the editor, else its class, else its id."""
        node = self.graph.get(node_id)
        if node is None:
            return f"node {node_id}"
        meta = node.get("_meta")
        title = meta.get("title") if isinstance(meta, Mapping) else None
        return title if isinstance(title, str) and title.strip() else str(node["class_type"])

    def sends_pictures(self, node_id: str) -> bool:
        """Whether a node hands its pictures over the web socket as outputs, and leaves nothing on the server.

        The wire does not tell such a picture from a preview. By its class: ``SaveImageWebsocket`` is the stock one; custom
        ones carry the word in their names as well.
        """
        return "websocket" in (self.class_of(node_id) or "").lower()

    @property
    def needs_socket(self) -> bool:
        """Whether outputs come over the web socket alone."""
        return any(self.sends_pictures(node_id) for node_id in self.graph)


def _is_graph(value: Mapping[str, Any]) -> bool:
    return any(isinstance(node, Mapping) and "class_type" in node for node in value.values())


def _is_editor_format(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("nodes"), list) and ("links" in value or "last_node_id" in value)


def _graph(value: Any, path: str) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        raise InvalidJob(f"{path}: expected a workflow in API format, not {_kind(value)}", hint=_EXPORT_HINT)
    if _is_editor_format(value):
        raise InvalidJob(
            f"{path} is a workflow in the editor's format, which ComfyUI's API does not run: export it in API format",
            hint=_EXPORT_HINT,
            details={"reason": "editor_format"},
        )
    if not value:
        raise InvalidJob(f"{path}: the workflow has no nodes", hint=_EXPORT_HINT)
    problems: list[str] = []
    for node_id, node in value.items():
        if not isinstance(node, Mapping):
            problems.append(f"{path}.{node_id}: expected a node, not {_kind(node)}")
        elif not isinstance(node.get("class_type"), str) or not node["class_type"]:
            problems.append(f"{path}.{node_id}: the node has no class_type")
        elif not isinstance(node.get("inputs"), Mapping):
            problems.append(f"{path}.{node_id}: the node has no inputs")
        else:
            problems += (f"{path}.{node_id}.{problem}" for problem in _prefix_problems(node))
    _raise_if(problems)
    return value


def _prefix_problems(node: Mapping[str, Any]) -> Iterator[str]:
    """A node that saves outside of the output folder fails at the server, in words alone, after all others have run.

    Those of ComfyUI itself do. Of others some take such names, and write where they say.
    """
    prefix = node["inputs"].get("filename_prefix")
    if isinstance(prefix, str) and node["class_type"] in core_nodes():
        path = posixpath.normpath(prefix.replace("\\", "/"))
        if path.startswith(("../", "/")) or path == ".." or path[1:2] == ":":
            yield "inputs.filename_prefix: it leads out of the server's output folder"


def _unknown(payload: Mapping[str, Any]) -> list[str]:
    return [key for key in payload if key not in _KNOWN and key not in _OURS]


def _raise_if(problems: list[str]) -> None:
    if not problems:
        return
    shown = problems[:_SHOWN_PROBLEMS]
    more = f"; and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
    raise InvalidJob(
        f"the workflow cannot be read: {'; '.join(shown)}{more}", hint=_EXPORT_HINT, details={"problems": shown}
    )


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
    return "an object"
