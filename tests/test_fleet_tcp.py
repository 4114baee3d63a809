"""The fleet at a smaller size over real TCP: fifty clients, an upstream with limits, and an outage in the middle."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from bench.fleet.run import ask, request_to
from bench.fleet.scenarios import Layer
from bench.fleet.upstream import BrownOut, Limits, Region
from holdfast import (
    AiohttpSource,
    Concurrency,
    ConcurrencyLimiter,
    Hedge,
    Pipe,
    RateLimit,
    RateLimiter,
    RetryBudget,
    Throughput,
    default_layers,
)
from holdfast._clock import SystemClock
from tests.limited_server import limited_server

CLIENTS, EACH = 50, 5
OUTAGE = BrownOut("outage", 2.0, 2.5)


async def test_fifty_clients_stay_within_the_limits_and_outlive_an_outage() -> None:
    """At forty answers a second; every answer is held against what the server said."""
    clock = SystemClock()
    began = clock.now()
    region = Region(
        name="here",
        limits=Limits(requests=80, window=2.0, places=30, workers=20),
        clock=clock,
        chance=Random(1),
        brown_outs=[BrownOut(OUTAGE.kind, began + OUTAGE.begin, began + OUTAGE.end)],
        haste=10.0,
    )
    aimd = ConcurrencyLimiter(adaptive="aimd")
    traffic: list[Layer] = [Throughput(floor=1.0), Concurrency(aimd), RateLimit(RateLimiter()), Hedge()]
    source = AiohttpSource()
    async with limited_server(region) as server:
        pipe: Pipe[Any] = Pipe(source, retry_budget=RetryBudget(), random=Random(1))
        for layer in default_layers("openai", traffic=traffic):
            pipe = pipe | layer

        async def client(number: int) -> list[str]:
            chance = Random(number)
            return [(await ask(pipe, clock, number, request_to(server.url, chance))).error for _ in range(EACH)]

        errors = [error for its in await asyncio.gather(*map(client, range(CLIENTS))) for error in its]
        await source.aclose()
        assert await server.all_closed()
    refused = [at - began for at, status in region.asked if status == 429]
    assert errors.count("") >= 0.9 * len(errors)
    assert set(errors) <= {"", "StatusError", "ConnectError"}
    assert len(region.asked) <= 1.2 * len(errors)
    assert len([at for at in refused if at > 1.0]) <= 0.01 * len(region.asked)
    assert region.open_now == aimd.places("").in_use == 0
