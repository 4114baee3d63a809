"""Processes that share the limits of one upstream in one Redis: each has clients that ask until its input is closed.

One program becomes all of them, so that the library is imported once. Each says in the end, in one line, what became of
its calls.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from random import Random
from typing import Any

from bench.fleet.run import ask, request_to
from bench.fleet.scenarios import Layer
from holdfast import (
    AiohttpSource,
    Concurrency,
    ConcurrencyLimiter,
    Pipe,
    RateLimit,
    RateLimiter,
    Retry,
    parse_sse,
    verify,
)
from holdfast._clock import SystemClock
from holdfast.stores import RedisState

CLIENTS = 6
PLACES = 10
PER_SECOND = 20


async def main(number: int, redis_url: str, upstream: str) -> None:
    shared, clock, source = RedisState(redis_url, timeout=1.0, pause=0.3), SystemClock(), AiohttpSource()
    traffic: list[Layer] = [
        Concurrency(ConcurrencyLimiter(limit=PLACES), shared=shared),
        RateLimit(RateLimiter(requests_per_minute=60 * PER_SECOND, burst=0.5), shared=shared),
    ]
    # Without the store each process sends as much as all may together: many are refused, some of them several times.
    layers: list[Layer] = [*traffic, Retry(attempts=16)]
    pipe: Pipe[Any] = Pipe(source, random=Random(number), max_requests=16) | parse_sse() | verify("openai")
    for layer in layers:
        pipe = pipe | layer
    over = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))

    async def client(chance: Random) -> Counter[str]:
        ended = Counter[str]()
        while not over.done():
            ended[(await ask(pipe, clock, number, request_to(upstream, chance))).error or "answered"] += 1
        return ended

    counts = await asyncio.gather(*(client(Random(f"{number} {place}")) for place in range(CLIENTS)))
    os.write(1, json.dumps(sum(counts, Counter[str]())).encode() + b"\n")
    await source.aclose()
    await shared.aclose()


if __name__ == "__main__":
    children = []
    for place in range(1, int(sys.argv[3])):
        child = os.fork()
        if not child:
            asyncio.run(main(place, sys.argv[1], sys.argv[2]))
            os._exit(0)
        children.append(child)
    asyncio.run(main(0, sys.argv[1], sys.argv[2]))
    for child in children:
        os.waitpid(child, 0)
