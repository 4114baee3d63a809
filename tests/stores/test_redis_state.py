"""Common decisions over a real Redis: what processes share, and that a Redis which is gone is nobody's problem."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from holdfast import SharedStateError
from holdfast.moments import SharedBack, SharedLost
from holdfast.stores import RedisState
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as started:
        yield started


@pytest.fixture
async def states(server: RedisServer, request: pytest.FixtureRequest) -> AsyncIterator[list[RedisState]]:
    """Two of them, as two processes would have."""
    both = [RedisState(server.url, prefix=request.node.name, timeout=2) for _ in range(2)]
    yield both
    for one in both:
        await one.aclose()


# -- buckets ---------------------------------------------------------------------------------------


async def test_a_bucket_is_emptied_by_all_together(states: list[RedisState]) -> None:
    mine, yours = states
    assert [await one.take("b", 2, rate=0.5, burst=4) for one in (mine, yours)] == [0.0, 0.0]
    assert await mine.take("b", 1, rate=0.5, burst=4) == pytest.approx(2.0, abs=0.5)


async def test_a_hundred_callers_at_once_take_what_there_is_and_no_more(states: list[RedisState]) -> None:
    waits = await asyncio.gather(*(states[n % 2].take("b", 1, rate=0.001, burst=30) for n in range(100)))
    assert waits.count(0.0) == 30


async def test_what_is_given_back_can_be_taken_again(states: list[RedisState]) -> None:
    mine, yours = states
    await mine.take("b", 4, rate=0.001, burst=4)
    await mine.take("b", -3, rate=0.001, burst=4)
    assert await yours.take("b", 3, rate=0.001, burst=4) == 0.0


async def test_more_than_a_bucket_holds_is_taken_once_it_is_full_and_leaves_a_debt(states: list[RedisState]) -> None:
    assert await states[0].take("b", 10, rate=2, burst=4) == 0.0
    assert await states[1].take("b", 1, rate=2, burst=4) == pytest.approx(3.5, abs=0.5)


async def test_a_bucket_that_never_refills_is_waited_for_in_vain(states: list[RedisState]) -> None:
    assert await states[0].take("b", 1, rate=0, burst=1) == 0.0
    assert await states[1].take("b", 1, rate=0, burst=1) == math.inf
    client: Any = states[0]._door().client
    assert await client.ttl(states[0]._key("bucket", "b")) == -1  # what was spent for good must not be forgotten


async def test_one_that_never_refills_is_forgotten_when_the_asker_says_so(states: list[RedisState]) -> None:
    assert await states[0].take("b", 1, rate=0, burst=1, seconds=90) == 0.0
    client: Any = states[0]._door().client
    assert 80 < await client.ttl(states[0]._key("bucket", "b")) <= 90


# -- places ----------------------------------------------------------------------------------------


async def test_there_are_so_many_places_and_no_more(states: list[RedisState]) -> None:
    took = await asyncio.gather(*(states[n % 2].hold("p", f"h{n}", places=7, seconds=30) for n in range(100)))
    assert took.count(True) == 7


async def test_a_place_is_held_longer_and_given_back(states: list[RedisState]) -> None:
    mine, yours = states
    assert await mine.hold("p", "me", places=1, seconds=30)
    assert await mine.hold("p", "me", places=1, seconds=60)
    assert await yours.hold("p", "you", places=1, seconds=30) is False
    await mine.release("p", "me")
    await mine.release("p", "nobody")
    assert await yours.hold("p", "you", places=1, seconds=30)


async def test_the_place_of_a_process_that_died_is_free_again(states: list[RedisState]) -> None:
    mine, yours = states
    assert await mine.hold("p", "me", places=1, seconds=0.05)
    await asyncio.sleep(0.1)
    assert await yours.hold("p", "you", places=1, seconds=30)


# -- what was learned ------------------------------------------------------------------------------


async def test_what_one_learned_the_others_know(states: list[RedisState]) -> None:
    mine, yours = states
    assert await yours.told("limits") == {}
    await mine.tell("limits", {"requests": 60.0, "reset": 0.1}, seconds=30)
    known = await yours.told("limits")
    assert known is not None
    assert 20 < known["seconds"] <= 30  # for so long, whatever time it is here or there
    assert {**known, "seconds": 0.0} == {"requests": 60.0, "reset": 0.1, "seconds": 0.0}
    await yours.tell("limits", {"tokens": 5}, seconds=30)
    assert (await mine.told("limits") or {})["tokens"] == 5.0
    await yours.tell("limits", {"tokens": 6}, seconds=0.05)
    await asyncio.sleep(0.1)
    assert await mine.told("limits") == {}


# -- a Redis that is slow, gone, and back ----------------------------------------------------------


async def every_answer(state: RedisState) -> list[Any]:
    await state.release("p", "me")
    await state.tell("l", {"a": 1}, seconds=1)
    return [
        await state.take("b", 1, rate=1, burst=1),
        await state.hold("p", "me", places=1, seconds=1),
        await state.told("l"),
    ]


async def test_a_redis_that_is_gone_decides_nothing_and_heals() -> None:
    with redis_server() as own:
        state = RedisState(own.url, pause=0.05, timeout=1)
        assert await state.take("b", 1, rate=0.001, burst=1) == 0.0
        own.kill()
        assert await every_answer(state) == [None] * 3
        own.start()
        await asyncio.sleep(0.1)
        assert await state.take("b", 1, rate=0.001, burst=1) == 0.0  # it has forgotten, and counts again
        assert await state.take("b", 1, rate=0.001, burst=1) is not None
        await state.aclose()


# -- who hears of it -------------------------------------------------------------------------------


async def test_that_redis_is_lost_and_back_is_news_once_for_each_change() -> None:
    with redis_server() as own:
        state = RedisState(own.url, prefix="shop", pause=0.05, timeout=1)
        await state.take("b", 1, rate=1, burst=1)
        assert state.news() == []
        own.kill()
        await every_answer(state)
        await asyncio.sleep(0.06)
        await every_answer(state)
        (lost,) = state.news()
        assert isinstance(lost, SharedLost)
        assert lost.name == "shop"
        assert "Error" in lost.reason
        own.start()
        await asyncio.sleep(0.1)
        await every_answer(state)
        await every_answer(state)
        (back,) = state.news()
        assert isinstance(back, SharedBack)
        assert 0.1 < back.seconds < 60
        await state.aclose()


async def test_a_breaker_s_storage_tells_the_same_store(server: RedisServer) -> None:
    state = RedisState("redis://127.0.0.1:1/0", prefix="shop")
    assert state.storage("deepseek").state == "closed"
    (lost,) = state.news()
    assert isinstance(lost, SharedLost)
    assert "refused" in lost.reason


async def test_one_key_that_is_refused_is_told_once_and_others_still_decide(states: list[RedisState]) -> None:
    mine = states[0]
    await mine.take("good", 1, rate=1, burst=1)
    client: Any = mine._door().client
    await client.set(mine._key("bucket", "bad"), "mine")
    for _ in range(3):
        assert await mine.take("bad", 1, rate=1, burst=1) is None
        assert await mine.take("good", 0, rate=1, burst=1) == 0.0
    lost, back = mine.news()
    assert isinstance(lost, SharedLost)
    assert isinstance(back, SharedBack)
    assert "WRONGTYPE" in lost.reason


async def test_a_ping_says_what_is_wrong(server: RedisServer) -> None:
    good = RedisState(server.url)
    await good.ping()
    client: Any = good._door().client
    await client.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@read", "+@connection")
    there = server.url.removeprefix("redis://")
    for url, what in (
        ("redis://127.0.0.1:1/0", "refused"),
        (f"redis://weak:wrong@{there}", "AuthenticationError"),
        (f"redis://weak:pw@{there}", "NoPermissionError"),
        (f"rediss://{there}", "ConnectionError|TimeoutError|no answer|SSL"),
    ):
        state = RedisState(url, timeout=0.1)
        with pytest.raises(SharedStateError, match=what) as raised:
            await state.ping()
        assert "weak:" not in str(raised.value)
        await state.aclose()
    await good.aclose()


async def test_a_ping_waits_as_long_as_a_first_decision_and_ends_a_pause() -> None:
    with redis_server() as own:
        state = RedisState(own.url, timeout=1, pause=60)
        with own.frozen():
            with pytest.raises(SharedStateError, match="no answer in 1 s"):
                await state.ping()
            assert await state.take("b", 1, rate=1, burst=1) is None
        await state.ping()
        assert await state.take("b", 1, rate=1, burst=1) is not None
        assert [type(one) for one in state.news()] == [SharedLost, SharedBack]
        await state.aclose()


async def test_a_redis_that_hangs_is_waited_for_once_and_not_by_everybody() -> None:
    with redis_server() as own:
        state = RedisState(own.url, timeout=0.1, pause=60)
        assert await state.take("b", 1, rate=1, burst=5) == 0.0
        with own.frozen():
            started = time.monotonic()
            assert await state.take("b", 1, rate=1, burst=5) is None
            assert [await every_answer(state) for _ in range(100)] == [[None] * 3] * 100
            assert time.monotonic() - started < 5  # else it would be 10 at the least
        await state.aclose()


async def test_a_cancelled_question_leaves_the_next_one_its_own_answer(states: list[RedisState]) -> None:
    state = states[0]
    for ticks in range(12):
        asking = asyncio.ensure_future(state.told("nothing"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        assert await state.take(f"b{ticks}", 1, rate=1, burst=1) == 0.0


def test_each_event_loop_has_connections_of_its_own(server: RedisServer) -> None:
    state = RedisState(server.url, timeout=2, prefix="loops")

    async def ask() -> float | None:
        wait = await state.take("b", 1, rate=0.001, burst=2)
        await state.aclose()
        return wait

    assert [asyncio.run(ask()), asyncio.run(ask())] == [0.0, 0.0]
    assert asyncio.run(ask()) != 0.0


def test_a_repr_holds_no_password() -> None:
    assert "secret" not in repr(RedisState("redis://me:secret@localhost:1/0"))


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"pause": math.inf}, {"timeout": "1"}])
def test_bad_settings_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds above 0"):
        RedisState(**wrong)


async def test_a_place_that_could_not_be_given_back_is_given_back_once_redis_answers(server: RedisServer) -> None:
    """Else one who ends a stream in such a moment would keep others from its place until the lease has run out."""
    mine, yours = (RedisState(server.url, prefix="owed", timeout=2) for _ in range(2))
    assert await mine.hold("p", "m", places=1, seconds=60)
    mine._door().shut_until = math.inf
    await mine.release("p", "m")
    assert await yours.hold("p", "y", places=1, seconds=60) is False
    mine._door().shut_until = -math.inf
    await mine.told("anything")
    assert await yours.hold("p", "y", places=1, seconds=60) is True
    for one in (mine, yours):
        await one.aclose()


async def test_places_that_are_owed_are_given_back_at_the_latest_when_it_is_closed(server: RedisServer) -> None:
    mine, yours = (RedisState(server.url, prefix="owed late", timeout=2) for _ in range(2))
    assert await mine.hold("p", "m", places=1, seconds=60)
    mine._door().shut_until = math.inf
    await mine.release("p", "m")
    await mine.aclose()
    assert await yours.hold("p", "y", places=1, seconds=60) is True
    await yours.aclose()


async def test_a_store_that_is_gone_for_long_owes_no_more_than_so_many_places(server: RedisServer) -> None:
    shared = RedisState("redis://127.0.0.1:1/0", timeout=0.3, pause=60)
    for number in range(5000):
        await shared.release("p", str(number))
    assert len(shared._door().owed) == 4096
    await shared.aclose()
