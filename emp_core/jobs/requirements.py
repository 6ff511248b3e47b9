"""What a job needs of a worker, what a worker offers, and the one pure function that compares the two.

Claiming never reads a requirement: jobs with the same one share a lane, and every worker judges a lane once with
`match`. The same function answers why a job waits.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeGuard

from attrs import evolve, field, frozen

from emp_core.errors import ConfigError

__all__ = [
    "NO_REQUIREMENTS",
    "Capabilities",
    "Match",
    "Mismatch",
    "ModelOffer",
    "Requirement",
    "Requirements",
    "ServiceOffer",
    "match",
]

AVOID_PENALTY_MS = 100_000.0
"""What it costs to retry a job where it just failed: left for 30 s to another worker, if there is one."""

_ISOLATION = ("none", "loose", "strict")
_SCALARS = (str, int, float, bool)


@frozen
class Requirements:
    """What the submitter asks of the worker, beyond the service.

    Attributes:
        models: names of models that the service must have; all of them.
        hardware: least amounts, by the names of the worker's resources: ``gpu_memory_mb``, ``ram_mb``, ``cpu_cores`` …
        capabilities: custom ones. A number means at least, a list means all of, a text or a truth value means equal to, or one of
            the worker's list.
        exclude: the same shapes; a worker that would satisfy one of them is refused.
        isolation: ``loose``: only workers that name the job's customer; ``strict``: only workers that serve nobody else.
    """

    models: tuple[str, ...] = ()
    hardware: Mapping[str, float] = field(factory=dict)
    capabilities: Mapping[str, Any] = field(factory=dict)
    exclude: Mapping[str, Any] = field(factory=dict)
    isolation: str = "none"

    @classmethod
    def from_dict(cls, given: Any) -> "Requirements":
        """Read requirements from what a user wrote; None is no requirement.

        Raises:
            ConfigError: lists every mistake with its path.
        """
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise ConfigError(f"requirements must be an object, not {_kind(given)}")
        problems: list[str] = []
        known = {"models", "hardware", "capabilities", "exclude", "isolation"}
        problems += [
            f"requirements.{key}: unknown; known are {', '.join(sorted(known))}" for key in given if key not in known
        ]
        made = cls(
            models=_models(given.get("models"), problems),
            hardware=_hardware(given.get("hardware"), problems),
            capabilities=_custom("capabilities", given.get("capabilities"), problems),
            exclude=_custom("exclude", given.get("exclude"), problems),
            isolation=given.get("isolation") or "none",
        )
        if made.isolation not in _ISOLATION:
            problems.append(f"requirements.isolation: expected one of {', '.join(_ISOLATION)}, not {made.isolation!r}")
        if problems:
            raise ConfigError("the job's requirements cannot be used", problems=tuple(problems))
        return made

    def as_dict(self) -> dict[str, Any]:
        """The requirements without what is not asked."""
        shown: dict[str, Any] = {}
        if self.models:
            shown["models"] = list(self.models)
        for name in ("hardware", "capabilities", "exclude"):
            if value := getattr(self, name):
                shown[name] = dict(value)
        if self.isolation != "none":
            shown["isolation"] = self.isolation
        return shown


NO_REQUIREMENTS = Requirements()
"""Nothing beyond the service: what most jobs ask."""


@frozen
class Requirement:
    """All that decides which workers may run a job. Jobs with equal requirements share a lane."""

    service: str
    asked: Requirements = NO_REQUIREMENTS
    pool: str | None = None
    region: str | None = None
    customer: str | None = None
    """Only set with isolation: otherwise customers share lanes."""
    avoid: tuple[str, ...] = ()
    """Workers where an attempt failed: they take the job only if nobody else does soon."""
    not_here: tuple[str, ...] = ()
    """Workers that found out that they cannot run the job."""

    def as_dict(self) -> dict[str, Any]:
        """The canonical form, as it stands in ``lanes``."""
        shown = {"service": self.service, **self.asked.as_dict()}
        shown.update({k: v for k in ("pool", "region", "customer") if (v := getattr(self, k)) is not None})
        shown.update({k: sorted(v) for k in ("avoid", "not_here") if (v := getattr(self, k))})
        return shown

    def as_json(self) -> str:
        """The canonical text: equal requirements give equal text."""
        shown = self.as_dict()
        if "models" in shown:
            shown["models"] = sorted(set(shown["models"]))
        return json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Requirement":
        """Read the canonical text back."""
        given = json.loads(text)
        outer = {key: given.pop(key, None) for key in ("service", "pool", "region", "customer")}
        avoid, not_here = tuple(given.pop("avoid", ())), tuple(given.pop("not_here", ()))
        return cls(asked=Requirements.from_dict(given), avoid=avoid, not_here=not_here, **outer)

    @staticmethod
    @lru_cache(maxsize=1024)
    def plain(service: str) -> "Requirement":
        """Nothing but the service, as most jobs have it."""
        return Requirement(service)

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but the service."""
        return self == Requirement.plain(self.service)

    @property
    def lane(self) -> str:
        """The lane's name: the service, and a digest of everything else.

        Names of services hold no ``@`` and no ``:``, so that a lane's name can be part of a key.
        """
        if self.is_plain:
            return self.service
        return f"{self.service}@{hashlib.sha256(self.as_json().encode()).hexdigest()[:12]}"


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


