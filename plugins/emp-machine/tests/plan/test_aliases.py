"""Variables of older set-ups are taken for today's where they mean the same, and it is said."""

import pytest
from emp_machine.plan.aliases import with_aliases

from .conftest import MakePlan


@pytest.mark.parametrize(
    ("environ", "name", "value"),
    [
        ({"REDIS_API_HOST": "hub"}, "HUB_REDIS_URL", "redis://hub:6379"),
        ({"REDIS_API_HOST": "hub", "REDIS_API_PORT": "7000"}, "HUB_REDIS_URL", "redis://hub:7000"),
        ({"EXECUTION_SERVICE_PORT": "9000"}, "COMFYUI_BASE_PORT", "9000"),
        ({"EXECUTION_SERVICE_PORT": "8189", "GPU_ID": "1"}, "COMFYUI_BASE_PORT", "8188"),
        ({"EXECUTION_SERVICE_PORT": "?"}, "COMFYUI_BASE_PORT", "?"),
        ({"COMFY_REPO_URL": "https://h/c.git"}, "COMFYUI_REPO_URL", "https://h/c.git"),
    ],
)
def test_an_older_variable_is_taken_for_todays(environ: dict[str, str], name: str, value: str) -> None:
    found, (note,) = with_aliases(environ)
    assert found == {**environ, name: value}
    assert f"is taken for {name}" in note or f"are taken for {name}" in note
    assert with_aliases(found) == (found, (note,)), "twice is the same as once"


def test_todays_variable_goes_first() -> None:
    environ = {"COMFY_REPO_URL": "https://old", "COMFYUI_REPO_URL": "https://new"}
    assert with_aliases(environ) == (environ, ("COMFY_REPO_URL has no effect: COMFYUI_REPO_URL is set",))


@pytest.mark.parametrize("environ", [{}, {"REDIS_API_HOST": " "}, {"REDIS_API_PORT": "8001"}])
def test_what_is_not_set_is_not_mentioned(environ: dict[str, str]) -> None:
    assert with_aliases(environ) == (environ, ())


def test_the_plan_reads_them_and_says_so(make_plan: MakePlan) -> None:
    made = make_plan({"WORKERS": "openai", "REDIS_API_HOST": "hub", "REDIS_API_PORT": "6400"})
    assert [one.name for one in made.processes] == ["worker-openai"]
    assert made.workers[0].environ["HUB_REDIS_URL"] == "redis://hub:6400"
    assert made.notes[0].startswith("REDIS_API_HOST and REDIS_API_PORT are taken for HUB_REDIS_URL=redis://hub:6400")


def test_a_login_in_an_address_is_not_told() -> None:
    _, (note,) = with_aliases({"COMFY_REPO_URL": "https://me:hunter2@h/c.git"})
    assert "hunter2" not in note
