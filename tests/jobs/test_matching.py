"""Which workers may run a job, why not, and how soon they would be ready for it."""

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given

from emp_core.jobs.matching import (
    AVOID_PENALTY_MS,
    Capabilities,
    Match,
    Mismatch,
    ModelOffer,
    ServiceOffer,
    match,
    models_of_any,
)
from emp_core.jobs.requirements import Requirement, Requirements

from . import offers
from .offers import models, need, offer, reasons

GPU = {"gpu_memory_mb": 16_000, "gpu_model": "L4", "gpu_count": 1}


def test_a_plain_job_is_matched_by_its_service_alone():
    assert match(need(), offer()) == Match("comfyui", 0.0)
    assert reasons(Requirement("sim"), offer()) == ("does not serve sim (it serves comfyui)",)
    assert reasons(Requirement("sim"), Capabilities("w", "m")) == ("does not serve sim (it serves none)",)


def test_a_service_is_found_by_every_name_that_it_accepts_and_by_no_other():
    mapped = offer(service=ServiceOffer("ComfyUI", accepts=("comfyui-fast", "comfyui-sim")))
    assert match(Requirement("comfyui-sim"), mapped) == Match("comfyui")
    assert reasons(Requirement("comfyui"), mapped) == ("does not serve comfyui (it serves comfyui)",)


def test_a_withdrawn_service_takes_nothing_and_says_why_until_it_is_taken_up_again():
    withdrawn = offer().withdraw("comfyui", "three failures in a row")
    assert reasons(need(), withdrawn) == ("comfyui is withdrawn: three failures in a row",)
    assert match(need(), withdrawn.withdraw("comfyui", None)) == Match("comfyui")


@pytest.mark.parametrize(
    ("least", "why"),
    [
        ({"gpu_memory_mb": 16_000}, ()),
        ({"gpu_memory_mb": 15_999.5}, ()),
        ({"gpu_memory_mb": 0}, ()),
        ({"gpu_memory_mb": 24_000}, ("gpu_memory_mb is 16000, the job wants 24000",)),
        ({"tpu_cores": 1}, ("tpu_cores is not known, the job wants 1",)),
        ({"gpu_model": 1}, ("gpu_model is not known, the job wants 1",)),
    ],
)
def test_hardware_means_at_least(least: dict[str, float], why: tuple[str, ...]):
    assert reasons(need({"hardware": least}), offer(resources=GPU)) == why


def test_what_the_operator_declares_is_no_hardware():
    assert reasons(need({"hardware": {"gpu_memory_mb": 1}}), offer(custom={"gpu_memory_mb": 80_000})) != ()


def test_a_truth_value_is_no_amount():
    assert reasons(need({"hardware": {"gpu_count": 0}}), offer(resources={"gpu_count": True})) != ()


def test_all_models_are_needed_and_each_that_is_missing_is_named():
    assert reasons(need({"models": ["a", "b"]}), offer(service=models(a=True, b=False))) == ()
    assert reasons(need({"models": ["b", "a", "c"]}), offer(service=models(b=True))) == (
        "has no model a",
        "has no model c",
    )


def test_a_service_that_does_not_tell_its_models_counts_as_having_all():
    assert match(need({"models": ["a"]}), offer()) == Match("comfyui", 0.0)
    assert reasons(need({"models": ["a"]}), offer(service=ServiceOffer("ComfyUI", models={}))) == ("has no model a",)


def test_a_service_that_can_get_other_models_offers_them_at_their_cost():
    service = ServiceOffer("Ollama", models={"a": ModelOffer(loaded=True)}, other_models=ModelOffer(load_ms=60_000.0))
    assert match(need({"models": ["a"]}), offer(service=service)) == Match("comfyui", 0.0)
    assert match(need({"models": ["a", "b"]}), offer(service=service)) == Match("comfyui", 60_000.0)


def test_models_that_are_not_loaded_cost_the_time_of_loading_them():
    service = models(a=True, bb=False, ccc=False)
    assert match(need({"models": ["a"]}), offer(service=service)) == Match("comfyui", 0.0)
    assert match(need({"models": ["a", "bb", "ccc"]}), offer(service=service)) == Match("comfyui", 5000.0)


