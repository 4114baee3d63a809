"""Both limits together, under callers who come, give up and break off at random: nothing is left held, by any seed."""

from __future__ import annotations

import asyncio
import random
from typing import Any

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
from tests.layers.store import Store
from tests.puppet import drain


def an_upstream(chance: random.Random, clock: FakeClock, places: int) -> LimitedUpstream:
    return LimitedUpstream(
        clock=clock,
        per_minute=chance.choice([60, 300, 3000]),
        places=places + chance.choice([0, 0, 3]),
        semantics=chance.choice(["bucket", "window"]),
        tells=chance.choice(["headers", "retry-after", "nothing"]),
        seconds=3 * chance.random(),
    )


async def caller(source: Source[Any], clock: FakeClock, chance: random.Random) -> None:
    try:
        call = Call(clock=clock, random=chance)
        stream = await source.open(Request(url="http://upstream", body={"model": "m"}, call=call))
        try:
            await (drain(stream) if chance.random() < 0.7 else stream.receive())
        finally:
            await stream.aclose()
    except StreamError:
        pass


@pytest.mark.parametrize("seed", range(16))
async def test_whatever_callers_do_everything_comes_back(clock: FakeClock, seed: int) -> None:
    chance = random.Random(seed)
    places = chance.randrange(1, 6)
    limited = an_upstream(chance, clock, places)
    store = Store(clock=clock, slow=chance.randrange(3)) if seed % 2 else None
    limiter = ConcurrencyLimiter(limit=places, max_wait=chance.choice([5, 1000]), max_waiting=chance.choice([3, 1000]))
    rates = RateLimiter(requests_per_minute=chance.choice([None, 100]), max_wait=chance.choice([5, 1000]))
    source = Retry()(RateLimit(rates, shared=store)(Concurrency(limiter, shared=store)(limited)))

    tasks: list[asyncio.Task[None]] = []
    for _ in range(60):
        tasks.append(asyncio.create_task(caller(source, clock, chance)))
        await clock.sleep(chance.random() * chance.choice([0, 0.5]))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        if store is not None and chance.random() < 0.05:
            store.gone = not store.gone
    ends = await asyncio.gather(*tasks, return_exceptions=True)

    assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
    assert limited.most_open <= places
    free = limiter.places("")
    assert (free.in_use, len(free.line), len(rates.lane("upstream  m").line), limited.open_now) == (0, 0, 0, 0)
    if store is not None and not store.gone:
        await clock.sleep(limiter.lease)  # a place that was to be given back while the store was gone expires
        assert store.in_use == 0
