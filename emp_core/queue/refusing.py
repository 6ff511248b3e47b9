"""Which of many specs are wrong: their places are told with what is wrong with them."""

from collections.abc import Awaitable, Callable, Sequence

from emp_core.errors import ConfigError, EmpError, InvalidJob, PayloadTooLarge
from emp_core.jobs.model import JobSpec

__all__ = ["REFUSED", "refuse_by_place"]

REFUSED = (ConfigError, InvalidJob, PayloadTooLarge)
"""What says that a spec cannot be submitted as it is."""

_TOLD_MOST = 100


async def refuse_by_place(specs: Sequence[JobSpec], prepare: Callable[[Sequence[JobSpec]], Awaitable[object]]) -> None:
    """Raise the refusal of the first wrong spec, with the mistakes of all as its problems: ``specs[3].priority: expected …``.

    Places are counted from 0. No more specs are looked at when a hundred mistakes are known.

    Args:
        prepare: raises one of `REFUSED` for specs that cannot be submitted.
    """
    first: EmpError | None = None
    problems: list[str] = []
    for place, spec in enumerate(specs):
        try:
            await prepare((spec,))
        except REFUSED as error:
            problems += _placed(error, place)
            if first is None:
                first = error
                first.message = f"specs[{place}]: {error.message}"
                first.details["spec"] = place
            if len(problems) >= _TOLD_MOST:
                break
    if first is None:
        return
    if isinstance(first, ConfigError):
        first.problems = tuple(problems)
    else:
        first.details["problems"] = problems
    first.args = (first.message,)
    raise first


def _placed(error: EmpError, place: int) -> list[str]:
    told = error.problems if isinstance(error, ConfigError) else error.details.get("problems")
    return [f"specs[{place}].{problem}" for problem in told or ()] or [f"specs[{place}]: {error.message}"]