@pytest.mark.parametrize(
    ("have", "wanted", "satisfied"),
    [
        # a number means at least
        (4, 4, True),
        (4.5, 4, True),
        (3, 4, False),
        ("4", 4, False),
        # a list means all of
        (["a", "b", "c"], ["c", "a"], True),
        (["a"], ["a", "b"], False),
        ("a", ["a"], True),
        ("a", ["a", "b"], False),
        ([4], [4], True),
        ([5], [4], False),
        # one among the worker's list
        (["a", "b"], "b", True),
        (["a", "b"], "c", False),
        ([1, 2], 2, True),
        ([1, 3], 2, False),
        # else equal
        ("a", "a", True),
        ("a", "A", False),
        (True, True, True),
        (True, False, False),
        # truth values are no numbers
        (1, True, False),
        (True, 1, False),
        (0, False, False),
        ([1], True, False),
        ([True], 1, False),
        ([1], [True], False),
        (True, ["True"], False),
        # what no requirement can mean
        (None, "a", False),
        ({"a": 1}, "a", False),
        ([["a"]], "a", False),
    ],
)
def test_a_custom_capability_is_compared_by_its_shape(have: Any, wanted: Any, satisfied: bool):
    assert (reasons(need({"capabilities": {"c": wanted}}), offer(custom={"c": have})) == ()) is satisfied
    assert (reasons(need({"exclude": {"c": wanted}}), offer(custom={"c": have})) == ()) is not satisfied


def test_a_capability_that_is_not_offered_is_refused_and_excludes_nothing():
    [why] = reasons(need({"capabilities": {"fast": True}}), offer())
    assert why == "capability fast is not offered, the job wants true"
    assert reasons(need({"exclude": {"fast": True}}), offer()) == ()


@pytest.mark.parametrize("have", [["a"], [], "a", 1, True])
@pytest.mark.parametrize("nothing", [[], ()])
def test_an_empty_list_asks_nothing_of_a_capability_and_excludes_nobody(have: Any, nothing: Any):
    assert reasons(need({"capabilities": {"c": nothing}}), offer(custom={"c": have})) == ()
    assert reasons(need({"exclude": {"c": nothing}}), offer(custom={"c": have})) == ()


def test_capabilities_may_name_the_machines_resources_and_the_operators_word_counts_first():
    l4 = need({"capabilities": {"gpu_model": "L4"}})
    assert reasons(l4, offer(resources=GPU)) == ()
    assert reasons(l4, offer(resources=GPU, custom={"gpu_model": "T4"})) != ()
    assert reasons(need({"exclude": {"gpu_memory_mb": 24_000}}), offer(resources=GPU)) == ()
    assert reasons(need({"exclude": {"gpu_memory_mb": 16_000}}), offer(resources=GPU)) == (
        "capability gpu_memory_mb is 16000, the job excludes at least 16000",
    )


def test_a_service_tells_capabilities_of_its_own_and_the_operators_word_counts_first():
    told = ServiceOffer("ComfyUI", capabilities={"nodes": ["A", "B"], "fast": True})
    asked = need({"capabilities": {"nodes": ["A"], "fast": True}})
    assert reasons(asked, offer(service=told)) == ()
    assert reasons(need({"exclude": {"nodes": "B"}}), offer(service=told)) != ()
    assert reasons(asked, offer(service=told, custom={"fast": False})) == (
        "capability fast is false, the job wants true",
    )


def test_of_a_long_list_only_what_is_missing_is_told():
    told = ServiceOffer("ComfyUI", capabilities={"nodes": [f"Node{number}" for number in range(1500)]})
    [why] = reasons(need({"capabilities": {"nodes": ["Node7", "Shout", "Whisper"]}}), offer(service=told))
    assert why == 'capability nodes lacks "Shout", "Whisper"'
    [excluded] = reasons(need({"exclude": {"nodes": ["Node7"]}}), offer(service=told))
    assert len(excluded) < 300


def test_a_capability_that_a_service_does_not_tell_counts_as_having_all():
    untold = ServiceOffer("ComfyUI", capabilities={"nodes": None})
    assert reasons(need({"capabilities": {"nodes": ["A"]}}), offer(service=untold)) == ()
    assert reasons(need({"capabilities": {"nodes": ["A"]}}), offer(service=untold, custom={"nodes": ["B"]})) != ()
    assert reasons(need({"exclude": {"nodes": ["A"]}}), offer(service=untold)) == ()


def test_reasons_are_written_as_people_write():
    [why] = reasons(need({"capabilities": {"place": ["Köln"]}}), offer(custom={"place": "Düren"}))
    assert why == 'capability place is "Düren", the job wants ["Köln"]'


@pytest.mark.parametrize(
    ("isolation", "allow", "runs"),
    [
        ("none", (), True),
        ("none", ("b",), True),
        ("loose", (), False),
        ("loose", ("a",), True),
        ("loose", ("a", "b"), True),
        ("loose", ("b",), False),
        ("strict", (), False),
        ("strict", ("a",), True),
        ("strict", ("a", "a"), True),
        ("strict", ("a", "b"), False),
        ("strict", ("b",), False),
    ],
)
def test_isolation_is_of_the_workers_list(isolation: str, allow: tuple[str, ...], runs: bool):
    """Without isolation customers share lanes, and claiming itself keeps to the worker's lists."""
    customer = None if isolation == "none" else "a"
    assert (reasons(need({"isolation": isolation}, customer=customer), offer(allow=allow)) == ()) is runs


