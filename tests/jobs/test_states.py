"""The states of a job: final ones stay, and every state can be reached and left."""

from emp_core.jobs.states import FINAL, TRANSITIONS, JobState

MOVES = {move for moves in TRANSITIONS.values() for move in moves}


def test_the_final_states_are_those_of_an_outcome():
    assert {state for state in JobState if state.is_final} == FINAL
    assert {"completed", "failed", "cancelled"} == FINAL


def test_final_states_are_left_only_by_somebody_who_asks_for_a_new_run():
    left = {(script, came) for script, moves in TRANSITIONS.items() for came, _ in moves if came in FINAL}
    assert left == {("retry", JobState.FAILED), ("retry", JobState.CANCELLED)}
    assert all(came is not JobState.COMPLETED for came, _ in MOVES)


def test_a_job_runs_only_by_being_claimed_or_handed_over():
    assert {(script, came) for script, moves in TRANSITIONS.items() for came, to in moves if to is JobState.ACTIVE} == {
        ("claim", JobState.PENDING),
        ("submit", None),
    }


def test_every_state_is_reached_and_those_that_are_not_final_lead_to_every_outcome():
    assert {to for _, to in MOVES} == set(JobState)
    for state in JobState:
        reached, size = {state}, 0
        while len(reached) != size:
            size = len(reached)
            reached |= {to for came, to in MOVES if came in reached}
        assert reached >= (FINAL if not state.is_final else {state})


def test_states_are_their_names():
    assert [str(state) for state in JobState] == [state.value for state in JobState]
    assert JobState("pending") is JobState.PENDING
