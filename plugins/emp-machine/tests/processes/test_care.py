"""What is done about one process, decided without one."""

import pytest
from emp_machine.processes.care import Care, Deed, Patience, Standing
from emp_machine.processes.interface import ProcessState, ProcessStatus

PATIENCE = Patience(first_s=1, most_s=8, failures_max=4, calm_s=30, misses_max=3)


def running(pid: int) -> ProcessStatus:
    return ProcessStatus("one", ProcessState.RUNNING, pid)


def begun(start_s: float | None = 10.0) -> Care:
    care = Care(PATIENCE, start_s)
    care.begun(0)
    assert care.seen(running(1), 0) is Deed.NOTHING
    return care


def standing(care: Care) -> Standing:
    return care.verdict.standing


def well(care: Care, now_s: float = 1) -> Care:
    assert care.checked(True, "", now_s) is Deed.NOTHING
    assert standing(care) is Standing.WELL
    return care


def test_a_process_is_starting_until_it_answers() -> None:
    care = begun()
    assert care.checked(False, "no answer", 5) is Deed.NOTHING
    assert standing(care) is Standing.STARTING
    well(care, 6)


def test_one_without_a_health_check_is_well_when_it_has_lived_for_a_moment() -> None:
    care = begun(None)
    assert care.seen(running(1), 0.9) is Deed.NOTHING
    assert standing(care) is Standing.STARTING
    assert care.seen(running(1), 1) is Deed.NOTHING
    assert standing(care) is Standing.WELL


def test_one_that_does_not_answer_in_time_is_restarted_after_a_while() -> None:
    care = begun()
    assert care.checked(False, "no answer", 10) is Deed.NOTHING
    assert standing(care) is Standing.UNWELL
    assert care.verdict.reason == "no answer; it had 10 s to start"
    assert care.seen(running(1), 10.9) is Deed.NOTHING
    assert care.seen(running(1), 11) is Deed.RESTART
    assert care.verdict.restarts == 1


def test_a_single_wrong_answer_is_forgiven() -> None:
    care = well(begun())
    assert care.checked(False, "no answer", 2) is Deed.NOTHING
    assert care.checked(False, "no answer", 3) is Deed.NOTHING
    assert care.checked(True, "", 4) is Deed.NOTHING
    assert care.checked(False, "no answer", 5) is Deed.NOTHING
    assert standing(care) is Standing.WELL


def test_wrong_answers_in_a_row_are_a_failure_unless_it_recovers_before_the_restart() -> None:
    care = well(begun())
    for now_s in (2, 3, 4):
        care.checked(False, "no answer", now_s)
    assert standing(care) is Standing.UNWELL
    assert care.checked(True, "", 4.5) is Deed.NOTHING
    assert standing(care) is Standing.WELL
    assert care.seen(running(1), 100) is Deed.NOTHING


def test_delays_double_up_to_the_longest_and_then_it_is_given_up() -> None:
    assert [Patience(failures_max=99).delay_s(failures) for failures in (1, 2, 3, 7, 50)] == [1, 2, 4, 60, 60]
    assert PATIENCE.delay_s(4) is None


def test_one_that_fails_again_and_again_is_given_up_with_the_reason() -> None:
    care = begun()
    now_s = 0.0
    deeds = []
    for pid in range(2, 6):
        now_s += 10
        deeds.append(care.checked(False, "no answer", now_s))
        now_s += 8
        if standing(care) is Standing.UNWELL:
            assert care.seen(running(pid - 1), now_s) is Deed.RESTART
            care.begun(now_s)
            care.seen(running(pid), now_s)
    assert deeds[-1] is Deed.STOP
    assert standing(care) is Standing.GIVEN_UP
    assert care.verdict.reason == "no answer; it had 10 s to start; that was failure 4 in a row"
    assert care.verdict.restarts == 3
    assert care.seen(ProcessStatus("one", ProcessState.STOPPED), now_s) is Deed.NOTHING
    assert standing(care) is Standing.GIVEN_UP


def test_one_that_ends_by_itself_again_and_again_is_given_up() -> None:
    care = begun(None)
    deeds = [care.seen(running(pid), pid) for pid in range(2, 6)]
    assert deeds == [Deed.NOTHING, Deed.NOTHING, Deed.NOTHING, Deed.STOP]
    assert care.verdict.reason == "it ended by itself 4 times in a row"
    assert care.verdict.restarts == 4