@pytest.mark.parametrize("isolation", ["none", "loose", "strict"])
def test_the_workers_own_lists_hold_whatever_the_isolation(isolation: str):
    asked = need({"isolation": isolation}, customer="a")
    assert reasons(asked, offer(allow=("a",), deny=("a",))) == ("refuses customer a",)
    assert reasons(asked, offer(allow=("b",))) == ("takes only other customers than a",)


@pytest.mark.parametrize("what", ["pool", "region"])
def test_pool_and_region_must_be_the_jobs_where_it_names_them(what: str):
    places: list[Any] = [{what: "here"}, {what: "there"}]
    here, there = (offer(**place) for place in places)
    assert reasons(need(), here) == reasons(need(), there) == ()
    assert reasons(need(**{what: "here"}), here) == ()
    assert reasons(need(**{what: "here"}), there) == (f"{what} is there, the job wants here",)
    assert reasons(need(**{what: "here"}), offer()) == (f"{what} is not set, the job wants here",)


def test_a_worker_that_found_out_that_it_cannot_is_not_asked_again():
    assert reasons(need(not_here=("w",)), offer()) == ("found out before that it cannot run this job",)
    assert reasons(need(not_here=("v",)), offer()) == ()


def test_where_an_attempt_failed_it_is_tried_again_only_if_nobody_else_takes_it():
    assert match(need(avoid=("w",)), offer()) == Match("comfyui", AVOID_PENALTY_MS)
    assert match(need(avoid=("v",)), offer()) == Match("comfyui", 0.0)
    cold = offer(service=models(a=False))
    assert match(need({"models": ["a"]}, avoid=("w",)), cold) == Match("comfyui", AVOID_PENALTY_MS + 1000.0)


def test_every_reason_is_told_and_not_only_the_first():
    asked = need(
        {"models": ["m"], "hardware": {"ram_mb": 1}, "capabilities": {"fast": True}, "isolation": "strict"},
        customer="a",
        pool="p",
        not_here=("w",),
    )
    service = evolve(models(), withdrawn="it is broken")
    assert len(reasons(asked, offer(service=service))) == 7


@given(requirement=offers.requirements, offered=offers.capabilities)
def test_no_requirement_and_no_offer_makes_matching_raise(requirement: Requirement, offered: Capabilities):
    verdict = match(requirement, offered)
    if isinstance(verdict, Mismatch):
        assert verdict.reasons
        assert all(verdict.reasons)
    else:
        assert verdict.penalty_ms >= 0
        assert verdict.service in offered.services


@given(requirement=offers.requirements, offered=offers.capabilities)
def test_a_worker_and_redis_judge_the_same(requirement: Requirement, offered: Capabilities):
    """Workers read requirements from Redis, and `explain` reads what workers offer from there."""
    from emp_core.queue.workers import decode_worker, encode_capabilities

    read = Requirement.from_json(requirement.as_json())
    flat = encode_capabilities(offered)
    told = decode_worker("w", dict(zip(flat[::2], flat[1::2], strict=True)), 1.0).capabilities
    here, there = match(requirement, offered), match(read, told)
    assert type(there) is type(here)
    if isinstance(here, Mismatch):
        assert set(reasons(read, told)) == set(here.reasons)  # in the order of names, there
    else:
        assert there == here


@given(asked=offers.asked, offered=offers.capabilities, more=offers.asked)
def test_asking_for_more_never_admits_a_worker_that_was_refused(
    asked: dict[str, Any], offered: Capabilities, more: dict[str, Any]
):
    fewer = Requirements.from_dict(asked)
    added = Requirements.from_dict(more)
    both = evolve(
        fewer,
        models=(*fewer.models, *added.models),
        hardware={**added.hardware, **fewer.hardware},
        capabilities={**added.capabilities, **fewer.capabilities},
        exclude={**added.exclude, **fewer.exclude},
    )
    if isinstance(match(Requirement("comfyui", fewer), offered), Mismatch):
        assert isinstance(match(Requirement("comfyui", both), offered), Mismatch)


def test_numbers_of_any_size_are_told():
    big = json.loads("1" + "0" * 300)
    assert reasons(need({"hardware": {"ram_mb": big}}), offer(resources={"ram_mb": 1})) == (
        "ram_mb is 1, the job wants 1e+300",
    )


def test_several_servers_have_the_models_of_any_at_the_least_cost():
    one, two = {"a": ModelOffer(load_ms=10), "b": ModelOffer(loaded=True)}, {"a": ModelOffer(loaded=True, load_ms=30)}
    assert models_of_any([one, two]) == {"a": ModelOffer(loaded=True, load_ms=10), "b": ModelOffer(loaded=True)}
    assert models_of_any([one, None]) is None
    assert models_of_any([]) == {}
