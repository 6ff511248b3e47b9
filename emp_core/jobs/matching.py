"""What a worker offers, and the one pure function that compares it with what a job needs.

Claiming never reads a requirement: every worker judges a lane once with `match`. The same function answers why a job
waits.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from emp_core.jobs.requirements import Requirement, Requirements, is_number

__all__ = [
    "Capabilities",
    "Match",
    "Mismatch",
    "ModelOffer",
    "ServiceOffer",
    "customer_reasons",
    "match",
    "match_job",
    "models_of_any",
]

_SHOWN_CHARS = 200
AVOID_PENALTY_MS = 100_000.0
"""What it costs to retry a job where it just failed: left for 30 s to another worker, if there is one."""


@frozen
class ModelOffer:
    """A model that a service has.

    Attributes:
        loaded: whether it is in memory now.
        load_ms: how long loading is expected to take.
        size_bytes: its size on disk, if known.
    """

    loaded: bool = False
    load_ms: float = 20_000.0
    size_bytes: int | None = None


_READY = ModelOffer(loaded=True)


def models_of_any(offers: Iterable[Mapping[str, ModelOffer] | None]) -> dict[str, ModelOffer] | None:
    """The models that any of several servers has, at the least cost.

    Args:
        offers: what each of them has; None: it does not tell, which counts as having all, and so do they together.
    """
    together: dict[str, ModelOffer] = {}
    for models in offers:
        if models is None:
            return None
        for name, offer in models.items():
            known = together.get(name, offer)
            loaded, load_ms = offer.loaded or known.loaded, min(offer.load_ms, known.load_ms)
            together[name] = evolve(offer, loaded=loaded, load_ms=load_ms)
    return together


@frozen
class ServiceOffer:
    """A service that a worker speaks to.

    Attributes:
        connector: the connector's registered name.
        slots: jobs at once.
        models: what it has; None when the service does not tell, which counts as having all.
        withdrawn: why it takes no jobs now; None when it does.
        accepts: names by which jobs may require it.
        capabilities: custom ones that the service itself tells (node classes, formats …); one that is None it does not tell,
            which counts as having all. What the operator declares goes first.
        other_models: what it costs to get a model that it has not; None: it cannot.
    """

    connector: str
    version: str = ""
    slots: int = 1
    models: Mapping[str, ModelOffer] | None = None
    withdrawn: str | None = None
    accepts: tuple[str, ...] = ()
    capabilities: Mapping[str, Any] = field(factory=dict)
    other_models: ModelOffer | None = None

    def model(self, name: str) -> ModelOffer | None:
        """What it offers of a model; None: it has not got it, and cannot get it."""
        if self.models is None:
            return _READY
        return self.models.get(name, self.other_models)


@frozen
class Capabilities:
    """What a worker offers.

    Attributes:
        services: by the worker's own service name.
        resources: amounts and facts of the hardware: ``gpu_memory_mb``, ``gpu_model``, ``ram_mb`` …
        custom: what the operator declares.
        allow, deny: customers; an empty ``allow`` admits all.
    """

    worker_id: str
    machine_id: str
    services: Mapping[str, ServiceOffer] = field(factory=dict)
    resources: Mapping[str, Any] = field(factory=dict)
    custom: Mapping[str, Any] = field(factory=dict)
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    pool: str | None = None
    region: str | None = None

    def service_for(self, required: str) -> tuple[str, ServiceOffer] | None:
        """The worker's service that takes jobs which require ``required``."""
        for name, offer in self.services.items():
            if required in (offer.accepts or (name,)):
                return name, offer
        return None

    def withdraw(self, service: str, reason: str | None) -> "Capabilities":
        """The same with one service withdrawn, or taken up again (None)."""
        changed = {**self.services, service: evolve(self.services[service], withdrawn=reason)}
        return evolve(self, services=changed)


@frozen
class Match:
    """The worker can run such jobs.

    Attributes:
        service: the worker's service that runs them.
        penalty_ms: expected time to get ready: 0 when every model is loaded.
    """

    service: str
    penalty_ms: float = 0.0


@frozen
class Mismatch:
    """The worker cannot run such jobs, and why: every reason, in words for a person."""

    reasons: tuple[str, ...]


def match(requirement: Requirement, offered: Capabilities) -> Match | Mismatch:
    """Judge whether a worker can run the jobs of a lane. Pure: no I/O, no clock."""
    found = offered.service_for(requirement.service)
    if found is None:
        known = ", ".join(sorted(offered.services)) or "none"
        return Mismatch((f"does not serve {requirement.service} (it serves {known})",))
    name, service = found
    reasons = [
        *([f"{name} is withdrawn: {service.withdrawn}"] if service.withdrawn else []),
        *(["found out before that it cannot run this job"] if offered.worker_id in requirement.not_here else []),
        *_place_reasons(requirement, offered),
        *_customer_reasons(requirement, offered),
        *_model_reasons(requirement.asked, service),
        *_hardware_reasons(requirement.asked, offered),
        *_custom_reasons(requirement.asked, offered, service),
    ]
    if reasons:
        return Mismatch(tuple(reasons))
    failed_here = offered.worker_id in requirement.avoid
    return Match(name, _penalty_ms(requirement.asked, service) + (AVOID_PENALTY_MS if failed_here else 0.0))


