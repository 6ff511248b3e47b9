"""What a workflow needs is read from it alone, where it is submitted, and becomes the job's requirement."""

from typing import Any

import pytest
from emp_comfyui.connector import ComfyUIWebSocketConnector
from emp_comfyui.core_nodes import core_nodes
from emp_comfyui.needs import NODES, needs_of
from emp_comfyui.workflow import Workflow
from hypothesis import given
from hypothesis import strategies as st

from emp_core.errors import InvalidJob
from emp_core.jobs.model import JobSpec
from emp_core.jobs.requirements import Requirements

from .rig import image, one_image, save


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def needed(graph: dict[str, Any], **options: Any) -> tuple[set[str], set[str]]:
    needs = needs_of(Workflow.from_payload({"prompt": graph, **options}))
    return set(needs.models), set(needs.nodes)


def before_saving(*nodes: dict[str, Any]) -> dict[str, Any]:
    """The nodes, all of them feeding one that feeds a SaveImage."""
    graph = {str(number): each for number, each in enumerate(nodes, 10)}
    feeding = {f"in_{node_id}": [node_id, 0] for node_id in graph}
    return {**graph, "1": node("VAEDecode", **feeding), "2": save("1")}


@pytest.mark.parametrize(
    ("loader", "model"),
    [
        (node("CheckpointLoaderSimple", ckpt_name="sdxl.safetensors"), "sdxl.safetensors"),
        (node("CheckpointLoaderSimple", ckpt_name="SD1.5\\old.ckpt"), "SD1.5/old.ckpt"),
        (node("LoraLoader", lora_name="styles/ink.safetensors", strength_model=1.0), "styles/ink.safetensors"),
        (node("VAELoader", vae_name="ae.safetensors"), "ae.safetensors"),
        (node("UNETLoader", unet_name="flux1-dev.sft", weight_dtype="default"), "flux1-dev.sft"),
        (node("CLIPVisionLoader", clip_name="clip_vision_h.safetensors"), "clip_vision_h.safetensors"),
        (node("ControlNetLoader", control_net_name="canny.pth"), "canny.pth"),
        (node("UpscaleModelLoader", model_name="RealESRGAN_x4plus.pth"), "RealESRGAN_x4plus.pth"),
        (node("StyleModelLoader", style_model_name="redux.safetensors"), "redux.safetensors"),
        (node("ModelPatchLoader", name="uso.safetensors"), "uso.safetensors"),
        (node("LTXAVTextEncoderLoader", text_encoder="gemma.safetensors"), "gemma.safetensors"),
        (node("CreateHookLora", lora_name="hook.safetensors"), "hook.safetensors"),
        (node("UnetLoaderGGUF", unet_name="flux1-dev-Q4_0.gguf"), "flux1-dev-Q4_0.gguf"),
        (
            node("CheckpointLoader|pysssss", ckpt_name={"content": "sdxl.safetensors", "image": None}),
            "sdxl.safetensors",
        ),
        (node("Power Lora Loader (rgthree)", lora_1={"on": True, "lora": "ink.safetensors"}), "ink.safetensors"),
        (node("LoRA Stacker", lora_name_1="ink.safetensors", lora_name_2="None"), "ink.safetensors"),
        (node("UltralyticsDetectorProvider", model_name="bbox/face_yolov8m.pt"), "bbox/face_yolov8m.pt"),
    ],
    ids=lambda value: value["class_type"] if isinstance(value, dict) else value,
)
def test_model_files_are_found_by_the_inputs_that_name_them(loader: dict[str, Any], model: str):
    assert needed(before_saving(loader))[0] == {model}


def test_several_text_encoders_of_one_loader_are_all_found():
    loader = node("DualCLIPLoader", clip_name1="t5xxl.safetensors", clip_name2="clip_l.safetensors", type="flux")
    assert needed(before_saving(loader))[0] == {"t5xxl.safetensors", "clip_l.safetensors"}


@pytest.mark.parametrize(
    "harmless",
    [
        node("DownloadAndLoadDepthAnythingV2Model", model="depth_anything_v2_vitl_fp16.safetensors"),
        node("CheckpointSave", filename_prefix="checkpoints/mine.safetensors"),
        node("HF Loader", model_url="https://example.org/model.safetensors"),
        node("SomeLoader", model_path="/srv/models/x.safetensors"),
        node("SomeLoader", model_path="..\\x.safetensors"),
        node("CLIPTextEncode", text="a photo of a file called x.safetensors"),
        node("VAELoader", vae_name="taesd"),
        node("Power Lora Loader (rgthree)", lora_1={"on": False, "lora": "off.safetensors"}),
        node("LoraLoader", lora_name=["7", 0]),
    ],
    ids=lambda value: value["class_type"],
)
def test_what_only_looks_like_a_model_file_is_not_asked_for(harmless: dict[str, Any]):
    assert needed(before_saving(harmless))[0] == set()