def test_a_failure_after_a_good_while_is_the_first_again() -> None:
    care = begun(None)
    for pid in range(2, 20):
        assert care.seen(running(pid), pid * 100) is Deed.NOTHING
        assert care.seen(running(pid), pid * 100 + 1) is Deed.NOTHING
        assert care.seen(running(pid), pid * 100 + 40) is Deed.NOTHING
    assert standing(care) is Standing.WELL
    assert care.verdict.restarts == 18


def test_what_somebody_stops_stays_so_until_somebody_starts_it() -> None:
    care = well(begun())
    assert care.seen(ProcessStatus("one", ProcessState.STOPPED), 2) is Deed.NOTHING
    assert standing(care) is Standing.STOPPED
    assert care.checked(False, "no answer", 3) is Deed.NOTHING
    assert care.seen(ProcessStatus("one", ProcessState.STOPPED), 1000) is Deed.NOTHING
    assert care.seen(running(2), 1001) is Deed.NOTHING
    assert standing(care) is Standing.STARTING
    well(care, 1002)
    assert care.verdict.restarts == 0


def test_one_that_was_given_up_is_looked_after_again_when_somebody_starts_it() -> None:
    care = begun(None)
    for pid in range(2, 6):
        care.seen(running(pid), pid)
    assert standing(care) is Standing.GIVEN_UP
    care.seen(running(99), 50)
    assert standing(care) is Standing.STARTING
    assert care.seen(running(100), 51) is Deed.NOTHING
    assert standing(care) is Standing.STARTING


def test_one_that_its_manager_gave_up_is_tried_again() -> None:
    care = begun()
    failed = ProcessStatus("one", ProcessState.FAILED, reason="it ended with 3")
    assert care.seen(failed, 5) is Deed.NOTHING
    assert care.verdict.reason == "it ended with 3"
    assert care.seen(failed, 6) is Deed.RESTART


@pytest.mark.parametrize("state", [ProcessState.STOPPED, ProcessState.STOPPING])
def test_a_restart_that_was_asked_for_is_nobodys_stop(state: ProcessState) -> None:
    care = well(begun())
    care.begun(2)
    assert care.seen(ProcessStatus("one", state), 2) is Deed.NOTHING
    assert standing(care) is Standing.STARTING
    care.seen(running(2), 3)
    assert care.verdict.restarts == 0


def test_one_that_ends_while_nobody_can_tell_whether_it_works_is_not_given_up() -> None:
    care = begun()
    care.excused = True
    for pid in range(2, 50):
        assert care.seen(running(pid), pid * 60) is Deed.NOTHING
    assert standing(care) is Standing.STARTING
    assert care.verdict.restarts == 48
    care.excused = False
    assert [care.seen(running(pid), pid * 60) for pid in range(50, 54)][-1] is Deed.STOP


def test_one_that_somebody_restarted_between_two_looks_did_not_end_by_itself() -> None:
    care = well(begun())
    assert care.seen(running(2), 2, by_hand=1) is Deed.NOTHING
    assert (standing(care), care.verdict.reason, care.verdict.restarts) == (Standing.STARTING, "", 0)
    care.seen(running(3), 3, by_hand=1)
    assert care.verdict.reason == "it ended by itself"


def test_what_somebody_stops_before_its_restart_is_not_restarted() -> None:
    care = begun()
    care.checked(False, "no answer", 10)
    assert standing(care) is Standing.UNWELL
    assert care.seen(ProcessStatus("one", ProcessState.STOPPED), 10.5) is Deed.NOTHING
    assert standing(care) is Standing.STOPPED
    assert care.checked(False, "no answer", 20) is Deed.NOTHING
    assert care.seen(ProcessStatus("one", ProcessState.STOPPED), 20) is Deed.NOTHING


def test_one_that_could_not_be_started_is_tried_again_though_it_is_stopped() -> None:
    care = Care(PATIENCE, 10)
    care.begun(0)
    care.refused("no room", 0)
    assert care.seen(ProcessStatus("one", ProcessState.STOPPED), 0.5) is Deed.NOTHING
    assert standing(care) is Standing.UNWELL


def test_one_that_takes_its_time_to_end_is_not_taken_for_unwell() -> None:
    care = well(begun())
    for now_s in (2, 3, 4, 5, 30):
        assert care.seen(ProcessStatus("one", ProcessState.STOPPING, 1), now_s) is Deed.NOTHING
        assert care.checked(False, "no answer", now_s) is Deed.NOTHING
    assert standing(care) is Standing.STOPPED
    assert care.seen(running(2), 31) is Deed.NOTHING
    assert (standing(care), care.verdict.restarts) == (Standing.STARTING, 0)
