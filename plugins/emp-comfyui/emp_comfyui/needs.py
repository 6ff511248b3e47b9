"""What a workflow needs of a server, read from the workflow alone: model files, and node classes of custom nodes.

It is read where a job is submitted, without a server at hand, and becomes the job's requirement. So it errs on the side of
asking too little: a worker that turns out to lack something hands the job on, but a job that asks for what nobody can have
waits for ever.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from attrs import frozen

from emp_comfyui.core_nodes import core_nodes
from emp_comfyui.graph import Graph, needed_by, outputs_of, sinks
from emp_comfyui.workflow import Workflow
from emp_core.jobs.requirements import Requirements

__all__ = [
    "EMBEDDING",
    "NODES",
    "SERVERS",
    "Needs",
    "asked_by",
    "embeddings_in",
    "is_model_file",
    "may_be_output",
    "model_inputs",
    "model_name",
    "needs_of",
    "requirements_of",
    "respelled",
]

EMBEDDING = "embedding:"
"""Begins the name of an embedding among models, as it does in prompt texts."""
NODES = "comfyui_nodes"
"""The capability that names a server's node classes, without those that come with ComfyUI itself."""

SERVERS = "comfyui_servers"
"""The capability that names the servers of a worker's cluster."""

_MODEL_FILES = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".engine", ".pkl")
_NAME_MAX = 400
_MODEL_INPUT = re.compile(
    r"(ckpt|lora|vae|unet|clip|clip_vision|control_?net|cnet|style_model|upscale_model|gligen|hypernetwork|diffusion_model"
    r"|text_encoder|audio_encoder|model|base_model|refiner|embedding|ipadapter|instantid|motion_model|sam_model|gguf)"
    r"(_?file|_?path)?(_?name)?(_?\d{1,3})?",
    re.IGNORECASE,
)
_BRINGS_ITS_OWN = re.compile(r"download|save|merge|export|convert|url|huggingface|civitai", re.IGNORECASE)
_MAY_BE_OUTPUT = re.compile(r"save|preview|show|api$|node$", re.IGNORECASE)
# A word of a prompt that begins so; weights and brackets end it.
_EMBEDDING = re.compile(r"(?<![\w/])embedding:([^\s,:;()\[\]{}<>|\"']+)", re.IGNORECASE)
_IN_OBJECTS = ("lora", "content", "name", "model", "file")
"""Where custom nodes keep the file when an input is an object: ``{"on": true, "lora": "x.safetensors"}``."""


@frozen
class Needs:
    """What a workflow needs.

    Attributes:
        models: names of model files as servers list them, with ``/`` between folders; ``embedding:NAME`` for embeddings
            in prompt texts, without their extension.
        nodes: node classes that do not come with ComfyUI itself.
    """

    models: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()


def model_name(name: str) -> str:
    """A model file's name with ``/`` between folders: servers on Windows list, and workflows made there hold, backslashes."""
    return name.replace("\\", "/")


def is_model_file(value: Any) -> bool:
    """Whether an input's value looks like the name of a model file."""
    return (
        isinstance(value, str)
        and len(value) <= _NAME_MAX
        and value.lower().endswith(_MODEL_FILES)
        and not _leads_elsewhere(value)
    )


def needs_of(workflow: Workflow) -> Needs:
    """What the nodes of a workflow that can run need."""
    graph = workflow.graph
    runs = needed_by(graph, outputs_of(graph, may_be_output(graph), workflow.targets))
    own = core_nodes()
    models: set[str] = set()
    nodes: set[str] = set()
    for node_id in runs:
        class_type = str(graph[node_id]["class_type"])
        if class_type not in own:
            nodes.add(class_type)
        for _, name in model_inputs(class_type, graph[node_id]["inputs"]):
            models.add(name)
        models |= set(embeddings_in(graph[node_id]["inputs"]))
    return Needs(frozenset(models), frozenset(nodes))


def requirements_of(needs: Needs) -> Requirements:
    """What a workflow needs, as requirements of a job."""
    nodes = {NODES: sorted(needs.nodes)} if needs.nodes else {}
    return Requirements(models=tuple(sorted(needs.models)), capabilities=nodes)


def asked_by(workflow: Workflow) -> Requirements:
    """All that a workflow asks of a worker: what it needs, unless that is not to be derived, and the server it names."""
    found = requirements_of(needs_of(workflow)) if workflow.derive_requirements else Requirements()
    return found if workflow.server is None else found.over(Requirements(capabilities={SERVERS: [workflow.server]}))


def model_inputs(class_type: str, inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The inputs of a node that name model files, and the names.

    A value that looks like one is believed to be one where the input's name or the node's class says so, and never where the
    class fetches or writes files by itself.
    """
    if _BRINGS_ITS_OWN.search(class_type):
        return
    loads = "load" in class_type.lower()
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            # Names of such inputs are made up by the node's editor; what they hold says enough.
            if value.get("on") is not False:
                yield from ((name, model_name(value[key])) for key in _IN_OBJECTS if is_model_file(value.get(key)))
        elif is_model_file(value) and (loads or _MODEL_INPUT.fullmatch(name)):
            yield name, model_name(value)


def respelled(graph: Graph, node_ids: Collection[str], spelling: Callable[[str], str | None]) -> Graph:
    """The graph with model files named as the server spells them; the same graph where it spells them so already."""
    changed: dict[str, Mapping[str, Any]] = {}
    for node_id in node_ids:
        node = graph[node_id]
        inputs = dict(node["inputs"])
        for name, model in model_inputs(str(node["class_type"]), node["inputs"]):
            told, value = spelling(model), inputs[name]
            if told is not None and isinstance(value, Mapping):
                inputs[name] = {
                    key: told if key in _IN_OBJECTS and isinstance(one, str) and model_name(one) == model else one
                    for key, one in value.items()
                }
            elif told is not None:
                inputs[name] = told
        if inputs != node["inputs"]:
            changed[node_id] = {**node, "inputs": inputs}
    return {node_id: changed.get(node_id, node) for node_id, node in graph.items()} if changed else graph


def embeddings_in(inputs: Mapping[str, Any]) -> Iterator[str]:
    """The embeddings that prompt texts name, as ``embedding:NAME`` without an extension."""
    for value in inputs.values():
        if isinstance(value, str) and EMBEDDING in value.lower():
            for found in _EMBEDDING.finditer(value):
                name = model_name(found[1]).rstrip(".")
                stem = next((name[: -len(end)] for end in _MODEL_FILES if name.lower().endswith(end)), name)
                if stem and not _leads_elsewhere(stem):
                    yield f"{EMBEDDING}{stem}"


def may_be_output(graph: Graph) -> Callable[[str], bool]:
    """Whether a node may be an output node, as far as its class's name and place tell.

    Only the server knows. Of ComfyUI's own classes the names tell; of others those are taken that feed no other node.
    """
    ends, own = sinks(graph), core_nodes()

    def is_output(node_id: str) -> bool:
        class_type = str(graph[node_id]["class_type"])
        return bool(_MAY_BE_OUTPUT.search(class_type)) if class_type in own else node_id in ends

    return is_output


def _leads_elsewhere(value: str) -> bool:
    """A URL, an absolute path or one that climbs: no name in a list of files."""
    return (
        "://" in value
        or "\n" in value
        or value.startswith(("/", "\\", "~"))
        or value[1:2] == ":"
        or ".." in model_name(value).split("/")
    )
