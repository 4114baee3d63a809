"""Throughput turns an answer that has become too slow into a failure, and knows a slow reader from a slow upstream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast._errors import DeadlineExceeded, UsageError
from holdfast._pipe import Pipe
from holdfast._types import Delta, Event, Request
from holdfast.layers.parse import parse_sse
from holdfast.layers.reconnect import Reconnect
from holdfast.layers.throughput import Throughput
from holdfast.moments import Moment, Stalled
from holdfast.testing import FakeClock, cancel_everywhere, check_layer
from tests.puppet import Puppet, Wait, drain, request_on

ROLE = Delta(raw=Event())
DONE = Delta(raw=Event(), finish_reason="stop")


def piece(text: str = "a") -> Delta:
    return Delta(raw=Event(), text=text)


def flow(count: int, every: float, *, size: int = 1) -> list[Any]:
    """So many batches, so many seconds apart."""
    return [step for _ in range(count) for step in (Wait(every), [piece()] * size)]


async def opened(clock: FakeClock, layer: Throughput, *script: Any, **request: Any) -> Any:
    return await layer(Puppet(list(script))).open(request_on(clock, **request))


# -- the floor -----------------------------------------------------------------------------------


async def test_a_flow_over_the_floor_is_let_through(clock: FakeClock) -> None:
    stream = await opened(clock, Throughput(floor=2, over=5), *flow(100, 0.49), DONE)
    assert len(await drain(stream)) == 101
    await stream.aclose()


async def test_an_upstream_that_falls_under_the_floor_fails_when_it_has_been_under_it_for_so_long(
    clock: FakeClock,
) -> None:
    told: list[Moment] = []
    stream = await opened(clock, Throughput(floor=2, over=5), *flow(20, 0.1), *flow(100, 2.0), listeners=[told.append])
    with pytest.raises(DeadlineExceeded, match="fewer than 2 deltas a second came for 5 s") as raised:
        await drain(stream)
    assert (raised.value.clock, raised.value.seconds, raised.value.retryable) == ("throughput", 5, True)
    assert clock.now() == pytest.approx(1.3 + 5.0), "the tenth delta from the last was five seconds old"
    (stalled,) = told
    assert isinstance(stalled, Stalled)
    assert (stalled.clock, stalled.seconds) == ("throughput", 5)
    with pytest.raises(DeadlineExceeded):
        await stream.receive()
    await stream.aclose()


async def test_before_the_first_content_another_clock_runs(clock: FakeClock) -> None:
    stream = await opened(clock, Throughput(floor=2, over=5), ROLE, Wait(300.0), ROLE, piece(), DONE)
    assert len(await drain(stream)) == 4
    await stream.aclose()


async def test_after_the_finish_reason_nothing_flows_any_more(clock: FakeClock) -> None:
    stream = await opened(clock, Throughput(floor=2, over=5), piece(), DONE, Wait(60.0), ROLE)
    assert len(await drain(stream)) == 3
    await stream.aclose()


async def test_padding_is_no_flow(clock: FakeClock) -> None:
    padding = [step for _ in range(100) for step in (Wait(0.1), ROLE)]
    stream = await opened(clock, Throughput(floor=1, over=5), piece(), *padding)
    with pytest.raises(DeadlineExceeded):
        await drain(stream)
    assert clock.now() == 5.0
    await stream.aclose()


async def test_a_batch_counts_as_what_is_in_it(clock: FakeClock) -> None:
    stream = await opened(clock, Throughput(floor=10, over=5), *flow(10, 4.9, size=50), DONE)
    assert len(await drain(stream)) == 501
    await stream.aclose()


async def test_a_reader_that_takes_its_time_makes_no_slow_upstream(clock: FakeClock) -> None:
    stream = await opened(clock, Throughput(floor=2, over=5), *flow(30, 0.4), DONE)
    for _ in range(31):
        await stream.receive()
        await clock.sleep(60.0)
    await stream.aclose()


async def test_an_upstream_that_always_has_something_at_hand_meets_the_clock_too(clock: FakeClock) -> None:
    class Idle:
        """Padding without end, each taking a while: the alarm never gets its turn."""

        head = None

        async def open(self, request: Request) -> Any:
            return self

        async def receive(self) -> list[Delta]:
            clock._now += 0.1
            return [piece()] if clock._now < 0.2 else [ROLE]

        async def aclose(self) -> None:
            pass

    stream = await Throughput(floor=1, over=5)(Idle()).open(request_on(clock))
    with pytest.raises(DeadlineExceeded):
        await drain(stream)


async def test_events_and_bytes_are_counted_too(clock: FakeClock) -> None:
    stream = await opened(clock, Throughput(floor=1, over=5), b"a", Wait(6.0), b"b")
    with pytest.raises(DeadlineExceeded):
        await drain(stream)
    await stream.aclose()


async def test_a_stream_that_crawls_is_resumed_elsewhere(clock: FakeClock) -> None:
    def wire(first: int, last: int, every: float) -> list[Any]:
        return [s for n in range(first, last) for s in (Wait(every), b"id: %d\ndata: %d\n\n" % (n, n))]

    puppet = Puppet(wire(0, 10, 0.1) + wire(10, 99, 4.0), wire(0, 30, 0.1))
    pipe = Pipe(puppet, clock=clock) | parse_sse() | Throughput(floor=2, over=5) | Reconnect()
    async with pipe.stream() as events:
        got = [event.data async for event in events]
    assert got == [str(number) for number in range(30)]
    assert clock.now() < 30.0
    assert [type(fault).__name__ for fault in events.report.faults] == ["DeadlineExceeded"]


# -- what is learned -----------------------------------------------------------------------------


async def test_a_gap_far_over_what_is_usual_is_too_long(clock: FakeClock) -> None:
    layer = Throughput(learned=True, times=5.0, shortest=0.5, least=50)
    stream = await opened(clock, layer, *flow(60, 0.2), Wait(30.0), piece(), DONE)
    await drain(stream)  # nothing was known when it began
    await stream.aclose()
    assert layer.gaps(request_on(clock)).value == pytest.approx(30.0)
    for _ in range(2):
        stream = await opened(clock, layer, *flow(60, 0.2), DONE)
        await drain(stream)
        await stream.aclose()
    assert layer.gaps(request_on(clock)).value == pytest.approx(0.2)
    started = clock.now()
    stream = await opened(clock, layer, *flow(10, 0.2), Wait(30.0), piece())
    with pytest.raises(DeadlineExceeded, match=r"no delta came for 1 s, 5 times the usual gap"):
        await drain(stream)
    assert clock.now() - started == pytest.approx(3.0)
    await stream.aclose()


async def test_no_gap_is_too_long_that_is_short(clock: FakeClock) -> None:
    layer = Throughput(learned=True, least=20)
    for _ in range(2):
        stream = await opened(clock, layer, *flow(30, 0.001), Wait(1.9), piece(), DONE)
        await drain(stream)
        await stream.aclose()


async def test_an_upstream_that_has_become_slower_is_learned_anew(clock: FakeClock) -> None:
    layer, failures = Throughput(learned=True, shortest=0.1, least=50), 0
    for every in (0.01, 0.02, *[1.0] * 8):
        stream = await opened(clock, layer, *flow(60, every), DONE)
        try:
            await drain(stream)
        except DeadlineExceeded:
            failures += 1
        await stream.aclose()
    assert 0 < failures < 8


# -- its place and its settings ------------------------------------------------------------------


async def test_a_second_reader_is_turned_away(clock: FakeClock) -> None:
    stream = await opened(clock, Throughput(floor=1), piece(), Wait(3.0), piece())
    await stream.receive()
    reader = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="a reader already"):
        await stream.receive()
    assert await reader == [piece()]
    await stream.aclose()


@pytest.mark.parametrize("layer", [Throughput(floor=1), Throughput(learned=True), Throughput(floor=1, learned=True)])
async def test_it_keeps_the_contract(layer: Throughput) -> None:
    await check_layer(layer, items=[piece(text) for text in "abcde"])


async def test_cancelled_anywhere_it_leaves_nothing_open(clock: FakeClock) -> None:
    puppets: list[Puppet] = []

    async def scenario() -> None:
        puppets.append(Puppet([*flow(3, 0.1), Wait(20.0), piece()]))
        async with (Pipe(puppets[-1], clock=clock) | Throughput(floor=1, over=5)).stream() as deltas:
            with pytest.raises(DeadlineExceeded):
                async for _ in deltas:
                    pass

    def check() -> None:
        assert not puppets[-1].live

    assert await cancel_everywhere(scenario, check=check) > 5


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({}, "needs a floor"),
        ({"floor": 0}, "floor"),
        ({"floor": 0.05}, "at least one delta in 10 s"),
        ({"floor": True}, "floor"),
        ({"floor": 1, "over": 0}, "over"),
        ({"learned": 1}, "learned"),
        ({"learned": True, "times": 0.5}, "times"),
        ({"learned": True, "least": 0}, "least"),
        ({"learned": True, "shortest": -1}, "shortest"),
    ],
)
def test_settings_that_cannot_be_are_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Throughput(**wrong)


def test_it_warns_of_a_place_where_nothing_goes_on() -> None:
    assert "! Throughput belongs left of Reconnect" in str(Pipe(Puppet()) | Reconnect() | Throughput(floor=1))
