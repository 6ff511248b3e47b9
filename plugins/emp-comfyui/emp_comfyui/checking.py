"""Looking at a workflow before it runs: every node class and model file that the server lacks is named at once."""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, frozen

from emp_comfyui.client import ComfyUIClient
from emp_comfyui.graph import needed_by, outputs_of, sinks
from emp_comfyui.inventory import Inventory
from emp_comfyui.needs import EMBEDDING, embeddings_in, may_be_output, model_inputs, respelled
from emp_comfyui.node_info import Catalogue, choices_of, read_catalogue
from emp_comfyui.workflow import Workflow
from emp_core.connectors.http_errors import shown
from emp_core.errors import MissingModel, MissingNode

__all__ = ["Checked", "check"]

_ASKED_ONE_BY_ONE = 30
_SHOWN = 10
_FOLDERS: Mapping[str, str] = {
    "ckpt_name": "checkpoints",
    "vae_name": "vae",
    "lora_name": "loras",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "control_net_name": "controlnet",
    "style_model_name": "style_models",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
    "photomaker_model_name": "photomaker",
    "audio_encoder_name": "audio_encoders",
}
_FOLDERS_OF_CLASSES: Mapping[str, str] = {
    "CLIPVisionLoader": "clip_vision",
    "UpscaleModelLoader": "upscale_models",
    "ModelPatchLoader": "model_patches",
}


@frozen
class Checked:
    """A workflow that the server can run, as far as its lists tell.

    Attributes:
        workflow: with file names as the server spells them, and without nodes that cannot run and that it does not know.
        models: the models that it uses.
    """

    workflow: Workflow
    models: frozenset[str] = frozenset()


@frozen
class _Use:
    """An input of a node that names a model."""

    node_id: str
    class_type: str
    input: str
    model: str

    @property
    def folder(self) -> str | None:
        """The folder that the file belongs into, where that is known."""
        if self.model.startswith(EMBEDDING):
            return "embeddings"
        return _FOLDERS_OF_CLASSES.get(self.class_type) or _FOLDERS.get(self.input.rstrip("0123456789"))


async def check(workflow: Workflow, inventory: Inventory, client: ComfyUIClient) -> Checked:
    """Compare a workflow with what the server has. Asks for nothing while nothing seems to be missing.

    Raises:
        MissingNode: the server lacks node classes that the workflow needs to run; names all of them.
        MissingModel: it lacks model files; names all of them, with their folders where those are known.
    """
    unknown = await _unknown_classes(workflow, inventory, client)
    runs = _running(workflow, inventory.catalogue)
    if missing := {node_id: name for node_id, name in unknown.items() if node_id in runs}:
        raise _missing_nodes(missing)
    if unknown and runs:
        # The server refuses a class that it does not know even where nothing needs it.
        workflow = evolve(
            workflow, graph={node_id: workflow.graph[node_id] for node_id in workflow.graph if node_id in runs}
        )
    uses = list(_uses(workflow, runs))
    if lacking := await _lacking(workflow, uses, inventory, client):
        raise _missing_models(lacking)
    workflow = evolve(workflow, graph=respelled(workflow.graph, runs, inventory.spelling))
    return Checked(workflow, frozenset(use.model for use in uses))


async def _unknown_classes(workflow: Workflow, inventory: Inventory, client: ComfyUIClient) -> dict[str, str]:
    """Node id → class, of the nodes whose class the server does not have. Empty when it does not tell what it has."""
    if inventory.catalogue is None:
        return {}
    wanted = {node_id: str(node["class_type"]) for node_id, node in workflow.graph.items()}
    unknown = sorted(set(wanted.values()) - inventory.catalogue.names)
    for name in unknown[:_ASKED_ONE_BY_ONE]:
        told = await client.node_class(name)
        if told is not None:
            inventory.learned(read_catalogue({name: told}))
    have = inventory.catalogue.names
    return {node_id: name for node_id, name in wanted.items() if name not in have}


def _running(workflow: Workflow, catalogue: Catalogue | None) -> frozenset[str]:
    """The nodes that the server would run: its output nodes and what they need. Of classes that it lacks, those at the end
    may be output nodes."""
    graph = workflow.graph
    if catalogue is None:
        return needed_by(graph, outputs_of(graph, may_be_output(graph), workflow.targets))
    ends = sinks(graph)

    def is_output(node_id: str) -> bool:
        class_type = str(graph[node_id]["class_type"])
        return class_type in catalogue.outputs or (class_type not in catalogue.names and node_id in ends)

    return needed_by(graph, outputs_of(graph, is_output, workflow.targets))


def _uses(workflow: Workflow, runs: frozenset[str]) -> Iterable[_Use]:
    for node_id in workflow.graph:
        if node_id in runs:
            node = workflow.graph[node_id]
            class_type = str(node["class_type"])
            yield from (
                _Use(node_id, class_type, name, model) for name, model in model_inputs(class_type, node["inputs"])
            )
            yield from (_Use(node_id, class_type, "", model) for model in embeddings_in(node["inputs"]))


async def _lacking(workflow: Workflow, uses: Iterable[_Use], inventory: Inventory, client: ComfyUIClient) -> list[_Use]:
    """The uses of models that the server does not have, by its own word of this moment."""
    lacking = []
    told: dict[str, Mapping[str, Any] | None] = {}
    missed = [use for use in uses if inventory.has_model(use.model) is False]
    if any(use.model.startswith(EMBEDDING) for use in missed):
        await inventory.refresh_files()
    for use in missed:
        if use.model.startswith(EMBEDDING):
            # The server itself only warns of them: a job may say that it does not ask for what its workflow names.
            if workflow.derive_requirements and inventory.has_model(use.model) is False:
                lacking.append(use)
            continue
        if use.class_type not in told:
            told[use.class_type] = await client.node_class(use.class_type)
            inventory.learned(read_catalogue({use.class_type: told[use.class_type]}))
        # An input that is no choice may take other things than files that are there: the node itself decides.
        if choices_of(told[use.class_type], use.input) is not None and inventory.has_model(use.model) is False:
            lacking.append(use)
    return lacking


def _missing_nodes(missing: Mapping[str, str]) -> MissingNode:
    nodes = [{"node_id": node_id, "class_type": shown(name)} for node_id, name in missing.items()]
    named = ", ".join(f"{shown(name)!r} (node {node_id})" for node_id, name in list(missing.items())[:_SHOWN])
    word = "class" if len(set(missing.values())) == 1 else "classes"
    return MissingNode(
        f"the ComfyUI server has no node {word} {named}",
        hint="install the custom nodes that bring them, or send the job to a worker that has them",
        details={**nodes[0], "nodes": nodes[:_SHOWN]},
    )


def _missing_models(lacking: Iterable[_Use]) -> MissingModel:
    unique = {use.model: use for use in lacking}
    named = [f"{shown(use.model)!r}" + (f" in {use.folder}" if use.folder else "") for use in unique.values()]
    return MissingModel(
        f"the ComfyUI server does not have {', '.join(named[:_SHOWN])}",
        hint="put the model files into the server's models folder, or send the job to a worker that has them",
        details={
            "models": sorted(unique)[:_SHOWN],
            "files": [
                {
                    "model": shown(use.model),
                    "folder": use.folder,
                    "node_id": use.node_id,
                    "class_type": shown(use.class_type),
                    "input": shown(use.input),
                }
                for use in unique.values()
            ][:_SHOWN],
        },
    )