@frozen
class ServiceOffer:
    """A service that a worker speaks to.

    Attributes:
        connector: the connector's registered name.
        slots: jobs at once.
        models: what it has; None when the service does not tell, which counts as having all.
        withdrawn: why it takes no jobs now; None when it does.
        accepts: names by which jobs may require it.
    """

    connector: str
    version: str = ""
    slots: int = 1
    models: Mapping[str, ModelOffer] | None = None
    withdrawn: str | None = None
    accepts: tuple[str, ...] = ()


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
        *_custom_reasons(requirement.asked, offered),
    ]
    if reasons:
        return Mismatch(tuple(reasons))
    failed_here = offered.worker_id in requirement.avoid
    return Match(name, _penalty_ms(requirement.asked, service) + (AVOID_PENALTY_MS if failed_here else 0.0))


def _penalty_ms(asked: Requirements, service: ServiceOffer) -> float:
    if service.models is None:
        return 0.0
    return sum(offer.load_ms for model in asked.models if not (offer := service.models[model]).loaded)


def _place_reasons(requirement: Requirement, offered: Capabilities) -> list[str]:
    reasons = []
    for what in ("pool", "region"):
        wanted, have = getattr(requirement, what), getattr(offered, what)
        if wanted is not None and wanted != have:
            reasons.append(f"{what} is {have or 'not set'}, the job wants {wanted}")
    return reasons


def _customer_reasons(requirement: Requirement, offered: Capabilities) -> list[str]:
    customer, isolation = requirement.customer, requirement.asked.isolation
    if customer is None:
        return []
    if customer in offered.deny:
        return [f"refuses customer {customer}"]
    if offered.allow and customer not in offered.allow:
        return [f"takes only other customers than {customer}"]
    if isolation == "loose" and customer not in offered.allow:
        return [f"is not named for customer {customer}"]
    if isolation == "strict" and set(offered.allow) != {customer}:
        return [f"is not kept for customer {customer} alone"]
    return []


def _model_reasons(asked: Requirements, service: ServiceOffer) -> list[str]:
    if service.models is None:
        return []
    return [f"has no model {model}" for model in asked.models if model not in service.models]


def _hardware_reasons(asked: Requirements, offered: Capabilities) -> list[str]:
    reasons = []
    for name, least in asked.hardware.items():
        have = offered.resources.get(name)
        if not _is_number(have):
            reasons.append(f"{name} is not known, the job wants {least:g}")
        elif have < least:
            reasons.append(f"{name} is {have:g}, the job wants {least:g}")
    return reasons


def _custom_reasons(asked: Requirements, offered: Capabilities) -> list[str]:
    have = {**offered.resources, **offered.custom}
    reasons = [
        f"capability {name} is {_shown(have, name)}, the job wants {_wanted(wanted)}"
        for name, wanted in asked.capabilities.items()
        if not (name in have and _satisfies(have[name], wanted))
    ]
    reasons += [
        f"capability {name} is {_shown(have, name)}, the job excludes {_wanted(unwanted)}"
        for name, unwanted in asked.exclude.items()
        if name in have and _satisfies(have[name], unwanted)
    ]
    return reasons


def _satisfies(have: Any, wanted: Any) -> bool:
    if isinstance(wanted, (list, tuple)):
        offered = have if isinstance(have, (list, tuple)) else (have,)
        return all(_among(one, offered) for one in wanted)
    if _is_number(wanted) and _is_number(have):
        return bool(have >= wanted)
    if isinstance(have, (list, tuple)):
        return _among(wanted, have)
    return _equal(have, wanted)


def _among(one: Any, offered: Any) -> bool:
    return any(_equal(one, other) for other in offered)


def _equal(one: Any, other: Any) -> bool:
    # In Python True == 1: a truth value must not satisfy a number.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(have: Mapping[str, Any], name: str) -> str:
    return json.dumps(have[name]) if name in have else "not offered"


def _wanted(wanted: Any) -> str:
    return f"at least {wanted:g}" if _is_number(wanted) else json.dumps(wanted)


def _models(given: Any, problems: list[str]) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        problems.append(f"requirements.models: expected a list of names, not {_kind(given)}")
        return ()
    problems += [
        f"requirements.models[{i}]: expected a name, not {_kind(name)}"
        for i, name in enumerate(given)
        if not isinstance(name, str) or not name
    ]
    return tuple(sorted({name for name in given if isinstance(name, str) and name}))


def _hardware(given: Any, problems: list[str]) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        problems.append(f"requirements.hardware: expected an object, not {_kind(given)}")
        return {}
    problems += [
        f"requirements.hardware.{name}: expected a number of 0 or more, not {amount!r}"
        for name, amount in given.items()
        if not _is_number(amount) or not math.isfinite(amount) or amount < 0
    ]
    return dict(given)


def _custom(where: str, given: Any, problems: list[str]) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        problems.append(f"requirements.{where}: expected an object, not {_kind(given)}")
        return {}
    for name, wanted in given.items():
        items = wanted if isinstance(wanted, (list, tuple)) else (wanted,)
        if not all(isinstance(item, _SCALARS) for item in items):
            problems.append(f"requirements.{where}.{name}: expected a number, a text, true, false or a list of those")
    return dict(given)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
    return type(value).__name__
