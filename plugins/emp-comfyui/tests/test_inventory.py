"""What the server lacks is named before a run, all at once, at no cost to jobs that it can run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from emp_comfyui.needs import NODES
from emp_comfyui.testing import FakeComfyUI, Faults, HttpFault, Input, NodeCall, NodeClass

from emp_core.errors import MissingModel, MissingNode

from .rig import image, one_image, rigged, save


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def text_to_image(
    ckpt: str = "sd_xl_base_1.0.safetensors", text: str = "a cat", **more: Mapping[str, Any]
) -> dict[str, Any]:
    sampling = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=ckpt),
        "2": node("CLIPTextEncode", text=text, clip=["1", 1]),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node("KSampler", model=["1", 0], positive=["2", 0], negative=["2", 0], latent_image=["3", 0], **sampling),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": save("5"),
        **more,
    }


async def shout(call: NodeCall) -> tuple[object, ...]:
    return (call["image"],)


def shouting(name: str = "Shout", **inputs: Input) -> NodeClass:
    return NodeClass(name, shout, inputs={"image": Input("IMAGE"), **inputs}, outputs=("IMAGE",))


def reads_of_lists(server: FakeComfyUI) -> list[str]:
    lists = ("/object_info", "/models", "/embeddings", "/node_replacements")
    return [request.path for request in server.requests if request.path.startswith(lists)]


async def test_all_missing_nodes_are_named_at_once_and_nothing_is_queued(tmp_path: Path):
    graph = {
        **one_image(),
        "7": node("Shout", image=["1", 0]),
        "8": node("Whisper", image=["7", 0]),
        "9": save("8", "b"),
    }
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        with pytest.raises(MissingNode, match=r"classes 'Shout' \(node 7\), 'Whisper' \(node 8\)") as caught:
            await rig.run(graph)
        assert server.prompts == []
    nodes = [{"node_id": "7", "class_type": "Shout"}, {"node_id": "8", "class_type": "Whisper"}]
    assert caught.value.details == {**nodes[0], "nodes": nodes}


async def test_all_missing_model_files_are_named_at_once_with_their_folders(tmp_path: Path):
    graph = text_to_image("none.safetensors", lora=node("LoraLoader", model=["1", 0], clip=["1", 1], lora_name="no.pt"))
    graph["4"]["inputs"]["model"] = ["lora", 0]
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        with pytest.raises(MissingModel, match=r"'none.safetensors' in checkpoints, 'no.pt' in loras") as caught:
            await rig.run(graph)
        assert server.prompts == []
    assert caught.value.details["models"] == ["no.pt", "none.safetensors"]
    assert caught.value.details["files"][0] == {
        "model": "none.safetensors",
        "folder": "checkpoints",
        "node_id": "1",
        "class_type": "CheckpointLoaderSimple",
        "input": "ckpt_name",
    }


async def test_a_job_that_lacks_nothing_costs_no_reading(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        server.requests.clear()
        for number in range(3):
            await rig.run(text_to_image(text=f"cat {number}"), job_id=f"j{number}")
        assert reads_of_lists(server) == []


async def test_the_lists_are_not_read_again_with_every_look_at_the_service(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        server.requests.clear()
        for _ in range(3):
            await rig.connector.get_service_info()
        assert reads_of_lists(server) == []


async def test_a_file_that_was_added_later_is_found_by_asking_for_the_one_node(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        server.models = {**server.models, "checkpoints": ["new.safetensors"]}
        server.requests.clear()
        result = await rig.run(text_to_image("new.safetensors"))
        assert reads_of_lists(server) == ["/object_info/CheckpointLoaderSimple"]
        server.requests.clear()
        await rig.run(text_to_image("new.safetensors", text="another"), job_id="again")
        assert reads_of_lists(server) == []
    assert len(result.artifacts) == 1


async def test_a_node_that_was_added_later_is_found(tmp_path: Path):
    graph = {"1": image(), "2": node("Shout", image=["1", 0]), "3": save("2")}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        server.nodes.add(shouting())
        assert len((await rig.run(graph)).artifacts) == 1
        info = await rig.connector.get_service_info()
    assert "Shout" in info.capabilities[NODES]


async def test_nodes_that_nothing_needs_do_not_stop_a_workflow(tmp_path: Path):
    unused = {
        "7": node("Shout", image=["1", 0]),
        "8": node("ImageInvert", image=["7", 0]),
        "9": node("CheckpointLoaderSimple", ckpt_name="none.safetensors"),
    }
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        result = await rig.run({**one_image(), **unused})
        assert server.prompts[0].graph.keys() == one_image().keys()
    assert len(result.artifacts) == 1


async def test_an_unknown_node_at_the_end_counts_as_an_output(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        with pytest.raises(MissingNode):
            await rig.run({**one_image(), "7": node("FancySave", images=["1", 0])})


@pytest.mark.parametrize(
    ("listed", "named"),
    [("SD1.5\\x.safetensors", "SD1.5/x.safetensors"), ("SD1.5/x.safetensors", "SD1.5\\x.safetensors")],
)
async def test_folders_in_names_match_whichever_system_the_server_runs_on(tmp_path: Path, listed: str, named: str):
    async with FakeComfyUI(models={"checkpoints": [listed]}) as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        info = await rig.connector.get_service_info()
        result = await rig.run(text_to_image(named))
        assert server.prompts[0].graph["1"]["inputs"]["ckpt_name"] == listed
    assert info.models is not None
    assert "SD1.5/x.safetensors" in info.models
    assert len(result.artifacts) == 1


async def test_a_missing_embedding_is_a_missing_model_unless_the_job_says_that_it_asks_for_none(tmp_path: Path):
    graph = text_to_image(text="a cat, embedding:easynegative")
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        with pytest.raises(MissingModel, match="'embedding:easynegative' in embeddings"):
            await rig.run(graph)
        assert (await rig.run({"prompt": graph, "derive_requirements": False}, job_id="b")).artifacts
        server.models = {**server.models, "embeddings": ["easynegative.pt"]}
        assert (await rig.run({**graph, "3": {**graph["3"]}}, job_id="c")).artifacts


async def test_a_node_that_takes_any_text_decides_by_itself(tmp_path: Path):
    graph = {"1": image(), "2": node("ShoutLoader", image=["1", 0], model_name="anything.pth"), "3": save("2")}
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        server.nodes.add(shouting("ShoutLoader", model_name=Input("STRING")))
        await rig.connector.connect()
        assert len((await rig.run(graph)).artifacts) == 1


@pytest.mark.parametrize("kind", ["status", "garbage"])
async def test_a_server_that_does_not_tell_what_it_has_counts_as_having_all(tmp_path: Path, kind: Any):
    hidden = [HttpFault(path, kind, times=None, status=404) for path in ("/object_info*", "/models*", "/embeddings")]
    async with FakeComfyUI(faults=Faults(http=hidden)) as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        info = await rig.connector.get_service_info()
        assert (await rig.run(text_to_image())).artifacts
        with pytest.raises(MissingNode):
            await rig.run({**one_image(), "7": node("Shout")}, job_id="b")
    assert info.models is None
    assert info.capabilities == {NODES: None}


async def test_a_server_that_tells_its_nodes_alone_counts_as_having_all_models(tmp_path: Path):
    hidden = [HttpFault(path, "status", times=None, status=404) for path in ("/models*", "/embeddings")]
    async with FakeComfyUI(faults=Faults(http=hidden)) as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        info = await rig.connector.get_service_info()
        assert (await rig.run(text_to_image(text="embedding:ink"))).artifacts
        with pytest.raises(MissingModel):
            await rig.run(text_to_image("none.safetensors"), job_id="b")
    assert info.models is None
    assert "ProbeSlow" in info.capabilities[NODES]


async def test_classes_that_the_server_replaces_are_taken(tmp_path: Path):
    graph = {"1": image(), "2": node("OldShout", image=["1", 0]), "3": save("2")}
    async with FakeComfyUI(replaced_nodes={"OldShout": "Shout"}) as server, rigged(server.url, tmp_path) as rig:
        server.nodes.add(shouting())
        await rig.connector.connect()
        assert len((await rig.run(graph)).artifacts) == 1


async def test_the_service_offers_its_models_and_the_nodes_of_others(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        server.nodes.add(shouting("Zoom", model_name=Input(["bundled.pth", "none"])))
        server.models = {**server.models, "embeddings": ["art/ink.pt"]}
        await rig.connector.connect()
        before = await rig.connector.get_service_info()
        await rig.run(text_to_image())
        after = await rig.connector.get_service_info()
    assert before.models is not None
    assert after.models is not None
    assert {
        "sd_xl_base_1.0.safetensors",
        "pretty.safetensors",
        "bundled.pth",
        "embedding:art/ink",
    } <= before.models.keys()
    assert "KSampler" not in before.capabilities[NODES]
    assert {"Zoom", "ProbeSlow"} <= set(before.capabilities[NODES])
    assert before.models["sd_xl_base_1.0.safetensors"].load_ms > before.models["pretty.safetensors"].load_ms
    assert [name for name, offer in before.models.items() if offer.loaded] == []
    assert [name for name, offer in after.models.items() if offer.loaded] == ["sd_xl_base_1.0.safetensors"]


async def test_a_server_that_was_away_is_read_anew(tmp_path: Path):
    async with FakeComfyUI() as server, rigged(server.url, tmp_path) as rig:
        await rig.connector.connect()
        await rig.run(text_to_image())
        await server.kill()
        assert not (await rig.connector.check_health()).ok
        server.models = {"checkpoints": ["other.safetensors"]}
        server.nodes.add(shouting())
        await server.restart()
        assert (await rig.connector.check_health()).ok
        info = await rig.connector.get_service_info()
    assert info.models is not None
    assert [name for name, offer in info.models.items() if offer.loaded] == []
    assert "other.safetensors" in info.models
    assert "sd_xl_base_1.0.safetensors" not in info.models
    assert "Shout" in info.capabilities[NODES]
