"""What workers offer and jobs ask, made up: for tests, and drawn by Hypothesis."""

from typing import Any

from hypothesis import strategies as st

from emp_core.jobs.matching import Capabilities, Match, ModelOffer, ServiceOffer, match
from emp_core.jobs.requirements import Requirement, Requirements

MIB = 2**20


def offer(*, service: ServiceOffer | None = None, **given: Any) -> Capabilities:
    """A worker ``w`` that serves ``comfyui``."""
    return Capabilities("w", "m", services={"comfyui": service or ServiceOffer("ComfyUI")}, **given)


def models(**loaded: bool) -> ServiceOffer:
    """A service that has these models, each loaded or not."""
    offers = {name: ModelOffer(is_loaded, load_ms=1000.0 * len(name)) for name, is_loaded in loaded.items()}
    return ServiceOffer("ComfyUI", models=offers)


def need(asked: Any = None, **given: Any) -> Requirement:
    """What a job for ``comfyui`` requires."""
    return Requirement("comfyui", asked=Requirements.from_dict(asked), **given)


def reasons(requirement: Requirement, offered: Capabilities) -> tuple[str, ...]:
    """Why the worker cannot run it; nothing when it can."""
    verdict = match(requirement, offered)
    return () if isinstance(verdict, Match) else verdict.reasons


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.text(st.characters(codec="utf-8"), max_size=6) | st.booleans() | numbers
wishes = st.dictionaries(names, scalars | st.lists(scalars, max_size=3), max_size=3)
asked = st.fixed_dictionaries(
    {},
    optional={
        "models": st.lists(names, max_size=4),
        "hardware": st.dictionaries(names, numbers.filter(lambda amount: amount >= 0), max_size=3),
        "capabilities": wishes,
        "exclude": wishes,
        "isolation": st.sampled_from(["none", "loose", "strict"]),
    },
)
"""Whatever the schema of requirements takes."""

json_values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
facts = st.dictionaries(names, json_values, max_size=3)
requirements = st.builds(
    Requirement,
    service=st.sampled_from(["comfyui", "other"]),
    asked=asked.map(Requirements.from_dict),
    pool=st.none() | names,
    region=st.none() | names,
    customer=st.none() | names,
    avoid=st.lists(st.sampled_from(["w", "v"]), max_size=2).map(tuple),
    not_here=st.lists(st.sampled_from(["w", "v"]), max_size=2).map(tuple),
)
offered_models = st.none() | st.dictionaries(names, st.builds(ModelOffer, st.booleans(), st.floats(0, 1e6)), max_size=3)
services = st.builds(
    ServiceOffer,
    connector=st.just("ComfyUI"),
    models=offered_models,
    withdrawn=st.none() | names,
    accepts=st.sampled_from([(), ("comfyui",), ("sim", "other")]),
)
capabilities = st.builds(
    Capabilities,
    worker_id=st.just("w"),
    machine_id=st.just("m"),
    services=st.dictionaries(st.sampled_from(["comfyui", "other"]), services, max_size=2),
    resources=facts,
    custom=facts,
    allow=st.lists(names, max_size=2).map(tuple),
    deny=st.lists(names, max_size=2).map(tuple),
    pool=st.none() | names,
    region=st.none() | names,
)
"""Whatever a worker may say of itself: JSON values, sensible or not."""
