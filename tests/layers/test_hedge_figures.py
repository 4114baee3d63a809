"""What hedging is worth, on fake time: of first tokens, three in a hundred take ten times as long."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from holdfast._core import Call
from holdfast._types import Request
from holdfast.layers.hedge import Hedge
from holdfast.testing import FakeClock
from tests.pages import ROOT
from tests.puppet import Puppet, Script, Wait

PAGE = ROOT / "docs/hedge.md"
CALLS = 2_000
SLOW, TIMES = 0.03, 10.0


@dataclass
class Upstream:
    """Answers with a log-normal first token around 0.4 s."""

    chance: random.Random
    requests: int = 0
    drawn: list[float] = field(default_factory=list)

    async def open(self, request: Request) -> Any:
        self.requests += 1
        seconds = self.chance.lognormvariate(-0.9, 0.25) * (TIMES if self.chance.random() < SLOW else 1.0)
        self.drawn.append(seconds)
        return await Puppet(Script(Wait(seconds), "first")).open(request)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * len(values))]


async def first_contents(clock: FakeClock, upstream: Upstream, hedge: Hedge | None) -> list[float]:
    source: Any = hedge(upstream) if hedge is not None else upstream
    took = []
    for _ in range(CALLS):
        started = clock.now()
        stream = await source.open(Request(call=Call(clock=clock, keep=False)))
        await stream.receive()
        took.append(clock.now() - started)
        await stream.aclose()
    return took


def row(name: str, took: list[float], upstream: Upstream) -> str:
    p50, p95, p99 = (percentile(took, share) for share in (0.5, 0.95, 0.99))
    return f"| {name} | {p50:.2f} s | {p95:.2f} s | {p99:.2f} s | {upstream.requests:,} |"


@pytest.mark.parametrize("seed", [1, 2])
async def test_p99_of_the_first_content_is_halved_for_a_twentieth_more_requests(clock: FakeClock, seed: int) -> None:
    plain, hedged = (Upstream(random.Random(seed)) for _ in range(2))
    without = await first_contents(clock, plain, None)
    having = await first_contents(clock, hedged, Hedge())
    extra = hedged.requests / plain.requests - 1
    assert percentile(having, 0.99) < percentile(without, 0.99) / 2
    assert 0 < extra <= 0.05
    assert percentile(having, 0.5) <= percentile(without, 0.5) * 1.02
    if seed == 1:
        rows = [row("without", without, plain), row("with `Hedge()`", having, hedged)]
        assert "\n".join(rows) in PAGE.read_text("utf-8")
