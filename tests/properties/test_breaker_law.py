"""A breaker and streams that outlast its states: an outcome counts only in the state that admitted its stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pybreaker
from hypothesis import given
from hypothesis import strategies as st

from holdfast._core import Call, Source, Stream
from holdfast._errors import CircuitOpen, EndOfStream, StreamBroken
from holdfast._types import Head, Request
from holdfast.layers.breaker import CircuitBreaker
from holdfast.testing import FakeClock
from tests.properties.profile import examples

Act = tuple[Literal["open", "end", "fail", "leave", "wait"], int]
"""What happens, and to which of the open streams; how they are counted does not matter."""
ACTS = st.lists(
    st.tuples(st.sampled_from(("open", "open", "end", "fail", "fail", "leave", "wait")), st.integers(0, 2)),
    min_size=6,
    max_size=24,
)


@dataclass(slots=True)
class Told:
    """A source whose streams end as they are told."""

    streams: list[ToldStream] = field(default_factory=list)

    async def open(self, request: Request) -> Stream[Any]:
        self.streams.append(ToldStream())
        return self.streams[-1]


@dataclass(slots=True)
class ToldStream:
    head: Head = field(default_factory=Head)
    fails: bool = False

    async def receive(self) -> Sequence[Any]:
        raise StreamBroken("as told") if self.fails else EndOfStream

    async def aclose(self) -> None:
        """Nothing to give back."""


class Changes(pybreaker.CircuitBreakerListener):
    """Counts the changes of a circuit: its generation."""

    def __init__(self) -> None:
        self.count = 0

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.count += 1


async def live(layer_over: Callable[[pybreaker.CircuitBreaker], CircuitBreaker], acts: Sequence[Act]) -> None:
    """Plays the acts; raises `AssertionError` where a late outcome changes the circuit, or two streams probe it."""
    changes = Changes()
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=10, listeners=[changes], throw_new_error_on_trip=False)
    told = Told()
    source: Source[Any] = layer_over(breaker)(told)
    open_now: list[tuple[Any, ToldStream, int]] = []
    async with FakeClock() as clock:
        for act, number in acts:
            if act == "wait":
                await clock.advance(11)
            elif act == "open":
                try:
                    stream = await source.open(Request(call=Call(clock=clock)))
                except CircuitOpen:
                    continue
                open_now.append((stream, told.streams[-1], changes.count))
                if breaker.current_state == "half-open":
                    assert sum(born == changes.count for _, _, born in open_now) == 1, "two streams probe"
            elif open_now:
                await _finish(act, open_now.pop(number % len(open_now)), breaker, changes)


async def _finish(act: str, one: tuple[Any, ToldStream, int], breaker: Any, changes: Changes) -> None:
    stream, inner, born = one
    inner.fails = act == "fail"
    before = (breaker.current_state, breaker.fail_counter)
    late = born != changes.count
    if act != "leave":
        with contextlib.suppress(EndOfStream, StreamBroken):
            await stream.receive()
    await stream.aclose()
    if late or act == "leave":
        after = (breaker.current_state, breaker.fail_counter)
        assert after == before, f"a stream of {changes.count - born} states ago made of {before} {after}"


def law(layer_over: Callable[[pybreaker.CircuitBreaker], CircuitBreaker], acts: Sequence[Act]) -> None:
    asyncio.run(live(layer_over, acts))


@examples(100)
@given(ACTS)
def test_an_outcome_counts_only_in_the_state_that_admitted_its_stream(acts: list[Act]) -> None:
    law(CircuitBreaker, acts)
