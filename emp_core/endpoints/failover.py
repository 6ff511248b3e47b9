"""`Failover`: whether a job that failed at one endpoint is begun again at another. Decided by the error's type."""

from collections.abc import Callable

from attrs import frozen

from emp_core.errors import (
    AuthenticationFailed,
    ConnectionLost,
    EmpError,
    MissingModel,
    MissingNode,
    NotHere,
    QuotaExhausted,
    ServiceBroken,
    ServiceBusy,
    ServiceUnavailable,
)

__all__ = ["Failover", "Setback"]

_LOST = (ConnectionLost, ServiceBroken)
_NOT_BEGUN = (ServiceUnavailable, ServiceBusy, AuthenticationFailed, QuotaExhausted)
_REFUSED = (MissingModel, MissingNode, NotHere)


@frozen
class Setback:
    """What went wrong at an endpoint before the job went on at another.

    Attributes:
        lost: whether the job was under way there; otherwise it had not begun.
    """

    endpoint: str
    error: EmpError
    lost: bool


class Failover:
    """One job's way over the endpoints.

    | the error | what becomes of the job |
    |---|---|
    | ConnectionLost, ServiceBroken: lost in mid-run | begun again elsewhere, ``moves`` times at most |
    | other ServiceUnavailable, ServiceBusy, AuthenticationFailed, QuotaExhausted: not begun | tried elsewhere |
    | MissingModel, MissingNode, NotHere: the endpoint cannot run it | tried elsewhere |
    | anything else: it says something of the job | raised |

    No endpoint is tried twice, none but ``at`` if there is one, and no other once ``may_move`` says no: outputs that were
    handed on cannot be taken back.

    Args:
        moved: how often it was begun again elsewhere before; counts as if it had been here.
    """

    def __init__(self, moves: int, at: str | None, may_move: Callable[[], bool], *, moved: int = 0) -> None:
        self.moved = moved
        self._moves = moves
        self._at = at
        self._may_move = may_move
        self._setbacks: list[Setback] = []
        self._at_work: str | None = None

    @property
    def tried(self) -> frozenset[str]:
        """Where it was tried already."""
        return frozenset(one.endpoint for one in self._setbacks)

    @property
    def last(self) -> Setback | None:
        """What sent it on last."""
        return self._setbacks[-1] if self._setbacks else None

    def begins(self, endpoint: str) -> None:
        """The job is given to this endpoint."""
        self._at_work = endpoint

    def take(self, error: EmpError) -> Setback:
        """Returns if the job goes on elsewhere.

        Raises:
            EmpError: it does not; the error that says most of why.
        """
        endpoint, self._at_work = self._at_work, None
        if endpoint is None:
            raise self._conclusion(error) from error
        setback = Setback(endpoint, error, lost=isinstance(error, _LOST))
        if self._at is not None or not isinstance(error, _LOST + _NOT_BEGUN + _REFUSED) or not self._may_move():
            raise error
        if setback.lost:
            if self.moved >= self._moves:
                raise error
            self.moved += 1
        self._setbacks.append(setback)
        return setback

    def _conclusion(self, none_left: EmpError) -> EmpError:
        """The error of a job that no endpoint took, out of all that they said.

        If one of them may yet be able to run it, it is worth another attempt here: only if all refused it, it is not.
        """
        errors = [one.error for one in self._setbacks]
        if not errors:
            return none_left
        for kinds in (ServiceUnavailable, ServiceBroken), (ServiceBusy,):
            worth_waiting = [error for error in errors if isinstance(error, kinds)]
            if worth_waiting:
                return worth_waiting[-1]
        if none_left.details.get("away"):
            return none_left
        refusals = [one for one in self._setbacks if isinstance(one.error, _REFUSED)]
        return _together(refusals) if refusals else errors[-1]


def _together(refusals: list[Setback]) -> EmpError:
    """The first refusal, with what the others said."""
    first = refusals[0].error
    if len(refusals) == 1:
        return first
    said = {one.endpoint: one.error.message for one in refusals}
    message = "; ".join(f"{endpoint}: {text}" for endpoint, text in said.items())
    return type(first)(
        f"none of {len(refusals)} servers can run it: {message}",
        hint=first.hint,
        details={**first.details, "servers": said},
    )
