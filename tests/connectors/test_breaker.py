import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from emp_core.connectors.breaker import Breaker, BreakerChange, BreakerPolicy, BreakerState, Permit

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
POLICY = BreakerPolicy(failures=3, open_s=10.0, open_max_s=60.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[BreakerChange]:
    return []


@pytest.fixture
def breaker(clock: Clock, changes: list[BreakerChange]) -> Breaker:
    return Breaker(POLICY, clock=clock, on_change=changes.append)


def permit(breaker: Breaker) -> Permit:
    given = breaker.admit()
    assert given is not None
    return given


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        permit(breaker).failed("refused")


def test_it_opens_after_failures_in_a_row_and_keeps_the_reason(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.state is CLOSED
    permit(breaker).failed("no route to host")
    assert (breaker.state, breaker.reason, breaker.open_for_s) == (OPEN, "no route to host", 10.0)
    assert breaker.admit() is None


def test_a_success_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    permit(breaker).succeeded()
    fail(breaker, 2)
    assert breaker.state is CLOSED


def test_after_its_time_one_probe_passes_and_closes_it(
    breaker: Breaker, clock: Clock, changes: list[BreakerChange]
) -> None:
    fail(breaker, 3)
    clock.now += 9.9
    assert not breaker.admits
    clock.now += 0.1
    assert breaker.admits
    probe = permit(breaker)
    assert breaker.state is HALF_OPEN
    assert breaker.admit() is None
    probe.succeeded()
    assert (breaker.state, breaker.reason) == (CLOSED, None)
    assert changes == [
        BreakerChange(CLOSED, OPEN, "refused", 10.0),
        BreakerChange(OPEN, HALF_OPEN, "refused", 0.0),
        BreakerChange(HALF_OPEN, CLOSED, None, 0.0),
    ]


def test_a_failed_probe_opens_it_for_longer_up_to_the_cap_until_it_was_closed(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    times = [breaker.open_for_s]
    for _ in range(4):
        clock.now += breaker.open_for_s
        fail(breaker)
        times.append(breaker.open_for_s)
    assert times == [10.0, 20.0, 40.0, 60.0, 60.0]
    clock.now += 60
    permit(breaker).succeeded()
    fail(breaker, 3)
    assert breaker.open_for_s == 10.0


def test_the_open_time_never_overflows() -> None:
    assert BreakerPolicy(open_s=5.0, open_max_s=120.0).open_time_s(100_000) == 120.0


async def test_of_ten_probes_at_once_exactly_one_passes(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    passed: list[Permit] = []
    all_asked = anyio.Event()
    asked = 0

    async def probe() -> None:
        nonlocal asked
        given = breaker.admit()
        asked += 1
        if asked == 10:
            all_asked.set()
        if given is not None:
            passed.append(given)
            await all_asked.wait()
            given.succeeded()

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(probe)
    assert len(passed) == 1
    assert breaker.state is CLOSED


async def test_a_cancelled_probe_is_no_failure_and_frees_its_place(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    sent = anyio.Event()

    async def probe() -> None:
        with permit(breaker):
            sent.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(probe)
        await sent.wait()
        assert not breaker.admits
        group.cancel_scope.cancel()
    assert breaker.state is HALF_OPEN
    permit(breaker).succeeded()
    assert breaker.state is CLOSED


def test_there_is_room_for_all_while_it_is_closed_and_for_one_probe_after(breaker: Breaker, clock: Clock) -> None:
    assert (breaker.room(0), breaker.room(5)) == (0, 5)
    fail(breaker, 3)
    assert breaker.room(5) == 0
    clock.now += 10
    assert (breaker.room(0), breaker.room(5)) == (0, 1)
    probe = permit(breaker)
    assert breaker.room(5) == 0
    probe.succeeded()
    assert breaker.room(5) == 5


def test_cancelled_jobs_neither_count_nor_forgive(breaker: Breaker) -> None:
    fail(breaker, 2)
    for _ in range(10):
        permit(breaker).abandoned()
    fail(breaker, 1)
    assert breaker.state is OPEN


def test_late_words_of_jobs_sent_before_it_opened_say_nothing_of_now(breaker: Breaker, clock: Clock) -> None:
    late_success, late_failure, late_nothing = permit(breaker), permit(breaker), permit(breaker)
    fail(breaker, 3)
    late_success.succeeded()
    assert breaker.state is OPEN
    clock.now += 10
    probe = permit(breaker)
    late_failure.failed("old")
    late_nothing.abandoned()
    assert breaker.state is HALF_OPEN
    assert not breaker.admits
    probe.succeeded()
    assert breaker.state is CLOSED


def test_only_the_first_word_of_a_permit_counts(breaker: Breaker) -> None:
    one = permit(breaker)
    for _ in range(5):
        one.failed("refused")
    assert breaker.state is CLOSED
    with permit(breaker) as two:
        two.failed("refused")
    fail(breaker, 1)
    assert breaker.state is OPEN


def test_it_can_be_tripped_and_reset_by_those_who_know(breaker: Breaker, changes: list[BreakerChange]) -> None:
    breaker.trip("CUDA error")
    assert (breaker.state, breaker.reason, breaker.open_for_s) == (OPEN, "CUDA error", 10.0)
    breaker.trip("CUDA error, again")
    assert (breaker.reason, len(changes)) == ("CUDA error, again", 1)
    breaker.reset()
    assert (breaker.state, breaker.reason) == (CLOSED, None)
    breaker.reset()
    assert len(changes) == 2


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"open_s": -1.0}, {"open_max_s": -1.0}])
def test_a_policy_that_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BreakerPolicy(**wrong)  # type: ignore[arg-type]  # that is what is tested


class BreakerAgainstAModel(RuleBasedStateMachine):
    """The model keeps plain facts: what was told in this state, and when the state began."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.told: list[BreakerChange] = []
        self.breaker = Breaker(POLICY, clock=self.clock, on_change=self.told.append)
        self.state = CLOSED
        self.since = self.clock.now
        self.row: list[bool] = []  # words of this closed time that count: True for success
        self.waits = [10.0, 20.0, 40.0, 60.0]
        self.opened = 0  # times in a row
        self.visits = 0
        self.out: list[tuple[Permit, int]] = []  # permits not told yet, with the visit to a state that gave them
        self.changes = 0

    def enter(self, state: BreakerState) -> None:
        self.state, self.since, self.row = state, self.clock.now, []
        self.visits += 1
        self.changes += 1
        self.opened = 0 if state is CLOSED else self.opened + (state is OPEN)

    def wait(self) -> float:
        return self.waits[min(self.opened, len(self.waits)) - 1]

    def probes_out(self) -> int:
        return sum(visit == self.visits for _, visit in self.out)

    def may_pass(self) -> bool:
        if self.state is OPEN:
            return self.clock.now >= self.since + self.wait()
        return self.state is CLOSED or self.probes_out() == 0

    @rule()
    def ask(self) -> None:
        expected = self.may_pass()
        given = self.breaker.admit()
        assert (given is not None) == expected
        if given is not None:
            if self.state is OPEN:
                self.enter(HALF_OPEN)
            self.out.append((given, self.visits))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), word=st.sampled_from(["succeeded", "failed", "abandoned"]))
    def tell(self, data: st.DataObject, word: str) -> None:
        given, visit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        if word == "failed":
            given.failed("reason")
        else:
            getattr(given, word)()
        if visit != self.visits or word == "abandoned":
            return
        if self.state is HALF_OPEN:
            self.enter(CLOSED if word == "succeeded" else OPEN)
            return
        self.row.append(word == "succeeded")
        if self.row[-3:] == [False] * 3:
            self.enter(OPEN)

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 10.0, 20.0, 60.0]))
    def wait_some(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def trip(self) -> None:
        self.breaker.trip("reason")
        if self.state is not OPEN:
            self.enter(OPEN)

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        if self.state is CLOSED:
            self.row.append(True)
        else:
            self.enter(CLOSED)

    @invariant()
    def they_agree(self) -> None:
        assert self.breaker.state is self.state
        assert self.breaker.admits == self.may_pass()
        left = max(0.0, self.since + self.wait() - self.clock.now) if self.state is OPEN else 0.0
        assert self.breaker.open_for_s == left
        assert (self.breaker.reason is None) == (self.state is CLOSED)
        assert len(self.told) == self.changes

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        assert self.state is not HALF_OPEN or self.probes_out() <= 1


BreakerAgainstAModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBreakerAgainstAModel = BreakerAgainstAModel.TestCase
