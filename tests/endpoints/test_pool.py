"""Who gets a job, by what is known of the servers."""

from collections import Counter
from contextlib import AsyncExitStack

import anyio
import pytest

from emp_core.connectors.breaker import BreakerPolicy, BreakerState
from emp_core.endpoints.endpoint import Endpoint, EndpointStatus, Reading
from emp_core.endpoints.place import PoolOptions
from emp_core.errors import (
    AuthenticationFailed,
    ConfigError,
    ConnectionLost,
    JobFailed,
    NotHere,
    RateLimited,
    ServiceBroken,
    ServiceBusy,
    ServiceUnavailable,
)

from .servers import Servers, away

ONLINE, OFFLINE, ERROR = EndpointStatus.ONLINE, EndpointStatus.OFFLINE, EndpointStatus.ERROR


@pytest.fixture
def servers() -> Servers:
    return Servers()


async def test_a_burst_between_two_looks_is_spread_by_what_was_sent_already(servers: Servers) -> None:
    servers.says = {"a": Reading(running=1, pending=3), "b": Reading(running=1), "c": Reading()}
    pool = servers.pool("a b c")
    async with AsyncExitStack() as places:
        for _ in range(10):
            await places.enter_async_context(pool.place())
        assert [state.in_flight for state in pool.states()] == [1, 4, 5]
        assert [state.queue for state in pool.states()] == [5, 5, 5]
    assert [state.queue for state in pool.states()] == [4, 1, 0]
    assert servers.asked == ["a", "b", "c"], "once each: the answers were fresh all the time"


async def test_our_own_jobs_are_not_counted_twice_after_the_next_look(servers: Servers) -> None:
    pool = servers.pool("a")
    async with pool.place(), pool.place():
        servers.says["a"] = Reading(running=1, pending=3)
        [state] = await pool.refresh(everyone=True)
        assert (state.queue, state.in_flight) == (4, 2)
    assert pool.state("a").queue == 2, "those of somebody else"


async def test_answers_are_asked_for_again_when_they_are_old(servers: Servers) -> None:
    pool = servers.pool("a", options=PoolOptions(check_every_s=5.0))
    await pool.refresh()
    servers.clock.now += 4.9
    await pool.refresh()
    assert servers.asked == ["a"]
    servers.clock.now += 0.1
    await pool.refresh()
    assert servers.asked == ["a", "a"]


async def test_one_that_is_down_is_asked_more_often(servers: Servers) -> None:
    servers.says["a"] = away("a")
    pool = servers.pool("a", options=PoolOptions(check_every_s=5.0, check_down_every_s=2.0))
    await pool.refresh()
    servers.says["a"] = Reading()
    servers.clock.now += 2.0
    [state] = await pool.refresh()
    assert state.status is ONLINE
    assert [event.kind for event in servers.events] == ["offline", "online"]


async def test_many_that_ask_at_once_cause_one_question(servers: Servers) -> None:
    servers.gate = anyio.Event()
    pool = servers.pool("a b")
    statuses: list[EndpointStatus] = []

    async def refresh() -> None:
        statuses.extend(state.status for state in await pool.refresh(everyone=True))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(refresh)
        await servers.somebody_asks.wait()
        servers.gate.set()
    assert Counter(servers.asked) == {"a": 1, "b": 1}
    assert statuses == [ONLINE] * 10


async def test_a_cancelled_question_does_not_hold_up_those_who_wait_for_it(servers: Servers) -> None:
    servers.silent = {"a"}
    pool = servers.pool("a")
    async with anyio.create_task_group() as group:
        asking = anyio.CancelScope()

        async def ask() -> None:
            with asking:
                await pool.refresh()

        group.start_soon(ask)
        await servers.somebody_asks.wait()
        group.start_soon(pool.refresh)
        servers.silent.clear()
        asking.cancel()
    await pool.refresh()
    assert pool.state("a").status is ONLINE


