"""What is played: the scenarios, and the layers that a run has on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pybreaker

from bench.fleet.upstream import ANSWER_SECONDS, MAX_TOKENS, BrownOut, Limits
from holdfast import (
    CircuitBreaker,
    Concurrency,
    ConcurrencyLimiter,
    Fallback,
    Hedge,
    RateLimit,
    RateLimiter,
    Source,
    Throughput,
    Timeouts,
    Upstream,
)

Layer = Callable[[Source[Any]], Source[Any]]
NAMES = ("RateLimit", "Concurrency", "RetryBudget", "CircuitBreaker", "Hedge", "Throughput", "Fallback")
OFF: frozenset[str] = frozenset()
ALL = frozenset(NAMES)
RESET = 30.0
"""Seconds that an open circuit waits for its next probe: the default of a `Client`."""
CLOCKS = Timeouts(first_token=20, progress=20)
"""Seconds, in every run: providers allow minutes, and a fleet cannot."""
PROMPT = 60
"""Words of a prompt, in the mean."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What the clients want and what they meet. Each of `clients` asks, reads, and thinks for `think` seconds."""

    name: str
    about: str
    clients: int = 1000
    think: float = 90.0
    seconds: float = 180.0
    regions: tuple[str, ...] = ("east",)
    limits: Limits = field(default_factory=Limits)
    brown_outs: Sequence[BrownOut] = ()
    tail: float = 0.0
    seed: int = 1

    @property
    def capacity(self) -> float:
        """Answers a second, all regions well."""
        limits = self.limits
        return len(self.regions) * min(
            limits.requests / 60, limits.tokens / 60 / (PROMPT + MAX_TOKENS), limits.workers / ANSWER_SECONDS
        )

    @property
    def wanted(self) -> float:
        """Answers a second that the clients would read if none was late."""
        return self.clients / (self.think + ANSWER_SECONDS)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can do anything here."""
        return NAMES if len(self.regions) > 1 else NAMES[:-1]


SCENARIOS = (
    Scenario(
        name="crowd",
        about="The clients want 2.5 times the requests a minute that the upstream takes.",
        think=25.0,
        limits=Limits(workers=100, places=200),
    ),
    Scenario(
        name="tokens",
        about="The clients want 2.5 times the tokens a minute that the upstream takes.",
        think=25.0,
        limits=Limits(requests=100_000, tokens=15 * 60 * (PROMPT + MAX_TOKENS), workers=100, places=200),
    ),
    Scenario(
        name="places",
        about="The clients want 1.5 times as many streams at a time as the upstream has workers; no limit is told.",
        think=42.0,
        limits=Limits(requests=100_000, workers=25, places=40),
    ),
    Scenario(
        name="outage",
        about="The upstream takes all that is wanted, and is gone for a minute.",
        brown_outs=[BrownOut("outage", 60, 120)],
    ),
    Scenario(
        name="slow phase",
        about="For a minute everything takes four times as long, and the queue grows.",
        brown_outs=[BrownOut("slow", 60, 120)],
    ),
    Scenario(
        name="late tokens",
        about="3 % of the first tokens take ten times as long.",
        tail=0.03,
    ),
    Scenario(
        name="half-dead region",
        about="There are two regions; of one, half of all requests fail, fall silent or crawl for a minute.",
        regions=("east", "west"),
        limits=Limits(requests=600, workers=27, places=40),
        brown_outs=[BrownOut("half-dead", 60, 120, "east")],
    ),
)
DAY = Scenario(
    name="a bad day",
    about="Two regions: a full outage, a slow phase, a region that is half dead, one after another.",
    seconds=480.0,
    regions=("east", "west"),
    limits=Limits(requests=450, workers=20, places=30),
    think=82.0,
    brown_outs=[BrownOut("outage", 60, 120), BrownOut("slow", 200, 260), BrownOut("half-dead", 340, 400, "east")],
    tail=0.03,
)


def breaker(name: str) -> CircuitBreaker:
    """A breaker with the settings of a `Client`'s own; it stands left of `Retry`, to spare the upstream."""
    return CircuitBreaker(
        pybreaker.CircuitBreaker(fail_max=5, reset_timeout=RESET, name=name, throw_new_error_on_trip=False)
    )


def traffic(scenario: Scenario, on: frozenset[str]) -> list[Layer]:
    """Gives the layers that see every attempt, from the wire to the reader. All but `adaptive` are defaults."""
    layers: list[Layer] = []
    if "Throughput" in on:
        layers.append(Throughput(floor=1.0))
    if "Concurrency" in on:
        layers.append(Concurrency(ConcurrencyLimiter(adaptive="aimd")))
    if "RateLimit" in on:
        layers.append(RateLimit(RateLimiter()))
    if "Fallback" in on and len(scenario.regions) > 1:
        own = {name: [breaker(name)] if "CircuitBreaker" in on else [] for name in scenario.regions}
        layers.append(
            Fallback(
                upstreams=[
                    Upstream("openai", base_url=address(name), api_key="sk-fleet", name=name, layers=own[name])
                    for name in scenario.regions
                ],
                choose="least-loaded",
            )
        )
    elif "CircuitBreaker" in on:
        layers.append(breaker("upstream"))
    if "Hedge" in on:
        layers.append(Hedge())
    return layers


def address(region: str) -> str:
    return f"http://{region}"