def test_embeddings_in_prompts_are_models():
    text = "a cat, (embedding:easynegative:1.2), EMBEDDING:art/ink.pt and embedding: nothing; myembedding:no"
    assert needed(before_saving(node("CLIPTextEncode", text=text)))[0] == {
        "embedding:easynegative",
        "embedding:art/ink",
    }


def test_only_node_classes_that_do_not_come_with_comfyui_are_asked_for():
    assert needed(one_image())[1] == set()
    assert needed(before_saving(node("FaceDetailer"), node("KSampler")))[1] == {"FaceDetailer"}


def test_only_nodes_that_can_run_count():
    graph = {
        "1": image(),
        "2": save("1"),
        "3": node("CheckpointLoaderSimple", ckpt_name="unused.safetensors"),
        "4": node("LoraLoader", model=["3", 0], lora_name="unused too.safetensors"),
        "5": node("FancyImage"),
        "6": node("ImageInvert", image=["5", 0]),
    }
    assert needed(graph) == (set(), set())
    assert needed({**graph, "7": node("FancySave", images=["6", 0])}) == (set(), {"FancyImage", "FancySave"})


def test_only_what_the_chosen_outputs_need_counts():
    graph = {
        "1": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        "2": save("1", "a"),
        "3": node("CheckpointLoaderSimple", ckpt_name="b.safetensors"),
        "4": save("3", "b"),
    }
    assert needed(graph, partial_execution_targets=["4"])[0] == {"b.safetensors"}


def test_a_graph_with_a_cycle_can_be_read():
    assert needed({"1": node("A", x=["2", 0]), "2": node("B", x=["1", 0])}) == (set(), set())


def test_what_is_found_becomes_the_jobs_requirement_beside_what_was_asked_by_hand():
    graph = before_saving(node("CheckpointLoaderSimple", ckpt_name="sdxl.safetensors"), node("FaceDetailer"))
    asked = Requirements(models=("extra.safetensors",), hardware={"gpu_memory_mb": 8000})
    spec = ComfyUIWebSocketConnector.prepare_job(JobSpec("comfyui", payload=graph, requirements=asked))
    assert spec.requirements == Requirements(
        models=("extra.safetensors", "sdxl.safetensors"),
        hardware={"gpu_memory_mb": 8000},
        capabilities={NODES: ["FaceDetailer"]},
    )


def test_a_stock_workflow_without_models_stays_in_the_plain_lane():
    spec = ComfyUIWebSocketConnector.prepare_job(JobSpec("comfyui", payload=one_image()))
    assert spec.requirement.is_plain


def test_a_job_may_forbid_that_requirements_are_read_from_its_workflow():
    graph = before_saving(node("CheckpointLoaderSimple", ckpt_name="sdxl.safetensors"), node("FaceDetailer"))
    payload = {"prompt": graph, "derive_requirements": False}
    assert ComfyUIWebSocketConnector.prepare_job(JobSpec("comfyui", payload=payload)).requirement.is_plain


@pytest.mark.parametrize("prefix", ["../../etc/x", "/tmp/x", "a/../../b", "C:\\x", "..\\x", ".."])
def test_a_file_name_that_leads_out_of_the_output_folder_is_refused_at_submit(prefix: str):
    with pytest.raises(InvalidJob, match=r"payload\.3\.inputs\.filename_prefix: it leads out"):
        ComfyUIWebSocketConnector.payload_of(JobSpec("comfyui", payload=one_image(prefix=prefix)))


@pytest.mark.parametrize("prefix", ["x", "a/b/x", "a/../b", "%date:yyyy%/x", "..hidden/x"])
def test_folders_within_the_output_folder_are_allowed(prefix: str):
    assert ComfyUIWebSocketConnector.payload_of(JobSpec("comfyui", payload=one_image(prefix=prefix))).graph


@pytest.mark.parametrize("prefix", ["/mnt/shots/sh010/beauty", "U:\\shots\\sh010\\beauty"])
def test_nodes_of_others_may_save_where_they_like(prefix: str):
    graph = {**one_image(), "3": node("SaveEXR", images=["2", 0], filename_prefix=prefix)}
    assert ComfyUIWebSocketConnector.payload_of(JobSpec("comfyui", payload=graph)).graph == graph


def test_the_list_of_comfyuis_own_classes_never_changes():
    # Workers and submitters leave out the same names: a changed list would part them. New classes need no entry.
    assert len(core_nodes()) == 1026
    assert {"KSampler", "SaveImage", "CheckpointLoaderSimple", "SaveImageWebsocket"} <= core_nodes()


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_nothing_that_an_input_holds_breaks_the_reading(value: Any):
    needed(before_saving(node("SomeLoader", model_name=value), node("CLIPTextEncode", text=value)))