async def test_not_all_of_a_large_fleet_are_asked_at_once(servers: Servers) -> None:
    servers.gate = anyio.Event()
    pool = servers.pool(" ".join(f"s{number}" for number in range(30)), options=PoolOptions(checks_at_once=4))
    async with anyio.create_task_group() as group:
        group.start_soon(pool.refresh)
        await servers.somebody_asks.wait()
        servers.gate.set()
    assert servers.most_at_once == 4
    assert len(servers.asked) == 30


async def test_one_that_hangs_is_offline_and_keeps_nobody_from_the_others(servers: Servers) -> None:
    servers.silent = {"hangs"}
    pool = servers.pool("hangs well", options=PoolOptions(check_timeout_s=0.05))
    async with pool, pool.place() as place:
        assert place.name == "well"
    state = pool.state("hangs")
    assert (state.status, state.reason) == (OFFLINE, "it did not answer within 0.05 s")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (away("a"), OFFLINE),
        (ConnectionLost("it went silent"), OFFLINE),
        (TimeoutError("too slow"), OFFLINE),
        (ServiceUnavailable("a answered GET / with 500", details={"status": 500}), ERROR),
        (AuthenticationFailed("a answered GET / with 401"), ERROR),
        (KeyError("devices"), ERROR),
    ],
    ids=repr,
)
async def test_offline_is_one_that_does_not_answer_error_one_that_answers_wrongly(
    servers: Servers, said: Exception, status: EndpointStatus
) -> None:
    servers.says["a"] = said
    [state] = await servers.pool("a").refresh()
    assert state.status is status
    assert str(said.args[0]) in str(state.reason)


async def test_while_it_is_open_it_notices_by_itself_what_goes_and_comes(servers: Servers) -> None:
    noticed = {"offline": anyio.Event(), "online": anyio.Event()}
    pool = servers.pool("a", options=PoolOptions(check_every_s=0.01, check_down_every_s=0.01))
    pool._on_event = lambda event: noticed[event.kind].set()
    pool._members["a"]._clock = anyio.current_time
    with anyio.fail_after(10):
        async with pool:
            await servers.somebody_asks.wait()
            servers.says["a"] = away("a")
            await noticed["offline"].wait()
            servers.says["a"] = Reading()
            await noticed["online"].wait()
    assert pool.state("a").status is ONLINE


async def test_leaving_it_ends_all_its_questions(servers: Servers) -> None:
    servers.silent = {"a", "b"}
    async with servers.pool("a b"):
        await servers.somebody_asks.wait()
    assert servers.at_once == 0


async def test_an_error_inside_of_its_block_comes_out_as_it_is(servers: Servers) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with servers.pool("a"):
            raise KeyError("mine")


async def test_a_server_that_failed_a_job_gets_no_other_until_it_was_asked(servers: Servers) -> None:
    servers.gate = anyio.Event()
    servers.gate.set()
    pool = servers.pool("a b")
    async with pool:
        await pool.refresh(everyone=True)
        servers.gate = anyio.Event()  # the question that follows hangs for now
        async with pool.place(prefer="a") as place:
            place.failed(ConnectionLost("a went away"))
        assert pool.state("a").status is OFFLINE
        names = []
        for _ in range(3):
            async with pool.place() as place:
                names.append(place.name)
        assert names == ["b", "b", "b"]
        assert servers.told("offline") == ["a"]


async def test_failures_in_a_row_open_its_breaker_although_it_answers_well(servers: Servers) -> None:
    policy = BreakerPolicy(failures=2, open_s=10.0)
    pool = servers.pool("a b", options=PoolOptions(breaker=policy))
    for _ in range(2):
        async with pool.place(prefer="a") as place:
            assert place.name == "a"
            place.failed(ConnectionLost("a went away"))
        await pool.refresh(everyone=True)
    assert pool.state("a").status is ONLINE
    assert pool.state("a").breaker is BreakerState.OPEN
    async with pool.place(prefer="a") as place:
        assert place.name == "b"
    servers.clock.now += 10
    async with pool.place(prefer="a") as probe:
        assert probe.name == "a"
        async with pool.place(prefer="a") as place:
            assert place.name == "b", "one probe at a time"
        probe.succeeded()
    assert pool.state("a").breaker is BreakerState.CLOSED
    assert (servers.told("breaker_open"), servers.told("breaker_closed")) == (["a"], ["a"])


