"""The same files, called one thing here and another on the server."""

from typing import Any

import pytest
from emp_comfyui.cluster.paths import PathMap
from hypothesis import given
from hypothesis import strategies as st

SEED = PathMap("U:/", "/home/kmmuser/ComfyUI/")


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("U:/input/a.exr", "/home/kmmuser/ComfyUI/input/a.exr"),
        ("U:\\input\\a.exr", "/home/kmmuser/ComfyUI/input/a.exr"),
        ("u:/input/a b, c.exr", "/home/kmmuser/ComfyUI/input/a b, c.exr"),
        ("U:/seq/shot.####.exr", "/home/kmmuser/ComfyUI/seq/shot.####.exr"),
        ("U:/", "/home/kmmuser/ComfyUI/"),
        ("U:", "/home/kmmuser/ComfyUI"),
    ],
)
def test_a_path_in_the_local_folder_is_one_in_the_remote_folder(here: str, there: str) -> None:
    assert SEED.to_server(here) == there


@pytest.mark.parametrize(
    "text",
    [
        "",
        "U",
        "U:input",
        "V:/input/a.exr",
        "a cat at U:/input",
        "U:/ is my drive",
        "U:/input/../../etc/passwd",
        "U:/input\nand more",
        "/U:/input",
        "file:///U:/input",
    ],
)
def test_what_is_no_path_in_the_folder_stays_as_it_is(text: str) -> None:
    assert SEED.to_server(text) == text


def test_only_whole_names_of_folders_count() -> None:
    paths = PathMap("/mnt/comfy", "/srv/ComfyUI")
    assert paths.to_server("/mnt/comfy2/a.png") == "/mnt/comfy2/a.png"
    assert paths.to_server("/mnt/comfy/a.png") == "/srv/ComfyUI/a.png"
    assert paths.to_server("/MNT/comfy/a.png") == "/MNT/comfy/a.png"
    assert paths.to_local("/srv/ComfyUI-old/a.png") == "/srv/ComfyUI-old/a.png"


@pytest.mark.parametrize(
    ("local", "remote", "here", "there"),
    [
        ("/mnt/comfy", "D:\\ComfyUI", "/mnt/comfy/input/a.png", "D:\\ComfyUI\\input\\a.png"),
        ("/mnt/comfy", "D:/ComfyUI", "/mnt/comfy/input/a.png", "D:/ComfyUI/input/a.png"),
        ("\\\\nas\\comfy", "/srv/c", "\\\\NAS\\comfy\\in\\a.png", "/srv/c/in/a.png"),
        ("//nas/comfy/", "/srv/c", "//nas/comfy/in/a.png", "/srv/c/in/a.png"),
        ("/", "/net/host", "/tmp/a.png", "/net/host/tmp/a.png"),
        ("/net/host", "/", "/net/host/tmp/a.png", "/tmp/a.png"),
    ],
)
def test_folders_of_both_kinds(local: str, remote: str, here: str, there: str) -> None:
    paths = PathMap(local, remote)
    assert paths.to_server(here) == there
    assert paths.to_local(there).casefold().replace("\\", "/") == here.casefold().replace("\\", "/")


@pytest.mark.parametrize("paths", [PathMap(), PathMap("U:/", ""), PathMap("", "/c"), PathMap("/c/", "/c")])
def test_without_two_different_folders_nothing_is_translated(paths: PathMap) -> None:
    assert not paths.translates
    assert paths.to_server("U:/a") == "U:/a"
    assert paths.to_local("/c/a") == "/c/a"


def test_a_workflow_is_translated_in_its_inputs_alone_and_stays_as_it_was() -> None:
    graph: dict[str, dict[str, Any]] = {
        "U:/1": {
            "class_type": "U:/Load",
            "inputs": {"image": "U:/in/a.png", "list": ["U:/x", 1, {"deep": "U:\\y"}], "seed": 7, "model": ["4", 0]},
            "_meta": {"title": "U:/title"},
        }
    }
    translated = SEED.graph_to_server(graph)
    home = "/home/kmmuser/ComfyUI"
    assert translated == {
        "U:/1": {
            "class_type": "U:/Load",
            "inputs": {
                "image": f"{home}/in/a.png",
                "list": [f"{home}/x", 1, {"deep": f"{home}/y"}],
                "seed": 7,
                "model": ["4", 0],
            },
            "_meta": {"title": "U:/title"},
        }
    }
    assert graph["U:/1"]["inputs"]["image"] == "U:/in/a.png"


def test_a_file_that_is_fetched_here_keeps_its_name_here() -> None:
    reference = {"$input": {"path": "U:/input/a.png"}}
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": reference}}}
    assert SEED.graph_to_server(graph) == graph


def test_paths_in_results_come_back() -> None:
    told = {"text": ["/home/kmmuser/ComfyUI/output/a.exr", "done"], "number": 1}
    assert SEED.to_local_everywhere(told) == {"text": ["U:/output/a.exr", "done"], "number": 1}


names = st.text(st.characters(categories=("L", "N"), include_characters="._- "), min_size=1).filter(
    lambda name: name == name.strip() and name != ".."
)


@given(st.lists(names, min_size=1, max_size=6))
def test_there_and_back_again_is_where_it_began(parts: list[str]) -> None:
    path = "U:/" + "/".join(parts)
    assert SEED.to_local(SEED.to_server(path)) == path


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    for paths in (SEED, PathMap("/", "U:\\"), PathMap("ß:/", "/x")):
        assert isinstance(paths.to_server(text), str)
        assert isinstance(paths.to_local(text), str)
