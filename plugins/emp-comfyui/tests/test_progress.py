"""Progress counts nodes by how long they take, so that a percentage says something."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emp_comfyui.durations import Durations
from emp_comfyui.listener import Listener
from emp_comfyui.progress import ProgressTracker
from emp_comfyui.testing import Recording
from emp_comfyui.workflow import Workflow

from .rig import image, one_image, save

RECORDINGS = Path(__file__).parent / "recordings"


def frames_of(scenario: str, number: int) -> Iterator[tuple[str, str]]:
    """The text frames of a recorded prompt, each with its prompt's id."""
    recording = Recording.load(RECORDINGS / f"{scenario}.json")
    place = recording.posts()[number]
    prompt_id = recording.prompt_id_of(place)
    assert prompt_id is not None
    for event in recording.events[place:]:
        if event["kind"] == "ws_recv" and "json" in event and event["json"]["data"].get("prompt_id") == prompt_id:
            yield prompt_id, json.dumps(event["json"])


def told(scenario: str, number: int, durations: Durations) -> list[tuple[str | None, float]]:
    """What a recorded prompt's frames say: the message and the fraction after each."""
    recording = Recording.load(RECORDINGS / f"{scenario}.json")
    workflow = Workflow(recording.sent_json(recording.posts()[number])["prompt"])
    listener: Listener | None = None
    seen = []
    for prompt_id, frame in frames_of(scenario, number):
        listener = listener or Listener(workflow, prompt_id, durations)
        listener.hear(frame)
        seen.append((listener.message, listener.fraction))
    return seen


@pytest.mark.parametrize("number", [0, 1], ids=["all nodes", "most of them cached"])
def test_a_sampler_is_most_of_a_recorded_text_to_image_job(number: int):
    seen = told("01b_ksampler_progress_preview", number, Durations())
    fractions = [fraction for _, fraction in seen]
    sampling = [fraction for message, fraction in seen if message is not None and message.startswith("KSampler")]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert sampling[0] < 0.75
    assert sampling[-1] - sampling[0] > 0.2


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def sampling() -> dict[str, Any]:
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"),
        "2": node("CLIPTextEncode", clip=["1", 1]),
        "3": node("KSampler", model=["1", 0], positive=["2", 0], steps=20),
        "4": node("VAEDecode", samples=["3", 0]),
        "5": save("4"),
        "6": node("LoraLoader", model=["1", 0], lora_name="nobody needs this.safetensors"),
    }


def test_every_step_of_a_sampler_counts_even_where_little_is_known():
    tracker = ProgressTracker(Workflow(sampling()))
    tracker.node_executing("1")
    tracker.node_executing("2")
    tracker.node_executing("3")
    before = tracker.fraction
    tracker.node_step("3", 10, 20)
    half = tracker.fraction
    tracker.node_step("3", 20, 20)
    assert before < half < tracker.fraction
    assert tracker.fraction - before > 0.5


def test_cached_nodes_do_not_count():
    tracker = ProgressTracker(Workflow(sampling()))
    tracker.nodes_cached(["1", "2"])
    assert tracker.fraction == 0
    tracker.node_step("3", 20, 20)
    assert tracker.fraction > 0.8


def test_a_prompt_that_is_cached_whole_is_done():
    tracker = ProgressTracker(Workflow(one_image()))
    tracker.nodes_cached(["1", "2", "3"])
    assert tracker.fraction == 1.0


def test_what_nodes_took_is_learned():
    durations = Durations()
    slow = {"1": image(), "2": node("Dream", image=["1", 0]), "3": save("2")}
    plain = ProgressTracker(Workflow(slow), durations)
    plain.node_executing("2")
    plain.node_executing("3")
    for _ in range(5):
        durations.learn("Dream", {}, 60.0)
        durations.learn("EmptyImage", {}, 0.01)
        durations.learn("SaveImage", {}, 0.1)
    learned = ProgressTracker(Workflow(slow), durations)
    learned.node_executing("1")
    learned.node_executing("2")
    assert learned.fraction < 0.01
    learned.node_executing("3")
    assert learned.fraction > 0.99


def test_what_was_learned_of_steps_holds_for_any_number_of_them():
    durations = Durations()
    durations.learn("KSampler", {"steps": 10}, 20.0)
    assert durations.expected_s("KSampler", {"steps": 40}) == pytest.approx(80.0)


def test_only_so_many_classes_are_remembered():
    durations = Durations()
    for number in range(3000):
        durations.learn(f"Class{number}", {}, 7.0)
    assert durations.expected_s("Class2999", {}) == 7.0
    assert durations.expected_s("Class0", {}) != 7.0