async def test_a_broken_one_is_out_at_once(servers: Servers) -> None:
    pool = servers.pool("a")
    async with pool.place() as place:
        place.failed(ServiceBroken("its worker thread has died"))
    await pool.refresh(everyone=True)
    with pytest.raises(ServiceUnavailable, match="its worker thread has died"):
        async with pool.place():
            pass


async def test_failures_of_jobs_say_nothing_of_the_server(servers: Servers) -> None:
    pool = servers.pool("a", options=PoolOptions(breaker=BreakerPolicy(failures=1)))
    async with pool.place() as place:
        place.failed(JobFailed("node 3 failed"))
    assert pool.state("a").status is ONLINE
    assert pool.state("a").breaker is BreakerState.CLOSED


async def test_one_that_wants_to_be_left_alone_is_for_as_long_as_it_says(servers: Servers) -> None:
    pool = servers.pool("a b")
    async with pool.place(prefer="a") as place:
        place.failed(RateLimited("slow down", retry_after_s=30.0))
    async with pool.place(prefer="a") as place:
        assert place.name == "b"
        place.failed(RateLimited("slow down", retry_after_s=10.0))
    with pytest.raises(ServiceBusy) as refused:
        async with pool.place():
            pass
    assert refused.value.retry_after_s == pytest.approx(10.0)
    servers.clock.now += 30
    async with pool.place(prefer="a") as place:
        assert place.name == "a"


async def test_one_that_refuses_our_credentials_is_paused_and_the_others_are_not(servers: Servers) -> None:
    pool = servers.pool("a b")
    async with pool.place(prefer="a") as place:
        place.failed(AuthenticationFailed("no such key"))
    async with pool.place(prefer="a") as place:
        assert place.name == "b"
    assert "no such key" in str(pool.state("a").reason)


async def test_a_server_can_be_chosen_by_hand(servers: Servers) -> None:
    servers.says["b"] = Reading(pending=50)
    async with servers.pool("a b").place(at="b") as place:
        assert place.name == "b"


async def test_choosing_one_that_is_unknown_disabled_or_down_says_so(servers: Servers) -> None:
    servers.says["down"] = away("down")
    pool = servers.pool([Endpoint("off", "http://off", enabled=False), Endpoint("down", "http://down")])
    with pytest.raises(NotHere, match=r"there is no server 'x' here \(there are: off, down\)"):
        async with pool.place(at="x"):
            pass
    with pytest.raises(NotHere, match="server off is disabled"):
        async with pool.place(at="off"):
            pass
    with pytest.raises(ServiceUnavailable, match="server down: nothing answers at down"):
        async with pool.place(at="down"):
            pass


async def test_when_nobody_takes_a_job_the_error_says_why_of_each(servers: Servers) -> None:
    servers.says["b"] = away("b")
    pool = servers.pool([Endpoint("a", "http://a", enabled=False), Endpoint("b", "http://b")])
    with pytest.raises(ServiceUnavailable) as refused:
        async with pool.place():
            pass
    assert refused.value.details["servers"] == {"a": "it is disabled", "b": "nothing answers at b"}
    assert "none of 2 servers takes jobs now" in refused.value.message


async def test_only_servers_that_could_run_it_are_chosen_from(servers: Servers) -> None:
    servers.says["b"] = Reading(pending=50)
    async with servers.pool("a b").place(fit=lambda endpoint: endpoint.name == "b") as place:
        assert place.name == "b"


