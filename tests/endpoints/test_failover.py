"""A job whose server fails goes on elsewhere, or says best why not."""

from collections.abc import Sequence

import anyio
import pytest

from emp_core.endpoints.balancers import Fastest
from emp_core.endpoints.endpoint import EndpointStatus
from emp_core.endpoints.place import Place, PoolOptions
from emp_core.endpoints.pool import EndpointPool
from emp_core.errors import (
    AuthenticationFailed,
    ConnectionLost,
    EmpError,
    InvalidJob,
    JobFailed,
    MissingModel,
    MissingNode,
    NotHere,
    RateLimited,
    ServiceBroken,
    ServiceBusy,
    ServiceUnavailable,
)

from .servers import Servers, away

LOST = ConnectionLost("it went away in mid-job")


@pytest.fixture
def servers() -> Servers:
    return Servers()


class Work:
    """Fails as it is told, in turn; then gives the server's name."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.places: list[Place] = []

    @property
    def names(self) -> list[str]:
        return [place.name for place in self.places]

    async def __call__(self, place: Place) -> str:
        self.places.append(place)
        if self.errors:
            raise self.errors.pop(0)
        return place.name


async def run(pool: EndpointPool, *errors: Exception, **how: object) -> tuple[str | Exception, Sequence[str]]:
    work = Work(*errors)
    try:
        return await pool.run(work, **how), work.names  # type: ignore[arg-type]  # a test's own arguments
    except Exception as error:
        return error, work.names


async def test_a_job_that_was_lost_in_mid_run_is_begun_again_elsewhere(servers: Servers) -> None:
    pool = servers.pool("a b c")
    work = Work(LOST)
    assert await pool.run(work) == "b"
    [first, second] = work.places
    assert first.setback is None
    assert second.setback is not None
    assert (second.setback.endpoint, second.setback.error, second.setback.lost) == ("a", LOST, True)
    assert servers.told("moved") == ["a"]


async def test_it_moves_once_unless_told_otherwise(servers: Servers) -> None:
    ended, names = await run(servers.pool("a b c"), LOST, LOST)
    assert (ended, names) == (LOST, ["a", "b"])
    ended, names = await run(servers.pool("a b c", options=PoolOptions(moves=2)), LOST, LOST)
    assert (ended, names) == ("c", ["a", "b", "c"])
    ended, names = await run(servers.pool("a b c", options=PoolOptions(moves=0)), LOST)
    assert (ended, names) == (LOST, ["a"])


async def test_what_moved_before_counts(servers: Servers) -> None:
    ended, names = await run(servers.pool("a b"), LOST, moved=1)
    assert (ended, names) == (LOST, ["a"])
    work = Work(LOST)
    await servers.pool("a b c", options=PoolOptions(moves=3)).run(work, moved=1)
    assert [place.moved for place in work.places] == [1, 2]


async def test_a_broken_server_loses_its_job_as_one_that_went_away(servers: Servers) -> None:
    ended, names = await run(servers.pool("a b"), ServiceBroken("cuda fault"))
    assert (ended, names) == ("b", ["a", "b"])


async def test_it_does_not_move_once_outputs_were_handed_on(servers: Servers) -> None:
    for error in (LOST, ServiceUnavailable("500"), MissingModel("no x")):
        ended, names = await run(servers.pool("a b"), error, may_move=lambda: False)
        assert (ended, names) == (error, ["a"])


async def test_one_that_was_not_begun_tries_all_of_them(servers: Servers) -> None:
    refusals = [away("a"), RateLimited("later", retry_after_s=9.0), AuthenticationFailed("no"), ServiceBusy("full")]
    ended, names = await run(servers.pool("a b c d e"), *refusals)
    assert (ended, names) == ("e", ["a", "b", "c", "d", "e"])
    assert servers.told("moved") == []


async def test_a_model_that_one_lacks_may_be_at_another(servers: Servers) -> None:
    ended, names = await run(servers.pool("a b c"), MissingModel("no x"), MissingNode("no Y"))
    assert (ended, names) == ("c", ["a", "b", "c"])


async def test_only_if_all_refuse_it_the_job_is_refused_and_says_what_each_said(servers: Servers) -> None:
    first = MissingModel("a lacks x.safetensors", hint="put it there", details={"models": ["x.safetensors"]})
    ended, _ = await run(servers.pool("a b"), first, MissingModel("b lacks x.safetensors"))
    assert isinstance(ended, MissingModel)
    assert ended.message == "none of 2 servers can run it: a: a lacks x.safetensors; b: b lacks x.safetensors"
    assert ended.hint == "put it there"
    assert ended.details["models"] == ["x.safetensors"]


async def test_while_another_is_away_a_refusal_is_not_the_last_word(servers: Servers) -> None:
    servers.says["b"] = away("b")
    ended, names = await run(servers.pool("a b"), MissingModel("a lacks x"))
    assert names == ["a"]
    assert isinstance(ended, ServiceUnavailable)
    assert "nothing answers at b" in ended.message


async def test_a_disabled_server_does_not_keep_a_refusal_from_being_the_last_word(servers: Servers) -> None:
    pool = servers.pool("a b")
    pool.disable("b")
    ended, _ = await run(pool, MissingModel("a lacks x"))
    assert isinstance(ended, MissingModel)


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ((MissingModel("a"), away("b")), ServiceUnavailable),
        ((LOST, MissingModel("b")), ConnectionLost),
        ((MissingModel("a"), RateLimited("b", retry_after_s=3.0)), RateLimited),
        ((AuthenticationFailed("a"), MissingModel("b")), MissingModel),
        ((AuthenticationFailed("a"), AuthenticationFailed("b")), AuthenticationFailed),
        ((AuthenticationFailed("a"), away("b")), ServiceUnavailable),
        ((NotHere("a"), NotHere("b")), NotHere),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_the_error_at_the_end_is_the_one_that_gives_the_job_its_best_chance(
    servers: Servers, errors: tuple[EmpError, ...], kind: type[EmpError]
) -> None:
    ended, names = await run(servers.pool("a b"), *errors)
    assert type(ended) is kind
    assert names == ["a", "b"]


@pytest.mark.parametrize("error", [InvalidJob("bad"), JobFailed("node 3"), KeyError("own fault")], ids=repr)
async def test_what_says_something_of_the_job_is_raised_at_once(servers: Servers, error: Exception) -> None:
    ended, names = await run(servers.pool("a b"), error)
    assert ended is error
    assert names == ["a"]


async def test_a_server_that_was_chosen_by_hand_is_the_only_one(servers: Servers) -> None:
    ended, names = await run(servers.pool("a b"), LOST, at="b")
    assert (ended, names) == (LOST, ["b"])


async def test_a_preferred_server_gets_it_if_it_can(servers: Servers) -> None:
    assert await run(servers.pool("a b"), prefer="b") == ("b", ["b"])
    assert await run(servers.pool("a b"), LOST, prefer="b") == ("a", ["b", "a"])
    assert await run(servers.pool("a b"), prefer="unknown") == ("a", ["a"])


async def test_how_long_jobs_took_is_learned(servers: Servers) -> None:
    balancer = Fastest()
    pool = servers.pool("a b", balancer=balancer)

    async def work(place: Place) -> None:
        place.succeeded(took_s={"a": 30.0, "b": 5.0}[place.name])

    for _ in range(4):
        await pool.run(work, kind="sdxl")
    async with pool.place(kind="sdxl") as place:
        assert place.name == "b"


async def test_places_are_given_back_whatever_happens(servers: Servers) -> None:
    pool = servers.pool("a b")
    for error in (LOST, InvalidJob("bad"), KeyError("x")):
        await run(pool, error)
        await pool.refresh(everyone=True)
    assert [state.in_flight for state in pool.states()] == [0, 0]


async def test_jobs_at_a_server_that_gives_no_answer_for_long_go_on_elsewhere(servers: Servers) -> None:
    began = anyio.Event()
    pool = servers.pool("a b", options=PoolOptions(check_timeout_s=0.01, lost_after_s=30.0))
    ran_at: list[str] = []
    stopped: list[str] = []

    async def work(place: Place) -> str:
        ran_at.append(place.name)
        if place.name == "a":
            began.set()
            try:
                await anyio.sleep_forever()
            finally:
                stopped.append(place.name)
        return place.name

    async with anyio.create_task_group() as group:
        group.start_soon(pool.run, work)
        await began.wait()
        servers.silent = {"a"}
        for passed_s in (0.0, 29.0):
            servers.clock.now += passed_s
            await pool.refresh(everyone=True)
            assert not stopped
        servers.clock.now += 1.0
        await pool.refresh(everyone=True)
    assert (stopped, ran_at) == (["a"], ["a", "b"])
    assert servers.told("moved") == ["a"]
    assert [state.in_flight for state in pool.states()] == [0, 0]


async def test_a_server_that_answers_in_between_keeps_its_jobs(servers: Servers) -> None:
    began, may_end = anyio.Event(), anyio.Event()
    pool = servers.pool("a b", options=PoolOptions(check_timeout_s=0.01, lost_after_s=30.0))
    ended: list[str] = []

    async def work(place: Place) -> None:
        began.set()
        await may_end.wait()
        ended.append(place.name)

    async with anyio.create_task_group() as group:
        group.start_soon(pool.run, work)
        await began.wait()
        for silent in (True, False, True):
            servers.silent = {"a"} if silent else set()
            await pool.refresh(everyone=True)
            servers.clock.now += 29.0
        may_end.set()
    assert ended == ["a"]


async def test_a_job_that_is_cancelled_from_outside_does_not_move(servers: Servers) -> None:
    began = anyio.Event()
    pool = servers.pool("a b", options=PoolOptions(lost_after_s=30.0))
    names: list[str] = []

    async def work(place: Place) -> None:
        names.append(place.name)
        began.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(pool.run, work)
        await began.wait()
        group.cancel_scope.cancel()
    assert names == ["a"]
    assert pool.state("a").status is EndpointStatus.ONLINE
