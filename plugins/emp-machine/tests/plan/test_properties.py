"""What holds for every plan, whatever it is made from."""

from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emp_core.errors import ConfigError

from .conftest import MakePlan

TYPES = ("comfyui", "ollama", "both", "openai", "remote", "theirs")
items = st.builds(
    "{}{}".format, st.sampled_from(TYPES), st.one_of(st.just(""), st.just(":auto"), st.integers(1, 6).map(":{}".format))
)
environs = st.fixed_dictionaries(
    {
        "WORKERS": st.lists(items, min_size=1, max_size=4).map(",".join),
        "COMFYUI_INSTANCES_PER_GPU": st.integers(1, 4).map(str),
        "COMFYUI_PORT_INCREMENT": st.integers(1, 5).map(str),
        "COMFYUI_BASE_PORT": st.one_of(st.just("8188"), st.integers(6370, 6390).map(str)),
    },
    optional={
        "HUB_REDIS_URL": st.just("redis://hub"),
        "NUM_GPUS": st.integers(0, 4).map(str),
        "GPU_ID": st.integers(0, 4).map(str),
        "GPU_MODE": st.just("mock"),
        "WORKER_ID": st.just("w"),
    },
)
taken = st.dictionaries(st.one_of(st.integers(6375, 6385), st.integers(8186, 8196)), st.just("a stranger"), max_size=3)


def plan_or_reasons(make_plan: MakePlan, environ: Mapping[str, str], gpus: int, taken: Mapping[int, str]) -> Any:
    try:
        return make_plan(environ, gpus=gpus, taken=taken)
    except ConfigError as error:
        return error.problems


many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@many
@given(environ=environs, gpus=st.integers(0, 4), taken=taken)
def test_a_plan_is_refused_with_reasons_or_can_be_run(
    make_plan: MakePlan, environ: Mapping[str, str], gpus: int, taken: Mapping[int, str]
) -> None:
    made = plan_or_reasons(make_plan, environ, gpus, taken)
    if isinstance(made, tuple):
        assert made, "a refusal has its reasons"
        return
    ports = [port for service in made.services for instance in service.instances for port in instance.ports]
    started = {instance.name: instance for service in made.services for instance in service.instances}
    assert len(set(ports)) == len(ports), "no port twice"
    own = {port for one in made.instances for port in started[one.name].ports}
    assert not own & taken.keys(), "nobody else's port"

    names = [one.name for one in made.processes]
    assert len(set(names)) == len(names), "no name twice"
    assert len({one.log for one in made.processes}) == len(names), "no log twice"
    seen: set[str] = set()
    for one in made.processes:
        assert set(one.needs) <= seen, "what it needs stands before it"
        seen.add(one.name)
    assert made.workers

    ids = [one.environ["WORKER_ID"] for one in made.workers]
    assert len(set(ids)) == len(ids)
    indexes = {gpu.index for gpu in made.gpus}
    for one in made.processes:
        assert one.gpu is None or one.gpu in indexes
    served = {name for one in made.workers for name in one.needs}
    assert {one.name for one in made.instances} <= served, "nothing is started that nobody needs"
    for one in made.workers:
        if one.gpu is not None:
            assert all(made_one.gpu in (None, one.gpu) for made_one in made.instances if made_one.name in one.needs)


@many
@given(environ=environs, gpus=st.integers(0, 4), taken=taken)
def test_the_same_in_gives_the_same_out(
    make_plan: MakePlan, environ: Mapping[str, str], gpus: int, taken: Mapping[int, str]
) -> None:
    shuffled = dict(reversed(list(environ.items())))
    assert plan_or_reasons(make_plan, environ, gpus, taken) == plan_or_reasons(make_plan, shuffled, gpus, taken)
