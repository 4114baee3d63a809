"""The layers that the settings ask for: over each upstream alone, and over all that answer one request.

What outlives a stream (a breaker, a limit, what a hedge has learned) is made once for a gateway, and is the same at
every surface: an upstream has one account, whatever it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from holdfast._core import Source
from holdfast._errors import NotAStream, StatusError, StreamBroken
from holdfast.dialects import Dialect, Timeouts
from holdfast.gateway.settings import Settings, UpstreamSettings
from holdfast.layers.breaker import CircuitBreaker
from holdfast.layers.concurrency import Concurrency
from holdfast.layers.deadline import Deadline
from holdfast.layers.hedge import Hedge
from holdfast.layers.rate_limit import RateLimit
from holdfast.machines.concurrency import ConcurrencyLimiter
from holdfast.machines.rate_limiter import RateLimiter
from holdfast.machines.retry_budget import RetryBudget
from holdfast.upstreams import breaker_of

Layer = Callable[[Source[Any]], Source[Any]]


class Traffic:
    """What bounds and speeds up what a gateway sends. `names` are the upstreams', in their order."""

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        named = list(zip(names, settings.upstreams, strict=True))
        self.breakers = {name: _breaker(name, one) for name, one in named}
        self._limits = {name: _limits(name, one) for name, one in named}
        hedge, budget = settings.hedge, settings.retry_budget
        self.over: list[Layer] = [] if hedge is None else [Hedge(delay=hedge.delay, share=hedge.share)]
        """Layers over all upstreams that answer a request, right of what chooses among them."""
        self.retry_budget = (
            None if budget is None else RetryBudget(ratio=budget.ratio, floor=budget.floor, burst=budget.burst)
        )

    def own(self, name: str, settings: UpstreamSettings) -> list[Layer]:
        """Gives the layers over one upstream, from the wire on: its clocks, its breaker, its limits."""
        clocks = settings.timeouts
        own: list[Layer] = []
        if clocks.open or clocks.first_token or clocks.progress:
            own.append(Deadline(open=clocks.open, first_token=clocks.first_token, progress=clocks.progress))
        return [*own, self.breakers[name], *self._limits[name]]


def timeouts_of(served: Sequence[tuple[UpstreamSettings, Dialect]]) -> Timeouts:
    """Gives the clocks over several upstreams: none may cut short what one of them is allowed."""
    each = [settings.timeouts.over(dialect.timeouts) for settings, dialect in served]
    values = {clock.name: [getattr(one, clock.name) for one in each] for clock in fields(Timeouts)}
    return Timeouts(**{name: max(found) for name, found in values.items() if None not in found})


def _breaker(name: str, settings: UpstreamSettings) -> CircuitBreaker:
    """Makes a breaker that opens where an upstream does not answer, and not where answers are cut on their way.

    A line that is lost takes all answers on it with it, many in a row: each of them is resumed, and must not find the
    door shut. Who cuts again and again is left by `Fallback`, where there is another. A 429 is an answer, too, and so
    is what is of the other kind than was asked for: a document, or events.
    """
    at = settings.breaker
    harmless = (StreamBroken, _asks_for_less, _of_another_kind)
    return CircuitBreaker(breaker_of(name, failures=at.failures, seconds=at.seconds, harmless=harmless))


def _asks_for_less(error: Exception) -> bool:
    return isinstance(error, StatusError) and error.status == 429


def _of_another_kind(error: Exception) -> bool:
    return isinstance(error, NotAStream) and not error.retryable


def _limits(name: str, settings: UpstreamSettings) -> list[Layer]:
    limits: list[Layer] = []
    if settings.concurrency is not None:
        limits.append(Concurrency(ConcurrencyLimiter(limit=settings.concurrency, name=name)))
    requests, tokens = settings.requests_per_minute, settings.tokens_per_minute
    if requests is not None or tokens is not None:
        limits.append(RateLimit(RateLimiter(requests_per_minute=requests, tokens_per_minute=tokens, name=name)))
    return limits


__all__ = ["Traffic", "timeouts_of"]