def match_job(requirement: Requirement, customer: str | None, offered: Capabilities) -> Match | Mismatch:
    """Judge whether a worker can run the jobs of one customer (None: of nobody) in a lane.

    A worker's own lists hold for every job of a lane, whether it asked for isolation or not.
    """
    verdict = match(requirement, offered)
    refused = customer_reasons(customer, offered) if isinstance(verdict, Match) else ()
    return Mismatch(tuple(refused)) if refused else verdict


def _penalty_ms(asked: Requirements, service: ServiceOffer) -> float:
    offers = map(service.model, asked.models)
    return sum(offer.load_ms for offer in offers if offer is not None and not offer.loaded)


def _place_reasons(requirement: Requirement, offered: Capabilities) -> list[str]:
    reasons = []
    for what in ("pool", "region"):
        wanted, have = getattr(requirement, what), getattr(offered, what)
        if wanted is not None and wanted != have:
            reasons.append(f"{what} is {have or 'not set'}, the job wants {wanted}")
    return reasons


def customer_reasons(customer: str | None, offered: Capabilities) -> list[str]:
    """Why the worker takes no jobs of this customer (None: of nobody), by its own lists; empty when it does."""
    if customer in offered.deny:
        return [f"refuses customer {customer}"]
    if offered.allow and customer not in offered.allow:
        return [f"takes only other customers than {customer}" if customer else "takes only jobs of certain customers"]
    return []


def _customer_reasons(requirement: Requirement, offered: Capabilities) -> list[str]:
    customer, isolation = requirement.customer, requirement.asked.isolation
    if customer is None:
        return []
    if refused := customer_reasons(customer, offered):
        return refused
    if isolation == "loose" and customer not in offered.allow:
        return [f"is not named for customer {customer}"]
    if isolation == "strict" and set(offered.allow) != {customer}:
        return [f"is not kept for customer {customer} alone"]
    return []


def _model_reasons(asked: Requirements, service: ServiceOffer) -> list[str]:
    return [f"has no model {model}" for model in asked.models if service.model(model) is None]


def _hardware_reasons(asked: Requirements, offered: Capabilities) -> list[str]:
    reasons = []
    for name, least in asked.hardware.items():
        have = offered.resources.get(name)
        if not is_number(have):
            reasons.append(f"{name} is not known, the job wants {least:g}")
        elif have < least:
            reasons.append(f"{name} is {have:g}, the job wants {least:g}")
    return reasons


def _custom_reasons(asked: Requirements, offered: Capabilities, service: ServiceOffer) -> list[str]:
    if not (asked.capabilities or asked.exclude):
        return []
    have = {**offered.resources, **service.capabilities, **offered.custom}
    untold = {name for name, told in service.capabilities.items() if told is None and name not in offered.custom}
    reasons = [
        f"capability {name} {_lacking(have, name, wanted)}"
        for name, wanted in asked.capabilities.items()
        if name not in untold and not (name in have and _satisfies(have[name], wanted))
    ]
    reasons += [
        f"capability {name} is {_shown(have, name)}, the job excludes {_wanted(unwanted)}"
        for name, unwanted in asked.exclude.items()
        if name in have and _items(unwanted) and _satisfies(have[name], unwanted)
    ]
    return reasons


def _satisfies(have: Any, wanted: Any) -> bool:
    if isinstance(wanted, (list, tuple)):
        offered = have if isinstance(have, (list, tuple)) else (have,)
        return all(_among(one, offered) for one in wanted)
    if is_number(wanted) and is_number(have):
        return bool(have >= wanted)
    if isinstance(have, (list, tuple)):
        return _among(wanted, have)
    return _equal(have, wanted)


def _among(one: Any, offered: Any) -> bool:
    if isinstance(one, str):  # equal to texts only: the list may be long, and this is how it is searched fast
        return one in offered
    return any(_equal(one, other) for other in offered)


def _equal(one: Any, other: Any) -> bool:
    # In Python True == 1: a truth value must not satisfy a number.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _lacking(have: Mapping[str, Any], name: str, wanted: Any) -> str:
    """What is missing. Of a list, which may be long, what is not in it."""
    if isinstance(have.get(name), list | tuple):
        missing = [one for one in _items(wanted) if not _among(one, have[name])]
        return f"lacks {', '.join(json.dumps(one, ensure_ascii=False) for one in missing)}"
    return f"is {_shown(have, name)}, the job wants {_wanted(wanted)}"


def _items(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _shown(have: Mapping[str, Any], name: str) -> str:
    if name not in have:
        return "not offered"
    text = json.dumps(have[name], ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _wanted(wanted: Any) -> str:
    return f"at least {wanted:g}" if is_number(wanted) else json.dumps(wanted, ensure_ascii=False)
