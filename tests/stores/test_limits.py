"""RateLimit and Concurrency over a real Redis: several processes keep one limit, and each its own when Redis dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from holdfast._clock import SystemClock
from holdfast._core import Call, Source
from holdfast._types import Request
from holdfast.layers.concurrency import Concurrency
from holdfast.layers.rate_limit import RateLimit
from holdfast.machines.concurrency import ConcurrencyLimiter
from holdfast.machines.rate_limiter import RateLimiter
from holdfast.stores import RedisState
from tests.layers.limited_upstream import LimitedUpstream
from tests.puppet import drain
from tests.redis_server import RedisServer, redis_server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as started:
        yield started


@pytest.fixture
async def states(server: RedisServer) -> AsyncIterator[list[RedisState]]:
    """Four of them, as four processes would have."""
    all_of_them = [RedisState(server.url, timeout=2, pause=0.05) for _ in range(4)]
    yield all_of_them
    for one in all_of_them:
        await one.aclose()


async def ask(source: Source[Any]) -> None:
    stream = await source.open(Request(url="http://upstream", body={"model": "m"}, call=Call()))
    try:
        await drain(stream)
    finally:
        await stream.aclose()


def upstream(places: int = 1_000_000) -> LimitedUpstream:
    return LimitedUpstream(clock=SystemClock(), per_minute=1e9, places=places, seconds=0.02, opening=0.005)


async def test_processes_hold_as_many_places_as_there_are(states: list[RedisState]) -> None:
    limited = upstream(places=3)
    sources = [Concurrency(ConcurrencyLimiter(limit=3), shared=state)(limited) for state in states]
    await asyncio.gather(*(ask(source) for source in sources * 6))
    assert (limited.most_open, limited.refused) == (3, [])


async def test_processes_send_as_many_a_minute_as_one_may(states: list[RedisState]) -> None:
    limited = upstream()
    limiters = [RateLimiter(requests_per_minute=6000, burst=0.1) for _ in states]  # 10 at once, 99.8 a second
    sources = [RateLimit(limiter, shared=state)(limited) for limiter, state in zip(limiters, states, strict=True)]
    await asyncio.gather(*(ask(source) for source in sources * 15))
    assert limited.taken[-1] - limited.taken[0] >= (60 - 10) / 99.8 - 0.02


async def test_a_redis_that_dies_and_comes_back_costs_no_stream(states: list[RedisState], server: RedisServer) -> None:
    limited = upstream()
    limiters = [ConcurrencyLimiter(limit=2) for _ in states]
    sources = [Concurrency(limiter, shared=state)(limited) for limiter, state in zip(limiters, states, strict=True)]
    await asyncio.gather(*(ask(source) for source in sources))
    server.kill()
    await asyncio.gather(*(ask(source) for source in sources * 4))
    assert limited.most_open <= 2 * len(states)
    await asyncio.to_thread(server.start)
    await asyncio.sleep(0.2)
    limited.most_open = 0
    await asyncio.gather(*(ask(source) for source in sources * 4))
    assert limited.most_open == 2
    assert all(limiter.places("").in_use == 0 for limiter in limiters)
