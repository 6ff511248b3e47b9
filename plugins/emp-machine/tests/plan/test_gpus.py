"""Which GPUs a plan uses: what the driver tells, and what the settings make of it."""

import pytest

from emp_core.errors import ConfigError

from .conftest import MakePlan

HUB = {"HUB_REDIS_URL": "redis://hub", "WORKERS": "openai"}


@pytest.mark.parametrize(
    ("environ", "found", "wanted"),
    [
        ({}, 0, []),
        ({}, 2, [0, 1]),
        ({"NUM_GPUS": "2"}, 4, [0, 1]),
        ({"NUM_GPUS": "0"}, 4, []),
        ({"NUM_GPUS": "3"}, 0, [0, 1, 2]),
        ({"GPU_ID": "1"}, 2, [1]),
        ({"GPU_ID": "1", "NUM_GPUS": "2"}, 2, [1]),
        ({"GPU_MODE": "mock"}, 4, [0]),
        ({"GPU_MODE": "mock", "NUM_GPUS": "2"}, 0, [0, 1]),
        ({"GPU_MODE": "Mock", "NUM_GPUS": "0"}, 2, []),
        ({"CUDA_VISIBLE_DEVICES": "1,3"}, 4, [1, 3]),
        ({"CUDA_VISIBLE_DEVICES": ""}, 2, []),
        ({"CUDA_VISIBLE_DEVICES": "1,3", "NUM_GPUS": "1"}, 4, [1]),
    ],
)
def test_the_settings_choose_among_the_gpus(
    make_plan: MakePlan, environ: dict[str, str], found: int, wanted: list[int]
) -> None:
    assert [gpu.index for gpu in make_plan({**HUB, **environ}, gpus=found).gpus] == wanted


def test_pretended_gpus_say_so(make_plan: MakePlan) -> None:
    made = make_plan({**HUB, "GPU_MODE": "mock", "NUM_GPUS": "1"}, gpus=4)
    assert [(gpu.mock, gpu.model) for gpu in made.gpus] == [(True, "mock")]
    assert not any(gpu.mock for gpu in make_plan(HUB, gpus=1).gpus)


def test_workers_are_told_of_gpus_that_no_driver_can_tell_them_of(make_plan: MakePlan) -> None:
    assert make_plan({**HUB, "GPU_MODE": "mock"}).workers[0].environ["NUM_GPUS"] == "1"
    assert "NUM_GPUS" not in make_plan(HUB).workers[0].environ


def test_gpus_that_no_driver_tells_of_are_believed_and_noted(make_plan: MakePlan) -> None:
    made = make_plan({**HUB, "NUM_GPUS": "2"}, gpus=0)
    assert made.notes == ("NUM_GPUS=2 is believed: no driver here tells of a GPU",)


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"NUM_GPUS": "3"}, "NUM_GPUS=3: the driver tells of 2"),
        ({"GPU_ID": "2"}, "GPU_ID=2: there is no such GPU; the machine's are: 0, 1"),
        ({"GPU_ID": "1", "NUM_GPUS": "1"}, "GPU_ID=1: there is no such GPU"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, "expected the indexes of GPUs"),
    ],
)
def test_gpus_that_are_not_there_are_refused(make_plan: MakePlan, environ: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan({**HUB, **environ}, gpus=2)
    assert any(problem.startswith(reason) or reason in problem for problem in caught.value.problems)


def test_a_container_that_was_given_one_gpu_of_several_uses_it_under_its_number(make_plan: MakePlan) -> None:
    environ = {"HUB_REDIS_URL": "redis://hub", "WORKERS": "comfyui", "GPU_ID": "1", "NUM_GPUS": "2"}
    made = make_plan(environ, gpus=1)
    instance, worker = made.processes
    assert (instance.name, instance.endpoint) == ("comfyui-gpu1", "127.0.0.1:8189")
    assert (instance.environ["CUDA_VISIBLE_DEVICES"], instance.environ["GPU_INDEX"]) == ("0", "1")
    assert worker.environ["GPU_ID"] == "1"
    assert any("the only GPU that is to be seen here" in note for note in made.notes)


def test_a_driver_in_trouble_is_the_reason_where_a_gpu_is_needed_and_a_note_where_none_is(make_plan: MakePlan) -> None:
    trouble = ["the GPU driver is installed and not loaded"]
    for environ in ({"WORKERS": "comfyui"}, {"WORKERS": "openai", "NUM_GPUS": "2"}):
        with pytest.raises(ConfigError, match="not loaded"):
            make_plan(environ, gpus=0, gpu_trouble=trouble)
    assert make_plan(HUB, gpus=0, gpu_trouble=trouble).notes == tuple(trouble)
    assert make_plan({**HUB, "GPU_MODE": "mock"}, gpus=0, gpu_trouble=trouble).notes == ()
