"""A Redis whose keys, clock and load are not what they should be: what is wrong with one key is so with that alone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

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


async def test_what_was_used_is_taken_whatever_is_there_and_no_debt_is_of_more_than_ten_minutes(
    states: list[RedisState],
) -> None:
    mine, yours = states
    assert await mine.take("f", 8, rate=1, burst=10) == 0.0
    assert await mine.take("f", 30, rate=1, burst=10, force=True) == 0.0
    assert await yours.take("f", 1, rate=1, burst=10) == pytest.approx(29, abs=0.2)
    assert await mine.take("f", -1e18, rate=1, burst=10, force=True) == 0.0
    for huge in (1e18, math.inf):
        assert await mine.take("f", huge, rate=1, burst=10, force=True) == 0.0
        assert await yours.take("f", 1, rate=1, burst=10) == pytest.approx(601, abs=0.5)


async def test_a_clock_of_redis_that_is_set_back_stops_no_bucket(states: list[RedisState], server: RedisServer) -> None:
    key = f"{states[0]._prefix}:bucket:b"
    client = redis.Redis.from_url(server.url)
    client.hset(key, mapping={"left": "0", "at": str(time.time() + 3600)})
    assert await states[0].take("b", 1, rate=50, burst=1) == pytest.approx(0.02)
    await asyncio.sleep(0.03)
    assert await states[0].take("b", 1, rate=50, burst=1) == 0.0


async def test_thousands_at_once_are_all_answered(server: RedisServer) -> None:
    state = RedisState(server.url, prefix="crowd", timeout=30)
    answers = await asyncio.gather(*(state.take("b", 1, rate=1, burst=10_000) for _ in range(2000)))
    await state.aclose()
    assert set(answers) == {0.0}


async def test_waiting_for_each_other_is_not_waiting_for_redis(server: RedisServer) -> None:
    state = RedisState(server.url, prefix="line", timeout=1)
    assert await state.take("b", 1, rate=1, burst=100) == 0.0
    room = state._door().room
    while not room.locked():
        await room.acquire()
    asking = [asyncio.create_task(state.take("b", 1, rate=1, burst=100)) for _ in range(10)]
    await asyncio.sleep(1.1)  # longer than Redis may take
    room.release()
    answers = await asyncio.gather(*asking)
    await state.aclose()
    assert answers == [0.0] * 10


@pytest.mark.parametrize("garbage", [b"abc", b"inf", b"nan", b"\xff", b""])
async def test_what_is_no_number_was_not_learned(states: list[RedisState], server: RedisServer, garbage: bytes) -> None:
    client = redis.Redis.from_url(server.url)
    client.hset(f"{states[0]._prefix}:learned:g", mapping={"until": garbage})
    assert await states[0].told("g") == {}
    client.hset(f"{states[0]._prefix}:learned:g", mapping={"wait": "3"})
    assert await states[0].told("g") == {"wait": 3.0, "seconds": 0.0}


async def test_a_key_that_others_made_something_else_of_is_no_reason_to_leave_redis_alone(server: RedisServer) -> None:
    state = RedisState(server.url, prefix="odd", pause=60)
    redis.Redis.from_url(server.url).set("odd:bucket:b", "x")
    redis.Redis.from_url(server.url).set("odd:places:p", "x")
    for _ in range(3):
        assert await state.take("b", 1, rate=1, burst=1) is None
        assert await state.hold("p", "h", places=1, seconds=9) is None
        await state.release("p", "h")
    assert await state.take("good", 1, rate=1, burst=1) == 0.0
    assert await state.hold("good", "h", places=1, seconds=9) is True
    await state.aclose()