async def test_servers_come_and_go_while_jobs_run(servers: Servers) -> None:
    pool = servers.pool("a")
    async with pool.place() as place:
        pool.remove("a")
        pool.add(Endpoint("b", "http://b"))
        async with pool.place() as other:
            assert other.name == "b"
        place.succeeded()
    assert [one.name for one in pool.endpoints] == ["b"]
    assert [(event.kind, event.endpoint) for event in servers.events] == [("removed", "a"), ("added", "b")]


async def test_a_disabled_one_is_left_alone_and_asked_anew_when_it_is_enabled(servers: Servers) -> None:
    pool = servers.pool("a")
    pool.disable("a")
    [state] = await pool.refresh(everyone=True)
    assert state.status is EndpointStatus.DISABLED
    assert servers.asked == []
    pool.enable("a")
    async with pool.place() as place:
        assert place.name == "a"
    assert servers.asked == ["a"]
    assert (servers.told("disabled"), servers.told("enabled")) == (["a"], ["a"])


async def test_a_new_address_is_a_new_server(servers: Servers) -> None:
    servers.says["a"] = away("a")
    pool = servers.pool("a")
    await pool.refresh()
    servers.says["a"] = Reading()
    pool.change(Endpoint("a", "http://elsewhere"))
    assert pool.state("a").status is EndpointStatus.UNKNOWN
    async with pool.place() as place:
        assert place.endpoint.url == "http://elsewhere"


async def test_an_answer_from_the_old_address_says_nothing_of_the_new_one(servers: Servers) -> None:
    servers.gate = anyio.Event()
    pool = servers.pool("a")
    async with anyio.create_task_group() as group:
        group.start_soon(pool.refresh)
        await servers.somebody_asks.wait()
        pool.change(Endpoint("a", "http://elsewhere"))
        servers.gate.set()
    assert pool.state("a").status is EndpointStatus.UNKNOWN


async def test_a_whole_new_list_adds_changes_and_removes(servers: Servers) -> None:
    pool = servers.pool("a b c")
    pool.replace([Endpoint("c", "http://c:1", priority=3), Endpoint("d", "http://d:1"), Endpoint("b", "http://b:1")])
    assert [(one.name, one.priority) for one in pool.endpoints] == [("c", 3), ("d", 1), ("b", 1)]
    assert {(event.kind, event.endpoint) for event in servers.events} == {
        ("removed", "a"),
        ("changed", "c"),
        ("added", "d"),
    }


async def test_names_are_unique(servers: Servers) -> None:
    with pytest.raises(ConfigError, match="two servers have the name 'a'"):
        servers.pool("a a")
    pool = servers.pool("a b")
    with pytest.raises(ConfigError, match="'a'"):
        pool.add(Endpoint("a", "http://x"))
    with pytest.raises(ConfigError, match="'c'"):
        pool.replace([Endpoint("c", "http://x"), Endpoint("c", "http://y")])
    with pytest.raises(ConfigError, match="no server 'x'"):
        pool.disable("x")
    assert [one.name for one in pool.endpoints] == ["a", "b"]


@pytest.mark.parametrize("name", ["", " a", "a\nb", "x" * 101], ids=repr)
def test_a_name_is_something_that_can_be_read_in_a_line(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a server"):
        Endpoint(name, "http://x")


async def test_a_changed_priority_counts_at_once(servers: Servers) -> None:
    from emp_core.endpoints.balancers import Priority

    pool = servers.pool("a b", balancer=Priority())
    pool.set_priority("a", 2)
    async with pool.place() as place:
        assert place.name == "b"


async def test_some_are_chosen_before_others_as_long_as_one_of_them_takes_jobs(servers: Servers) -> None:
    pool = servers.pool("a b c")
    has_it = {"b", "c"}
    chosen = []
    for _ in range(4):
        async with pool.place(rather=lambda endpoint: endpoint.name in has_it) as place:
            chosen.append(place.name)
    assert sorted(chosen) == ["b", "b", "c", "c"]
    async with pool.place(rather=lambda endpoint: endpoint.name in has_it, avoid=has_it) as place:
        assert place.name == "a"
    async with pool.place(rather=lambda _: False, prefer="c") as place:
        assert place.name == "c"
