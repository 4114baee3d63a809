"""What becomes of shared state is told by every layer that asks it: in the call's moments, log lines and numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pybreaker
import pytest

from holdfast import Budget, CircuitBreaker, Client, Concurrency, MemorySource, RateLimit, configure_logs
from holdfast.moments import SharedBack, SharedLost
from holdfast.testing import FakeClock
from tests.layers.store import Store
from tests.telemetry.backends import configured

BODY = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
LAYERS: dict[str, Callable[[Any], Any]] = {
    "budget": lambda shared: Budget(limit="1", shared=shared),
    "breaker": lambda shared: CircuitBreaker(pybreaker.CircuitBreaker(), shared=shared),
    "concurrency": lambda shared: Concurrency(shared=shared),
    "rate limit": lambda shared: RateLimit(shared=shared),
}


@pytest.mark.parametrize("layer", sorted(LAYERS))
async def test_a_layer_tells_once_what_became_of_the_store(clock: FakeClock, layer: str) -> None:
    log, store = io.StringIO(), Store(clock=clock, gone=True)
    source = MemorySource(*[[BODY]] * 3)
    with configured() as told:
        configure_logs(log)
        try:
            client = Client("openai", api_key="k", source=source, clock=clock, traffic=[LAYERS[layer](store)])
            async with client:
                store.untold = [SharedLost(name="shop", reason="no answer in 0.25 s")]
                for up in (0, 0, 1):
                    if up:
                        store.untold = [SharedBack(name="shop", seconds=2.5)]
                    await client.stream({"model": "gpt-4.1", "messages": []})
                    assert told.prometheus("holdfast_shared_up", shared="shop") == up
                    assert told.otel("holdfast.shared_up", holdfast__shared="shop") == up
        finally:
            configure_logs(level=None)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (lost,) = [line for line in lines if line["event"] == "shared.lost"]
    (back,) = [line for line in lines if line["event"] == "shared.back"]
    assert (lost["level"], lost["name"], lost["reason"]) == ("warning", "shop", "no answer in 0.25 s")
    assert (back["level"], back["seconds"]) == ("warning", 2.5)
