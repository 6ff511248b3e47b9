"""Workflows that refer to files of a job, and what a server has of them."""

from base64 import b64encode
from typing import Any

from emp_comfyui.testing import FakeComfyUI
from emp_comfyui.testing.pictures import plasma

from .rig import Graph, save

CAT = plasma(32, 32, "cat")
PICTURE = CAT.as_png()


def file(data: bytes, name: str = "", **said: Any) -> dict[str, Any]:
    return {"$input": {"base64": b64encode(data).decode(), **({"name": name} if name else {}), **said}}


def img2img(image: Any, **inputs: Any) -> Graph:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image, **inputs}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": save("2"),
    }


def inputs_of(server: FakeComfyUI) -> list[str]:
    """The files in the server's input folder besides those that every server has."""
    folder = server.folders.path("input")
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if name not in ("example.png", "emp/.lock") and "/.held/" not in name)


def executed(server: FakeComfyUI) -> list[tuple[str, str]]:
    """Nodes that the last prompt ran, by the cache's account."""
    status = server.history[server.prompts[-1].prompt_id]["status"]
    [cached] = [data["nodes"] for kind, data in status["messages"] if kind == "execution_cached"]
    graph = server.prompts[-1].graph
    return [(node_id, graph[node_id]["class_type"]) for node_id in graph if node_id not in cached]
