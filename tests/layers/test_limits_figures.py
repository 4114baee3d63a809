"""The figures of docs/rate-limit.md and docs/concurrency.md: many callers at an upstream with limits of its own."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import pytest

from holdfast._core import Call, Source
from holdfast._errors import StreamError
from holdfast._types import Request
from holdfast.layers.concurrency import Concurrency
from holdfast.layers.rate_limit import RateLimit
from holdfast.layers.retry import Retry
from holdfast.machines.concurrency import ConcurrencyLimiter
from holdfast.machines.rate_limiter import RateLimiter
from holdfast.testing import FakeClock
from tests.layers.limited_upstream import LimitedUpstream
from tests.puppet import drain

Limit = Callable[[Source[Any]], Source[Any]]


async def fleet(
    clock: FakeClock, upstream: LimitedUpstream, limit: Limit, *, within: float, each: int
) -> tuple[Counter[str], float]:
    """Lets 1,000 callers ask; gives how their calls ended, and how many of 100 requests were refused."""
    source = Retry()(limit(upstream))
    chance, outcomes = random.Random(1), Counter[str]()

    async def caller() -> None:
        await clock.sleep(within * chance.random())
        for _ in range(each):
            call = Call(clock=clock, random=chance)
            try:
                stream = await source.open(Request(url="http://upstream", body={"model": "m"}, call=call))
            except StreamError:
                outcomes["lost"] += 1
                continue
            assert await drain(stream) == ["first", "last"]
            await stream.aclose()
            outcomes["answered"] += 1

    await asyncio.gather(*(caller() for _ in range(1000)))
    refused = len(upstream.refused)
    return outcomes, round(100 * refused / (refused + len(upstream.taken)), 2)


@pytest.mark.parametrize(
    ("semantics", "tells", "refused"), [("bucket", "headers", 0.0), ("window", "retry-after", 0.13)]
)
async def test_what_a_rate_limit_is_worth(
    clock: FakeClock, semantics: Literal["bucket", "window"], tells: Literal["headers", "retry-after"], refused: float
) -> None:
    upstream = LimitedUpstream(clock=clock, semantics=semantics, tells=tells)
    limit = RateLimit(RateLimiter(max_wait=600, max_waiting=2000))
    outcomes, share = await fleet(clock, upstream, limit, within=60, each=3)
    assert outcomes == Counter(answered=3000)
    assert share == refused


async def test_what_places_are_worth(clock: FakeClock) -> None:
    upstream = LimitedUpstream(clock=clock, per_minute=1e9, places=50, tells="nothing")
    limiter = ConcurrencyLimiter(adaptive="aimd", max_limit=1000, max_wait=6000)
    outcomes, share = await fleet(clock, upstream, Concurrency(limiter), within=10, each=5)
    assert outcomes == Counter(answered=5000)
    assert (share, round(clock.now())) == (0.08, 249)
