"""What is done about one process: decided from what is seen of it and of its health. Pure: the time comes with the call."""

from enum import StrEnum
from typing import Any

from attrs import define, field, frozen

from emp_machine.processes.interface import ProcessState, ProcessStatus

__all__ = ["Care", "Deed", "Patience", "Standing", "Verdict"]


class Standing(StrEnum):
    """How a process stands."""

    WAITING = "waiting"
    """It starts when what it needs is well."""
    STARTING = "starting"
    WELL = "well"
    UNWELL = "unwell"
    """It is restarted in a while, unless it is well by then."""
    STOPPED = "stopped"
    """Somebody stopped it, and nobody but somebody starts it again."""
    GIVEN_UP = "given up"


class Deed(StrEnum):
    """What is to be done now."""

    NOTHING = "nothing"
    RESTART = "restart"
    STOP = "stop"


@frozen
class Verdict:
    """What is thought of a process, for people and for the machine's status.

    Attributes:
        restarts: how often it ended by itself, or was restarted because it was unwell.
        reason: why it is not well, in a sentence.
    """

    standing: Standing = Standing.WAITING
    reason: str = ""
    restarts: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` output."""
        return {"standing": self.standing.value, "reason": self.reason, "restarts": self.restarts}


@frozen
class Patience:
    """How long a process that fails is tried again.

    Attributes:
        first_s: before the first restart; doubles with every failure in a row.
        most_s: the longest of these delays.
        failures_max: with so many failures in a row it is given up.
        calm_s: a failure after so long a good time is the first one again.
        misses_max: so many wrong answers in a row make one that was well a failure.
        settle_s: one that cannot be asked for its health is well when it has lived for so long.
    """

    first_s: float = 1.0
    most_s: float = 60.0
    failures_max: int = 6
    calm_s: float = 30.0
    misses_max: int = 3
    settle_s: float = 1.0

    def delay_s(self, failures: int) -> float | None:
        """How long to wait after so many failures in a row; None: it is given up."""
        if failures >= self.failures_max:
            return None
        return min(self.most_s, self.first_s * 2.0 ** (failures - 1))


@define
class Care:
    """Looks after one process, from its start on.

    Args:
        start_s: how long it may take until it is well for the first time; None: that it lives is enough.
    """

    patience: Patience
    start_s: float | None
    verdict: Verdict = field(factory=Verdict)
    excused: bool = False
    """Nobody can tell now whether it works: it may end for the same reason, and is not given up for that."""
    _pid: int | None = None
    _begun_s: float = 0.0
    _well_since_s: float | None = None
    _failures: int = 0
    _misses: int = 0
    _restart_at_s: float | None = None
    _asked: bool = False

    def begun(self, now_s: float) -> None:
        """It is being started, or restarted, because somebody wanted it."""
        self._asked = True
        self._pid = None
        self._anew(now_s)
        self._stand(Standing.STARTING, "" if self.verdict.standing is Standing.WAITING else self.verdict.reason)

    def waits_for(self, reason: str) -> None:
        """It cannot be started yet."""
        self._stand(Standing.WAITING, reason)

    def seen(self, status: ProcessStatus, now_s: float, *, by_hand: int | None = None) -> Deed:
        """Take into account what the process manager says of it.

        Args:
            by_hand: the last process that somebody has ended by hand, to start it again or not.
        """
        if status.state is ProcessState.FAILED:
            return (
                self._due(now_s)
                if self._out_of_play()
                else self._failed(status.reason or "it ended again and again", now_s)
            )
        if not status.state.lives:
            return self._rests(status)
        if status.pid is None:
            return Deed.NOTHING  # it ended, and its manager starts it again: another pid will tell
        if status.pid != self._pid:
            return self._another(status, now_s, by_hand)
        if self.start_s is None and now_s - self._begun_s >= self.patience.settle_s:
            self._is_well(now_s)
        self._calm(now_s)
        return self._due(now_s)

    def checked(self, well: bool, problem: str, now_s: float) -> Deed:
        """Take into account what it answered."""
        if self._pid is None or self.verdict.standing in (Standing.WAITING, Standing.STOPPED, Standing.GIVEN_UP):
            return Deed.NOTHING
        if well:
            self._is_well(now_s)
            self._calm(now_s)
            return Deed.NOTHING
        if self._well_since_s is not None:
            self._misses += 1
            if self._misses < self.patience.misses_max:
                return Deed.NOTHING
            return self._failed(problem, now_s)
        if self.start_s is not None and now_s - self._begun_s >= self.start_s:
            return self._failed(f"{problem}; it had {self.start_s:g} s to start", now_s)
        return self._due(now_s)

    def refused(self, reason: str, now_s: float) -> Deed:
        """Take into account that it could not be started."""
        self._asked = False
        return self._failed(reason, now_s)

    # -- what follows --------------------------------------------------------------------------------------------

    def _another(self, status: ProcessStatus, now_s: float, by_hand: int | None) -> Deed:
        """There is another process than before. Unless it was asked for, the one before ended by itself."""
        ended_by_itself = self._pid not in (None, by_hand) and not self._asked
        was_given_up = self.verdict.standing in (Standing.GIVEN_UP, Standing.STOPPED)
        self._pid = status.pid
        self._asked = False
        self._anew(now_s)
        if was_given_up:  # somebody started it
            self._failures = 0
            self._stand(Standing.STARTING, "")
        elif ended_by_itself:
            self._failures += 0 if self.excused else 1
            self._count()
            if self.patience.delay_s(self._failures) is None:
                return self._give_up(f"it ended by itself {self._failures} times in a row")
            self._stand(Standing.STARTING, "it ended by itself")
        else:
            self._stand(Standing.STARTING, self.verdict.reason)
        return Deed.NOTHING

    def _rests(self, status: ProcessStatus) -> Deed:
        never_was = self._pid is None and self._restart_at_s is not None  # it could not be started, and is tried again
        if self._asked or never_was or self.verdict.standing in (Standing.GIVEN_UP, Standing.STOPPED):
            return Deed.NOTHING
        if status.state in (ProcessState.STOPPED, ProcessState.STOPPING):
            self._pid = None
            self._restart_at_s = None
            if self.verdict.standing is not Standing.WAITING:
                self._stand(Standing.STOPPED, "somebody stopped it")
        return Deed.NOTHING

    def _out_of_play(self) -> bool:
        return self.verdict.standing in (Standing.GIVEN_UP, Standing.STOPPED) or self._restart_at_s is not None

    def _failed(self, reason: str, now_s: float) -> Deed:
        if self._restart_at_s is not None:
            return self._due(now_s)
        self._failures += 1
        delay_s = self.patience.delay_s(self._failures)
        if delay_s is None:
            return self._give_up(f"{reason}; that was failure {self._failures} in a row")
        self._restart_at_s = now_s + delay_s
        self._well_since_s = None
        self._stand(Standing.UNWELL, reason)
        return self._due(now_s)

    def _due(self, now_s: float) -> Deed:
        if self._restart_at_s is None or now_s < self._restart_at_s:
            return Deed.NOTHING
        self._count()
        return Deed.RESTART

    def _give_up(self, reason: str) -> Deed:
        self._restart_at_s = None
        self._pid = None
        self._stand(Standing.GIVEN_UP, reason)
        return Deed.STOP

    def _is_well(self, now_s: float) -> None:
        self._misses = 0
        self._restart_at_s = None
        if self._well_since_s is None:
            self._well_since_s = now_s
        self._stand(Standing.WELL, "")

    def _calm(self, now_s: float) -> None:
        if self._well_since_s is not None and now_s - self._well_since_s >= self.patience.calm_s:
            self._failures = 0

    def _anew(self, now_s: float) -> None:
        self._begun_s = now_s
        self._well_since_s = None
        self._misses = 0
        self._restart_at_s = None

    def _count(self) -> None:
        self.verdict = Verdict(self.verdict.standing, self.verdict.reason, self.verdict.restarts + 1)

    def _stand(self, standing: Standing, reason: str) -> None:
        self.verdict = Verdict(standing, reason, self.verdict.restarts)
