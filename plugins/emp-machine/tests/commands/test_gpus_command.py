"""`emp machine gpus`."""

import pytest

from emp_core.worker.gpus import Gpu, GpuInventory

from .conftest import Emp

L4 = Gpu(0, "NVIDIA L4", 23_034, 1_024, 40, "GPU-7")
SILENT = Gpu(1, None, None, None, None)


def with_driver(monkeypatch: pytest.MonkeyPatch, found: GpuInventory) -> None:
    monkeypatch.setattr("emp_machine.commands.gpus.inventory", lambda: found)


def test_what_the_driver_tells_is_shown(emp: Emp, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = "GPU 2 does not answer: GPU is lost; nvidia-smi says more"
    with_driver(monkeypatch, GpuInventory((L4, SILENT), "570.86.15", trouble=(trouble,)))
    said = emp("gpus")
    assert said.code == 0
    assert said.out.splitlines() == [
        "Driver 570.86.15",
        "",
        "GPU  MODEL      MEMORY    IN USE   BUSY",
        "0    NVIDIA L4  22.5 GiB  1.0 GiB  40 %",
        "1    unknown",
    ]
    assert trouble in said.err
    assert emp("gpus", "--json").data == {
        "driver": "570.86.15",
        "installed": True,
        "gpus": [
            {
                "index": 0,
                "model": "NVIDIA L4",
                "memory_mb": 23034,
                "memory_used_mb": 1024,
                "utilization": 40,
                "uuid": "GPU-7",
            },
            {"index": 1, "model": None, "memory_mb": None, "memory_used_mb": None, "utilization": None, "uuid": None},
        ],
        "trouble": [trouble],
    }


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (GpuInventory(installed=False), "No GPU: NVIDIA's driver is not installed."),
        (GpuInventory(driver="570"), "No GPU: none tells of one."),
        (GpuInventory(trouble=("the GPU driver is installed and not loaded",)), "warning: the GPU driver is installed"),
    ],
)
def test_a_machine_without_a_gpu_says_why(
    emp: Emp, monkeypatch: pytest.MonkeyPatch, found: GpuInventory, words: str
) -> None:
    with_driver(monkeypatch, found)
    said = emp("gpus")
    assert (said.code, said.out) == (0, "")
    assert words in said.err
    assert emp("gpus", "--json").data["gpus"] == []


def test_a_broken_driver_is_the_reason_against_a_plan_that_needs_it(emp: Emp, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = GpuInventory(trouble=("the GPU driver was updated while an older one is loaded: restart the machine",))
    monkeypatch.setattr("emp_machine.gpus.inventory", lambda: broken)
    said = emp("plan", WORKERS="comfyui")
    assert said.code == 2
    assert "restart the machine" in said.err
