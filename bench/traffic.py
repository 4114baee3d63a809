"""What the traffic layers cost: the same answers with none of them, with each, and with all at once.

16 events a read from memory, the client with its default layers. What a stream pays once is seen in answers of 16
events, what each event pays in one of 4,096. The floor is the client without them, in the same run.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

from bench.telemetry import ASKED, BATCH, body
from holdfast import (
    Budget,
    Client,
    Concurrency,
    ConcurrencyLimiter,
    Hedge,
    MemorySource,
    RateLimit,
    RateLimiter,
    RetryBudget,
    Throughput,
    Upstream,
)

SIZES = (16, 4_096)


def _rate() -> RateLimit:
    return RateLimit(RateLimiter(requests_per_minute=1e9, tokens_per_minute=1e12))


def _several() -> dict[str, Any]:
    return {"upstreams": [Upstream("deepseek", api_key="a", name="a"), Upstream("deepseek", api_key="b", name="b")]}


def _every() -> dict[str, Any]:
    layers = [Throughput(floor=1), Concurrency(ConcurrencyLimiter(limit=100)), _rate(), Hedge(delay=60)]
    return {**_several(), "traffic": [*layers, Budget(limit="1000000")], "retry_budget": RetryBudget()}


WITH: dict[str, Callable[[], dict[str, Any]]] = {
    "off": dict,
    "RetryBudget": lambda: {"retry_budget": RetryBudget()},
    "Throughput": lambda: {"traffic": [Throughput(floor=1)]},
    "Concurrency": lambda: {"traffic": [Concurrency(ConcurrencyLimiter(limit=100))]},
    "RateLimit": lambda: {"traffic": [_rate()]},
    "Hedge": lambda: {"traffic": [Hedge(delay=60)]},
    "Budget": lambda: {"traffic": [Budget(limit="1000000")]},
    "Fallback": _several,
    "all": _every,
}


async def _read(client: Client, events: int) -> None:
    seen = 0
    async with client.stream(ASKED, keep=False) as deltas:
        async for batch in deltas.batches():
            seen += len(batch)
    if seen < events:
        raise SystemExit(f"{events - seen} events were lost")


async def _seconds(client: Client, events: int) -> float:
    """Seconds of CPU for one stream."""
    turns = max(2, 2_048 // events)
    await _read(client, events)
    gc.collect()
    gc.disable()
    before = time.process_time()
    for _ in range(turns):
        await _read(client, events)
    taken = (time.process_time() - before) / turns
    gc.enable()
    return taken


def measure(rounds: int = 20) -> dict[int, dict[str, float]]:
    """Gives, by events of an answer, seconds of CPU for one stream of each: the least of interleaved rounds."""

    async def all_rounds() -> dict[int, dict[str, float]]:
        best = {events: dict.fromkeys(WITH, float("inf")) for events in SIZES}
        for events in SIZES:
            clients: dict[str, Client] = {}
            for name, make in WITH.items():
                settings = make()
                if "upstreams" not in settings:
                    settings["api_key"] = "k"
                clients[name] = Client(source=MemorySource(body(events)), **settings)
            for _ in range(rounds):
                for name, client in clients.items():
                    best[events][name] = min(best[events][name], await _seconds(client, events))
        return best

    return asyncio.run(all_rounds())


def more_per_event(best: dict[int, dict[str, float]]) -> dict[str, float]:
    """Microseconds that each adds to an event of a long answer, what its stream pays once left out."""
    short, long = min(SIZES), max(SIZES)
    return {
        name: ((best[long][name] - best[long]["off"]) - (best[short][name] - best[short]["off"])) / (long - short) * 1e6
        for name in WITH
        if name != "off"
    }


__all__ = ["BATCH", "measure", "more_per_event"]
