"""Plays one scenario with some layers on, and keeps what became of every call and every request."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from random import Random
from typing import Any

from bench.fleet.scenarios import CLOCKS, PROMPT, Scenario, address, traffic
from bench.fleet.upstream import MAX_TOKENS, TEXT, Region, Upstreams
from holdfast import Pipe, Request, RetryBudget, StreamError, default_layers
from holdfast._clock import Clock
from holdfast.testing import FakeClock


@dataclass(frozen=True)
class Asked:
    """One call of one client: `first` is seconds to the first token, None where none came; no `error`: answered."""

    client: int
    started: float
    ended: float
    first: float | None
    requests: int
    error: str


@dataclass
class Run:
    """All that happened. `requests` has the time and the status of each that reached an upstream."""

    scenario: Scenario
    on: frozenset[str]
    calls: list[Asked] = field(default_factory=list)
    requests: list[tuple[float, int]] = field(default_factory=list)
    open_after: int = 0
    """Streams that an upstream still had open when all clients had gone: there must be none."""


def play(scenario: Scenario, on: frozenset[str]) -> Run:
    """Plays it, the same way every time."""
    gc.collect()
    return asyncio.run(_play(scenario, on))


async def _play(scenario: Scenario, on: frozenset[str]) -> Run:
    run, chance = Run(scenario, on), Random(scenario.seed)
    async with FakeClock() as clock:
        regions = {
            name: Region(
                name=name,
                limits=scenario.limits,
                clock=clock,
                chance=Random(chance.random()),
                brown_outs=scenario.brown_outs,
                tail=scenario.tail,
            )
            for name in scenario.regions
        }
        budget = RetryBudget() if "RetryBudget" in on else None
        pipe: Pipe[Any] = Pipe(Upstreams(regions), clock=clock, random=Random(chance.random()), retry_budget=budget)
        for layer in default_layers("openai", timeouts=CLOCKS, traffic=traffic(scenario, on)):
            pipe = pipe | layer

        async def client(number: int, chance: Random) -> None:
            region = scenario.regions[number % len(scenario.regions)]
            await clock.sleep(chance.expovariate(1 / scenario.think))
            while clock.now() < scenario.seconds:
                run.calls.append(await ask(pipe, clock, number, request_to(address(region), chance)))
                await clock.sleep(chance.expovariate(1 / scenario.think))

        clients = [client(number, Random(chance.random())) for number in range(scenario.clients)]
        await asyncio.gather(*clients)
    run.requests = sorted(asked for region in regions.values() for asked in region.asked)
    run.open_after = sum(region.open_now for region in regions.values())
    return run


async def ask(pipe: Pipe[Any], clock: Clock, client: int, request: Request) -> Asked:
    """Asks once. Raises `AssertionError` for an answer that is not what the upstream said."""
    started, error, stream = clock.now(), "", pipe.stream(request)
    try:
        answer = await stream
    except StreamError as failure:
        error = type(failure).__name__
    else:
        if answer.text != TEXT:
            raise AssertionError(f"an answer is not what the upstream said: {answer.text!r}")
    report = stream.report
    return Asked(client, started, clock.now(), report.first_delta_seconds, report.attempts, error)


def request_to(base_url: str, chance: Random) -> Request:
    """Makes a request with a prompt of some length."""
    prompt = "word " * (chance.randrange(2 * PROMPT - 1)) + "word"
    body = {
        "model": "fleet",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MAX_TOKENS,
        "stream": True,
        "temperature": 0,
        "seed": 1,
    }
    return Request(url=f"{base_url}/v1/chat/completions", body=body)
